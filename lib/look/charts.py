"""Numbers as pictures: the main number among its like, as a table and as README's figure, and values with intervals."""

import json
import re
from collections.abc import Sequence
from io import BytesIO
from math import nan
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image as Shown
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib.look import claims, verdicts
from lib.study import paths

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
    ax.set(axisbelow=True, xlabel="CIFAR-10, % correct (hollow: cited; filled: measured here)")
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
        ax.set_yticks(range(len(group)), group["level"] + " · " + group["run"].map(_short), fontsize=7)
        ax.set_title(f"{unit} ({group['criterion'].iloc[0]})", fontsize=8, loc="left")
        if unit.startswith("times") and (group["low"] > 0).all():
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter("")
        ax.tick_params(axis="x", labelsize=7)
        ax.set_ylim(len(group) - 0.4, -0.6)
        bounds = claims.bounds_of(group["criterion"].iloc[0])
        ax.vlines(bounds, *ax.get_ylim(), color="0.4", linewidth=1, linestyle="--")
    sns.despine(figure)
    plt.close(figure)
    return figure


def _short(run: str) -> str:
    """Return the first of the runs behind a value; of several seeds taken as one, what they share."""
    first = run.split(" ")[0]
    return first.rpartition("-")[0] if ";" in run else first


def to_small(figure: Figure, colours: int = 64) -> Shown:
    """Return a figure as a picture of few colours, which takes a quarter of the room in a stored notebook."""
    whole, small = BytesIO(), BytesIO()
    figure.savefig(whole, dpi=90, bbox_inches="tight")
    Image.open(whole).convert("RGB").quantize(colours).save(small, "PNG", optimize=True)
    return Shown(small.getvalue())


# --- the main number --------------------------------------------------------------------------------------------------

HEADLINE = paths.ROOT / "results" / "pictures" / "cifar10.png"
# Table 1 on CIFAR-10: who, with few and with all labels: ids of data/published.csv, or lines of runs here.
CITED = {
    "the paper: DCGAN": ("paper.cifar10.dcgan.400", "paper.cifar10.dcgan.all"),
    "the paper: Exemplar CNN": ("paper.cifar10.exemplar.400", "paper.cifar10.exemplar.all"),
    "the paper: k-means, 4,800 units": ("paper.cifar10.kmeans1.400", "paper.cifar10.kmeans1.all"),
    "Coates 2011: k-means, 1,600 units": ("", "others.cifar10.coates1600.all"),
    "MindSpore: RBF SVM, scaler fitted on test": ("", "others.cifar10.mindspore.310"),
    "StyleGAN2-ADA's D, four layers": ("", "others.cifar10.stylegan.four"),
    "Columbia 2020, 45 epochs": ("", "others.cifar10.columbia.45"),
    "report 000, SVM (few), SGD (all)": ("report000.5x5.l2svm.imagenet64.400", "report000.5x5.sgd.imagenet64.all"),
    "Columbia 2021": ("", "others.cifar10.nb2838"),
}
MEASURED = {
    "**here: the authors' D**, four of six layers": "authors/imagenet-probe: trained D",
    "**here: the authors' D**, the other two layers learned here": "lift/authors-frozen-test: trained D",
    "here: their D's shape, untrained": "authors/imagenet-probe: untrained D",
    "**here: our D**, 128 maps, 25,532 updates, annealed": "cifar10/trained-wide-on: trained D",
    "here: our D, 128 maps, 12,766 updates": "cifar10/trained-wide: trained D",
    "here: our D, 128 maps, 12,766 updates, second seed": "cifar10/trained-wide-seed2: trained D",
    "**here: our D**, 64 maps, 38,298 updates": "cifar10/trained-longer: trained D",
    "here: our D, 64 maps, 15,319 updates": "cifar10/trained: trained D",
    "here: our D, 64 maps, 15,319 updates, second seed": "cifar10/trained-seed1: trained D",
    "here: a supervised net of D's shape": "cifar10/supervised: supervised net",
    "here: k-means, 4,800 units": "cifar10/kmeans-4800: k-means",
    "here: k-means, 1,600 units": "cifar10/kmeans: k-means",
    "here: our D, untrained": "cifar10/untrained: untrained D",
    "here: the authors' D, images saved as JPEG": "authors/imagenet-probe-jpeg: trained D, JPEG 75",
    "here: their D's shape, untrained, images saved as JPEG": "authors/imagenet-probe-jpeg: untrained D, JPEG 75",
    "here: k-means, 1,600 units, images saved as JPEG": "cifar10/kmeans-jpeg: k-means, JPEG 75",
    "here: raw pixels, images saved as JPEG": "cifar10/pixels-jpeg: raw pixels, JPEG 75",
    "here: raw pixels": "cifar10/pixels: raw pixels",
    "here: Exemplar CNN, a tenth of its views": "cifar10/exemplar: Exemplar CNN",
}
SHORT = (  # in README, beside the lines in bold
    "the paper: DCGAN", "the paper: k-means, 4,800 units", "MindSpore: RBF SVM, scaler fitted on test",
    "Columbia 2020, 45 epochs", "here: k-means, 4,800 units", "here: a supervised net of D's shape",
    "here: their D's shape, untrained", "here: raw pixels",
)  # fmt: skip
LABELS = {"few labels": "400 per class", "all labels": "all labels"}


