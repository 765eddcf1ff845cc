"""Where rows run: on this machine, which has so many cores, so much memory and cards, or as jobs of a Slurm cluster.

Two batches side by side know nothing of each other, so each run leases its share of a card: a file, locked for as long
as its process lives, in a folder that all processes of a user see. A lease dies with its process, however that ends.
"""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from filelock import FileLock
from ruamel.yaml import YAML, YAMLError

from lib.engine.execute import cores, environment
from lib.engine.row import Row, is_held
from lib.study.identity import find_precision


@dataclass
class Job:
    """A row at work."""

    row: Row
    process: subprocess.Popen
    lease: FileLock | None = None
    ended: float = 0.0


@dataclass
class Machine:
    """This machine. at_once: as many rows side by side at most (0: as many as have room)."""

    at_once: int = 0
    running: dict[str, Job] = field(default_factory=dict)
    cards: dict[str, int] = field(default_factory=dict)

    def prepare(self, rows: Iterable[Row]) -> None:
        """Look for cards where a row wants one, and say where there is none. Raises ValueError where one is named."""
        wanting = [row for row in rows if row.resources.get("gpu")]
        self.cards = find_cards() if wanting else {}
        largest = max(self.cards.values(), default=0)
        for row in wanting:
            if not self.cards and row.parameters.get("device", "auto") != "auto":
                raise ValueError(f"row {row.name}: device = {row.parameters['device']!r}, and no card is seen here")
            if row.resources.get("gpu_mb", 0) > largest > 0:
                raise ValueError(f"row {row.name}: gpu_mb = {row.resources['gpu_mb']}: the largest card has {largest}")
        if wanting and not self.cards:
            names = ", ".join(row.name for row in wanting)
            print(f"no NVIDIA card is seen here: what asks for one computes without, on the CPU: {names}", flush=True)
            if "bfloat16" in {row.precision for row in wanting} and find_precision("auto", on_gpu=False) == "float32":
                print("in bfloat16, which is slow on this CPU: give them precision: float32", flush=True)

    def has_room(self, row: Row) -> bool:
        """Tell whether cores and memory are left for a row; one that asks for more than there is runs alone."""
        jobs = [job.row for job in self.running.values()]
        if not jobs:
            return True
        in_use = sum(min(job.threads, cores()) for job in jobs) + min(row.threads, cores())
        mb = sum(other.resources.get("mem_mb", 0) for other in [*jobs, row])
        return in_use <= cores() and mb <= memory() and (not self.at_once or len(jobs) < self.at_once)

    def start(self, row: Row, plan: Path, code: Path) -> str:
        """Start a row's process; return "", or what it has to wait for."""
        own, held = environment(code), None
        if row.resources.get("gpu") and self.cards:
            if not (taken := lease(self.cards, row.resources.get("gpu_mb", 0))):
                return "no card has room"
            own["CUDA_VISIBLE_DEVICES"], held = taken
        process = subprocess.Popen([*command(plan, row), "--tied"], stdin=subprocess.PIPE, env=own)
        self.running[row.name] = Job(row, process, held)
        return ""

    def ended(self) -> Iterator[tuple[Row, int]]:
        """Yield the rows whose process has ended, with its exit code."""
        for name, job in list(self.running.items()):
            if (code := job.process.poll()) is not None and not self._may_be_late(job, code):
                del self.running[name]
                if job.lease:
                    Path(job.lease.lock_file).unlink(missing_ok=True)
                    job.lease.release()
                yield job.row, code

    def stop(self) -> None:
        """Ask all that runs to end; a training saves first."""
        for job in self.running.values():
            job.process.terminate()

    def _may_be_late(self, job: Job, code: int) -> bool:
        return False


