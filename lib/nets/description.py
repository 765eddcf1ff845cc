"""The paper's architectures, each as a description: values alone, which `models` builds nets of.

Every net follows the paper's guidelines (section 3): strided convolutions down in D, fractionally-strided ones up in
G, batch norm everywhere but on G's output and D's input, ReLU and tanh in G, LeakyReLU 0.2 in D, no hidden fully
connected layer. A description says how often the image is halved on its way to a 4 x 4 grid, how many convolutions
stand at each scale, and how wide they are; G mirrors D. It also holds what the guidelines replace, so that each of
them can be put to the test. No torch here: a batch file is checked in a moment.
"""

import math
from dataclasses import asdict, dataclass, replace
from numbers import Integral

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
        if self.kernel == 4 and (self.convs_per_scale > 1 or self.resample == "pooling"):
            raise ValueError("kernel = 4: a convolution of stride 1 needs an odd kernel (3 or 5)")

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
