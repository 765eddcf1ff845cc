"""The paper's generators and discriminators, as a `description` has them.

What differs from the authors' code: PyTorch's convolution is a cross-correlation (`authors` flips their kernels);
batch norm keeps running averages beside the batch statistics that the authors always use (`batchnorm` re-estimates
them); its eps is PyTorch's 1e-5, not 1e-8, unless `bn_eps` says so; D ends in a logit, not in a probability, so that
the loss can be computed without overflow.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn

from lib.nets.description import GRID, Description, describe
from lib.study import chance

VERSIONS = {"nets": 1}  # raise it when a net of the same description becomes another one
SPREAD = 0.02  # standard deviation of the weights at the start


def build(architecture: str, seed: int = 0, **changes: int | str | float) -> tuple["Generator", "Discriminator"]:
    """Build G and D by name, initialised from `seed`.

    `changes` are fields of `Description`, such as `ngf=64, ndf=64, size=32, nc=1`.
    """
    return from_description(describe(architecture, **changes), seed)


def from_description(description: Description, seed: int = 0) -> tuple["Generator", "Discriminator"]:
    """Build G and D from a description, initialised from `seed`."""
    G, D = Generator(description), Discriminator(description)
    for name, net in (("G", G), ("D", D)):
        initialise(net, torch.Generator().manual_seed(chance.stream(seed, "weights", name)))
    return G, D


class Generator(nn.Module):
    """G: z (N, nz) -> images (N, nc, size, size) in [-1, 1]."""

    def __init__(self, description: Description) -> None:
        super().__init__()
        self.description = d = description
        maps = d.maps(d.ngf)[::-1]
        activation = {"relu": nn.ReLU, "tanh": nn.Tanh}[d.G_activation]
        self.hidden = _hidden(d, d.nz, activation())
        self.projection = nn.Linear(d.hidden or d.nz, maps[0] * GRID * GRID, bias=False)
        units = maps[0] * GRID * GRID if d.project_bn == "unit" else maps[0]
        norm = _norm(d, units, nn.BatchNorm1d if d.project_bn == "unit" else nn.BatchNorm2d)
        self.projection_bn = norm[0] if norm else nn.Identity()
        self.activation = activation()
        layers = []
        for (m_in, m_out), stride in zip(pairwise(maps), d.strides[::-1], strict=True):
            last = len(layers) == len(d.strides) - 1
            norm = _norm(d, m_out, guideline=not last, variant="G_output")
            end = nn.Tanh() if last else nn.ReLU(inplace=True) if d.G_activation == "relu" else activation()
            layers.append(nn.Sequential(*_up(d, m_in, m_out, stride), *norm, end))
        self.layers = nn.ModuleList(layers)

    def project(self, z: Tensor) -> Tensor:
        """Project z to the first feature maps: (N, nz) -> (N, C, 4, 4)."""
        h = self.projection(self.hidden(z))
        if self.description.project_bn == "unit":
            h = self.projection_bn(h)
        h = h.unflatten(1, (-1, GRID, GRID))
        if self.description.project_bn == "channel":
            h = self.projection_bn(h)
        return self.activation(h)  # (N, C, 4, 4)

    def activations(self, z: Tensor) -> list[Tensor]:
        """Return every layer's output, the projection first and the image last: [(N, C_l, H_l, W_l), ...]."""
        hs = [self.project(z)]
        for layer in self.layers:
            hs.append(layer(hs[-1]))
        return hs

    def forward(self, z: Tensor) -> Tensor:
        return self.activations(z)[-1]  # (N, nc, size, size)

    def sample_z(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n vectors from the net's prior: (n, nz), on the generator's device."""
        shape = (n, self.description.nz)
        if self.description.prior == "gaussian":
            return torch.randn(shape, generator=generator, device=generator.device)
        return torch.rand(shape, generator=generator, device=generator.device) * 2 - 1


class Discriminator(nn.Module):
    """D: images (N, nc, size, size) in [-1, 1] -> logits (N,); D(x) of the paper is their sigmoid."""

    def __init__(self, description: Description) -> None:
        super().__init__()
        self.description = d = description
        maps = d.maps(d.ndf)
        layers = []
        for (m_in, m_out), stride in zip(pairwise(maps), d.strides, strict=True):
            norm = _norm(d, m_out, guideline=bool(layers), variant="D_input")
            pool = [nn.MaxPool2d(stride)] if d.resample == "pooling" and stride > 1 else []
            conv = _down(m_in, m_out, d.kernel, 1 if pool else stride)
            layers.append(nn.Sequential(conv, *norm, nn.LeakyReLU(0.2, inplace=True), *pool))
        self.layers = nn.ModuleList(layers)
        units = maps[-1] * GRID * GRID
        self.hidden = _hidden(d, units, nn.LeakyReLU(0.2))
        self.head = nn.Linear(d.hidden or units, 1, bias=False)

    def activations(self, x: Tensor) -> list[Tensor]:
        """Return every convolution's output after its LeakyReLU, image side first: [(N, C_l, H_l, W_l), ...]."""
        hs = []
        for layer in self.layers:
            x = layer(x)
            hs.append(x)
        return hs

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.activations(x)[-1].flatten(1))).squeeze(1)  # (N,)


