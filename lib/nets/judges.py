"""Judges: nets that tell which attributes an image has, or where a thing is, so that samples are scored without an eye.

A net of D's architecture is trained from scratch, on labelled real images alone, to answer one question per attribute;
a smaller one to answer one per pixel. They share no weight with the GAN: a D that G has learned to please would be a
partial judge.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.images import data
from lib.nets import authors, devices, models, supervised, weights
from lib.nets.models import Discriminator, Generator
from lib.study import chance


class AttributeNet(nn.Module):
    """Images (N, nc, size, size) in [-1, 1] -> one logit per attribute (N, A)."""

    def __init__(self, names: Sequence[str], size: int, nc: int, ndf: int, seed: int) -> None:
        super().__init__()
        self.names, self.accuracy = list(names), dict[str, float]()  # of each name, on held-out images, where told
        description = models.describe("tutorial64", size=size, nc=nc, ndf=ndf)
        self.body = Discriminator(description)
        self.body.head = nn.Linear(self.body.head.in_features, len(self.names))
        models.initialise(self, torch.Generator().manual_seed(chance.stream(seed, "weights", "judge")))
        nn.init.zeros_(self.body.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.body.head(F.dropout(self.body.activations(x)[-1].flatten(1), 0.5, self.training))  # (N, A)


class Segmenter(nn.Sequential):
    """Images (N, nc, S, S) in [-1, 1] -> one logit per pixel (N, 1, S, S): does the thing cover it?"""

    def __init__(self, nc: int, width: int = 24) -> None:
        super().__init__(
            *(nn.Conv2d(nc, width, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=2, dilation=2), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=4, dilation=4), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, 4, 1), nn.PixelShuffle(2)),
        )
        self.accuracy = dict[str, float]()  # whether the thing is there, on held-out images, where told


Judge = AttributeNet | Segmenter


def fit(
    x: Tensor,
    truth: np.ndarray,
    names: Sequence[str],
    epochs: int,
    seed: int,
    ndf: int = 32,
    device: str | torch.device = "cpu",
) -> AttributeNet:
    """Train an AttributeNet on uint8 images x (N, nc, S, S) and their truth (N, A), from 0 to 1.

    A truth between 0 and 1 is a quantity, such as an angle put into that range: cross-entropy is least at its mean.
    Whoever tests it holds rows out at random before: sets are sorted by class.
    """
    net = AttributeNet(names, x.shape[-1], x.shape[1], ndf, seed)
    target = torch.as_tensor(np.asarray(truth), dtype=torch.float32)
    loss_of = F.binary_cross_entropy_with_logits
    return supervised.fit(net, x, target, epochs, seed=seed, device=device, precision="float32", loss_of=loss_of)


@torch.no_grad()
def tell(net: AttributeNet, images: Tensor) -> Tensor:
    """Return the probability of each attribute: images (N, nc, S, S), uint8 or in [-1, 1] -> (N, A), on the CPU."""
    device = devices.device_of(net)
    return torch.cat([net(data.to_float(batch.to(device))).sigmoid().cpu() for batch in images.split(256)])


def packed(judges: Mapping[str, Judge]) -> tuple[dict[str, Tensor], dict]:
    """Return judges as `weights.save_net` writes them beside a net: tensors, and an entry of its record."""
    tensors = {f"judge.{name}.{key}": v for name, judge in judges.items() for key, v in judge.state_dict().items()}
    return tensors, {"judges": {name: _about(judge) for name, judge in judges.items()}}


def _about(judge: Judge) -> dict:
    if isinstance(judge, Segmenter):
        return {"width": judge[0].out_channels, "accuracy": judge.accuracy}
    return {"names": judge.names, "ndf": judge.body.description.ndf, "accuracy": judge.accuracy}


def save(path: Path, G: Generator, D: Discriminator, record: dict, came: Mapping[str, Judge]) -> None:
    """Write a net with its judges beside it (`beside`), to be shipped together."""
    tensors, about = packed(came)
    weights.save_net(path, G, D, record | about, tensors)


def beside(net: str) -> dict[str, Judge]:
    """Return the judges that came with a net (what `weights.find_net` takes), by name, in eval mode: none with most.

    Raises ValueError where they are not as its record says.
    """
    if net in authors.NETS:
        return {}
    tensors, description, record = weights.read_net(path := weights.find_net(net))
    found = {}
    for name, about in record.get("judges", {}).items():
        if missing := ({"width", "accuracy"} if "width" in about else {"names", "ndf", "accuracy"}) - about.keys():
            raise ValueError(
                f"{path}: its judge of {name} lacks {', '.join(sorted(missing))}: it was made by another version of "
                "the study; name a data_set, and judges learn from that"
            )
        if "width" in about:
            own = Segmenter(description.nc, about["width"])
        else:
            own = AttributeNet(about["names"], description.size, description.nc, about["ndf"], 0)
        prefix = f"judge.{name}."
        weights.load_weights(own, {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}, path)
        own.accuracy, found[name] = about["accuracy"], own.eval()
    return found
