"""Tell which attributes a sampled image has, so that arithmetic can be scored and exemplars found without an eye.

A net of D's architecture is trained from scratch, on labelled real images alone, to answer one question per
attribute. It shares no weight with the GAN: a D that G has learned to please would be a partial judge.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import data, models, supervised
from lib.data import ImageSet
from lib.models import Discriminator, Generator


class AttributeNet(nn.Module):
    """Images (N, nc, size, size) in [-1, 1] -> one logit per attribute (N, A)."""

    def __init__(self, names: Sequence[str], size: int, nc: int, ndf: int, seed: int) -> None:
        super().__init__()
        self.names = list(names)
        description = models.describe("tutorial64", size=size, nc=nc, ndf=ndf)
        self.body = Discriminator(description)
        self.body.head = nn.Linear(self.body.head.in_features, len(self.names))
        models.initialise(self, torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.body.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.body.head(F.dropout(self.body.activations(x)[-1].flatten(1), 0.5, self.training))  # (N, A)


def fit(x: Tensor, truth: np.ndarray, names: Sequence[str], epochs: int, seed: int, ndf: int = 32) -> AttributeNet:
    """Train an AttributeNet on uint8 images x (N, nc, S, S) and their truth (N, A), from 0 to 1.

    A truth between 0 and 1 is a quantity, such as an angle put into that range: cross-entropy is least at its mean.
    """
    net = AttributeNet(names, x.shape[-1], x.shape[1], ndf, seed)
    target = torch.as_tensor(np.asarray(truth), dtype=torch.float32)
    loss_of = F.binary_cross_entropy_with_logits
    return supervised.fit(net, x, target, epochs, seed=seed, precision="float32", loss_of=loss_of)


def measure(x: Tensor) -> pd.DataFrame:
    """Return what pixels alone say of images that nobody labelled, N rows of 0 or 1: uint8 (N, nc, S, S).

    bright and warm (redder than blue; colour images only): more so than half of the images. light_inside: the middle
    is lighter than the rim, as is a light digit on a dark wall.
    """
    x, rim = x.float(), x.shape[-1] // 4
    inside = x[:, :, rim:-rim, rim:-rim].mean((1, 2, 3))
    found = {"bright": x.mean((1, 2, 3)), "light_inside": inside - x.mean((1, 2, 3))}
    if x.shape[1] == 3:
        found["warm"] = (x[:, 0] - x[:, 2]).mean((1, 2))
    limits = {name: 0 if name == "light_inside" else values.median() for name, values in found.items()}
    return pd.DataFrame({name: (values > limits[name]).int().numpy() for name, values in found.items()})


@torch.no_grad()
def samples_of(G: Generator, n: int, generator: torch.Generator) -> ImageSet:
    """Draw n images of G as a set that nobody labelled, with what pixels say of them (`measure`)."""
    x = torch.cat([data.to_uint8(G(z)) for z in G.sample_z(n, generator).split(128)])
    return ImageSet("samples", x, torch.full((n,), data.UNLABELLED), attributes=measure(x))


@torch.no_grad()
def tell(net: AttributeNet, images: Tensor) -> Tensor:
    """Return the probability of each attribute: images (N, nc, S, S), uint8 or in [-1, 1] -> (N, A)."""
    return torch.cat([net(data.to_float(batch)).sigmoid() for batch in images.split(256)])


def concepts(sum_: str, names: Sequence[str]) -> tuple[dict[str, dict[str, bool]], dict[str, bool]]:
    """Read a sum such as "glasses > not male": carry glasses from men over to women (paper, Fig. 7).

    Returns the three concepts, label -> attributes wanted (the first minus the second plus the third), and what is
    asked of the result. Attributes of `names` that the sum does not name are wanted absent throughout. Raises
    ValueError for another form and for attributes that are not in `names`.
    """
    carried, arrow, to = (part.strip() for part in sum_.partition(">"))
    context, has = to.removeprefix("not "), not to.startswith("not ")
    if not arrow or carried == context or not {carried, context} <= set(names):
        raise ValueError(f"sum {sum_!r}: say A > B or A > not B with two of {', '.join(names)}")
    rest = dict.fromkeys(names, False)
    three = [rest | {carried: a, context: b} for a, b in ((True, not has), (False, not has), (False, has))]
    labels = [", ".join(n if w[n] else f"no {n}" for n in (carried, context)) for w in three]
    return dict(zip(labels, three, strict=True)), rest | {carried: True, context: has}


def exemplars(belief: pd.DataFrame, wanted: Mapping[str, bool], needed: int, sure: float = 0.8) -> Tensor:
    """Return the rows of `belief` (N, attributes) that surely have, or lack, each wanted attribute: (n,) int64.

    sure: the least probability. Raises ValueError where fewer than `needed` are found, and says how many were.
    """
    agreeing = [belief[name] > sure if has else belief[name] < 1 - sure for name, has in wanted.items()]
    rows = np.flatnonzero(np.logical_and.reduce(agreeing))
    if len(rows) < needed:
        concept = ", ".join(name if has else f"not {name}" for name, has in wanted.items())
        found = f"{len(rows)} exemplars found among {len(belief)} samples"
        raise ValueError(f"{concept}: {found}, {needed} needed; draw more samples")
    return torch.from_numpy(rows)


def having(net: AttributeNet, images: Tensor, wanted: Mapping[str, bool]) -> Tensor:
    """Tell which images (N, nc, S, S) have, or lack, every wanted attribute: (N,) bool."""
    columns = [net.names.index(name) for name in wanted]
    return ((tell(net, images)[:, columns] > 0.5) == torch.tensor(list(wanted.values()))).all(1)
