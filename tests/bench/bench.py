"""Measure, on this machine: training against the tutorial's plain loop, and the quick study notebook by notebook.

`make bench`, and with ARGS: `--example PATH`, `--linear`, `--cost batches/paper.yaml`; on a GPU with `--rounds 50`.
Timings lie on a busy machine: what is quoted are ratios of runs that take turns.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from lib.engine.rows import load as load_batch
from lib.gan import train
from lib.images import data
from lib.look import numbers
from lib.nets import devices, models
from lib.study import identity, records, runs, tables

NETS = {  # the tutorial's own net and size, and the study's two other kinds at 64 maps
    "tutorial64": {},
    "tutorial64 at 32 x 32": {"size": 32},
    "imagenet32": {"ngf": 64, "ndf": 64},
}
WIDE = {"imagenet32 at 128 maps": {}, "paper64": {}}  # the paper's own, on a GPU
KINDS = {"amx_bf16": ", AMX", "avx512_bf16": ", AVX512 bfloat16"}  # of CPUs, by what Linux says of them
WARM = {"cpu": 1, "cuda": 10}  # minibatches before those that count: a GPU's launches are recorded in them
SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices whose product shows the machine's best rate


def plain(
    description: models.Description, x: torch.Tensor, batch_size: int, device: torch.device
) -> Callable[[], None]:
    """Return one minibatch of the loop of PyTorch's DCGAN tutorial, stated anew: float32, a loader, two losses."""
    G, D = (net.to(device) for net in models.from_description(description))
    optG, optD = (torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (G, D))
    loader = DataLoader(TensorDataset(data.to_float(x)), batch_size, shuffle=True, num_workers=0)
    batches = iter(loader)

    def step() -> None:
        nonlocal batches
        try:
            (real,) = next(batches)
        except StopIteration:
            batches = iter(loader)
            (real,) = next(batches)
        one, zero = torch.ones(batch_size, device=device), torch.zeros(batch_size, device=device)
        D.zero_grad()
        F.binary_cross_entropy(D(real.to(device)).sigmoid(), one).backward()
        fake = G(torch.randn(batch_size, description.nz, device=device))
        F.binary_cross_entropy(D(fake.detach()).sigmoid(), zero).backward()
        optD.step()
        G.zero_grad()
        F.binary_cross_entropy(D(fake).sigmoid(), one).backward()
        optG.step()

    return step


def ours(
    description: models.Description,
    x: torch.Tensor,
    batch_size: int,
    device: torch.device,
    precision: str,
) -> Callable[[], None]:
    """Return one minibatch of `train`'s loop, the images on the device as `train.fit` has them."""
    settings = train.Settings(1e9, batch_size, 2e-4, 0.5, 0.0, "both", precision, 0)
    training = train.Training(*models.from_description(description), settings, device)
    batches = train.minibatches(x.to(device), settings, 0, 10**9)

    def step() -> None:
        batch = data.to_float(next(batches))
        training.train_minibatch(batch.contiguous(memory_format=torch.channels_last))

    return step


def matmul(dtype: torch.dtype, device: torch.device, side: int) -> Callable[[], None]:
    """Return one product of two square matrices: 2 * side^3 operations at the machine's best rate."""
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    return lambda: a @ b


def seconds_of(loops: dict[str, Callable[[], None]], rounds: int, device: torch.device) -> pd.DataFrame:
    """Time loops in turn, so that other work on the machine meets all of them; one row per round after the warm-up."""
    rows = []
    for _ in range(WARM[device.type] + rounds):
        row = {}
        for name, step in loops.items():
            began = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            row[name] = time.perf_counter() - began
        rows.append(row)
    return pd.DataFrame(rows[-rounds:])


def compare(name: str, changes: dict, batch_size: int, rounds: int, device: torch.device) -> pd.Series:
    """Time plain and own loops in turn; return medians, ratios, and the share of the matmul rate that is reached.

    bfloat16 is tried where the device has it; the last of the loops is held against the matmul.
    """
    description = models.describe(name.split()[0], **changes)
    x = data.load("toy-faces:1024", description.size).x
    best = devices.find_precision("auto", device)
    kinds = list(dict.fromkeys(["float32", best]))
    loops = {"plain": plain(description, x, batch_size, device)}
    loops |= {kind: ours(description, x, batch_size, device, kind) for kind in kinds}
    with FlopCounterMode(display=False) as counter:
        loops[best]()
    side = SIDE[device.type]
    seconds = seconds_of(loops | {"matmul": matmul(getattr(torch, best), device, side)}, rounds, device)
    speed = {f"{loop}, images/s": batch_size / seconds[loop].median() for loop in loops}
    speed |= {f"{kind} / plain": (seconds["plain"] / seconds[kind]).median() for kind in kinds}
    speed["GFLOP per image"] = counter.get_total_flops() / batch_size / 1e9
    rate = counter.get_total_flops() / seconds[best] / (2 * side**3 / seconds["matmul"])
    speed[f"{best}, share of the {best} matmul rate"] = rate.median()
    return pd.Series(speed, name=name)


