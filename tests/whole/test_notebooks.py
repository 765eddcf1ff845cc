"""The notebooks: as the house style has them, as nbval finds them."""

import ast
import os
import re
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
from nbconvert import HTMLExporter
from papermill import inspect_notebook

from lib.engine import rows
from lib.study import identity, paths, syntax

NOTEBOOKS = identity.notebooks()
BATCHES = sorted((paths.ROOT / "batches").glob("*.yaml"))


@pytest.fixture(params=NOTEBOOKS)
def notebook(request):
    return nbformat.read(paths.NOTEBOOKS / f"{request.param}.ipynb", as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


def text_of(output):
    return output.get("text", "") + output.get("data", {}).get("text/plain", "")


def prose_of(notebook):
    """What people wrote: without the table that `make readme` writes."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.sub("<!-- kept -->.*?<!-- /kept -->", "", text, flags=re.DOTALL)


def uncommand(source):
    """A cell's Python, without IPython's own lines."""
    return "\n".join(line for line in source.splitlines() if not line.startswith(("%", "!")))


def is_parameters(cell):
    return "parameters" in cell.metadata.get("tags", [])


def test_the_study_has_its_notebooks():
    numbers = [name[:2] for name in NOTEBOOKS]
    assert {*(f"{number:02d}" for number in range(1, 13)), "90", "99"} == set(numbers)
    assert len(set(numbers)) == len(numbers), "two notebooks have one number"


def test_kernel_is_the_one_everybody_has(notebook):
    assert notebook.metadata.kernelspec.name == "python3"
    assert "papermill" not in notebook.metadata, "stored as written, not as executed by a batch"


def test_parameters_are_typed_literals_in_one_cell(notebook):
    (cell,) = filter(is_parameters, code(notebook))
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.AnnAssign), ast.unparse(statement)
        assert statement.annotation.id in syntax.TYPES
        assert type(ast.literal_eval(statement.value)).__name__ == statement.annotation.id, ast.unparse(statement)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_parameters_are_found(name):
    assert identity.check(name, {}) == identity.parameters_of(name)
    by_hand = inspect_notebook(str(paths.NOTEBOOKS / f"{name}.ipynb"))  # which stumbles over = in a remark
    assert by_hand.keys() == identity.parameters_of(name).keys()


def test_is_short(notebook):
    lines = [[line for line in cell.source.splitlines() if line.strip()] for cell in code(notebook)]
    assert sum(map(len, lines)) <= 170
    assert max(map(len, lines[1:])) <= 25, "the first, its parameters, is a table"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_file_is_small(name):
    assert (paths.NOTEBOOKS / f"{name}.ipynb").stat().st_size < 2 * 2**20


def test_outputs_are_stored_and_some_are_checked(notebook):
    checked = [cell for cell in code(notebook) if "# NBVAL_CHECK_OUTPUT" in cell.source]
    assert checked
    assert all(cell.outputs for cell in checked), "a checked cell without a stored output checks nothing"
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts in ([None] * len(counts), list(range(1, len(counts) + 1))), "run from top to bottom, once"
    assert not re.search(r"/(tmp|home|root|Users)/", "".join(map(text_of, outputs(notebook)))), "a machine's own path"
    kinds = {output.output_type for cell in code(notebook) for output in cell.outputs}
    assert "error" not in kinds
    assert any("image/png" in output.get("data", {}) for cell in code(notebook) for output in cell.outputs)


def test_says_what_counts_against_and_what_it_does_not_show(notebook):
    prose = prose_of(notebook)
    assert prose.startswith("# ")
    assert "## Limits" in prose


def test_rows_that_prose_names_are_there(notebook, request):
    named = re.findall(r"`([\w-]+)`[^`]{0,12}of\s+`batches/(\w+)\.yaml`", prose_of(notebook))
    for row, batch in named:
        assert row in rows.load(paths.ROOT / "batches" / f"{batch}.yaml").rows, f"{row} of {batch}"


def test_imports_are_in_one_cell(notebook):
    importing = [cell for cell in code(notebook) if re.search(r"^(import|from) ", cell.source, re.MULTILINE)]
    assert len(importing) == 1
    kinds = {type(statement) for statement in ast.parse(importing[0].source).body}
    assert kinds <= {ast.Import, ast.ImportFrom}


@pytest.mark.parametrize(
    ("name", "looked_up", "long"),
    [
        ("01_train_gan", "selection.extractor_of(features", "train.fit("),
        ("12_snapshots", "f\"claim = ", "train.fit("),
    ],
)  # fmt: skip
def test_what_a_parameter_names_is_looked_up_before_the_long_work(name, looked_up, long):
    source = "\n".join(cell.source for cell in code(nbformat.read(paths.NOTEBOOKS / f"{name}.ipynb", as_version=4)))
    assert -1 < source.find(looked_up) < source.find(long)


def test_cells_hold_ideas_and_no_machinery(notebook, request):
    functions = 6 if request.node.callspec.params["notebook"] == "90_explore" else 4  # there one for each panel
    statements = [node for cell in code(notebook) for node in ast.walk(ast.parse(uncommand(cell.source)))]
    assert not [node.name for node in statements if isinstance(node, ast.ClassDef)]
    assert sum(isinstance(node, ast.FunctionDef) for node in statements) <= functions


NUMBER = r"(?<![\w.])\d+\.\d+|(?<![\w.])\d+(?=\s?%)"


def quoted(prose, measured, known):
    """The decimals and percentages of a text that are among measured values, to the digits given, and not known."""
    found = set()
    for number in set(re.findall(NUMBER, prose)) - known:
        digits = len(number.partition(".")[2])
        telling = len(number.replace(".", "").lstrip("0")) >= 2
        if telling and any(float(number) in (round(v, digits), round(100 * v, digits)) for v in measured):
            found.add(number)
    return found


def test_prose_quotes_no_number_of_ours(notebook, request):
    """As far as a program can tell: no decimal or percentage of the prose is one that a run measured.

    Numbers that stand in a batch file, in code, or in data/published.csv are settings, or somebody else's.
    """
    name = request.node.callspec.params["notebook"]
    table = pd.read_csv(paths.ROOT / "results" / "table.csv")  # what git keeps, wherever runs go now
    measured = table.loc[table["notebook"] == name, ["value", "low", "high"]].stack().tolist()
    measured += [float(n) for output in outputs(notebook) for n in re.findall(NUMBER, text_of(output))]
    sources = [*BATCHES, *(paths.ROOT / "lib").rglob("*.py"), paths.PUBLISHED]
    known = "\n".join([path.read_text() for path in sources] + [cell.source for cell in code(notebook)])
    known += "95% " + " ".join(re.findall(r"(?i)sections? [\d. and]+|Figs?\. [\d. and]+", prose_of(notebook)))
    assert not quoted(prose_of(notebook), measured, set(re.findall(NUMBER, known)))


def test_a_quoted_number_is_found():
    assert quoted("We reach 61.3% and 0.82, see 6.1.", [0.6131, 0.818], {"6.1"}) == {"61.3", "0.82"}
    assert quoted("About 0.7 of 82.8%.", [0.7, 82.8], {"82.8"}) == set(), "one digit says little; 82.8 is the paper's"


@pytest.mark.parametrize("path", BATCHES, ids=lambda path: path.stem)
def test_batch_files_are_valid(path):
    assert rows.load(path).rows


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_nbval(name, tmp_path, tied):
    """Run a notebook as it is stored and compare the outputs of its checked cells."""
    command = [
        *tied, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "nbval.plugin", "--nbval-lax",
        "--nbval-current-env", "--nbval-cell-timeout", "120", paths.NOTEBOOKS / f"{name}.ipynb",
    ]  # fmt: skip
    done = subprocess.run(
        map(str, command),
        capture_output=True,
        text=True,
        cwd=paths.ROOT,
        env=os.environ | {"STUDY_RUNS": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert [*tmp_path.glob(f"{name}-*/metrics.json")]


def test_the_walk_plays_on_an_exported_page():
    """A reader without a kernel has a player with a slider: stored in the notebook, and kept by the export."""
    page, _ = HTMLExporter().from_filename(str(paths.NOTEBOOKS / "02_walk_latent_space.ipynb"))
    assert 'type="range"' in page
    assert page.count("data:image/png;base64") > 90, "eight legs of twelve frames"
