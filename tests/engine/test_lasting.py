"""What lasts: finished records, whatever else runs, and a batch's code and numbers, whatever is edited meanwhile."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace

import ordeal
import pytest
from filelock import FileLock
from studies import BAD, GOOD, wait_for, write_notebook

from lib.engine import batch, places, plans, rows
from lib.engine.row import Row
from lib.gan import checkpoints
from lib.study import paths

WAITS = {"notebook": "02_bad", "parameters": {"how": "wait"}}


def test_two_batches_share_rows(tmp_path):
    """A few rows here; `python tests/engine/ordeal.py` asks for more, and more often."""
    assert ordeal.run(tmp_path, count=3, shared=2, apart=1.5) == []


def test_batch_files_of_one_name_are_two(study):
    first, second = study.folder / "p" / "mine.yaml", study.folder / "q" / "mine.yaml"
    for steps, path in enumerate((first, second), 1):
        path.parent.mkdir()
        path.write_text(f"level: toy\nrows:\n  a: {{notebook: 01_good, parameters: {{steps: {steps}}}}}\n")
        assert study.call("run", path).returncode == 0
    table = (study.runs / "table.csv").read_text()
    assert sorted(re.findall(r",steps,(\d)", table)) == ["1", "2"]
    assert len({rows.name_of(first), rows.name_of(second), "mine"}) == 3
    assert rows.name_of(paths.ROOT / "batches" / "mine.yaml") == "mine"


def git(folder, *words):
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", "-C", folder, *name, *words], capture_output=True, text=True, check=True).stdout


def test_a_batch_runs_what_was_planned(study):
    """lib, the notebooks and the commit change while the first row runs; the second knows nothing of it."""
    root = study.folder / "repository"
    shutil.copytree(paths.ROOT / "lib", root / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    (root / ".gitignore").write_text("__pycache__/\n")  # Python may write there, which changes no code
    (root / "data").mkdir()
    shutil.copy(paths.PUBLISHED, root / "data")
    git(study.folder, "init", "-q", root)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    first = git(root, "rev-parse", "--short=10", "HEAD").strip()
    study.environment["PYTHONPATH"] = str(root)
    path = study.write({"a": WAITS, "b": {"notebook": "01_good", "after": ["a"]}})
    process = study.start("run", path)
    waits = next(wait_for(lambda: list(study.runs.glob("*/waits"))))
    (root / "lib" / "study" / "runs.py").write_text("raise RuntimeError('edited')\n")
    write_notebook(study.folder / "notebooks", "01_good", "raise RuntimeError('edited')")
    git(root, "commit", "-qam", "second")
    waits.unlink()
    out, err = process.communicate(timeout=120)
    assert "b finished" in out, out + err
    assert "Traceback" not in err.partition("lib/study/runs.py")[0], "but for the end, where this process looks at lib"
    assert [study.record(row)["commit"] for row in "ab"] == [first, first]
    assert len(list((study.runs / "code").iterdir())) == 1


def test_a_finished_row_runs_again_where_that_is_asked_for(study):
    path = study.write({"a": {"notebook": "01_good"}, "b": {"notebook": "02_bad"}})
    study.call("run", path, "--rows", "a")
    record = study.folder_of("a") / "metrics.json"
    before = record.stat().st_ino
    again = study.call("run", path, "--rerun", "a")
    assert again.returncode == 0, again.err
    assert re.findall(r"(\S+) started", again.out) == ["a"]
    assert record.stat().st_ino != before

    write_notebook(study.folder / "notebooks", "01_good", "raise RuntimeError('worse')")
    kept = record.read_bytes()
    failed = study.call("run", path, "--rerun", "a")
    assert failed.returncode == 1
    assert "error: quick.yaml, row a: RuntimeError: worse" in failed.err
    assert record.read_bytes() == kept, "a record stays until another replaces it"
    assert "FAILED    a " in failed.out and "its former numbers stay" in failed.out
    told = study.call("keep", path).out
    assert "not finished, or failed when run again, and not kept: a, b" in told

    write_notebook(study.folder / "notebooks", "01_good", GOOD)
    assert study.call("run", path, "--rerun", "a").returncode == 0
    assert "FAILED    a " not in study.call("run", path, "--rows", "a").out


def test_what_would_run_is_shown_and_nothing_is_made(here):
    path = here.write({"a": {"notebook": "01_good"}, "of-a": {"notebook": "01_good", "parameters": {"net": "run:a"}}})
    for words in (["plan", path], ["run", path, "-n"], ["run", path, "--dry-run"]):
        shown = here.say(*words)
        assert shown.returncode == 0
        assert re.findall(r"^  (\S+) +new row$", shown.out, re.MULTILINE) == ["a", "of-a"]
    assert "1 of 1 rows to run" in here.say("run", path, "-n", "--rows", "a").out
    assert not here.runs.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "quick.yaml", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["run", "quick.yaml", "--forcerun", "a"], "unrecognized arguments: --forcerun a"),
        (["run", "quick.yaml", "--dry"], "unrecognized arguments: --dry"),
        (["plan", "quick.yaml", "a"], "unrecognized arguments: a"),
        (["run", "quick.yaml", "--jobs", "0"], "'0': give a number of at least 1"),
        (["fly"], "invalid choice: 'fly'"),
        (["run", "quick.yaml", "--rerun", "c"], "has no row 'c': it has a"),
        (["ship", "01_good-0123456789", "mine"], "run:01_good-0123456789: no finished run at"),
        (["run", "quick.yaml", "--slurm", "quick.yaml"], "quick.yaml: needs jobs (int), mem_mb (int)"),
    ],
)
def test_words_that_do_nothing_are_refused(here, words, message):
    here.write({"a": {"notebook": "01_good"}})
    refused = here.say(*words)
    assert refused.returncode != 0
    assert message in refused.err
    assert not here.runs.exists()


def test_copies_and_plans_go_when_nothing_needs_them(study):
    path = study.write({"a": {"notebook": "01_good"}})
    study.call("run", path)
    write_notebook(study.folder / "notebooks", "02_bad", BAD + "\n# changed")
    study.call("run", study.write({"b": {"notebook": "02_bad"}}))
    (plan,) = (study.runs / "plans").glob("*.json")
    assert json.loads(plan.read_text())["rows"].keys() == {"b"}
    assert [folder.name for folder in (study.runs / "code").iterdir()] == [json.loads(plan.read_text())["code"]]


def test_trainings_that_no_run_uses(here, capsys):
    def training(name, *users):
        folder = here.runs / f"training-{name}"
        folder.mkdir(parents=True)
        (folder / "checkpoint").write_bytes(bytes(2**20))
        if users:
            (folder / "used_by").write_text("".join(f"{user}\n" for user in users))
        return folder

    finished, planned = here.runs / "01_good-finished", here.runs / "claims" / "quick.json"
    paths.write_atomically(finished / "metrics.json", b"{}")
    paths.write_atomically(planned, json.dumps({"rows": {"a": {"run_id": "01_good-planned"}}}).encode())
    needed = [training("1", "01_good-gone", "01_good-finished"), training("2", "01_good-planned")]
    plan = {"code": "", "rows": {"a": asdict(Row("a", "01_good", {}, (), (), "01_good-written-down", {}))}}
    paths.write_atomically(here.runs / "plans" / "0.json", json.dumps(plan).encode())
    needed.append(training("5", "01_good-written-down"))
    present = FileLock(training("6", "01_good-by-hand") / "lock")
    present.acquire()
    orphan, unknown = training("3", "01_good-gone"), training("4")
    dead = subprocess.Popen(["true"])
    dead.wait()
    alive, killed = (finished / f"part-{platform.node()}-{pid}-a_b1" for pid in (os.getpid(), dead.pid))
    elsewhere = finished / f"part-{platform.node()}-1-{dead.pid}-a_b1"  # of a machine whose name goes on
    for part in (alive, killed, elsewhere):
        part.mkdir()
    assert plans.find_orphans().keys() == {orphan, unknown, killed}
    plans.tell_orphans()
    assert (
        "3 folders that no finished or planned run uses, 2.0 MiB: `make orphans ARGS=--remove`"
        in capsys.readouterr().out
    )
    plans.tell_orphans(remove=True)
    assert all(folder.exists() for folder in needed)
    assert alive.exists() and not any(folder.exists() for folder in (orphan, unknown, killed))
    assert plans.find_orphans() == {}
    present.release()
    assert [folder.name for folder in plans.find_orphans()] == ["training-6"]


def test_a_training_notes_who_uses_it(tmp_path, monkeypatch):
    for run in ("01_good-a", "01_good-b"):
        monkeypatch.setenv("STUDY_RUN", run)
        with checkpoints.hold(tmp_path / "training-1"):
            pass
    assert (tmp_path / "training-1" / "used_by").read_text() == "01_good-a\n01_good-b\n"


def test_only_rows_that_start_say_so(study):
    """Two batches at once: the second waits for a row of the first, says so once, and does not run it again."""
    path = study.write({"a": WAITS})
    first = study.start("run", path)
    waits = next(wait_for(lambda: list(study.runs.glob("*/waits"))))
    second = study.start("run", path)
    said = next(line for line in second.stdout if "  a " in line)
    waits.unlink()
    outs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert said.endswith("a waits: it runs in another call\n")
    assert [re.findall(r"  a (started|waits|was finished)", out) for out in outs] == [["started"], ["was finished"]]
    assert (first.returncode, second.returncode) == (0, 0)


def test_rows_that_are_waited_for_go_first(here, monkeypatch):
    steps = {"alone1": 1, "alone2": 2, "alone3": 4, "first": 9}
    content = {name: {"notebook": "01_good", "parameters": {"steps": n}} for name, n in steps.items()}
    loaded = rows.load(here.write(content | {"last": {"notebook": "01_good", "parameters": {"net": "run:first"}}}))
    machine, began = places.Machine(at_once=1), []

    def start(row, plan, code):
        began.append(row.name)
        machine.running[row.name] = places.Job(row, SimpleNamespace(poll=lambda: 0))

    monkeypatch.setattr(machine, "start", start)
    assert batch.work_through(loaded.rows, plans.write(loaded, loaded.rows), machine) == set()
    assert began[0] == "first" and sorted(began) == sorted(loaded.rows)


def test_rows_side_by_side_are_as_many_as_was_said(here, monkeypatch):
    monkeypatch.setattr(batch, "run", lambda found, place, *_: place.at_once)
    path = here.write({"a": {"notebook": "01_good"}})
    assert [here.say("run", path, *words).returncode for words in ([], ["--jobs", "3"])] == [0, 3]
    slurm = ["--slurm", paths.ROOT / "profiles" / "slurm.yaml"]
    assert [here.say("run", path, *slurm, *words).returncode for words in ([], ["--jobs", "3"])] == [50, 3]


SHOWS = """
from lib.study import runs
run = runs.start("01_good", globals())
---
%matplotlib inline
import sys, os, locale, getpass
import matplotlib.pyplot as plt
import pandas as pd
if True:
    %precision 3
