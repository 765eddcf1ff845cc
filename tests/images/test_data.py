"""Packing and loading: answers written out, sets in their true formats on disk, and everything that can be wrong."""

import errno
import gzip
import io
import json
import os
import pickle
import socket
import struct
import tarfile
from pathlib import Path

import lmdb
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torch.testing import assert_close

from lib.images import data, faces, pen, rooms, sources
from lib.images.data import load, to_float, to_uint8
from lib.study import paths

SOURCES = os.environ.get("STUDY_SOURCES", "")  # as it was before any test
RED, GREEN, BLUE, GREY = (200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 90)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """Keep every test in its own folder and off the network."""

    def offline(*args, **kwargs):
        raise OSError("there is no network")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "study"))
    monkeypatch.delenv("STUDY_SOURCES", raising=False)
    monkeypatch.chdir(tmp_path)


def encode(pixels, suffix: str = ".png") -> bytes:
    """An image file: of one colour 8x8, or of the array given."""
    image = Image.new("RGB", (8, 8), pixels) if isinstance(pixels, tuple) else Image.fromarray(np.asarray(pixels))
    file = io.BytesIO()
    image.save(file, {".png": "PNG", ".jpg": "JPEG"}[suffix])
    return file.getvalue()


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def colours(images: data.ImageSet) -> list[tuple[int, ...]]:
    """The colour of each image's first pixel."""
    return [tuple(pixel) for pixel in images.x[:, :, 0, 0].tolist()]


TREE = {  # out of order on purpose
    "set/train/dog/2.png": encode(BLUE),
    "set/train/cat/1.png": encode(RED),
    "set/train/dog/1.png": encode(GREEN),
    "set/test/wolf/1.png": encode(GREY),
    "set/test/dog/9.png": encode(RED),
    "set/unlabelled/all/1.png": encode(GREY),
}


# --- conversion ----------------------------------------------------------------------------------------------------


def test_scaling_is_exact_and_inverted():
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert_close(to_float(x)[0, 0, 0, :2], torch.tensor([-1.0, -1 + 1 / 127.5]))
    assert to_float(x).min() == -1
    assert to_float(x).max() == 1
    assert torch.equal(to_uint8(to_float(x)), x)
    assert torch.equal(to_float(to_float(x)), to_float(x))
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_rows_are_chosen_together():
    images = data.ImageSet("a", torch.arange(4).to(torch.uint8).reshape(4, 1, 1, 1), torch.arange(4), ("c",))
    images = data.ImageSet(images.name, images.x, images.y, images.classes, pd.DataFrame({"a": [0, 1, 2, 3]}))
    for rows in (slice(1, 3), [1, 2], np.array([1, 2]), torch.tensor([False, True, True, False])):
        chosen = images[rows]
        assert len(chosen) == 2
        assert chosen.x.flatten().tolist() == chosen.y.tolist() == chosen.attributes["a"].tolist() == [1, 2]
        assert chosen.attributes.index.tolist() == [0, 1]


def test_unlabelled_images_are_left_out_and_counted(tmp_path, capsys):
    write_folder(tmp_path / "a", TREE)
    images = load("folder:a", 8, "all").labelled()
    assert images.y.tolist() == [1, 0, 1, 1]
    assert colours(images) == [RED, RED, GREEN, BLUE]
    assert "2 of 6 images have no label, and are left out" in capsys.readouterr().out
    whole = load("folder:a", 8)
    assert whole.labelled() is whole
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="none of its 1 images has a label"):
        load("folder:a", 8, "unlabelled").labelled()


def test_checksum_is_of_the_images(tmp_path):
    write_folder(tmp_path / "a", {"1.png": encode(RED), "2.png": encode(BLUE)})
    images = load("folder:a", 8)
    assert images.checksum == load("folder:a", 8).checksum
    assert images.checksum != images[:1].checksum
    assert images[[1, 0]].checksum != images.checksum


# --- trees ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_tar_rows_are_sorted_by_split_class_and_name(tmp_path, suffix):
    write_tar(tmp_path / f"a{suffix}", TREE)
    images = load(f"tar:a{suffix}", 8, "all")
    assert images.x.shape == (6, 3, 8, 8)
    assert images.x.dtype == torch.uint8
    assert images.classes == ("cat", "dog")
    assert colours(images) == [RED, GREY, RED, GREEN, BLUE, GREY]
    assert images.y.tolist() == [1, -1, 0, 1, 1, -1]  # no wolf was seen in training, and the last has no label
    assert colours(load(f"tar:a{suffix}", 8)) == [RED, GREEN, BLUE]
    assert colours(load(f"tar:a{suffix}", 8, "unlabelled+test")) == [GREY, RED, GREY]


