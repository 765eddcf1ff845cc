"""Adversarial training that resumes where it stopped.

A training is a `game` of so many minibatches; here they are drawn, placed on the device, and what is due after each is
kept: a line of the log, samples, a snapshot, a checkpoint. Images stay uint8 until their minibatch.
"""

import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
from pathlib import Path

import pandas as pd
import torch
import tqdm.auto
from torch import Tensor

from lib.gan import checkpoints, diagnostics, feed
from lib.gan.feed import minibatches, require_images
from lib.gan.game import Settings, Training
from lib.images import data
from lib.images.data import ImageSet
from lib.nets import models, weights
from lib.nets.models import Description
from lib.study import identity, paths, syntax

GRIDS = 8  # times at which samples are taken
CHECKS = 20  # times at which the nets' health is measured
LOGGED = 400  # lines of log.jsonl, about
TOLD = 30  # seconds between two lines of progress.txt


def configure(parameters: Mapping[str, object]) -> tuple[Description, Settings]:
    """Return the net and the settings that notebook 01's parameters mean, `precision` as it was found.

    Raises ValueError for what no net can be or nothing can train with.
    """
    p = parameters
    own = {name: p[name] for name in ("prior", "kernel") if p[name]} | {k: p[k] for k in ("size", "nc", "ngf", "ndf")}
    given = {field.name: p[field.name] for field in fields(Settings) if field.name in p}
    return models.describe(p["architecture"], p["breaks"], **own), Settings(**given)


def folder_of(
    description: Description, settings: Settings, images: ImageSet, rows: Tensor | None = None, snapshots: int = 0
) -> Path:
    """Return the folder of this very training: same net, settings, images (or rows of them) and snapshots, same folder.

    It is apart from the notebook's run, so that a changed plot does not cost a day of training. What is at its default
    does not count, so that a field may be added; versions that the code declares do.
    """
    chosen = None if rows is None else hashlib.sha256(rows.numpy()).hexdigest()
    net = [content] if (content := weights.content_of(settings.start or settings.onward)) else []  # not its name alone
    departs = [
        {field.name: value for field in fields(given) if (value := getattr(given, field.name)) != field.default}
        for given in (description, settings)
    ]
    versions = identity.versions_of("lib.gan.train")
    return paths.runs() / f"training-{syntax.digest([*departs, images.checksum, chosen, snapshots, versions, *net])}"


def fit(
    description: Description,
    settings: Settings,
    x: Tensor,
    folder: Path,
    device: str | torch.device = "cpu",
    minutes: float = 5,
    snapshots: int = 0,
    progress: bool = True,
    rows: Tensor | None = None,
    watch: Callable[[Training], None] | None = None,
    on_device: int | None = None,
) -> Training:
    """Train a net on uint8 images x (N, nc, size, size), resuming from `folder` where a training stopped there.

    minutes: between checkpoints. snapshots: nets kept at even distances beside the last, as snapshot-STEP.safetensors.
    rows: train on these images only. watch: is called with the training whenever its health was measured. on_device:
    bytes of x that may lie on the device, by default half of what is free there; a larger x streams from where it is,
    such as a memory map. Writes checkpoints, log.jsonl, progress.txt and snapshots into folder. SIGINT and SIGTERM save
    before they stop it. Where another process trains in folder, waits for it, and goes on from where that ended.

    Raises ValueError where x does not fit the net, is smaller than a minibatch, where the net to start or go on from
    does not fit, or where folder holds another training (it says what differs), FloatingPointError where a loss is not
    finite, OSError where folder cannot be written.
    """
    rows = torch.arange(len(x)) if rows is None else rows
    require_images(x, description.shape, len(rows), settings)
    device, total = torch.device(device), data.steps_of(settings.epochs, len(rows), settings.batch_size)
    due = plan(total, snapshots)
    health = diagnostics.Health(x, rows, device)
    with checkpoints.hold(folder), checkpoints.deferred_signals() as signals, _memory_errors(device, settings):
        G, D = models.from_description(description, settings.seed)
        if settings.start:
            weights.take_convolutions(D, settings.start, settings.frozen)
        if settings.onward:
            weights.take_all(G, D, settings.onward)
        training = Training(G, D, settings, device, total)
        resume(training, folder, len(rows))
        if training.step == 0:
            training.take_samples()
        x, saved = feed.place(x, device, on_device), time.monotonic()
        batches = feed.placed(minibatches(x, settings, training.step, total, rows), device)
        noted, began = set().union(*due.values()), time.perf_counter()
        for batch in _told(batches, training, total, folder, progress):
            measured = training.train_minibatch(batch)
            if training.step in noted and device.type == "cuda":  # it lags behind Python: wait, to count its time
                torch.cuda.synchronize(device)
            training.seconds += time.perf_counter() - began
            _note(training, measured, due, folder, health)
            if training.step == total or signals or time.monotonic() - saved > 60 * minutes:
                save(training, folder, len(rows))
                saved = time.monotonic()
            if watch and training.step in due["check"]:
                watch(training)
            if signals:
                break
            began = time.perf_counter()
    return training


