"""Batches: files that are refused, and small notebooks run from end to end by Snakemake and papermill."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import nbformat
import psutil
import pytest
import yaml
from filelock import FileLock

from lib.study import batch, paths, rows

GOOD = """
from lib.study import runs
run = runs.start("01_good", globals())
---
import os
print(repr(text))
run.record("steps", steps)
run.record("threads", int(os.environ["OMP_NUM_THREADS"]))
---
runs.finish(run)
"""
BAD = """
import os, subprocess, sys, time
from lib.study import runs
run = runs.start("02_bad", globals())
---
if how == "raise":
    raise RuntimeError("out of luck\\nand of more")
if how == "kill":
    os.kill(os.getpid(), 9)
if how == "exit":
    sys.exit(0)
if how == "late":
    run.record("x", 1)
    runs.finish(run)
    raise RuntimeError("after the end")
if how == "sleep":
    (run.folder / "pids").write_text(f"{os.getpid()} {subprocess.Popen(['sleep', '600']).pid}")
    time.sleep(600)
if how == "train":
    from lib.gan import checkpoints
    with checkpoints.deferred_signals() as signals:
        (run.folder / "trains").touch()
        while not signals:
            time.sleep(0.01)
        time.sleep(1)  # the rest of its minibatch
        (run.folder / "saved").touch()
"""
PARAMETERS = {
    "01_good": "steps: int = 3\nlr: float = 0.1\ntext: str = 'plain'\nnet: str = 'none'",
    "02_bad": "how: str = 'raise'",
}
HOSTILE = """'); import os; os.system("touch stolen") #\n"\\" {steps} $(touch stolen) `touch stolen` ${HOME} !!map"""


def write_notebook(folder, name, source):
    cells = [nbformat.v4.new_code_cell(PARAMETERS[name], metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(cell.strip()) for cell in source.split("---\n")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / f"{name}.ipynb")


class Study:
    """Notebooks, results and batch files in a folder of their own."""

    def __init__(self, folder):
        self.folder, self.runs = folder, folder / "results" / "runs"
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("STUDY_")} | {
            "STUDY_NOTEBOOKS": str(folder / "notebooks"),
            "STUDY_RESULTS": str(folder / "results"),
        }
        (folder / "notebooks").mkdir()
        write_notebook(folder / "notebooks", "01_good", GOOD)
        write_notebook(folder / "notebooks", "02_bad", BAD)

    def write(self, content, name="quick"):
        path = self.folder / f"{name}.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump({"rows": content}, sort_keys=False))
        return path

    def start(self, *arguments):
        command = [sys.executable, "-m", "lib", *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env=self.environment, cwd=self.folder, start_new_session=True
        )

    def call(self, *arguments):
        process = self.start(*arguments)
        process.out, process.err = process.communicate(timeout=3600)
        return process

    def folder_of(self, row):
        (claims,) = self.runs.glob("claims/quick-*.json")
        return self.runs / json.loads(claims.read_text())["rows"][row]["run_id"]

    def record(self, row):
        path = self.folder_of(row) / "metrics.json"
        return json.loads(path.read_text()) if path.exists() else None


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path)


@pytest.fixture
def here(study, monkeypatch):
    """The study as this very process sees it."""
    monkeypatch.setattr(paths, "NOTEBOOKS", study.folder / "notebooks")
    monkeypatch.setattr(paths, "RESULTS", study.folder / "results")
    monkeypatch.delenv("STUDY_RUNS", raising=False)
    return study


# --- what is refused before anything runs

