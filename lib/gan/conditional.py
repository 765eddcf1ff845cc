"""The conditional net of the paper's appendix: digits on demand, good enough to teach a classifier.

A net that draws what it is asked for can be marked by a machine: a nearest-neighbour classifier learns from its samples
and is tested on real digits. The net is the authors' own, and unlike the others: images in [0, 1] and a sigmoid at G's
end; two dense layers in G, one in D; batch norm with neither gain nor bias, and never with running averages; and the
label, one-hot, laid beside the input of every layer, over a convolution's whole map.
"""

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from lib.gan import train
from lib.gan.train import Settings
from lib.images import data
from lib.nets import devices
from lib.study import chance

CONVOLUTION = {"kernel_size": 5, "stride": 2, "padding": 2, "bias": False}
HALVINGS = 2  # the image's side over that of the smallest maps, as a power of two: 28 to 7


class Generator(nn.Module):
    """G: z (N, nz), labels (N,) -> images (N, nc, size, size) in [0, 1]."""

    def __init__(
        self,
        classes: int = 10,
        size: int = 28,
        nc: int = 1,
        nz: int = 100,
        ngf: int = 64,
        hidden: int = 1024,
        affine: bool = False,
    ) -> None:
        super().__init__()
        self.nz, self.classes, self.grid, self.shape = nz, classes, _grid(size), (nc, size, size)
        units = 2 * ngf * self.grid**2
        self.dense = nn.ModuleList(
            [nn.Linear(nz + classes, hidden, bias=False), nn.Linear(hidden + classes, units, bias=False)]
        )
        self.norms = nn.ModuleList([_norm(1, hidden, affine), _norm(1, units, affine), _norm(2, ngf, affine)])
        self.up = nn.ModuleList(
            [
                nn.ConvTranspose2d(2 * ngf + classes, ngf, **CONVOLUTION, output_padding=1),
                nn.ConvTranspose2d(ngf + classes, nc, **CONVOLUTION, output_padding=1),
            ]
        )

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        y = F.one_hot(y, self.classes).to(z)
        h = self.norms[0](self.dense[0](beside(z, y))).relu()  # (N, hidden)
        h = self.norms[1](self.dense[1](beside(h, y))).relu()  # (N, 2 ngf * grid * grid)
        h = h.unflatten(1, (-1, self.grid, self.grid))
        h = self.norms[2](self.up[0](beside(h, y))).relu()  # (N, ngf, size / 2, size / 2)
        return self.up[1](beside(h, y)).sigmoid()  # (N, nc, size, size)


