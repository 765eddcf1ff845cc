"""Run batches/gpu.yaml within so many minutes, stage by stage, and bring records and weights out after each.

    .venv/bin/python profiles/gpu_minutes.py OUT --minutes 14
    .venv/bin/python profiles/gpu_minutes.py OUT --rehearse  # on a CPU: digits, 8 maps, a hundredth of the updates

A card is lent for minutes, and whoever lends it may take it back: plan for 15 on one H100 or H200. So the most valuable
comes first, no stage takes more than its share, and what a stage made lies in OUT before the next begins. The script
may be stopped anywhere and called again: finished rows are skipped, a training goes on from its checkpoint, and what
was measured and decided stays. In this order:

    rate         half a minute: updates a second at 128 maps, in minibatches of 32 and of 128, of which one is chosen
    smoke        (a) tests/whole/test_gpu.py, 1 minute
    long         (b) the ladder's best recipe on natural32: 100,000 updates or as many as 7 minutes hold, 20 snapshots
    snapshots    (c) probes at a fixed C after 5, 10, 25, 50, 75 and 100 hundredths of it, 1.5 minutes
    plain        (d) the paper's plain recipe on the same images, as far as 3 minutes go
    photographs  (e) faces and rooms, 3 minutes
    test         the test images answer once, 1 minute

With the next card: a second seed of (b); the guidelines on photographs, which are 32 maps on natural32, each departure
of ablation.yaml, ReLU in D and global average pooling, three seeds, paired, judged by the probe on images set apart;
and `make bench`.

Small minibatches make more updates of the same images, and accuracy went with updates in batches/lift.yaml, whatever
their size. On a card a small minibatch costs nearly what a large one does. So the rule: minibatches of 32 where they
make MORE times the updates of 128, else the paper's 128.

A lender that copies at most 64 MiB a call, and 8 files of 16 MiB back: `git sparse-checkout set --no-cone '/*'
'!/results/kept' '!/results/nets'` leaves 9 MiB of this tree, so that one archive of 45 MB travels with it in each call;
the first calls only bring archives. Two calls then run the stages, the second with `--stage plain`; each brings out its
own stages' nets, and a large file in parts: `cat NAME.part-* > NAME` joins them.
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
from lib.gan import checkpoints, train
from lib.gan.game import Training
from lib.images import data
from lib.nets import devices, models, weights
from lib.study import identity, paths

BATCH, SMOKE = paths.ROOT / "batches" / "gpu.yaml", paths.ROOT / "tests" / "whole" / "test_gpu.py"
SNAPSHOTS = ["long-5", "long-10", "long-25", "long-50", "long-75"]
STAGES = {  # name: (most minutes, rows; none: the tests)
    "smoke": (1, []),
    "long": (7, ["long"]),
    "snapshots": (1.5, [*SNAPSHOTS, "long-probe", *(f"{name}-probe" for name in SNAPSHOTS)]),
    "plain": (3, ["plain", "plain-probe"]),
    "photographs": (3, ["faces", "rooms"]),
    "test": (1, ["long-test"]),
}
UPDATES = {"long": 100_000, "plain": 40_000}  # as many as fit, up to these
SMALL, PAPERS = 32, 128  # minibatches
MORE = 1.25  # times the updates a second that the small one has to make
USED = 0.8  # of a stage's minutes, for updates; the rest is for the notebook around them
MEASURED = 10  # seconds for each minibatch
TURNS = 10  # minibatches between two looks at the clock
PATIENCE = 60  # seconds that a stage has to save what it reached
PART = 15 * 2**20  # bytes of a part of a file
SIGNALLED = "stopped by a signal"
REHEARSAL = {  # by the notebook's number
    "01": {"data_set": "digits", "split": "train", "nc": 1, "ngf": 8, "ndf": 8},
    "05": {"data_set": "digits", "per_class": 20, "draws": 5, "development": 300, "claim": ""},
}
DRAWN = {"nc": 3, "batch_size": 16, "epochs": 20}  # faces and rooms of a rehearsal


def main() -> int:
    """Run the stages; return the exit code, 130 where a signal stopped them."""
    given = parse()
    given.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ends = time.monotonic() + 60 * given.minutes
    try:
        batch, decided = decide(given)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    own, there = list(STAGES)[list(STAGES).index(given.stage) :], yaml.safe_load(batch.read_text())["rows"]
    told = {"rate": decided} | {name: "not begun" if name in own else "not of this call" for name in STAGES}
    for name in own:
        most, wanted = STAGES[name]
        left = ends - time.monotonic() - PATIENCE
        wanted = [row for row in wanted if row in there]
        told[name] = run(batch, wanted, left if given.rehearse else min(60 * most, left))
        print(f"{name}: {told[name]}", flush=True)
        bring_out(batch, told, own, given.out)
        if told[name] == SIGNALLED:
            break
    print((given.out / "report.txt").read_text(), end="")
    return 130 if SIGNALLED in told.values() else 0


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=14)
    parser.add_argument("--stage", choices=STAGES, default="smoke", help="begin with this one")
    parser.add_argument("--rehearse", action="store_true", help="digits, nets of 8 maps, a hundredth of the updates")
    return parser.parse_args(words)


# --- what to run --------------------------------------------------------------------------------------------------


def decide(given: argparse.Namespace) -> tuple[Path, str]:
    """Return the batch to run, lengths fitted to this card, and in words what was decided: once, for all calls."""
    path = paths.runs() / ("rehearsal.yaml" if given.rehearse else "gpu.yaml")
    if not path.exists():
        content = yaml.safe_load(BATCH.read_text())
        if given.rehearse:
            shrink(content["rows"])
        p = identity.parameters_of("01_train_gan") | content["rows"]["long"]["parameters"]
        images = data.load(p["data_set"], p["size"], p["split"])
        n = len(data.hold_out(len(images), p["held_out"], p["seed"])[0])
        by, seconds = (8, 1) if given.rehearse else (1, MEASURED)
        rates = {size: updates_per_second(p, size // by, seconds) for size in (SMALL, PAPERS)}
        content["description"] = fit(content["rows"], n, rates, by)
        paths.write_atomically(path, yaml.safe_dump(content, sort_keys=False).encode())
    return path, yaml.safe_load(path.read_text())["description"]


def shrink(given: dict) -> None:
    """Make rows that a CPU runs in minutes: digits, small nets, one of the snapshots on the way."""
    for name in SNAPSHOTS[1:]:
        del given[name], given[f"{name}-probe"]
    for name, row in given.items():
        row["threads"] = 1
        row["parameters"] |= REHEARSAL[row["notebook"][:2]]
        if name in STAGES["photographs"][1]:
            row["parameters"] |= DRAWN | {"data_set": f"toy-{name}:256"}


def fit(given: dict, n: int, rates: dict[int, float], by: int = 1) -> str:
    """Give the long and the plain training on n images as many updates as fit into their stages; say so.

    rates: updates a second by minibatch. by: what minibatches are divided by in a rehearsal, of a hundredth as long.
    """
    chosen, words = SMALL if rates[SMALL] >= MORE * rates[PAPERS] else PAPERS, []
    for name, size in (("long", chosen), ("plain", PAPERS)):
        most = UPDATES[name] if by == 1 else UPDATES[name] // 100
        updates = min(most, int(USED * 60 * STAGES[name][0] * rates[size]))
        size //= by
        epochs = round(updates / (n // size), 4)
        for row in (given[other] for other in (name, *SNAPSHOTS) if other in given and other.startswith(name)):
            row["parameters"] |= {"epochs": epochs, "batch_size": size}
            _, mark, changed = row["departs"].partition(";")
            row["departs"] = f"{n:,} images for {epochs:.1f} epochs, minibatches of {size}{mark}{changed}"
        words.append(f"{name}: {updates:,} updates in minibatches of {size}")
    measured = ", ".join(f"{rate:,.0f} of {size // by}" for size, rate in rates.items())
    return f"updates a second: {measured}; {'; '.join(words)}"


def updates_per_second(p: dict, size: int, seconds: float = MEASURED) -> float:
    """Train a net of notebook 01's parameters p on noise for so many seconds, in minibatches of this size."""
    device = devices.find_device("auto")
    precision = devices.find_precision("auto", device)
    description, settings = train.configure(p | {"batch_size": size, "precision": precision})
    training = Training(*models.from_description(description, 0), settings, device, UPDATES["long"])
    x = torch.rand(size, *description.shape, device=device).contiguous(memory_format=torch.channels_last)
    for _ in range(TURNS):  # the first ones set up what the others use
        training.train_minibatch(x)
    began, done, spent = time.perf_counter(), 0, 0.0
    while spent < seconds:
        for _ in range(TURNS):
            measured = training.train_minibatch(x)
        measured["loss_D"].item()  # a GPU lags behind Python
        done, spent = done + TURNS, time.perf_counter() - began
    return done / spent


