"""Leases of GPUs, between real processes, on cards that a stand-in for nvidia-smi lists."""

import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from lib.study import leases, paths

# Holds a lease until its input ends; says which card it has, or that it waits.
HOLDER = """
import os, sys, threading
from pathlib import Path
from lib.study import leases
leases.LEASES = Path(sys.argv[1])
waits = threading.Timer(1.5, print, ["waits"], {"flush": True})
waits.start()
with leases.lease(1, int(sys.argv[2])):
    waits.cancel()
    print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def box(tmp_path, monkeypatch):
    """A machine with two cards of 80,000 and 40,000 MiB."""
    there = "0, GPU-a, 80000\n1, GPU-b, 40000\n"
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{there}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(leases, "LEASES", tmp_path / "leases")
    return tmp_path


@pytest.fixture
def hold(box):
    """Start processes that each hold a lease, for as long as the test lasts."""
    with ExitStack() as stack:

        def start(gpu_mb=0, **environment):
            command = [sys.executable, "-c", HOLDER, str(box / "leases"), str(gpu_mb)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=paths.ROOT,
                env=os.environ | environment,
            )  # fmt: skip
            stack.push(process)
            stack.callback(process.kill)
            process.says = lambda: process.stdout.readline().strip()
            return process

        yield start


def test_the_cards_of_a_box(box, monkeypatch):
    assert leases.visible() == {"GPU-a": 80000, "GPU-b": 40000}
    for given, expected in {
        "1": {"GPU-b": 40000},
        "GPU-b, 0": {"GPU-b": 40000, "GPU-a": 80000},
        "MIG-7": {"MIG-7": 0},
        "": {},
    }.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        assert leases.visible() == expected


def test_whole_cards_are_held_by_one_process_each_and_given_back(hold):
    first, second = hold(), hold()
    assert {first.says(), second.says()} == {"GPU-a", "GPU-b"}
    third = hold()
    assert third.says() == "waits"
    freed = second if second.poll() is None else first
    freed.communicate()  # its input ends, and so does its lease
    assert third.says() in ("GPU-a", "GPU-b")


def test_a_lease_dies_with_its_process(hold):
    names = {holder.says(): holder for holder in (hold(), hold())}
    assert len(names) == 2
    third = hold()
    assert third.says() == "waits"
    names["GPU-b"].kill()
    assert third.says() == "GPU-b"


def test_small_runs_share_a_card_by_memory(hold):
    small = [hold(15000) for _ in range(2)]
    assert [holder.says() for holder in small] == ["GPU-b"] * 2, "the smaller card fills first"
    assert hold(15000).says() == "GPU-a", "10,000 MiB are left on the other"
    assert hold(10000).says() == "GPU-b"
    whole = hold()
    assert whole.says() == "waits", "both cards are in use"


def test_numbers_and_names_mean_the_same_card(hold):
    assert hold(CUDA_VISIBLE_DEVICES="1").says() == "GPU-b"
    assert hold(CUDA_VISIBLE_DEVICES="GPU-b").says() == "waits"


def test_a_card_of_unknown_memory_is_held_whole(hold):
    assert hold(100, CUDA_VISIBLE_DEVICES="MIG-7").says() == "MIG-7"
    assert hold(100, CUDA_VISIBLE_DEVICES="MIG-7").says() == "waits"


def test_a_share_larger_than_any_card_is_refused(box):
    with pytest.raises(ValueError, match="gpu_mb = 90000: the largest card here has 80000 MiB"), leases.lease(1, 90000):
        pass


def test_nothing_is_leased_where_there_is_nothing(box, monkeypatch):
    with leases.lease(0):
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with leases.lease(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert not leases.LEASES.exists()