GOOD_ROW = "rows:\n  a: {notebook: 01_good"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD_ROW + ", parameters: {step: 3}}", "row a: 01_good has no parameter 'step': it has steps, lr, text, net"),
        (GOOD_ROW + ", parameters: {steps: 3.5}}", "row a: 01_good: steps = 3.5 is no int"),
        (GOOD_ROW + ", parameters: {steps: yes}}", "row a: 01_good: steps = True is no int"),
        (GOOD_ROW + ", parameters: {lr: 1e-3}}", "row a: 01_good: lr = '1e-3' is no float; YAML reads 1e-3 as text"),
        (GOOD_ROW + ", parameters: [steps]}", "row a: parameters: {name: value}"),
        (GOOD_ROW + ", parameters: {net: 'run:b'}}", "row a: run:b: there is no row and no finished run of this name"),
        (GOOD_ROW + ", parameters: {net: 'run:../a'}}", "row a: run:../a: there is no row"),
        (GOOD_ROW + ", parameters: {net: 'run:a'}}", "rows wait for each other: a before a"),
        (GOOD_ROW + ", after: [b]}", "row a: after: there is no row 'b'"),
        (GOOD_ROW + ", after: b}", "row a: after: [row, ...] or all"),
        (GOOD_ROW + ", after: [b]}\n  b: {notebook: 01_good, after: all}", "rows wait for each other: "),
        (GOOD_ROW + ", thread: 2}", "row a: unknown key 'thread': known are notebook, parameters, after, departs"),
        (GOOD_ROW + ", threads: 0}", "row a: threads = 0: give a number of cores, at least 1"),
        (GOOD_ROW + ", gpu: 2}", "row a: gpu = 2: give a number of cards, 0 or 1"),
        (GOOD_ROW + ", gpu: 1, gpu_mb: 8G}", "row a: gpu_mb = '8G': give a number of MiB of a card"),
        (GOOD_ROW + ", gpu_mb: 8000}", "row a: gpu_mb is a part of a card: give gpu: 1 too"),
        (GOOD_ROW + ", departs: 3}", "row a: departs: how the row's setting differs"),
        (GOOD_ROW + ", mem_mb: 2G}", "row a: mem_mb = '2G': give a number of MiB"),
        (GOOD_ROW + "}\n  a: {notebook: 02_bad}", "line 2: a is given twice"),
        (GOOD_ROW + "}\n  b: {notebook: 01_good, parameters: {steps: 3}}", "row b: is the same run as row a"),
        (GOOD_ROW + "}\n  no: {notebook: 02_bad}", "row False: a row is named with letters, digits, - and _"),
        (GOOD_ROW + "}\n  ../b: {notebook: 02_bad}", "row ../b: a row is named with"),
        (GOOD_ROW + "}\ndefaults: {02_bad: {how: exit}}", "defaults for '02_bad', which no row runs"),
        (GOOD_ROW + "}\ndefaults: {01_good: {step: 1}}", "row a: 01_good has no parameter 'step'"),
        ("rows:\n  a: {notebook: 03_none}", "row a: unknown notebook '03_none': choose one of 01_good, 02_bad"),
        ("rows:\n  a: {notebook: ../notebooks/01_good}", "row a: unknown notebook '../notebooks/01_good'"),
        ("rows:\n  a: 01_good", "row a: unknown notebook '01_good'"),
        ("rows: {a: [}", "line 1: "),
        ("rows: []", "needs `rows:`"),
        ("", "needs `rows:`"),
        ("rows: {a: !!python/object/apply:os.getcwd []}", "line 1: could not determine a constructor"),
    ],
)
def test_a_batch_file_is_refused_in_one_line(here, content, message):
    with pytest.raises(ValueError, match="^" + re.escape("quick.yaml")) as error:
        rows.load(here.write(content))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no batch file .*/none.yaml"):
        rows.load(tmp_path / "none.yaml")