def test_shards_are_one_set(tmp_path):
    names = sorted(TREE)
    write_tar(tmp_path / "a-1.tar.gz", {name: TREE[name] for name in names[::2]})
    write_tar(tmp_path / "a-2.tar.gz", {name: TREE[name] for name in names[1::2]})
    write_tar(tmp_path / "whole.tar", TREE)
    shards, whole = load("tar:a-*.tar.gz", 8, "train+unlabelled"), load("tar:whole.tar", 8, "train+unlabelled")
    assert torch.equal(shards.x, whole.x)
    assert torch.equal(shards.y, whole.y)
    assert shards.y.tolist() == [0, 1, 1, -1]


@pytest.mark.parametrize(
    ("names", "split", "classes", "y"),
    [
        (["a/1.png", "b/1.png"], "train", ("a", "b"), [0, 1]),
        (["1.png", "2.png"], "train", ("all",), [0, 0]),
        (["x/y/train/all/1.png", "x/y/attributes.txt"], "train", ("all",), [0]),
        (["train/1.png", "val/1.png"], "val", ("all",), [0]),
        (["test/a/1.png", "test/b/1.png"], "test", ("a", "b"), [0, 1]),
        (["Train/a/deep/1.png", "Train/b/1.PNG"], "train", ("a", "b"), [0, 1]),
        (["./a/1.png", "./b/1.png", "./.hidden/1.png", "__MACOSX/a/._1.png"], "train", ("a", "b"), [0, 1]),
    ],
)
def test_trees(tmp_path, names, split, classes, y):
    files = dict.fromkeys(names, encode(RED))
    write_tar(tmp_path / "a.tar", files)
    write_folder(tmp_path / "a", files)
    for name in ("tar:a.tar", "folder:a"):
        images = load(name, 8, split)
        assert images.classes == classes
        assert images.y.tolist() == y


def test_attributes_follow_their_images(tmp_path):
    files = {
        "faces/attributes.csv": b"file,Smiling,Age,Name\nb.png,-1,0.1,x\nc.png,1,0.3,None\na.png,1,,z\n",
        "faces/train/all/b.png": encode(BLUE),
        "faces/train/all/a.png": encode(RED),
        "faces/test/all/c.png": encode(GREEN),
    }
    write_tar(tmp_path / "a.tar", files)
    write_folder(tmp_path / "a", files)
    for name in ("tar:a.tar", "folder:a"):
        for _ in ("packed", "read again"):
            images = load(name, 8)
            assert colours(images) == [RED, BLUE]
            assert list(images.attributes) == ["Smiling", "Age", "Name"]
            assert images.attributes["Smiling"].tolist() == [1, -1]
            assert images.attributes["Age"].isna().tolist() == [True, False]
            assert images.attributes["Name"].tolist() == ["z", "x"]
            assert colours(load(name, 8, limit=1)) == [RED]


def test_a_limit_is_a_fair_sample(tmp_path):
    write_folder(tmp_path / "a", {f"{c}/{i}.png": encode((c * 10, i, 0)) for c in range(4) for i in range(5)})
    images = load("folder:a", 8, limit=8)
    assert images.y.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert colours(images)[:2] == [(0, 0, 0), (0, 2, 0)]
    assert len(load("folder:a", 8, limit=99)) == 20


def test_sources_are_looked_up(tmp_path, monkeypatch):
    write_tar(write_folder(tmp_path / "elsewhere", {"x": b""}) / "a.tar", TREE)
    monkeypatch.setenv("STUDY_SOURCES", os.pathsep.join([str(tmp_path / "none"), str(tmp_path / "elsewhere")]))
    assert len(load("tar:a.tar", 8)) == 3
    assert len(load("tar:elsewhere/a.tar", 8)) == 3


# --- pixels --------------------------------------------------------------------------------------------------------


def test_an_image_of_the_size_is_taken_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    write_folder(tmp_path / "a", {"1.png": encode(pixels)})
    assert np.array_equal(load("folder:a", 8).x[0].permute(1, 2, 0), pixels)


@pytest.mark.parametrize("transpose", [False, True])
def test_the_short_side_is_resized_and_the_centre_kept(tmp_path, transpose):
    pixels = np.zeros((16, 48, 3), np.uint8)  # red, green, blue squares side by side
    pixels[:, :16, 0] = pixels[:, 16:32, 1] = pixels[:, 32:, 2] = 200
    pixels = pixels.transpose(1, 0, 2) if transpose else pixels
    write_folder(tmp_path / "a", {"1.png": encode(np.ascontiguousarray(pixels))})
    x = load("folder:a", 8).x[0]
    assert (x[1, 2:-2, 2:-2] == 200).all()
    assert not x[0, 2:-2, 2:-2].any()


