"""The script for a lent card: its order, lengths that fit, stopped anywhere, all brought out, parts that join."""

import importlib.util
import json
import re
import sys
import tarfile
import time

import pytest
import yaml

from lib.engine import rows
from lib.gan import train
from lib.images import data
from lib.nets import models, weights
from lib.study import paths

SPEC = importlib.util.spec_from_file_location("gpu_minutes", paths.ROOT / "profiles" / "gpu_minutes.py")
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)
N = 204_285  # images that natural32 leaves to learn from


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Runs and sets of its own, updates a second that are known, and what is called in place of a stage's processes."""
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(script, "updates_per_second", lambda p, size, seconds: 9600 / size)
    called = []
    monkeypatch.setattr(script, "call", lambda command, seconds: called.append((command[1:], seconds)) or 0)
    return called


def test_every_row_has_its_stage_in_the_order_of_its_worth():
    staged = [name for _, wanted in script.STAGES.values() for name in wanted]
    assert sorted(staged) == sorted(yaml.safe_load(script.BATCH.read_text())["rows"])
    order = ["rate", *script.STAGES]
    assert re.findall(r"^    (\w+)  ", script.__doc__, re.MULTILINE) == order
    assert order[:6] == ["rate", "smoke", "long", "snapshots", "plain", "photographs"]


@pytest.mark.parametrize(
    ("rates", "size", "updates"),
    [
        ({32: 500.0, 128: 300.0}, 32, 100_000),  # of 168,000 that fit
        ({32: 370.0, 128: 300.0}, 128, 100_000),  # hardly more updates: the paper's
        ({32: 200.0, 128: 100.0}, 32, 67_200),  # 80% of 7 minutes
    ],
)
def test_the_minibatch_is_small_where_that_makes_more_updates(rates, size, updates):
    given = yaml.safe_load(script.BATCH.read_text())["rows"]
    before = yaml.safe_load(script.BATCH.read_text())["rows"]
    said = script.fit(given, N, rates)
    assert f"long: {updates:,} updates in minibatches of {size}; plain: " in said
    for name in ("long", *script.SNAPSHOTS):
        p = given[name]["parameters"]
        assert p == before[name]["parameters"] | {"epochs": p["epochs"], "batch_size": size}
        assert data.steps_of(p["epochs"], N, size) == updates
        assert given[name]["departs"].endswith(
            f"epochs, minibatches of {size}; mirrored, shifted and cut out, the rate falling over the last half"
        )
    plain = given["plain"]["parameters"]
    assert plain["batch_size"] == 128
    assert data.steps_of(plain["epochs"], N, 128) == min(40_000, int(0.8 * 180 * rates[128]))
    assert given["plain"]["departs"].endswith("minibatches of 128")
    others = given.keys() - {"long", *script.SNAPSHOTS, "plain"}
    assert {name: given[name] for name in others} == {name: before[name] for name in others}


def test_updates_are_counted():
    p = train.identity.parameters_of("01_train_gan") | {"size": 16, "ngf": 4, "ndf": 4, "architecture": "imagenet32"}
    began = time.perf_counter()
    assert 1 < script.updates_per_second(p, 8, 0.1) < 10_000
    assert time.perf_counter() - began > 0.1


