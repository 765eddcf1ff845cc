"""Packed sets: answers written out, and everything that can be wrong with one, or with what is asked of it."""

import errno
import hashlib
import mmap
import os
import shutil
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from samples import BLUE, GREEN, GREY, RED, TREE, colours, encode, one_line, write_folder, write_tar
from torch.testing import assert_close

from lib.images import data, packing
from lib.images.data import load, to_float, to_uint8

# --- conversion ----------------------------------------------------------------------------------------------------


def test_scaling_is_exact_and_inverted():
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert_close(to_float(x)[0, 0, 0, :2], torch.tensor([-1.0, -1 + 1 / 127.5]))
    assert to_float(x).min() == -1
    assert to_float(x).max() == 1
    assert torch.equal(to_uint8(to_float(x)), x)
    assert torch.equal(to_float(to_float(x)), to_float(x))
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


@pytest.mark.parametrize("n", [1, 2, 5, 9])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("columns", [1, 3, 8])
def test_pictures_are_laid_out_as_torchvision_does(n, channels, columns):
    from torchvision.utils import make_grid

    images = torch.randint(0, 256, (n, channels, 2, 3), dtype=torch.uint8)
    expected = make_grid(images, nrow=columns, padding=1, pad_value=255).permute(1, 2, 0)
    assert (data.tile(images, columns) == expected.numpy()).all()


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
    assert "2 of 6 images have no label, and are left out" in capsys.readouterr().err
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
    assert images[:].checksum == images[[0, 1]].checksum == images.checksum
    assert images.checksum == hashlib.sha256(images.x.numpy().tobytes()).hexdigest()
    assert images[:1].checksum != images[1:].checksum
    assert load("folder:a", 8, limit=1).checksum == images[:1].checksum
    by_hand = data.ImageSet("b", images.x.clone(), images.y)
    assert by_hand.checksum == images.checksum


def test_no_pixel_is_hashed_for_a_checksum(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", TREE)
    sets = {split: load("tar:a.tar", 8, split) for split in ("train", "test", "train+test", "test+train", "all")}
    monkeypatch.setattr(torch.Tensor, "numpy", None)
    assert len({images.checksum for images in sets.values()}) == 5


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
    assert len(load("folder:a", 8, limit=20)) == 20
    with pytest.raises(ValueError, match="limit 21: folder:a has 20 images in train"):
        load("folder:a", 8, limit=21)


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


# --- packed sets ---------------------------------------------------------------------------------------------------


def packed_folder(tmp_path: Path) -> Path:
    (meta,) = (tmp_path / "study" / "packed").glob("*/meta.json")
    return meta.parent


def test_a_set_is_packed_once(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "a.tar", TREE)
    first = load("tar:a.tar", 8, "all")
    monkeypatch.setattr(packing, "pack", None)
    assert torch.equal(load("tar:a.tar", 8, "all").x, first.x)
    assert torch.equal(load(f"tar:{path}", 8, "all").x, first.x)


def test_a_changed_source_is_packed_again(tmp_path):
    write_folder(tmp_path / "a", {"1.png": encode(RED)})
    assert len(load("folder:a", 8)) == 1
    write_folder(tmp_path / "a", {"2.png": encode(RED)})
    assert len(load("folder:a", 8)) == 2


def is_mapped(x):
    while isinstance(x, np.ndarray):
        x = x.base
    return isinstance(x, (mmap.mmap, memoryview))


def test_a_set_larger_than_memory_is_read(tmp_path):
    """Sparse on disk: 8 TiB, of which one page is looked at; a mapping that sets memory aside for it is refused."""
    path, shape = tmp_path / "x.npy", (2**33, 1, 32, 32)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + 2**43)
    x = data._map(path)[1]
    assert x.shape == shape and x[-1].max() == 0
    x[-1] = 1
    assert x[-1].min() == 1


