"""Runs: what counts as finished, by hand and as planned, and whose code made it."""

import gc
import json
import math
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from lib.study import identity, paths, records, runs, syntax, tables

GIVEN = {"steps": 3, "lr": 0.1, "name": "x", "fast": True}


@pytest.fixture(autouse=True)
def notebook(study):
    study.write("01_one", "from lib.internals import latent")


def test_the_commit_is_the_one_that_began(monkeypatch):
    monkeypatch.setattr(records, "commit", lambda: "first")
    made = runs.start("01_one", {"steps": 3, "lr": 0.1, "name": "x", "fast": True})
    monkeypatch.setattr(records, "commit", lambda: "second")
    runs.finish(made)
    assert records.read_metrics(made.folder / "metrics.json")["commit"] == "first"


def test_finished_means_that_metrics_are_there(study):
    made = study.run("quick/a", value=2.0)
    record = records.read_metrics(made.folder / "metrics.json")
    assert (record["run_id"], record["batch"], record["row"]) == (made.id, "quick", "a")
    assert record["parameters"] == {"steps": 3, "lr": 0.1, "name": "x", "fast": True}
    assert record["metrics"][0]["value"] == 2.0


def test_a_finished_run_stays_until_another_replaces_it(study):
    def files():
        return {path.name: path.read_bytes() for path in first.folder.iterdir() if path.is_file()}

    first = study.run(value=1.0, figure=b"one")
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
    runs.finish(again)
    assert files()["grid.png"] == b"two", "the last cell is run again"
    assert tables.read()["value"].tolist() == [2.0]
    assert [path for path in first.folder.iterdir() if path.is_dir()] == [], "the part is gone"


def test_a_row_removes_what_a_killed_kernel_of_it_left_and_nothing_of_a_live_one_by_hand(study):
    by_hand = runs.start("01_one", GIVEN)
    (by_hand.folder.parent / "part-of-a-killed-one").mkdir()
    made = study.run("quick/a")
    assert made.folder == by_hand.folder.parent
    assert [path for path in made.folder.iterdir() if path.is_dir()] == [by_hand.folder]


def test_a_folder_of_a_run_takes_the_place_of_the_former(study):
    for name in ("one", "two"):
        made = runs.start("01_one", GIVEN)
        (made.folder / "samples").mkdir()
        (made.folder / "samples" / name).touch()
        runs.finish(made)
    assert [path.name for path in (made.folder / "samples").iterdir()] == ["two"]


def test_what_a_run_leaves_undone_goes_with_its_kernel():
    left = runs.start("01_one", {"steps": 3, "lr": 0.1, "name": "x", "fast": True})
    part = left.folder
    del left
    gc.collect()
    assert not part.exists()