def require_fit(x: Tensor, shape: tuple[int, int, int]) -> None:
    """Raise ValueError where x (N, ...) is not images of this shape (nc, size, size)."""
    if tuple(x.shape[1:]) != shape:
        raise ValueError(f"images of {tuple(x.shape[1:])} do not fit a net for {shape}: change size or nc, or the set")


def initialise(net: nn.Module, generator: torch.Generator) -> None:
    """Draw weights from N(0, SPREAD) and batch-norm gains from N(1, SPREAD), in place, as paper and code have it."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                module.weight.normal_(0, SPREAD, generator=generator)
            elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.normal_(1, SPREAD, generator=generator)
                module.bias.zero_()


@contextmanager
def as_at_inference(net: nn.Module) -> Iterator[None]:
    """Put a net into eval mode, and each of its modules back into its own mode afterwards."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _down(m_in: int, m_out: int, kernel: int, stride: int) -> nn.Conv2d:
    """Return a convolution that divides the image's side by `stride`."""
    return nn.Conv2d(m_in, m_out, kernel, stride, padding=(kernel - 1) // 2, bias=False)


def _up(description: Description, m_in: int, m_out: int, stride: int) -> list[nn.Module]:
    """Return what multiplies the image's side by `stride`: one fractionally-strided convolution, by the guidelines."""
    kernel = description.kernel
    if description.resample == "pooling" and stride > 1:
        return [nn.Upsample(scale_factor=stride), _down(m_in, m_out, kernel, 1)]
    extra = stride - 1 if kernel % 2 else 0
    return [nn.ConvTranspose2d(m_in, m_out, kernel, stride, (kernel - 1) // 2, output_padding=extra, bias=False)]


def _hidden(description: Description, units: int, activation: nn.Module) -> nn.Sequential:
    """Return the fully connected hidden layer over `units`; nothing, by the guidelines."""
    if not description.hidden:
        return nn.Sequential()
    norm = _norm(description, description.hidden, nn.BatchNorm1d)
    return nn.Sequential(nn.Linear(units, description.hidden, bias=False), *norm, activation)


def _norm(
    description: Description, units: int, kind: type = nn.BatchNorm2d, guideline: bool = True, variant: str = ""
) -> list[nn.Module]:
    """Return a layer's batch norm, or nothing: as the guideline has it for this layer, or a variant."""
    wanted = description.batch_norm == variant or (guideline and description.batch_norm != "none")
    return [kind(units, eps=description.bn_eps)] if wanted else []