def test_a_row_is_resolved(here):
    made = rows.load(
        here.write("""
defaults: {01_good: {lr: 1}}
rows:
  last: {notebook: 02_bad, after: all}
  walk: {notebook: 01_good, parameters: {net: "run:train", lr: 2}, gpu: 1, gpu_mb: 9, mem_mb: 9, runtime: 5, threads: 2}
  train: {notebook: 01_good}
""")
    ).rows
    assert list(made) == ["train", "walk", "last"], "in an order in which they can run"
    assert made["train"].parameters == {"lr": 1.0}
    assert made["walk"].parameters == {"lr": 2.0, "net": f"run:{made['train'].run_id}"}
    assert (made["walk"].needs, made["walk"].after, made["walk"].threads) == (("train",), (), 2)
    assert made["walk"].resources == {"gpu": 1, "gpu_mb": 9, "mem_mb": 9, "runtime": 5}
    assert made["last"].after == tuple(sorted((made["train"].run_id, made["walk"].run_id)))


# --- end to end

SCENARIO = {
    "good": {"notebook": "01_good", "parameters": {"steps": 4}, "threads": 2},
    "hostile": {"notebook": "01_good", "parameters": {"text": HOSTILE}},
    "of-good": {"notebook": "01_good", "parameters": {"net": "run:good"}},
    "of-raise": {"notebook": "01_good", "parameters": {"net": "run:raise"}},
    "last": {"notebook": "01_good", "after": "all"},
} | {how: {"notebook": "02_bad", "parameters": {"how": how}} for how in ("raise", "kill", "exit", "late")}


def test_named_rows_run_with_what_they_need(study):
    path = study.write(
        {
            "a": {"notebook": "01_good"},
            "of-a": {"notebook": "01_good", "parameters": {"net": "run:a"}},
            "b": {"notebook": "01_good", "parameters": {"lr": 0.5}},
            "bad": {"notebook": "02_bad"},
        }
    )
    assert study.call("run", path, "--rows", "b").returncode == 0, "the others were not asked for"
    both = study.call("run", path, "--rows", "b", "a", "of-a")
    assert both.returncode == 0, both.err
    assert "2 of 3 rows to run" in both.out
    assert sorted(re.findall(r"(\S+) started", both.out)) == ["a", "of-a"], "b, which is finished, ends nothing"
    assert study.call("run", path, "--rows", "of-a").out.startswith("quick: 0 of 1 rows to run\n")

    unknown = study.call("run", path, "--rows", "of-b")
    assert unknown.returncode == 1
    assert unknown.err == f"error: {path} has no row 'of-b': it has a, b, bad, of-a\n"


def test_a_partly_failed_batch(here, capsys):
    process = here.call("run", here.write(SCENARIO))
    out, err = process.out, process.err

    # what came of it is told at the end, and calmly
    assert process.returncode != 0
    for row in ("good", "hostile", "of-good"):
        assert re.search(rf"^  finished  {row} ", out, re.MULTILINE), out
    for row, reason in {
        "raise": "RuntimeError: out of luck",
        "kill": "kernel died (killed, or out of memory)",
        "exit": "ended without metrics.json",
        "late": "RuntimeError: after the end",
    }.items():
        assert re.search(rf"^  FAILED    {row} .*{re.escape(reason)}.*notebook.ipynb$", out, re.MULTILINE), out
        assert re.search(rf"^error: quick, row {row}: {re.escape(reason)}.*notebook.ipynb$", err, re.MULTILINE), err
    assert re.search(r"^  not run   of-raise +after raise$", out, re.MULTILINE), out
    assert re.search(r"^  not run   last ", out, re.MULTILINE), out
    assert "Traceback" not in out + err
    assert len(err.splitlines()) <= 5, err  # one is the notebook client's own

    # the failed notebook is the record
    failed = here.folder_of("raise") / "notebook.ipynb"
    assert {"Traceback", "out of luck"} <= set(re.findall("Traceback|out of luck", failed.read_text()))
    assert not here.folder_of("of-raise").exists()

    # nothing unfinished is taken for finished
    assert {row for row in SCENARIO if here.record(row)} == {"good", "hostile", "of-good"}
    assert len((here.folder / "results" / "runs" / "table.csv").read_text().splitlines()) == 1 + 3 * 2
    assert here.record("of-good")["parameters"]["net"] == f"run:{here.record('good')['run_id']}"

    # threads are the row's, text is data
    threads = {row: here.record(row)["metrics"][1]["value"] for row in ("good", "hostile")}
    assert threads == {"good": min(2, os.cpu_count()), "hostile": 1}
    assert here.record("hostile")["parameters"]["text"] == HOSTILE
    assert not [*here.folder.rglob("stolen"), *paths.ROOT.glob("stolen")]

    # what would run now, and why
    changed = SCENARIO | {"good": {"notebook": "01_good", "parameters": {"steps": 5}}}
    batch.plan(rows.load(here.write(changed)))
    told = capsys.readouterr().out
    assert "8 of 9 rows to run" in told
    for row, reason in {
        "good": "steps: 4 -> 5",
        "of-good": r'net: "run:01_good-\w+" -> "run:01_good-\w+"',
        "raise": "not finished last time: RuntimeError: out of luck",
        "of-raise": "new row",
    }.items():
        assert re.search(rf"^  {row} +{reason}$", told, re.MULTILINE), told


