"""Measure, on this machine: training against the tutorial's plain loop, and the quick study notebook by notebook.

`make bench`. Timings lie on a busy machine: what is quoted are ratios of runs that take turns.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import pandas as pd
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from lib import data, models, results, train

NETS = {  # the tutorial's own net and size, and the study's two other kinds at 64 maps
    "tutorial64": {},
    "tutorial64 at 32 x 32": {"size": 32},
    "imagenet32": {"ngf": 64, "ndf": 64},
}


def plain(description: models.Description, x: torch.Tensor, batch_size: int) -> Callable[[], None]:
    """Return one minibatch of the loop of PyTorch's DCGAN tutorial, stated anew: float32, a loader, two losses."""
    G, D = models.from_description(description)
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
        D.zero_grad()
        F.binary_cross_entropy(D(real).sigmoid(), torch.ones(batch_size)).backward()
        fake = G(torch.randn(batch_size, description.nz))
        F.binary_cross_entropy(D(fake.detach()).sigmoid(), torch.zeros(batch_size)).backward()
        optD.step()
        G.zero_grad()
        F.binary_cross_entropy(D(fake).sigmoid(), torch.ones(batch_size)).backward()
        optG.step()

    return step


def ours(description: models.Description, x: torch.Tensor, batch_size: int, precision: str) -> Callable[[], None]:
    """Return one minibatch of `train`'s loop."""
    settings = train.Settings(1e9, batch_size, 2e-4, 0.5, 0.0, "both", precision, 0)
    training = train.Training(*models.from_description(description), settings, torch.device("cpu"))
    batches = train.minibatches(x, settings, 0, 10**9)

    def step() -> None:
        batch = data.to_float(next(batches))
        training.train_minibatch(batch.contiguous(memory_format=torch.channels_last))

    return step


def compare(name: str, changes: dict, batch_size: int, rounds: int) -> pd.Series:
    """Time the three loops in turn, minibatch by minibatch, and return medians and ratios."""
    description = models.describe(name.split()[0], **changes)
    x = torch.randint(0, 256, (1024, description.nc, description.size, description.size), dtype=torch.uint8)
    loops = {
        "plain": plain(description, x, batch_size),
        "float32": ours(description, x, batch_size, "float32"),
        "bfloat16": ours(description, x, batch_size, "bfloat16"),
    }
    seconds = {loop: [] for loop in loops}
    for i in range(rounds + 1):
        for loop, step in loops.items():
            began = time.perf_counter()
            step()
            if i:  # the first round warms up
                seconds[loop].append(time.perf_counter() - began)
    speed = {f"{loop}, images/s": batch_size / statistics.median(s) for loop, s in seconds.items()}
    for loop in ("float32", "bfloat16"):
        ratios = [p / o for p, o in zip(seconds["plain"], seconds[loop], strict=True)]
        speed[f"{loop} / plain"] = statistics.median(ratios)
    return pd.Series(speed, name=name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="minibatches timed of each loop")
    parser.add_argument("--batch-size", type=int, default=128)
    given = parser.parse_args()
    print(f"{results.device_name()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}\n")
    rows = [compare(name, changes, given.batch_size, given.rounds) for name, changes in NETS.items()]
    print(pd.DataFrame(rows).round(2).to_string(), "\n")
    quick = results.table("quick").drop_duplicates("run_id")[["row", "notebook", "seconds", "peak_mb"]]
    print("The quick study, as last run:" if len(quick) else "The quick study was not run yet: make study")
    if len(quick):
        print(quick.to_string(index=False))


if __name__ == "__main__":
    main()
