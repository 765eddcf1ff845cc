"""Stop a training again and again, and compare what it becomes with one that nothing stopped.

`python tests/interrupt.py FOLDER` prints what happened as JSON; test_train runs it. One process imports torch and forks
the trainings, which are then killed from outside at random moments: in a minibatch, in a write, while they resume.
"""

import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

from lib.gan import checkpoints, train
from lib.nets import models, weights

KILLS = 20
X = torch.randint(0, 256, (320, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
NET = models.describe("tutorial64", size=16, nc=1, ngf=8, ndf=8)
SETTINGS = train.Settings(8, 32, 2e-4, 0.5, 0.0, "both", "float32", 0)  # 80 minibatches
INTERRUPTED = 77  # exit status of a training that ended in KeyboardInterrupt


def begin(folder: Path) -> tuple[int, int]:
    """Train in a child process, with a checkpoint every 20 ms; return its process id and a pipe.

    Each minibatch takes a byte from the pipe, so that none but the parent's clock decides how far it can get; a closed
    pipe lets all pass.
    """
    reading, writing = os.pipe()
    if pid := os.fork():
        os.close(reading)
        return pid, writing
    os.close(writing)
    minibatches, status = train.minibatches, 1
    train.minibatches = lambda *given: (batch for batch in minibatches(*given) if os.read(reading, 1) is not None)
    try:
        train.fit(NET, SETTINGS, X, folder, minutes=1 / 3000, progress=False)
        status = 0
    except KeyboardInterrupt:
        status = INTERRUPTED
    finally:
        os._exit(status)


def saved(folder: Path) -> int:
    """Return the step of the newest checkpoint."""
    return max((int(path.stem.split("-")[1]) for path in checkpoints.find(folder)), default=0)


def reached(folder: Path) -> int:
    """Return the step of the last whole line of the log, while it is written."""
    log = folder / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def stop(folder: Path, number: int, target: int, delay: float) -> dict:
    """Train until the log reaches `target`, wait `delay` seconds, send a signal; return how it ended."""
    start, deadline = saved(folder), time.monotonic() + 120
    pid, pipe = begin(folder)
    os.write(pipe, bytes(max(0, target - start) + 3))
    while reached(folder) < target and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(delay)
    os.kill(pid, number)
    if number != signal.SIGKILL:
        with suppress(BrokenPipeError):
            os.write(pipe, b"-")  # one that waits for its next minibatch looks at its signals after it
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(pipe)
    return {"status": status, "step": saved(folder)}


def outcome(folder: Path) -> tuple[dict, list[dict]]:
    """Train to the end; return all tensors of the last checkpoint, and the log."""
    pid, pipe = begin(folder)
    os.close(pipe)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, status
    lines = (folder / "log.jsonl").read_text().splitlines()
    return weights.read_net(checkpoints.find(folder)[0])[0], [json.loads(line) for line in lines]


def same(one: tuple[dict, list[dict]], other: tuple[dict, list[dict]]) -> bool:
    tensors = one[0].keys() == other[0].keys() and all(torch.equal(v, other[0][k]) for k, v in one[0].items())
    return tensors and one[1] == other[1]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.optim.Adam([torch.zeros(1)])  # imports for a second what each fork would import anew
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores
    chance = random.Random(0)
    undisturbed = outcome(folder / "undisturbed")
    targets = sorted(chance.sample(range(70), KILLS))
    killed = [stop(folder / "killed", signal.SIGKILL, t, chance.uniform(0, 0.03)) for t in targets]
    told = {
        name: stop(folder / name, getattr(signal, name), chance.randrange(5, 60), chance.uniform(0, 0.03))
        for name in ("SIGINT", "SIGTERM")
    }
    told = {name: end | {"logged": reached(folder / name)} for name, end in told.items()}
    equal = {name: same(undisturbed, outcome(folder / name)) for name in ("killed", "SIGINT", "SIGTERM")}
    print(json.dumps({"killed": killed, "told": told, "equal": equal}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
