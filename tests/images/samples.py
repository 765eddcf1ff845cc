"""Image files, folders and archives that tests make."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from lib.images import data

RED, GREEN, BLUE, GREY = (200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 90)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def colours(images: data.ImageSet) -> list[tuple[int, ...]]:
    """The colour of each image's first pixel."""
    return [tuple(pixel) for pixel in images.x[:, :, 0, 0].tolist()]


def one_line(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


TREE = {  # out of order on purpose
    "set/train/dog/2.png": encode(BLUE),
    "set/train/cat/1.png": encode(RED),
    "set/train/dog/1.png": encode(GREEN),
    "set/test/wolf/1.png": encode(GREY),
    "set/test/dog/9.png": encode(RED),
    "set/unlabelled/all/1.png": encode(GREY),
}
