"""Folders and archives as people have them: what is taken, what is ignored, and what is said of the rest."""

import io
import os
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features
from samples import BLUE, GREEN, RED, TREE, colours, encode, one_line, write_folder, write_tar

from lib.images import data, files
from lib.images.data import load


def picture(kind: str, **how) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 0, 0)).save(file, kind, **how)
    return file.getvalue()


def told(capsys) -> str:
    return capsys.readouterr().err


# --- what is taken -------------------------------------------------------------------------------------------------


KINDS = {"a.gif": "GIF", "b.jfif": "JPEG", "c.jpe": "JPEG", "D.JPG": "JPEG", "e.webp": "WEBP", "f.bmp": "BMP",
         "g.tif": "TIFF", "h.ppm": "PPM", "no suffix": "PNG", "j.png": "JPEG"}  # fmt: skip


def test_every_kind_that_pillow_reads_is_taken(tmp_path, capsys):
    content = {f"{i}/{name}": picture(kind) for i, (name, kind) in enumerate(KINDS.items())}
    if features.check("avif"):
        content["x/k.avif"] = picture("AVIF")
    write_folder(tmp_path / "a", content)
    write_tar(tmp_path / "a.tar.gz", content)
    for name in ("folder:a", "tar:a.tar.gz"):
        images = load(name, 8)
        assert len(images) == len(content)
        assert (np.abs(np.array(colours(images)) - [200, 0, 0]) < 12).all()
        assert "not taken" not in told(capsys)


def test_what_is_not_taken_is_counted_by_kind_once(tmp_path, capsys):
    other = {
        "LICENSE": b"words",
        "a/x.heic": b"ftypheic",
        "a/y.HEIC": b"",
        "b/notes.txt": b"words",
        "eps": b"%!PS-Adobe-3.0 EPSF",
    }
    content = {"a/1.png": encode(RED), "b/1.png": encode(BLUE)} | other
    write_folder(tmp_path / "a", content)
    write_tar(tmp_path / "a.tar", content)
    for name in ("folder:a", "tar:a.tar"):
        assert len(load(name, 8)) == 2
        said = told(capsys)
        assert said.count("not taken: .heic: 2 (a/x.heic), .txt: 1 (b/notes.txt), no image: 2 (") == 1
        assert f"{name}: {load(name, 8).notes[0]}\n" == said  # kept with the set, and not said again
        assert told(capsys) == ""


def test_a_program_in_an_images_clothes_is_not_started(tmp_path):
    write_folder(tmp_path / "a", {"1.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n"})
    with pytest.raises(ValueError, match=r"1.png: is not an image"):
        load("folder:a", 8)


def test_what_systems_put_there_is_ignored(tmp_path, capsys):
    junk = ["cat/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "#recycle/9.png", "$RECYCLE.BIN/9.png", "@Recycle/x/9.png",
            "cat/.DS_Store", "cat/Thumbs.db", "__MACOSX/cat/._1.png", ".Trash-1000/9.png", ".thumbnails/9.png",
            "System Volume Information/9.png", "lost+found/9.png", "desktop.ini"]  # fmt: skip
    content = {"cat/1.png": encode(RED), "dog/1.png": encode(BLUE)} | dict.fromkeys(junk, encode(GREEN))
    write_folder(tmp_path / "a", content)
    write_tar(tmp_path / "a.tar", content)
    for name in ("folder:a", "tar:a.tar"):
        images = load(name, 8)
        assert images.classes == ("cat", "dog")
        assert colours(images) == [RED, BLUE]
        assert told(capsys) == ""


def test_links_in_a_folder(tmp_path, capsys):
    write_folder(tmp_path / "a", {"cat/1.png": encode(RED), "dog/1.png": encode(BLUE)})
    write_folder(tmp_path / "elsewhere", {"1.png": encode(GREEN)})
    (tmp_path / "a" / "wolf").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "cat" / "2.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "a" / "cat" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "cat" / "gone.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "a" / "dog" / "pipe.png")
    images = load("folder:a", 8)
    assert images.classes == ("cat", "dog", "wolf")
    assert colours(images) == [RED, GREEN, BLUE, GREEN]
    said = told(capsys)
    assert "a link to a folder above it: 1 (cat/loop)" in said
    assert "a link to nothing: 1 (cat/gone.png)" in said
    assert "neither file nor folder: 1 (dog/pipe.png)" in said


