"""The game of G against D: one minibatch after another, as the paper plays it.

Real images and samples come to D in minibatches of their own, normalised apart; binary cross-entropy, Adam. What makes
it fast, and the same training still: bfloat16 convolutions on channels-last tensors, G's samples shared between D's
step and G's, no gradients of D's weights in G's step, and what `acceleration` has for a CPU and for a GPU.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral, Real

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.gan.acceleration import MatrixGradients, Recorded
from lib.images import data
from lib.nets import devices
from lib.nets.models import Discriminator, Generator
from lib.study import chance

VERSIONS = {"training": 1}  # raise it when a training of the same settings becomes another one
SAMPLES = 64  # images of the fixed z that show the training's course


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
    flip: bool = False  # mirror real images, each with probability 1/2
    augment: str = ""  # change real images and samples alike before D: of AUGMENTATIONS, joined by +
    lr_decay: float = 0.0  # last share of the training, over which the rate falls linearly to 0
    real_label: float = 1.0  # what D shall answer to real images; below 1: one-sided labels
    noise: float = 0.0  # spread of Gaussian noise on all that D sees, at the start; it falls linearly to 0
    D_rate: float = 1.0  # D's rate as a multiple of lr, which is G's
    r1: float = 0.0  # weight of half the squared gradient of D's answers to real images
    start: str = ""  # a net whose D's convolutions D starts from, where it has them
    frozen: bool = False  # those do not learn
    onward: str = ""  # a net of this very description from which G and D go on; Adam's moments are new

    def __post_init__(self) -> None:
        for name, least in {"batch_size": 2, "seed": 0}.items():
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or not least <= value < 2**32:
                raise ValueError(f"{name} = {value!r}: must be a whole number from {least} to {2**32 - 1}")
        for name in ("epochs", "lr", "beta1", "weight_decay", "lr_decay", "real_label", "noise", "D_rate", "r1"):
            value = getattr(self, name)
            if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} = {value!r}: must be a number, and not below 0")
        for name in ("epochs", "lr", "real_label", "D_rate"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be above 0")
        for name in ("lr_decay", "real_label"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must not be above 1")
        if self.beta1 >= 1:
            raise ValueError(f"beta1 = {self.beta1}: must be below 1")
        if self.augment and not set(self.augment.split("+")) <= AUGMENTATIONS.keys():
            raise ValueError(f"augment = {self.augment!r}: join some of {', '.join(AUGMENTATIONS)} by +; empty: none")
        for name, choices in {"update": ("both", "alternate"), "precision": devices.PRECISIONS}.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} = {getattr(self, name)!r}: choose one of {', '.join(choices)}")
        if self.start and self.onward:
            raise ValueError(f"onward = {self.onward!r} and start = {self.start!r}: two beginnings; leave one out")
        if self.frozen and not self.start:
            raise ValueError("frozen: say with start which net's convolutions stay as they are")


# --- what D sees in place of an image. Differentiable, so that G learns through it (Zhao et al. 2020, DiffAugment).
# Drawn on the device, without a branch, so that a GPU can record it.


def flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image (N, C, H, W) with probability 1/2."""
    return torch.where(_uniform(x, generator) < 0.5, x.flip(3), x)


