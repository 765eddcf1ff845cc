"""The main number and what it stands beside: Table 1 on CIFAR-10, as a table and as README's figure."""

import json
from io import BytesIO
from math import nan
from pathlib import Path

import pandas as pd
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib.look import charts, claims, verdicts
from lib.study import paths

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
    "here: their D's shape, untrained": "authors/imagenet-probe: untrained D",
    "**here: our D**, first training": "paper/tinyimagenet32-probe: trained D",
    "**here: our D**, second training": "paper/tinyimagenet32-probe-seed1: trained D",
    "here: our D, 64 maps, first training": "cifar10/trained: trained D",
    "here: our D, 64 maps, second training": "cifar10/trained-seed2: trained D",
    "here: a supervised net of D's shape": "cifar10/supervised: supervised net",
    "here: k-means, 4,800 units": "cifar10/kmeans-4800: k-means",
    "here: k-means, 1,600 units": "cifar10/kmeans: k-means",
    "here: our D, untrained": "real/cifar10-probe-wide-untrained: untrained D",
    "here: raw pixels": "cifar10/pixels: raw pixels",
    "here: Exemplar CNN, a tenth of its views": "cifar10/exemplar: Exemplar CNN",
}
LABELS = {"few labels": "400 per class", "all labels": "all labels"}


def lines(table: pd.DataFrame, whole: bool = False) -> pd.DataFrame:
    """Return Table 1 on CIFAR-10, the best first: columns who, images, marks, few labels, all labels.

    Runs here come from their records as they are now, on the exact images or on the JPEG copy, as `images` says.
    whole: with the lines of the exact test images in batch cifar10 that MEASURED does not name.
    """
    figure = claims.published()["value"]
    found = [
        {"who": who, "images": "cited", "marks": ""}
        | {name: figure.get(at, nan) for name, at in zip(LABELS, places, strict=True)}
        for who, places in CITED.items()
    ]
    records = _records(table)
    others = [line for line in _exact_lines(records) if whole and line not in MEASURED.values()]
    for who, line in (MEASURED | {f"here: {line}": line for line in others}).items():
        measured = {name: records[f"{line}: {name}"] for name in LABELS if f"{line}: {name}" in records}
        if measured:
            marks = next(iter(measured.values()))["marks"]
            images = "JPEG copy" if verdicts.DAMAGED in marks else "exact"
            values = {name: record["value"] for name, record in measured.items()}
            found.append({"who": who, "images": images, "marks": marks} | values)
    return pd.DataFrame(found).sort_values(["all labels", "few labels"], ascending=False, ignore_index=True)


def _records(table: pd.DataFrame) -> dict[str, dict]:
    """Return the lines of a table by BATCH/ROW: METRIC, with their marks."""
    names = claims.runs_of(table) + ": " + table["metric"]
    return dict(zip(names, table.assign(marks=verdicts.marks_of(table)).to_dict("records"), strict=True))


def _exact_lines(records: dict[str, dict]) -> list[str]:
    """Return the probe's lines of batch cifar10 that were measured on the exact test images."""
    exact = [
        name.removesuffix(": all labels")
        for name, record in records.items()
        if name.endswith(": all labels") and record["batch"] == "cifar10" and verdicts.DAMAGED not in record["marks"]
    ]
    probes = [line for line in exact if records[f"{line}: all labels"]["notebook"].startswith("05")]
    return [line for line in probes if "set apart" not in str(records[f"{line}: all labels"]["departs"])]


def write(table: pd.DataFrame, target: Path = HEADLINE) -> Path:
    """Draw README's figure, with the numbers that it shows in the file's own description; return the file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    figure = charts.show_bars(lines(table).rename(columns=LABELS), list(LABELS.values()))
    described = PngInfo()
    described.add_text("Description", to_json(table))
    with Image.open(BytesIO(charts.to_small(figure).data)) as image:
        image.save(target, "PNG", optimize=True, pnginfo=described)
    return target


def to_json(table: pd.DataFrame) -> str:
    """Return the numbers of README's figure as JSON, one list per line: who, few labels, all labels."""
    shown = lines(table)[["who", *LABELS]].astype(object)
    return json.dumps(shown.where(shown.notna(), None).to_numpy().tolist())
