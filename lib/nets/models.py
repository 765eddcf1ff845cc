"""The paper's generators and discriminators, from one description type.

Every net follows the paper's guidelines (section 3): strided convolutions down in D, fractionally-strided ones up in
G, batch norm everywhere but on G's output and D's input, ReLU and tanh in G, LeakyReLU 0.2 in D, no hidden fully
connected layer. A description says how often the image is halved on its way to a 4 x 4 grid, how many convolutions
stand at each scale, and how wide they are; G mirrors D. It also holds what the guidelines replace, so that each of
them can be put to the test.

What differs from the authors' code: PyTorch's convolution is a cross-correlation (`authors` flips their kernels);
batch norm keeps running averages beside the batch statistics that the authors always use (`features` re-estimates
them); its eps is PyTorch's 1e-5, not 1e-8, unless `bn_eps` says so; D ends in a logit, not in a probability, so that
the loss can be computed without overflow.
"""

import math
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from numbers import Integral

import torch
from torch import Tensor, nn

from lib.study import chance

VERSIONS = {"nets": 1}  # raise it when a net of the same description becomes another one
GRID = 4  # G's projection and D's last convolution are GRID x GRID maps in every net of the paper


@dataclass(frozen=True)
class Description:
    """One architecture: what `build` turns into G and D."""

    size: int  # side of the image in pixels
    nc: int = 3  # image channels
    nz: int = 100  # length of z
    prior: str = "uniform"  # z's distribution: uniform on [-1, 1], or gaussian
    kernel: int = 5  # side of every convolution's kernel
    convs_per_scale: int = 1  # 1: each convolution has stride 2; 2: one of stride 1 goes before each
    ngf: int = 128  # maps of G's layer next to the image; they double with each scale below it
    ndf: int = 128  # the same in D
    project_bn: str = "unit"  # batch norm over G's projection: per unit (the authors' code) or per channel
    bn_eps: float = 1e-5
    batch_norm: str = "guideline"  # on all layers but D's input and G's output; D_input, G_output: there too
    resample: str = "strides"  # how scales change: strides, or pooling (max in D, nearest neighbours in G)
    hidden: int = 0  # units of a fully connected hidden layer in G and in D; the guideline: none
    G_activation: str = "relu"  # or tanh

    def __post_init__(self) -> None:
        if not isinstance(self.size, Integral):
            raise ValueError(f"image size {self.size!r}: must be a whole number")
        scales = math.log2(max(self.size, 1) / GRID)
        if scales < 1 or scales != int(scales):
            raise ValueError(f"image size {self.size}: the net takes {GRID} times a power of two, such as 16, 32, 64")
        for name, least in {"nc": 1, "nz": 1, "ngf": 1, "ndf": 1, "hidden": 0}.items():
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < least:
                raise ValueError(f"{name} = {value!r}: must be a whole number of at least {least}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} = {getattr(self, name)!r}: choose one of {', '.join(map(str, choices))}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """An image's: (nc, size, size)."""
        return self.nc, self.size, self.size

    @property
    def strides(self) -> tuple[int, ...]:
        """D's strides, from the image down."""
        return (*[1] * (self.convs_per_scale - 1), 2) * int(math.log2(self.size / GRID))

    def maps(self, base: int) -> list[int]:
        """D's map counts from the image down, the image's channels first."""
        scale = [i // self.convs_per_scale for i in range(len(self.strides))]
        return [self.nc, *(base * 2**s for s in scale)]


CHOICES = {
    "prior": ("uniform", "gaussian"),
    "kernel": (3, 4, 5),
    "convs_per_scale": (1, 2),
    "project_bn": ("unit", "channel"),
    "batch_norm": ("guideline", "D_input", "G_output", "none"),
    "resample": ("strides", "pooling"),
    "G_activation": ("relu", "tanh"),
}

ARCHITECTURES = {
    # the paper's 64 x 64 net: LSUN and faces
    "paper64": Description(size=64),
    # the PyTorch tutorial's net, which reports 000, 002 and 003 use
    "tutorial64": Description(size=64, prior="gaussian", kernel=4, ngf=64, ndf=64, project_bn="channel"),
    # report 000's other variant
    "k5_64": Description(size=64, prior="gaussian", kernel=5, ngf=64, ndf=64, project_bn="channel"),
    # the authors' 32 x 32 ImageNet net, whose D is probed on CIFAR-10
    "imagenet32": Description(size=32, nz=256, kernel=3, convs_per_scale=2),
    # the authors' SVHN net
    "svhn32": Description(size=32, prior="gaussian", ngf=64, ndf=64),
}

# each guideline of section 3 broken alone
BROKEN = {
    "": {},
    "bn_D_input": {"batch_norm": "D_input"},
    "bn_G_output": {"batch_norm": "G_output"},
    "no_bn": {"batch_norm": "none"},
    "pooling": {"resample": "pooling"},
    "hidden": {"hidden": 1024},
    "tanh": {"G_activation": "tanh"},
}


def describe(architecture: str, breaks: str = "", **changes: int | str | float) -> Description:
    """Return the named description with `changes` made, and the guideline broken that `breaks` names.

    Raises ValueError for a name or a value that does not exist.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}: choose one of {', '.join(ARCHITECTURES)}")
    if breaks not in BROKEN:
        raise ValueError(f"unknown guideline {breaks!r}: break one of {', '.join(filter(None, BROKEN))}")
    changes = BROKEN[breaks] | changes
    unknown = changes.keys() - asdict(ARCHITECTURES[architecture]).keys()
    if unknown:
        raise ValueError(
            f"a net has no {', '.join(sorted(unknown))}: it has {', '.join(asdict(ARCHITECTURES[architecture]))}"
        )
    return replace(ARCHITECTURES[architecture], **changes)


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
    """Draw weights from N(0, 0.02) and batch-norm gains from N(1, 0.02), in place, as paper and code have it."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                module.weight.normal_(0, 0.02, generator=generator)
            elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.normal_(1, 0.02, generator=generator)
                module.bias.zero_()


def _down(m_in: int, m_out: int, kernel: int, stride: int) -> nn.Conv2d:
    """Return a convolution that divides the image's side by `stride`."""
    if kernel == 4 and stride == 1:
        raise ValueError("kernel = 4: a convolution of stride 1 needs an odd kernel (3 or 5)")
    return nn.Conv2d(m_in, m_out, kernel, stride, padding=(kernel - 1) // 2, bias=False)


def _up(description: Description, m_in: int, m_out: int, stride: int) -> list[nn.Module]:
    """Return what multiplies the image's side by `stride`: one fractionally-strided convolution, by the guidelines."""
    kernel = description.kernel
    if description.resample == "pooling" and stride > 1:
        return [nn.Upsample(scale_factor=stride), _down(m_in, m_out, kernel, 1)]
    if kernel == 4 and stride == 1:
        raise ValueError("kernel = 4: a convolution of stride 1 needs an odd kernel (3 or 5)")
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
