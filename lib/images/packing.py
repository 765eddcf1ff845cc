"""A source's images, decoded once per size into one uint8 array on disk.

A picture comes in as a viewer shows it: turned as its camera was held, transparency laid on white, colours in sRGB, of
several frames the first. A packed set is whole or absent: it is written to a folder of another name and renamed when it
is complete; `meta.json` holds the digest of each of its files.
"""

import hashlib
import io
import json
import os
import shutil
import sys
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from lib.images import labels
from lib.images.files import Decode, first_line
from lib.images.sources import Source
from lib.study import manifest

VERSIONS = {"packing": 1}  # raise it, and data.FORMAT, when a packed pixel changes
WORKERS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
HEADER = 128  # bytes of x.npy before its pixels
BLOCK = 4096  # images that are put into order at once
NAMED = 10  # of the images that cannot be decoded
FLAT = 16  # grey levels; a set that spans fewer has no contrast
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners fill of 16
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EXACT = (0.49139968, 0.48215841, 0.44653091)  # the mean of CIFAR-10's 50,000 training images, red, green and blue


class Picture(NamedTuple):
    """A decoded image. In one of 16-bit grey, red and green hold each value's high and low byte: the set scales it."""

    pixels: np.ndarray  # uint8 (3, size, size)
    kind: str  # grey, colour, deep grey, deep colour
    largest: int = 0  # of a deep image's values
    traits: tuple[str, ...] = ()


def say(name: str, text: str) -> None:
    """Tell the user something about a set."""
    tqdm.write(f"{name}: {text}", file=sys.stderr)