def record(rows: pd.DataFrame, batch_size: int) -> None:
    """Write the medians of nets' loops to results/speed.csv, in place of what this kind of machine had there."""
    best = rows.columns[rows.columns.str.endswith(" / plain")][-1].removesuffix(" / plain")
    flags = Path("/proc/cpuinfo").read_text() if "CPU" in runs.device_name() and sys.platform == "linux" else ""
    kind = next((kind for flag, kind in KINDS.items() if flag in flags), "")
    about = {"device": runs.device_name() + kind, "torch": torch.__version__, "load": round(os.getloadavg()[0], 1)}
    about |= {"date": records.now()[:10], "commit": records.commit(), "batch_size": batch_size, "precision": best}
    columns = {"plain, images/s": "loop", f"{best}, images/s": "here", f"{best} / plain": "ratio"}
    columns |= {f"{best}, share of the {best} matmul rate": "share"}
    lines = rows.rename(columns=columns)[[*columns.values()]].round(2).astype({"loop": int, "here": int})
    lines = lines.rename_axis("net").reset_index().assign(**about)
    former = pd.read_csv(numbers.SPEED) if numbers.SPEED.exists() else lines[:0]
    others = former[former["device"] != about["device"]]
    pd.concat([others, lines]).to_csv(numbers.SPEED, index=False)


def compare_with_example(path: Path, batch_size: int, rounds: int, device: torch.device) -> pd.Series:
    """Time the DCGAN example of a checkout of pytorch/examples, its own loop and loader, and ours after it.

    Same net, batch size, images (as PNG files for the example) and number of them; the example's start is not counted.
    """
    x = data.load(f"toy-faces:{batch_size * (rounds + 1)}", 64).x
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "images" / "faces").mkdir(parents=True)
        for i, image in enumerate(x.permute(0, 2, 3, 1).numpy()):
            Image.fromarray(image).save(Path(folder) / "images" / "faces" / f"{i}.png")
        command = [sys.executable, "-u", path / "dcgan" / "main.py", "--dataset", "folder", "--dataroot",
                   f"{folder}/images", "--batchSize", batch_size, "--niter", 1, "--outf", folder,
                   *(["--accel"] if device.type == "cuda" else [])]  # fmt: skip
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as example:
            ends = [time.perf_counter() for line in example.stdout if "Loss_D" in line]
    if len(ends) != rounds + 1:
        raise SystemExit(f"{path}/dcgan/main.py trained {len(ends)} minibatches, not {rounds + 1}")
    best = devices.find_precision("auto", device)
    own = seconds_of({"ours": ours(models.describe("tutorial64"), x, batch_size, device, best)}, rounds, device)["ours"]
    speeds = {"example, images/s": batch_size * rounds / (ends[-1] - ends[0]), "ours": batch_size * rounds / own.sum()}
    return pd.Series(speeds | {"ours / example": speeds["ours"] / speeds["example, images/s"]})


