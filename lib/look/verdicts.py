"""Set our numbers beside the published ones and say which of them reproduced.

A number that was measured on other data, at another scale, or by another protocol neither confirms nor refutes a
claim, however close it comes. A batch row says in `departs` how its setting differs; its verdict is then "not
comparable", and whether the criterion is met is told beside it.
"""

from collections.abc import Sequence
from math import nan
from statistics import fmean

import pandas as pd

from lib.study import paths

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
NOT_COMPARABLE, NOT_SCORED, NOT_RUN = "not comparable", "not scored", "not run"
MARGIN = 1.0  # by how much, in the figure's own unit, ours may miss a published figure on either side
VERDICTS = (REPRODUCED, NOT_REPRODUCED, NOT_COMPARABLE, NOT_SCORED, NOT_RUN)

# The probes on CIFAR-10 that answer to the paper's main number, one per training, BATCH/ROW: LINE, and what they are
# held against, with few and all labels: ids of data/published.csv, or lines of runs here.
MAIN = ("paper/tinyimagenet32-probe: trained D", "paper/tinyimagenet32-probe-seed1: trained D")
BARS = {
    "raw pixels, here": ("cifar10/pixels: raw pixels: few labels", "cifar10/pixels: raw pixels: all labels"),
    "an untrained D, here": (
        "real/cifar10-probe-wide-untrained: untrained D: few labels",
        "real/cifar10-probe-wide-untrained: untrained D: all labels",
    ),
    "report 000's best": ("report000.5x5.l2svm.imagenet64.400", "report000.5x5.sgd.imagenet64.all"),
    "four of six convolutions of the authors' D, here": (
        "authors/imagenet-probe: trained D: few labels",
        "authors/imagenet-probe: trained D: all labels",
    ),
    "1-layer k-means, here": ("cifar10/kmeans: k-means: few labels", "cifar10/kmeans: k-means: all labels"),
    "the paper": ("paper.cifar10.dcgan.400", "paper.cifar10.dcgan.all"),
    "AutoCNN": ("later.cifar10.autocnn.400", "later.cifar10.autocnn.all"),
}
LABELS = {"few labels": "400 labels per class", "all labels": "all labels"}


def published() -> pd.DataFrame:
    """Return data/published.csv: what the paper and the reports state, one row per figure or claim."""
    return pd.read_csv(paths.PUBLISHED, dtype={"criterion": str, "protocol": str}, keep_default_na=True)


