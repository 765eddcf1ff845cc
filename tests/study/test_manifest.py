"""Digests of sources and nets: what changes them, what does not, and what makes them quick."""

import hashlib
import os
import shutil
import tarfile
import time
import unicodedata
from pathlib import Path

import pytest

from lib.study import manifest, paths

SETTLED = manifest.SETTLED  # before `place` turns it off

FILES = {"cat/1.png": b"one", "cat/2.png": b"two", "dog/1.png": b"three", "attributes.csv": b"file,a\n1.png,0\n"}


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path) -> Path:
    """A folder of files, found by its name; files count as settled at once."""
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "study"))
    monkeypatch.setenv("STUDY_SOURCES", str(tmp_path))
    monkeypatch.setattr(manifest, "SETTLED", -1)
    return write(tmp_path / "photos")


def write(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def pack(folder: Path) -> Path:
    with tarfile.open(folder.with_suffix(".tar"), "w") as archive:
        archive.add(folder, "set")
    return folder.with_suffix(".tar")


def other_content_at_the_same_time(path: Path) -> None:
    before = path.stat()
    with path.open("r+b") as file:  # in place: the same inode
        file.write(path.read_bytes()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns


CHANGES = {
    "an image in another class": lambda folder: (folder / "cat/2.png").rename(folder / "dog/2.png"),
    "an image of another name": lambda folder: (folder / "cat/2.png").rename(folder / "cat/3.png"),
    "two images that changed places": lambda folder: write(folder, {"cat/1.png": b"two", "cat/2.png": b"one"}),
    "other attributes": lambda folder: write(folder, {"attributes.csv": b"file,a\n1.png,1\n"}),
    "an image painted over": lambda folder: other_content_at_the_same_time(folder / "cat/1.png"),
    "one more": lambda folder: write(folder, {"dog/9.png": b""}),
    "one less": lambda folder: (folder / "dog/1.png").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_folder_has_another_digest(place, change):
    before = manifest.of_images("folder:photos")
    assert manifest.of_images("folder:photos") == before
    change(place)
    assert manifest.of_images("folder:photos") not in ("", before)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_folder_behind_a_link_has_another_digest(place, tmp_path, change):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "all").symlink_to(place)
    before = manifest.of_images("folder:linked")
    change(place)
    assert manifest.of_images("folder:linked") != before


def test_a_tar_of_the_same_size_has_another_digest(place):
    archive = pack(place)
    before, size = manifest.of_images("tar:photos.tar"), archive.stat().st_size
    write(place, {"cat/1.png": b"eno"})
    assert pack(place).stat().st_size == size
    assert manifest.of_images("tar:photos.tar") != before


def test_a_copy_is_the_same_source(place, tmp_path, monkeypatch):
    folder, archive = manifest.of_images("folder:photos"), manifest.of_images(f"tar:{pack(place)}")
    shutil.copytree(place, tmp_path / "other" / "name")  # with other times
    shutil.copy(tmp_path / "photos.tar", tmp_path / "other" / "name.tar")
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "elsewhere"))
    assert manifest.of_images(f"folder:{tmp_path}/other/name") == folder
    assert manifest.of_images(f"tar:{tmp_path}/other/name.tar") == archive != folder


def test_names_are_the_same_composed_and_decomposed(tmp_path):
    for form in ("NFC", "NFD"):
        write(tmp_path / form, {unicodedata.normalize(form, "é.png"): b"1", "ê/1.png".replace("ê", "e"): b"2"})
    assert manifest.of_images("folder:NFC") == manifest.of_images("folder:NFD")


def test_a_name_that_is_not_utf_8(tmp_path):
    folder = os.fsencode(tmp_path / "old")
    os.mkdir(folder)
    with open(folder + b"/caf\xe9.png", "wb") as file:
        file.write(b"1")
    assert manifest.of_images("folder:old")


def test_shards_count_together(place, tmp_path):
    for name in ("a", "b"):
        shutil.copy(pack(write(tmp_path / name, {f"{name}.png": name.encode()})), tmp_path / f"set-{name}.tar")
    both = manifest.of_images("tar:set-*.tar")
    assert both != manifest.of_images("tar:set-a.tar")
    assert both == manifest.of_images("crop:tar:set-*.tar"), "the same files, whatever is cut out of their images"
    (tmp_path / "set-b.tar").write_bytes(b"another")
    assert manifest.of_images("tar:set-*.tar") != both