def test_resizing_antialiases(tmp_path):
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:, ::2] = 255  # stripes of one pixel: grey from afar
    write_folder(tmp_path / "a", {"1.png": encode(pixels)})
    assert (load("folder:a", 8).x.float() - 127.5).abs().max() < 10


def test_the_first_image_decides_on_colour(tmp_path):
    grey, deep = np.full((8, 8), 7, np.uint8), np.full((8, 8), 7 * 256 + 200, np.uint16)
    write_folder(tmp_path / "grey", {"1.png": encode(grey), "2.png": encode(GREY), "3.png": encode(deep)})
    assert load("folder:grey", 8).x[:, 0, 0, 0].tolist() == [7, 90, 7]
    assert load("folder:grey", 8).x.shape == (3, 1, 8, 8)
    write_folder(tmp_path / "colour", {"1.png": encode(RED), "2.png": encode(grey)})
    assert colours(load("folder:colour", 8)) == [RED, (7, 7, 7)]


# --- packed sets ---------------------------------------------------------------------------------------------------


def packed_folder(tmp_path: Path) -> Path:
    (meta,) = (tmp_path / "study" / "packed").glob("*/meta.json")
    return meta.parent


def test_a_set_is_packed_once(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "a.tar", TREE)
    first = load("tar:a.tar", 8, "all")
    monkeypatch.setattr(data, "_pack", None)
    assert torch.equal(load("tar:a.tar", 8, "all").x, first.x)
    assert torch.equal(load(f"tar:{path}", 8, "all").x, first.x)


def test_a_changed_source_is_packed_again(tmp_path):
    write_folder(tmp_path / "a", {"1.png": encode(RED)})
    assert len(load("folder:a", 8)) == 1
    write_folder(tmp_path / "a", {"2.png": encode(RED)})
    assert len(load("folder:a", 8)) == 2


