"""The sets that go by a name: drawn, embedded, and torchvision's in their true formats on disk."""

import gzip
import io
import json
import os
import pickle
import struct
from pathlib import Path

import lmdb
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from samples import colours, encode, one_line, write_folder, write_tar
from scipy.io import savemat
from torch.testing import assert_close

from lib.images import faces, pictures, rooms, sources
from lib.images.data import load, to_float
from lib.study import manifest

SOURCES = os.environ.get("STUDY_SOURCES", "")  # as it was before any test


# --- embedded ------------------------------------------------------------------------------------------------------


def test_digits():
    train, test = load("digits", 32), load("digits", 32, "test")
    assert train.x.shape == (1297, 1, 32, 32)
    assert test.x.shape == (500, 1, 32, 32)
    assert train.classes == test.classes == tuple("0123456789")
    shares = torch.bincount(train.y) / 1297, torch.bincount(test.y) / 500
    assert_close(*shares, rtol=0, atol=0.005)
    for x in (train.x, test.x):
        assert not x[:, :, :4].any()
        assert not x[..., -4:].any()
        assert x.max() == 255
    zero, one = to_float(train.x[train.y == 0]).mean(0)[0], to_float(train.x[train.y == 1]).mean(0)[0]
    assert one[16, 16] > zero[16, 16] + 0.5  # a one has ink in its middle


