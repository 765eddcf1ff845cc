"""Judges: nets that tell which attributes an image has, so that samples can be scored without an eye.

A net of D's architecture is trained from scratch, on labelled real images alone, to answer one question per attribute.
It shares no weight with the GAN: a D that G has learned to please would be a partial judge.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.images import data
from lib.nets import authors, devices, models, supervised, weights
from lib.nets.models import Discriminator
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
    The rows that it shall be tested on are held out at random (`data.hold_out`): sets are sorted by class.
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


def packed(judges: Mapping[str, AttributeNet]) -> tuple[dict[str, Tensor], dict]:
    """Return judges as `weights.save_net` writes them beside a net: tensors, and an entry of its record."""
    tensors = {f"judge.{name}.{key}": v for name, judge in judges.items() for key, v in judge.state_dict().items()}
    about = {
        name: {"names": judge.names, "ndf": judge.body.description.ndf, "accuracy": judge.accuracy}
        for name, judge in judges.items()
    }
    return tensors, {"judges": about}


def beside(net: str) -> dict[str, AttributeNet]:
    """Return the judges that came with a net (what `weights.find_net` takes), by name, in eval mode: none with most.

    Raises ValueError where they are not as its record says.
    """
    if net in authors.NETS:
        return {}
    tensors, description, record = weights.read_net(path := weights.find_net(net))
    found = {}
    for name, about in record.get("judges", {}).items():
        if missing := {"names", "ndf", "accuracy"} - about.keys():
            raise ValueError(
                f"{path}: its judge of {name} lacks {', '.join(sorted(missing))}: it was made by another version of "
                "the study; name a data_set, and judges learn from that"
            )
        own = AttributeNet(about["names"], description.size, description.nc, about["ndf"], 0)
        prefix = f"judge.{name}."
        weights.load_weights(own, {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}, path)
        own.accuracy, found[name] = about["accuracy"], own.eval()
    return found
