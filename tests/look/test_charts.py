"""Charts: a mark where its number is, and the colour of its side."""

from io import BytesIO

import pandas as pd
from matplotlib.colors import to_hex
from PIL import Image

from lib.look import charts

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
    frame = pd.DataFrame({"who": ["**a**", "b"], "images": ["JPEG copy", "cited"], "all": [70.0, 80.0]})
    (ax,) = charts.show_bars(frame, ["all"]).axes
    cited, here = ax.collections[:2]
    assert cited.get_offsets().tolist() == [[80, 1]] and len(cited.get_facecolors()) == 0
    assert here.get_offsets().tolist() == [[70, 0]] and len(here.get_facecolors()) == 1
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a · JPEG copy", "b"]


def test_a_small_figure_has_few_colours():
    with Image.open(BytesIO(charts.to_small(charts.show_values(VALUES), colours=8).data)) as image:
        assert image.format == "PNG" and len(image.getcolors()) <= 8