def draw(n: int, size: int, seed: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Images whose every pixel says which they are."""
    x = np.zeros((n, 3, size, size), np.uint8)
    x[:, 0], x[:, 1] = np.arange(n)[:, None, None], seed
    frame = pd.DataFrame({"i": np.arange(n, dtype=np.int8), "turn": np.linspace(0, 1, n, dtype=np.float32)})
    return x, frame.assign(box=np.where(frame["i"] % 2, frame["i"], np.nan))


@pytest.mark.parametrize("name", ["toy-faces", "toy-rooms"])
def test_toys_keep_order_and_attributes(monkeypatch, name):
    monkeypatch.setattr({"toy-faces": faces, "toy-rooms": rooms}[name], name.replace("toy-", "draw_"), draw)
    train, test = load(f"{name}:50", 16), load(f"{name}:50", 16, "test")
    assert colours(train) == [(i, 0, 0) for i in range(50)]
    assert colours(test) == [(i, 1, 0) for i in range(10)]
    assert train.classes == ("all",)
    assert not train.y.any()
    pd.testing.assert_frame_equal(train.attributes, draw(50, 16, 0)[1])
    pd.testing.assert_frame_equal(test.attributes, draw(10, 16, 1)[1])


@pytest.mark.parametrize("module", [faces, pictures])
def test_toys_are_drawn_again_when_their_code_changes(monkeypatch, tmp_path, module):
    monkeypatch.setattr(faces, "draw_faces", draw)
    load("toy-faces:5", 16)
    monkeypatch.setattr(faces, "draw_faces", lambda n, size, seed: draw(n, size, 9))
    assert colours(load("toy-faces:5", 16))[0] == (0, 0, 0)
    monkeypatch.setattr(module, "__file__", str(write_folder(tmp_path / "t", {"new.py": b"new"}) / "new.py"))
    assert colours(load("toy-faces:5", 16))[0] == (0, 9, 0)


def test_the_real_toys_load():
    people, places = load("toy-faces:5", 16), load("toy-rooms:5", 16)
    assert np.array_equal(people.x.numpy(), faces.draw_faces(5, 16, seed=0)[0])
    pd.testing.assert_frame_equal(people.attributes, faces.draw_faces(5, 16, seed=0)[1])
    pd.testing.assert_frame_equal(places.attributes, rooms.draw_rooms(5, 16, seed=0)[1])


# --- torchvision's sets, in their true formats ---------------------------------------------------------------------


@pytest.fixture
def downloads(tmp_path, monkeypatch) -> Path:
    """The folder of downloads, where torchvision takes small files for the published ones."""
    from torchvision.datasets import celeba, cifar, lfw, mnist, svhn, utils

    for module in (celeba, cifar, lfw, mnist, svhn, utils):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: Path(path).is_file())
    (tmp_path / "study" / "downloads").mkdir(parents=True)
    return tmp_path / "study" / "downloads"


def test_mnist(downloads):
    def idx(x: np.ndarray) -> bytes:  # two zeros, type 8 (unsigned byte), dimensions, their lengths, the bytes
        return gzip.compress(struct.pack(f">HBB{x.ndim}I", 0, 8, x.ndim, *x.shape) + x.tobytes())

    raw = downloads / "MNIST" / "raw"
    for prefix, y in (("train", [3, 1, 3]), ("t10k", [1])):
        x = np.stack([np.full((28, 28), 10 * i + 5, np.uint8) for i in range(len(y))])
        images, labels = f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"
        write_folder(raw, {images: idx(x), labels: idx(np.array(y, np.uint8))})
    train = load("mnist", 32)
    assert train.x.shape == (3, 1, 32, 32)
    assert train.classes == ("1", "3")
    assert train.y.tolist() == [0, 1, 1]
    assert train.x[:, 0, 9, 9].tolist() == [15, 5, 25]
    assert load("mnist", 28, "test").y.tolist() == [0]


NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def cifar_batches(folder: Path, x: np.ndarray, y: list[int]) -> None:
    """Write images (10 + n, 3, 32, 32) as torchvision expects them: five batches of two, the others to test on."""

    def batch(label: str, rows: slice) -> bytes:  # rows of 1,024 red, green, blue bytes
        flat = x[rows].reshape(-1, 3072)
        return pickle.dumps({"batch_label": label, "labels": y[rows], "data": flat, "filenames": ["f.png"] * len(flat)})

    meta = pickle.dumps({"label_names": NAMES, "num_cases_per_batch": 10_000, "num_vis": 3072})
    files = {f"data_batch_{i + 1}": batch(f"training batch {i + 1} of 5", slice(2 * i, 2 * i + 2)) for i in range(5)}
    write_folder(folder, files | {"test_batch": batch("testing batch 1 of 1", slice(10, None)), "batches.meta": meta})


def test_cifar10(downloads):
    shades = [1, 101, 2, 102, 3, 103, 4, 104, 5, 105, 7]
    x = np.zeros((11, 3, 32, 32), np.uint8)
    x[:, 0], x[:, 2] = np.array(shades)[:, None, None], 255
    cifar_batches(downloads / "cifar-10-batches-py", x, [2, 0] * 5 + [2])
    train = load("cifar10", 32)
    assert train.classes == ("airplane", "bird")
    assert train.y.tolist() == [0] * 5 + [1] * 5
    assert colours(train) == [(p, 0, 255) for p in (101, 102, 103, 104, 105, 1, 2, 3, 4, 5)]
    assert load("cifar10", 32, "test").y.tolist() == [1]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_archive_of_cifar10_gives_the_same_images(downloads, tmp_path, monkeypatch, kind):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (14, 3, 32, 32), np.uint8), [3, 1, 3, 0, 9, 9, 1, 0, 3, 1, 0, 9, 1, 3]
    cifar_batches(downloads / "cifar-10-batches-py", x, y)
    files = {}
    for i in rng.permutation(14):  # in any order: the original one is lost in the archive
        file = io.BytesIO()
        Image.fromarray(x[i].transpose(1, 2, 0)).save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
        files[f"set/{'train' if i < 10 else 'test'}/{NAMES[y[i]]}/{i:02d}.{kind.lower()}"] = file.getvalue()
    names = list(files)
    for shard in (0, 1):
        write_tar(
            tmp_path / "at" / f"cifar10-exact-{shard + 1}.tar.gz", {name: files[name] for name in names[shard::2]}
        )
    monkeypatch.setenv("STUDY_SOURCES", str(tmp_path / "at"))

    def images(name: str, split: str, root: Path | None = None) -> list[tuple[str, bytes]]:
        found = load(name, 32, split, root=root)
        return sorted(
            (found.classes[label], pixels.numpy().tobytes()) for pixels, label in zip(found.x, found.y, strict=True)
        )

    for split in ("train", "test"):
        own = images("cifar10", split)
        assert own == images("tar:cifar10-exact-*.tar.gz", split)
        assert own == images("cifar10", split, tmp_path / "elsewhere")  # without torchvision's files


def test_svhn(downloads):
    def mat(labels: list[int]) -> bytes:  # X: height, width, channel, image; y: 10 for the digit 0
        x = np.zeros((32, 32, 3, len(labels)), np.uint8)
        x[:, :, 0] = 10 * np.arange(len(labels)) + 1
        file = io.BytesIO()
        savemat(file, {"X": x, "y": np.array(labels, np.uint8)[:, None]})
        return file.getvalue()

    folder = downloads / "svhn"
    write_folder(folder, {"train_32x32.mat": mat([10, 4, 10]), "test_32x32.mat": mat([4, 10])})
    train = load("svhn", 32)
    assert train.classes == ("0", "4")
    assert train.y.tolist() == [0, 0, 1]
    assert colours(train) == [(1, 0, 0), (21, 0, 0), (11, 0, 0)]
    assert len(load("svhn", 32, "all")) == 5
    with pytest.raises(ValueError, match=r"svhn: not found in .*downloads and not downloaded"):
        load("svhn", 32, "extra")
    write_folder(folder, {"extra_32x32.mat": mat([4, 4, 4, 10])})
    assert load("svhn", 32, "extra").y.tolist() == [0, 1, 1, 1]
    assert len(load("svhn", 32, "train+extra")) == 7
    assert len(load("svhn", 32, "all")) == 5


def test_celeba(downloads):
    names = [f"{i:06d}.jpg" for i in range(1, 7)]
    images = {
        f"img_align_celeba/{name}": encode(np.full((218, 178, 3), 40 * i, np.uint8), ".jpg")
        for i, name in enumerate(names)
    }
    attributes = [(1, -1), (-1, -1), (1, 1), (-1, 1), (-1, -1), (1, 1)]
    rows = "".join(f"{name} {a:2d} {b:2d}\n" for name, (a, b) in zip(names, attributes, strict=True))
    box = "".join(f"{name}    95  71 226 313\n" for name in names)
    points = "".join(f"{name} 69  109  106  113   77  142   73  152  108  154\n" for name in names)
    tables = {
        "list_attr_celeba.txt": f"6\nEyeglasses Smiling \n{rows}",  # with a space at the header's end, as published
        "list_eval_partition.txt": "".join(
            f"{name} {split}\n" for name, split in zip(names, (0, 2, 0, 1, 2, 1), strict=True)
        ),
        "identity_CelebA.txt": "".join(f"{name} 2880\n" for name in names),
        "list_bbox_celeba.txt": f"6\nimage_id x_1 y_1 width height\n{box}",
        "list_landmarks_align_celeba.txt": (
            "6\nlefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x "
            f"rightmouth_y\n{points}"
        ),
    }
    write_folder(downloads / "celeba", images | {name: text.encode() for name, text in tables.items()})
    train = load("celeba", 64)
    assert train.x.shape == (2, 3, 64, 64)
    assert train.classes == ("all",)
    assert colours(train) == [(0, 0, 0), (80, 80, 80)]
    assert list(train.attributes) == ["Eyeglasses", "Smiling"]
    assert train.attributes.to_numpy().tolist() == [[1, -1], [1, 1]]
    everything = load("celeba", 64, "all")  # test, train, valid
    assert everything.attributes["Smiling"].tolist() == [-1, -1, -1, 1, 1, 1]
    assert colours(everything)[:3] == [(40, 40, 40), (160, 160, 160), (0, 0, 0)]
    assert load("celeba", 64, "valid").attributes["Eyeglasses"].tolist() == [-1, 1]


def test_lfw(downloads):
    files = {"lfw-funneled.tgz": b"", "lfw-names.txt": b"Ann_Lee\t2\nBob_Ray\t1\nCy_Young\t1\n"}
    files |= {"peopleDevTrain.txt": b"2\nAnn_Lee\t2\nCy_Young\t1\n", "peopleDevTest.txt": b"1\nBob_Ray\t1\n"}
    people = {"Ann_Lee_0001": 10, "Ann_Lee_0002": 20, "Bob_Ray_0001": 30, "Cy_Young_0001": 40}
    for name, grey in people.items():
        files[f"lfw_funneled/{name[:-5]}/{name}.jpg"] = encode(np.full((250, 250, 3), grey, np.uint8), ".jpg")
    write_folder(downloads / "lfw-py", files)
    train = load("lfw", 16)
    assert train.classes == ("Ann_Lee", "Cy_Young")
    assert train.x[:, 0, 0, 0].tolist() == [10, 20, 40]
    assert train.y.tolist() == [0, 0, 1]
    assert load("lfw", 16, "test").y.tolist() == [-1]


def test_lsun(downloads, tmp_path):
    for category, shades in (("bedroom_train", {b"b1": 20, b"a0": 10}), ("bedroom_val", {b"c2": 30})):
        folder = downloads / "lsun" / f"{category}_lmdb"
        folder.mkdir(parents=True)
        with lmdb.open(str(folder), map_size=2**20) as env, env.begin(write=True) as transaction:
            for key, grey in shades.items():
                transaction.put(key, encode(np.full((16, 24, 3), grey, np.uint8), ".jpg"))
    train = load("lsun:bedroom_train", 16)
    assert train.x[:, 0, 0, 0].tolist() == [10, 20]
    assert train.classes == ("bedroom",)
    assert train.y.tolist() == [0, 0]
    assert load("lsun:bedroom_val", 16, "val").x[:, 0, 0, 0].tolist() == [30]
    assert not list(tmp_path.glob("_cache*"))
    with pytest.raises(ValueError, match="Unknown value 'attic'"):
        load("lsun:attic_train", 16)


def test_pets(downloads):
    shades = {"Abyssinian_100": 10, "Abyssinian_1": 20, "american_bulldog_2": 30, "Bengal_3": 40}
    files = {f"images/{name}.jpg": encode(np.full((20, 30, 3), g, np.uint8), ".jpg") for name, g in shades.items()}
    files["annotations/trainval.txt"] = b"Abyssinian_100 1 1 1\nAbyssinian_1 1 1 1\namerican_bulldog_2 2 2 1\n"
    files["annotations/trainval.txt"] += b"Bengal_3 3 1 2\n"
    files["annotations/test.txt"] = b"Abyssinian_100 1 1 1\namerican_bulldog_2 2 2 1\n"
    write_folder(downloads / "oxford-iiit-pet", files)
    train = load("pets", 16)
    assert train.classes == ("Abyssinian", "American Bulldog", "Bengal")
    assert train.x[:, 0, 0, 0].tolist() == [20, 10, 30, 40]
    assert train.y.tolist() == [0, 0, 1, 2]
    assert load("pets", 16, "test").y.tolist() == [0, 1]


def test_coco(downloads, capsys):
    names = [f"{i:012d}.jpg" for i in (139, 285, 632)]
    images = {f"val2017/{name}": encode(np.full((20, 30, 3), 10 * i, np.uint8), ".jpg") for i, name in enumerate(names)}
    categories = [(92, "banner", "textile"), (157, "sky-other", "sky"), (183, "other", "other")]
    stuff = [(139, 183, 500.0), (139, 92, 90.0), (139, 157, 100.0), (632, 92, 5.0), (285, 183, 600.0)]
    annotations = {
        "info": {"description": "COCO 2017 Stuff Dataset"},
        "images": [{"id": int(n[:12]), "file_name": n, "height": 20, "width": 30} for n in names],
        "categories": [{"id": i, "name": name, "supercategory": s} for i, name, s in categories],
        "annotations": [
            {"id": i, "image_id": image, "category_id": c, "area": area, "iscrowd": 0, "bbox": [0.0, 0.0, 9.0, 9.0],
             "segmentation": {"size": [20, 30], "counts": "0d00"}}
            for i, (image, c, area) in enumerate(stuff)
        ],
    }  # fmt: skip
    write_folder(downloads / "coco", images | {"annotations/stuff_val2017.json": json.dumps(annotations).encode()})
    val = load("coco", 16, "val")
    assert val.classes == ("banner", "sky-other")
    found = dict(zip(val.x[:, 0, 0, 0].tolist(), val.y.tolist(), strict=True))
    assert found == {0: 1, 10: -1, 20: 0}  # things are not stuff, whatever their area
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["mnist", "cifar10", "svhn", "celeba", "lfw", "lsun:bedroom_train", "pets", "coco"])
def test_a_set_that_is_not_there_says_where_to_put_it(tmp_path, monkeypatch, name):
    with pytest.raises(ValueError, match=r"not found in .* and not downloaded .* tar:PATH or folder:PATH") as caught:
        load(name, 32)
    text = one_line(caught)
    assert text.startswith(name.partition(":")[0])
    assert str(tmp_path / "study" / "downloads") in text


def test_every_named_set_is_listed():
    assert set(sources.TORCHVISION) <= {name.partition(":")[0] for name in sources.NAMES.split(", ")}


# --- a real archive ------------------------------------------------------------------------------------------------


def shared(monkeypatch, pattern: str) -> str:
    """Return the name of an archive in STUDY_SOURCES, or skip the test."""
    monkeypatch.setenv("STUDY_SOURCES", SOURCES)
    if not manifest.places(pattern):
        pytest.skip(f"{pattern} is not in STUDY_SOURCES ({SOURCES or 'not set'})")
    return f"tar:{pattern}"


@pytest.mark.shared
def test_the_exact_cifar10_has_the_mean_and_deviation_that_are_quoted_everywhere(monkeypatch):
    shared(monkeypatch, sources.EXACT_CIFAR10)
    images = load("cifar10", 32)
    values = images.x.numpy() / 255
    assert values.shape == (50_000, 3, 32, 32)
    assert values.mean((0, 2, 3)) == pytest.approx([0.49139968, 0.48215841, 0.44653091], abs=1e-8)
    assert values.std((0, 2, 3)) == pytest.approx([0.24703223, 0.24348513, 0.26158784], abs=1e-8)
    assert torch.bincount(images.y).tolist() == [5000] * 10
    assert images.notes == ()
    assert len(load("cifar10", 32, "test")) == 10_000


@pytest.mark.shared
def test_celeba10k(monkeypatch):
    images = load(shared(monkeypatch, "celeba10k.tar.gz"), 64)
    assert images.x.shape == (10_000, 3, 64, 64)
    assert images.classes == ("all",)
    assert images.attributes.shape == (10_000, 40)
    assert images.attributes["Smiling"].iloc[:2].tolist() == [1, 1]
    assert set(images.attributes["Male"]) == {-1, 1}
    assert 100 < images.x.float().mean() < 140
