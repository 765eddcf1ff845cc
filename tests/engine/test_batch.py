"""Batches: files that are refused, and small notebooks run from end to end."""

import csv
import json
import os
import random
import re
import signal
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import psutil
import pytest
from filelock import FileLock
from studies import HOSTILE, alive, executor_of, kernels_of, wait_for

from lib.engine import batch, places, rows
from lib.study import manifest, paths

# --- what is refused before anything runs

GOOD_ROW = "rows:\n  a: {level: toy, notebook: 01_good"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            GOOD_ROW + ", parameters: {step: 3}}",
            "row a: 01_good has no parameter 'step': it has steps, lr, text, net, device",
        ),
        (GOOD_ROW + ", parameters: {steps: 3.5}}", "row a: 01_good: steps = 3.5 is no int"),
        (GOOD_ROW + ", parameters: {steps: yes}}", "row a: 01_good: steps = 'yes' is no int"),
        (GOOD_ROW + ", parameters: [steps]}", "row a: parameters: {name: value}"),
        (GOOD_ROW + ", parameters: {net: 'run:b'}}", "row a: run:b: there is no row and no finished run of this name"),
        (GOOD_ROW + ", parameters: {net: 'run:../a'}}", "row a: run:../a: there is no row"),
        (GOOD_ROW + ", parameters: {net: 'run:a'}}", "rows wait for each other: a before a"),
        (GOOD_ROW + ", after: [b]}", "row a: after: there is no row 'b'"),
        (GOOD_ROW + ", after: b}", "row a: after: [row, ...] or all"),
        (GOOD_ROW + ", after: [b]}\n  b: {level: toy, notebook: 01_good, after: all}", "rows wait for each other: "),
        (
            GOOD_ROW + ", thread: 2}",
            "row a: unknown key 'thread': known are notebook, parameters, after, level, departs",
        ),
        (
            "rows:\n  a: {notebook: 01_good}",
            "row a: no level of evidence: give `level:`, one of direct, authors, conceptual",
        ),
        (GOOD_ROW + "}\n  b: {notebook: 02_bad}", "row b: no level of evidence: give `level:`"),
        (
            "level: high\nrows:\n  a: {notebook: 01_good}",
            "row a: level = 'high': choose one of direct, authors, conceptual",
        ),
        ("rows:\n  a: {notebook: 01_good, level: [toy]}", "row a: level = ['toy']: choose one of direct"),
        (
            "level: direct\nrows:\n  a: {notebook: 01_good, departs: a bit}",
            "row a: level = 'direct', but it departs: a bit",
        ),
        (GOOD_ROW + ", threads: 0}", "row a: threads = 0: give a number of cores, at least 1"),
        (GOOD_ROW + ", gpu: 2}", "row a: gpu = 2: give a number of cards, 0 or 1"),
        (GOOD_ROW + ", gpu: 1, gpu_mb: 8G}", "row a: gpu_mb = '8G': give a number of MiB of a card"),
        (GOOD_ROW + ", gpu_mb: 8000}", "row a: gpu_mb is a part of a card: give gpu: 1 too"),
        (GOOD_ROW + ", departs: 3}", "row a: departs: how the row's setting differs"),
        (GOOD_ROW + ", mem_mb: 2G}", "row a: mem_mb = '2G': give a number of MiB"),
        (GOOD_ROW + "}\n  a: {notebook: 02_bad}", 'line 3: found duplicate key "a"'),
        (
            GOOD_ROW + "}\n  b: {level: toy, notebook: 01_good, parameters: {steps: 3}}",
            "row b: is the same run as row a",
        ),
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


def test_two_files_of_one_name_are_two_batches(tmp_path):
    assert rows.name_of(paths.ROOT / "batches" / "quick.yaml") == "quick"
    one, other = (rows.name_of(tmp_path / folder / "mine.yaml") for folder in ("one", "other"))
    assert one != other
    assert one.startswith("mine-") and other.startswith("mine-")


