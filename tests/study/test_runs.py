"""Runs and the table: what counts as finished, whose code made it, which run a row of the table is."""

import gc
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest

from lib.study import manifest, paths, runs

PARAMETERS = "steps: int = 3  # minibatches\nlr: float = 0.1\nname: str = 'x'\nfast: bool = True"


def write_notebook(folder, name, *cells, parameters=PARAMETERS):
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / f"{name}.ipynb")


@pytest.fixture(autouse=True)
def study(tmp_path, monkeypatch):
    """An empty study with one notebook."""
    for name in ("STUDY_AFTER", "STUDY_DEPARTS", "STUDY_PLAN", "STUDY_ROW", "STUDY_RUNS"):
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


# --- by hand, and as planned

NOTEBOOK = """
from lib.study import runs
---
run = runs.start("01_one", globals())
run.record("steps", steps)
---
runs.finish(run)
"""


def test_papermill_by_hand_runs_what_the_notebook_knows_and_refuses_the_rest(study):
    write_notebook(study / "notebooks", "01_one", *NOTEBOOK.split("---\n"))
    places = {"STUDY_NOTEBOOKS": str(study / "notebooks"), "STUDY_RESULTS": str(study / "results")}
    command = [
        sys.executable,
        "-m",
        "papermill",
        "-k",
        "python3",
        "--no-progress-bar",
        study / "notebooks" / "01_one.ipynb",
    ]
    given = {"known": ["-p", "steps", "5"], "unknown": ["-p", "steps", "6", "-p", "stop", "5"]}
    started = {
        name: subprocess.Popen(
            [*map(str, command), str(study / f"{name}.ipynb"), *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | places,
        )
        for name, options in given.items()
    }  # fmt: skip
    said = {name: process.communicate()[0] for name, process in started.items()}
    assert started["known"].returncode == 0, said["known"]
    assert started["unknown"].returncode == 1
    assert "01_one has no parameter 'stop': it has steps, lr, name, fast" in said["unknown"]
    (made,) = (study / "results" / "runs").glob("*/metrics.json")
    assert runs.read_metrics(made)["metrics"][0]["value"] == 5


GIVEN = {"steps": 3, "lr": 0.1, "name": "x", "fast": True}


def plan(study, monkeypatch, **parameters):
    """A plan with one row, and the environment of its kernel."""
    row = {"notebook": "01_one", "parameters": parameters, "run_id": "01_one-planned", "departs": "small"}
    row |= {"identity": {"steps": "4", "content of name": "0123"}}
    content = {"batch": "some/own.yaml", "commit": "0123456789", "rows": {"a": row}}
    (study / "plan.json").write_text(json.dumps(content))
    monkeypatch.setenv("STUDY_PLAN", str(study / "plan.json"))
    monkeypatch.setenv("STUDY_ROW", "some/own.yaml/a")


def test_a_row_is_run_as_planned(study, monkeypatch):
    plan(study, monkeypatch, steps=4, name="folder:photos")
    monkeypatch.setattr(manifest, "of_images", None)  # nothing is looked for again
    monkeypatch.setattr(runs, "commit", None)
    made = runs.start("01_one", GIVEN | {"steps": 4, "name": "folder:photos"})
    (made.folder / "grid.png").write_bytes(b"png")
    made.record("loss", 1.0)
    runs.finish(made)
    assert made.folder == study / "runs" / "01_one-planned"
    assert {path.name for path in made.folder.iterdir()} == {"params.json", "grid.png", "finished.json"}
    record = json.loads((made.folder / "finished.json").read_text())
    told = {
        "batch": "some/own.yaml",
        "row": "a",
        "departs": "small",
        "commit": "0123456789",
        "run_id": "01_one-planned",
    }
    assert told.items() <= record.items()
    assert record["identity"] == {"steps": "4", "content of name": "0123"}
    assert record["chosen"] == ["steps", "name"]


@pytest.mark.parametrize("changed", [{"steps": 5}, {"lr": 0.2}])
def test_a_row_with_other_parameters_than_planned_is_refused(study, monkeypatch, changed):
    plan(study, monkeypatch, steps=4)
    with pytest.raises(ValueError, match="01_one has other parameters than row a of the plan"):
        runs.start("01_one", GIVEN | {"steps": 4} | changed)
    assert not list((study / "runs").glob("*"))


# --- whose code made it


def finished(made):
    return runs.read_metrics(made.folder / "metrics.json")


def test_a_run_of_other_code_is_older_until_somebody_accepts_it(monkeypatch, study):
    made = run(monkeypatch, "quick/a")
    assert runs.differs(finished(made)) == []
    assert runs.table()["code"].tolist() == [""]
    write_notebook(study / "notebooks", "01_one", "from lib.internals import latent", "x = 3")
    assert runs.differs(finished(made)) == ["01_one.x", "01_one.cells"]
    assert runs.table()["code"].tolist() == ["older"]

    monkeypatch.setenv("USER", "somebody")
    monkeypatch.setattr(runs, "commit", lambda: "second")
    assert runs.accept(made.folder) == ["01_one.x", "01_one.cells"]
    record = finished(made)
    assert (record["accepted"]["by"], record["accepted"]["commit"]) == ("somebody", "second")
    assert record["code"] != record["accepted"]["code"], "what made it stays on record"
    assert runs.differs(record) == []
    assert runs.table()["code"].tolist() == ["accepted"]
    write_notebook(study / "notebooks", "01_one", "from lib.internals import latent", "x = 4")
    assert runs.table()["code"].tolist() == ["older"], "that was not accepted"


def test_a_default_that_has_changed_is_told(monkeypatch, study):
    by_default, chosen = run(monkeypatch), run(monkeypatch, lr=0.2)
    changed = PARAMETERS.replace("lr: float = 0.1", "lr: float = 0.3") + "\nmore: int = 1"
    write_notebook(study / "notebooks", "01_one", "from lib.internals import latent", parameters=changed)
    assert runs.differs(finished(by_default)) == ["lr, 0.1 by default"]
    assert runs.differs(finished(chosen)) == [], "a new parameter at its default changes nothing"
    runs.accept(by_default.folder)
    assert runs.differs(finished(by_default)) == []
    assert finished(by_default)["parameters"]["lr"] == 0.1


def test_a_run_is_as_old_as_the_net_that_it_uses(monkeypatch, study):
    write_notebook(study / "notebooks", "02_net", "x = 1")
    net = runs.start("02_net", GIVEN)
    runs.finish(net)
    made = run(monkeypatch, name=f"run:{net.id}")
    assert runs.differs(finished(made)) == []
    write_notebook(study / "notebooks", "02_net", "x = 2")
    assert runs.differs(finished(made)) == ["02_net.x"]
    again = run(monkeypatch, name=f"run:{net.id}")
    assert runs.differs(finished(again)) == ["02_net.x"], "the net is still the old one"
    runs.accept(net.folder)
    assert runs.differs(finished(run(monkeypatch, name=f"run:{net.id}"))) == []


def test_a_record_of_an_older_format_is_older_and_can_be_accepted(monkeypatch, study):
    made = run(monkeypatch, "quick/a")
    record = finished(made)
    for key in ("code", "chosen", "identity"):
        del record[key]
    kept = study / "kept" / "quick" / "a"
    kept.mkdir(parents=True)
    (kept / "metrics.json").write_text(json.dumps(record | {"dependencies": {"steps": "3"}}))
    (made.folder / "metrics.json").unlink()
    assert runs.differs(runs.read_metrics(kept / "metrics.json")) == ["made by another version of the study"]
    assert runs.table()["code"].tolist() == ["older"]
    runs.accept(kept)
    assert runs.table()["code"].tolist() == ["accepted"]
    write_notebook(study / "notebooks", "01_one", "x = 1", parameters=PARAMETERS.replace("0.1", "0.2"))
    found = runs.differs(runs.read_metrics(kept / "metrics.json"))
    assert found == ["01_one.x", "01_one.cells", "lr, 0.1 by default"]
    (study / "notebooks" / "01_one.ipynb").unlink()
    assert runs.differs(runs.read_metrics(kept / "metrics.json")) == ["01_one is gone"]


# --- what is recorded


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_is_not_finite_is_recorded_as_none_and_told(monkeypatch, value):
    made = runs.start("01_one", GIVEN)
    made.record("loss", value, 0.5, value, note="why")
    runs.finish(made)
    text = (made.folder / "metrics.json").read_text()
    (line,) = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))["metrics"]
    assert (line["value"], line["low"], line["high"]) == (None, 0.5, None)
    assert line["note"] == f"why; value is {float(value)}; high is {float(value)}"
    assert runs.table()[["value", "low"]].isna().to_numpy().tolist() == [[True, False]]


