"""Pictures: pixels where they belong, and one panel for each thing."""

import base64
import io
import re
from types import SimpleNamespace

import pandas as pd
import torch
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from lib.look import figures


def test_pictures_keep_their_pixels():
    images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 1, 2, 2) * 10
    picture = figures.to_picture(images, columns=2)
    assert picture.shape == (7, 7, 3), "two images of two pixels and three lines of padding"
    assert picture[1, 1].tolist() == [0, 0, 0] and picture[4, 4].tolist() == [30, 30, 30] and picture[0, 0, 0] == 255


def test_floats_are_scaled_from_minus_one_to_one():
    picture = figures.to_picture(torch.tensor([-1.0, 0, 1]).view(3, 1, 1, 1), columns=3)
    assert picture[1, [1, 3, 5], 0].tolist() == [0, 128, 255]


def test_rows_course_and_curves():
    images = torch.zeros(5, 3, 8, 8)
    figure = figures.show_rows({"a": images, "b": images[:2]}, titles=["1", "2"])
    assert [ax.get_yticklabels()[0].get_text() for ax in figure.axes] == ["a", "b"]
    assert len(figures.show_course({0: images, 10: images, 20: images}).axes) == 3
    log = pd.DataFrame({"step": [1, 2], "loss_D": [1.0, 1], "loss_G": [1.0, 2], "D_x": [0.5, 0.6], "D_G_z": [0.5, 0.4]})
    assert [len(ax.lines) >= 2 for ax in figures.show_curves(log).axes] == [True, True]


def test_a_walk_plays_without_a_kernel():
    page = figures.play(torch.zeros(3, 1, 8, 8)).data
    assert "<script" in page and page.count("data:image/png") >= 3 and "http://" not in page


def test_a_notebook_stores_figures_and_frames_of_few_colours(monkeypatch):
    """Noise of thousands of colours: it takes a fifth of the room, and a frame is still the size it was."""
    shell = SimpleNamespace(display_formatter=DisplayFormatter())
    monkeypatch.setattr(figures, "get_ipython", lambda: shell)
    noise = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    figure = figures.show_grid(noise)
    figure.savefig(full := io.BytesIO(), format="png", dpi=figure.dpi, bbox_inches="tight")
    figures.store_few_colours()
    stored = shell.display_formatter.formatters["image/png"](figure)
    frame = re.search(r"base64,([^\"]+)", figures.play(noise[:1]).data)[1]
    for content, size in ((stored, Image.open(full).size), (base64.b64decode(frame), (156, 156))):
        with Image.open(io.BytesIO(content)) as image:
            assert image.size == size and len(image.convert("RGB").getcolors(10**6)) <= figures.COLOURS
    assert len(stored) < len(full.getvalue()) / 3


def test_heat_is_scaled_image_by_image():
    heat = figures.to_heat(torch.tensor([[[[0.0, 1]]], [[[0.0, 100]]]]))
    assert heat.shape == (2, 3, 1, 2) and torch.equal(heat[0], heat[1]) and heat.abs().max() <= 1