def test_a_large_set_stays_on_disk(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", TREE)
    small = load("tar:a.tar", 8, "train+unlabelled")
    mapped = []
    monkeypatch.setattr(data, "IN_MEMORY", 0)
    monkeypatch.setattr(torch, "from_numpy", lambda x, keep=torch.from_numpy: mapped.append(x) or keep(x))
    large = load("tar:a.tar", 8, "train+unlabelled")
    assert any(map(is_mapped, mapped))
    assert torch.equal(large.x, small.x)
    before = (packed_folder(tmp_path) / "x.npy").read_bytes()
    large.x.zero_()  # changes pages of ours, not the file
    assert (packed_folder(tmp_path) / "x.npy").read_bytes() == before


@pytest.mark.parametrize("split", ["unlabelled+test", "train+test", "all"])
def test_many_rows_are_never_copied_into_memory(tmp_path, monkeypatch, split):
    write_tar(tmp_path / "a.tar", TREE)
    small = load("tar:a.tar", 8, split)
    monkeypatch.setattr(data, "IN_MEMORY", 0)
    monkeypatch.setattr(packing, "BLOCK", 2)
    mapped = []
    monkeypatch.setattr(torch, "from_numpy", lambda x, keep=torch.from_numpy: mapped.append(x) or keep(x))
    for _ in ("made", "found"):
        large = load("tar:a.tar", 8, split)
        assert is_mapped(mapped[-1])
        assert torch.equal(large.x, small.x)
        assert large.checksum == small.checksum
    assert not list((tmp_path / "study").rglob("*.unfinished"))


def test_rows_that_cannot_be_written_are_no_damaged_set(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", TREE)
    load("tar:a.tar", 8, "all")
    monkeypatch.setattr(data, "IN_MEMORY", 0)
    monkeypatch.setattr(packing, "header", lambda shape: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"cannot write .*x-\w+.npy: No space left on device; free space or choose"):
        load("tar:a.tar", 8, "unlabelled+test")
    assert packed_folder(tmp_path).exists()


def test_a_packed_set_that_was_copied_is_read(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", TREE)
    before = load("tar:a.tar", 8)
    shutil.copytree(tmp_path / "study", tmp_path / "copied")  # with other times
    assert torch.equal(load("tar:a.tar", 8, root=tmp_path / "copied").x, before.x)


def test_large_sets_are_verified_too(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", TREE)
    load("tar:a.tar", 8)
    path = packed_folder(tmp_path) / "x.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.setattr(data, "IN_MEMORY", 0)
    with pytest.raises(ValueError, match=r"damaged packed set .x.npy is not what was packed"):
        load("tar:a.tar", 8)


def test_a_second_process_says_that_it_waits(tmp_path, monkeypatch, capsys):
    write_tar(tmp_path / "a.tar", TREE)
    load("tar:a.tar", 8)
    folder = packed_folder(tmp_path)
    (folder / "meta.json").unlink()
    held = threading.Event()

    def hold() -> None:
        with FileLock(f"{folder}.lock"):
            held.set()
            time.sleep(1.5)

    threading.Thread(target=hold).start()
    held.wait()
    assert len(load("tar:a.tar", 8)) == 3
    assert capsys.readouterr().err.count("another process packs this set; waiting for it") == 1


def test_names_of_images(tmp_path):
    write_tar(tmp_path / "a.tar", TREE)
    assert data.names("tar:a.tar", 8) == ["cat/1.png", "dog/1.png", "dog/2.png"]
    assert data.names("tar:a.tar", 8, "unlabelled+test") == ["all/1.png", "dog/9.png", "wolf/1.png"]


def test_held_out_rows_share_nothing():
    training, held = data.hold_out(100, 0.2, 0)
    assert sorted([*training.tolist(), *held.tolist()]) == list(range(100))
    assert len(held) == 20
    assert held.tolist() != data.hold_out(100, 0.2, 1)[1].tolist()


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


def nothing_packed(tmp_path: Path) -> bool:
    return not [
        p for p in (tmp_path / "study").rglob("*") if p.suffix not in (".lock", ".sqlite") and p.name != "packed"
    ]


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
    for split in ("train+train", "train+test+Training"):
        with pytest.raises(ValueError, match=r"train is there twice"):
            load("tar:a.tar", 8, split)


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
        (b"file,Smiling\n1.png,1\n2.png,1,2,3,4\n", "attributes.csv: line 3 has 5 fields, and the header 2"),
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
    with pytest.raises(ValueError, match=r"/[129].png is there twice"):
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

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(data, "FileLock", None)
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert len(load("tar:a.tar", 8)) == 3