def test_the_record_names_what_computed(monkeypatch):
    card = SimpleNamespace(is_available=lambda: True, get_device_name=lambda device=None: f"card {device}")
    none = SimpleNamespace(is_available=lambda: False)
    torch = SimpleNamespace(cuda=card, backends=SimpleNamespace(mps=none), get_num_threads=lambda: 3)
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert runs.device_name("auto") == "card None"
    assert runs.device_name("cuda:1") == "card cuda:1"
    assert runs.device_name("cpu").endswith(" CPU, 3 threads")
    assert finished(run(monkeypatch))["device"].endswith(" CPU, 3 threads"), "the notebook takes no device"
    torch.cuda, torch.backends.mps = none, card
    assert runs.device_name("auto").endswith(" GPU")
    torch.backends.mps = none
    assert runs.device_name("auto").endswith(" CPU, 3 threads")


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    assert len(runs.commit().removesuffix("+")) == 10
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert runs.commit() == "unknown"
    with monkeypatch.context() as patch:
        patch.setattr(paths, "ROOT", tmp_path)
        patch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        assert runs.commit() == "unknown", "no repository"


def test_files_are_utf_8_whatever_the_locale(study):
    write_notebook(study / "notebooks", "01_one", "# é", parameters="name: str = 'é'")
    code = r"""
import warnings
warnings.filterwarnings("error", category=EncodingWarning, module=r"lib\.study")
from pathlib import Path
from lib.study import runs
run = runs.start("01_one", {"name": "folder:\xf6"})
run.record("loss", 1.0, note="\xfc")
runs.finish(run)
runs.claim("quick", Path("quick.yaml"), {"a": {"run_id": run.id, "departs": "\xe4"}})
print(ascii(runs.table().iloc[0][["note", "departs"]].tolist()), runs.write_table().name)
runs.accept(runs.keep(run.id))
"""
    places = {"STUDY_NOTEBOOKS": str(study / "notebooks"), "STUDY_RESULTS": str(study)}
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", code], capture_output=True, text=True,
        env=os.environ | places | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )  # fmt: skip
    assert done.stdout == "['\\xfc', '\\xe4'] table.csv\n", done.stderr