def test_a_metric_is_a_number(study):
    with pytest.raises(ValueError, match="metric loss: value = 'low' is no number"):
        study.run(value="low")


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
    study.write("01_one", *NOTEBOOK.split("---\n"))
    places = {"STUDY_NOTEBOOKS": str(study.folder / "notebooks"), "STUDY_RESULTS": str(study.folder / "results")}
    command = [
        sys.executable,
        "-m",
        "papermill",
        "-k",
        "python3",
        "--no-progress-bar",
        study.folder / "notebooks" / "01_one.ipynb",
    ]
    given = {"known": ["-p", "steps", "5"], "unknown": ["-p", "steps", "6", "-p", "stop", "5"]}
    started = {
        name: subprocess.Popen(
            [*map(str, command), str(study.folder / f"{name}.ipynb"), *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | places,
        )
        for name, options in given.items()
    }  # fmt: skip
    said = {name: process.communicate()[0] for name, process in started.items()}
    assert started["known"].returncode == 0, said["known"]
    assert started["unknown"].returncode == 1
    assert "01_one has no parameter 'stop': it has steps, lr, name, fast" in said["unknown"]
    (made,) = (study.folder / "results" / "runs").glob("*/metrics.json")
    assert records.read_metrics(made)["metrics"][0]["value"] == 5


def test_a_row_is_run_as_planned(study, monkeypatch):
    given = {"steps": 4, "name": "folder:photos"}
    study.plan("some/own.yaml/a", "01_one-planned", given, monkeypatch, departs="small", steps="4", photos="0123")
    monkeypatch.setattr(identity, "identity_of", None)  # nothing is looked for again
    monkeypatch.setattr(records, "commit", None)
    made = runs.start("01_one", GIVEN | {"steps": 4, "name": "folder:photos"})
    (made.folder / "grid.png").write_bytes(b"png")
    made.record("loss", 1.0)
    runs.finish(made)
    assert made.folder == study.folder / "runs" / "01_one-planned"
    assert {path.name for path in made.folder.iterdir()} == {"params.json", "grid.png", "finished.json"}
    record = json.loads((made.folder / "finished.json").read_text())
    told = {
        "batch": "some/own.yaml",
        "row": "a",
        "level": "toy",
        "departs": "small",
        "commit": "0123456789",
        "run_id": "01_one-planned",
    }
    assert told.items() <= record.items()
    assert record["identity"] == {"steps": "4", "photos": "0123"}
    assert record["chosen"] == ["steps", "name"]


@pytest.mark.parametrize("changed", [{"steps": 5}, {"lr": 0.2}])
def test_a_row_with_other_parameters_than_planned_is_refused(study, monkeypatch, changed):
    study.plan("own/a", "01_one-planned", {"steps": 4}, monkeypatch)
    with pytest.raises(ValueError, match="01_one has other parameters than row a of the plan"):
        runs.start("01_one", GIVEN | {"steps": 4} | changed)
    assert not list((study.folder / "runs").glob("*"))


# --- whose code made it


def finished(made):
    return records.read_metrics(made.folder / "metrics.json")


def test_a_run_of_other_code_is_older_until_somebody_accepts_it(monkeypatch, study):
    made = study.run("quick/a")
    assert records.differs(finished(made)) == []
    assert tables.read()["code"].tolist() == [""]
    study.write("01_one", "from lib.internals import latent", "x = 3")
    assert records.differs(finished(made)) == ["01_one.x", "01_one.cells"]
    assert tables.read()["code"].tolist() == ["older"]

    monkeypatch.setenv("USER", "somebody")
    monkeypatch.setattr(records, "commit", lambda: "second")
    assert records.accept(made.folder) == ["01_one.x", "01_one.cells"]
    record = finished(made)
    assert (record["accepted"]["by"], record["accepted"]["commit"]) == ("somebody", "second")
    assert record["code"] != record["accepted"]["code"], "what made it stays on record"
    assert records.differs(record) == []
    assert tables.read()["code"].tolist() == ["accepted"]
    study.write("01_one", "from lib.internals import latent", "x = 4")
    assert tables.read()["code"].tolist() == ["older"], "that was not accepted"


def test_a_run_in_a_kernel_that_has_not_seen_the_last_edit_is_older(study, monkeypatch):
    monkeypatch.setattr(syntax, "LIB", study.folder / "lib")
    (study.folder / "lib" / "internals").mkdir(parents=True)
    (study.folder / "lib" / "internals" / "latent.py").write_text("x = 1\n")
    monkeypatch.setattr(records, "LOADED", time.time() + 60)
    assert records.differs(finished(study.run())) == []
    monkeypatch.setattr(records, "LOADED", time.time() - 60)
    assert records.differs(finished(study.run())) == ["code that is gone, or was edited in a live kernel"]


def test_a_default_that_has_changed_is_told(study):
    by_default, chosen = study.run(), study.run(lr=0.2)
    changed = study.parameters.replace("lr: float = 0.1", "lr: float = 0.3") + "\nmore: int = 1"
    study.write("01_one", "from lib.internals import latent", parameters=changed)
    assert records.differs(finished(by_default)) == ["lr, 0.1 by default"]
    assert records.differs(finished(chosen)) == [], "a new parameter at its default changes nothing"
    records.accept(by_default.folder)
    assert records.differs(finished(by_default)) == []
    assert finished(by_default)["parameters"]["lr"] == 0.1


def test_a_run_is_as_old_as_the_net_that_it_uses(study):
    study.write("02_net", "x = 1")
    net = runs.start("02_net", GIVEN)
    runs.finish(net)
    made = study.run(name=f"run:{net.id}")
    assert records.differs(finished(made)) == []
    study.write("02_net", "x = 2")
    assert records.differs(finished(made)) == ["02_net.x"]
    again = study.run(name=f"run:{net.id}")
    assert records.differs(finished(again)) == ["02_net.x"], "the net is still the old one"
    records.accept(net.folder)
    assert records.differs(finished(study.run(name=f"run:{net.id}"))) == []


def test_a_record_of_an_older_format_is_older_and_can_be_accepted(study):
    made = study.run("quick/a")
    record = finished(made)
    for key in ("code", "chosen", "identity"):
        del record[key]
    kept = study.folder / "kept" / "quick" / "a"
    kept.mkdir(parents=True)
    (kept / "metrics.json").write_text(json.dumps(record | {"dependencies": {"steps": "3"}}))
    (made.folder / "metrics.json").unlink()
    assert records.differs(records.read_metrics(kept / "metrics.json")) == ["made by another version of the study"]
    assert tables.read()["code"].tolist() == ["older"]
    records.accept(kept)
    assert tables.read()["code"].tolist() == ["accepted"]
    study.write("01_one", "x = 1", parameters=study.parameters.replace("0.1", "0.2"))
    found = records.differs(records.read_metrics(kept / "metrics.json"))
    assert found == ["01_one.x", "01_one.cells", "lr, 0.1 by default"]
    (study.folder / "notebooks" / "01_one.ipynb").unlink()
    assert records.differs(records.read_metrics(kept / "metrics.json")) == ["01_one is gone"]


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
    assert tables.read()[["value", "low"]].isna().to_numpy().tolist() == [[True, False]]
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.to_json({"seconds": math.nan})


def test_ours_stands_beside_what_was_published():
    made = runs.start("01_one", GIVEN)
    made.record("accuracy", 0.5, published="paper.cifar10.dcgan.all")
    made.record("other", 2.0)
    shown = runs.finish(made)
    assert shown["metric"].tolist() == ["accuracy", "other"]
    assert shown["published"].tolist()[0] == 82.8, "the paper's table 1"
    assert shown.loc[1, ["published", "source"]].isna().all()


def test_a_run_can_say_which_images_its_numbers_are_about():
    """Where a notebook takes the net's own, no parameter names them; a line of its own comes first."""
    made = runs.start("01_one", GIVEN)
    made.data = "toy-faces"
    made.record("loss", 1.0)
    made.record("error", 2.0, data="digits")
    runs.finish(made)
    assert tables.read().set_index("metric")["data"].to_dict() == {"loss": "toy-faces", "error": "digits"}


def test_the_record_names_what_computed(monkeypatch, study):
    card = SimpleNamespace(is_available=lambda: True, get_device_name=lambda device=None: f"card {device}")
    none = SimpleNamespace(is_available=lambda: False)
    torch = SimpleNamespace(cuda=card, backends=SimpleNamespace(mps=none), get_num_threads=lambda: 3)
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert runs.device_name("auto") == "card None"
    assert runs.device_name("cuda:1") == "card cuda:1"
    assert runs.device_name("cpu").endswith(" CPU, 3 threads")
    assert finished(study.run())["device"].endswith(" CPU, 3 threads"), "the notebook takes no device"
    torch.cuda, torch.backends.mps = none, card
    assert runs.device_name("auto").endswith(" GPU")
    torch.backends.mps = none
    assert runs.device_name("auto").endswith(" CPU, 3 threads")


def test_the_commit_tells_that_files_differ_from_it(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.py").write_text("x = 1")
    for words in ("init", "add .", "-c user.name=me -c user.email=me commit -m all"):
        subprocess.run(["git", "-C", tmp_path, *words.split()], check=True, capture_output=True)
    clean = records.commit()
    (tmp_path / "lib" / "a.py").write_text("x = 2")
    assert (len(clean), records.commit()) == (10, f"{clean}+")


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    assert len(records.commit().removesuffix("+")) == 10
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert records.commit() == "unknown"
    with monkeypatch.context() as patch:
        patch.setattr(paths, "ROOT", tmp_path)
        patch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        assert records.commit() == "unknown", "no repository"


def test_files_are_utf_8_whatever_the_locale(study):
    study.write("01_one", "# é", parameters="name: str = 'é'")
    code = r"""
import warnings
warnings.filterwarnings("error", category=EncodingWarning, module=r"lib\.study")
from pathlib import Path
from lib.study import records, runs, tables
run = runs.start("01_one", {"name": "folder:\xf6"})
run.record("loss", 1.0, note="\xfc")
runs.finish(run)
tables.claim("quick", Path("quick.yaml"), {"a": {"run_id": run.id, "departs": "\xe4"}})
print(ascii(tables.read().iloc[0][["note", "departs"]].tolist()), tables.write().name)
records.accept(run.folder)
"""
    places = {"STUDY_NOTEBOOKS": str(study.folder / "notebooks"), "STUDY_RESULTS": str(study.folder)}
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", code], capture_output=True, text=True,
        env=os.environ | places | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )  # fmt: skip
    assert done.stdout == "['\\xfc', '\\xe4'] table.csv\n", done.stderr
