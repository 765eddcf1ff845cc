"""Keeping a batch: what is finished, and nothing half-written; and whether what is kept can be traced."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib import __main__ as words
from lib.look import pages
from lib.study import paths, records, tables


def batch_of(running="", failed=""):
    """A batch of three rows, one of which is not finished."""
    there = Path(__file__)
    rows = {
        name: SimpleNamespace(
            name=name, run_id=f"id-{name}", level="toy", departs="", is_running=lambda name=name: name == running,
            failure=there if name == failed else there / "nothing",
        )
        for name in ("done", "again", "new")
    }  # fmt: skip
    path = Path("/here/batches/own.yaml")
    return SimpleNamespace(name="own", path=path, rows=rows, waiting=lambda: {"new": rows["new"]})


def test_a_batch_is_kept_as_the_file_at_hand_means_it(monkeypatch, tmp_path, capsys):
    """Another checkout has run a batch of this name since, with rows that mean other runs."""
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    monkeypatch.setattr(words.rows, "load", lambda _: batch_of())
    for place in ("/here", "/elsewhere"):
        tables.claim("own", Path(f"{place}/batches/own.yaml"), {"done": {"run_id": f"{place}'s", "departs": ""}})
    meant = []
    monkeypatch.setattr(pages, "keep", lambda *_: meant.append(tables.claimed()["own", "done"]["run_id"]) or tmp_path)
    words.keep_all(SimpleNamespace(what="own.yaml"))
    assert meant == ["id-done"] * 2


@pytest.mark.parametrize(("running", "failed"), [("", ""), ("again", ""), ("", "again")])
def test_a_row_that_runs_again_or_failed_then_is_not_kept(monkeypatch, capsys, running, failed):
    """Its record is the old one, and its notebook half of the new one."""
    kept = []
    found = batch_of(running, failed)
    monkeypatch.setattr(words.rows, "load", lambda _: found)
    monkeypatch.setattr(tables, "claim", lambda *_: None)
    monkeypatch.setattr(pages, "keep", lambda run, batch: Path(kept.append((run, batch)) or "folder"))
    words.keep_all(SimpleNamespace(what="own.yaml"))
    assert kept == [(f"id-{name}", "own") for name in ("done", "again") if name not in (running, failed)]
    told = "again, new" if running or failed else "new"
    assert f"not finished, or failed when run again, and not kept: {told}\n" in capsys.readouterr().out


def test_kept_records_name_commits_of_this_history():
    """A commit that was rebased away cannot be looked up by whoever reads a record."""

    def git(*words):
        return subprocess.run(["git", "-C", paths.ROOT, *words], capture_output=True, text=True)

    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("this copy has no history: clone the repository, whole")
    history = set(git("log", "--format=%H").stdout.split())
    named = {
        path: records.read_metrics(path)["commit"].removesuffix("+") for path in paths.KEPT.glob("*/*/metrics.json")
    }
    assert len(named) > 100
    lost = [str(path) for path, commit in named.items() if not any(full.startswith(commit) for full in history)]
    assert not lost, "run these rows anew, or merge the commits they name"
