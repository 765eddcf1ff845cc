"""Identity: what an edit costs. Which names of runs change, and which runs say that other code made them."""

import nbformat
import pytest

from lib.study import identity, manifest, paths

PARAMETERS = "steps: int = 3  # minibatches\nlr: float = 0.1\nname: str = 'x'\nfast: bool = True\nnet: str = 'none'"
NOTEBOOK = "from lib.gan import train\n", "run = 1\ntrain.fit(steps, lr)\n"
CODE = {
    "gan/train.py": '''"""Train."""
from lib.gan.game import play
from lib.look import figures

VERSIONS = {"training": 1}
ARCHITECTURES = {"wide": 64, "narrow": 16}


def fit(steps, lr):
    """Fit."""
    if steps < 1:
        raise ValueError(f"steps = {steps}: give one at leest")
    return [play(lr) for _ in range(steps)]  # a comment
''',
    "gan/game.py": "def play(lr):\n    return lr * 2\n",
    "gan/idle.py": 'VERSIONS = {"idle": 7}\n',
    "look/figures.py": "def show():\n    pass\n",
}


def write_notebook(folder, name, *cells, parameters=PARAMETERS, **metadata):
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
    notebook.metadata |= {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook.metadata |= metadata
    nbformat.write(notebook, folder / f"{name}.ipynb")


@pytest.fixture(autouse=True)
def study(tmp_path, monkeypatch):
    """A study of one notebook and a small lib of its own."""
    for name in ("STUDY_PRECISION", "STUDY_SOURCES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "NETS", tmp_path / "nets")
    monkeypatch.setattr(identity, "LIB", tmp_path / "lib")
    (tmp_path / "notebooks").mkdir()
    write_notebook(tmp_path / "notebooks", "01_one", *NOTEBOOK)
    for name, code in CODE.items():
        (tmp_path / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / name).write_text(code)
    return tmp_path


def edit(study, name, *change):
    path = study / "lib" / name
    old = path.read_text()
    assert change[0] in old
    path.write_text(old.replace(*change))


def in_lib(name, *change):
    return lambda study: edit(study, name, *change)


def in_notebook(*cells, **changed):
    return lambda study: write_notebook(study / "notebooks", "01_one", *cells, **changed)


def move_play(study):
    (study / "lib" / "nets").mkdir()
    (study / "lib" / "gan" / "game.py").rename(study / "lib" / "nets" / "match.py")
    edit(study, "gan/train.py", "lib.gan.game", "lib.nets.match")


EDITS = {  # what is edited: how, whether runs get other names, and what of their code is then another
    "a typo in an error's message": (in_lib("gan/train.py", "leest", "least"), False, []),
    "a comment": (in_lib("gan/train.py", "# a comment", "# another"), False, []),
    "a docstring": (in_lib("gan/train.py", '"""Fit."""', '"""Fit a net."""'), False, []),
    "line breaks": (in_lib("gan/train.py", "[play(lr)", "[\n        play(lr)"), False, []),
    "a new architecture": (in_lib("gan/train.py", '"wide": 64', '"wide": 64, "deep": 256'), False, []),
    "a new function": (in_lib("gan/train.py", "VERSIONS", "def more():\n    pass\n\n\nVERSIONS"), False, []),
    "how a figure looks": (in_lib("look/figures.py", "pass", "return 1"), False, []),
    "a module that no notebook reaches": (in_lib("gan/idle.py", "7", "8"), False, []),
    "prose of the notebook": (in_notebook("# remark", *NOTEBOOK), False, []),
    "a magic in the notebook": (in_notebook("  !nvidia-smi", *NOTEBOOK), False, ["01_one.statements", "01_one.cells"]),
    "a new parameter at its default": (in_notebook(*NOTEBOOK, parameters=f"{PARAMETERS}\nmore: int = 1"), False, []),
    "an architecture": (in_lib("gan/train.py", "64", "128"), False, ["gan.train.ARCHITECTURES['wide']"]),
    "a function": (in_lib("gan/game.py", "* 2", "* 3"), False, ["gan.game.play"]),
    "the notebook's code": (in_notebook(NOTEBOOK[0], "run = 2\ntrain.fit(steps, lr)"), False, ["01_one.run"]),
    "a cell that sets a parameter": (in_notebook("lr = 9", *NOTEBOOK), False, ["01_one.lr", "01_one.cells"]),
    "a function's place": (move_play, False, ["gan.train.import lib.nets.match.play"]),
    "a declared version": (
        in_lib("gan/train.py", '"training": 1', '"training": 2'),
        True,
        ["gan.train.VERSIONS['training']"],
    ),
    "a notebook's declared version": (in_notebook(*NOTEBOOK, versions={"one": 2}), True, []),
}


@pytest.mark.parametrize("what", EDITS)
def test_what_an_edit_costs(study, what):
    change, renames, differ = EDITS[what]
    given = {"steps": 7}
    name, code = identity.run_id("01_one", given), identity.code_of("01_one")
    change(study)
    assert (identity.run_id("01_one", given) != name) == renames
    now = identity.code_of("01_one")
    gone = set(code.values()) - set(now.values())
    assert ([place for place, found in now.items() if found not in code.values()] if gone else []) == differ
    assert bool(gone) == bool(differ)


# --- what a name holds


def test_a_run_is_named_after_what_it_depends_on():
    name = identity.run_id("01_one", {})
    assert name.startswith("01_one-") and len(name) == len("01_one-") + 10
    assert identity.run_id("01_one", {"steps": 3, "lr": 0.1}) == name, "defaults, said or not"
    others = [{"steps": 4}, {"steps": 5}, {"lr": 4}, {"name": "run:01_one-0123456789"}]
    assert len({name, *(identity.run_id("01_one", given) for given in others)}) == 5
    assert len({name, *(identity.run_id("01_one", {}, up) for up in (("a",), ("b",), ("a", "b"), ("b", "a")))}) == 4
    assert identity.identity_of("01_one", {"lr": 1, "fast": False}, ("b", "a")) == {
        "lr": "1.0", "fast": "false", "after": "a b",
    }  # fmt: skip


def test_the_name_holds_the_content_of_images_and_nets(study):
    (study / "photos" / "cat").mkdir(parents=True)
    (study / "nets").mkdir()
    image, net = study / "photos" / "cat" / "1.png", study / "nets" / "digits.safetensors"
    given = {"name": f"folder:{study}/photos", "net": "digits"}
    names = []
    for content in (b"one", b"two", b"one"):
        image.write_bytes(content)
        net.write_bytes(b"net")
        names.append(identity.run_id("01_one", given))
    assert names[0] == names[2] != names[1]
    net.write_bytes(b"ten")
    assert identity.run_id("01_one", given) != names[0]
    told = identity.identity_of("01_one", given)
    assert told["content of name"] == manifest.of_images(given["name"])
    assert told["content of net"] == manifest.of_net("digits")


def test_a_label_is_declared_once(study):
    edit(study, "gan/game.py", "def play", 'VERSIONS = {"training": 1}\n\n\ndef play')
    with pytest.raises(ValueError, match="two modules declare a version of training: give one another label"):
        identity.run_id("01_one", {})


def test_versions_of_a_module_are_those_that_it_reaches(study):
    assert identity.versions_of("lib.gan.train") == {}
    edit(study, "gan/game.py", "def play", 'VERSIONS = {"game": 3}\n\n\ndef play')
    assert identity.versions_of("lib.gan.train") == {"game": 3}
    assert identity.versions_of("lib.gan.idle") == {"idle": 7}


# --- parameters


@pytest.mark.parametrize(("cell", "message"), [("x = 3", "x needs a type"), ("x: int = 2 * 3", "must be a literal")])
def test_a_parameter_is_a_typed_literal(study, cell, message):
    write_notebook(study / "notebooks", "02_two", parameters=cell)
    with pytest.raises(ValueError, match=message):
        identity.parameters_of("02_two")


def test_parameters_of():
    found = identity.parameters_of("01_one")
    assert found == {"steps": 3, "lr": 0.1, "name": "x", "fast": True, "net": "none"}
    assert [type(value) for value in identity.check("01_one", {"lr": 2}).values()] == [int, float, str, bool, str]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"step": 3}, "has no parameter 'step': it has steps, lr, name, fast"),
        ({"steps": 3.0}, "steps = 3.0 is no int"),
        ({"steps": True}, "steps = True is no int"),
        ({"lr": "1e-3"}, "lr = '1e-3' is no float; YAML reads 1e-3 as text, write 1.0e-3"),
        ({"lr": float("nan")}, "lr = nan is no finite number"),
        ({"name": None}, "name = None is no str"),
        ({"fast": 1}, "fast = 1 is no bool"),
    ],
)
def test_a_wrong_parameter_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        identity.check("01_one", given)


def test_an_unknown_notebook_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="unknown notebook '1_one': choose one of 01_one"):
        identity.check("1_one", {})
