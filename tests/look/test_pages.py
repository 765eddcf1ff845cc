"""What git keeps of an executed notebook: readable on a forge, small, and of no particular machine."""

import base64
import io

import nbformat
import numpy as np
import pytest
from PIL import Image

from lib.look import pages
from lib.study import paths


def png(width=4, height=3, colours=0, seed=0):
    """A picture of one colour, or of so many random ones, in base64."""
    picture = Image.new("RGB", (width, height), (seed, 0, 0))
    if colours:
        picture = Image.fromarray(np.random.default_rng(seed).integers(0, colours, (height, width, 3), np.uint8))
    content = io.BytesIO()
    picture.save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def opened(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def notebook(*outputs, **metadata):
    cell = nbformat.v4.new_code_cell(
        "x", outputs=list(outputs), metadata={"papermill": {"a": "/home/me"}, "tags": ["t"]}
    )
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A"), cell], metadata=metadata)


def shown(**data):
    return nbformat.v4.new_output("display_data", {name.replace("_", "/"): value for name, value in data.items()})


def small(*outputs, **metadata):
    read = nbformat.reads(pages.to_small(notebook(*outputs, **metadata), "b/r").decode(), as_version=4)
    nbformat.validate(read)
    return read


def test_metadata_of_machines_is_left_out():
    made = small(papermill={"input_path": "/home/me"}, kernelspec={"name": "python3", "display_name": "P"}, widgets={})
    assert made.metadata.keys() == {"kernelspec"}
    assert made.cells[1].metadata == {"tags": ["t"]} and made.cells[0].source == "# A"


def test_a_player_becomes_its_frames_side_by_side():
    """Of 25 frames, at most twelve: the first one red 0, the last one red 24."""
    frames = "\n".join(
        f'frames[{i}] = "data:image/png;base64,{png(seed=i)[:20]}\\\n{png(seed=i)[20:]}"' for i in range(25)
    )
    (output,) = small(shown(text_html=f"<script>{frames}</script>", text_plain="player")).cells[1].outputs
    assert output.data.keys() == {"image/png", "text/plain"}
    strip = opened(output.data["image/png"]).convert("RGB")
    assert strip.size == (12 * 4, 3)
    assert [strip.getpixel((x, 0))[0] for x in (0, 47)] == [0, 24]


def test_what_needs_a_script_or_a_kernel_is_left_out():
    table = shown(text_html="<table></table>")
    view = {pages.WIDGET: {"model_id": "0", "version_major": 2, "version_minor": 0}, "text/plain": "a slider"}
    outputs = small(table, nbformat.v4.new_output("display_data", view)).cells[1].outputs
    assert [set(output.data) for output in outputs] == [{"text/html"}, {"text/plain"}]


def test_no_path_of_this_machine_is_kept():
    said = f"/tmp/r/runs/code/0123456789/lib/a.py:8: warning in {paths.ROOT}/notebooks\n"
    (output,) = small(nbformat.v4.new_output("stream", text=said)).cells[1].outputs
    assert output.text == "lib/a.py:8: warning in notebooks\n"


def test_pictures_have_a_palette_and_no_more_bytes():
    flat, noisy = small(shown(image_png=png()), shown(image_png=png(60, 60, 256))).cells[1].outputs
    assert len(flat.data["image/png"]) <= len(png())
    assert opened(noisy.data["image/png"]).mode == "P"


def test_a_picture_without_colour_has_a_few_greys():
    content = io.BytesIO()
    opened(png(60, 60, 256)).convert("L").convert("RGB").save(content, "PNG")
    (output,) = small(shown(image_png=base64.b64encode(content.getvalue()).decode())).cells[1].outputs
    colours = opened(output.data["image/png"]).convert("RGB").getcolors()
    assert len(colours) <= 16 and all(r == g == b for _, (r, g, b) in colours)


def test_colours_go_where_a_notebook_is_too_large(monkeypatch):
    picture = png(200, 200, 256)
    one = len(pages.to_small(notebook(shown(image_png=picture)), "b/r"))
    monkeypatch.setattr(pages, "BUDGET", one - 1)
    (output,) = small(shown(image_png=picture)).cells[1].outputs
    assert len(opened(output.data["image/png"]).getcolors()) <= 64


def test_a_notebook_larger_than_the_budget_is_refused_by_name():
    large = notebook(nbformat.v4.new_output("stream", text="x" * 2**21))
    with pytest.raises(ValueError, match="the executed notebook of own/a takes 2.0 MiB .*at most 1.5 MiB"):
        pages.to_small(large, "own/a")


def test_every_kept_notebook_is_within_the_budget_and_of_its_row():
    for path in paths.KEPT.glob("*/*/notebook.ipynb"):
        assert path.stat().st_size <= pages.BUDGET, path
        assert path.with_name("metrics.json").exists(), path