def test_a_row_is_resolved(here):
    made = rows.load(
        here.write("""
defaults: {01_good: {lr: 1}}
level: conceptual
rows:
  last: {notebook: 02_bad, after: all, level: toy}
  walk: {notebook: 01_good, parameters: {net: "run:train", lr: 2}, gpu: 1, gpu_mb: 9, mem_mb: 9, runtime: 5, threads: 2}
  train: {notebook: 01_good}
""")
    ).rows
    assert list(made) == ["train", "walk", "last"], "in an order in which they can run"
    assert made["train"].parameters == {"lr": 1.0}
    assert [made[name].level for name in ("train", "walk", "last")] == ["conceptual", "conceptual", "toy"]
    assert made["walk"].parameters == {"lr": 2.0, "net": f"run:{made['train'].run_id}"}
    assert (made["walk"].needs, made["walk"].after, made["walk"].threads) == (("train",), (), 2)
    assert made["walk"].resources == {"gpu": 1, "gpu_mb": 9, "mem_mb": 9, "runtime": 5}
    assert made["last"].after == tuple(sorted((made["train"].run_id, made["walk"].run_id)))


def test_images_that_rows_share_are_looked_at_once(here, monkeypatch):
    looked = []
    monkeypatch.setattr(manifest, "of_images", lambda value: looked.append(value) or "0123")
    text = {
        f"row{i}": {"notebook": "01_good", "parameters": {"text": "folder:photos", "steps": i}} for i in range(1, 9)
    }
    made = rows.load(here.write(text)).rows
    assert looked.count("folder:photos") == 1
    assert {row.identity["content of text"] for row in made.values()} == {"0123"}


# --- end to end

SCENARIO = {
    "good": {"notebook": "01_good", "parameters": {"steps": 4}, "threads": 2},
    "hostile": {"notebook": "01_good", "parameters": {"text": HOSTILE}},
    "of-good": {"notebook": "01_good", "parameters": {"net": "run:good"}},
    "of-raise": {"notebook": "01_good", "parameters": {"net": "run:raise"}},
    "last": {"notebook": "01_good", "after": "all"},
} | {how: {"notebook": "02_bad", "parameters": {"how": how}} for how in ("raise", "kill", "exit", "late")}


def test_rows_run_where_they_are_named_new_or_changed(here):
    """With what they need; finished ones are skipped, and stay."""
    content = {
        "a": {"notebook": "01_good"},
        "of-a": {"notebook": "01_good", "parameters": {"net": "run:a"}},
        "b": {"notebook": "01_good", "parameters": {"lr": 0.5}},
    }
    path = here.write(content | {"bad": {"notebook": "02_bad"}})
    assert here.call("run", path, "--rows", "b").returncode == 0, "the others were not asked for"
    both = here.call("run", path, "--rows", "b", "a", "of-a")
    assert (both.returncode, both.err) == (0, "")
    assert "2 of 3 rows to run" in both.out
    assert sorted(re.findall(r"(\S+) started", both.out)) == ["a", "of-a"], "b, which is finished, ends nothing"
    assert here.say("run", path, "--rows", "of-a").out.startswith("quick.yaml: 0 of 2 rows to run\n")

    unknown = here.say("run", path, "--rows", "of-b")
    assert unknown.returncode == 1
    assert unknown.err == f"error: {path} has no row 'of-b': it has a, b, bad, of-a\n"

    made = {p: p.stat().st_mtime_ns for p in here.runs.glob("*/metrics.json")}
    assert len(made) == 3
    again = here.say("run", here.write(content))
    assert again.returncode == 0
    assert "0 of 3 rows to run" in again.out
    assert {p: p.stat().st_mtime_ns for p in here.runs.glob("*/metrics.json")} == made

    content["a"]["parameters"] = {"steps": 7}
    changed = here.call("run", here.write(content))
    assert changed.returncode == 0
    assert re.findall(r"(\S+) started", changed.out) == ["a", "of-a"]
    assert {p: p.stat().st_mtime_ns for p in made} == made, "the older runs stay"
    assert here.record("of-a")["parameters"]["net"] == f"run:{here.record('a')['run_id']}"

    (here.folder_of("a") / "metrics.json").unlink()
    lost = here.call("run", path)
    assert re.findall(r"(\S+) started", lost.out) == ["a"], "what came of it is the same run, and stays"


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
        assert re.search(rf"^error: quick.yaml, row {row}: {re.escape(reason)}.*notebook.ipynb$", err, re.MULTILINE), (
            err
        )
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
    assert len((here.runs / "table.csv").read_text().splitlines()) == 1 + 3 * 2
    assert here.record("of-good")["parameters"]["net"] == f"run:{here.record('good')['run_id']}"

    # threads are the row's, text is data
    threads = {row: here.record(row)["metrics"][1]["value"] for row in ("good", "hostile")}
    assert threads == {"good": min(2, len(os.sched_getaffinity(0))), "hostile": 1}
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