def shift(x: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by up to an eighth of its side, each way; what comes in is 0."""
    n, _, side, _ = x.shape
    reach, at = side // 8, torch.arange(side, device=x.device)
    by = torch.randint(-reach, reach + 1, (2, n, 1, 1, 1), generator=generator, device=x.device)
    down, right = (at[:, None] == at + by).to(x.dtype)  # (n, 1, side, side): what row i takes from row j
    return down @ x @ right.mT


def cutout(x: Tensor, generator: torch.Generator) -> Tensor:
    """Set a square of half the side, its centre anywhere in the image, to 0."""
    n, _, side, _ = x.shape
    centre = torch.rand((2, n, 1), generator=generator, device=x.device) * side
    rows, columns = (torch.arange(side, device=x.device) + 0.5 - centre).abs() < side / 4  # (n, side)
    return x * ~(rows[:, None, :, None] & columns[:, None, None, :])


def colour(x: Tensor, generator: torch.Generator) -> Tensor:
    """Change each image's brightness by up to 0.5, its saturation by up to a factor 2, its contrast by up to 1.5."""
    x = x + _uniform(x, generator) - 0.5
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * 2 * _uniform(x, generator)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * (0.5 + _uniform(x, generator))


def _uniform(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand((len(x), 1, 1, 1), generator=generator, device=x.device)


AUGMENTATIONS = {"shift": shift, "cutout": cutout, "colour": colour}


def steepness(answers: Tensor, x: Tensor) -> Tensor:
    """Return R1 (Mescheder 2018), the mean squared norm of the logits' gradient: (N,), images (N, C, H, W) -> ()."""
    (gradient,) = torch.autograd.grad(answers.sum(), x, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


@dataclass
class Training:
    """The state of one training: everything that a resumed run needs to go on exactly."""

    G: Generator
    D: Discriminator
    settings: Settings
    device: torch.device
    total: int = 0  # minibatches, where the rate depends on them
    step: int = 0
    seconds: float = 0.0  # spent on minibatches, gathering them included, over all sittings
    samples: dict[int, Tensor] = field(default_factory=dict)  # step -> uint8 (SAMPLES, nc, size, size)
    log: list[dict] = field(default_factory=list)

    def __post_init__(self) -> None:
        for net in (self.G, self.D):
            net.to(self.device, memory_format=torch.channels_last).train()
        s, on_gpu = self.settings, self.device.type == "cuda"
        how = {"betas": (s.beta1, 0.999), "weight_decay": s.weight_decay, "fused": True, "capturable": on_gpu}
        self.rates = {"G": s.lr, "D": s.lr * s.D_rate}
        self.optimizers = {  # what changes is a tensor, which a recorded minibatch reads
            name: torch.optim.Adam(
                [weight for weight in getattr(self, name).parameters() if weight.requires_grad],
                torch.tensor(rate, device=self.device) if s.lr_decay else rate, **how,
            )
            for name, rate in self.rates.items()
        }  # fmt: skip
        self.noise = torch.zeros((), device=self.device)
        self.z_generator = torch.Generator(self.device).manual_seed(chance.stream(s.seed, "z", "training"))
        fixed = torch.Generator().manual_seed(chance.stream(s.seed, "z", "fixed"))
        self.fixed_z = self.G.sample_z(SAMPLES, fixed).to(self.device)
        turns = [("D", "G")] if s.update == "both" else [("D",), ("G",)]  # who is updated on a minibatch, in turn
        plain = [partial(self._play, turn) for turn in turns]
        self.plays = [Recorded(play, self.z_generator) for play in plain] if on_gpu else plain

    def train_minibatch(self, x: Tensor) -> dict[str, Tensor]:
        """Update D, G or both on one minibatch x (N, nc, size, size) in [-1, 1]. Returns losses and D's means.

        On a GPU the next call overwrites them.
        """
        play = self.plays[self.step % len(self.plays)]
        if self.settings.lr_decay:
            left = (1 - self.step / self.total) / self.settings.lr_decay
            for name, optimizer in self.optimizers.items():
                optimizer.param_groups[0]["lr"].fill_(self.rates[name] * min(1, left))
        if self.settings.noise:
            self.noise.fill_(self.settings.noise * (1 - self.step / self.total))
        self.step += 1
        return play(x)

    def _play(self, turn: tuple[str, ...], x: Tensor) -> dict[str, Tensor]:
        with self._autocast():
            fake = self.G(self.G.sample_z(len(x), self.z_generator))
        measured = {}
        if "D" in turn:
            x = flip(x, self.z_generator) if self.settings.flip else x
            measured |= self._update_D(x, fake.detach())
        if "G" in turn:
            measured |= self._update_G(fake)
        return measured

    def _update_D(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        with self._autocast():  # two passes: batch norm sees real images and samples apart
            real, fake = (self._augmented(x).detach() for x in (real, fake))
            on_real, on_fake = (self.D(x).float() for x in (real.requires_grad_(self.settings.r1 > 0), fake))
        loss = F.binary_cross_entropy_with_logits(on_real, torch.full_like(on_real, self.settings.real_label))
        loss = loss + F.binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
        self._descend("D", loss + self.settings.r1 / 2 * steepness(on_real, real) if self.settings.r1 else loss)
        return {
            "loss_D": loss.detach(),
            "D_x": on_real.detach().sigmoid().mean(),
            "D_G_z": on_fake.detach().sigmoid().mean(),
        }

    def _update_G(self, fake: Tensor) -> dict[str, Tensor]:
        self.D.requires_grad_(False)  # the gradient passes through D's weights, none is needed for them
        with self._autocast():
            on_fake = self.D(self._augmented(fake)).float()
        loss = F.binary_cross_entropy_with_logits(on_fake, torch.ones_like(on_fake))
        self._descend("G", loss)
        for weight in self.optimizers["D"].param_groups[0]["params"]:  # of D, all but what is frozen
            weight.requires_grad_(True)
        return {"loss_G": loss.detach()}

    def _augmented(self, x: Tensor) -> Tensor:
        """Return images as D shall see them, real ones and samples alike."""
        if not self.settings.augment and not self.settings.noise:
            return x
        with torch.autocast(self.device.type, enabled=False):
            for name in filter(None, self.settings.augment.split("+")):
                x = AUGMENTATIONS[name](x, self.z_generator)
            if self.settings.noise:
                x = x + self.noise * torch.randn(x.shape, generator=self.z_generator, device=self.device)
        return x.contiguous(memory_format=torch.channels_last)

    def _descend(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()

    def norms(self) -> dict[str, float]:
        """Return the nets' norms, weights and statistics together: not finite where any of these is not."""
        tensors = {
            name: [v for v in getattr(self, name).state_dict().values() if v.is_floating_point()] for name in "GD"
        }
        return {f"norm of {name}": torch.stack([v.norm() for v in own]).norm().item() for name, own in tensors.items()}

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        products = self.settings.precision == "bfloat16" and self.device.type == "cpu"
        with devices.autocast(self.settings.precision, self.device), MatrixGradients() if products else nullcontext():
            yield

    @torch.no_grad()
    def take_samples(self) -> None:
        """Keep what G makes of the fixed z now, with batch statistics, as the authors sample."""
        with self._autocast():
            self.samples[self.step] = data.to_uint8(self.G(self.fixed_z)).cpu()
