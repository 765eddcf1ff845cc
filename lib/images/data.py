"""Image sets, packed once and then read at the speed of memory.

A GAN reads the same small images hundreds of times; decoding them each time starves the nets. Every source is
therefore decoded once per size into one uint8 array (N, C, H, W), in memory or memory-mapped, and no loader process
stands between the array and the net.
"""

import hashlib
import io
import mmap
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from filelock import FileLock
from PIL import Image
from torch import Tensor

from lib.images import packing
from lib.images.files import first_line
from lib.images.labels import UNLABELLED, split_of
from lib.study import chance, paths

NORESERVE = 0x4000 if sys.platform == "linux" else 0  # MAP_NORESERVE, which Python 3.11 does not name
IN_MEMORY = 2 * 2**30  # bytes; a larger selection stays on disk, memory-mapped


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with what is known of them."""

    name: str
    x: Tensor  # uint8 (N, C, H, W)
    y: Tensor  # int64 (N,): index into classes, UNLABELLED where there is no label
    classes: tuple[str, ...] = ()
    attributes: pd.DataFrame | None = None  # N rows
    notes: tuple[str, ...] = ()  # what was told when the set was packed
    recorded: str = ""  # the checksum, where the packed set has it

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice | list[int] | np.ndarray | Tensor) -> "ImageSet":
        attributes = self.attributes
        if attributes is not None:
            attributes = attributes.iloc[rows if isinstance(rows, slice) else np.asarray(rows)].reset_index(drop=True)
        recorded = self.recorded and _checksum_of_rows(self.recorded, np.arange(len(self))[rows], len(self))
        return replace(self, x=self.x[rows], y=self.y[rows], attributes=attributes, recorded=recorded)

    def labelled(self) -> "ImageSet":
        """Return the images that have a label, and say how many have none. Raises ValueError where all have none."""
        rows = (self.y != UNLABELLED).nonzero()[:, 0]
        if not len(rows):
            raise ValueError(f"{self.name}: none of its {len(self)} images has a label; name another split or set")
        if len(rows) == len(self):
            return self
        packing.say(self.name, f"{len(self) - len(rows)} of {len(self)} images have no label, and are left out")
        return self[rows]

    @property
    def checksum(self) -> str:
        """SHA-256 that stands for the images, in hex: what a training depends on."""
        return self.recorded or hashlib.sha256(self.x.numpy()).hexdigest()


def _checksum_of_rows(whole: str, rows: np.ndarray, n: int) -> str:
    """Return the checksum of some rows of n images whose checksum is known; no pixel is read."""
    if np.array_equal(rows, np.arange(n)):
        return whole
    return hashlib.sha256(whole.encode() + rows.astype("<i8").tobytes()).hexdigest()


def to_float(x: Tensor) -> Tensor:
    """Scale uint8 images to float32 in [-1, 1], the paper's only pre-processing. Shape and device stay.

    Images that are floating point are there already, and are returned as they are.
    """
    return x if x.is_floating_point() else x.to(torch.float32).div_(127.5).sub_(1)


def to_uint8(x: Tensor) -> Tensor:
    """Return float images in [-1, 1] as uint8; the inverse of `to_float`."""
    return x.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def tile(images: Tensor, columns: int) -> np.ndarray:
    """Lay uint8 images (N, C, H, W), C 1 or 3, out as one picture (.., .., 3), white lines of a pixel around each.

    As torchvision's make_grid does, which takes two seconds to import. One image alone has no lines.
    """
    images, across = images.expand(-1, 3, -1, -1), min(columns, len(images))
    if len(images) == 1:
        return images[0].permute(1, 2, 0).numpy()
    cells = F.pad(images, (1, 0, 1, 0), value=255)
    blank = cells.new_full((-len(cells) % across, *cells.shape[1:]), 255)
    rows = torch.cat([cells, blank]).unflatten(0, (-1, across)).permute(0, 3, 1, 4, 2)  # (rows, H, columns, W, 3)
    return F.pad(rows.flatten(0, 1).flatten(1, 2), (0, 0, 0, 1, 0, 1), value=255).numpy()


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Return a uint8 image (C, H, W) as it comes back from JPEG, colour at half the resolution (4:2:0)."""
    pixels, file = x.permute(1, 2, 0).numpy(), io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if len(x) == 1 else pixels).save(
        file, "jpeg", quality=quality, subsampling="4:2:0"
    )
    return torch.from_numpy(np.array(Image.open(file)).reshape(pixels.shape)).permute(2, 0, 1)