class Discriminator(nn.Module):
    """D: images (N, nc, size, size) in [0, 1], labels (N,) -> logits (N,)."""

    def __init__(
        self, classes: int = 10, size: int = 28, nc: int = 1, ndf: int = 64, hidden: int = 1024, affine: bool = False
    ) -> None:
        super().__init__()
        self.classes = classes
        self.down = nn.ModuleList(
            [nn.Conv2d(nc + classes, ndf, **CONVOLUTION), nn.Conv2d(ndf + classes, 2 * ndf, **CONVOLUTION)]
        )
        self.dense = nn.Linear(2 * ndf * _grid(size) ** 2 + classes, hidden, bias=False)
        self.norms = nn.ModuleList([_norm(2, 2 * ndf, affine), _norm(1, hidden, affine)])
        self.head = nn.Linear(hidden + classes, 1, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        y = F.one_hot(y, self.classes).to(x)
        h = F.leaky_relu(self.down[0](beside(x, y)), 0.2)  # (N, ndf, size / 2, size / 2)
        h = F.leaky_relu(self.norms[0](self.down[1](beside(h, y))), 0.2).flatten(1)  # (N, 2 ndf * grid * grid)
        h = F.leaky_relu(self.norms[1](self.dense(beside(h, y))), 0.2)  # (N, hidden)
        return self.head(beside(h, y)).squeeze(1)  # (N,)


def beside(h: Tensor, y: Tensor) -> Tensor:
    """Lay one-hot labels beside units, or spread over whole maps: (N, C, ...), (N, K) -> (N, C + K, ...)."""
    return torch.cat([h, y.to(h).view(*y.shape, *[1] * (h.dim() - 2)).expand(*y.shape, *h.shape[2:])], 1)


def fit(
    G: Generator,
    D: Discriminator,
    x: Tensor,
    y: Tensor,
    settings: Settings,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> pd.DataFrame:
    """Train G and D in place on uint8 images x (N, nc, size, size) and labels y (N,); return the log.

    As the authors' code has it, the learning rate falls to zero over the second half of the training; the weights start
    from N(0, 0.02). Short enough to go without checkpoints. Raises ValueError for unlabelled images, labels that the
    nets do not have, images that do not fit, and fewer images than a minibatch.
    """
    if len(y) != len(x) or y.min() < 0 or y.max() >= G.classes:
        raise ValueError(f"labels from {y.min()} to {y.max()}: each image needs one of 0 to {G.classes - 1}")
    train.require_images(x, G.shape, len(x), settings)
    device = torch.device(device)
    for name, net in (("G", G), ("D", D)):
        generator = torch.Generator().manual_seed(chance.stream(settings.seed, "weights", name))
        for weight in net.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, 0, 0.02, generator=generator)
        net.to(device, memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(chance.stream(settings.seed, "z", "training"))
    total, log = data.steps_of(settings.epochs, len(x), settings.batch_size), []
    adam = {"lr": settings.lr, "betas": (settings.beta1, 0.999), "weight_decay": settings.weight_decay, "fused": True}
    optimizers = {name: torch.optim.Adam(net.parameters(), **adam) for name, net in (("G", G), ("D", D))}
    rows = data.minibatches(torch.arange(len(x)), settings.batch_size, settings.seed, 0, total)
    for step, row in enumerate(tqdm(rows, total=total, disable=not progress, mininterval=10)):
        z = torch.rand(len(row), G.nz, generator=generator) * 2 - 1
        batch = x[row].to(device) / 255, y[row].to(device), z.to(device)
        measured = {"step": step + 1}
        for turn in ("D", "G") if settings.update == "both" else (("G", "D")[step % 2],):
            D.requires_grad_(turn == "D")  # G's gradient passes through D's weights, none is needed for them
            with devices.autocast(settings.precision, device):
                loss = _loss(turn, G, D, *batch)
            optimizers[turn].zero_grad()
            loss.backward()
            optimizers[turn].param_groups[0]["lr"] = settings.lr * min(1, 2 - 2 * step / total)
            optimizers[turn].step()
            measured[f"loss_{turn}"] = loss.detach()
        if step % max(1, total // train.LOGGED) < len(("G", "D")):
            log.append({k: float(v) for k, v in measured.items()})
    D.requires_grad_(True)
    return pd.DataFrame(log)


@torch.no_grad()
def sample(G: Generator, n: int, generator: torch.Generator, batch_size: int = 128) -> tuple[Tensor, Tensor]:
    """Draw n images of labels drawn evenly: uint8 (n, nc, size, size) and labels (n,), both on the CPU.

    Each minibatch is normalised with its own statistics, the authors' way: an image depends a little on its neighbours.
    """
    images, device = [], devices.device_of(G)
    labels = torch.randint(G.classes, (n,), generator=generator)
    for y in labels.split(batch_size):
        # a last, short minibatch is filled up: its statistics would be poor
        y = torch.cat([y, torch.randint(G.classes, (batch_size - len(y),), generator=generator)])
        z = torch.rand(batch_size, G.nz, generator=generator) * 2 - 1
        images.append((G(z.to(device), y.to(device)) * 255).round().to(torch.uint8).cpu())
    return torch.cat(images)[:n], labels


def _loss(turn: str, G: Generator, D: Discriminator, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Return G's or D's binary cross-entropy on one minibatch."""
    if turn == "G":
        return F.softplus(-D(G(z, y), y).float()).mean()
    with torch.no_grad():
        fake = G(z, y)
    return F.softplus(-D(x, y).float()).mean() + F.softplus(D(fake, y).float()).mean()


def _norm(dimensions: int, maps: int, affine: bool) -> nn.Module:
    kind = nn.BatchNorm1d if dimensions == 1 else nn.BatchNorm2d
    return kind(maps, eps=1e-8, affine=affine, track_running_stats=False)


def _grid(size: int) -> int:
    """Return the side of the smallest maps. Raises ValueError for an image that cannot be halved so often."""
    if size < 1 or size % 2**HALVINGS:
        raise ValueError(f"image size {size}: this net takes multiples of {2**HALVINGS}, such as 28")
    return size >> HALVINGS