def test_a_large_set_stays_on_disk(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", TREE)
    small = load("tar:a.tar", 8, "train+unlabelled")
    mapped = []
    monkeypatch.setattr(data, "IN_MEMORY", 0)
    monkeypatch.setattr(torch, "from_numpy", lambda x, keep=torch.from_numpy: mapped.append(x) or keep(x))
    large = load("tar:a.tar", 8, "train+unlabelled")
    assert any(isinstance(x, np.memmap) for x in mapped)
    assert torch.equal(large.x, small.x)
    before = (packed_folder(tmp_path) / "x.npy").read_bytes()
    large.x.zero_()  # changes pages of ours, not the file
    assert (packed_folder(tmp_path) / "x.npy").read_bytes() == before


def test_what_a_killed_process_left_is_not_taken_for_whole(tmp_path):
    write_tar(tmp_path / "a.tar", TREE)
    load("tar:a.tar", 8)
    folder = packed_folder(tmp_path)
    (folder / "meta.json").unlink()
    write_folder(folder.with_name(f"{folder.name}.unfinished"), {"x.npy": b"half"})
    assert colours(load("tar:a.tar", 8)) == [RED, GREEN, BLUE]
    assert [p.name for p in folder.parent.iterdir() if p.is_dir()] == [folder.name]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("x.npy", lambda b: b[: len(b) // 2]),
        ("x.npy", lambda b: b[:-1] + b"?"),
        ("x.npy", None),
        ("y.npy", lambda b: b[:-3]),
        ("meta.json", lambda b: b[:40]),
    ],
    ids=["cut", "changed", "missing", "labels", "meta"],
)
def test_a_damaged_packed_set_is_named(tmp_path, name, damage):
    write_tar(tmp_path / "a.tar", TREE)
    load("tar:a.tar", 8)
    folder = packed_folder(tmp_path)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(damage(content)) if damage else (folder / name).unlink()
    with pytest.raises(ValueError, match="delete this folder") as caught:
        load("tar:a.tar", 8, "all")
    assert str(folder) in one_line(caught)


# --- bad input -----------------------------------------------------------------------------------------------------


def one_line(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def nothing_packed(tmp_path: Path) -> bool:
    return not [p for p in (tmp_path / "study").rglob("*") if p.suffix != ".lock" and p.name != "packed"]


def test_unknown_names_list_the_known(tmp_path):
    for name in ("cifar", "mnist:train", "lsun", "tar:", "folder", ""):
        with pytest.raises(ValueError, match=r"unknown data set .* toy-rooms.*svhn.*tar:PATH"):
            load(name, 32)
    for name in ("toy-faces:", "toy-faces:many", "toy-rooms:4"):
        with pytest.raises(ValueError, match="whole number N of at least 5"):
            load(name, 32)


@pytest.mark.parametrize("size", [0, -8, 8.0, "64", None, True])
def test_sizes_are_whole_numbers(size):
    with pytest.raises(ValueError, match=r"image size .*: must be a whole number of at least 1"):
        load("digits", size)


@pytest.mark.parametrize("limit", [-1, 2.5, "all"])
def test_limits_are_whole_numbers(limit):
    with pytest.raises(ValueError, match=r"limit .*: must be a whole number"):
        load("digits", 16, limit=limit)


def test_a_missing_split_lists_those_there_are(tmp_path):
    write_tar(tmp_path / "a.tar", TREE)
    with pytest.raises(ValueError, match=r"tar:a.tar has no split 'val': it has test, train, unlabelled"):
        load("tar:a.tar", 8, "train+val")


@pytest.mark.parametrize("name", ["tar:none.tar", "tar:no*.tar", "folder:none", "folder:no/where"])
def test_missing_paths(name):
    with pytest.raises(FileNotFoundError, match=r"no such (tar|folder)") as caught:
        load(name, 8)
    assert name.partition(":")[2] in one_line(caught)


def test_a_folder_is_no_tar(tmp_path):
    write_tar(tmp_path / "a.tar", TREE)
    write_folder(tmp_path / "a", TREE)
    with pytest.raises(ValueError, match=r"load it as tar:a.tar"):
        load("folder:a.tar", 8)
    with pytest.raises(ValueError, match="load it as folder:a"):
        load("tar:a", 8)


CORRUPT = {
    "text": b"no image",
    "empty": b"",
    "png": encode(RED)[:45],
    "jpg": encode(np.zeros((90, 90), np.uint8), ".jpg")[:300],
}


@pytest.mark.parametrize("content", CORRUPT.values(), ids=CORRUPT)
def test_a_corrupt_image_is_named(tmp_path, content):
    files = TREE | {"set/train/cat/0007.jpg": content}
    write_tar(tmp_path / "a.tar.gz", files)
    write_folder(tmp_path / "a", files)
    for name in ("tar:a.tar.gz", "folder:a"):
        with pytest.raises(ValueError, match=r"train/cat/0007.jpg: .*replace or remove it") as caught:
            load(name, 8)
        assert str(tmp_path / name.partition(":")[2]) in one_line(caught)
        assert nothing_packed(tmp_path)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_truncated_archive_is_named(tmp_path, suffix):
    rng = np.random.default_rng(0)
    files = {f"train/{i % 3}/{i}.png": encode(rng.integers(0, 256, (8, 8, 3), np.uint8)) for i in range(30)}
    path = write_tar(tmp_path / f"a{suffix}", files)
    whole = path.read_bytes()
    blocks = range(1024, len(whole) - 10240, 1024) if suffix == ".tar" else [len(whole) // 2]
    for stop in (*blocks, len(whole) // 2, 700, 0):  # in a tar, some cuts fall between two members
        path.write_bytes(whole[:stop])
        with pytest.raises(
            ValueError, match=r"a\.tar.*: truncated or not an archive .*copy or download it again"
        ) as caught:
            load(f"tar:a{suffix}", 8)
        one_line(caught)
    assert nothing_packed(tmp_path)


def test_an_empty_class_is_named(tmp_path):
    write_folder(tmp_path / "a", TREE)
    (tmp_path / "a" / "set" / "train" / "bird").mkdir()
    with pytest.raises(ValueError, match="folder set/train/bird holds no images"):
        load("folder:a", 8)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "a", "a")
    with pytest.raises(ValueError, match="folder a/set/train/bird holds no images"):
        load("tar:a.tar", 8)


def test_no_images_at_all(tmp_path):
    write_folder(tmp_path / "a", {"readme.txt": b"none here"})
    write_tar(tmp_path / "a.tar", {"readme.txt": b"none here"})
    for name in ("folder:a", "tar:a.tar"):
        with pytest.raises(ValueError, match="holds no images; expected split/class/file"):
            load(name, 8)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"file,Smiling\n1.png,1\n", "has no row for 2.png"),
        (b"file,Smiling\n1.png,1\n2.png,1\n1.png,-1\n", "1.png has a second row"),
        (b"", "attributes.csv: cannot be read as a table"),
        (b"file,Smiling\n1.png,1\n2.png,1,2,3,4\n", "attributes.csv: cannot be read as a table"),
    ],
)
def test_bad_attributes_are_named(tmp_path, table, message):
    write_tar(tmp_path / "a.tar", {"train/1.png": encode(RED), "train/2.png": encode(RED), "attributes.csv": table})
    with pytest.raises(ValueError, match=message) as caught:
        load("tar:a.tar", 8)
    assert "a.tar" in one_line(caught)


