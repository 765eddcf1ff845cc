"""Charts: a mark where its number is, and the colour of its side."""

import os
import subprocess
import sys
from io import BytesIO

import pandas as pd
from matplotlib.colors import to_hex
from PIL import Image

from lib.look import charts, claims
from lib.study import paths, tables

VALUES = pd.DataFrame({
    "unit": ["points", "points", "times x"], "level": "toy",
    "run": ["b/one", "b/two", "b/x-0 over b/y-0; b/x-1 over b/y-1"],
    "value": [1.0, -1.0, 4.0], "low": [0.25, -2.0, 2.0], "high": [1.5, 0.0, 8.0], "side": ["for", "against", "open"],
    "criterion": ["above 0", "above 0", "above 1"],
})  # fmt: skip


def test_values_stand_where_they_are_in_the_colour_of_their_side():
    figure = charts.show_values(VALUES)
    points, times = figure.axes
    bars = [bar for bar in points.containers]
    assert [bar[0].get_xdata()[0] for bar in bars] == [1.0, -1.0]
    assert [to_hex(bar[0].get_color()) for bar in bars] == [charts.SIDES["for"], charts.SIDES["against"]]
    assert [segment[:, 0].tolist() for bar in bars for segment in bar[2][0].get_segments()] == [[0.25, 1.5], [-2, 0]]
    assert [label.get_text() for label in points.get_yticklabels()] == ["toy · b/one", "toy · b/two"]
    assert times.get_yticklabels()[0].get_text() == "toy · b/x" and times.get_xscale() == "log"
    assert "points (above 0)" in points.get_title(loc="left")


def test_cited_marks_are_hollow():
    frame = pd.DataFrame({"who": ["**a**", "b"], "images": ["lossy copy", "cited"], "all": [70.0, 80.0]})
    (ax,) = charts.show_bars(frame, ["all"]).axes
    cited, here = ax.collections[:2]
    assert cited.get_offsets().tolist() == [[80, 1]] and len(cited.get_facecolors()) == 0
    assert here.get_offsets().tolist() == [[70, 0]] and len(here.get_facecolors()) == 1
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a · lossy copy", "b"]


def test_a_small_figure_has_few_colours():
    with Image.open(BytesIO(charts.to_small(charts.show_values(VALUES), colours=8).data)) as image:
        assert image.format == "PNG" and len(image.getcolors()) <= 8


def course(row, recipe, few, labels="few labels", **more):
    """A table's lines of one training that notebook 12 probed: minibatches -> accuracy."""
    known = {"notebook": "12_snapshots", "batch": "lift", "row": row, "data": "cifar10", "departs": recipe, "code": ""}
    lines = [
        {"metric": f"{labels}, after {step:,} minibatches", "value": value, "low": value - 1, "high": value + 2}
        for step, value in few.items()
    ]
    return [dict.fromkeys(tables.COLUMNS) | known | line | more for line in lines]


def test_trainings_of_one_recipe_have_one_colour_and_bars_are_lines():
    table = pd.DataFrame([
        *course("a-snapshots", "206 images for 2 epochs, 64 maps", {0: 50.0, 1500: 60.0}),
        *course("b-snapshots", "206 images for 2 of 6 epochs, 64 maps", {0: 51.0, 2500: 62.0}),
        *course("b-snapshots", "206 images for 2 epochs, 64 maps", {2500: 66.0}, "all labels", low=None, high=None),
        *course("c-snapshots", "206 images for 2 epochs, 64 maps; mirrored", {500: 55.0}),
        *course("digits", "", {3: 90.0}, data="digits"),
        *course("b-probe", "", {0: 0}, notebook="05_cifar10_probe", metric="trained D: all labels", value=71.0),
        *course("a", "206 images", {0: 0}, metric="few labels, this net, untrained"),
    ])  # fmt: skip
    assert sorted(claims.courses(table)["row"].unique()) == ["a-snapshots", "b-snapshots", "c-snapshots"]
    few, every = charts.show_courses(table).axes
    a, b, c = (bars[0] for bars in few.containers)
    assert [line.get_xydata().tolist() for line in (a, b, c)] == [
        [[0, 50], [1500, 60]], [[0, 51], [2500, 62]], [[500, 55]],
    ]  # fmt: skip
    assert to_hex(a.get_color()) == to_hex(b.get_color()) != to_hex(c.get_color())
    assert few.containers[0][2][0].get_segments()[1][:, 1].tolist() == [59, 62]
    bars = [line.get_ydata()[0] for ax in (few, every) for line in ax.lines if line.get_linestyle() == "--"]
    assert bars == [73.8, 77.6, 70.8, 78.2, 82.8, 84.4]
    (diamond,) = [line for line in every.lines if line.get_marker() == "D"]
    assert diamond.get_xydata().tolist() == [[2500, 71]] and diamond.get_color() == b.get_color()
    told = [text.get_text() for text in few.figure.legends[0].get_texts()]
    assert told == ["64 maps", "64 maps; mirrored"]


def test_figures_need_no_display(tmp_path):
    draw = "charts.show_bars(pd.DataFrame({'who': ['a'], 'images': 'exact', 'all': 1.0}), ['all']).savefig('x.png')"
    displays = ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
    bare = {name: value for name, value in os.environ.items() if name not in displays}
    code = f"import os, pandas as pd; from lib.look import charts; os.chdir({str(tmp_path)!r}); {draw}"
    subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, env=bare, check=True)
    assert (tmp_path / "x.png").stat().st_size > 0