def linear(sizes: Sequence[int], batch_size: int) -> pd.DataFrame:
    """Time minibatches from packed files of growing size, memory-mapped, beside the same from memory.

    The images are drawn ones, repeated; the files, as many bytes as 32 x 32 colour images take, are deleted at once.
    """
    faces = data.load("toy-faces:1024", 32).x.numpy()
    settings = train.Settings(1, batch_size, 2e-4, 0.5, 0.0, "both", "float32", 0)
    rows = []
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            packed = np.lib.format.open_memmap(f"{folder}/x.npy", "w+", np.uint8, (n, 3, 32, 32))
            for start in range(0, n, len(faces)):
                packed[start : start + len(faces)] = faces[: n - start]
            packed.flush()
            mapped = torch.from_numpy(np.load(f"{folder}/x.npy", mmap_mode="c"))
            row = {"images": n, "GB": packed.nbytes / 1e9}
            for name, x in {"memory-mapped": mapped, "in memory": torch.from_numpy(np.array(packed))}.items():
                began = time.perf_counter()
                count = sum(len(batch) for batch in train.minibatches(x, settings, 0, n // batch_size))
                row |= {f"{name}, images/s": count / (time.perf_counter() - began)}
                row |= {f"{name}, seconds per epoch": time.perf_counter() - began}
            rows.append(row)
    return pd.DataFrame(rows)


def cost(batch: Path) -> pd.DataFrame:
    """Count what the trainings of a batch file compute and keep, one line per net: nothing is timed, no GPU needed.

    Operations: one image's share of a minibatch that updates D and G. Memory: weights, gradients, Adam's moments and
    what the backward passes of a minibatch hold, in float32; bfloat16 halves the last.
    """
    lines = {}
    for row in load_batch(batch).rows.values():
        if row.notebook == "01_train_gan":
            p = identity.check(row.notebook, row.parameters)
            description, _ = train.configure(p | {"precision": "float32"})
            if description not in lines:
                lines[description] = {"row": row.name} | count(description, p["batch_size"])
    return pd.DataFrame(lines.values()).set_index("row")


class Held:
    """What the tensors that wait for a backward pass hold: bytes now, and at most. Weights do not count.

    Several tensors often share one place in memory, and a place is used again as soon as it is free.
    """

    def __init__(self, weights: Sequence[torch.Tensor]) -> None:
        self.users = Counter(w.untyped_storage().data_ptr() for w in weights)
        self.now = self.peak = 0

    def hold(self, tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Return what gives the tensor back, for as long as autograd wants to have it."""
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        self._use(place, size)
        weakref.finalize(held := lambda: tensor, self._drop, place, size)
        return held

    def _use(self, place: int, size: int) -> None:
        self.now += size * (self.users[place] == 0)
        self.users[place] += 1
        self.peak = max(self.peak, self.now)

    def _drop(self, place: int, size: int) -> None:
        self.users[place] -= 1
        self.now -= size * (self.users[place] == 0)


def count(description: models.Description, batch_size: int) -> dict[str, float]:
    """Count one net's operations per image, its weights, and the memory of a minibatch, in one step on two images."""
    settings = train.Settings(1, 2, 2e-4, 0.5, 0.0, "both", "float32", 0)
    training = train.Training(*models.from_description(description), settings, torch.device("cpu"))
    weights = [w for net in (training.G, training.D) for w in net.parameters()]
    held = Held(weights)
    keep = torch.autograd.graph.saved_tensors_hooks(held.hold, lambda give: give())
    with FlopCounterMode(display=False) as counter, keep:
        training.train_minibatch(torch.zeros(2, description.nc, description.size, description.size))
    size = sum(w.numel() for w in weights)
    return {
        "GFLOP per image": counter.get_total_flops() / 2e9,
        "minutes per million images at 100 TFLOP/s": counter.get_total_flops() / 2 * 1e6 / 100e12 / 60,
        "millions of weights": size / 1e6,
        "images per minibatch": batch_size,
        "GiB of memory": (16 * size + held.peak / 2 * batch_size) / 2**30,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="minibatches timed of each loop")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--example", type=Path, help="a checkout of pytorch/examples, whose DCGAN is timed as it is")
    parser.add_argument("--linear", action="store_true", help="time reading 10,000 to 1,000,000 packed images (3 GB)")
    parser.add_argument("--cost", type=Path, help="count a batch file's operations and memory; nothing is timed")
    parser.add_argument("--net", action="append", help="one net, such as tutorial64, in place of all; may be repeated")
    parser.add_argument(
        "--record", action="store_true", help="write results/speed.csv, from which README's table is made"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto: the faster one that there is")
    given = parser.parse_args()
    device = devices.find_device(given.device)
    print(f"{runs.device_name()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}\n")
    if given.cost:
        print(cost(given.cost).round(2).to_string())
        return
    if given.linear:
        print(linear([10_000, 100_000, 300_000, 1_000_000], given.batch_size).round(2).to_string(index=False))
        return
    if given.example:
        print(compare_with_example(given.example, given.batch_size, given.rounds, device).round(2).to_string())
        return
    nets = NETS | (WIDE if device.type == "cuda" else {})
    timed = given.batch_size, given.rounds, device
    rows = pd.DataFrame(
        [compare(name, changes, *timed) for name, changes in nets.items() if name in (given.net or nets)]
    )
    print(rows.T.round(2).to_string(), "\n")
    if given.record:
        record(rows, given.batch_size)
    quick = tables.read("quick").drop_duplicates("run_id")[["row", "notebook", "seconds", "peak_mb"]]
    print("The quick study, as last run:" if len(quick) else "The quick study was not run yet: make study")
    if len(quick):
        print(quick.to_string(index=False))


if __name__ == "__main__":
    main()