names = !echo from a shell
print(names, sys.flags.utf8_mode, open(os.devnull).encoding, getpass.getuser() != "", os.environ.get("HOSTILE"), "ä")
---
plt.plot([1, 2]);
---
pd.DataFrame({"x": [1.23456789]})
---
run.record("steps", steps)
runs.finish(run)
"""


def shown(study, row="a"):
    """An executed notebook's outputs."""
    cells = json.loads((study.folder_of(row) / "notebook.ipynb").read_text())["cells"]
    return [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]


def test_a_row_is_the_same_in_a_hostile_environment(study):
    """Whatever the shell, the user's settings, what is installed as python3, and a stranger's imports say."""
    write_notebook(study.folder / "notebooks", "01_good", SHOWS)
    path = study.write({"a": {"notebook": "01_good"}})
    plain = study.call("run", path)
    assert plain.returncode == 0, plain.out + plain.err
    expected = shown(study)
    assert "image/png" in json.dumps(expected)
    assert "True None ä" in json.dumps(expected, ensure_ascii=False)

    stranger = study.folder / "stranger"  # on the path of imports
    stranger.mkdir()
    (stranger / "sitecustomize.py").write_text("import os; os.environ['HOSTILE'] = 'very'")
    hostile = study.folder / "hostile"
    kernel = hostile / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "x", "language": "python"}))
    for place in ("profile_default/startup/00.py", "startup.py", "ipython/profile_default/startup/00.py"):
        (hostile / place).parent.mkdir(parents=True, exist_ok=True)
        (hostile / place).write_text("print('a stranger')")
    (hostile / "nbformat.py").write_text("raise RuntimeError('a stranger')")
    (hostile / "sitecustomize.py").write_text("print('a stranger')")
    (hostile / "matplotlibrc").write_text("figure.figsize: 1, 1\n")
    home = study.folder / "no home"
    home.write_text("")  # in which nobody can write
    study.environment |= {
        "JUPYTER_PATH": str(hostile), "JUPYTER_CONFIG_DIR": str(hostile), "JUPYTER_DATA_DIR": str(hostile),
        "IPYTHONDIR": str(hostile / "ipython"), "PYTHONSTARTUP": str(hostile / "startup.py"),
        "MPLBACKEND": "Agg", "MATPLOTLIBRC": str(hostile), "MPLCONFIGDIR": str(hostile), "HOME": str(home),
        "LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONWARNINGS": "ignore",
        "HOSTILE": "yes", "NO_COLOR": "1", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "7", "PYTHONHASHSEED": "5",
        "PYTHONPATH": str(stranger),
    }  # fmt: skip
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME"):
        study.environment.pop(name, None)
    again = study.call("run", path, "--rerun", "a")
    assert again.returncode == 0, again.out + again.err
    assert shown(study) == expected


