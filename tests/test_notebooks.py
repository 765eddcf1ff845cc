"""The notebooks: as the house style has them, as nbval finds them, and all of them once through the engine."""

import ast
import os
import subprocess
import sys

import nbformat
import pytest

from lib import paths, results, rows

NOTEBOOKS = results.notebooks()
BATCHES = sorted((paths.ROOT / "batches").glob("*.yaml"))


@pytest.fixture(params=NOTEBOOKS)
def notebook(request):
    return nbformat.read(paths.NOTEBOOKS / f"{request.param}.ipynb", as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_parameters(cell):
    return "parameters" in cell.metadata.get("tags", [])


def test_the_study_has_its_notebooks():
    assert [name[:2] for name in NOTEBOOKS] == ["01", "02", "03", "04", "05", "09", "10", "11", "99"]


def test_kernel_is_the_one_everybody_has(notebook):
    assert notebook.metadata.kernelspec.name == "python3"
    assert "papermill" not in notebook.metadata, "stored as written, not as executed by a batch"


def test_parameters_are_typed_literals_in_one_cell(notebook):
    (cell,) = filter(is_parameters, code(notebook))
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.AnnAssign), ast.unparse(statement)
        assert statement.annotation.id in results.TYPES
        assert type(ast.literal_eval(statement.value)).__name__ == statement.annotation.id, ast.unparse(statement)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_parameters_are_found(name):
    assert results.check_parameters(name, {}).keys() == results.parameters_of(name).keys()


def test_is_short(notebook):
    lines = [[line for line in cell.source.splitlines() if line.strip()] for cell in code(notebook)]
    assert sum(map(len, lines)) <= 170
    assert max(map(len, lines)) <= 25


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_file_is_small(name):
    assert (paths.NOTEBOOKS / f"{name}.ipynb").stat().st_size < 2 * 2**20


def test_outputs_are_stored_and_some_are_checked(notebook):
    checked = [cell for cell in code(notebook) if "# NBVAL_CHECK_OUTPUT" in cell.source]
    assert checked
    assert all(cell.outputs for cell in checked), "a checked cell without a stored output checks nothing"
    kinds = {output.output_type for cell in code(notebook) for output in cell.outputs}
    assert "error" not in kinds
    assert any("image/png" in output.get("data", {}) for cell in code(notebook) for output in cell.outputs)


def test_says_what_counts_against_and_what_it_does_not_show(notebook):
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert prose.startswith("# ")
    assert "## Limits" in prose


@pytest.mark.parametrize("path", BATCHES, ids=lambda path: path.stem)
def test_batch_files_are_valid(path):
    assert rows.load(path).rows


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_nbval(name, tmp_path):
    """Run a notebook as it is stored and compare the outputs of its checked cells."""
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--nbval-lax",
        "--nbval-current-env", "--nbval-cell-timeout", "120", paths.NOTEBOOKS / f"{name}.ipynb",
    ]  # fmt: skip
    done = subprocess.run(
        map(str, command),
        capture_output=True,
        text=True,
        cwd=paths.ROOT,
        env=os.environ | {"STUDY_RUNS": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert [*tmp_path.glob(f"{name}-*/metrics.json")]


def test_every_notebook_through_the_engine(tmp_path):
    command = [sys.executable, "-m", "lib.batch", "run", paths.ROOT / "batches" / "smoke.yaml"]
    env = {k: v for k, v in os.environ.items() if k != "STUDY_RUNS"} | {"STUDY_RESULTS": str(tmp_path)}
    done = subprocess.run(map(str, command), capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n  finished  ") == len(NOTEBOOKS)
    assert {path.parent.name.rpartition("-")[0] for path in tmp_path.glob("runs/*/metrics.json")} == set(NOTEBOOKS)
    assert (tmp_path / "table.csv").stat().st_size > 1000