def test_an_archive_given_twice_is_named(tmp_path):
    write_tar(tmp_path / "a.tar", TREE)
    write_tar(tmp_path / "a.tar.gz", TREE)
    with pytest.raises(ValueError, match=r"test/dog/9.png is there twice"):
        load("tar:a.tar*", 8)


@pytest.mark.parametrize("step", ["images", "labels", "end"])
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, step):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_tar(tmp_path / "a.tar", TREE)
    with monkeypatch.context() as patch:
        patch.setattr(*{"images": (os, "fsync"), "labels": (np, "save"), "end": (Path, "rename")}[step], full)
        with pytest.raises(OSError, match=r"cannot pack tar:a.tar .No space left.*make room.*STUDY_DATA") as caught:
            load("tar:a.tar", 8)
    assert caught.value.errno == errno.ENOSPC
    assert str(tmp_path / "study") in one_line(caught)
    assert nothing_packed(tmp_path)
    assert len(load("tar:a.tar", 8)) == 3


def test_a_disk_that_is_really_full(tmp_path, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    write_tar(tmp_path / "a.tar", TREE)
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda p, *a, **k: opened(Path("/dev/full") if p.name == "x.npy" else p, *a, **k))
    with pytest.raises(OSError, match="No space left"):
        load("tar:a.tar", 8)
    assert nothing_packed(tmp_path)


def test_a_data_folder_that_cannot_be_written(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", TREE)
    (tmp_path / "file").write_text("")  # root writes to any folder, but nobody makes a folder in a file
    with pytest.raises(
        OSError, match=r"cannot pack tar:a.tar .*set STUDY_DATA to a folder that can be written"
    ) as caught:
        load("tar:a.tar", 8, root=tmp_path / "file")
    assert str(tmp_path / "file") in one_line(caught)


def test_a_packed_set_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", TREE)
    load("tar:a.tar", 8)
    monkeypatch.setattr(data, "FileLock", None)
    monkeypatch.setattr(Path, "mkdir", None)
    assert len(load("tar:a.tar", 8)) == 3


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


@pytest.mark.parametrize("module", [faces, pen])
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


def test_cifar10(downloads):
    def batch(label: str, pixels: list[int], labels: list[int]) -> bytes:  # rows of 1,024 red, green, blue bytes
        x = np.stack([np.repeat(np.array([p, 0, 255], np.uint8), 1024) for p in pixels])
        return pickle.dumps({"batch_label": label, "labels": labels, "data": x, "filenames": ["f.png"] * len(x)})

    folder = downloads / "cifar-10-batches-py"
    write_folder(
        folder, {f"data_batch_{i}": batch(f"training batch {i} of 5", [i, 100 + i], [2, 0]) for i in range(1, 6)}
    )
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    meta = pickle.dumps({"label_names": names, "num_cases_per_batch": 10_000, "num_vis": 3072})
    write_folder(folder, {"test_batch": batch("testing batch 1 of 1", [7], [2]), "batches.meta": meta})
    train = load("cifar10", 32)
    assert train.classes == ("airplane", "bird")
    assert train.y.tolist() == [0] * 5 + [1] * 5
    assert colours(train) == [(p, 0, 255) for p in (101, 102, 103, 104, 105, 1, 2, 3, 4, 5)]
    assert load("cifar10", 32, "test").y.tolist() == [1]


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


@pytest.mark.shared
def test_celeba10k(monkeypatch):
    pattern = "celeba10k.tar.gz"
    monkeypatch.setenv("STUDY_SOURCES", SOURCES)
    if not paths.find_source(pattern).exists():
        pytest.skip(f"{pattern} is not in STUDY_SOURCES ({SOURCES or 'not set'})")
    images = load(f"tar:{pattern}", 64)
    assert images.x.shape == (10_000, 3, 64, 64)
    assert images.classes == ("all",)
    assert images.attributes.shape == (10_000, 40)
    assert images.attributes["Smiling"].iloc[:2].tolist() == [1, 1]
    assert set(images.attributes["Male"]) == {-1, 1}
    assert 100 < images.x.float().mean() < 140