def test_what_no_person_put_there_does_not_count(place):
    before = manifest.of_images("folder:photos")
    for name in (".DS_Store", "cat/.hidden/1.png", "cat/Thumbs.db", "@eaDir/1.png/SYNO.jpg", "#recycle/1.png",
                 "$RECYCLE.BIN/1.png", "desktop.ini", "__MACOSX/cat/1.png"):  # fmt: skip
        write(place, {name: b"anything"})
    assert manifest.of_images("folder:photos") == before


def test_links_are_followed_once_and_never_in_a_circle(place, tmp_path):
    (place / "cat" / "loop").symlink_to(place)
    (place / "cat" / "self").symlink_to("self")
    (place / "cat" / "gone.png").symlink_to(place / "nothing")
    (place / "wolf").symlink_to(place / "dog")
    os.mkfifo(place / "dog" / "pipe")
    found = {entry.name: entry.trouble for entry in manifest.walk(place)}
    assert {name for name, trouble in found.items() if not trouble} == {*FILES, "cat", "dog", "wolf", "wolf/1.png"}
    assert found["cat/loop"] == "a link to a folder above it"
    assert found["cat/self"] == found["cat/gone.png"] == "a link to nothing"
    assert found["dog/pipe"] == found["wolf/pipe"] == "neither file nor folder"
    assert manifest.of_images("folder:photos")  # and does not wait for the pipe


@pytest.mark.parametrize(
    "value", ["digits", "cifar10", "toy-faces:100", "tar:", "folder", 3, None, "lsun:val", "tar:no"]
)
def test_other_values_have_none(value):
    assert manifest.of_images(value) == ""


# --- nets ----------------------------------------------------------------------------------------------------------


def test_a_net_follows_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NETS", tmp_path / "nets")
    write(tmp_path / "nets", {"digits.safetensors": b"weights", "mine.safetensors": b"others"})
    shipped, mine = manifest.of_net("digits"), manifest.of_net(f"{tmp_path}/nets/mine.safetensors")
    assert shipped == hashlib.sha256(b"weights").hexdigest()[:32]
    assert mine == manifest.of_net(f"inception:{tmp_path}/nets/mine.safetensors")
    assert mine == hashlib.sha256(b"others").hexdigest()[:32]
    other_content_at_the_same_time(tmp_path / "nets" / "digits.safetensors")
    write(tmp_path / "nets", {"mine.safetensors": b"three"})
    assert manifest.of_net("digits") not in ("", shipped)
    assert manifest.of_net(f"{tmp_path}/nets/mine.safetensors") not in ("", mine)


@pytest.mark.parametrize("net", ["run:01_train_gan-0123456789", "radford2015-svhn", "none", "no.safetensors", 1, ""])
def test_other_nets_have_none(net):
    assert manifest.of_net(net) == ""


# --- what is remembered --------------------------------------------------------------------------------------------


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The files that were read, in the end."""
    read, real = [], manifest._read_files
    monkeypatch.setattr(manifest, "_read_files", lambda files: read.extend(files) or real(files))
    return read


def test_a_file_is_read_once(place, read):
    manifest.of_images("folder:photos")
    assert len(read) == 4
    manifest.of_images("folder:photos")
    assert len(read) == 4
    write(place, {"cat/1.png": b"new"})
    manifest.of_images("folder:photos")
    assert read[4:] == [str(place / "cat/1.png")]


def test_a_file_that_may_still_change_is_read_again(monkeypatch, read):
    monkeypatch.setattr(manifest, "SETTLED", SETTLED)
    manifest.of_images("folder:photos")
    manifest.of_images("folder:photos")
    assert len(read) == 8
    monkeypatch.setattr(time, "time_ns", lambda now=time.time_ns: now() + 3 * 10**9)
    manifest.of_images("folder:photos")
    manifest.of_images("folder:photos")
    assert len(read) == 12


def test_many_files_in_many_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "CHUNK", 3)
    write(tmp_path / "a", {f"{i}.png": str(i).encode() for i in range(20)})
    few = manifest.of_images("folder:a")
    monkeypatch.setattr(manifest, "CHUNK", 100)
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "elsewhere"))
    assert manifest.of_images("folder:a") == few


@pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\0 cut"])
def test_a_memory_that_is_damaged_begins_anew(place, tmp_path, read, content):
    before = manifest.of_images("folder:photos")
    (tmp_path / "study" / "manifest.sqlite").write_bytes(content)
    assert manifest.of_images("folder:photos") == before
    manifest.of_images("folder:photos")
    assert len(read) == 8


def test_nothing_is_kept_where_nothing_can_be_written(tmp_path, monkeypatch):
    before = manifest.of_images("folder:photos")
    (tmp_path / "file").write_text("")  # root writes to any folder, but nobody makes a folder in a file
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "file"))
    assert manifest.of_images("folder:photos") == before
