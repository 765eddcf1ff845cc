"""Places: what has room, and leases of GPUs between real processes, on cards that a stand-in for nvidia-smi lists."""

import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace

import psutil
import pytest

from lib.engine import places
from lib.engine.row import Row
from lib.study import identity, paths

# Holds a lease until its input ends; says which card it has, or that it waits.
HOLDER = """
import sys, time
from lib.engine import places
cards, told = places.find_cards(), False
while not (taken := places.lease(cards, int(sys.argv[1]))):
    told = told or print("waits", flush=True) or True
    time.sleep(0.1)
print(taken[0], flush=True)
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
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def hold(box):
    """Start processes that each hold a lease, for as long as the test lasts."""
    with ExitStack() as stack:

        def start(gpu_mb=0, **environment):
            command = [sys.executable, "-c", HOLDER, str(gpu_mb)]
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
    assert places.find_cards() == {"GPU-a": 80000, "GPU-b": 40000}
    for given, expected in {
        "1": {"GPU-b": 40000},
        "GPU-b, 0": {"GPU-b": 40000, "GPU-a": 80000},
        "MIG-7": {"MIG-7": 0},
        "": {},
        "-1": {},
        "1,-1,0": {"GPU-b": 40000},
    }.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        assert places.find_cards() == expected


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


def test_small_runs_are_spread_and_then_share_a_card_by_memory(hold):
    assert hold(15000).says() == "GPU-b", "the smaller card first"
    assert hold(15000).says() == "GPU-a", "an empty card before a shared one"
    assert hold(15000).says() == "GPU-a", "15,000 of 80,000 are less than of 40,000"
    assert hold(30000).says() == "GPU-a", "25,000 MiB are left on the other"
    assert hold(25000).says() == "GPU-b"
    whole = hold()
    assert whole.says() == "waits", "both cards are in use"


def test_numbers_and_names_mean_the_same_card(hold):
    assert hold(CUDA_VISIBLE_DEVICES="1").says() == "GPU-b"
    assert hold(CUDA_VISIBLE_DEVICES="GPU-b").says() == "waits"


def test_a_card_of_unknown_memory_is_held_whole(hold):
    assert hold(100, CUDA_VISIBLE_DEVICES="MIG-7").says() == "MIG-7"
    assert hold(100, CUDA_VISIBLE_DEVICES="MIG-7").says() == "waits"


@pytest.mark.parametrize(
    ("said", "cards"),
    [
        ("NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.\\n", {}),
        ("No devices were found\\n", {}),
        ("0, GPU-a, [N/A]\\n1, GPU-b, 40000\\n", {"GPU-a": 0, "GPU-b": 40000}),
        ("0, GPU-a, [Unknown Error]\\n", {"GPU-a": 0}),
        ("", {}),
    ],
)
def test_an_nvidia_smi_that_complains_stops_nothing(box, said, cards):
    (box / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{said}'\nexit 9\n")
    assert places.find_cards() == cards


def row(name="a", threads=1, **resources):
    parameters = {"device": resources.pop("device", "auto")}
    return Row(name, "01_good", parameters, (), (), f"01_good-{name}", {}, threads=threads, resources=resources)


def test_what_has_no_card_is_told_or_refused(box, monkeypatch, capsys):
    machine = places.Machine()
    machine.prepare([row("a"), row("b", gpu=1, device="cuda")])
    assert machine.cards == {"GPU-a": 80000, "GPU-b": 40000}
    with pytest.raises(ValueError, match="row a: gpu_mb = 90000: the largest card has 80000"):
        machine.prepare([row(gpu=1, gpu_mb=90000)])
    assert capsys.readouterr().out == ""

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    machine.prepare([row("a"), row("b", gpu=1), row("c", gpu=1)])
    told = "no NVIDIA card is seen here: what asks for one computes without, on the CPU: b, c\n"
    assert capsys.readouterr().out == told
    monkeypatch.setattr(identity, "_cpu_has_bfloat16", lambda: False)
    machine.prepare([replace(row("b", gpu=1), precision="bfloat16"), row("c", gpu=1)])
    assert capsys.readouterr().out == told + "in bfloat16, which is slow on this CPU: give them precision: float32\n"
    monkeypatch.setattr(identity, "_cpu_has_bfloat16", lambda: True)
    machine.prepare([replace(row("b", gpu=1), precision="bfloat16"), row("c", gpu=1)])
    assert capsys.readouterr().out == told
    with pytest.raises(ValueError, match="row b: device = 'cuda', and no card is seen here"):
        machine.prepare([row("b", gpu=1, device="cuda")])


def test_cards_are_not_looked_for_where_nobody_wants_one(box):
    (box / "nvidia-smi").write_text("#!/bin/sh\nsleep 60\n")
    machine = places.Machine()
    machine.prepare([row()])
    assert machine.cards == {}


def test_a_folder_of_leases_that_another_user_made_is_refused(box, monkeypatch):
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    (box / f"study-gpu-{os.getuid()}").mkdir(mode=0o700)
    with pytest.raises(ValueError, match=r"study-gpu-\d+ is no folder of yours alone: remove it"):
        places.lease(places.find_cards())


def test_a_folder_of_leases_that_is_not_ones_own_is_refused(box):
    folder = box / f"study-gpu-{os.getuid()}"
    folder.symlink_to(box)
    with pytest.raises(ValueError, match=r"study-gpu-\d+ is no folder of yours alone: remove it"):
        places.lease(places.find_cards())
    folder.unlink()
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ValueError, match="is no folder of yours alone"):
        places.lease(places.find_cards())
    folder.chmod(0o700)
    (folder / "guard").symlink_to(box / "nvidia-smi")
    with pytest.raises(OSError, match="guard"):
        places.lease(places.find_cards())
    assert "GPU-b" in (box / "nvidia-smi").read_text(), "a planted link empties nothing"


def test_rows_share_cores_and_memory(monkeypatch):
    monkeypatch.setattr(places, "cores", lambda: 4)
    monkeypatch.setattr(places, "memory", lambda: 1000)
    machine = places.Machine()
    assert machine.has_room(row(threads=64, mem_mb=5000)), "alone, whatever it asks for"
    machine.running["x"] = places.Job(row("x", threads=2, mem_mb=700), None)
    assert machine.has_room(row(threads=2))
    assert not machine.has_room(row(threads=3))
    assert machine.has_room(row(mem_mb=300))
    assert not machine.has_room(row(mem_mb=301))
    machine.at_once = 1
    assert not machine.has_room(row())


def test_a_container_has_its_own_memory(monkeypatch):
    assert 0 < places.memory() <= psutil.virtual_memory().total >> 20