# --- running it -----------------------------------------------------------------------------------------------------


def run(batch: Path, wanted: list[str], seconds: float) -> str:
    """Run a stage, its rows or the tests, for so long at most; return what came of it."""
    if seconds <= 0:
        return "not begun: no time is left"
    words = ["-m", "lib", "run", str(batch), "--rows", *wanted] if wanted else ["-m", "pytest", "-q", str(SMOKE)]
    began = time.monotonic()
    try:
        code = call([sys.executable, *words], seconds)
    except KeyboardInterrupt:
        return SIGNALLED
    how = {0: "done", None: "stopped"}.get(code, f"ended with exit code {code}")
    return f"{how} after {time.monotonic() - began:.0f} of {seconds:.0f} s"


def call(command: list[str], seconds: float) -> int | None:
    """Run a command for so long at most; past that, or where this script is stopped, let it save what it reached.

    Returns its exit code, None where it was stopped.
    """
    process = subprocess.Popen(command, cwd=paths.ROOT, start_new_session=True)  # Ctrl-C is for this script alone
    try:
        return process.wait(seconds)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if isinstance(error, KeyboardInterrupt):
            raise
    return None


# --- bringing it out ------------------------------------------------------------------------------------------------


def bring_out(batch: Path, told: dict[str, str], names: list[str], out: Path) -> None:
    """Write into OUT what there is: a report, one archive of records, these stages' nets in half precision."""
    found = rows.load(batch).rows
    (out / "report.txt").write_text(tell(found, told))
    runs, archive = paths.runs(), out / "records.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for pattern in (batch.name, "*/metrics.json", "*/notebook.ipynb", "*/failed.txt", "training-*/log.jsonl"):
            for path in sorted(runs.glob(pattern)):
                tar.add(path, path.relative_to(runs))
    split(archive)
    for row in (found[name] for stage in names for name in STAGES[stage][1] if name in found):
        if row.notebook.startswith("01") and row.name not in SNAPSHOTS and (net := last_net(row)):
            target = out / f"{row.name}.safetensors"
            weights.save_net(target, *weights.load_net(net), dtype=torch.float16)
            split(target)