# --- which tables are written


def test_two_batch_files_of_one_stem_both_stay_in_the_table(monkeypatch):
    first, second = run(monkeypatch, "mine/a", value=1.0), run(monkeypatch, "q/mine.yaml/a", value=2.0, steps=4)
    runs.claim("mine", Path("/study/batches/mine.yaml"), {"a": {"run_id": first.id, "departs": ""}})
    runs.claim("q/mine.yaml", Path("/study/q/mine.yaml"), {"a": {"run_id": second.id, "departs": ""}})
    assert runs.table()[["batch", "value"]].to_numpy().tolist() == [["mine", 1.0], ["q/mine.yaml", 2.0]]
    runs.claim("mine", Path("/study/batches/mine.yaml"), {"b": {"run_id": first.id, "departs": ""}})
    assert runs.table("mine")["row"].tolist() == ["b"], "a file claims anew"
    kept = {runs.keep(made.id) for made in (first, second)}
    assert len(kept) == 2
    assert sorted(runs.table(kept_only=True)["batch"]) == ["mine", "q/mine.yaml"]


def test_the_table_that_git_keeps_holds_what_git_keeps(monkeypatch, study):
    made = run(monkeypatch, "own/a")
    assert runs.write_table() == study / "runs" / "table.csv"
    assert not paths.TABLE.exists()
    assert runs.write_table(kept_only=True) == paths.TABLE
    assert len(pd.read_csv(paths.TABLE)) == 0
    runs.keep(made.id)
    runs.write_table(kept_only=True)
    assert pd.read_csv(paths.TABLE)["row"].tolist() == ["a"]


def test_what_is_kept_is_whole_at_every_moment(monkeypatch):
    made = run(monkeypatch, "own/a", value=1.0)
    path = runs.keep(made.id) / "metrics.json"
    seen = []

    def write(target, content):
        seen.append((target == path, runs.read_metrics(path)["metrics"][0]["value"]))

    run(monkeypatch, "own/a", value=2.0)
    monkeypatch.setattr(paths, "write_atomically", write)
    runs.keep(made.id)
    assert seen == [(True, 1.0)], "it is replaced in one step"