def compare(table: pd.DataFrame, claims: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return one row per published figure and run that stands beside it, with holds and verdict.

    table: as `results.table` returns it. Columns id, source, claim, metric, published, ours, low, high, run_data,
    holds, verdict, why, batch, row.
    """
    claims = published() if claims is None else claims
    ours = table[table["published"].fillna("") != ""].rename(
        columns={"value": "ours", "published": "id", "data": "run_data"}
    )
    joined = claims.rename(columns={"value": "published"}).merge(ours, on="id", how="left")
    judged = joined.apply(_judge, axis=1, result_type="expand").set_axis(["holds", "verdict", "why"], axis=1)
    columns = ["id", "source", "claim", "metric", "published", "ours", "low", "high", "run_data"]
    return pd.concat([joined[columns], judged, joined[["batch", "row"]]], axis=1)


def holds(criterion: str, published: float, plus_minus: float, low: float, high: float) -> bool:
    """Tell whether our interval [low, high] meets a criterion: `at least` or `at most`, and a bound of its own.

    A bound is set by the claim itself: the whole interval has to lie on its right side. A published figure is met
    where the whole interval lies within MARGIN of it, or within its own uncertainty where that is more, on both sides:
    a figure far above it is another measurement, and few draws, whose interval is wide, decide nothing.
    """
    way, bound = criterion[: len("at least")].strip(), criterion[len("at least") :].strip()
    if bound:
        return low >= float(bound) if way == "at least" else high <= float(bound)
    margin = MARGIN if pd.isna(plus_minus) else max(MARGIN, plus_minus)
    return published - margin <= low and high <= published + margin


def _judge(row: pd.Series) -> tuple[bool | None, str, str]:
    """Return holds, verdict and the reason for one joined row."""
    if pd.isna(row["ours"]):
        return None, NOT_RUN, "no row of the table stands beside it"
    if pd.isna(row["criterion"]):
        return None, NOT_SCORED, "shown, no number decides it"
    if pd.notna(row["published"]) and pd.isna(row["low"]):
        return None, NOT_SCORED, "a single number without an interval decides nothing"
    low, high = (row["ours"] if pd.isna(row[side]) else row[side] for side in ("low", "high"))
    met = bool(holds(row["criterion"], row["published"], row["plus_minus"], low, high))
    departs = row["departs"] if isinstance(row["departs"], str) else ""
    if departs:
        return met, NOT_COMPARABLE, departs
    return met, REPRODUCED if met else NOT_REPRODUCED, row["criterion"]


def over_seeds(table: pd.DataFrame, batch: str, metrics: Sequence[str]) -> pd.DataFrame:
    """Return each setting of a batch over its seeds as "mean (least to largest)": settings by metrics.

    One seed has no range, and what was not measured is empty. A setting's rows are named SETTING-SEED, or
    SETTING-SEED-WHAT where another notebook measures them.
    """
    lines = table[(table["batch"] == batch) & table["metric"].isin(metrics)].copy()
    lines["setting"] = lines["row"].str.replace(r"-\d+(-[a-z]+)?$", "", regex=True)
    spread = lines.groupby(["setting", "metric"])["value"].agg(["mean", "min", "max", "size"])
    told = [f"{s.mean:.2f}" + f" ({s.min:.2f} to {s.max:.2f})" * (s.size > 1) for s in spread.itertuples(index=False)]
    seeds = spread["size"].groupby("setting").max().rename("seeds")
    shown = pd.Series(told, spread.index, dtype=object).unstack("metric").reindex(columns=list(metrics)).fillna("")
    return pd.concat([seeds, shown], axis=1)


def shortfall(table: pd.DataFrame) -> pd.DataFrame:
    """Return by how many points MAIN misses each of BARS: columns bar, labels, accuracy, ours, short by.

    table: as `results.table` returns it; what it lacks is NaN. ours: the mean over MAIN's trainings.
    """
    figures = _figures(table)
    lines = [
        (bar, labels, figures.get(place, nan), fmean(figures.get(f"{line}: {labels}", nan) for line in MAIN))
        for bar, places in BARS.items()
        for labels, place in zip(LABELS, places, strict=True)
    ]
    bars = pd.DataFrame(lines, columns=["bar", "labels", "accuracy", "ours"])
    return bars.assign(**{"short by": bars["accuracy"] - bars["ours"]})


def _figures(table: pd.DataFrame) -> dict[str, float]:
    """Return what is published by its id, and what was measured by BATCH/ROW: METRIC."""
    measured = table.set_index(table["batch"] + "/" + table["row"] + ": " + table["metric"])["value"]
    return pd.concat([published().set_index("id")["value"], measured]).to_dict()


def bars_to_markdown(table: pd.DataFrame) -> str:
    """Return the README's table of the main number: MAIN's accuracies and its bars' among them, from the least."""
    accuracies, figures = shortfall(table).pivot(index="bar", columns="labels", values="accuracy"), _figures(table)
    for line in MAIN:
        own = {labels: figures.get(f"{line}: {labels}", nan) for labels in LABELS}
        accuracies.loc[f"**this study's D** (`{line.partition(':')[0]}`)"] = own
    shown = accuracies.sort_values("few labels").rename(columns=LABELS)[list(LABELS.values())]
    return shown.rename_axis("CIFAR-10, % correct").to_markdown(floatfmt=".1f")


def to_markdown(table: pd.DataFrame, small: Sequence[str] = ("quick", "smoke", "ablation", "precision")) -> str:
    """Return the README's table: one line per published figure or claim, and run beside it; and how the runs depart.

    small: batches on embedded data, which say nothing of the published figures and are left out.
    """
    judged = compare(table[~table["batch"].isin(small)])
    judged = judged[judged["ours"].notna()].sort_values("id", kind="stable")
    run = judged["batch"] + "/" + judged["row"]
    lines = pd.DataFrame(
        {
            "claim": judged["claim"] + " (" + judged["source"].str.replace(r" \(.*", "", regex=True) + ")",
            "measure": judged["metric"],
            "published": [_figure(value) for value in judged["published"]],
            "ours": [_figure(*row) for row in judged[["ours", "low", "high"]].itertuples(index=False)],
            "meets": judged["holds"].map({True: "yes", False: "no"}).fillna("—"),
            "verdict": judged["verdict"],
            "run": run,
        }
    )
    departures = judged.loc[judged["verdict"] == NOT_COMPARABLE, "why"].groupby(run).first()
    why = [f"- `{name}`: {departs}" for name, departs in departures.items()]
    return "\n".join([lines.to_markdown(index=False, disable_numparse=True), "", "Not comparable, because:", "", *why])


TABLES = {"main number": bars_to_markdown, "results": to_markdown}  # by their marks in README.md


def write_readme() -> None:
    """Put the tables of results/table.csv between README.md's marks."""
    readme, table = paths.ROOT / "README.md", pd.read_csv(paths.TABLE)
    text = readme.read_text()
    for name, to_text in TABLES.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, _, rest = text.partition(start)
        text = f"{before}{start}\n{to_text(table)}\n{end}{rest.partition(end)[2]}"
    readme.write_text(text)


def _figure(value: float, low: float = float("nan"), high: float = float("nan")) -> str:
    """Write a number, and its interval where it has one."""
    if pd.isna(value):
        return ""
    return f"{value:.4g}" + ("" if pd.isna(low) else f" ({low:.4g} to {high:.4g})")
