"""The study as static pages that open from a folder, without a network: what git keeps, and what was run here.

The front page has every claim with its verdict by section of the paper; each claim has a page with its criterion, its
values and its pictures; each batch one with times and failures; each executed notebook that there is, one of its own.
`templates/` holds their HTML.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from math import nan
from pathlib import Path

import nbformat
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from lib.look import charts, claims, numbers, pages, verdicts
from lib.look.claims import Claim
from lib.study import paths, records, tables
from lib.study.paths import write_atomically

PICTURES = paths.ROOT / "results" / "pictures"
MOST = 8  # values in a thumbnail
SHOWN = 4  # figures of an executed notebook on a claim's page


@dataclass
class Ran:
    """A row that was run: kept in git, or here."""

    name: str
    level: str
    departs: str
    executed: Path | None = None  # its notebook
    record: Mapping = field(default_factory=dict)
    failure: str = ""
    figures: list[Path] = field(default_factory=list)


def write(batch: str = "") -> Path:
    """Write the pages of the whole study, or those of one batch's runs beside the claims; return the front page.

    Raises ValueError, which says what makes them, where nothing of that batch was run.
    """
    ran = collect(batch)
    if batch and not ran.get(batch):
        how = "make study" if batch == "quick" else f"make batch BATCH=batches/{batch}.yaml"
        raise ValueError(f"no run of {batch} in {paths.runs()} and none is kept: `{how}` makes them")
    site = paths.RESULTS / "site"
    for old in site.glob("*/index.html"):
        if old.parent.name != "lib":  # which `make docs` wrote
            shutil.rmtree(old.parent)
    for name in ("claims", "pictures", "notebooks"):
        shutil.rmtree(site / name, ignore_errors=True)
    (site / "pictures").mkdir(parents=True)
    for picture in PICTURES.iterdir():
        shutil.copy(picture, site / "pictures")
    write_atomically(site / "style.css", (pages.TEMPLATES / "style.css").read_bytes())
    known, values, judged = verdicts.judge_all(tables.read())
    described = {line.claim: describe(known[line.claim], values, line) for line in judged.itertuples()}
    stored = _write_notebooks(site, ran, known)
    environment = _environment(ran)
    for name, claim in described.items():
        page = claim_page(environment, claim, known[name], values, ran, stored)
        write_atomically(site / "claims" / f"{name}.html", page.encode())
    batches = [_batch(name, rows) for name, rows in ran.items()]
    for found in batches:
        own = [described[name] for name in _decided(values, found["name"])]
        page = environment.get_template("batch.html").render(title=found["name"], up="../", batch=found, claims=own)
        write_atomically(site / found["name"] / "index.html", page.encode())
    write_atomically(site / "index.html", front(environment, described, judged, batches).encode())
    return site / "index.html"


def _environment(ran: Mapping) -> Environment:
    environment = Environment(loader=FileSystemLoader(pages.TEMPLATES), autoescape=True, trim_blocks=True)
    here = any(row.figures or row.failure for rows in ran.values() for row in rows)
    environment.globals |= {"titles": numbers.TITLES, "marks": numbers.MARKS, "here": here}
    return environment


def collect(batch: str = "") -> dict[str, list[Ran]]:
    """Return the rows that were run, by batch: those that git keeps, and in their place those run here."""
    found = {}
    for path in sorted(paths.KEPT.glob("*/*/metrics.json")):
        record, executed = records.read_metrics(path), path.with_name("notebook.ipynb")
        ran = Ran(record["row"], record.get("level", ""), record["departs"], executed, record)
        found[record["batch"], record["row"]] = ran
    for (name, row), meant in tables.claimed().items():
        folder = paths.runs() / meant["run_id"]
        ran = Ran(row, meant.get("level", ""), meant.get("departs", ""), folder / "notebook.ipynb")
        ran.figures = sorted(folder.glob("*.png"))
        if (folder / "metrics.json").exists():
            ran.record = records.read_metrics(folder / "metrics.json")
        elif ran.executed.exists():
            said = folder / "failed.txt"
            ran.failure = said.read_text(encoding="utf-8") if said.exists() else "not finished"
        else:
            continue  # not run
        found[name, row] = ran
    for ran in found.values():
        ran.executed = ran.executed if ran.executed.exists() else None
    chosen = sorted((key, ran) for key, ran in found.items() if batch in ("", key[0]))
    return {name: [ran for _, ran in rows] for name, rows in groupby(chosen, lambda item: item[0][0])}


def _write_notebooks(site: Path, ran: Mapping[str, list[Ran]], known: Mapping[str, Claim]) -> dict[str, dict]:
    """Write a page per executed notebook, and per stored one that a claim names; return the latter by name."""
    for batch, rows in ran.items():
        for row in rows:
            if row.executed:
                notebook = nbformat.read(row.executed, as_version=4)
                title = f"{pages.title_of(notebook)} ({batch}/{row.name})"
                write_atomically(site / batch / f"{row.name}.html", pages.page(notebook, title, "the batch").encode())
                for figure in row.figures:
                    shutil.copy(figure, site / batch / f"{row.name}.{figure.name}")
    stored = {}
    for name in sorted({claim.notebook for claim in known.values()}):
        notebook = nbformat.read(paths.NOTEBOOKS / f"{name}.ipynb", as_version=4)
        stored[name] = {"name": pages.title_of(notebook), "place": f"notebooks/{name}.html"}
        content = pages.page(notebook, stored[name]["name"], "all claims", "../index.html")
        write_atomically(site / "notebooks" / f"{name}.html", content.encode())
    return stored


def describe(claim: Claim, values: pd.DataFrame, line: object) -> dict:
    """Return what a card or a page shows of a claim. line: a row of `verdicts.judge`."""
    told = verdicts.told_of(values, claim.id, line.level)[:MOST] if line.level else ()
    others = [f"{numbers.TITLES[level]}: {getattr(line, level)}" for level in tables.LEVELS]
    return {
        "id": claim.id, "part": claim.part, "words": claim.words, "where": f"{claim.source}, {claim.section}",
        "verdict": line.verdict, "level": line.level, "why": claim.why, "fails": claim.fails,
        "number": verdicts.number_of(values, claim.id, line.level) if line.level else "",
        "reason": "" if line.level else f"{line.why.rstrip('.')}.",
        "picture": claim.picture, "shows": f"Pictures: {claim.words}",
        "others": "; ".join(other for other in others if verdicts.NOT_TESTED not in other),
        "thumb": Markup(pages.to_svg(told, claim.words, width=80)) if len(told) else "",
    }  # fmt: skip


def claim_page(
    environment: Environment, claim: dict, known: Claim, values: pd.DataFrame, ran: Mapping, stored: Mapping
) -> str:
    """Return a claim's page: words, criterion, values as a plot, executed notebooks and their pictures."""
    own = values[values["claim"] == known.id]
    measures = [_measure(group) for _, group in own.groupby("unit", sort=False)]
    deciding = " ".join(own["run"]).replace(";", "").split()
    executed = [
        {"name": f"{batch}/{row.name}", "place": f"{batch}/{row.name}.html", "path": row.executed}
        for batch, rows in ran.items()
        for row in rows
        if row.executed and f"{batch}/{row.name}" in deciding
    ]
    at_home = stored[known.notebook] | {"path": paths.NOTEBOOKS / f"{known.notebook}.ipynb"}
    shown = (executed or [at_home])[0]
    figures = pages.figures_of(nbformat.read(shown["path"], as_version=4))[:SHOWN]
    return environment.get_template("claim.html").render(
        title=known.words, up="../", claim=claim, measures=measures, pages=executed, stored=at_home,
        figures=figures, shown=shown,
    )  # fmt: skip