def test_finished_runs_are_skipped_and_changed_ones_run(study):
    content = {
        "a": {"notebook": "01_good"},
        "of-a": {"notebook": "01_good", "parameters": {"net": "run:a"}},
        "b": {"notebook": "01_good", "parameters": {"lr": 0.5}},
    }
    path = study.write(content)
    first = study.call("run", path)
    assert first.returncode == 0, first.err
    assert first.err == ""
    made = {p: p.stat().st_mtime_ns for p in study.runs.glob("*/metrics.json")}
    assert len(made) == 3

    second = study.call("run", path)
    assert second.returncode == 0
    assert "0 of 3 rows to run" in second.out
    assert {p: p.stat().st_mtime_ns for p in study.runs.glob("*/metrics.json")} == made

    written = study.call("workflow", path)
    assert written.returncode == 0, written.err
    page = study.folder / "results" / "site" / "quick-workflow.html"
    assert written.out == f"{page}\n"
    content_of_page = page.read_text()
    assert all(f'"{row}"' in content_of_page for row in content)
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=.?(https?:)?//", content_of_page), "it needs no network"

    content["a"]["parameters"] = {"steps": 7}
    third = study.call("run", study.write(content))
    assert third.returncode == 0
    assert re.findall(r"(\S+) started", third.out) == ["a", "of-a"]
    assert {p: p.stat().st_mtime_ns for p in made} == made, "the older runs stay"
    assert study.record("of-a")["parameters"]["net"] == f"run:{study.record('a')['run_id']}"

    (study.folder_of("a") / "metrics.json").unlink()
    fourth = study.call("run", path)
    assert re.findall(r"(\S+) started", fourth.out) == ["a"], "what came of it is the same run, and stays"


def test_a_damaged_metrics_file_is_not_taken_for_finished(here):
    path = here.write({"a": {"notebook": "01_good"}})
    row = rows.load(path).rows["a"]
    row.folder.mkdir(parents=True)
    for content in ('{"run_id": ', json.dumps({})):
        row.metrics.write_text(content)
        with pytest.raises(ValueError, match=r"quick.yaml, row a: .*metrics.json is no metrics file .*: delete"):
            rows.load(path)


def test_nothing_runs_where_a_row_is_wrong(study):
    process = study.call("run", study.write({"a": {"notebook": "01_good"}, "b": {"notebook": "02_bad", "after": "c"}}))
    assert process.returncode != 0
    assert process.err.startswith("error: quick.yaml, row b: ")
    assert len(process.err.splitlines()) == 1
    assert not study.runs.exists()


def test_a_results_folder_that_takes_no_files_is_named(study):
    (study.folder / "results").write_text("")  # as good as read-only, for root too
    process = study.call("run", study.write({"a": {"notebook": "01_good"}}))
    assert process.returncode != 0
    assert re.fullmatch(r"error: cannot write .*/results/runs/claims/quick-.*json: .*\n", process.err)


