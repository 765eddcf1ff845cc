"""GPUs, leased to the runs of every batch on this machine.

Snakemake counts cards but assigns none, and two batches side by side know nothing of each other. So a run leases its
share of a card's memory: a file per lease, locked for as long as its process lives, in a folder that all processes of
a user see. A lease dies with its process, however that ends.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LEASES = Path("/tmp") / f"study-gpu-{os.getuid()}"


def visible() -> dict[str, int]:
    """Return the GPUs that may be used here: id -> MiB of memory, 0 where that is unknown.

    Ids are nvidia-smi's where it knows the card, so that processes which number the cards otherwise mean the same one.
    """
    there = {}
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
        listed = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
        there = {index: (uuid, int(mb)) for index, uuid, mb in (line.split(", ") for line in listed)}
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    wanted = list(there) if named is None else [card.strip() for card in named.split(",") if card.strip()]
    known = there | {uuid: (uuid, mb) for uuid, mb in there.values()}
    return dict(known.get(card, (card, 0)) for card in wanted)


@contextmanager
def lease(gpu: int, gpu_mb: int = 0) -> Iterator[None]:
    """Hold a GPU, or `gpu_mb` MiB of one, and make it the only one that is seen; wait until one is free.

    Where none is wanted (gpu 0), or the machine has none, nothing happens. Of a card whose memory is unknown every
    share is the whole. Raises ValueError where no card is as large as the share.
    """
    cards = visible() if gpu else {}
    if cards and gpu_mb > max(cards.values()) > 0:
        raise ValueError(f"gpu_mb = {gpu_mb}: the largest card here has {max(cards.values())} MiB")
    held = None
    while cards and held is None:
        if (held := _take(cards, gpu_mb)) is None:
            time.sleep(1)
    try:
        yield
    finally:
        if held:
            Path(held.lock_file).unlink(missing_ok=True)
            held.release()


def _take(cards: dict[str, int], gpu_mb: int) -> FileLock | None:
    """Lease a share of the fullest card that has room for it, so that large runs find an empty one."""
    LEASES.mkdir(exist_ok=True)
    with FileLock(LEASES / "guard"):
        leased = {card: _leased(card) for card in cards}
        for card, mb in sorted(cards.items(), key=lambda item: item[1] - leased[item[0]]):
            whole = max(mb, 1)
            share = gpu_mb if gpu_mb and mb else whole
            if leased[card] + share <= whole:
                held = FileLock(_folder(card) / f"{os.getpid()}-{time.monotonic_ns()}-{share}.lease")
                held.acquire()
                os.environ["CUDA_VISIBLE_DEVICES"] = card
                return held
    return None


def _leased(card: str) -> int:
    """Return the MiB of a card that living processes hold."""
    return sum(int(path.stem.rpartition("-")[2]) for path in _folder(card).glob("*.lease") if _is_held(path))


def _is_held(path: Path) -> bool:
    """Tell whether a living process holds a lease; remove that of a dead one."""
    try:
        with FileLock(path, timeout=0):
            path.unlink(missing_ok=True)
        return False
    except Timeout:
        return True


def _folder(card: str) -> Path:
    folder = LEASES / card.replace("/", "-")
    folder.mkdir(exist_ok=True)
    return folder
