"""Judge each claim of data/claims.yaml by the records of the runs that decide it.

A replication says how far its evidence reaches: tables.LEVELS, from the strongest. Each training gives one value, which
lies for the claim where its whole interval meets the criterion, against it where none of the interval does, and is open
where the interval reaches both. Values all for the claim support it, values all against contradict it, any others are
mixed; the strongest level that has a value decides, and no weaker one overrules it.

A value does not count where a planted failure meets the criterion too, where it has no interval and too few trainings
stand beside it, or where its interval is of too few draws. A published figure is met within a margin on both sides: far
above it is another measurement.
"""

import re
from collections.abc import Mapping
from math import exp, log, nan

import pandas as pd

from lib.look.claims import CRITERION, ENTRY, Claim, Measure, ends_of, load, minus, parts_of, published, runs_of
from lib.study.chance import interval_of_mean
from lib.study.tables import LEVELS

SUPPORTED, CONTRADICTED, MIXED, NOT_TESTED = VERDICTS = ("supported", "contradicted", "mixed", "not tested")
FOR, AGAINST, OPEN = "for", "against", "open"
LEAST_TRAININGS = 3  # of values without an interval
LEAST_DRAWS = 5  # of an interval over draws of labels, unless two lines are compared draw by draw
OLDER, LOSSY = "†", "‡"  # marks of a number: made by older code; measured on a lossy copy of CIFAR-10
NOT_EXACT = "not the exact CIFAR-10"  # in a note of a run on such a copy, as `probe.splits` says it
MET, UNCLEAR = "a planted failure meets the criterion too", "its planted failure is not told from a success"
UNRECORDED = "its planted failure was not recorded"
VALUES = ["claim", "metric", "unit", "criterion", "level", "run", "value", "low", "high", "side", "why", "marks"]


def measure_all(claims: Mapping[str, Claim], table: pd.DataFrame) -> pd.DataFrame:
    """Return every value that decides a claim, one per training: columns VALUES.

    table: as `tables.read` returns it. What it lacks is left out. value of a figure: the difference from it.
    """
    numbers, figures, lines = records_of(table), published()["value"], []
    for claim in claims.values():
        for measure in claim.measures:
            target = figures[measure.published] if measure.published else 0.0
            for values in _by_level(measure, numbers, target, disqualified(measure, numbers, target)):
                bare = sum(pd.isna(value["low"]) and not value["void"] for value in values)
                for value in values:
                    side, why = judge_value(value, measure, bare < LEAST_TRAININGS or claim.kind == "figure")
                    known = {"claim": claim.id, "metric": measure.metric, "unit": measure.unit}
                    lines.append(known | value | {"criterion": measure.criterion, "side": side, "why": why})
    return pd.DataFrame(lines, columns=VALUES)


def _by_level(measure: Measure, numbers: Mapping, target: float, out: Mapping = {}) -> list[list[dict]]:
    """Return the values of a measure, those of one level together, the strongest first. out: of `disqualified`."""
    found = [value for entry in measure.rows if (value := _value(entry, measure, numbers, target, out))]
    return [_pool([value for value in found if value["level"] == level]) for level in LEVELS]


def disqualified(measure: Measure, numbers: Mapping, target: float) -> dict[str, str]:
    """Return the rows whose value does not count for the sake of a planted failure, each with the reason.

    A failure of the deciding rows themselves disqualifies its own; one from elsewhere, or of a known value, all.
    """
    planted = measure.planted
    if planted.value is not None:
        return dict.fromkeys(measure.rows, MET) if side(*[planted.value - target] * 3, measure.criterion) == FOR else {}
    told = {}
    for value in (value for values in _by_level(measure.failure(), numbers, target) for value in values):
        found = UNRECORDED if pd.isna(value["value"]) else side(*ends_of(value), measure.criterion)
        reason = {FOR: MET, OPEN: UNCLEAR if planted.clear else "", AGAINST: ""}.get(found, found)
        told |= dict.fromkeys(value["run"].split("; "), reason)
    if planted.rows:
        told = dict.fromkeys(measure.rows, max(told.values(), key=bool, default=UNRECORDED))
    return {row: reason for row in measure.rows if (reason := told.get(row, UNRECORDED))}


def marks_of(table: pd.DataFrame) -> list[str]:
    """Return each line's marks, OLDER and LOSSY. A table without a column `code` is of older code."""
    older = table["code"].eq("older") if "code" in table else pd.Series(True, table.index)
    told = table["note"].fillna("").str.contains(NOT_EXACT, regex=False)
    lossy = table["run_id"].isin(table.loc[told, "run_id"])
    return [OLDER * a + LOSSY * b for a, b in zip(older, lossy, strict=True)]