def plan(total: int, snapshots: int) -> dict[str, set[int]]:
    """Return the minibatches after which something is due: log, sample, check or snapshot."""
    log_every = max(1, total // LOGGED)
    checks = {round(total * (i + 1) / CHECKS) for i in range(CHECKS)} - {0}
    both_turns = {step for step in range(1, total + 1) if step % log_every < len(("D", "G"))}
    return {
        "log": both_turns | checks,
        "sample": {round(total * (i / (GRIDS - 1)) ** 2) for i in range(GRIDS)},  # early changes are the largest
        "check": checks,
        "snapshot": {round(total * (i + 1) / snapshots) for i in range(snapshots)} - {0},
    }


def _note(
    training: Training, measured: dict[str, Tensor], due: dict[str, set[int]], folder: Path, health: diagnostics.Health
) -> None:
    """Keep what is due after a minibatch: samples, a line of the log with losses and health, a snapshot."""
    step = training.step
    if step in due["sample"]:
        training.take_samples()
    if step in due["log"]:
        line = {"step": step} | {name: value.item() for name, value in measured.items()}
        diagnostics.require_finite(line)
        if step in due["check"]:
            line |= health.measure(training.G, training.D, training.fixed_z)
        training.log.append(line)
        paths.append_line(folder / "log.jsonl", json.dumps(line))
    if step in due["snapshot"]:
        diagnostics.require_finite({"step": step} | training.norms())
        weights.save_net(folder / f"snapshot-{step:09d}.safetensors", training.G, training.D, {"step": step})


def _told(batches: Iterator[Tensor], training: Training, total: int, folder: Path, progress: bool) -> Iterator[Tensor]:
    """Yield minibatches under a bar with minibatch, losses, images per second and time left: in JupyterLab a widget.

    Where nobody watches, as in a batch, progress.txt is what can be followed: a line every TOLD seconds, and the last.
    """
    watched = "JPY_SESSION_NAME" in os.environ  # JupyterLab tells its kernels, a batch does not
    kind = tqdm.auto.tqdm if watched and progress else tqdm.std.tqdm
    images, told = training.settings.batch_size, time.monotonic()
    with kind(total=total * images, initial=training.step * images, unit=" images", smoothing=0.05,
              mininterval=0.5 if watched or sys.stderr.isatty() else 60,
              file=sys.stderr if progress else io.StringIO()) as bar:  # fmt: skip
        for batch in batches:
            yield batch
            if due := training.step == total or time.monotonic() - told > TOLD:
                lines = {k: f"{v:.2f}" for line in training.log[-2:] for k, v in line.items() if k.startswith("loss")}
                bar.set_postfix({"minibatch": training.step} | lines, refresh=False)
            bar.update(images)
            if due:
                paths.append_line(folder / "progress.txt", str(bar))
                told = time.monotonic()


def snapshots_in(folder: Path) -> dict[int, Path]:
    """Return the snapshots of a training's folder by the step at which they were taken."""
    found = {int(path.stem.removeprefix("snapshot-")): path for path in folder.glob("snapshot-*.safetensors")}
    return dict(sorted(found.items()))  # as numbers: as text, step 1000000 would come before step 200000


@contextmanager
def _memory_errors(device: torch.device, settings: Settings) -> Iterator[None]:
    """Say what to lower where the device's memory is too small."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        given = f"minibatches of {settings.batch_size} images in {settings.precision}"
        way_out = (
            "lower batch_size, ngf, ndf or size, or take precision bfloat16; a smaller training will be another one"
        )
        raise torch.OutOfMemoryError(f"{device} has too little memory for {given}: {way_out}") from error


def save(training: Training, folder: Path, n: int) -> None:
    """Write a checkpoint of a training on n images. Raises FloatingPointError rather than save weights not finite."""
    diagnostics.require_finite({"step": training.step} | training.norms())
    extra = {f"sample.{step}": images for step, images in training.samples.items()}
    extra["z_generator"] = training.z_generator.get_state()
    for name, optimizer in training.optimizers.items():
        for i, moments in optimizer.state_dict()["state"].items():
            extra |= {f"adam.{name}.{i}.{k}": v for k, v in moments.items()}
    record = {"settings": asdict(training.settings), "images": n, "seconds": training.seconds}
    checkpoints.write(folder, training.step, training.G, training.D, record, extra)


def resume(training: Training, folder: Path, n: int) -> None:
    """Bring a fresh training on n images to the state of folder's last whole checkpoint, if there is one.

    Raises ValueError where that is another training's, and says what differs.
    """
    found = checkpoints.read(folder)
    if found is None:
        checkpoints.read_log(folder, 0)
        return
    tensors, description, record = found
    asked = asdict(training.G.description) | asdict(training.settings) | {"images": n}
    usual = {field.name: field.default for field in fields(Settings) if field.default is not MISSING}
    there = usual | asdict(description) | record["settings"] | {"images": record["images"]}
    differing = [f"{k} = {there.get(k)} there, {v} asked" for k, v in asked.items() if there.get(k) != v]
    if differing:
        raise ValueError(f"{folder} holds another training ({'; '.join(differing)}): choose another or delete it")
    if tensors["z_generator"].shape != training.z_generator.get_state().shape:
        raise ValueError(f"{folder} was begun on another kind of device, whose z end there: go on there, or delete it")
    for name, net in (("G", training.G), ("D", training.D)):
        own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
        weights.load_weights(net, own, folder)
        state = training.optimizers[name].state_dict()
        for key, value in tensors.items():
            if key.startswith(f"adam.{name}."):
                i, moment = key.split(".")[2:]
                weight = training.optimizers[name].param_groups[0]["params"][int(i)]
                if value.shape == weight.shape:  # fused Adam walks moments and weights as one layout: theirs
                    value = torch.empty_like(weight, requires_grad=False).copy_(value)
                state["state"].setdefault(int(i), {})[moment] = value
        training.optimizers[name].load_state_dict(state)
    training.step, training.seconds = record["step"], record["seconds"]
    training.z_generator.set_state(tensors["z_generator"])
    training.samples = {int(k.split(".")[1]): v for k, v in tensors.items() if k.startswith("sample.")}
    training.log = checkpoints.read_log(folder, training.step)


def log_frame(training: Training) -> pd.DataFrame:
    """Return the log as a frame: a row per logged minibatch, columns step, loss_D, loss_G, D_x, D_G_z and health's."""
    return pd.DataFrame(training.log)