def main_lines(table: pd.DataFrame, whole: bool = False) -> pd.DataFrame:
    """Return Table 1 on CIFAR-10, the best first: columns who, images, marks, few labels, all labels.

    Runs here come from their records as they are now, and on the exact images. whole: with those on a lossy copy, as
    `images` says, and with the lines of batch cifar10 that MEASURED does not name.
    """
    figure = claims.published()["value"]
    found = [
        {"who": who, "images": "cited", "marks": ""}
        | {name: figure.get(at, nan) for name, at in zip(LABELS, places, strict=True)}
        for who, places in CITED.items()
    ]
    records = verdicts.records_of(table)
    others = [line for line in _exact_lines(records) if whole and line not in MEASURED.values()]
    for who, line in (MEASURED | {f"here: {line}": line for line in others}).items():
        measured = {name: records[f"{line}: {name}"] for name in LABELS if f"{line}: {name}" in records}
        marks = next((record["marks"] for record in measured.values()), "")
        lossy = verdicts.LOSSY in marks or "JPEG" in line
        if measured and (whole or not lossy):
            images = "lossy copy" if lossy else "exact"
            values = {name: record["value"] for name, record in measured.items()}
            found.append({"who": who, "images": images, "marks": marks} | values)
    return pd.DataFrame(found).sort_values(["all labels", "few labels"], ascending=False, ignore_index=True)


def _exact_lines(records: dict[str, dict]) -> list[str]:
    """Return the probe's lines of batch cifar10 that were measured on the exact test images, each net's own row's."""
    return [
        name.removesuffix(": all labels")
        for name, record in records.items()
        if re.fullmatch("cifar10/[^:]+: (?!D beside|.* minus ).+: all labels", name)
        and not re.search(f"set apart|lossy copy|{verdicts.LOSSY}", f"{record['departs']} {record['marks']}")
    ]


def write_headline(table: pd.DataFrame, target: Path = HEADLINE) -> Path:
    """Draw README's figure, with the numbers that it shows in the file's own description; return the file."""
    figure = show_bars(main_lines(table).rename(columns=LABELS), list(LABELS.values()))
    return _write(figure, headline_json(table), target)


def _write(figure: Figure, description: str, target: Path) -> Path:
    described = PngInfo()
    described.add_text("Description", description)
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(BytesIO(to_small(figure).data)) as image:
        image.save(target, "PNG", optimize=True, pnginfo=described)
    return target


def headline_json(table: pd.DataFrame) -> str:
    """Return the numbers of README's figure as JSON, one list per line: who, few labels, all labels."""
    shown = main_lines(table)[["who", *LABELS]].astype(object)
    return json.dumps(shown.where(shown.notna(), None).to_numpy().tolist())


# --- the ladder of batches/lift.yaml ----------------------------------------------------------------------------------

COURSES = HEADLINE.with_name("lift.png")
BARS = {
    "Columbia 2020": CITED["Columbia 2020, 45 epochs"],
    "MindSpore": CITED["MindSpore: RBF SVM, scaler fitted on test"],
    "the authors' D, four of six layers": tuple(f"authors/imagenet-probe: trained D: {name}" for name in LABELS),
    "the paper": CITED["the paper: DCGAN"],
    "AutoCNN-L": ("later.cifar10.autocnn.400", "later.cifar10.autocnn.all"),
}


def show_courses(table: pd.DataFrame) -> Figure:
    """Draw accuracy over updates for every training that notebook 12 probed, one colour per recipe, BARS as lines.

    A diamond is the probe of a training's end with all labels that are not set apart.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 5.5), layout="constrained")
    known, records, drawn = claims.courses(table), verdicts.records_of(table), {}
    recipes = known["recipe"].unique()
    figures = claims.published()["value"].to_dict() | {name: record["value"] for name, record in records.items()}
    colours = dict(zip(recipes, sns.color_palette("colorblind", len(recipes)), strict=True))
    for place, (ax, labels) in enumerate(zip(axes, LABELS, strict=True)):
        for (recipe, row), line in known[known["labels"] == labels].groupby(["recipe", "row"], sort=False):
            x, reach = line["minibatches"], [line["value"] - line["low"], line["high"] - line["value"]]
            drawn[recipe] = ax.errorbar(x, line["value"], reach, color=colours[recipe], marker=".", capsize=2)
            whole = f"lift/{row.replace('-snapshots', '-probe')}: trained D: all labels"
            if labels == "all labels" and whole in figures:
                ax.plot(x.max(), figures[whole], "D", color=colours[recipe])
        for who, names in BARS.items():
            if names[place] in figures:
                ax.axhline(figures[names[place]], color="0.5", linestyle="--", linewidth=1)
                ax.annotate(f"{who} {figures[names[place]]:.1f}", (0, figures[names[place]]), (0, 2), fontsize=8,
                            xycoords=ax.get_yaxis_transform(), textcoords="offset points")  # fmt: skip
        ax.set(xlabel="updates of D", xlim=(0, None))
        ax.xaxis.set_major_formatter("{x:,.0f}")
    axes[0].set(title="400 labels per class", ylabel="CIFAR-10, % correct")
    axes[1].set(title="10,000 labels; diamonds: 45,000; dashed: 50,000")
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=2)
    sns.despine(figure)
    plt.close(figure)
    return figure


def write_courses(table: pd.DataFrame, target: Path = COURSES) -> Path:
    """Draw the figure of the courses, with its numbers in the file's own description; return the file."""
    figure = show_courses(table)
    return _write(figure, numbers_in(figure), target)


def numbers_in(figure: Figure) -> str:
    """Return a figure's lines as JSON: for each of its panels their points."""
    return json.dumps([[line.get_xydata().tolist() for line in ax.lines] for ax in figure.axes])
