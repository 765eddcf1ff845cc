"""Adversarial training that resumes where it stopped.

The loop is the paper's: minibatches of real images and of samples, D's two halves normalised apart, binary
cross-entropy, Adam. What makes it fast on a CPU, and the same training still: images stay uint8 until their minibatch,
bfloat16 convolutions on channels-last tensors, G's samples shared between D's step and G's, and no gradients of D's
weights in G's step.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from lib import data, models, nets, paths, results
from lib.data import ImageSet
from lib.models import Description, Discriminator, Generator

SAMPLES = 64  # images of the fixed z that show the training's course
GRIDS = 8  # times at which they are taken
LOGGED = 400  # lines of log.jsonl, about


@dataclass(frozen=True)
class Settings:
    """How to train. The paper's values stand in batches/."""

    epochs: float  # passes over the images; a part of one is allowed
    batch_size: int
    lr: float
    beta1: float
    weight_decay: float  # L2 inside Adam, as the authors' code has it
    update: str  # both: each minibatch updates D, then G; alternate: D and G in turn, as the authors' code does
    precision: str  # float32, or bfloat16 (autocast; weights and Adam stay float32)
    seed: int

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "lr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be above 0")
        for name, choices in {"update": ("both", "alternate"), "precision": ("float32", "bfloat16")}.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} = {getattr(self, name)!r}: choose one of {', '.join(choices)}")


