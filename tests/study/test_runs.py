"""Runs and the table: what a run's name holds, what counts as finished, which run a row of the table is."""

import json

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


def run(monkeypatch, row="", *, value=1.0, **changed):
    """Do what a notebook does."""
    monkeypatch.setenv("STUDY_ROW", row)
    given = {"steps": 3, "lr": 0.1, "name": "x", "fast": True, "unrelated": object()}
    made = runs.start("01_one", given | changed)
    made.record("loss", value, published="")
    runs.finish(made)
    return made


def claim(batch, departs="", **ids):
    runs.claim(batch, {row: {"run_id": run, "departs": departs} for row, run in ids.items()})


def test_parameters_of():
    found = runs.parameters_of("01_one")
    assert list(found) == ["steps", "lr", "name", "fast"]
    assert found["steps"] == {"type": int, "default": 3, "help": "minibatches"}


def test_the_commit_is_the_one_that_began(monkeypatch):
    monkeypatch.setattr(runs, "commit", lambda: "first")
    made = runs.start("01_one", {"steps": 3, "lr": 0.1, "name": "x", "fast": True})
    monkeypatch.setattr(runs, "commit", lambda: "second")
    runs.finish(made)
    assert runs.read_metrics(made.folder / "metrics.json")["commit"] == "first"


@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_other_images_are_another_run(study, kind):
    place = study / "photos.tar" if kind == "tar" else study / "photos" / "cats"
    place.parent.mkdir(exist_ok=True)
    file = place if kind == "tar" else place / "1.png"
    file.parent.mkdir(exist_ok=True)
    names = []
    for size in (1, 2, 1):
        file.write_bytes(bytes(size))
        runs._files_of.cache_clear()
        name = f"{kind}:{study}/photos{'.tar' if kind == 'tar' else ''}"
        names.append(runs.run_id("01_one", {"name": name}))
    assert names[0] == names[2] != names[1], "sizes count, times do not"
    assert "files of name" not in runs.dependencies("01_one", {"name": "digits"})


def test_same_code_same_hash_on_python_3_11_and_3_12():
    code = "def f(x):\n    'docstring'\n    return x  # comment\n"
    assert runs._digest(code) == runs._digest("def f(x):\n    return x\n") == "ef7f3261b02c83b2"


@pytest.mark.parametrize(("cell", "message"), [("x = 3", "x needs a type"), ("x: int = 2 * 3", "must be a literal")])
def test_a_parameter_is_a_typed_literal(study, cell, message):
    write_notebook(study / "notebooks", "02_two", parameters=cell)
    with pytest.raises(ValueError, match=message):
        runs.parameters_of("02_two")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"step": 3}, "has no parameter 'step': it has steps, lr, name, fast"),
        ({"steps": 3.0}, "steps = 3.0 is no int"),
        ({"steps": True}, "steps = True is no int"),
        ({"lr": "1e-3"}, "lr = '1e-3' is no float; YAML reads 1e-3 as text, write 1.0e-3"),
        ({"name": None}, "name = None is no str"),
        ({"fast": 1}, "fast = 1 is no bool"),
    ],
)
def test_a_wrong_parameter_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        runs.check_parameters("01_one", given)


def test_an_unknown_notebook_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="unknown notebook '1_one': choose one of 01_one"):
        runs.check_parameters("1_one", {})


def test_a_run_is_named_after_what_it_depends_on(study):
    name = runs.run_id("01_one", {})
    assert name.startswith("01_one-")
    assert runs.run_id("01_one", {"steps": 3, "lr": 0.1}) == name, "defaults, said or not"
    assert len({name, runs.run_id("01_one", {"steps": 4}), runs.run_id("01_one", {}, ("other",))}) == 3
    write_notebook(study / "notebooks", "01_one", "# a remark\nfrom lib.internals import latent")
    assert runs.run_id("01_one", {}) == name, "comments do not count"
    write_notebook(study / "notebooks", "01_one", "from lib.probe import features")
    assert runs.run_id("01_one", {}) != name
    assert {"lib/probe/features.py", "notebook", "after"} <= runs.dependencies("01_one", {}).keys()


def test_finished_means_that_metrics_are_there(monkeypatch):
    made = run(monkeypatch, "quick/a", value=2.0)
    record = runs.read_metrics(made.folder / "metrics.json")
    assert (record["run_id"], record["batch"], record["row"]) == (made.id, "quick", "a")
    assert record["parameters"] == {"steps": 3, "lr": 0.1, "name": "x", "fast": True}
    assert record["metrics"][0]["value"] == 2.0
    runs.start("01_one", {"steps": 3, "lr": 0.1, "name": "x", "fast": True})
    assert not (made.folder / "metrics.json").exists(), "begun again"


def test_a_metric_is_a_number(monkeypatch):
    with pytest.raises(ValueError, match="metric loss: 'low' is no number"):
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
    (kept / "old.txt").write_text("of the old run")
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
    assert not (kept / "old.txt").exists(), "kept anew, not over the old"


def test_only_finished_runs_of_a_batch_are_kept(monkeypatch):
    with pytest.raises(ValueError, match="no finished run 01_one-0000000000 in"):
        runs.keep("01_one-0000000000")
    made = run(monkeypatch)
    with pytest.raises(ValueError, match="belongs to no batch"):
        runs.keep(made.id)