@pytest.mark.parametrize(
    ("command", "number"), [("run", signal.SIGTERM), ("execute", signal.SIGTERM), ("execute", signal.SIGKILL)]
)
def test_an_interrupted_batch_leaves_no_kernel_behind(study, command, number):
    path = study.write({"a": {"notebook": "02_bad", "parameters": {"how": "sleep"}}})
    process = study.start(command, path, *(["a"] if command == "execute" else []))
    try:
        pids = next(wait_for(lambda: [p.read_text().split() for p in study.runs.glob("*/*/pids")]))
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    assert number == signal.SIGKILL or "quick, row a: interrupted" in err
    next(wait_for(lambda: [not any(alive(int(pid)) for pid in pids)], 30))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["run", "execute"])
def test_an_interrupted_batch_lets_a_training_save(study, command, number):
    path = study.write({"a": {"notebook": "02_bad", "parameters": {"how": "train"}}})
    process = study.start(command, path, *(["a"] if command == "execute" else []))
    try:
        next(wait_for(lambda: list(study.runs.glob("*/*/trains"))))
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "quick, row a: interrupted" in err
    assert list(study.runs.glob("*/*/saved"))


def test_a_row_that_runs_in_another_call_is_no_failure(here, capsys):
    loaded = rows.load(here.write({"a": {"notebook": "01_good"}, "b": {"notebook": "02_bad"}}))
    folder = loaded.rows["a"].folder
    folder.mkdir(parents=True)
    for name in ("params.json", "notebook.ipynb", "lock"):
        (folder / name).write_text("")

    def told():
        batch.plan(loaded)
        batch.summarise(loaded)
        out = capsys.readouterr().out
        return re.findall(r"^  a +(.*)$", out, re.MULTILINE), re.findall(r"^  (running|FAILED) +a ", out, re.MULTILINE)

    with FileLock(folder / "lock"):
        assert told() == (["runs now, in another call"], ["running"])
    assert told() == (["not finished last time: interrupted"], ["FAILED"])
    assert not loaded.rows["b"].folder.exists()


def test_kernels_killed_at_random(study):
    """Every row is finished or named as failed, none is lost, none counted twice; the next run makes up for all.

    A few rows here; STUDY_ORDEAL=200 asks for more.
    """
    names = [f"row-{i}" for i in range(int(os.environ.get("STUDY_ORDEAL", 6)))]
    path = study.write({name: {"notebook": "01_good", "parameters": {"steps": i}} for i, name in enumerate(names)})
    chance, spared, killed = random.Random(0), set(), 0
    process = study.start("run", path)
    with ThreadPoolExecutor(1) as pool:  # which reads what it says, so that it never waits for a reader
        said = pool.submit(process.communicate)
        while process.poll() is None:
            for kernel in kernels_of(process.pid) - spared:
                if chance.random() < 0.4:
                    time.sleep(chance.random())
                    with suppress(psutil.NoSuchProcess):
                        kernel.kill()
                        killed += 1
                spared.add(kernel)
            time.sleep(0.1)
        out, err = said.result()

    states = {row: state for state, row in re.findall(r"^  (finished|FAILED) +(row-\d+) ", out, re.MULTILINE)}
    finished = {row for row, state in states.items() if state == "finished"}
    assert 0 < len(finished) < len(names), "some were killed, and some were not"
    assert states.keys() == set(names), out + err
    assert finished == {row for row in names if study.record(row)}
    assert 0 < len(names) - len(finished) <= killed
    assert process.returncode != 0

    again = study.call("run", path)
    assert again.returncode == 0, again.err
    assert f"{len(names) - len(finished)} of {len(names)} rows to run" in again.out
    with (study.folder / "results" / "runs" / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    steps = sorted(float(line["value"]) for line in lines if line["metric"] == "steps")
    assert steps == list(range(len(names)))


def kernels_of(pid):
    """The kernels that run below a process."""
    found = set()
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, IndexError):
                if "ipykernel_launcher" in process.cmdline():
                    found.add(process)
    return found


