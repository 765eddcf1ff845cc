"""The sets that go by a name: embedded, drawn, downloaded by torchvision; and what a name means.

Each source is a stream of undecoded images in its own order, with keys and attributes that are known at its end;
`packing` writes them. Nothing is extracted to disk.
"""

import contextlib
import hashlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from lib.images import faces, pictures, rooms
from lib.images.files import Decode, Described, Files, find_places, first_line
from lib.images.labels import Key
from lib.study import manifest

NAMES = (
    "digits, toy-faces[:N], toy-rooms[:N], mnist, cifar10, svhn, celeba, lfw, lsun:CATEGORY_SPLIT, pets, coco, "
    "tar:PATH, folder:PATH; crop: before any of them cuts centres out"
)
EXACT_CIFAR10 = "cifar10-exact-*.tar.gz"  # lossless images of CIFAR-10, which `cifar10` reads where its own are missing


class Known:
    """A source whose keys and attributes are known before it is read."""

    def __init__(
        self, keys: list[Key], read: Callable[[], Iterator[tuple[str, Decode]]], attributes: pd.DataFrame | None = None
    ) -> None:
        self.read, self.total, self.described = read, len(keys), (keys, attributes, [])

    def describe(self) -> Described:
        return self.described


Source = Known | Files  # something to pack: `total`, `read` and `describe`


def find(name: str, size: int, root: Path, split: str) -> tuple[str, Callable[[], Source]]:
    """Return a fingerprint, which changes when the source does, and a function that opens the source.

    What is cheap to check is checked here, what needs reading is read by the function; `crop:` before the name is for
    who packs the images. Raises ValueError for a name that does not exist, FileNotFoundError for a path.
    """
    name = name.removeprefix(manifest.CROP)
    kind, colon, rest = name.partition(":")
    missing = name == "cifar10" and not (root / "downloads" / "cifar-10-batches-py").is_dir()
    if missing and manifest.places(EXACT_CIFAR10):
        kind, rest = "tar", EXACT_CIFAR10
    if kind in ("tar", "folder") and rest:
        find_places(kind, rest)
        return manifest.of_images(f"{kind}:{rest}"), partial(Files, kind, rest)
    if kind in ("toy-faces", "toy-rooms"):
        if not (rest.isdecimal() and int(rest) >= 5) and colon:
            raise ValueError(f"data set {name!r}: say {kind}:N with a whole number N of at least 5")
        drawn = faces if kind == "toy-faces" else rooms
        code = b"".join(Path(module.__file__).read_bytes() for module in (pictures, drawn))
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


def _digits(size: int) -> Known:
    """scikit-learn's 1,797 digits of 8x8, at 3/4 of the image's side on its background, 1,297 to train on."""
    from sklearn.datasets import load_digits  # seconds of import, which a batch that is only checked does without
    from sklearn.model_selection import train_test_split

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
    return Known(keys, lambda: ((f"digits {i}", partial(pad, i)) for i in range(len(keys))))


def _toys(kind: str, n: int, size: int) -> Known:
    """Draw n images to train on (seed 0) and n // 5 to test on (seed 1)."""
    draw = faces.draw_faces if kind == "toy-faces" else rooms.draw_rooms
    drawn = {"train": draw(n, size, seed=0), "test": draw(n // 5, size, seed=1)}
    keys = [(split, "all", f"{i:08d}") for split, (x, _) in drawn.items() for i in range(len(x))]
    images = chain.from_iterable(x for x, _ in drawn.values())  # (3, size, size) each
    attributes = pd.concat([frame for _, frame in drawn.values()], ignore_index=True)
    opened = [partial(Image.fromarray, np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images]
    return Known(keys, lambda: ((f"{kind} {i}", decode) for i, decode in enumerate(opened)), attributes)


# --- torchvision ---------------------------------------------------------------------------------------------------

# A part of a set: the split's name, the data set, and each image's class and file name.
Part = tuple[str, Any, Sequence[str], Sequence[str]]


def _torchvision(kind: str, wanted: str, folder: Path) -> Known:
    """Open one of torchvision's sets in `folder`, downloading it where torchvision can."""
    from torchvision import datasets  # a second of import that most sessions do without

    try:
        parts = TORCHVISION[kind](datasets, folder, wanted)
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

    return Known(keys, read, attributes)


def _numbers(n: int) -> list[str]:
    return [f"{i:07d}" for i in range(n)]


def _mnist(datasets: ModuleType, folder: Path, wanted: str) -> list[Part]:
    sets = {split: datasets.MNIST(folder, split == "train", download=True) for split in ("train", "test")}
    return [(split, d, [str(y) for y in d.targets.tolist()], _numbers(len(d))) for split, d in sets.items()]


def _cifar10(datasets: ModuleType, folder: Path, wanted: str) -> list[Part]:
    # torchvision unpickles the batches, after it has compared their MD5 with the published ones
    sets = {split: datasets.CIFAR10(folder, split == "train", download=True) for split in ("train", "test")}
    return [(split, d, [d.classes[y] for y in d.targets], _numbers(len(d))) for split, d in sets.items()]


def _svhn(datasets: ModuleType, folder: Path, wanted: str) -> list[Part]:
    splits = ("train", "test", "extra") if wanted == "extra" else ("train", "test")
    sets = {split: datasets.SVHN(folder / "svhn", split, download=True) for split in splits}
    return [(split, d, [str(y) for y in d.labels.tolist()], _numbers(len(d))) for split, d in sets.items()]


def _celeba(datasets: ModuleType, folder: Path, wanted: str) -> list[Part]:
    sets = {split: datasets.CelebA(folder, split, download=True) for split in ("train", "valid", "test")}
    return [(split, d, ["all"] * len(d), d.filename) for split, d in sets.items()]


def _lfw(datasets: ModuleType, folder: Path, wanted: str) -> list[Part]:
    parts = []
    for split in ("train", "test"):  # by person: nobody is in both, together they are all 13,233 images
        d = datasets.LFWPeople(folder, split)  # funneled; its site is gone, there is no download
        parts.append((split, d, [Path(file).parent.name for file in d.data], [Path(file).name for file in d.data]))
    return parts


def _lsun(datasets: ModuleType, folder: Path, wanted: str) -> list[Part]:
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


def _pets(datasets: ModuleType, folder: Path, wanted: str) -> list[Part]:
    splits = {"train": "trainval", "test": "test"}
    sets = {split: datasets.OxfordIIITPet(folder, theirs, download=True) for split, theirs in splits.items()}
    return [
        (split, d, [d.classes[y] for y in d._labels], [path.name for path in d._images]) for split, d in sets.items()
    ]


def _coco(datasets: ModuleType, folder: Path, wanted: str) -> list[Part]:
    """COCO val2017; an image's class is the stuff that covers most of it, as report 003 wants one label each."""
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
    "mnist": _mnist, "cifar10": _cifar10, "svhn": _svhn, "celeba": _celeba, "lfw": _lfw, "lsun": _lsun, "pets": _pets,
    "coco": _coco,
}  # fmt: skip
