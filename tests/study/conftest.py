"""An empty study in a folder of its own."""

import json
from pathlib import Path

import nbformat
import pytest

from lib.study import identity, paths, runs, syntax, tables


class Study:
    """Notebooks, and runs of them as their cells would make them."""

    parameters = "steps: int = 3  # minibatches\nlr: float = 0.1\nname: str = 'x'\nfast: bool = True"

    def __init__(self, folder, monkeypatch):
        self.folder, self.monkeypatch = folder, monkeypatch
        (folder / "notebooks").mkdir()

    def write(self, name, *cells, parameters=parameters, **metadata):
        """Write a notebook."""
        first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
        notebook = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook.metadata |= metadata
        nbformat.write(notebook, self.folder / "notebooks" / f"{name}.ipynb")

    def run(self, row="", *, value=1.0, figure=b"", departs="", **changed):
        """Do what notebook 01_one does, by hand or as BATCH/ROW of a plan."""
        with self.monkeypatch.context() as environment:
            if row:
                name = f"01_one-{syntax.digest(identity.identity_of('01_one', changed))}"
                self.plan(row, name, changed, environment, departs)
            made = runs.start("01_one", identity.parameters_of("01_one") | changed | {"unrelated": object()})
            made.record("loss", value, published="")
            if figure:
                (made.folder / "grid.png").write_bytes(figure)
            runs.finish(made)
        if row:
            (made.folder / "finished.json").replace(made.folder / "metrics.json")
            nbformat.write(nbformat.v4.new_notebook(), made.folder / "notebook.ipynb")
        return made

    def plan(self, row, run_id, parameters, environment, departs="", **identity_of):
        """Write a plan of one row, BATCH/ROW, and set the environment of its kernel."""
        batch, _, name = row.rpartition("/")
        entry = {"notebook": "01_one", "parameters": parameters, "run_id": run_id, "level": "toy", "departs": departs}
        content = {"batch": batch, "commit": "0123456789", "rows": {name: entry | {"identity": identity_of}}}
        (self.folder / "plan.json").write_text(json.dumps(content))
        environment.setenv("STUDY_PLAN", str(self.folder / "plan.json"))
        environment.setenv("STUDY_ROW", row)

    def claim(self, batch, departs="", level="toy", **ids):
        """Say which runs the rows of a batch mean."""
        rows = {row: {"run_id": run, "level": level, "departs": departs} for row, run in ids.items()}
        tables.claim(batch, Path(f"/batches/{batch}.yaml"), rows)


@pytest.fixture
def study(tmp_path, monkeypatch):
    for name in ("STUDY_PLAN", "STUDY_PRECISION", "STUDY_ROW", "STUDY_RUNS"):
        monkeypatch.delenv(name, raising=False)
    for name, path in {"NOTEBOOKS": "notebooks", "RESULTS": "", "KEPT": "kept", "TABLE": "table.csv"}.items():
        monkeypatch.setattr(paths, name, tmp_path / path)
    return Study(tmp_path, monkeypatch)
