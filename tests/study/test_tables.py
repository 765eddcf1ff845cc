"""The table: which run a row of it is, and what git keeps of it."""

import json
import os
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from lib.look import pages
from lib.study import paths, records, tables


@pytest.fixture(autouse=True)
def notebook(study):
    study.write("01_one", "x = 1", parameters="steps: int = 3")


@pytest.mark.parametrize("content", ["", '{"run_id": "01_o', "[]", '{"metrics": []}', "\xff"])
def test_a_damaged_metrics_file_is_named(monkeypatch, content, study):
    path = study.run("quick/a").folder / "metrics.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=r"metrics.json is no metrics file .*: delete the folder and run again"):
        tables.read()


def test_the_table_has_a_line_for_each_metric(study):
    study.run("quick/a", value=1.23456789)
    frame = pd.read_csv(tables.write())
    assert list(frame.columns) == tables.COLUMNS
    assert tables.read()[["value", "low", "high"]].dtypes.tolist() == [float] * 3
    assert frame[["batch", "row", "metric", "value"]].to_numpy().tolist() == [["quick", "a", "loss", 1.23457]]


def test_runs_by_hand_stay_out_of_the_table_that_git_keeps(study):
    study.run()
    assert len(tables.read()) == 1
    assert len(pd.read_csv(tables.write())) == 0


def test_a_row_stands_for_the_run_that_its_batch_means_now(study):
    first, second = study.run("quick/a", value=1.0), study.run("quick/a", value=2.0, steps=4)
    study.claim("quick", a=second.id, unfinished="01_one-0000000000")
    assert tables.read("quick")["value"].tolist() == [2.0]
    study.claim("quick", a=first.id)
    assert tables.read("quick")["value"].tolist() == [1.0], "changed back: the older run counts again"
    study.claim("paper", b=first.id)
    assert tables.read()[["batch", "row"]].to_numpy().tolist() == [["paper", "b"], ["quick", "a"]], "shared"


def test_a_row_says_how_it_departs_from_the_published_setting(monkeypatch, study):
    study.run()
    assert tables.read()["departs"].tolist() == ["run by hand"]
    made = study.run("quick/a", departs="small", steps=4)
    assert tables.read("quick")["departs"].tolist() == ["small"]
    assert tables.read("quick")["level"].tolist() == ["toy"]
    study.claim("quick", "smaller", "conceptual", a=made.id)
    assert tables.read("quick")["departs"].tolist() == ["smaller"], "as the batch says now"
    assert tables.read("quick")["level"].tolist() == ["conceptual"], "as the batch says now"
    assert records.read_metrics(pages.keep(made.id) / "metrics.json")["departs"] == "smaller"


def test_kept_runs_count_until_a_newer_one_is_made_here(study):
    old = study.run("quick/a", value=1.0)
    (old.folder / "grid.png").write_bytes(b"png")
    (old.folder / "net.safetensors").write_bytes(b"large")
    kept = pages.keep(old.id)
    assert kept == study.folder / "kept" / "quick" / "a"
    assert {path.name for path in kept.iterdir()} == {"metrics.json", "notebook.ipynb"}, "no figures, no nets"
    (old.folder / "metrics.json").unlink()
    assert tables.read()["value"].tolist() == [1.0], "from git alone"
    record = json.loads((kept / "metrics.json").read_text())
    new = study.run("quick/a", value=2.0, steps=4)
    assert tables.read()["value"].tolist() == [2.0]
    record["finished"] = "2999-01-01T00:00:00Z"
    (kept / "metrics.json").write_text(json.dumps(record))
    assert tables.read()["value"].tolist() == [1.0], "git's is newer than ours"
    pages.keep(new.id)
    assert tables.read()["value"].tolist() == [2.0]


def test_only_finished_runs_of_a_batch_are_kept(study):
    with pytest.raises(ValueError, match="no finished run 01_one-0000000000 in"):
        pages.keep("01_one-0000000000")
    made = study.run()
    with pytest.raises(ValueError, match="belongs to no batch"):
        pages.keep(made.id)