def hold_out(n: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the rows of n images to train on, and a random share of them to choose the snapshot by."""
    if not 0 <= share < 1:
        raise ValueError(f"held_out = {share}: must be a share from 0, and below 1")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(chance.stream(seed, "hold-out")))
    held = round(share * n)
    return order[held:].sort().values, order[:held].sort().values


def spread(rows: Tensor, most: int) -> Tensor:
    """Return at most so many of the rows, evenly spaced (0: all)."""
    return rows[torch.arange(most) * len(rows) // most] if 0 < most < len(rows) else rows


def steps_of(epochs: float, n: int, batch_size: int) -> int:
    """Return the number of minibatches of a training on n images; an epoch's last, smaller one is left out."""
    return max(1, round(epochs * (n // batch_size)))


def minibatches(rows: Tensor, batch_size: int, seed: int, start: int, total: int) -> Iterator[Tensor]:
    """Yield the rows (batch_size,) of minibatches start to total; each epoch has all rows once, in an order of its own.

    They follow from the seed and the epoch alone: a training that resumes, one that reads a file and one whose images
    lie on the GPU see the same. Each minibatch's are sorted: a file is read from front to back.
    """
    per_epoch = len(rows) // batch_size
    epoch, order = -1, None
    for step in range(start, total):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            generator = torch.Generator().manual_seed(chance.stream(seed, "order", epoch))
            order = rows[torch.randperm(len(rows), generator=generator)]
        first = step % per_epoch * batch_size
        yield order[first : first + batch_size].sort().values


def load(name: str, size: int, split: str = "train", limit: int = 0, root: Path | None = None) -> ImageSet:
    """Load a set by name at `size` x `size` pixels, packing it at the first call.

    name: `digits`, `toy-faces[:N]`, `toy-rooms[:N]`, one of torchvision's, `tar:PATH` or `folder:PATH` (PATH may be a
    glob over shards); `crop:` before it cuts centres out in place of resizing. split: one split, several joined by `+`,
    or `all`. limit: so many images (0: all), evenly spaced, since rows are sorted by class. root: the folder of
    downloads and packed sets. Raises ValueError for a name, split or size that does not exist, a split given twice,
    fewer images than the limit and a file that cannot be read, OSError where it cannot write.
    """
    for what, value, least in (("image size", size, 1), ("limit", limit, 0)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{what} {value!r}: must be a whole number of at least {least}")
    folder, meta = packing.find(name, int(size), split, root)
    ranges = _ranges(name, meta, split)
    rows = np.concatenate([np.arange(part["start"], part["stop"]) for part in ranges])
    parts = [part["sha256"] for part in ranges]
    recorded = parts[0] if len(parts) == 1 else hashlib.sha256("+".join(parts).encode()).hexdigest()
    if limit > len(rows):
        raise ValueError(f"limit {limit}: {name} has {len(rows)} images in {split}; ask for no more, or 0 for all")
    if limit:
        some = np.arange(limit) * len(rows) // limit
        recorded, rows = _checksum_of_rows(recorded, some, len(rows)), rows[some]
    try:
        y, table = torch.from_numpy(np.load(folder / "y.npy")), None
        if "attributes" in meta:
            table = pd.read_csv(folder / "attributes.csv", keep_default_na=False, na_values=[""])
            table = table.astype(meta["attributes"]).iloc[rows].reset_index(drop=True)
        packed = _map(folder / "x.npy")
        if list(packed[1].shape) != meta["shape"]:
            raise ValueError(f"x.npy is {packed[1].shape}, not {tuple(meta['shape'])}")
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise packing.damaged(folder, first_line(error)) from error
    x = _take(folder, *packed, rows, recorded)
    return ImageSet(name, torch.from_numpy(x), y[rows], tuple(meta["classes"]), table, tuple(meta["notes"]), recorded)


def names(name: str, size: int, split: str = "train", root: Path | None = None) -> list[str]:
    """Return the class and file name, `class/file`, of each image of `load(name, size, split)`."""
    folder, meta = packing.find(name, size, split, root)
    lines = (folder / "names.txt").read_text(encoding="utf-8").split("\n")
    found = [line for part in _ranges(name, meta, split) for line in lines[part["start"] : part["stop"]]]
    return [line.partition("/")[2] for line in found]


def splits(name: str, size: int, split: str, root: Path | None = None) -> list[str]:
    """Return which of a set's splits `split` means, by their names there. Raises ValueError as `load` does."""
    return _wanted(name, packing.find(name, size, split, root)[1]["splits"], split)


def _ranges(name: str, meta: dict, split: str) -> list[dict]:
    """Return the packed rows of the splits that are asked for, in that order."""
    return [meta["splits"][word] for word in _wanted(name, meta["splits"], split)]


def _wanted(name: str, there: Collection[str], split: str) -> list[str]:
    if split == "all":
        return list(there)
    wanted = [word if word in there else split_of(word) or word for word in split.split("+")]
    for i, word in enumerate(wanted):
        if word not in there:
            raise ValueError(f"{name} has no split {word!r}: it has {', '.join(there)}; join several by +, or say all")
        if word in wanted[:i]:
            raise ValueError(f"split {split!r}: {word} is there twice, and its images would count twice")
    return wanted


def _take(folder: Path, pages: mmap.mmap, x: np.ndarray, rows: np.ndarray, checksum: str) -> np.ndarray:
    """Return rows of the packed array: in memory, or where they are many memory-mapped, and then never a copy in it.

    Many rows that are no neighbours get a file of their own beside the array, made once.
    OSError names it where it cannot be.
    """
    in_memory = len(rows) * x[0].nbytes <= IN_MEMORY
    if np.all(np.diff(rows) == 1):
        x = x[rows[0] : rows[-1] + 1]
        return np.array(x) if in_memory else x
    if in_memory:
        pages.madvise(mmap.MADV_RANDOM)  # or ten times as much is read around each
        return x[rows]
    path = folder / f"x-{checksum[:12]}.npy"
    with paths.naming(path), FileLock(f"{folder}.lock"):
        if not path.exists():
            part = path.with_suffix(".unfinished")
            with part.open("wb") as file:  # written, not mapped: a page that a full disk cannot store would kill us
                file.write(packing.header((len(rows), *x.shape[1:])))
                for start in range(0, len(rows), packing.BLOCK):
                    file.write(x[rows[start : start + packing.BLOCK]])
            part.rename(path)
    return _map(path)[1]


def _map(path: Path) -> tuple[mmap.mmap, np.ndarray]:
    """Map an array that may be larger than memory: torch wants to be able to write, which is kept off the disk."""
    header = np.load(path, mmap_mode="r")
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE | NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE)
    return pages, np.ndarray(header.shape, header.dtype, pages, header.offset)