@dataclass
class Cluster(Machine):
    """Slurm: each row is a job, which outlives this process. profile: what profiles/slurm.yaml says."""

    profile: dict = field(default_factory=dict)
    queued: set[str] = field(default_factory=set)
    asked: float = 0.0

    @classmethod
    def read(cls, path: str | Path) -> "Cluster":
        """Read a profile. Raises ValueError where it is none."""
        try:
            profile = YAML(typ="safe", pure=True).load(Path(path))
        except YAMLError as error:
            raise ValueError(f"{path}: {getattr(error, 'problem', 'no YAML')}") from error
        known = {"jobs": int, "mem_mb": int, "runtime": int, "gpu": str, "sbatch": list}
        if not isinstance(profile, dict) or {key: type(value) for key, value in profile.items()} != known:
            raise ValueError(f"{path}: needs {', '.join(f'{key} ({kind.__name__})' for key, kind in known.items())}")
        return cls(at_once=profile["jobs"], profile=profile)

    def prepare(self, rows: Iterable[Row]) -> None:
        """Nothing: the nodes have what this one need not have."""

    def has_room(self, row: Row) -> bool:
        """Tell whether another job may be queued."""
        return len(self.running) < self.at_once

    def start(self, row: Row, plan: Path, code: Path) -> str:
        """Queue a row's job and wait for it; return "", or what the row has to wait for."""
        if row.run_id in self._queued():
            return "its job is in the queue"
        resources = {"mem_mb": self.profile["mem_mb"], "runtime": self.profile["runtime"]} | row.resources
        words = ["sbatch", "--wait", f"--job-name={row.run_id}", f"--output={row.folder / 'slurm.log'}"]
        words += [f"--cpus-per-task={row.threads}", f"--mem={resources['mem_mb']}M", f"--time={resources['runtime']}"]
        words += ["--signal=B:TERM@120"]  # seconds in which a training that the clock ends can save
        words += [self.profile["gpu"]] if resources.get("gpu") else []
        words += [*self.profile["sbatch"], f"--wrap=exec {shlex.join(command(plan, row))}"]
        row.folder.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environment(code))
        self.running[row.name] = Job(row, process)
        return ""

    def stop(self) -> None:
        """Stop waiting; the jobs go on, and none has failed."""
        super().stop()
        for job in self.running.values():
            job.process.wait()
        self.running.clear()
        print("the jobs go on; the same command waits for them again, `scancel` ends them", flush=True)

    def _queued(self) -> set[str]:
        """Return the names of this user's jobs, as they were ten seconds ago at most."""
        if time.monotonic() > self.asked + 10:
            query = ["squeue", "--noheader", "--format=%j", f"--user={os.getuid()}"]
            self.queued = set(subprocess.run(query, capture_output=True, text=True).stdout.split())
            self.asked = time.monotonic()
        return self.queued

    def _may_be_late(self, job: Job, code: int) -> bool:
        """Tell whether a shared disk may yet show the record of a job that went well; it has a minute."""
        job.ended = job.ended or time.monotonic()
        return code == 0 and not job.row.metrics.exists() and time.monotonic() < job.ended + 60


def command(plan: Path, row: Row) -> list[str]:
    """Return the words that run a row of a plan."""
    return [sys.executable, "-m", "lib.engine.execute", str(plan), row.name]


def memory() -> int:
    """Return the MiB of memory that this machine, or the container, has."""
    limit = Path("/sys/fs/cgroup/memory.max")
    limited = limit.read_text().strip() if limit.exists() else "max"
    total = psutil.virtual_memory().total
    return (min(int(limited), total) if limited.isdecimal() else total) >> 20


# --- cards ---------------------------------------------------------------------------------------------------------


def find_cards() -> dict[str, int]:
    """Return the GPUs that may be used here: id -> MiB of memory, 0 where that is unknown.

    Ids are nvidia-smi's where it knows the card, so that processes which number the cards otherwise mean the same one.
    """
    there = {}
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
        listed = subprocess.run(query, capture_output=True, text=True).stdout
        found = re.findall(r"^(\d+), (\S+), *(\d*)", listed, re.MULTILINE)  # an error is no card
        there = {index: (uuid, int(mb or 0)) for index, uuid, mb in found}
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    wanted = list(there) if named is None else [card.strip() for card in named.split(",") if card.strip()]
    if "-1" in wanted:  # as CUDA reads it: none from there on
        wanted = wanted[: wanted.index("-1")]
    known = there | {uuid: (uuid, mb) for uuid, mb in there.values()}
    return dict(known.get(card, (card, 0)) for card in wanted)


def lease(cards: Mapping[str, int], gpu_mb: int = 0) -> tuple[str, FileLock] | None:
    """Take one of the cards, or `gpu_mb` MiB of it, for as long as the returned lock is held; None where none has room.

    Cards are spread before they are shared, the smaller first, so that large runs find a large one. Of a card whose
    memory is unknown every share is the whole.
    """
    folder = _private_folder()
    with FileLock(folder / "guard"):
        place = {card: folder / card.replace("/", "-") for card in cards}
        leased = {card: _leased(place[card]) for card in cards}
        for card, mb in sorted(cards.items(), key=lambda item: (leased[item[0]] / max(item[1], 1), item[1])):
            share = gpu_mb if gpu_mb and mb else max(mb, 1)
            if leased[card] + share <= max(mb, 1):
                held = FileLock(place[card] / f"{os.getpid()}-{time.monotonic_ns()}-{share}.lease")
                held.acquire()
                return card, held
    return None


def _private_folder() -> Path:
    """Return the folder of the leases. Raises ValueError where it is not this user's alone."""
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    folder = (runtime if os.access(runtime, os.W_OK) else Path(tempfile.gettempdir())) / f"study-gpu-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ValueError(f"{folder} is no folder of yours alone: remove it, or set XDG_RUNTIME_DIR to a folder that is")
    return folder


def _leased(folder: Path) -> int:
    """Return the MiB of a card that living processes hold; remove the leases of dead ones."""
    folder.mkdir(mode=0o700, exist_ok=True)
    held = []
    for path in folder.glob("*.lease"):
        if is_held(path):
            held.append(int(path.stem.rpartition("-")[2]))
        else:
            path.unlink(missing_ok=True)
    return sum(held)