@dataclass
class Training:
    """The state of one training: everything that a resumed run needs to go on exactly."""

    G: Generator
    D: Discriminator
    settings: Settings
    device: torch.device
    step: int = 0
    seconds: float = 0.0  # spent in minibatches, over all sittings
    samples: dict[int, Tensor] = field(default_factory=dict)  # step -> uint8 (SAMPLES, nc, size, size)
    log: list[dict] = field(default_factory=list)

    def __post_init__(self) -> None:
        for net in (self.G, self.D):
            net.to(self.device, memory_format=torch.channels_last).train()
        s = self.settings
        self.optimizers = {
            name: torch.optim.Adam(net.parameters(), s.lr, (s.beta1, 0.999), weight_decay=s.weight_decay, fused=True)
            for name, net in (("G", self.G), ("D", self.D))
        }
        self.z_generator = torch.Generator(self.device).manual_seed(s.seed)
        self.fixed_z = self.G.sample_z(SAMPLES, torch.Generator().manual_seed(s.seed)).to(self.device)

    def train_minibatch(self, x: Tensor) -> dict[str, Tensor]:
        """Update D, G or both on one minibatch x (N, nc, size, size) in [-1, 1]. Returns losses and D's means."""
        turns = ("D", "G") if self.settings.update == "both" else (("D", "G")[self.step % 2],)
        self.step += 1
        with self._autocast():
            fake = self.G(self.G.sample_z(len(x), self.z_generator))
        measured = {}
        if "D" in turns:
            measured |= self._update_D(x, fake.detach())
        if "G" in turns:
            measured |= self._update_G(fake)
        return measured

    def _update_D(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        with self._autocast():  # two passes: batch norm sees real images and samples apart
            on_real, on_fake = self.D(real).float(), self.D(fake).float()
        loss = F.binary_cross_entropy_with_logits(on_real, torch.ones_like(on_real))
        loss = loss + F.binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
        self._descend("D", loss)
        return {
            "loss_D": loss.detach(),
            "D_x": on_real.detach().sigmoid().mean(),
            "D_G_z": on_fake.detach().sigmoid().mean(),
        }

    def _update_G(self, fake: Tensor) -> dict[str, Tensor]:
        self.D.requires_grad_(False)  # the gradient passes through D's weights, none is needed for them
        with self._autocast():
            on_fake = self.D(fake).float()
        loss = F.binary_cross_entropy_with_logits(on_fake, torch.ones_like(on_fake))
        self._descend("G", loss)
        self.D.requires_grad_(True)
        return {"loss_G": loss.detach()}

    def _descend(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16")

    @torch.no_grad()
    def take_samples(self) -> None:
        """Keep what G makes of the fixed z now, with batch statistics, as the authors sample."""
        with self._autocast():
            self.samples[self.step] = data.to_uint8(self.G(self.fixed_z)).cpu()


def folder_of(description: Description, settings: Settings, images: ImageSet) -> Path:
    """Return the folder of this very training: same net, settings, images and code, same folder.

    It is apart from the notebook's run, so that a changed plot does not cost a day of training.
    """
    code = [results.digest_of_module(name) for name in ("models", "train")]
    identity = json.dumps([asdict(description), asdict(settings), images.checksum, code])
    return paths.runs() / f"training-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"


def fit(
    description: Description,
    settings: Settings,
    x: Tensor,
    folder: Path,
    device: str | torch.device = "cpu",
    minutes: float = 5,
    snapshots: int = 0,
    progress: bool = True,
) -> Training:
    """Train a net on uint8 images x (N, nc, size, size), resuming from `folder` where a training stopped there.

    minutes: between checkpoints. snapshots: nets kept at even distances beside the last, as snapshot-STEP.safetensors.
    Writes checkpoint.safetensors and log.jsonl into folder. Raises ValueError where x does not fit the net, is smaller
    than a minibatch, or where folder holds another training (it says what differs).
    """
    expected = (description.nc, description.size, description.size)
    if tuple(x.shape[1:]) != expected:
        raise ValueError(f"images of {tuple(x.shape[1:])} do not fit a net for {expected}: change size or nc")
    if len(x) < settings.batch_size:
        raise ValueError(f"{len(x)} images are fewer than one minibatch of {settings.batch_size}: lower batch_size")
    training = Training(*models.from_description(description, settings.seed), settings, torch.device(device))
    resume(training, folder)
    total = steps_of(settings, len(x))
    sampled = {round(total * (i / (GRIDS - 1)) ** 2) for i in range(GRIDS)}  # early changes are the largest
    kept = {round(total * (i + 1) / snapshots) for i in range(snapshots)}
    log_every, saved = max(1, total // LOGGED), time.monotonic()
    x = x.to(device) if torch.device(device).type != "cpu" else x
    bar = tqdm(total=total * settings.batch_size, initial=training.step * settings.batch_size, unit=" images",
               disable=not progress, mininterval=10, smoothing=0.05)  # fmt: skip
    if training.step == 0:
        training.take_samples()
    for batch in minibatches(x, settings, training.step, total):
        began = time.perf_counter()
        measured = training.train_minibatch(
            data.to_float(batch.to(device)).contiguous(memory_format=torch.channels_last)
        )
        training.seconds += time.perf_counter() - began
        bar.update(settings.batch_size)
        if training.step % log_every < len(("D", "G")) or training.step == total:  # both turns of an alternation
            training.log.append({"step": training.step} | {k: v.item() for k, v in measured.items()})
        if training.step in sampled:
            training.take_samples()
        if training.step in kept:
            nets.save_net(
                folder / f"snapshot-{training.step:06d}.safetensors", training.G, training.D, {"step": training.step}
            )
        if training.step == total or time.monotonic() - saved > 60 * minutes:
            save(training, folder)
            saved = time.monotonic()
    bar.close()
    return training


def steps_of(settings: Settings, n: int) -> int:
    """Return the number of minibatches of a training on n images; an epoch's last, smaller one is left out."""
    return max(1, round(settings.epochs * (n // settings.batch_size)))


def minibatches(x: Tensor, settings: Settings, start: int, total: int) -> Iterator[Tensor]:
    """Yield minibatches start to total, each epoch in an order that follows from the seed and the epoch alone."""
    per_epoch = len(x) // settings.batch_size
    epoch, order = -1, None
    for step in range(start, total):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(settings.seed * 100_003 + epoch))
        first = step % per_epoch * settings.batch_size
        yield x[order[first : first + settings.batch_size].to(x.device)]


def save(training: Training, folder: Path) -> None:
    """Write the checkpoint and the log of a training."""
    extra = {f"sample.{step}": images for step, images in training.samples.items()}
    extra["z_generator"] = training.z_generator.get_state()
    for name, optimizer in training.optimizers.items():
        for i, moments in optimizer.state_dict()["state"].items():
            extra |= {f"adam.{name}.{i}.{k}": v for k, v in moments.items()}
    record = {"settings": asdict(training.settings), "step": training.step, "seconds": training.seconds}
    lines = "".join(json.dumps(line) + "\n" for line in training.log)
    nets.write_atomically(folder / "log.jsonl", lines.encode())
    nets.save_net(folder / "checkpoint.safetensors", training.G, training.D, record, extra)


def resume(training: Training, folder: Path) -> None:
    """Bring a fresh training to the state of folder's checkpoint, if there is one."""
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return
    tensors, description, record = nets.read_net(path)
    asked = asdict(training.G.description) | asdict(training.settings)
    there = asdict(description) | record["settings"]
    differing = [f"{k} = {there.get(k)} there, {v} asked" for k, v in asked.items() if there.get(k) != v]
    if differing:
        raise ValueError(f"{path} is another training ({'; '.join(differing)}): choose another folder or delete it")
    for name, net in (("G", training.G), ("D", training.D)):
        own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
        nets.load_weights(net, own, path)
        state = training.optimizers[name].state_dict()
        for key, value in tensors.items():
            if key.startswith(f"adam.{name}."):
                i, moment = key.split(".")[2:]
                weight = list(net.parameters())[int(i)]
                if value.shape == weight.shape:  # fused Adam walks moments and weights as one layout: theirs
                    value = torch.empty_like(weight, requires_grad=False).copy_(value)
                state["state"].setdefault(int(i), {})[moment] = value
        training.optimizers[name].load_state_dict(state)
    training.step, training.seconds = record["step"], record["seconds"]
    training.z_generator.set_state(tensors["z_generator"])
    training.samples = {int(k.split(".")[1]): v for k, v in tensors.items() if k.startswith("sample.")}
    log = (folder / "log.jsonl").read_text().splitlines()
    training.log = [line for line in map(json.loads, log) if line["step"] <= training.step]


def log_frame(training: Training) -> pd.DataFrame:
    """Return the log as a frame: one row per logged minibatch, columns step, loss_D, loss_G, D_x, D_G_z."""
    return pd.DataFrame(training.log)