def test_two_batch_files_of_one_stem_both_stay_in_the_table(study):
    first, second = study.run("mine/a", value=1.0), study.run("q/mine.yaml/a", value=2.0, steps=4)
    tables.claim("mine", Path("/study/batches/mine.yaml"), {"a": {"run_id": first.id, "departs": ""}})
    tables.claim("q/mine.yaml", Path("/study/q/mine.yaml"), {"a": {"run_id": second.id, "departs": ""}})
    assert tables.read()[["batch", "value"]].to_numpy().tolist() == [["mine", 1.0], ["q/mine.yaml", 2.0]]
    tables.claim("mine", Path("/study/batches/mine.yaml"), {"b": {"run_id": first.id, "departs": ""}})
    assert tables.read("mine")["row"].tolist() == ["b"], "a file claims anew"
    assert tables.claimed().keys() == {("mine", "b"), ("q/mine.yaml", "a")}
    kept = {pages.keep(made.id) for made in (first, second)}
    assert len(kept) == 2
    assert sorted(tables.read(kept_only=True)["batch"]) == ["mine", "q/mine.yaml"]


@pytest.mark.parametrize("checkout", ["/a", "/b", "/c", "/d"])
def test_of_two_checkouts_the_one_that_claimed_last_says_what_a_row_means(study, checkout):
    """Each files its claims under a digest of its own path, and these come in any order."""
    old, new = study.run("own/a", value=1.0), study.run("own/a", value=2.0, steps=4)
    tables.claim("own", Path("/older/batches/own.yaml"), {"a": {"run_id": old.id, "departs": ""}})
    for path in (paths.runs() / "claims").glob("*.json"):
        os.utime(path, (path.stat().st_mtime - 3600,) * 2)
    tables.claim("own", Path(f"{checkout}/batches/own.yaml"), {"a": {"run_id": new.id, "departs": ""}})
    assert tables.read()["value"].tolist() == [2.0]
    assert records.read_metrics(pages.keep(new.id) / "metrics.json")["run_id"] == new.id


def test_the_table_that_git_keeps_holds_what_git_keeps(study):
    made = study.run("own/a")
    assert tables.write() == study.folder / "runs" / "table.csv"
    assert not paths.TABLE.exists()
    assert tables.write(kept_only=True) == paths.TABLE
    assert len(pd.read_csv(paths.TABLE)) == 0
    pages.keep(made.id)
    tables.write(kept_only=True)
    assert pd.read_csv(paths.TABLE)["row"].tolist() == ["a"]


def test_what_is_kept_is_whole_at_every_moment(monkeypatch, study):
    made = study.run("own/a", value=1.0)
    path = pages.keep(made.id) / "metrics.json"
    seen = []

    def write(target, content):
        seen.append((target == path, records.read_metrics(path)["metrics"][0]["value"]))

    study.run("own/a", value=2.0)
    monkeypatch.setattr(paths, "write_atomically", write)
    pages.keep(made.id)
    assert seen == [(False, 1.0), (True, 1.0)], "the record last, in one step"


def test_the_executed_notebook_is_kept_with_the_record(study):
    made = study.run("own/a", value=3.0)
    study.claim("own", a=made.id)
    study.claim("paper", b=made.id)
    folder = pages.keep(made.id, "paper")
    assert folder == study.folder / "kept" / "paper" / "b", "of the batch that is named, where two share a row"
    assert nbformat.read(folder / "notebook.ipynb", as_version=4).cells == []
    assert records.read_metrics(folder / "metrics.json")["metrics"][0]["value"] == 3.0


def test_nothing_is_kept_of_a_row_whose_notebook_is_too_large(study, monkeypatch):
    monkeypatch.setattr(pages, "BUDGET", 10)
    made = study.run("own/a")
    with pytest.raises(ValueError, match="the executed notebook of own/a takes"):
        pages.keep(made.id)
    assert not (study.folder / "kept").exists()