def test_a_relative_path_begins_at_the_repositorys_root():
    code = "from lib.study import paths as p; print(p.RESULTS, p.runs(), p.data_root(), p.find_source('x'), sep='\\n')"
    moved = {"STUDY_RESULTS": "out", "STUDY_DATA": "d", "STUDY_RUNS": "", "STUDY_SOURCES": "s"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | moved, cwd=paths.NOTEBOOKS, capture_output=True, text=True)
    said = done.stdout.splitlines()
    assert said == [str(paths.ROOT / place) for place in ("out", "out/runs", "d", "d/x")]


def test_results_in_a_relative_folder_on_a_machine_without_git(study):
    """As README says it: STUDY_RESULTS=out."""
    bare = study.folder / "bare"
    bare.mkdir()
    for word in ("sh", "echo", "uname"):
        (bare / word).symlink_to(shutil.which(word))
    out = study.folder / "out"
    study.environment |= {"PATH": str(bare), "STUDY_RESULTS": os.path.relpath(out, paths.ROOT)}
    process = study.call("run", study.write({"a": {"notebook": "01_good"}}))
    assert process.returncode == 0, process.err
    (record,) = out.glob("runs/01_good-*/metrics.json")
    assert json.loads(record.read_text())["commit"] == "unknown"
    assert not (out / "out").exists()


def test_a_finished_row_of_other_code_is_told_and_may_be_accepted(here):
    path = here.write({"a": {"notebook": "01_good"}})
    assert here.say("accept", path, "a").err == "error: a is not finished, and not kept: make batch runs it\n"
    assert here.call("run", path).returncode == 0
    assert here.say("plan", path).out == "quick.yaml: 0 of 1 rows to run\n"
    notebook = here.folder / "notebooks" / "01_good.ipynb"
    notebook.write_text(notebook.read_text().replace("print(repr(text))", "print(text)"))
    told = here.say("plan", path).out
    assert re.search(r"^  a +finished; code differs since \w+\+?: 01_good\.", told, re.MULTILINE), told
    assert "0 of 1 rows to run" in told, "nothing runs again unasked"
    accepted = here.say("accept", path, "a")
    assert re.match(r"a: accepted for today, though 01_good\.\S+.* differ\n$", accepted.out), (
        accepted.out + accepted.err
    )
    assert here.say("plan", path).out == "quick.yaml: 0 of 1 rows to run\n"


def test_many_names_are_told_as_a_few():
    assert batch.few(["a", "b"]) == "a, b"
    assert batch.few([str(i) for i in range(9)]) == "0, 1, 2, 3, 4, 5 and 3 more"
