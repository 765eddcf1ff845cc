"""The script for a lent card: its stages are the batch's rows, it stops what takes too long, and parts join again."""

import argparse
import importlib.util
import sys
import time

import pytest
import yaml

from lib.engine import rows
from lib.study import paths

SPEC = importlib.util.spec_from_file_location("gpu_minutes", paths.ROOT / "profiles" / "gpu_minutes.py")
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)


def given(out, **changes):
    return argparse.Namespace(**{"out": out, "share": 1.0, "images": "", "rehearse": False} | changes)


def test_every_row_has_its_stage():
    staged = [name for _, wanted in script.STAGES.values() for name in wanted]
    assert sorted(staged) == sorted(yaml.safe_load(script.BATCH.read_text())["rows"])


def test_lengths_and_images_are_changed_and_all_else_is_the_batch(tmp_path):
    assert script.written(given(tmp_path)) == script.BATCH
    content = yaml.safe_load(script.BATCH.read_text())["rows"]
    changed = yaml.safe_load(script.written(given(tmp_path, share=0.5, images="tar:some.tar.gz")).read_text())["rows"]
    p, q = content["long"]["parameters"], changed["long"]["parameters"]
    assert q == p | {"epochs": p["epochs"] / 2, "data_set": "tar:some.tar.gz"}
    assert changed["faces"]["parameters"]["data_set"] == content["faces"]["parameters"]["data_set"]
    assert changed["long-probe"] == content["long-probe"]
    small = script.written(given(tmp_path, rehearse=True))
    assert {row.parameters["ngf"] for row in rows.load(small).rows.values() if row.notebook.startswith("01")} == {8}


@pytest.mark.parametrize("stubborn", [False, True])
def test_what_takes_too_long_is_asked_to_stop_and_then_stopped(monkeypatch, stubborn):
    monkeypatch.setattr(script, "PATIENCE", 0.5)
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); " if stubborn else ""
    began = time.monotonic()
    assert script.call([sys.executable, "-c", f"{ignore}import time; time.sleep(60)"], 1) != 0
    assert time.monotonic() - began < 20
    assert script.call([sys.executable, "-c", ""], 60) == 0


def test_large_files_come_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "PART", 4)
    for name, content in (("small", b"0123"), ("large", b"0123456789")):
        (tmp_path / name).write_bytes(content)
        script.split(tmp_path / name)
    assert (tmp_path / "small").read_bytes() == b"0123" and not (tmp_path / "large").exists()
    assert [(tmp_path / f"large.part-{i}").read_bytes() for i in range(3)] == [b"0123", b"4567", b"89"]
