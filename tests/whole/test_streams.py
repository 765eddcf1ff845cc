"""Every draw has a stream of its own: no generator begins from a bare seed, wherever it is made."""

import ast
import re

import nbformat
import pytest

from lib.study import paths

STREAM = re.compile(r"(chance\.)?stream\(").match
SEEDED = {"manual_seed", "default_rng", "random_state"}
OF_A_SET = {  # by which a set of images is what it is, whatever a run's seed
    "images.pictures": ["[seed, i]"],  # a stream for each drawn image
    "images.sources": ["0"],  # which digits are for testing
}


def sources():
    for path in sorted((paths.ROOT / "lib").glob("*/*.py")):
        yield pytest.param(path.read_text(), id=f"{path.parent.name}.{path.stem}")
    for path in sorted((paths.ROOT / "notebooks").glob("[0-9]*.ipynb")):
        cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        yield pytest.param("\n".join(cells), id=path.stem)


def bare(source):
    """Return what seeds a generator, as source, where it is no stream: a call of one, or a name that was given one."""
    streams = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign):
            parts = (getattr(side, "elts", [side]) for side in (node.targets[0], node.value))
            streams |= {ast.unparse(name) for name, value in zip(*parts, strict=False) if STREAM(ast.unparse(value))}
    return [seed for seed in seeds(source) if seed not in streams and not STREAM(seed)]


def seeds(source):
    """Yield what seeds a generator, as source: the first argument of manual_seed(...), random_state=..., and so on."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in SEEDED:
                yield ast.unparse(node.args[0]) if node.args else ""
            yield from (ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg in SEEDED)


@pytest.mark.parametrize("source", list(sources()))
def test_no_generator_begins_from_a_bare_seed(source, request):
    assert bare(source) == OF_A_SET.get(request.node.callspec.id, [])


def test_a_bare_seed_would_be_found():
    wrong = "torch.manual_seed(seed); np.random.default_rng([seed, 1]); KMeans(random_state=seed); default_rng()"
    assert sorted(bare(wrong)) == ["", "[seed, 1]", "seed", "seed"]
    assert bare("a, own = seed, chance.stream(seed, 'x'); SVC(random_state=own); SVC(random_state=a)") == ["a"]
    assert bare("torch.Generator().manual_seed(chance.stream(seed, 'weights'))") == []
