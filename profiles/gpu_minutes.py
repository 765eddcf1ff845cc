"""Run batches/gpu.yaml within so many minutes, stage by stage, and save weights and records after each.

    .venv/bin/python profiles/gpu_minutes.py OUT --minutes 14
    .venv/bin/python profiles/gpu_minutes.py OUT --rehearse        # on a CPU: a hundredth of the images, nets of 8 maps

A card is lent for minutes, and whoever lends it may take it back. So the most valuable comes first, no stage takes more
than its share, and what a stage made lies in OUT before the next begins. The script can be stopped anywhere and called
again: rows that are finished are skipped, a training goes on from its checkpoint.
"""

import argparse
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import torch
import yaml

from lib.engine import rows
from lib.gan import train
from lib.nets import weights
from lib.study import paths

BATCH = paths.ROOT / "batches" / "gpu.yaml"
SNAPSHOTS = ["long-5", "long-10", "long-25", "long-50", "long-75"]
STAGES = {  # name: (most minutes, rows; none: the tests)
    "smoke": (1.5, []),
    "long": (8, ["long"]),
    "snapshots": (2, [*SNAPSHOTS, "long-probe", *(f"{name}-probe" for name in SNAPSHOTS)]),
    "plain": (3, ["plain", "plain-probe"]),
    "photographs": (3, ["faces", "rooms"]),
    "test": (2, ["long-test"]),
}
PATIENCE = 60  # seconds that a stage has to save what it reached
PART = 15 * 2**20  # bytes of a part of a file, where files are fetched one by one


def main() -> None:
    given = parse()
    given.out.mkdir(parents=True, exist_ok=True)
    batch, ends = written(given), time.monotonic() + 60 * given.minutes
    names = list(STAGES)
    for name in names[names.index(given.stage) :]:
        most, wanted = STAGES[name]
        seconds = min(60 * most, ends - time.monotonic() - PATIENCE)
        if seconds <= 0:
            print(f"{name}: no time is left", flush=True)
            break
        began = time.monotonic()
        command = (
            ["-m", "lib", "run", str(batch), "--rows", *wanted]
            if wanted
            else ["-m", "pytest", "-q", "tests/whole/test_gpu.py"]
        )
        code = call([sys.executable, *command], seconds)
        save(batch, given.out)
        print(
            f"{name}: {'done' if code == 0 else f'ended with {code}'} after {time.monotonic() - began:.0f} s",
            flush=True,
        )


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=14)
    parser.add_argument("--stage", choices=STAGES, default="smoke", help="begin with this one")
    parser.add_argument("--share", type=float, default=1.0, help="of each training's length, where a card is slower")
    parser.add_argument(
        "--images", default="", help="in place of all archives of natural32, such as tar:natural32-1.tar.gz"
    )
    parser.add_argument("--rehearse", action="store_true", help="a hundredth of the images, nets of 8 maps")
    return parser.parse_args()


def written(given: argparse.Namespace) -> Path:
    """Return the batch file to run: the study's own, or a copy in OUT with other lengths or images."""
    if given.share == 1 and not given.images and not given.rehearse:
        return BATCH
    content = yaml.safe_load(BATCH.read_text())
    for row in content["rows"].values():
        p = row["parameters"] = dict(row["parameters"])
        if row["notebook"].startswith("01"):
            p["epochs"] = round(p["epochs"] * given.share, 2)
            if given.images and "natural32" in p["data_set"]:
                p["data_set"] = given.images
        if given.rehearse:
            row["threads"] = 1  # beside whatever else runs there
            small = {"ngf": 8, "ndf": 8, "limit": 2048}
            p |= small if row["notebook"].startswith("01") else {"draws": 2, "train_limit": 2000}
    path = given.out / "gpu.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def call(command: list[str], seconds: float) -> int:
    """Run a command for so long at most; past that, ask it to save and stop. Return its exit code."""
    process = subprocess.Popen(command, cwd=paths.ROOT)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def save(batch: Path, out: Path) -> None:
    """Write what there is into OUT: all records and logs in one archive, each training's last net in half precision."""
    runs, found = paths.runs(), rows.load(batch).rows
    with tarfile.open(out / "records.tar.gz", "w:gz") as tar:
        for pattern in ("*/metrics.json", "*/notebook.ipynb", "*/failed.txt", "training-*/log.jsonl"):
            for path in sorted(runs.glob(pattern)):
                tar.add(path, path.relative_to(runs))
    for name, row in found.items():
        if row.notebook.startswith("01") and name not in SNAPSHOTS and (net := last_net(row)):
            G, D, record = weights.load_net(net)
            weights.save_net(out / f"{name}.safetensors", G, D, record, dtype=torch.float16)
            split(out / f"{name}.safetensors")


def last_net(row: rows.Row) -> Path | None:
    """Return the net of a finished row, or the last snapshot of a training that was stopped."""
    if row.finished():
        return row.folder / "net.safetensors"
    for used in paths.runs().glob("training-*/used_by"):
        if row.run_id in used.read_text().split():
            return next(reversed(train.snapshots_in(used.parent).values()), None)
    return None


def split(path: Path) -> None:
    """Replace a file larger than PART by parts of it: `cat NAME.part-* > NAME` joins them."""
    whole = path.read_bytes()
    if len(whole) > PART:
        for i in range(0, len(whole), PART):
            path.with_name(f"{path.name}.part-{i // PART}").write_bytes(whole[i : i + PART])
        path.unlink()


if __name__ == "__main__":
    main()
