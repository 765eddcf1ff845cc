"""What is claimed, and which numbers of which runs decide it: data/claims.yaml, checked before it is used."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import hypot
from pathlib import Path

import pandas as pd
from ruamel.yaml import YAML

from lib.study import paths, tables

CLAIMS = paths.ROOT / "data" / "claims.yaml"
STEPS = CLAIMS.with_name("steps.yaml")
KINDS = ("figure", "statement")
CRITERION = re.compile(r"(above|below|at least|at most|within) (-?\d+(?:\.\d+)?)")
ENTRY = re.compile(r"([\w.-]+/[\w.-]+)(?: (minus|over) ([\w.-]+/[\w.-]+))?")


@dataclass(frozen=True)
class Planted:
    """A failure of a claim: a metric of the deciding rows or of rows of its own, or a value known without a run.

    clear: it must be told from a success, beyond its interval; of one that changes nothing only the opposite counts.
    """

    metric: str = ""
    rows: list[str] = field(default_factory=list)
    against: str = ""
    value: float | None = None
    clear: bool = False


@dataclass(frozen=True)
class Measure:
    """One number that decides a claim: data/claims.yaml says what each field means."""

    metric: str
    criterion: str
    unit: str
    rows: list[str]
    planted: Planted
    against: str = ""
    published: str = ""
    bound: str = ""

    def failure(self) -> "Measure | None":
        """Return the planted failure as a measure, None where its value is known."""
        planted = self.planted
        if planted.value is not None:
            return None
        metric = planted.metric or self.metric
        against = planted.against or self.against or self.metric
        return replace(self, metric=metric, rows=planted.rows or self.rows, against=against)

    def runs(self) -> list[tuple[str, str]]:
        """Return every run that the measure reads, and the metric that it reads there; its planted failure's not."""
        found = []
        for entry in self.rows:
            first, _, second = ENTRY.fullmatch(entry).groups()
            found += [(first, metric) for metric in parts_of(self.metric)]
            found += [(second, metric) for metric in parts_of(self.against or self.metric) if second]
        return found


@dataclass(frozen=True)
class Claim:
    """A figure or a statement, and what decides it."""

    part: str  # of the paper
    id: str
    words: str
    source: str
    section: str
    kind: str
    notebook: str
    picture: str = ""  # of results/pictures
    why: str = ""
    fails: str = ""
    untested: str = ""
    measures: list[Measure] = field(default_factory=list)

    @property
    def whose(self) -> str:
        """Who makes a claim that is not the paper's, to stand before its words."""
        source = self.source.partition(",")[0].replace("this study", "ours")
        return "" if source.startswith("Radford") else f"*{source}:* "


def load(path: Path = CLAIMS) -> dict[str, Claim]:
    """Return the claims by id. Raises ValueError that names the claim and what is wrong with it."""
    figures, found = published().index, {}
    listed = YAML(typ="safe", pure=True).load(path)["claims"]
    for part, given in ((part, given) for part, claims in listed.items() for given in claims):
        name = given.get("id", "without an id")
        try:
            measures = [_measure(measure) for measure in given.get("measures", ())]
            claim = Claim(part=part, **given | {"measures": measures})
            _check(claim, figures)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path.name}: claim {name}: {error}") from error
        if name in found:
            raise ValueError(f"{path.name}: claim {name} is given twice")
        found[name] = claim
    return found


def _measure(given: dict) -> Measure:
    if not given.get("planted"):
        raise ValueError(
            f"no planted failure fails {given.get('metric')!r}: a criterion that nothing fails says nothing"
        )
    return Measure(**given | {"planted": Planted(**given["planted"])})


def _check(claim: Claim, figures: pd.Index) -> None:
    if claim.kind not in KINDS:
        raise ValueError(f"kind {claim.kind!r} is none of {', '.join(KINDS)}")
    if not (claim.measures or claim.untested):
        raise ValueError("has measures, or says in `untested` why none counts")
    if claim.measures and not (claim.why and claim.fails):
        raise ValueError("says in `why` what the criterion rests on, and in `fails` which failure does not meet it")
    if claim.picture and not (paths.ROOT / "results" / "pictures" / claim.picture).exists():
        raise ValueError(f"there is no picture {claim.picture!r} in results/pictures")
    for measure in claim.measures:
        if not CRITERION.fullmatch(measure.criterion):
            raise ValueError(f"criterion {measure.criterion!r} cannot be read: `above 0`, `at most 1`, `within 1`")
        if claim.kind == "figure" and measure.published not in figures:
            raise ValueError(f"{measure.published!r} is no figure of published.csv")
        if not measure.rows:
            raise ValueError(f"no row decides {measure.metric!r}")
        if wrong := [entry for entry in [*measure.rows, *measure.planted.rows] if not ENTRY.fullmatch(entry)]:
            raise ValueError(f"{wrong[0]!r} is no row: BATCH/ROW, or two of them with `minus` or `over` between")
        if len({found[2] for entry in measure.rows if (found := ENTRY.fullmatch(entry))}) > 1:
            raise ValueError(f"{measure.metric!r}: one measure has `minus` or `over` in all of its rows, or in none")
        if twice := [entry for entry in measure.rows if measure.rows.count(entry) > 1]:
            raise ValueError(f"{twice[0]} counts twice: one value per training")