def test_a_damaged_metrics_file_is_not_taken_for_finished(here):
    path = here.write({"a": {"notebook": "01_good"}})
    row = rows.load(path).rows["a"]
    row.folder.mkdir(parents=True)
    for content in ('{"run_id": ', json.dumps({})):
        row.metrics.write_text(content)
        with pytest.raises(ValueError, match=r"quick.yaml, row a: .*metrics.json is no metrics file .*: delete"):
            rows.load(path)


def test_a_row_that_was_not_asked_for_is_told_as_such(here, capsys):
    rows_of = {name: {"notebook": "01_good", "parameters": {"steps": i}} for i, name in enumerate(["a", "b", "c"], 1)}
    loaded = rows.load(here.write(rows_of | {"b": rows_of["b"] | {"after": ["a"]}}))
    batch.summarise(loaded, {"a", "b"})
    told = sorted(line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines() if "not run" in line)
    assert told == [["not", "run", "a"], ["not", "run", "b", "after a"], ["not", "run", "c", "not asked for"]]


def test_nothing_runs_where_a_row_is_wrong(here):
    process = here.say("run", here.write({"a": {"notebook": "01_good"}, "b": {"notebook": "02_bad", "after": "c"}}))
    assert process.returncode != 0
    assert process.err.startswith("error: quick.yaml, row b: ")
    assert len(process.err.splitlines()) == 1
    assert not here.runs.exists()


def test_a_results_folder_that_takes_no_files_is_named(here):
    (here.folder / "results").write_text("")  # as good as read-only, for root too
    process = here.say("run", here.write({"a": {"notebook": "01_good"}}))
    assert process.returncode != 0
    assert re.fullmatch(r"error: cannot write .*/results/runs/.*: .*\n", process.err)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("of", ["batch", "executor"])
def test_an_interrupted_batch_leaves_no_kernel_behind(study, of, number):
    path = study.write({"a": {"notebook": "02_bad", "parameters": {"how": "sleep"}}})
    process = study.start("run", path)
    try:
        pids = next(wait_for(lambda: [p.read_text().split() for p in study.runs.glob("*/pids")]))
        (process if of == "batch" else executor_of(process)).send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    next(wait_for(lambda: [pids] if not any(alive(int(pid)) for pid in pids) else [], 30))
    if number == signal.SIGTERM:
        assert "quick.yaml, row a: interrupted" in err
    elif of == "executor":
        assert err.startswith("error: row a: its process was killed by SIGKILL, perhaps for want of memory\n")


def test_a_row_that_ends_well_leaves_nothing_behind(study):
    process = study.call("run", study.write({"a": {"notebook": "02_bad", "parameters": {"how": "leave"}}}))
    assert process.returncode == 0, process.err
    left = next(study.runs.glob("*/pids")).read_text()
    next(wait_for(lambda: [left] if not alive(int(left)) else [], 10))
    assert process.err == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_an_interrupted_batch_lets_a_training_save(study, number):
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("ignored here, as under nohup")
    path = study.write({"a": {"notebook": "02_bad", "parameters": {"how": "train"}}})
    process = study.start("run", path)
    try:
        next(wait_for(lambda: list(study.runs.glob("*/trains"))))
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "quick.yaml, row a: interrupted" in err
    next(wait_for(lambda: list(study.runs.glob("*/saved")), 30))