def pack(name: str, size: int, source: Source, folder: Path, crop: bool = False) -> None:
    """Write a packed set under another name, and rename it when it is whole.

    crop: cut the centres out of the images as they are, in place of resizing these first. Raises ValueError where the
    source cannot be read, OSError where nothing can be written.
    """
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    for remains in (unfinished, folder):  # of a process that was killed; of a set without its meta.json
        shutil.rmtree(remains, ignore_errors=True)
    unfinished.mkdir()
    try:
        kinds, bits, notes = _decode_all(name, size, source, unfinished / "decoded", crop)
        keys, attributes, said = source.describe()
        keys = [(labels.split_of(split) or split, c, file) for split, c, file in keys]
        order = sorted(range(len(keys)), key=keys.__getitem__)  # row -> image
        keys = [keys[i] for i in order]
        x = _arrange(unfinished, np.array(order), np.array(kinds), bits, size)
        classes, y, strange = labels.number(keys)
        np.save(unfinished / "y.npy", y)
        names = "".join("/".join(filter(None, key)).replace("\n", " ") + "\n" for key in keys)
        (unfinished / "names.txt").write_text(names, encoding="utf-8")
        meta = {"name": name, "size": size, "shape": x.shape, "classes": classes, "splits": {}}
        if attributes is not None:
            attributes.iloc[order].to_csv(unfinished / "attributes.csv", index=False)
            meta["attributes"] = {str(column): str(dtype) for column, dtype in attributes.dtypes.items()}
        start = 0
        for split, count in sorted(Counter(split for split, _, _ in keys).items()):
            sha256 = hashlib.sha256(x[start : start + count]).hexdigest()
            meta["splits"][split] = {"start": start, "stop": (start := start + count), "sha256": sha256}
        meta["notes"] = [*said, *strange, *notes, *_look(x, classes, meta["splits"])]
        for note in meta["notes"]:
            say(name, note)
        meta["files"] = {path.name: manifest.of_file(path) for path in sorted(unfinished.iterdir())}
        (unfinished / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _decode_all(name: str, size: int, source: Source, path: Path, crop: bool) -> tuple[list[str], int, list[str]]:
    """Write every image's pixels in the source's order. Returns each one's kind, the bits of grey, and notes.

    Raises ValueError that names the first images which cannot be decoded, and counts them.
    """
    kinds, traits, largest, bad = [], Counter(), {"deep grey": 0, "deep colour": 0}, []
    # Written, not memory-mapped: on a full disk a write raises an error, and a page that cannot be stored kills us.
    with path.open("wb") as file, warnings.catch_warnings(), tqdm(
        desc=f"packing {name} at {size}", unit=" images", delay=3, mininterval=10
    ) as bar:  # fmt: skip
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata
        file.write(bytes(HEADER))
        for picture in _decoded(source, size, crop):
            bar.total = source.total
            bar.update()
            if isinstance(picture, ValueError):
                bad.append(str(picture))
                continue
            file.write(picture.pixels)
            kinds.append(picture.kind)
            traits.update(picture.traits)
            if picture.kind in largest:
                largest[picture.kind] = max(largest[picture.kind], picture.largest)
        file.flush()
        os.fsync(file.fileno())
    if bad:
        count = f"{len(bad)} images, the first {NAMED}: " if len(bad) > NAMED else ""
        raise ValueError(f"{count}{'; '.join(bad[:NAMED])}; replace or remove {'them' if len(bad) > 1 else 'it'}")
    if 0 < largest["deep colour"] < 64:  # Pillow keeps the high byte of each, which is nearly black
        raise ValueError(
            f"{name}: its images of 16 bits a colour fill less than 14 of them; save them scaled to 8 bits"
        )
    bits = next(bits for bits in DEPTHS if largest["deep grey"] < 2**bits)
    notes = [f"{count} images {what}" for what, count in sorted(traits.items())]
    deep, grey = kinds.count("deep grey"), sum("grey" in kind for kind in kinds)
    if 0 < grey < len(kinds):
        notes.append(f"{grey} of {len(kinds)} images are grey, and are packed in colour as the others are")
    if deep:
        notes.append(f"{deep} images have 16 bits of grey, scaled from the {bits} bits that the set fills")
    return kinds, bits, notes


def _decoded(source: Source, size: int, crop: bool) -> Iterator[Picture | ValueError]:
    """Yield every image in the source's order, some being decoded ahead, or what is wrong with it."""
    pending = deque()
    with ThreadPoolExecutor(WORKERS) as pool:  # Pillow lets go of the interpreter's lock
        for where, decode in source.read():
            pending.append(pool.submit(_try_to_decode, where, decode, size, crop))
            if len(pending) > 16 * WORKERS:  # so many are decoded ahead
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _try_to_decode(where: str, decode: Decode, size: int, crop: bool) -> Picture | ValueError:
    try:
        return to_picture(decode(), size, crop)
    except UnidentifiedImageError:
        return ValueError(f"{where}: is not an image")
    except Exception as error:  # OSError, SyntaxError, struct.error, ...: a decoder meets bad bytes in many ways
        return ValueError(f"{where}: cannot be decoded ({first_line(error)})")


def to_picture(image: Image.Image, size: int, crop: bool = False) -> Picture:
    """Return what a viewer shows of an image, its short side resized to `size` and its centre cut out.

    crop: its centre is cut out as it is, nothing resized. Raises ValueError for an image that is too small for that,
    and for values that have no stated scale: floats outside [0, 1], whole numbers over 16 bits.
    """
    raw = str(image.tile[0][3]) if getattr(image, "tile", None) else ""  # as it lies in the file; gone once it is read
    image.load()
    many = getattr(image, "is_animated", False) and image.format != "MPO"
    traits = (f"have several frames ({image.format}), of which the first is taken",) if many else ()
    profile = image.info.get("icc_profile")
    with suppress(Exception):  # EXIF that no viewer can read either
        image = ImageOps.exif_transpose(image)
    grey = image.mode[0] in "1LIF" and image.mode != "LAB"
    if image.mode[0] in "IF":
        return _deep_grey(image, size, crop, traits)
    if image.has_transparency_data:
        image = image.convert("LA" if grey else "RGBA")
        canvas = Image.new("L" if grey else "RGB", image.size, "white")
        canvas.paste(image, mask=image.getchannel("A"))
        image = canvas
    elif image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("L" if grey else "RGB")
    image = _cut(image, size, crop)
    if profile and not grey and (transform := _to_srgb(profile, image.mode)):
        image = transform.apply(image)
    pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1).copy()
    if ";16" in raw:
        return Picture(pixels, "deep colour", int(pixels.max()), traits)
    return Picture(pixels, "grey" if grey else "colour", 0, traits)


