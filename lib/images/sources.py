"""Where images come from: what each source holds, and how to read it once, in its own order.

Sets come drawn, embedded, downloaded by torchvision, as folders and as tar archives, some larger than memory. Each is
described here as a list of keys and a stream of undecoded images; `data` packs them. Nothing is extracted to disk.
"""

import contextlib
import hashlib
import io
import os
import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from lib.images import faces, pen, rooms
from lib.study import paths

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
SPLITS = ("train", "val", "valid", "validation", "test", "extra", "unlabelled", "unlabeled")  # folders so called
ATTRIBUTES = "attributes.csv"
NAMES = (
    "digits, toy-faces[:N], toy-rooms[:N], mnist, cifar10, svhn, celeba, lfw, lsun:CATEGORY_SPLIT, pets, coco, "
    "tar:PATH, folder:PATH"
)

Decode = Callable[[], Image.Image]


@dataclass(frozen=True)
class Source:
    """Something to pack. Keys, images and rows of attributes are in one order, the source's own."""

    keys: list[tuple[str, str, str]]  # (split, class, file name) per image; class "" where there is none
    read: Callable[[], Iterator[tuple[str, Decode]]]  # (where the image lies, for errors; how to open it) per image
    attributes: pd.DataFrame | None = None


def find(name: str, size: int, root: Path, split: str) -> tuple[str, Callable[[], Source]]:
    """Return a fingerprint, which changes when the source does, and a function that opens the source.

    What is cheap to check is checked here, what needs reading is read by the function. Raises ValueError for a name
    that does not exist, FileNotFoundError for a path.
    """
    kind, colon, rest = name.partition(":")
    if kind in ("tar", "folder") and rest:
        return _find_files(kind, rest)
    if kind in ("toy-faces", "toy-rooms"):
        if not (rest.isdecimal() and int(rest) >= 5) and colon:
            raise ValueError(f"data set {name!r}: say {kind}:N with a whole number N of at least 5")
        drawn = faces if kind == "toy-faces" else rooms
        code = b"".join(Path(module.__file__).read_bytes() for module in (pen, drawn))
        # a changed drawing is packed anew
        return hashlib.sha256(code).hexdigest(), partial(_toys, kind, int(rest or 10_000), size)
    if name == "digits":
        return "", partial(_digits, size)
    if kind in TORCHVISION and bool(rest) == (kind == "lsun"):
        # SVHN's 531,131 easy extra images are fetched for those only who ask for them
        wanted = "extra" if kind == "svhn" and "extra" in split.split("+") else rest
        return wanted, partial(_torchvision, kind, wanted, root / "downloads")
    raise ValueError(f"unknown data set {name!r}: choose one of {NAMES}")


# --- embedded ------------------------------------------------------------------------------------------------------


def _digits(size: int) -> Source:
    """scikit-learn's 1,797 digits of 8x8, at 3/4 of the image's side on its background, 1,297 to train on."""
    data = load_digits()
    small = np.rint(data.images * (255 / 16)).astype(np.uint8)
    test = set(train_test_split(range(len(small)), test_size=500, stratify=data.target, random_state=0)[1])
    side = max(1, round(size * 3 / 4))
    offset = (size - side) // 2

    def pad(i: int) -> Image.Image:
        image = Image.new("L", (size, size))
        image.paste(Image.fromarray(small[i]).resize((side, side), Image.Resampling.BICUBIC), (offset, offset))
        return image

    keys = [("test" if i in test else "train", str(y), f"{i:04d}") for i, y in enumerate(data.target)]
    return Source(keys, lambda: ((f"digits {i}", partial(pad, i)) for i in range(len(keys))))


