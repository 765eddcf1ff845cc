"""Every parameter of every notebook, once at a value other than its default: batches/smoke.yaml, through the engine."""

import os
import subprocess
import sys

import pytest
import yaml
from PIL import Image, ImageDraw

from lib.images import rooms
from lib.study import identity, paths

SMOKE = paths.ROOT / "batches" / "smoke.yaml"


@pytest.fixture
def pictures(tmp_path):
    """The folder smoke/ of the batch: shapes of three classes, and rooms with boxes."""
    folder = tmp_path / "smoke"
    for split, n in (("train", 40), ("test", 30)):
        for side, shape in enumerate(("cross", "disc", "ring")):
            for i in range(n):
                image = Image.new("RGB", (20 + i % 7, 24), (40 * side, 60, i))
                draw, box = ImageDraw.Draw(image), (3 + i % 5, 4, 13 + i % 5, 14)
                if shape == "cross":
                    draw.line(box, fill="white", width=3)
                else:
                    draw.ellipse(box, fill="white" if shape == "disc" else None, outline="white", width=2)
                save(image, folder / "shapes" / split / shape / f"{i}.png")
    x, traits = rooms.draw_rooms(100, 64, seed=2)
    files = [f"{'bed' if bed else 'living'}_room/{i}.png" for i, bed in enumerate(traits["bed"])]
    for image, file in zip(x, files, strict=True):
        save(Image.fromarray(image.transpose(1, 2, 0)), folder / "rooms" / "train" / file)
        save(Image.fromarray(image.transpose(1, 2, 0)), folder / "rooms" / "test" / file)
    boxes = traits.filter(like="window_").filter(regex="[xy][01]$").rename(columns=lambda name: name[-2:])
    boxes.assign(file=files)[["file", "x0", "y0", "x1", "y1"]].to_csv(folder / "boxes.csv", index=False)
    return folder


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.mark.parametrize("notebook", identity.notebooks())
def test_a_row_changes_every_parameter(notebook):
    batch = yaml.safe_load(SMOKE.read_text())
    common = batch["defaults"].get(notebook, {})
    given = [common | row.get("parameters", {}) for row in batch["rows"].values() if row["notebook"] == notebook]
    usual = identity.parameters_of(notebook)
    assert not {name for name in usual if all(row.get(name, usual[name]) == usual[name] for row in given)}


def test_every_parameter_through_the_engine(pictures, tmp_path, tied):
    batch = tmp_path / "smoke.yaml"
    batch.write_text(SMOKE.read_text().replace("smoke/", f"{pictures}/"))
    env = {k: v for k, v in os.environ.items() if not k.startswith("STUDY_")}
    env |= {"STUDY_RESULTS": str(tmp_path / "results"), "STUDY_DATA": str(tmp_path / "data")}
    command = [*tied, sys.executable, "-m", "lib", "run", batch]
    done = subprocess.run(map(str, command), capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = {path.parent.name.rpartition("-")[0] for path in tmp_path.glob("results/runs/*/metrics.json")}
    assert ran == set(identity.notebooks())
    assert (tmp_path / "results" / "runs" / "table.csv").stat().st_size > 1000