def records_of(table: pd.DataFrame) -> dict[str, dict]:
    """Return the lines of a table by BATCH/ROW: METRIC, with their marks."""
    names = runs_of(table) + ": " + table["metric"]
    return dict(zip(names, table.assign(marks=marks_of(table)).to_dict("records"), strict=True))


def _value(entry: str, measure: Measure, numbers: Mapping, target: float, out: Mapping) -> dict | None:
    """Return the value of BATCH/ROW, or of two; `void` says why it cannot count. None where a record is not there."""
    first, how, second = ENTRY.fullmatch(entry).groups()
    a, b = _number(first, measure.metric, numbers), _number(second, measure.against or measure.metric, numbers)
    if a is None or (second and b is None):
        return None
    marks = "".join(sorted(set(a["marks"] + b["marks"]))) if second else a["marks"]
    known = {"run": entry, "how": how or "", "marks": marks, "level": a["level"], "void": out.get(entry, "")}
    if second and _images(a) != _images(b):
        known["void"] = "the two were measured on other images"
    value, low, high = minus(a, b) if how == "minus" else ends_of(a)
    if how == "over":
        value, low, high = value / b["value"] if min(value, b["value"]) > 0 else nan, nan, nan
    if pd.isna(value):
        known["void"] = "no number"
    return known | {"value": value - target, "low": low - target, "high": high - target}


def _number(run: str | None, metric: str, numbers: Mapping) -> dict | None:
    """Return a metric's line in a run's record, or that of `M less N`; None where there is none."""
    lines = [numbers.get(f"{run}: {part}") for part in parts_of(metric)]
    if None in lines:
        return None
    first, *others = [line | dict(zip(("value", "low", "high"), _interval(line), strict=True)) for line in lines]
    for other in others:
        first |= dict(zip(("value", "low", "high"), minus(first, other), strict=True))
    return first


def _images(line: Mapping) -> tuple[str, ...]:
    """Return what a line was measured on: CIFAR-10 by one name and whether it is exact, and what its row says of it."""
    data, departs = str(line["data"]), str(line["departs"])
    said = [words for words in ("saved as JPEG", "set apart") if words in departs]
    return "cifar10" if "cifar10" in data else data, LOSSY * (LOSSY in line["marks"]), *said


def _interval(line: Mapping) -> tuple[float, float, float]:
    """Return value, low and high; no interval where it is of too few draws."""
    draws = re.search(r"(\d+) draws", str(line["note"]))
    if draws and int(draws[1]) < LEAST_DRAWS:
        return line["value"], nan, nan
    return line["value"], line["low"], line["high"]


def _pool(values: list[dict]) -> list[dict]:
    """Make one value of the comparisons without intervals that count: their mean over trainings, and its interval."""
    bare = [value for value in values if value["how"] and pd.isna(value["low"]) and not value["void"]]
    if len(bare) < LEAST_TRAININGS:
        return values
    there, back = (log, exp) if bare[0]["how"] == "over" else (float, float)
    mean, low, high = map(back, interval_of_mean([there(value["value"]) for value in bare]))
    runs, marks = "; ".join(value["run"] for value in bare), "".join(value["marks"] for value in bare)
    pooled = bare[0] | {"run": runs, "marks": "".join(sorted(set(marks))), "value": mean, "low": low, "high": high}
    return [value for value in values if value not in bare] + [pooled]


def judge_value(value: Mapping, measure: Measure, alone: bool) -> tuple[str, str]:
    """Return the side of the criterion that a value lies on, or "" and why it does not count. alone: of too few."""
    if value["void"]:
        return "", value["void"]
    if pd.isna(value["low"]) and (alone or value["how"]):
        return "", "no interval, or one of too few draws or trainings"
    found = side(value["value"], value["low"], value["high"], measure.criterion)
    if found == AGAINST and value["value"] < 0 and value["level"] == measure.bound:
        return OPEN, "a lower bound"
    return found, ""


def side(value: float, low: float, high: float, criterion: str) -> str:
    """Return on which side of a criterion the interval [low, high] lies: FOR, AGAINST or OPEN; without one, value."""
    way, bound = CRITERION.fullmatch(criterion).groups()
    bound = float(bound)
    low, high = (value if pd.isna(end) else end for end in (low, high))
    if way == "within":
        met, missed = -bound <= low and high <= bound, high < -bound or low > bound
    elif way in ("above", "at least"):
        met, missed = (low > bound, high <= bound) if way == "above" else (low >= bound, high < bound)
    else:
        met, missed = (high < bound, low >= bound) if way == "below" else (high <= bound, low > bound)
    return FOR if met else AGAINST if missed else OPEN


