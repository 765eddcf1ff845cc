"""The road that README.md shows for one's own photographs: batches/own.yaml, walked from end to end."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

from lib.study import paths

OWN = paths.ROOT / "batches" / "own.yaml"
# what makes a row small enough for a test; all else stays as the file has it
SMALL = {
    "train": {"ngf": 8, "ndf": 8, "epochs": 4, "batch_size": 8, "snapshots": 2, "held_out": 0.2},
    "walk": {"stops": 3, "steps": 4, "walks": 4, "stored": 4},
    "neighbours": {"hash_epochs": 1, "planted": 8, "samples": 8, "stored": 4, "steps": 5},
    "guided": {"limit": 40, "maps": 2, "images": 2, "checked": 4},
}


@pytest.fixture
def photos(tmp_path):
    """A flat folder of drawn images of odd sizes, in colour and in grey, of several formats."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(60):
        width, height = (int(side) for side in random.integers(33, 90, 2))
        image = Image.new("L" if i % 20 == 7 else "RGB", (width, height), "white")
        draw = ImageDraw.Draw(image)
        for _ in range(3):
            x, y = random.integers(0, 40, 2)
            ink = int(random.integers(0, 200)) if image.mode == "L" else tuple(map(int, random.integers(0, 200, 3)))
            draw.ellipse((x, y, x + 20, y + 20), fill=ink)
        image.save(folder / f"IMG {i:03d}.{('jpg', 'png', 'webp')[i % 3]}")
    return folder


def test_the_road_from_photographs_to_pictures(photos, tmp_path, tied):
    batch = yaml.safe_load(OWN.read_text().replace("folder:photos", f"folder:{photos}"))
    assert batch["rows"].keys() == SMALL.keys()
    for name, row in batch["rows"].items():
        row["parameters"] |= SMALL[name]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(batch))
    env = {k: v for k, v in os.environ.items() if not k.startswith("STUDY_")}
    env |= {"STUDY_RESULTS": str(tmp_path / "results"), "STUDY_DATA": str(tmp_path / "data")}
    command = [*tied, sys.executable, "-m", "lib", "run", "own.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    promised = pictures_of_the_readme()
    assert {"01", "02", "04", "07"} <= promised.keys()
    for notebook, pictures in promised.items():
        (folder,) = (tmp_path / "results" / "runs").glob(f"{notebook}_*")
        assert pictures <= {path.name for path in folder.iterdir()}
    assert [*tmp_path.glob("results/runs/training-*/progress.txt")], "by which README.md has a training followed"


def pictures_of_the_readme() -> dict[str, set[str]]:
    """The files that README.md promises on the road, by the notebook's number."""
    section = (paths.ROOT / "README.md").read_text().split("\n## Your own data")[1].split("\n## ")[0]
    return {n: set(re.findall(r"`(\w+\.png)`", line)) for n, line in re.findall(r"\| `(\d\d)_\*/` (.*)", section)}
