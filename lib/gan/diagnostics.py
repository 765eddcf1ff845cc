"""Tell a healthy training from one that has failed.

GANs fail without an error: D wins for good, G draws one image, filters die, D learns its images by heart. What tells
goes into every training's log, and `signs` says in words what it shows.
"""

import copy
import math

import pandas as pd
import torch
from scipy.stats import entropy
from torch import Tensor, nn

from lib.images import data
from lib.nets import models
from lib.nets.models import Discriminator, Generator

SEEN = 64  # real images that samples and filters are compared on
ASKED = 512  # training images, and images held out, that D is asked about
NEAR_ZERO = 0.05  # of D's loss, which is 2 log 2 = 1.39 where D cannot tell
LEAST_VARIETY = 0.5  # of samples, as a share of the real images'
DEAD = 0.01  # of the most varied filter of the same layer
MOST_DEAD = 0.25
LONG = 0.1  # of a training
BY_HEART = 0.5  # of the way from D's answer to training images to that to samples


def require_finite(line: dict[str, float]) -> None:
    """Raise FloatingPointError, naming the first value of a log's line that is not finite."""
    for name, value in line.items():
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{name} is {value} after minibatch {line['step']}: the training has diverged and stops; the last "
                "checkpoint is from before. Lower lr, or take precision float32"
            )


class Health:
    """What a training's health is measured on: some of its images, and some held out from it, where any are."""

    def __init__(self, x: Tensor, rows: Tensor, device: torch.device) -> None:
        """Take images of uint8 x (N, nc, size, size), of which a training learns `rows`."""
        held_out = torch.ones(len(x), dtype=torch.bool)
        held_out[rows] = False
        self.real, self.known, self.unseen = (
            data.to_float(x[data.spread(some, n)].to(device))
            for some, n in ((rows, SEEN), (rows, ASKED), (held_out.nonzero()[:, 0], ASKED))
        )

    @torch.no_grad()
    def measure(self, G: Generator, D: Discriminator, z: Tensor) -> dict[str, float]:
        """Return what goes into the log, in batch statistics, and change nothing: z (N, nz) on the nets' device.

        The variety of G's samples, the shares of dead filters, and the means of what `ask` returns.
        """
        asked = {name: found.mean().item() for name, found in self.ask(G, D, z).items()}
        G, D = copy.deepcopy(G).train(), copy.deepcopy(D).train()  # running averages of the nets in training stay
        drawn = G.activations(z)
        dead = {"dead_G": dead_share(drawn[:-1]), "dead_D": dead_share(D.activations(self.real))}
        return {"variety": variety(drawn[-1], self.real)} | dead | asked

    @torch.no_grad()
    def ask(self, G: Generator, D: Discriminator, z: Tensor) -> dict[str, Tensor]:
        """Return D's answers (n,) to training images, to images held out, and to samples, and change nothing.

        Each normalised apart, as in training. Where D knows its images by heart, images held out are no longer real to
        it. Nothing where no two are held out.
        """
        if len(self.unseen) < 2:
            return {}
        G, D = copy.deepcopy(G).train(), copy.deepcopy(D).train()
        images = {"known": self.known, "unseen": self.unseen, "samples": G(z)}
        return {f"D_{name}": D(x).float().sigmoid() for name, x in images.items()}


def variety(samples: Tensor, real: Tensor) -> float:
    """Return the mean distance between two samples over that between two real images, both (N, C, H, W)."""
    among, beside = (torch.pdist(x.flatten(1).float().cpu()).mean() for x in (samples, real))  # MPS has no pdist
    return (among / beside).item()


def dead_share(layers: list[Tensor]) -> float:
    """Return the share of filters whose output hardly varies over images and positions: [(N, C, H, W), ...].

    A filter is dead where its standard deviation is at most DEAD of the largest in its layer.
    """
    spreads = [h.float().std((0, 2, 3)) for h in layers]
    return torch.cat([spread <= DEAD * spread.max() for spread in spreads]).float().mean().item()


def spreads(D: Discriminator) -> pd.DataFrame:
    """Return how far D's layers have come since their start, a row each: convolution 1, 2, ..., and the head.

    Columns weights: their standard deviation over that of the start; gain and bias: batch norm's means, NaN without it.
    A convolution before batch norm has no scale of its own: Adam's steps let its weights grow with the root of their
    number.
    """
    layers = {f"convolution {i}": layer for i, layer in enumerate(D.layers, 1)} | {"head": [D.head]}
    found = {}
    for name, layer in layers.items():
        for module in layer:
            if isinstance(module, nn.Conv2d | nn.Linear):
                found[name] = {"weights": module.weight.std().item() / models.SPREAD}
            elif isinstance(module, nn.BatchNorm2d):
                found[name] |= {"gain": module.weight.mean().item(), "bias": module.bias.mean().item()}
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("layer")


def signs(log: pd.DataFrame, real_label: float = 1.0) -> list[str]:
    """Return what a training's log shows of failure, in words; an empty list where it shows nothing.

    The first tenth is not judged, and variety after it not before it was there once more, unless it never comes: G
    begins with noise or grey images, and passes through alike ones on its way to others. real_label: where D shall
    answer less than 1, its loss is judged by how far it lies above the least that there is.
    """
    log = log[log["step"] > LONG * log["step"].max()]
    loss, varied, dead_G, dead_D = (log[name].dropna() for name in ("loss_D", "variety", "dead_G", "dead_D"))
    loss = loss - entropy([real_label, 1 - real_label])
    risen = (varied.cummax() >= LEAST_VARIETY) | (varied.index == varied.index.max())
    conditions = {
        f"D's loss is within {NEAR_ZERO} of the least: D has won, and G learns nothing more": (
            loss.rolling(max(1, round(LONG * len(loss)))).max() < NEAR_ZERO
        ),
        f"G's samples vary less than {LEAST_VARIETY} of what real images do: it collapsed": (
            (varied < LEAST_VARIETY) & risen
        ),
        f"more than {MOST_DEAD:.0%} of G's filters are dead": dead_G > MOST_DEAD,
        f"more than {MOST_DEAD:.0%} of D's filters are dead": dead_D > MOST_DEAD,
    }
    if "D_unseen" in log:
        apart = log["D_known"] - log["D_samples"]  # where D tells samples apart at all
        forgotten = ((log["D_known"] - log["D_unseen"]) / apart).where(apart > 0, 0).where(apart.notna())
        conditions["D takes images held out for samples rather than real: it knows its images by heart"] = (
            forgotten.dropna().rolling(2).min() > BY_HEART  # where D says no to all, one check says little
        )
    found = {sign: log.loc[holds[holds].index, "step"] for sign, holds in conditions.items()}
    return [f"{sign} (minibatches {at.min():,} to {at.max():,})" for sign, at in found.items() if len(at)]
