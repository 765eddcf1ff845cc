"""The nets that the authors released, as nets of this study.

Their weights come from Theano and look like ours, which is the trap: they are for true convolutions, and a kernel that
is not flipped in both axes draws smears. Batch norm has no running averages to load: the authors normalise every
minibatch with its own statistics, so an image depends on its neighbours, and here they are estimated once and frozen.
D gives a probability there, its logit here. And files are missing from the ImageNet net: what lies below them is whole.
"""

import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from lib.nets import batchnorm, models
from lib.nets.models import Description, Discriminator, Generator
from lib.study import chance, paths

HOME = "github.com/Newmu/dcgan_code"
ARCHIVE = "radford2015-weights"  # .tar.gz, or a folder: the authors' folders with each .jl file's arrays as .npy
ROWS = 1280  # z, and samples, that the frozen statistics of batch norm are estimated on: ten minibatches


class Released(NamedTuple):
    """A net as it was released."""

    folder: str
    epoch: int
    architecture: str
    data: str


NETS = {
    "radford2015-svhn": Released("svhn_unsup_all_conv_dcgan_100z_gaussian_lr_0.0005_64mb", 200, "svhn32", "SVHN"),
    "radford2015-imagenet": Released(
        "imagenet_gan_pretrain_128f_relu_lrelu_7l_3x3_256z", 30, "imagenet32", "ImageNet-1k"
    ),
}


@dataclass(frozen=True)
class Truncated(Description):
    """A net of which only D's first convolutions are there."""

    convs: int = 0  # how many, from the image on

    @property
    def strides(self) -> tuple[int, ...]:
        return super().strides[: self.convs]


class Missing(nn.Module):
    """Stands where weights are missing, and tells whoever uses it which files to get."""

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(self.__dict__.get("message", name))  # a copy has no message yet

    def forward(self, *_: Tensor) -> NoReturn:
        raise ValueError(self.message)


def load(net: str) -> tuple[Generator, Discriminator, dict]:
    """Load a released net by its name in NETS, with its record, from STUDY_SOURCES or the data folder.

    Raises ValueError where no folder or archive of the weights is there, or as `load_radford2015` does.
    """
    with _folder_of(net) as folder:
        G, D = load_radford2015(folder)
    record = {"source": HOME, "epochs": NETS[net].epoch, "parameters": {"data_set": NETS[net].data}}
    return G, D, record


def load_radford2015(folder: Path, **changes: int) -> tuple[Generator, Discriminator]:
    """Load the .npy files of one net, its folder named as the authors named it; both nets come in eval mode.

    The authors' order: D has its first kernels, then kernels, gain and bias of each further convolution, then the dense
    weights; G the dense weights, their gain and bias per unit, then kernels, gain and bias, the last kernels alone.
    G's batch norm is frozen on z of the prior, D's on G's samples; a D without its G needs
    `recalibrate_batchnorm` first, as does every D that is asked about images unlike those.

    changes: fields of `Description`, for a net of another width. Where files are missing, warns with their names: G is
    then a `Missing`, D ends below the gap. Raises ValueError for an unknown folder, for files that are truncated or
    misshapen, and where D's first kernels are missing.
    """
    released = {net.folder: net for net in NETS.values()}.get(Path(folder).name)
    if released is None:
        names = ", ".join(net.folder for net in NETS.values())
        raise ValueError(f"{folder}: no net of the authors is called so; there are {names}")
    description = models.describe(released.architecture, bn_eps=1e-8, **changes)
    G, D = Generator(description), Discriminator(description)
    gone = {net: _fill(net, Path(folder), f"{released.epoch}_{kind}_params.jl") for net, kind in
            ((G, "gen"), (D, "discrim"))}  # fmt: skip
    if missing := [name for files in gone.values() for name in files.values()]:
        warnings.warn(f"{Path(folder).name}: missing {', '.join(missing)} (see {HOME})", stacklevel=2)
    if gone[D]:
        D = _truncate(D, gone[D])
    if gone[G]:
        G = Missing(f"this G cannot be used: missing {', '.join(gone[G].values())}")
        return G.eval(), D.eval()
    z = G.sample_z(ROWS, torch.Generator().manual_seed(chance.stream(0, "statistics")))
    batchnorm.recalibrate_batchnorm(G, z)
    with torch.no_grad():
        samples = torch.cat([G(batch) for batch in z.split(128)])
    return G, batchnorm.recalibrate_batchnorm(D, samples)


def _fill(net: nn.Module, folder: Path, prefix: str) -> dict[str, str]:
    """Copy the files into the net's parameters, whose order is the authors'; return those missing, by parameter."""
    missing = {}
    for i, (name, parameter) in enumerate(net.named_parameters(), 1):
        path = folder / f"{prefix}_{i:02d}.npy"
        if not path.exists():
            missing[name] = path.name
            continue
        try:
            value = torch.from_numpy(np.load(path, allow_pickle=False))
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"{path}: truncated, or no array of numbers ({error}); get it again: {HOME}") from error
        value = value.flip(2, 3) if value.dim() == 4 else value.T if value.dim() == 2 else value
        if value.shape != parameter.shape:
            raise ValueError(f"{path}: {name} would be {tuple(value.shape)}, not {tuple(parameter.shape)}")
        parameter.data.copy_(value)
    return missing


def _truncate(D: Discriminator, missing: dict[str, str]) -> Discriminator:
    """Return D as far as its weights are there. Raises ValueError where not even the first convolution is."""
    files = ", ".join(missing.values())
    convs = min((int(name.split(".")[1]) for name in missing if name.startswith("layers.")), default=len(D.layers))
    if not convs:
        raise ValueError(f"D cannot be used without its first kernels: missing {files}; get them from {HOME}")
    truncated = Discriminator(Truncated(**asdict(D.description), convs=convs))
    truncated.layers = D.layers[:convs]
    truncated.head = Missing(
        f"this D has no answer, only the features of convolutions 0 to {convs - 1}: missing {files}"
    )
    return truncated


@contextmanager
def _folder_of(net: str) -> Iterator[Path]:
    """Find a net's folder: by itself, among the .npy files or in the authors' repository; else unpack the archive."""
    name = NETS[net].folder
    for place in (name, f"{ARCHIVE}/{name}", f"dcgan_code/models/{name}"):
        if (folder := paths.find_source(place)).is_dir():
            yield folder
            return
    archive = paths.find_source(f"{ARCHIVE}.tar.gz")
    if not archive.is_file():
        raise ValueError(
            f"{net}: no {name} and no {archive.name} in STUDY_SOURCES or {paths.data_root()}; the authors' weights are "
            f"in models/ of {HOME}"
        )
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(scratch, [member for member in tar if name in Path(member.name).parts], filter="data")
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{archive}: truncated or not an archive ({error}); get it again") from error
        folder = next(Path(scratch).rglob(name), None)
        if folder is None:
            raise ValueError(f"{archive}: holds no folder {name}; get the authors' weights from {HOME}")
        yield folder