def check_records(claims: Mapping[str, Claim], table: pd.DataFrame) -> None:
    """Raise ValueError, which names claim and row, for a metric without a record and for a row without a level."""
    recorded = set(zip(runs_of(table), table["metric"], strict=True))
    levels = dict(zip(runs_of(table), table["level"], strict=True))
    for claim in claims.values():
        read = [part for measure in claim.measures for part in (measure, measure.failure()) if part]
        for run, metric in (need for measure in read for need in measure.runs()):
            if (run, metric) not in recorded:
                raise ValueError(f"claim {claim.id}: {run} records no {metric!r}")
            if levels[run] not in tables.LEVELS:
                raise ValueError(f"claim {claim.id}: the record of {run} has no level of evidence")


def parts_of(metric: str) -> list[str]:
    """Return the metrics that `M less N` reads."""
    return metric.split(" less ")


def bounds_of(criterion: str) -> list[float]:
    """Return where a criterion begins: one bound, or the two of a margin around a published figure."""
    way, bound = CRITERION.fullmatch(criterion).groups()
    return [-float(bound), float(bound)] if way == "within" else [float(bound)]


def span_of(frame: pd.DataFrame) -> tuple[float, float]:
    """Return the least and the most that values, their intervals and their criterion's bounds reach."""
    reached = [*bounds_of(frame["criterion"].iloc[0]), *frame[["value", "low", "high"]].stack()]
    return min(reached), max(reached)


def published() -> pd.DataFrame:
    """Return data/published.csv by id: what the paper, the reports and others state, one row per figure or claim."""
    return pd.read_csv(paths.PUBLISHED, dtype={"criterion": str, "protocol": str}).set_index("id", drop=False)


def runs_of(table: pd.DataFrame) -> pd.Series:
    """Return each line's run as BATCH/ROW."""
    return table["batch"].fillna("") + "/" + table["row"].fillna("")


def minus(a: Mapping, b: Mapping) -> tuple[float, float, float]:
    """Return a difference and its interval, as if both were independent: too wide where they share images or draws."""
    (value, low, high), (other, other_low, other_high) = ends_of(a), ends_of(b)
    down, up = hypot(value - low, other_high - other), hypot(high - value, other - other_low)
    return value - other, value - other - down, value - other + up


def ends_of(line: Mapping) -> tuple[float, float, float]:
    """Return value, low and high of a line of a table."""
    return line["value"], line["low"], line["high"]


def ladder(path: Path = STEPS) -> tuple[str, dict[str, list[list[str]]]]:
    """Return what data/steps.yaml says of its steps, and for each step the two sides of `STEP minus BASE` by seed."""
    content = YAML(typ="safe", pure=True).load(path)
    return content["description"], {
        step: [pair.split(" minus ") for pair in pairs] for step, pairs in content["steps"].items()
    }


def probed(side: str, labels: str) -> str:
    """Return where the records have the accuracy of ROW, or of ROW@UPDATES, as BATCH/ROW: METRIC."""
    row, _, updates = side.partition("@")
    if updates:
        return f"lift/{row}-snapshots: {labels}, after {int(updates):,} minibatches"
    return f"lift/{row}-probe: trained D: {labels}"


def courses(table: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracies of snapshots on CIFAR-10 that notebook 12 recorded: a table's lines, and three columns.

    labels, one of LABELS; minibatches; recipe, which a training's seeds and lengths share.
    """
    own = table[table["notebook"].eq("12_snapshots") & table["data"].eq("cifar10")]
    at = own["metric"].str.extract(r"(?P<labels>\w+ labels), after (?P<minibatches>[\d,]+) minibatches").dropna()
    at["minibatches"] = at["minibatches"].str.replace(",", "").astype(int)
    return own.join(at.assign(recipe=own["departs"].str.replace(r".* epochs, ", "", regex=True)), how="inner")


def over_seeds(table: pd.DataFrame, batch: str, metrics: list[str]) -> pd.DataFrame:
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