def test_a_row_that_runs_in_another_call_is_no_failure(here, capsys):
    loaded = rows.load(here.write({"a": {"notebook": "01_good"}, "b": {"notebook": "02_bad"}}))
    folder = loaded.rows["a"].folder
    folder.mkdir(parents=True)
    for name in ("params.json", "notebook.ipynb", "lock"):
        (folder / name).write_text("")

    def told():
        batch.plan(loaded)
        batch.summarise(loaded, loaded.rows)
        out = capsys.readouterr().out
        return re.findall(r"^  a +(.*)$", out, re.MULTILINE), re.findall(r"^  (running|FAILED) +a ", out, re.MULTILINE)

    with FileLock(folder / "lock"):
        assert told() == (["runs now, in another call"], ["running"])
    assert told() == (["not finished last time: interrupted"], ["FAILED"])
    assert not loaded.rows["b"].folder.exists()


def test_who_fails_to_wait_does_not_say_that_a_running_row_failed(here, capsys):
    row = rows.load(here.write({"a": {"notebook": "01_good"}})).rows["a"]
    row.folder.mkdir(parents=True)
    with FileLock(row.lock):
        batch._note_failure(row, 1)
    assert not row.failure.exists() and capsys.readouterr().err == ""
    batch._note_failure(row, 1)
    assert row.failure.read_text() == "its process ended with exit code 1"


def test_what_somebody_ran_by_hand_finishes_no_row(here):
    """It has no executed notebook, which a reader of the row is sent to."""
    row = rows.load(here.write({"a": {"notebook": "01_good"}})).rows["a"]
    row.folder.mkdir(parents=True)
    for made_by in ("", "another"):
        record(row, made_by)
        assert row.finished() == bool(made_by), "a row that two batches share is finished by either"


def record(row, made_by="quick"):
    """Write the least record of a finished run, of a batch or by hand."""
    needed = dict.fromkeys(("notebook", "row", "departs", "parameters", "finished", "metrics"), "")
    row.folder.mkdir(parents=True, exist_ok=True)
    row.metrics.write_text(json.dumps(needed | {"run_id": row.run_id, "batch": made_by}))


def test_rows_that_took_what_is_run_again_are_named(here, capsys):
    of_a = {"notebook": "01_good", "parameters": {"text": "of a"}, "after": ["a"]}
    last = of_a | {"parameters": {"text": "last"}, "after": ["of-a"]}
    loaded = rows.load(
        here.write({"a": {"notebook": "01_good"}, "of-a": of_a, "last": last, "b": {"notebook": "02_bad"}})
    )
    again = {"a": replace(loaded.rows["a"], rerun=True)}
    batch.tell_left(loaded, again)
    assert capsys.readouterr().out == "", "what was never run has no numbers to keep"
    for name in ("of-a", "last"):
        record(loaded.rows[name])
    batch.tell_left(loaded, again)
    assert capsys.readouterr().out == (
        "of-a, last took what is run again, and keep their numbers: name them with --rerun, too\n"
    )
    batch.tell_left(loaded, again | {name: loaded.rows[name] for name in ("of-a", "last")})
    batch.tell_left(loaded, {"a": loaded.rows["a"]})
    assert capsys.readouterr().out == ""