# --- archives ------------------------------------------------------------------------------------------------------


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", **what) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in what.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_links_in_a_tar_are_the_images_they_lead_to(tmp_path, capsys, mode):
    with tarfile.open(tmp_path / "a.tar", mode) as archive:
        add(archive, "./set/cat/early.png", type=tarfile.SYMTYPE, linkname="../dog/1.png")
        add(archive, "./set/cat/1.png", encode(RED))
        add(archive, "./set/dog/1.png", encode(BLUE))
        add(archive, "./set/dog/hard.png", type=tarfile.LNKTYPE, linkname="./set/cat/1.png")
        add(archive, "./set/dog/hard2.png", type=tarfile.LNKTYPE, linkname="set/cat/1.png")
        add(archive, "./set/dog/gone.png", type=tarfile.LNKTYPE, linkname="set/cat/9.png")
        add(archive, "./set/dog/out.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "./set/dog/pipe.png", type=tarfile.FIFOTYPE)
        add(archive, "../../set/dog/climbs.png", encode(RED))
    images = load("tar:a.tar", 8)
    assert colours(images) == [RED, BLUE, BLUE, RED, RED]
    assert data.names("tar:a.tar", 8) == ["cat/1.png", "cat/early.png", "dog/1.png", "dog/hard.png", "dog/hard2.png"]
    said = told(capsys)
    assert "a link to no file of the archive: 2 (set/dog/gone.png)" in said
    assert "a name that climbs out: 1" in said
    assert "neither file nor folder: 1 (set/dog/pipe.png)" in said


def test_a_folder_and_its_tar_are_the_same_set(tmp_path):
    """Hard links, which tar writes as links, long names, empty names of parts."""
    write_folder(
        tmp_path / "a", {"cat/1.png": encode(RED), "dog/2.png": encode(BLUE), f"dog/{'n' * 200}.png": encode(GREEN)}
    )
    os.link(tmp_path / "a" / "cat" / "1.png", tmp_path / "a" / "dog" / "1.png")
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / f"{form}.tar", "w", format=form) as archive:
            archive.add(tmp_path / "a", ".")
        whole, packed = load("folder:a", 8), load(f"tar:{form}.tar", 8)
        assert packed.checksum == whole.checksum
        assert packed.y.tolist() == whole.y.tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("name", ["cat\\1.png", "C:\\photos\\cat\\1.png", "C:/photos/cat/1.png", "/photos/cat/1.png"])
def test_names_from_windows_and_from_the_root(tmp_path, name):
    write_tar(tmp_path / "a.tar", {name: encode(RED), name.replace("cat", "dog"): encode(BLUE)})
    assert load("tar:a.tar", 8).classes == ("cat", "dog")


def test_a_sparse_member(tmp_path):
    path = tmp_path / "a.bmp"
    Image.new("RGB", (256, 256)).save(path)
    with path.open("r+b") as file:  # a hole in the middle
        file.truncate(os.path.getsize(path))
    done = os.system(f"tar -C {tmp_path} --sparse -cf {tmp_path}/a.tar a.bmp")
    assert done == 0
    assert len(load("tar:a.tar", 8)) == 1


@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_a_zip_says_how_to_load_it(tmp_path, kind):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cat/1.png", encode(RED))
    with pytest.raises(ValueError, match=r"a.zip: is a zip: unpack it and load it as folder:") as caught:
        load(f"{kind}:a.zip", 8)
    one_line(caught)
    (tmp_path / "a.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    with pytest.raises(ValueError, match="is a file compressed by zstd: unpack it"):
        load(f"{kind}:a.tar.zst", 8)


def test_a_tar_is_opened_once(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar.gz", TREE)
    opened = []
    real = tarfile.open
    monkeypatch.setattr(files.tarfile, "open", lambda *a, **k: opened.append(a) or real(*a, **k))
    load("tar:a.tar.gz", 8)
    assert len(opened) == 1


# --- names ---------------------------------------------------------------------------------------------------------


def test_names_that_are_not_utf_8(tmp_path):
    folder = os.fsencode(tmp_path / "a")
    os.makedirs(folder + b"/caf\xe9")
    for name, colour in ((b"/caf\xe9/\xe9.png", RED), (b"/caf\xe9/b.png", BLUE)):
        Path(os.fsdecode(folder + name)).write_bytes(encode(colour))
    (tmp_path / "a" / "attributes.csv").write_text("file,n\né.png,1\nb.png,2\n", encoding="utf-8")
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(tmp_path / "a", "a")
    for name in ("folder:a", "tar:a.tar"):
        images = load(name, 8)
        assert colours(images) == [BLUE, RED]
        assert images.attributes["n"].tolist() == [2, 1]
        assert data.names(name, 8)[1].isprintable()


def test_composed_and_decomposed_names(tmp_path):
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "é/ü.png")
        write_folder(
            tmp_path / form,
            {name: encode(RED), "z/1.png": encode(BLUE), "attributes.csv": "file,n\nü.png,1\n1.png,2\n".encode()},
        )
        images = load(f"folder:{form}", 8)
        assert images.classes == ("z", "é")
        assert images.attributes["n"].tolist() == [2, 1]


def test_a_folder_whose_name_is_a_pattern(tmp_path, monkeypatch):
    write_folder(tmp_path / "at" / "photos [2020]", {"1.png": encode(RED)})
    monkeypatch.setenv("STUDY_SOURCES", str(tmp_path / "at"))
    assert len(load("folder:photos [2020]", 8)) == 1
    assert len(load(f"folder:{tmp_path}/at/photos [2020]", 8)) == 1


def test_an_error_comes_before_a_million_images_are_decoded(tmp_path, monkeypatch):
    write_folder(tmp_path / "a", {"train/1.png": encode(RED), "masks/1.png": encode(RED)})
    monkeypatch.setattr(files, "open_image", bytes)
    with pytest.raises(ValueError, match="train looks like a split, masks not"):
        load("folder:a", 8)
