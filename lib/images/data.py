"""Image sets, packed once and then read at the speed of memory.

A GAN reads the same small images hundreds of times; decoding them each time starves the nets. Every source is
therefore decoded once per size into one uint8 array (N, C, H, W), in memory or memory-mapped, and no loader process
stands between the array and the net. A packed set is whole or absent: it is written to a folder of another name,
checksummed, and renamed when it is complete.
"""

import hashlib
import json
import os
import re
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from lib.images import sources
from lib.images.sources import Decode, Source
from lib.study import chance, paths

UNLABELLED = -1
FORMAT = 1  # of a packed set; raise it when packing changes, and every set is packed anew
IN_MEMORY = 2 * 2**30  # bytes; a larger selection stays on disk, memory-mapped
WORKERS = min(8, os.cpu_count() or 1)  # threads that decode; Pillow lets go of the interpreter's lock


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with what is known of them."""

    name: str
    x: Tensor  # uint8 (N, C, H, W)
    y: Tensor  # int64 (N,): index into classes, UNLABELLED where there is no label
    classes: tuple[str, ...] = ()
    attributes: pd.DataFrame | None = None  # N rows

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice | list[int] | np.ndarray | Tensor) -> "ImageSet":
        attributes = self.attributes
        if attributes is not None:
            attributes = attributes.iloc[rows if isinstance(rows, slice) else np.asarray(rows)].reset_index(drop=True)
        return replace(self, x=self.x[rows], y=self.y[rows], attributes=attributes)

    def labelled(self) -> "ImageSet":
        """Return the images that have a label, and say how many have none. Raises ValueError where all have none."""
        rows = (self.y != UNLABELLED).nonzero()[:, 0]
        if not len(rows):
            raise ValueError(f"{self.name}: none of its {len(self)} images has a label; name another split or set")
        if len(rows) == len(self):
            return self
        print(f"{self.name}: {len(self) - len(rows)} of {len(self)} images have no label, and are left out")
        return self[rows]

    @property
    def checksum(self) -> str:
        """SHA-256 of the images, in hex: what a training depends on."""
        return _sha256(self.x.numpy())


def to_float(x: Tensor) -> Tensor:
    """Scale uint8 images to float32 in [-1, 1], the paper's only pre-processing. Shape and device stay.

    Images that are floating point are there already, and are returned as they are.
    """
    return x if x.is_floating_point() else x.to(torch.float32).div_(127.5).sub_(1)


def to_uint8(x: Tensor) -> Tensor:
    """Return float images in [-1, 1] as uint8; the inverse of `to_float`."""
    return x.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def hold_out(n: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the rows of n images to train on, and a random share of them to choose the snapshot by."""
    if not 0 <= share < 1:
        raise ValueError(f"held_out = {share}: must be a share from 0, and below 1")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(chance.stream(seed, "hold-out")))
    held = round(share * n)
    return order[held:].sort().values, order[:held].sort().values