# A cluster of one node: each word is a shell script that does as Slurm's does, as far as the executor asks.
SLURM = {
    "sbatch": """
        job=$$
        printf '%s\\n' "$@" > "$JOBS/$job.args"
        for word; do
            case "$word" in --wrap=*) printf '#!/bin/sh\\n%s\\n' "${word#--wrap=}" > "$JOBS/$job.sh";; esac
        done
        echo RUNNING > "$JOBS/$job.state"
        (SLURM_JOB_ID=$job sh "$JOBS/$job.sh" > "$JOBS/$job.log" 2>&1 && echo COMPLETED > "$JOBS/$job.state" ||
            echo FAILED > "$JOBS/$job.state") > /dev/null 2>&1 &
        echo $job
    """,
    "sacct": """
        case "$*" in *State*) cd "$JOBS"; for s in *.state; do echo "${s%.state}|$(cat $s)"; done;; esac
    """,
    "srun": """
        while case "$1" in -*) true;; *) false;; esac; do shift; done
        exec "$@"
    """,
    "squeue": "",
    "sinfo": "printf 'PARTITION\\nmain*\\n'",
    "scontrol": "echo MinJobAge = 300 sec",
    "scancel": 'echo "$@" >> "$JOBS/cancelled"',
}


def test_rows_go_through_slurm(study):
    pytest.importorskip("snakemake_executor_plugin_slurm")
    tools, jobs = study.folder / "bin", study.folder / "jobs"
    tools.mkdir(), jobs.mkdir()
    for name, script in SLURM.items():
        (tools / name).write_text(f"#!/bin/sh\nJOBS={jobs}\n{textwrap.dedent(script)}\n")
        (tools / name).chmod(0o755)
    study.environment["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"
    study.environment["CUDA_VISIBLE_DEVICES"] = ""
    large = {"threads": 2, "gpu": 1, "gpu_mb": 900, "mem_mb": 700, "runtime": 5}
    good = {"notebook": "01_good", "parameters": {"text": HOSTILE}}
    path = study.write({"good": good | large, "raise": {"notebook": "02_bad", "after": ["good"]}})
    profile = paths.ROOT / "profiles" / "slurm"
    process = study.call(
        "run", path, f"--profile={profile}", "--slurm-init-seconds-before-status-checks=1", "--slurm-no-account",
        "--latency-wait=5",
    )  # fmt: skip
    logs = "\n".join(log.read_text() for log in sorted(jobs.glob("*.log")))
    said = re.findall(r"^  (finished|FAILED) +(\S+) ", process.out, re.MULTILINE)
    assert said == [("finished", "good"), ("FAILED", "raise")], process.out + logs
    assert process.returncode != 0
    submitted = {re.search(r"^rule_(\S+)$", found.read_text(), re.MULTILINE)[1]: found for found in jobs.glob("*.args")}
    assert submitted.keys() == {"good", "raise"}
    asked = submitted["good"].read_text().splitlines()
    for words in (["--mem", "700"], ["-t", "5"], ["--gpus=1"], ["--cpus-per-task=2"], ["-p", "main"]):
        assert " ".join(words) in " ".join(asked), asked
    defaults = " ".join(submitted["raise"].read_text().splitlines())
    assert "--mem 16000" in defaults
    assert "-t 240" in defaults
    assert "--gpus" not in defaults
    scripts = "".join(script.read_text() for script in jobs.glob("*.sh"))
    assert scripts.count("-m snakemake") == 2
    assert not [*study.folder.rglob("stolen"), *paths.ROOT.glob("stolen")]


def wait_for(found, seconds=120):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if result := found():
            yield from result
        time.sleep(0.2)
    raise TimeoutError


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