def test_kernels_killed_at_random(study):
    """Every row is finished or named as failed, none is lost, none counted twice; the next run makes up for all.

    A few rows here; STUDY_ORDEAL=200 asks for more.
    """
    names = [f"row-{i}" for i in range(int(os.environ.get("STUDY_ORDEAL", 4)))]
    path = study.write({name: {"notebook": "01_good", "parameters": {"steps": i}} for i, name in enumerate(names, 1)})
    chance, spared, killed = random.Random(22), set(), 0  # of the first four two, at once
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
    with (study.runs / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    steps = sorted(float(line["value"]) for line in lines if line["metric"] == "steps")
    assert steps == list(range(1, 1 + len(names)))


# A cluster of one node: each word is a shell script that does as Slurm's does, as far as it is asked here.
SLURM = {
    "sbatch": """
        for word; do
            case "$word" in
                --job-name=*) name="${word#*=}";;
                --output=*) log="${word#*=}";;
                --wrap=*) wrapped="${word#*=}";;
            esac
        done
        printf '%s\\n' "$@" > "$JOBS/$name.args"
        printf '%s\\n' "$wrapped" > "$JOBS/$name.sh"
        touch "$JOBS/$name.queued"
        setsid job "$name" > "$log" 2>&1 < /dev/null &
        wait $!
    """,
    "job": """
        CUDA_VISIBLE_DEVICES=7 sh "$JOBS/$1.sh"
        code=$?
        rm "$JOBS/$1.queued"
        exit $code
    """,
    "squeue": """for job in "$JOBS"/*.queued; do job="${job##*/}"; echo "${job%.queued}"; done""",
}


@pytest.fixture
def cluster(study):
    """The study on a machine with Slurm's words; its jobs leave their words in the returned folder."""
    tools, jobs = study.folder / "bin", study.folder / "jobs"
    tools.mkdir(), jobs.mkdir()
    for name, script in SLURM.items():
        (tools / name).write_text(f"#!/bin/sh\nJOBS={jobs}\n{textwrap.dedent(script)}\n")
        (tools / name).chmod(0o755)
    study.environment["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"
    return jobs


PROFILE = paths.ROOT / "profiles" / "slurm.yaml"


def test_rows_go_through_slurm(study, cluster):
    large = {"threads": 2, "gpu": 1, "gpu_mb": 900, "mem_mb": 700, "runtime": 5}
    good = {"notebook": "01_good", "parameters": {"text": HOSTILE}}
    path = study.write({"good": good | large, "raise": {"notebook": "02_bad", "after": ["good"]}})
    process = study.call("run", path, "--slurm", PROFILE)
    logs = "\n".join(log.read_text() for log in study.runs.glob("*/slurm.log"))
    said = re.findall(r"^  (finished|FAILED) +(\S+) ", process.out, re.MULTILINE)
    assert said == [("finished", "good"), ("FAILED", "raise")], process.out + process.err + logs
    assert process.returncode == 1
    asked = {found.name.partition("-")[0]: found.read_text().splitlines() for found in cluster.glob("*.args")}
    assert {"--wait", "--mem=700M", "--time=5", "--gpus=1", "--cpus-per-task=2"} <= set(asked["01_good"])
    assert {"--mem=16000M", "--time=240", "--cpus-per-task=1", "--signal=B:TERM@120"} <= set(asked["02_bad"])
    assert "--gpus=1" not in asked["02_bad"]
    assert study.record("good")["parameters"]["text"] == HOSTILE
    assert not [*study.folder.rglob("stolen"), *paths.ROOT.glob("stolen")]


def test_who_stops_waiting_for_a_job_does_not_say_that_it_failed(study, cluster):
    path = study.write({"a": {"notebook": "02_bad", "parameters": {"how": "wait"}}})
    process = study.start("run", path, "--slurm", PROFILE)
    waits = next(wait_for(lambda: list(study.runs.glob("*/waits"))))
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "the jobs go on" in out and "running   a" in out
    assert "FAILED" not in out and "error" not in err and not list(study.runs.glob("*/failed.txt"))
    waits.unlink()
    assert next(wait_for(lambda: list(study.runs.glob("*/metrics.json"))))


def test_a_profile_that_is_no_yaml(tmp_path):
    (tmp_path / "slurm.yaml").write_text("jobs: [1")
    with pytest.raises(ValueError, match="slurm.yaml: expected"):
        places.Cluster.read(tmp_path / "slurm.yaml")


def test_a_job_outlives_the_process_that_waits_for_it(study, cluster):
    path = study.write({"a": {"notebook": "02_bad", "parameters": {"how": "wait"}}})
    process = study.start("run", path, "--slurm", PROFILE)
    waits = next(wait_for(lambda: list(study.runs.glob("*/waits"))))
    process.kill()
    process.wait()
    process.stdout.close(), process.stderr.close()
    again = study.start("run", path, "--slurm", PROFILE)
    assert any("a waits" in line for line in again.stdout)
    waits.unlink()
    out, _ = again.communicate(timeout=60)
    assert again.returncode == 0, out
    assert len(list(cluster.glob("*.args"))) == 1
