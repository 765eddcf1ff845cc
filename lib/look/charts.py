"""Numbers as pictures: accuracies of methods, and the values behind verdicts with their intervals."""

from collections.abc import Sequence
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image as Shown
from matplotlib.figure import Figure
from PIL import Image

COLOURS = {"supported": "#bfe3c4", "contradicted": "#f3c1bb", "mixed": "#f4e2ae", "not tested": "#dddddd"}
SIDES = {"for": "#2b8a3e", "against": "#c92a2a", "open": "#b08900", "": "#999999"}


def colour_of(verdict: str) -> str:
    """Return a verdict's colour as a style of a table's cell."""
    return f"background-color: {COLOURS[verdict]}; color: black"


def show_bars(frame: pd.DataFrame, columns: Sequence[str]) -> Figure:
    """Draw accuracies in percent, one line per row, one mark per column: hollow where cited, filled where measured.

    frame: columns who, images ("cited" or what they were measured on), and those named.
    """
    figure, ax = plt.subplots(figsize=(8, 0.3 * len(frame) + 1))
    heights, cited = np.arange(len(frame)), frame["images"] == "cited"
    for column, marker, colour in zip(columns, "Do", ("tab:orange", "tab:blue"), strict=False):
        for which, fill in ((cited, "none"), (~cited, colour)):
            ax.scatter(frame.loc[which, column], heights[which], marker=marker, edgecolors=colour, facecolors=fill)
        ax.scatter([], [], marker=marker, edgecolors=colour, facecolors=colour, label=column)
    where = frame["images"].map({"cited": "", "exact": ""}).fillna(" · " + frame["images"])
    ax.set_yticks(heights, frame["who"].str.replace("*", "") + where, fontsize=8)
    for label, hollow in zip(ax.get_yticklabels(), cited, strict=True):
        label.set_color("0.45" if hollow else "black")
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    ax.set_xlabel("CIFAR-10, % correct (hollow: cited; filled: measured here)")
    ax.invert_yaxis()
    ax.legend(fontsize=8, loc="upper left")
    sns.despine(figure)
    plt.close(figure)
    return figure


def show_values(frame: pd.DataFrame) -> Figure:
    """Draw values with their intervals, one panel per unit, one line per run, coloured by side, and the bound.

    frame: columns unit, level, run, value, low, high, criterion, side, as `verdicts.measure_all` returns them.
    """
    groups = list(frame.groupby("unit", sort=False))
    heights = [0.2 * len(group) + 0.45 for _, group in groups]
    figure, axes = plt.subplots(
        len(groups), 1, figsize=(8, sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for ax, (unit, group) in zip(axes[:, 0], groups, strict=True):
        for place, line in enumerate(group.itertuples()):
            reach = [[line.value - line.low], [line.high - line.value]]
            ax.errorbar([line.value], [place], xerr=reach, fmt="o", markersize=4, capsize=2, color=SIDES[line.side])
        ax.axvline(float(group["criterion"].iloc[0].split()[-1]), color="0.4", linewidth=1, linestyle="--")
        ax.set_yticks(range(len(group)), group["level"] + " · " + group["run"].map(_short), fontsize=7)
        ax.set_title(f"{unit} ({group['criterion'].iloc[0]})", fontsize=8, loc="left")
        if unit.startswith("times") and (group["low"] > 0).all():
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter("")
        ax.tick_params(axis="x", labelsize=7)
        ax.set_ylim(len(group) - 0.4, -0.6)
    sns.despine(figure)
    plt.close(figure)
    return figure


def _short(run: str) -> str:
    """Return the first of the runs behind a value; of several seeds taken as one, what they share."""
    first = run.split(" ")[0]
    return first.rpartition("-")[0] if ";" in run else first


def to_small(figure: Figure, colours: int = 32) -> Shown:
    """Return a figure as a picture of few colours, which takes a quarter of the room in a stored notebook."""
    whole, small = BytesIO(), BytesIO()
    figure.savefig(whole, dpi=90, bbox_inches="tight")
    Image.open(whole).convert("RGB").quantize(colours).save(small, "PNG", optimize=True)
    return Shown(small.getvalue())
