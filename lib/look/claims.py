"""What is claimed, and which numbers of which runs decide it: data/claims.yaml, checked before it is used."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import yaml

from lib.study import paths

CLAIMS = paths.ROOT / "data" / "claims.yaml"
LEVELS = {
    "direct": "the published data, net and protocol",
    "authors": "the net that the authors released, measured here",
    "conceptual": "the same claim on nets trained here, on real images, other or fewer than the paper's",
    "toy": "drawn or embedded images, small nets: shows the instrument, decides nothing",
}
KINDS = ("figure", "statement")
CRITERION = re.compile(r"(above|below|at least|at most|within) (-?\d+(?:\.\d+)?)")
ENTRY = re.compile(r"([\w.-]+/[\w.-]+)(?: (minus|over) ([\w.-]+/[\w.-]+))?")


@dataclass(frozen=True)
class Measure:
    """One number that decides a claim: data/claims.yaml says what each field means."""

    metric: str
    criterion: str
    unit: str
    rows: Mapping[str, list[str]]
    against: str = ""
    published: str = ""
    planted: str = ""
    bound: str = ""

    def runs(self) -> list[tuple[str, str]]:
        """Return every run that the measure reads, and the metric that it reads there."""
        found = []
        for entry in (entry for entries in self.rows.values() for entry in entries):
            first, _, second = ENTRY.fullmatch(entry).groups()
            found += [(first, self.metric)] + [(second, self.against or self.metric)] * bool(second)
            found += [(first, self.planted)] * bool(self.planted)
        return found


@dataclass(frozen=True)
class Claim:
    """A figure or a statement, and what decides it."""

    id: str
    words: str
    source: str
    section: str
    kind: str
    notebook: str
    why: str = ""
    fails: str = ""
    untested: str = ""
    measures: list[Measure] = field(default_factory=list)


def load(path: Path = CLAIMS) -> dict[str, Claim]:
    """Return the claims by id. Raises ValueError that names the claim and what is wrong with it."""
    figures, found = published().index, {}
    for given in yaml.safe_load(path.read_text())["claims"]:
        name = given.get("id", "without an id")
        try:
            measures = [Measure(**measure) for measure in given.get("measures", ())]
            claim = Claim(**given | {"measures": measures})
            _check(claim, figures)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path.name}: claim {name}: {error}") from error
        if name in found:
            raise ValueError(f"{path.name}: claim {name} is given twice")
        found[name] = claim
    return found


def _check(claim: Claim, figures: pd.Index) -> None:
    if claim.kind not in KINDS:
        raise ValueError(f"kind {claim.kind!r} is none of {', '.join(KINDS)}")
    if bool(claim.measures) == bool(claim.untested):
        raise ValueError("has either measures, or says in `untested` why it has none")
    if claim.measures and not (claim.why and (claim.fails or claim.kind == "figure")):
        raise ValueError("says in `why` what the criterion rests on, and in `fails` which failure does not meet it")
    for measure in claim.measures:
        if not CRITERION.fullmatch(measure.criterion):
            raise ValueError(f"criterion {measure.criterion!r} cannot be read: `above 0`, `at most 1`, `within 1`")
        if claim.kind == "figure" and measure.published not in figures:
            raise ValueError(f"{measure.published!r} is no figure of published.csv")
        if not measure.rows:
            raise ValueError(f"no row decides {measure.metric!r}")
        for level, entries in measure.rows.items():
            if level not in LEVELS:
                raise ValueError(f"level {level!r} is none of {', '.join(LEVELS)}")
            if wrong := [entry for entry in entries if not ENTRY.fullmatch(entry)]:
                raise ValueError(f"{wrong[0]!r} is no row: BATCH/ROW, or two of them with `minus` or `over` between")
            if twice := [entry for entry in entries if entries.count(entry) > 1]:
                raise ValueError(f"{twice[0]} counts twice: one value per training")


def check_records(claims: Mapping[str, Claim], table: pd.DataFrame) -> None:
    """Raise ValueError, which names the claim, for a metric that no record of its row has."""
    recorded = set(zip(runs_of(table), table["metric"], strict=True))
    for claim in claims.values():
        for run, metric in (need for measure in claim.measures for need in measure.runs()):
            if (run, metric) not in recorded:
                raise ValueError(f"claim {claim.id}: {run} records no {metric!r}")


def published() -> pd.DataFrame:
    """Return data/published.csv by id: what the paper, the reports and others state, one row per figure or claim."""
    return pd.read_csv(paths.PUBLISHED, dtype={"criterion": str, "protocol": str}).set_index("id", drop=False)


def runs_of(table: pd.DataFrame) -> pd.Series:
    """Return each line's run as BATCH/ROW."""
    return table["batch"].fillna("") + "/" + table["row"].fillna("")
