"""Runs and the table: what counts as finished, whose code made it, which run a row of the table is."""

import gc
import json
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from lib.study import paths, runs

PARAMETERS = "steps: int = 3  # minibatches\nlr: float = 0.1\nname: str = 'x'\nfast: bool = True"


def write_notebook(folder, name, *cells, parameters=PARAMETERS):
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / f"{name}.ipynb")


@pytest.fixture(autouse=True)
def study(tmp_path, monkeypatch):
    """An empty study with one notebook."""
    for name in ("STUDY_AFTER", "STUDY_DEPARTS", "STUDY_ROW", "STUDY_RUNS"):
        monkeypatch.delenv(name, raising=False)
    for name, path in {"NOTEBOOKS": "notebooks", "RESULTS": "", "KEPT": "kept", "TABLE": "table.csv"}.items():
        monkeypatch.setattr(paths, name, tmp_path / path)
    (tmp_path / "notebooks").mkdir()
    write_notebook(tmp_path / "notebooks", "01_one", "from lib.internals import latent")
    return tmp_path


def run(monkeypatch, row="", *, value=1.0, figure=b"", **changed):
    """Do what a notebook does."""
    monkeypatch.setenv("STUDY_ROW", row)
    given = {"steps": 3, "lr": 0.1, "name": "x", "fast": True, "unrelated": object()}
    made = runs.start("01_one", given | changed)
    made.record("loss", value, published="")
    if figure:
        (made.folder / "grid.png").write_bytes(figure)
    runs.finish(made)
    return made


def claim(batch, departs="", **ids):
    runs.claim(
        batch, Path(f"/batches/{batch}.yaml"), {row: {"run_id": run, "departs": departs} for row, run in ids.items()}
    )


def test_the_commit_is_the_one_that_began(monkeypatch):
    monkeypatch.setattr(runs, "commit", lambda: "first")
    made = runs.start("01_one", {"steps": 3, "lr": 0.1, "name": "x", "fast": True})
    monkeypatch.setattr(runs, "commit", lambda: "second")
    runs.finish(made)
    assert runs.read_metrics(made.folder / "metrics.json")["commit"] == "first"


def test_finished_means_that_metrics_are_there(monkeypatch):
    made = run(monkeypatch, "quick/a", value=2.0)
    record = runs.read_metrics(made.folder / "metrics.json")
    assert (record["run_id"], record["batch"], record["row"]) == (made.id, "quick", "a")
    assert record["parameters"] == {"steps": 3, "lr": 0.1, "name": "x", "fast": True}
    assert record["metrics"][0]["value"] == 2.0


def test_a_finished_run_stays_until_another_replaces_it(monkeypatch):
    def files():
        return {path.name: path.read_bytes() for path in first.folder.iterdir() if path.is_file()}

    first = run(monkeypatch, value=1.0, figure=b"one")
    kept = files()
    assert {"metrics.json", "grid.png"} <= kept.keys()
    again = runs.start("01_one", {"steps": 3, "lr": 0.1, "name": "x", "fast": True})
    (again.folder / "grid.png").write_bytes(b"two")
    again.record("loss", 2.0)
    assert again.id == first.id
    assert {name: content for name, content in files().items() if name != "params.json"} == {
        name: content for name, content in kept.items() if name != "params.json"
    }
    runs.finish(again)
    assert files()["grid.png"] == b"two"
    assert runs.table()["value"].tolist() == [2.0]
    assert [path for path in first.folder.iterdir() if path.is_dir()] == [], "the part is gone"


def test_what_a_run_leaves_undone_goes_with_its_kernel():
    left = runs.start("01_one", {"steps": 3, "lr": 0.1, "name": "x", "fast": True})
    part = left.folder
    del left
    gc.collect()
    assert not part.exists()


def test_a_metric_is_a_number(monkeypatch):
    with pytest.raises(ValueError, match="metric loss: value = 'low' is no number"):
        run(monkeypatch, value="low")


@pytest.mark.parametrize("content", ["", '{"run_id": "01_o', "[]", '{"metrics": []}', "\xff"])
def test_a_damaged_metrics_file_is_named(monkeypatch, content):
    path = run(monkeypatch, "quick/a").folder / "metrics.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=r"metrics.json is no metrics file .*: delete the folder and run again"):
        runs.table()


def test_the_table_has_a_line_for_each_metric(monkeypatch, study):
    run(monkeypatch, "quick/a", value=1.23456789)
    frame = pd.read_csv(runs.write_table())
    assert list(frame.columns) == runs.COLUMNS
    assert frame[["batch", "row", "metric", "value"]].to_numpy().tolist() == [["quick", "a", "loss", 1.23457]]


def test_runs_by_hand_stay_out_of_the_table_that_git_keeps(monkeypatch):
    run(monkeypatch)
    assert len(runs.table()) == 1
    assert len(pd.read_csv(runs.write_table())) == 0


def test_a_row_stands_for_the_run_that_its_batch_means_now(monkeypatch):
    first, second = run(monkeypatch, "quick/a", value=1.0), run(monkeypatch, "quick/a", value=2.0, steps=4)
    claim("quick", a=second.id, unfinished="01_one-0000000000")
    assert runs.table("quick")["value"].tolist() == [2.0]
    claim("quick", a=first.id)
    assert runs.table("quick")["value"].tolist() == [1.0], "changed back: the older run counts again"
    claim("paper", b=first.id)
    assert runs.table()[["batch", "row"]].to_numpy().tolist() == [["paper", "b"], ["quick", "a"]], "shared"


def test_a_row_says_how_it_departs_from_the_published_setting(monkeypatch):
    run(monkeypatch)
    assert runs.table()["departs"].tolist() == ["run by hand"]
    monkeypatch.setenv("STUDY_DEPARTS", "small")
    made = run(monkeypatch, "quick/a", steps=4)
    assert runs.table("quick")["departs"].tolist() == ["small"]
    claim("quick", "smaller", a=made.id)
    assert runs.table("quick")["departs"].tolist() == ["smaller"], "as the batch says now"
    assert runs.read_metrics(runs.keep(made.id) / "metrics.json")["departs"] == "smaller"


def test_kept_runs_count_until_a_newer_one_is_made_here(monkeypatch, study):
    old = run(monkeypatch, "quick/a", value=1.0)
    (old.folder / "grid.png").write_bytes(b"png")
    (old.folder / "net.safetensors").write_bytes(b"large")
    kept = runs.keep(old.id)
    assert kept == study / "kept" / "quick" / "a"
    assert [path.name for path in kept.iterdir()] == ["metrics.json"], "no figures: git holds only those shown, small"
    (old.folder / "metrics.json").unlink()
    assert runs.table()["value"].tolist() == [1.0], "from git alone"
    record = json.loads((kept / "metrics.json").read_text())
    new = run(monkeypatch, "quick/a", value=2.0, steps=4)
    assert runs.table()["value"].tolist() == [2.0]
    record["finished"] = "2999-01-01T00:00:00Z"
    (kept / "metrics.json").write_text(json.dumps(record))
    assert runs.table()["value"].tolist() == [1.0], "git's is newer than ours"
    runs.keep(new.id)
    assert runs.table()["value"].tolist() == [2.0]


def test_only_finished_runs_of_a_batch_are_kept(monkeypatch):
    with pytest.raises(ValueError, match="no finished run 01_one-0000000000 in"):
        runs.keep("01_one-0000000000")
    made = run(monkeypatch)
    with pytest.raises(ValueError, match="belongs to no batch"):
        runs.keep(made.id)