def _deep_grey(image: Image.Image, size: int, crop: bool, traits: tuple[str, ...]) -> Picture:
    """Return an image of floats or of more than 8 bits: floats in [0, 1] as 8 bits, others as two bytes."""
    values = np.asarray(image).astype(np.float32)
    low, high = float(values.min()), float(values.max())
    most = 1 if image.mode == "F" else 65535
    if not (low >= 0 and high <= most):  # nor where any value is no number
        raise ValueError(f"its values from {low:g} to {high:g} have no known scale; save it in 8 or 16 bits of grey")
    cropped = np.asarray(_cut(Image.fromarray(values), size, crop))
    if image.mode == "F":
        grey = (cropped * 255).round().clip(0, 255).astype(np.uint8)
        return Picture(np.stack([grey] * 3), "grey", 0, traits)
    value = cropped.round().clip(0, 65535).astype(np.uint16)
    return Picture(np.stack([value >> 8, value & 255, value & 0]).astype(np.uint8), "deep grey", int(high), traits)


@lru_cache(maxsize=64)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return what turns colours of an embedded profile into sRGB; None for sRGB itself and for a profile of no use."""
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(own):
            return None
        return ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def _cut(image: Image.Image, size: int, crop: bool) -> Image.Image:
    """Resize the short side to `size` and cut out the centre: the paper's min-resized centre crop; or only cut."""
    short = min(image.size)
    if crop:
        if short < size:
            raise ValueError(f"it has {image.width} x {image.height} pixels, too few to cut {size} x {size} out of")
        left, top = ((side - size) // 2 for side in image.size)
        return image.crop((left, top, left + size, top + size))
    left, top = ((side - short) / 2 for side in image.size)
    return image.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + short, top + short))  # antialiases


def _arrange(folder: Path, order: np.ndarray, kinds: np.ndarray, bits: int, size: int) -> np.ndarray:
    """Turn what was decoded into x.npy, rows in order, one channel where all are grey. Returns it, memory-mapped."""
    n, deep = len(order), kinds == "deep grey"
    shape = (n, 3 if any("colour" in kind for kind in set(kinds.tolist())) else 1, size, size)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    if shape[1] == 3 and not deep.any() and np.array_equal(order, np.arange(n)):
        with (folder / "decoded").open("r+b") as file:
            file.write(header.getvalue())
        (folder / "decoded").rename(folder / "x.npy")
    else:
        decoded = np.memmap(folder / "decoded", np.uint8, "r", HEADER, (n, 3, size, size))
        with (folder / "x.npy").open("wb") as file:
            file.write(header.getvalue())
            for start in range(0, n, BLOCK):
                rows = order[start : start + BLOCK]
                block = decoded[rows]
                high, low = block[deep[rows], :2].astype(float).swapaxes(0, 1)
                scaled = ((256 * high + low) * 255 / (2**bits - 1)).round().clip(0, 255)
                block[deep[rows]] = scaled[:, None]
                file.write(np.ascontiguousarray(block[:, : shape[1]]))
            file.flush()
            os.fsync(file.fileno())
        (folder / "decoded").unlink()
    return np.load(folder / "x.npy", mmap_mode="r")


def _look(x: np.ndarray, classes: tuple[str, ...], splits: dict) -> list[str]:
    """Return what the pixels themselves give away."""
    notes, ends = [], [(b.min(), b.max()) for b in (x[i : i + BLOCK] for i in range(0, len(x), BLOCK))]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    if int(high) - int(low) < FLAT:
        notes.append(f"a set without contrast: all its values lie between {low} and {high} of 0 to 255")
    train = x[splits["train"]["start"] : splits["train"]["stop"]] if "train" in splits else x[:0]
    if classes == CIFAR10 and train.shape == (50_000, 3, 32, 32):
        mean = train.mean((0, 2, 3), dtype=np.float64) / 255
        if np.abs(mean - EXACT).max() > 1e-6:
            own, exact = (", ".join(f"{value:.5f}" for value in values) for values in (mean, EXACT))
            notes.append(f"not the exact CIFAR-10, its mean is {own} and not {exact}: a lossy copy costs accuracy")
    return notes
