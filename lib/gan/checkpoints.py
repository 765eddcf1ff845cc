"""Surviving: whatever stops a training, it goes on from its last checkpoint and ends with the same weights.

A training of days is stopped by a key, a scheduler, a power cut, a full disk, or a bit that flips on it. So a
checkpoint is written under another name and renamed, carries a checksum (`nets`), and leaves the one before it in
place. SIGINT and SIGTERM wait for the end of their minibatch. The log streams into a file of one JSON object per line,
which is cut back to the checkpoint that a training resumes from.
"""

import json
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from torch import Tensor

from lib.nets import weights
from lib.nets.models import Description, Discriminator, Generator
from lib.study import paths

WAIT = 1.0  # seconds between two looks at another process's lock
KEPT = 2  # checkpoints in a folder: the newest, and the one to fall back to


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep a folder to one training: where another process trains there, say so once and wait until it is done.

    Raises OSError where the folder cannot be written.
    """
    lock = FileLock(folder / "lock")
    with paths.naming(folder):  # an unwritable folder is told now, not after five minutes
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            warnings.warn(f"another process trains in {folder}: waiting for it", stacklevel=4)
            lock.acquire(poll_interval=WAIT)
    try:
        if run := os.environ.get("STUDY_RUN"):  # `make orphans` lists the trainings that nobody uses
            paths.append_line(folder / "used_by", run)
        yield
    finally:
        lock.release()


def find(folder: Path) -> list[Path]:
    """Return the folder's checkpoints, newest first."""
    return sorted(folder.glob("checkpoint-*.safetensors"), reverse=True)


def write(folder: Path, step: int, G: Generator, D: Discriminator, record: dict, extra: dict[str, Tensor]) -> None:
    """Write a checkpoint, and then delete all but the last two."""
    log = folder / "log.jsonl"
    if log.exists():
        with log.open("ab") as file:
            os.fsync(file.fileno())  # no checkpoint is newer than its log
    weights.save_net(folder / f"checkpoint-{step:09d}.safetensors", G, D, record | {"step": step}, extra)
    for old in find(folder)[KEPT:]:
        old.unlink()


def read(folder: Path) -> tuple[dict[str, Tensor], Description, dict] | None:
    """Read the newest whole checkpoint, as `nets.read_net` does; None where there is none.

    Warns where the newest is damaged and the one before is taken. Raises ValueError where none is whole.
    """
    for part in folder.glob("*.part-*"):  # of a process that was killed while it wrote
        part.unlink(missing_ok=True)
    newest_first = find(folder)
    for path in newest_first:
        try:
            found = weights.read_net(path)
        except ValueError as error:
            if path == newest_first[-1]:
                raise ValueError(f"no whole checkpoint in {folder}: delete it and train again ({error})") from error
            kept = path.replace(path.with_suffix(".damaged"))
            warnings.warn(f"{path} is damaged: going on from the checkpoint before ({kept.name} is kept)", stacklevel=4)
        else:
            return found
    return None


def read_log(folder: Path, step: int) -> list[dict]:
    """Return the log's lines up to a step, and cut the file back to them."""
    path = folder / "log.jsonl"
    text = path.read_text() if path.exists() else ""
    whole = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("}\n")]  # the last may be cut
    kept = [line for line in whole if line["step"] <= step]
    if text:
        paths.write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
    return kept


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list for a loop to look at, and deliver them when the block ends.

    They then do what they would have done: in a notebook SIGINT is KeyboardInterrupt. A second one is not deferred.
    Only the main thread can handle signals; in any other the list stays empty. One that is ignored, as SIGINT is in a
    shell's background, stays so: it would stop a training that nothing then reports as stopped.
    """
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    former = {number: signal.getsignal(number) or signal.SIG_DFL for number in numbers}
    caught = []

    def catch(number: int, _frame: object) -> None:
        caught.append(number)
        signal.signal(number, former[number])

    for number in numbers:
        signal.signal(number, catch)
    try:
        yield caught
    finally:
        for number in numbers:
            signal.signal(number, former[number])
    for number in caught:
        signal.raise_signal(number)