def _toys(kind: str, n: int, size: int) -> Source:
    """Draw n images to train on (seed 0) and n // 5 to test on (seed 1)."""
    draw = faces.draw_faces if kind == "toy-faces" else rooms.draw_rooms
    drawn = {"train": draw(n, size, seed=0), "test": draw(n // 5, size, seed=1)}
    keys = [(split, "all", f"{i:08d}") for split, (x, _) in drawn.items() for i in range(len(x))]
    images = chain.from_iterable(x for x, _ in drawn.values())  # (3, size, size) each
    attributes = pd.concat([frame for _, frame in drawn.values()], ignore_index=True)
    opened = [partial(Image.fromarray, np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images]
    return Source(keys, lambda: ((f"{kind} {i}", decode) for i, decode in enumerate(opened)), attributes)


# --- files and archives --------------------------------------------------------------------------------------------


def _find_files(kind: str, path: str) -> tuple[str, Callable[[], Source]]:
    """Resolve a path or glob to archives or folders."""
    literal = Path(path).expanduser()
    pattern = literal.resolve() if literal.exists() else paths.find_source(path)
    found = [pattern] if pattern.exists() else sorted(pattern.parent.glob(pattern.name))
    if not found:
        raise FileNotFoundError(
            f"{pattern}: no such {kind}; paths are looked up as they stand, in STUDY_SOURCES and in STUDY_DATA"
        )
    for place in found:
        if place.is_dir() != (kind == "folder"):
            right = "folder" if place.is_dir() else "tar"
            raise ValueError(f"{place}: is no {kind}; load it as {right}:{path}")
    scan = _scan_tar if kind == "tar" else _scan_folder
    stamped = found if kind == "tar" else sorted(chain.from_iterable(_walk(place) for place in found))
    stamps = [f"{p.resolve()} {s.st_size} {s.st_mtime_ns}" for p in stamped if not p.is_dir() for s in [p.stat()]]
    return "\n".join(stamps), partial(_files, found, scan)


# What a scan yields: the name of a file inside the place with a way to read it, of a folder with None.
Scan = Callable[[Path], Iterator[tuple[str, Callable[[], io.BytesIO] | None]]]


def _files(places: list[Path], scan: Scan) -> Source:
    """List the images of the places, and join the rows of attributes.csv to them."""
    names, folders, tables = [], set(), []
    for place in places:
        for name, opener in scan(place):
            if opener is None:
                folders.add(name)
            elif PurePosixPath(name).name == ATTRIBUTES:
                tables.append(_read_attributes(f"{place}: {name}", opener))
            elif _is_image(name):
                names.append(name)
    where = ", ".join(map(str, places))
    if not names:
        raise ValueError(
            f"{where}: holds no images; expected split/class/file with one of {' '.join(sorted(IMAGE_SUFFIXES))}"
        )
    empty = folders - {str(parent) for name in names for parent in PurePosixPath(name).parents}
    if empty:
        raise ValueError(f"{where}: folder {min(empty)} holds no images; remove it or fill it")
    keys = _keys(names)
    if len(set(keys)) < len(keys):
        twice = next(key for key, after in zip(sorted(keys), sorted(keys)[1:], strict=False) if key == after)
        raise ValueError(f"{where}: {'/'.join(filter(None, twice))} is there twice; name each archive once")

    def read() -> Iterator[tuple[str, Decode]]:
        for place in places:
            for name, opener in scan(place):
                if opener is not None and _is_image(name):
                    if scan is _scan_tar:  # which only goes forward: read now, decode when there is time
                        opener = partial(io.BytesIO, opener().getvalue())
                    yield f"{place}: {name}", lambda opener=opener: Image.open(opener())

    return Source(keys, read, _join(tables, [file for _, _, file in keys], where) if tables else None)


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def _is_hidden(name: str) -> bool:
    """Tell whether a desktop or a version control put this file there."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield what is under a folder, sorted, following links."""
    for here, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        yield from (Path(here, name) for name in sorted(folders + files))


def _scan_folder(folder: Path) -> Iterator[tuple[str, Callable[[], io.BytesIO] | None]]:
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if not _is_hidden(name):
            yield name, None if path.is_dir() else lambda path=path: io.BytesIO(path.read_bytes())


def _scan_tar(path: Path) -> Iterator[tuple[str, Callable[[], io.BytesIO] | None]]:
    """Yield an archive's members; each must be read before the next is asked for."""
    with _reading_tar(path), tarfile.open(path, tarinfo=_StrictHeader) as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # tarfile would remember every member
            name = str(PurePosixPath(member.name.lstrip("/")))
            if not _is_hidden(name) and (member.isfile() or member.isdir()):
                yield name, None if member.isdir() else partial(_read_member, path, archive, member)


class _StrictHeader(tarfile.TarInfo):
    """A member's header. A block of zeros ends an archive; tarfile takes a bad or a missing header for its end, too."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(first_line(error)) from error


def _read_member(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> io.BytesIO:
    with _reading_tar(path):
        return io.BytesIO(archive.extractfile(member).read())


@contextlib.contextmanager
def _reading_tar(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(
            f"{path}: truncated or not an archive ({first_line(error)}); copy or download it again"
        ) from error


def _keys(names: Sequence[str]) -> list[tuple[str, str, str]]:
    """Read (split, class, file) from paths: split/class/file, class/file or files, under any common folders."""
    paths_ = [PurePosixPath(name).parts for name in names]
    while len({p[0] for p in paths_}) == 1 and min(map(len, paths_)) > 1 and paths_[0][0].lower() not in SPLITS:
        paths_ = [p[1:] for p in paths_]
    tops = {p[0].lower() for p in paths_ if len(p) > 1}
    keys = []
    for p in paths_:
        split, rest = (p[0].lower(), p[1:]) if len(p) > 1 and tops <= set(SPLITS) else ("train", p)
        keys.append((split, rest[0], "/".join(rest[1:])) if len(rest) > 1 else (split, "", rest[0]))
    return keys


def _read_attributes(where: str, opener: Callable[[], io.BytesIO]) -> pd.DataFrame:
    """Read a table whose first column is the image's file name."""
    try:
        return pd.read_csv(opener(), index_col=0)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{where}: cannot be read as a table ({first_line(error)})") from error


def _join(tables: list[pd.DataFrame], files: list[str], where: str) -> pd.DataFrame:
    """Return one row of attributes per file."""
    table = pd.concat(tables)
    for kind, names in (("row", table.index), ("image", pd.Index(files))):
        if names.has_duplicates:
            raise ValueError(
                f"{where}: {ATTRIBUTES} goes by file name, but {names[names.duplicated()][0]} has a second {kind}"
            )
    missing = next((file for file in files if file not in table.index), None)
    if missing is not None:
        raise ValueError(f"{where}: {ATTRIBUTES} has no row for {missing}; add it or remove the image")
    return table.loc[files].reset_index(drop=True)


# --- torchvision ---------------------------------------------------------------------------------------------------

# A part of a set: the split's name, the data set, and each image's class and file name.
Part = tuple[str, Any, Sequence[str], Sequence[str]]


def _torchvision(kind: str, wanted: str, folder: Path) -> Source:
    """Open one of torchvision's sets in `folder`, downloading it where torchvision can."""
    try:
        parts = TORCHVISION[kind](folder, wanted)
    except Exception as error:  # RuntimeError, URLError, lmdb.Error, KeyError, ...: the set is not there, or not whole
        raise ValueError(
            f"{kind}: not found in {folder} and not downloaded ({first_line(error)}); put the original files there "
            "as torchvision expects them, or use a copy by tar:PATH or folder:PATH"
        ) from error
    keys = [(split, c, file) for split, _, classes, files in parts for c, file in zip(classes, files, strict=True)]
    attributes = None
    if kind == "celeba":  # torchvision turns the file's -1 and 1 into 0 and 1, and keeps its header's empty last name
        names = [name for name in parts[0][1].attr_names if name]
        attributes = pd.DataFrame(np.concatenate([d.attr.numpy() for _, d, _, _ in parts]) * 2 - 1, columns=names)

    def read() -> Iterator[tuple[str, Decode]]:
        for split, dataset, _, files in parts:
            for i, file in enumerate(files):
                yield f"{kind} {split} {file} in {folder}", lambda dataset=dataset, i=i: dataset[i][0]

    return Source(keys, read, attributes)


def _numbers(n: int) -> list[str]:
    return [f"{i:07d}" for i in range(n)]


def _mnist(folder: Path, wanted: str) -> list[Part]:
    from torchvision import datasets  # here and below: a second of import that most sessions do without

    sets = {split: datasets.MNIST(folder, split == "train", download=True) for split in ("train", "test")}
    return [(split, d, [str(y) for y in d.targets.tolist()], _numbers(len(d))) for split, d in sets.items()]


def _cifar10(folder: Path, wanted: str) -> list[Part]:
    from torchvision import datasets

    # torchvision unpickles the batches, after it has compared their MD5 with the published ones
    sets = {split: datasets.CIFAR10(folder, split == "train", download=True) for split in ("train", "test")}
    return [(split, d, [d.classes[y] for y in d.targets], _numbers(len(d))) for split, d in sets.items()]


def _svhn(folder: Path, wanted: str) -> list[Part]:
    from torchvision import datasets

    splits = ("train", "test", "extra") if wanted == "extra" else ("train", "test")
    sets = {split: datasets.SVHN(folder / "svhn", split, download=True) for split in splits}
    return [(split, d, [str(y) for y in d.labels.tolist()], _numbers(len(d))) for split, d in sets.items()]


def _celeba(folder: Path, wanted: str) -> list[Part]:
    from torchvision import datasets

    sets = {split: datasets.CelebA(folder, split, download=True) for split in ("train", "valid", "test")}
    return [(split, d, ["all"] * len(d), d.filename) for split, d in sets.items()]


def _lfw(folder: Path, wanted: str) -> list[Part]:
    from torchvision import datasets

    parts = []
    for split in ("train", "test"):  # by person: nobody is in both, together they are all 13,233 images
        d = datasets.LFWPeople(folder, split)  # funneled; its site is gone, there is no download
        parts.append((split, d, [Path(file).parent.name for file in d.data], [Path(file).name for file in d.data]))
    return parts


def _lsun(folder: Path, wanted: str) -> list[Part]:
    from torchvision import datasets

    folder = (folder / "lsun").resolve()
    # torchvision leaves a pickled list of keys in the working folder, and would load one that it finds there
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        sets = datasets.LSUN(str(folder), wanted if wanted in ("train", "val", "test") else [wanted])
    parts = []
    for name, d in zip(sets.classes, sets.dbs, strict=True):
        category, _, split = name.rpartition("_")
        parts.append((split, d, [category] * len(d), [key.decode() for key in d.keys]))
    return parts


def _pets(folder: Path, wanted: str) -> list[Part]:
    from torchvision import datasets

    splits = {"train": "trainval", "test": "test"}
    sets = {split: datasets.OxfordIIITPet(folder, theirs, download=True) for split, theirs in splits.items()}
    return [
        (split, d, [d.classes[y] for y in d._labels], [path.name for path in d._images]) for split, d in sets.items()
    ]


def _coco(folder: Path, wanted: str) -> list[Part]:
    """COCO val2017; an image's class is the stuff that covers most of it, as report 003 wants one label each."""
    from torchvision import datasets

    folder = folder / "coco"
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        d = datasets.CocoDetection(folder / "val2017", str(folder / "annotations" / "stuff_val2017.json"))
    categories = {i: c["name"] for i, c in d.coco.cats.items() if c["supercategory"] != "other"}  # "other": the things
    classes = []
    for image in d.ids:
        areas = dict.fromkeys(categories, 0.0)
        for annotation in d.coco.imgToAnns[image]:
            if annotation["category_id"] in areas:
                areas[annotation["category_id"]] += annotation["area"]
        largest = max(areas, key=areas.__getitem__, default=None)
        classes.append(categories[largest] if largest is not None and areas[largest] > 0 else "")
    return [("val", d, classes, [d.coco.imgs[image]["file_name"] for image in d.ids])]


TORCHVISION = {
    "mnist": _mnist,
    "cifar10": _cifar10,
    "svhn": _svhn,
    "celeba": _celeba,
    "lfw": _lfw,
    "lsun": _lsun,
    "pets": _pets,
    "coco": _coco,
}


def first_line(error: BaseException) -> str:
    """Return the first line of an error, or its name where it has no text."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