def test_a_rehearsal_runs_all_stages_of_a_hundredth(tmp_path, own, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_minutes.py", str(tmp_path / "out"), "--rehearse"])
    assert script.main() == 0
    (tests, _), *stages = own
    assert tests[:2] == ["-m", "pytest"] and tests[-1].endswith("tests/whole/test_gpu.py")
    assert [words[5] for words, _ in stages] == ["long", "long-5", "plain", "faces", "long-test"]
    batch = rows.load(stages[0][0][3])
    ran = [name for words, _ in stages for name in words[5:]]
    assert ran == [name for _, wanted in script.STAGES.values() for name in wanted if name in batch.rows]
    for row in batch.rows.values():
        assert "tar:" not in json.dumps(row.parameters) and row.threads == 1
    p = batch.rows["long"].parameters
    n = len(data.hold_out(1297, p["held_out"], 0)[0])
    assert (p["ngf"], p["batch_size"], data.steps_of(p["epochs"], n, p["batch_size"])) == (8, 4, 1000)
    said = capsys.readouterr().out
    assert "updates a second: 2,400 of 4, 600 of 16" in said and (tmp_path / "out" / "report.txt").read_text() in said
    for name in batch.rows:
        assert re.search(rf"^    {name} +not run$", said, re.MULTILINE)
    monkeypatch.setattr(script, "updates_per_second", lambda *_: pytest.fail("measured again"))
    assert script.main() == 0, "what was decided stays"


def test_stages_end_with_the_minutes_and_a_signal_ends_them(tmp_path, own, monkeypatch, capsys):
    words = ["gpu_minutes.py", str(tmp_path / "out"), "--rehearse", "--stage", "plain", "--minutes", "0.5"]
    monkeypatch.setattr(sys, "argv", words)
    assert script.main() == 0 and not own, "PATIENCE is kept for what a stage has to save"
    assert "photographs  not begun: no time is left" in (tmp_path / "out" / "report.txt").read_text()
    monkeypatch.setattr(sys, "argv", [*words[:-1], "9"])

    def signalled(command, seconds):
        own.append(command)
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "call", signalled)
    assert script.main() == 130 and len(own) == 1
    report = (tmp_path / "out" / "report.txt").read_text()
    assert "plain        stopped by a signal" in report and "photographs  not begun\n" in report
    assert "snapshots    not of this call\n" in report


def test_a_missing_archive_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("STUDY_SOURCES", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["gpu_minutes.py", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match=r"^error: .*natural32"):
        script.main()


def test_what_was_reached_is_brought_out(tmp_path, own, monkeypatch):
    """Of a training that was stopped its last snapshot, and how far it came; the records of all rows."""
    given = script.parse([str(tmp_path), "--rehearse"])
    batch, said = script.decide(given)
    found = rows.load(batch).rows
    folder = paths.runs() / "training-x"
    folder.mkdir()
    (folder / "used_by").write_text(f"other\n{found['plain'].run_id}\n")
    (folder / "log.jsonl").write_text("{}\n")
    G, D = models.from_description(models.describe("tutorial64", size=16, nc=1, ngf=4, ndf=4))
    for name in ("snapshot-000000050", "snapshot-000000100", "checkpoint-000000123"):
        weights.save_net(folder / f"{name}.safetensors", G, D, {"step": int(name[-3:])})
    found["faces"].failure.parent.mkdir()
    found["faces"].failure.write_text("no room")
    told = {"rate": said} | dict.fromkeys(script.STAGES, "done")
    script.bring_out(batch, told, ["plain", "photographs"], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "plain.safetensors", "records.tar.gz", "report.txt",
    ]  # fmt: skip
    assert weights.load_net(tmp_path / "plain.safetensors")[2] == {"step": 100}
    with tarfile.open(tmp_path / "records.tar.gz") as tar:
        assert sorted(tar.getnames()) == [
            f"{found['faces'].run_id}/failed.txt", "rehearsal.yaml", "training-x/log.jsonl",
        ]  # fmt: skip
    report = (tmp_path / "report.txt").read_text()
    assert "    plain            stopped after 123 minibatches" in report
    assert "    faces            failed: no room" in report and "    rooms            not run" in report


@pytest.mark.parametrize("stubborn", [False, True])
def test_what_takes_too_long_is_asked_to_stop_and_then_stopped(monkeypatch, stubborn):
    monkeypatch.setattr(script, "PATIENCE", 0.5)
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); " if stubborn else ""
    began = time.monotonic()
    assert script.call([sys.executable, "-c", f"{ignore}import time; time.sleep(60)"], 1) is None
    assert time.monotonic() - began < 20
    assert script.call([sys.executable, "-c", "raise SystemExit(3)"], 60) == 3


def test_large_files_come_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "PART", 4)
    for name, content in (("small", b"0123"), ("large", b"0123456789")):
        (tmp_path / name).write_bytes(content)
        script.split(tmp_path / name)
    assert (tmp_path / "small").read_bytes() == b"0123" and not (tmp_path / "large").exists()
    assert [(tmp_path / f"large.part-{i}").read_bytes() for i in range(3)] == [b"0123", b"4567", b"89"]
