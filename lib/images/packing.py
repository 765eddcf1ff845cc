"""A source's images, decoded once per size into one uint8 array on disk.

A packed set is whole or absent: it is written to a folder of another name and renamed when it is complete; `meta.json`
holds the digest of each of its files, with which they are compared when it is opened.
"""

import hashlib
import io
import json
import os
import re
import shutil
import sys
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import AcquireReturnProxy, FileLock, Timeout
from PIL import UnidentifiedImageError
from tqdm import tqdm

from lib.images import labels, sources
from lib.images.files import Decode, first_line
from lib.images.pictures import Picture, to_picture
from lib.images.sources import Source
from lib.study import manifest, paths

VERSIONS = {"packing": 1}  # raise it, and FORMAT, when a packed pixel changes
FORMAT = 2  # of a packed set; raise it when packing changes, and every set is packed anew
WORKERS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
HEADER = 128  # bytes of x.npy before its pixels
BLOCK = 4096  # images that are put into order at once
NAMED = 10  # of the images that cannot be decoded
FLAT = 16  # grey levels; a set that spans fewer has no contrast
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners fill of 16


def say(name: str, text: str) -> None:
    """Tell the user something about a set."""
    tqdm.write(f"{name}: {text}", file=sys.stderr)


def find(name: str, size: int, split: str, root: Path | None) -> tuple[Path, dict]:
    """Return the folder of the packed set of this name and size, making it where it is missing, and its record.

    Each file is compared with the record's digest; `manifest` reads it for this only where it has changed.
    """
    root = Path(root or paths.data_root())
    fingerprint, open_source = sources.find(name, size, root, split)
    plain = name.removeprefix(manifest.CROP)
    how = ["crop"] if plain != name else []
    kind, _, rest = plain.partition(":")
    identity = [FORMAT, kind if kind in ("tar", "folder") else plain, size, fingerprint, *how]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join([*how, kind, Path(rest).name])).strip("-")[:60]
    folder = root / "packed" / f"{slug}-{size}-{digest}"
    if not (folder / "meta.json").exists():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _lock(name, folder):
                if not (folder / "meta.json").exists():  # another process may have packed it meanwhile
                    pack(name, size, open_source(), folder, crop=bool(how))
        except OSError as error:
            if error.errno is None:
                raise
            way_out = "make room there, or set STUDY_DATA to a folder that can be written"
            raise OSError(error.errno, f"cannot pack {name} ({error.strerror}): {way_out}", str(root)) from error
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        changed = [file for file, digest in meta["files"].items() if manifest.of_file(folder / file) != digest]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(folder, first_line(error)) from error
    if changed:
        raise damaged(folder, f"{changed[0]} is not what was packed")
    return folder, meta


def _lock(name: str, folder: Path) -> AcquireReturnProxy:
    """Take the lock of a packed set, for a `with`; say so where another process has it."""
    lock = FileLock(f"{folder}.lock")
    try:
        return lock.acquire(timeout=1)
    except Timeout:
        say(name, "another process packs this set; waiting for it")
        return lock.acquire()


def damaged(folder: Path, why: str) -> ValueError:
    """Return an error that says what is wrong with a packed set, and the way out."""
    return ValueError(f"{folder}: a damaged packed set ({why}); delete this folder and the set is packed again")


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
        meta["notes"] = [*said, *strange, *notes, *_look(x)]
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


def _arrange(folder: Path, order: np.ndarray, kinds: np.ndarray, bits: int, size: int) -> np.ndarray:
    """Turn what was decoded into x.npy, rows in order, one channel where all are grey. Returns it, memory-mapped."""
    n, deep = len(order), kinds == "deep grey"
    shape = (n, 3 if any("colour" in kind for kind in set(kinds.tolist())) else 1, size, size)
    if shape[1] == 3 and not deep.any() and np.array_equal(order, np.arange(n)):
        with (folder / "decoded").open("r+b") as file:
            file.write(header(shape))
        (folder / "decoded").rename(folder / "x.npy")
    else:
        decoded = np.memmap(folder / "decoded", np.uint8, "r", HEADER, (n, 3, size, size))
        with (folder / "x.npy").open("wb") as file:
            file.write(header(shape))
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


def header(shape: tuple[int, ...]) -> bytes:
    """Return how a .npy file of uint8 begins."""
    begun = io.BytesIO()
    np.lib.format.write_array_header_1_0(begun, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return begun.getvalue()


def _look(x: np.ndarray) -> list[str]:
    """Return what the pixels themselves give away."""
    notes, ends = [], [(b.min(), b.max()) for b in (x[i : i + BLOCK] for i in range(0, len(x), BLOCK))]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    if int(high) - int(low) < FLAT:
        notes.append(f"a set without contrast: all its values lie between {low} and {high} of 0 to 255")
    return notes
