"""Measure, on this machine, how fast images are packed and how fast a source is found unchanged: `make bench`.

Packing is compared with a plain loop over the same files, which turns with it: Pillow decodes, resizes and cuts, on all
cores, and nothing is written. What is quoted are ratios.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from lib.images import data, packing
from lib.study import manifest


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def plain(paths: list[Path], size: int) -> None:
    """Decode files as the shortest program would."""

    def one(path: Path) -> np.ndarray:
        return np.asarray(ImageOps.fit(Image.open(path).convert("RGB"), (size, size), Image.Resampling.BICUBIC))

    with ThreadPoolExecutor(packing.WORKERS) as pool:
        for start in range(0, len(paths), 1024):
            list(pool.map(one, paths[start : start + 1024]))


def pack(place: Path, n: int, size: int, rounds: int) -> pd.DataFrame:
    """Time packing n photographs of 178 x 218 pixels from a folder and from its tar, beside the plain loop."""
    rng = np.random.default_rng(0)
    photos = [Image.fromarray(rng.integers(0, 256, (22, 18, 3), np.uint8)).resize((178, 218)) for _ in range(16)]
    paths = [place / "photos" / f"{i % 10}" / f"{i:06d}.jpg" for i in range(n)]
    for i, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        photos[i % 16].save(path, quality=90)
    shutil.make_archive(str(place / "photos"), "tar", place / "photos")
    rows = []
    for _ in range(rounds):
        row = {"plain loop": seconds(lambda: plain(paths, size))}
        for name in ("folder", "tar"):
            source = f"{name}:{place}/photos{'.tar' if name == 'tar' else ''}"
            manifest.of_images(source)  # what it costs is measured below
            row[name] = seconds(lambda source=source: data.load(source, size, root=place / "study"))
            shutil.rmtree(place / "study")
        rows.append(row)
    times = pd.DataFrame(rows).median()
    return pd.DataFrame({"images/s": n / times, "plain loop / this": times["plain loop"] / times}).round(2)


def look(place: Path, n: int) -> pd.Series:
    """Time the first and the second look at a folder of n files of 3 KB, and extrapolate to a million."""
    content = os.urandom(3000)
    for i in range(n):
        path = place / "many" / f"{i % 100:03d}" / f"{i:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content + str(i).encode())
    with mock.patch.object(manifest, "SETTLED", -1):  # as if the files had not been written just now
        times = {which: seconds(lambda: manifest.of_images(f"folder:{place}/many")) for which in ("first", "second")}
    return pd.Series({f"{which} look, seconds per million files": t * 1e6 / n for which, t in times.items()}).round(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000, help="photographs that are packed")
    parser.add_argument("--files", type=int, default=100_000, help="files of the folder that is looked at")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, STUDY_DATA=f"{folder}/data"):
        print(pack(Path(folder), given.images, 64, given.rounds).to_string(), "\n")
        print(look(Path(folder), given.files).to_string())


if __name__ == "__main__":
    main()