def _measure(group: pd.DataFrame) -> dict:
    """Return one measure of a claim as the page shows it, its values on one scale."""
    least, most = claims.span_of(group)
    lines = []
    for i, value in enumerate(group.itertuples()):
        told = verdicts.number(value.value, value.low, value.high)
        plot = Markup(pages.to_svg(group.iloc[[i]], f"{value.run}: {told}", (least, most)))
        said = ", ".join(filter(None, (value.side or "does not count", value.why)))
        line = {"level": value.level, "run": value.run, "side": value.side}
        lines.append(line | {"number": told + value.marks, "said": said, "plot": plot})
    first = group.iloc[0]
    named = {name: first[name] for name in ("unit", "metric", "criterion")}
    return named | {"least": verdicts.number(least), "most": verdicts.number(most), "lines": lines}


def _batch(name: str, rows: list[Ran]) -> dict:
    hours = sum(row.record.get("seconds", 0) for row in rows) / 3600
    notebooks, failed = sum(bool(row.executed) for row in rows), sum(bool(row.failure) for row in rows)
    return {"name": name, "rows": rows, "failed": failed, "hours": hours, "notebooks": notebooks}


def _decided(values: pd.DataFrame, batch: str) -> list[str]:
    """Return the claims that a batch's runs decide."""
    own = values[values["run"].str.contains(rf"(?:^|[ ;]){batch}/", regex=True)]
    return list(dict.fromkeys(own["claim"]))