def tell(found: dict[str, rows.Row], told: dict[str, str]) -> str:
    """Return what ran and what did not: a line for each stage, and one for each of its rows."""
    lines = []
    for stage, said in told.items():
        lines.append(f"{stage:<12} {said}")
        lines += [f"    {name:<16} {state(found[name])}" for name in STAGES.get(stage, (0, []))[1] if name in found]
    return "\n".join(lines) + "\n"


def state(row: rows.Row) -> str:
    """Return how far a row came."""
    if row.finished():
        return "finished"
    if row.failure.exists():
        return f"failed: {row.failure.read_text()}"
    folder = training_of(row)
    saved = [int(path.stem.rpartition("-")[2]) for path in checkpoints.find(folder)] if folder else []
    return f"stopped after {max(saved):,} minibatches" if saved else "not run"


def training_of(row: rows.Row) -> Path | None:
    """Return the folder of a row's training, where it was begun."""
    used = (path for path in paths.runs().glob("training-*/used_by") if row.run_id in path.read_text().split())
    return next((path.parent for path in used), None)


def last_net(row: rows.Row) -> Path | None:
    """Return the net of a finished row, or the last snapshot of a training that was stopped."""
    if row.finished():
        return row.folder / "net.safetensors"
    folder = training_of(row)
    return next(reversed(train.snapshots_in(folder).values()), None) if folder else None


def split(path: Path) -> None:
    """Replace a file larger than PART by parts of it: `cat NAME.part-* > NAME` joins them."""
    whole = path.read_bytes()
    if len(whole) > PART:
        for i in range(0, len(whole), PART):
            path.with_name(f"{path.name}.part-{i // PART}").write_bytes(whole[i : i + PART])
        path.unlink()


if __name__ == "__main__":
    sys.exit(main())
