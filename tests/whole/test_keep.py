"""Keeping a batch: what is finished, and nothing half-written."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from lib import __main__ as words
from lib.look import pages


@pytest.mark.parametrize("running", ["", "again"])
def test_a_row_that_runs_again_is_not_kept(monkeypatch, capsys, running):
    """Its record is the old one, and its notebook half of the new one."""
    kept = []
    rows = {
        name: SimpleNamespace(name=name, run_id=f"id-{name}", is_running=lambda name=name: name == running)
        for name in ("done", "again", "new")
    }
    found = SimpleNamespace(name="own", rows=rows, waiting=lambda: {"new": rows["new"]})
    monkeypatch.setattr(words.rows, "load", lambda _: found)
    monkeypatch.setattr(pages, "keep", lambda run, batch: Path(kept.append((run, batch)) or "folder"))
    words.keep_all(SimpleNamespace(what="own.yaml"))
    assert kept == [(f"id-{name}", "own") for name in ("done", "again") if name != running]
    told = "again, new" if running else "new"
    assert f"not finished, and not kept: {told}\n" in capsys.readouterr().out