def front(environment: Environment, described: Mapping[str, dict], judged: pd.DataFrame, batches: list[dict]) -> str:
    """Return the front page: every claim by section of the paper, with filters that work where scripts do."""
    counts = judged["verdict"].value_counts()
    parts = {part: list(own) for part, own in groupby(described.values(), lambda claim: claim["part"])}
    meanings = {numbers.TITLES[level]: meaning for level, meaning in tables.LEVELS.items()}
    found = [*dict.fromkeys(numbers.TITLES[level] for level in tables.LEVELS if level in set(judged["level"])), "none"]
    return environment.get_template("front.html").render(
        title="Verdicts", up="", parts=parts, batches=batches, meanings=meanings, levels=found,
        counts={verdict: counts.get(verdict, 0) for verdict in verdicts.VERDICTS}, headline=charts.HEADLINE.name,
    )  # fmt: skip


# --- the end of `make study` ---------------------------------------------------------------------------------------

# The ten numbers of the quick study that matter: row, metric, what it should be, and what it says.
TEN = [
    ("digits", "signs of failure", "at most 0", "training on digits: signs of failure"),
    ("digits", "variety of samples / of real images", "at least 0.6", "  samples vary, as real digits do (1)"),
    ("digits-probe", "trained D: all labels", "at least 95", "D's features classify digits, % correct"),
    ("digits-probe", "trained D minus raw pixels: all labels", "above 0", "  points over raw pixels"),
    ("digits-conditional", "error beyond that of real images", "at most 20",
     "digits on demand as teachers: points of error more"),
    ("digits-memorisation", "this net: nearest training image, pixels, of held-out's", "at least 0.8",
     "samples are no copies: as far as held-out digits (1)"),
    ("toy-faces-walk", "the same, memorised net minus this", "above 0", "walks: smoother than a memorised net's"),
    ("toy-faces-arithmetic", "smile: gain over random sample", "above 0.1", "smile + man - woman: gain over chance"),
    ("toy-faces-arithmetic", "turn: rank correlation of angle and place", "at least 0.8",
     "turn vector: rank correlation with the angle"),
    ("toy-rooms-forgetting", "windows gone, more than with random maps", "above 0",
     "forgetting: windows gone without their maps"),
]  # fmt: skip


def tell(batch: str = "quick") -> None:
    """Print the ten numbers of a quick study beside those that git keeps, write the pages, and say where to look."""
    columns = ["row", "metric"]
    found = tables.read(batch)
    found = found[found["run_id"].isin({record["run_id"] for record in tables.made_here()})]  # and no kept one for it
    here = found.drop_duplicates(columns).set_index(columns)["value"]
    kept = tables.read(batch, kept_only=True).drop_duplicates(columns).set_index(columns)["value"]
    print(f"\n  {'ten numbers that matter':<52} {'here':>8} {'kept':>8}  should be")
    for row, metric, criterion, words in TEN:
        value = here.get((row, metric), nan)
        met = "" if verdicts.side(value, nan, nan, criterion) == verdicts.FOR else "  <- look there"
        met = "  <- not run" if pd.isna(value) else met
        told = ["-" if pd.isna(number) else f"{number:.3g}" for number in (value, kept.get((row, metric), nan))]
        print(f"  {words:<52} {told[0]:>8} {told[1]:>8}  {criterion}{met}")
    print(f"\nLook at {paths.short(write())}: every claim with its verdict, and the executed notebooks.")