def load(name: str, size: int, split: str = "train", limit: int = 0, root: Path | None = None) -> ImageSet:
    """Load a set by name at `size` x `size` pixels, packing it at the first call.

    name: `digits`, `toy-faces[:N]`, `toy-rooms[:N]`, one of torchvision's, `tar:PATH` or `folder:PATH` (PATH may be a
    glob over shards). split: one split, several joined by `+`, or `all`. limit: at most so many images (0: all),
    evenly spaced, since rows are sorted by class. root: the folder of downloads and packed sets. Raises ValueError for
    a name, split or size that does not exist and for a file that cannot be read, OSError where it cannot write.
    """
    for what, value, least in (("image size", size, 1), ("limit", limit, 0)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{what} {value!r}: must be a whole number of at least {least}")
    return _read(name, _packed(name, int(size), Path(root or paths.data_root()), split), split, int(limit))


# --- packing -------------------------------------------------------------------------------------------------------


def _packed(name: str, size: int, root: Path, split: str) -> Path:
    """Return the folder of the packed set of this name and size, making it where it is missing."""
    fingerprint, open_source = sources.find(name, size, root, split)
    kind, _, rest = name.partition(":")
    identity = [FORMAT, kind if kind in ("tar", "folder") else name, size, fingerprint]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", f"{kind}-{Path(rest).name}").strip("-")[:60]
    folder = root / "packed" / f"{slug}-{size}-{digest}"
    if not (folder / "meta.json").exists():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not (folder / "meta.json").exists():  # another process may have packed it meanwhile
                    _pack(name, size, open_source(), folder)
        except OSError as error:
            if error.errno is None:
                raise
            way_out = "make room there, or set STUDY_DATA to a folder that can be written"
            raise OSError(error.errno, f"cannot pack {name} ({error.strerror}): {way_out}", str(root)) from error
    return folder


def _pack(name: str, size: int, source: Source, folder: Path) -> None:
    """Write a packed set under another name, and rename it when it is whole."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    for remains in (unfinished, folder):  # of a process that was killed; of a set without its meta.json
        shutil.rmtree(remains, ignore_errors=True)
    unfinished.mkdir()
    try:
        keys = sorted(source.keys)
        classes, y = _label(keys)
        order = sorted(range(len(keys)), key=source.keys.__getitem__)  # row -> image
        shape = _write_images(name, size, source, order, unfinished / "x.npy")
        np.save(unfinished / "y.npy", y)
        meta = {"name": name, "size": size, "shape": shape, "classes": classes, "splits": {}}
        if source.attributes is not None:
            source.attributes.iloc[order].to_csv(unfinished / "attributes.csv", index=False)
            meta["attributes"] = {str(column): str(dtype) for column, dtype in source.attributes.dtypes.items()}
        x = np.load(unfinished / "x.npy", mmap_mode="r")
        names = np.array([split for split, _, _ in keys])
        for split in sorted(set(names.tolist())):
            start, stop = np.searchsorted(names, split), np.searchsorted(names, split, side="right")
            meta["splits"][split] = {"start": int(start), "stop": int(stop), "sha256": _sha256(x[start:stop])}
        meta["bytes"] = (unfinished / "x.npy").stat().st_size
        (unfinished / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _label(keys: list[tuple[str, str, str]]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the classes, those of the train split where there is one, and each image's index into them."""
    splits = {split for split, _, _ in keys}
    classes = tuple(sorted({c for split, c, _ in keys if split == "train" or "train" not in splits} - {""}))
    if classes in ((), ("all",)):
        classes, index = ("all",), {"": 0, "all": 0}
    else:
        index = {c: i for i, c in enumerate(classes)}
    unlabelled = ("unlabelled", "unlabeled")
    return classes, np.array([UNLABELLED if s in unlabelled else index.get(c, UNLABELLED) for s, c, _ in keys])


def _write_images(name: str, size: int, source: Source, order: list[int], path: Path) -> tuple[int, int, int, int]:
    """Decode every image into its row of one .npy file. Returns the array's shape."""
    where, first = next(iter(source.read()))
    mode = _decode(where, first, size, None)[0]
    shape = (len(order), 1 if mode == "L" else 3, size, size)
    row_of = np.argsort(order)  # image -> row
    # Written, not memory-mapped: on a full disk a write raises an error, and a page that cannot be stored kills us.
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        start, stride = file.tell(), shape[1] * size * size
        bar = tqdm(row_of.tolist(), desc=f"packing {name} at {size}", unit=" images", delay=3, mininterval=10)
        for row, pixels in zip(bar, _decode_all(source, size, mode), strict=True):
            file.seek(start + row * stride)
            file.write(pixels)
        file.flush()
        os.fsync(file.fileno())
    return shape


def _decode_all(source: Source, size: int, mode: str) -> Iterator[np.ndarray]:
    """Yield every image's pixels in the source's order, some images being decoded ahead."""
    pending = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        for where, decode in source.read():
            pending.append(pool.submit(_decode, where, decode, size, mode))
            if len(pending) > 16 * WORKERS:
                yield pending.popleft().result()[1]
        while pending:
            yield pending.popleft().result()[1]


def _decode(where: str, decode: Decode, size: int, mode: str | None) -> tuple[str, np.ndarray]:
    """Return the image's mode, L or RGB, and its pixels (C, size, size), in `mode` where one is given."""
    try:
        image = decode()
        if image.mode.startswith("I"):  # 16 bits of grey, of which Pillow's own conversion keeps the lowest
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        mode = mode or ("L" if image.mode in ("1", "L", "LA", "F") else "RGB")
        pixels = np.asarray(_crop(image.convert(mode), size))  # (size, size) or (size, size, 3)
    except UnidentifiedImageError as error:
        raise ValueError(f"{where}: is not an image; replace or remove it") from error
    except Exception as error:  # OSError, SyntaxError, ValueError, struct.error: a decoder meets bad bytes in many ways
        raise ValueError(f"{where}: cannot be decoded ({sources.first_line(error)}); replace or remove it") from error
    return mode, np.ascontiguousarray(pixels[None] if mode == "L" else pixels.transpose(2, 0, 1))


def _crop(image: Image.Image, size: int) -> Image.Image:
    """Resize the short side to `size`, then cut out the centre: the paper's min-resized centre crop."""
    width, height = image.size
    if (width, height) != (size, size):
        short = min(width, height)
        width, height = max(size, round(width * size / short)), max(size, round(height * size / short))
        left, top = (width - size) // 2, (height - size) // 2
        image = image.resize((width, height), Image.Resampling.BICUBIC)  # antialiases
        image = image.crop((left, top, left + size, top + size))
    return image


# --- reading -------------------------------------------------------------------------------------------------------


def _read(name: str, folder: Path, split: str, limit: int) -> ImageSet:
    """Read the wanted rows of a packed set. A damaged set is one clear error."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if (there := (folder / "x.npy").stat().st_size) != meta["bytes"]:
            raise ValueError(f"x.npy has {there} bytes of {meta['bytes']}")
        array = np.load(folder / "x.npy", mmap_mode="c")  # torch wants to be able to write; c keeps that off the disk
        y = torch.from_numpy(np.load(folder / "y.npy"))
        table = None
        if "attributes" in meta:
            table = pd.read_csv(folder / "attributes.csv", keep_default_na=False, na_values=[""])
            table = table.astype(meta["attributes"])
        if {len(array), len(y), len(array if table is None else table)} != {meta["shape"][0]}:
            raise ValueError("its parts differ in length")
        splits = {s: (part["start"], part["stop"], part["sha256"]) for s, part in meta["splits"].items()}
        classes = tuple(meta["classes"])
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise _damaged(folder, sources.first_line(error)) from error

    wanted = list(splits) if split == "all" else split.split("+")
    for s in wanted:
        if s not in splits:
            raise ValueError(f"{name} has no split {s!r}: it has {', '.join(splits)}; join several by +, or say all")
    rows = np.concatenate([np.arange(*splits[s][:2]) for s in wanted])
    in_memory = len(rows) * array[0].nbytes <= IN_MEMORY
    if in_memory and not 0 < limit < len(rows):
        for start, stop, sha256 in (splits[s] for s in wanted):
            if _sha256(array[start:stop]) != sha256:
                raise _damaged(folder, "x.npy does not have the checksum it was packed with")
    if 0 < limit < len(rows):
        rows = rows[np.arange(limit) * len(rows) // limit]
    if np.all(np.diff(rows) == 1):  # a slice is a view, of the file where the file is large
        x = array[rows[0] : rows[-1] + 1]
        x = np.array(x) if in_memory else x
    else:
        x = array[rows]
    attributes = None if table is None else table.iloc[rows].reset_index(drop=True)
    return ImageSet(name, torch.from_numpy(x), y[rows], classes, attributes)


def _damaged(folder: Path, why: str) -> ValueError:
    return ValueError(f"{folder}: a damaged packed set ({why}); delete this folder and the set is packed again")


def _sha256(x: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(x)).hexdigest()
