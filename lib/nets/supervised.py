"""Train nets on labels: those that stand beside the probe, and those that judge samples.

The paper's question is whether features learned without labels are worth those learned with them (Tables 1 and 2). The
opponents are trained here, and the judges of `attributes` and `forgetting`, by one plain loop: AdamW, one cycle of
the learning rate.
"""

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.images import data
from lib.nets import devices, models
from lib.nets.models import Description
from lib.study import chance


def classifier(description: Description, classes: int, dropout: float = 0.0, seed: int = 0) -> nn.Module:
    """Return D's whole architecture with one logit per class: images (N, nc, size, size) -> (N, classes)."""
    whole = Description(**{field.name: getattr(description, field.name) for field in fields(Description)})
    # built anew: of a published D the last layers may be missing
    net = models.from_description(whole, chance.stream(seed, "classifier"))[1]
    net.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(net.head.in_features, classes))
    models.initialise(net.head, torch.Generator().manual_seed(chance.stream(seed, "weights", "head")))
    nn.init.zeros_(net.head[1].bias)
    return net


def fit(
    net: nn.Module,
    x: Tensor,
    y: Tensor | np.ndarray,
    epochs: float,
    lr: float = 2e-3,
    weight_decay: float = 1e-2,
    batch_size: int = 128,
    seed: int = 0,
    device: str | torch.device = "cpu",
    precision: str = "auto",
    augment: Callable[[Tensor], Tensor] | None = None,
    loss_of: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> nn.Module:
    """Train a net on uint8 images x (N, nc, S, S) and what is known of them, y (N, ...); return it in eval mode.

    y: classes of int64, or what `loss_of`, the loss of the net's output and y, takes. lr: the cycle's highest.
    augment: changes a minibatch of uint8 images on its way. precision: of the convolutions, float32, bfloat16 or
    auto. A last, smaller minibatch of an epoch is left out, where there is another. Raises ValueError for images and
    labels that do not pair, and where the loss is no longer finite.
    """
    y = torch.as_tensor(y)
    if len(x) != len(y) or len(x) < 2:
        raise ValueError(f"{len(x)} images and {len(y)} labels: expected as many of both, two at least")
    device, batch_size = torch.device(device), min(batch_size, len(x))
    precision = devices.find_precision(precision, device)
    net.to(device, memory_format=torch.channels_last).train()
    steps = data.steps_of(epochs, len(x), batch_size)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1)
    torch.manual_seed(chance.stream(seed, "dropout"))  # it and augmentation draw from the global generator
    for rows in data.minibatches(torch.arange(len(x)), batch_size, chance.stream(seed, "supervised"), 0, steps):
        batch = x[rows] if augment is None else augment(x[rows])
        with devices.autocast(precision, device):
            logits = net(data.to_float(batch.to(device)))  # laid out as the first convolution's weights are
        loss = loss_of(logits.float(), y[rows].to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    if not loss.isfinite():
        raise ValueError(f"the loss is {loss.item()} after {steps} minibatches: lower lr")
    return net.eval()


@torch.no_grad()
def predict(net: nn.Module, x: Tensor, batch_size: int = 256) -> np.ndarray:
    """Return the class of the largest logit: uint8 images (N, nc, S, S) -> (N,)."""
    device = devices.device_of(net)
    batches = (data.to_float(batch.to(device)) for batch in x.split(batch_size))
    return torch.cat([net(batch).argmax(1).cpu() for batch in batches]).numpy()