def verdict_of(sides: list[str]) -> str:
    """Return the verdict of the values of one level by their sides; "" is one that does not count."""
    alike = {frozenset(): NOT_TESTED, frozenset({FOR}): SUPPORTED, frozenset({AGAINST}): CONTRADICTED}
    return alike.get(frozenset(filter(None, sides)), MIXED)


def judge(claims: Mapping[str, Claim], values: pd.DataFrame) -> pd.DataFrame:
    """Return one row per claim: verdict, the level that it rests on ("" for none), and why it is not tested.

    values: as `measure_all` returns them. Columns claim, verdict, level, why; and each level's own verdict.
    """
    lines = []
    for claim in claims.values():
        own = values[values["claim"] == claim.id]
        by_level = {level: verdict_of(own.loc[own["level"] == level, "side"].tolist()) for level in LEVELS}
        level = next((level for level, verdict in by_level.items() if verdict != NOT_TESTED), "")
        why = "" if level else claim.untested or "; ".join(sorted(set(own["why"]))) or "no record"
        lines.append(
            {"claim": claim.id, "verdict": by_level.get(level, NOT_TESTED), "level": level, "why": why} | by_level
        )
    return pd.DataFrame(lines).set_index("claim", drop=False)


def judge_all(table: pd.DataFrame) -> tuple[dict[str, Claim], pd.DataFrame, pd.DataFrame]:
    """Return the claims, the values that decide them and their verdicts, from the records of a table."""
    values = measure_all(known := load(), table)
    return known, values, judge(known, values)


def tally(judged: pd.DataFrame) -> str:
    """Return how many claims have each verdict, and how many of these rest on toys alone, as a sentence."""
    counts = {verdict: (judged["verdict"] == verdict).sum() for verdict in VERDICTS}
    toys = judged.loc[judged["level"] == "toy", "verdict"].value_counts()
    told = [f"{n} {name}" + f" ({toys.get(name)} by toys alone)" * (name in toys) for name, n in counts.items()]
    return f"Of {len(judged)} claims: {', '.join(told)}."


def told_of(values: pd.DataFrame, claim: str, level: str) -> pd.DataFrame:
    """Return the values of a claim's measure that is told: the first one against it, else open, else the first."""
    own = values[(values["claim"] == claim) & (values["level"] == level) & (values["side"] != "")]
    told = own.iloc[own["side"].map([AGAINST, OPEN, FOR].index).argmin()]
    return own[(own["metric"] == told["metric"]) & (own["unit"] == told["unit"])]


def number_of(values: pd.DataFrame, claim: str, level: str) -> str:
    """Return the number of a claim that is told, in its unit, with its interval or its range over trainings."""
    told = told_of(values, claim, level)
    what = "".join(sorted(set("".join(told["marks"])))) + f" {told['unit'].iloc[0]}"
    if len(told) == 1:
        return number(*ends_of(told.iloc[0])) + what
    mean, least, most = map(_short, (told["value"].mean(), told["value"].min(), told["value"].max()))
    return f"{mean} ({least} to {most}, {len(told)} runs){what}"


def number(value: float, low: float = nan, high: float = nan) -> str:
    """Write a number, and its interval where it has one."""
    return _short(value) + ("" if pd.isna(low) else f" ({_short(low)} to {_short(high)})")


def _short(value: float) -> str:
    """Write three digits, trailing zeros too, and all of a large number."""
    told = "0" if value == 0 else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".removesuffix(".")
    return told.replace("-", "−")


def gain(pairs: list[tuple[Mapping | None, Mapping | None]]) -> str:
    """Write how much the first of two lines gains over the second, of pairs by seed; a line that is not there is None.

    The interval is over seeds where two or more were run, which are told too; else it is over what the one has.
    """
    run = [pair for pair in pairs if None not in pair]
    if not run:
        return "not run"
    marks = "".join(sorted(set("".join(line["marks"] for pair in run for line in pair))))
    gains = [minus(*pair) for pair in run]
    if len(gains) == 1:
        return number(*gains[0]) + marks
    by_seed = [value for value, _, _ in gains]
    return f"{number(*interval_of_mean(by_seed))}{marks}; by seed {', '.join(map(number, by_seed))}"
