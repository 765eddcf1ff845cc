"""The study as static pages that open from a folder, without a network: what git keeps, and what was run here.

The front page has every claim with its verdict by section of the paper; each claim has a page with its criterion, its
values and its pictures; each batch one with times and failures; each executed notebook that there is, one of its own.
`templates/` holds their HTML.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import nbformat
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from lib.look import charts, numbers, pages, verdicts
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

    @property
    def notebook(self) -> str:
        return self.record.get("notebook", "")

    @property
    def finished(self) -> str:
        return self.record.get("finished", "")[:10]

    @property
    def time(self) -> str:
        seconds = self.record.get("seconds", 0)
        return f"{seconds / 60:.1f} min" if seconds >= 100 else f"{seconds:.0f} s" if seconds else ""

    @property
    def memory(self) -> str:
        return f"{self.record['peak_mb']:,} MB" if self.record else ""

    @property
    def device(self) -> str:
        return self.record.get("device", "")


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
        shutil.rmtree(old.parent)
    for name in ("claims", "pictures", "notebooks"):
        shutil.rmtree(site / name, ignore_errors=True)
    (site / "pictures").mkdir(parents=True)
    for picture in PICTURES.iterdir():
        shutil.copy(picture, site / "pictures")
    write_atomically(site / "style.css", (pages.TEMPLATES / "style.css").read_bytes())
    known, values, judged = numbers.judge(tables.read())
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
    own = values[(values["claim"] == claim.id) & (values["level"] == line.level) & (values["side"] != "")]
    own = own[own["unit"] == own["unit"].iloc[0]][:MOST] if len(own) else own
    others = [f"{numbers.TITLES[level]}: {getattr(line, level)}" for level in tables.LEVELS]
    return {
        "id": claim.id, "part": claim.part, "words": claim.words, "where": f"{claim.source}, {claim.section}",
        "verdict": line.verdict, "level": line.level, "why": claim.why, "fails": claim.fails,
        "number": numbers.number_of(values, claim.id, line.level) if line.level else "",
        "reason": "" if line.level else f"{line.why.rstrip('.')}.",
        "picture": claim.picture, "shows": f"Pictures: {claim.words}",
        "others": "; ".join(told for told in others if verdicts.NOT_TESTED not in told),
        "thumb": Markup(charts.to_svg(own, claim.words, width=80)) if len(own) else "",
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
    least, most = charts.span_of(group)
    lines = []
    for i, value in enumerate(group.itertuples()):
        told = numbers.number(value.value, value.low, value.high)
        plot = Markup(charts.to_svg(group.iloc[[i]], f"{value.run}: {told}", (least, most)))
        said = ", ".join(filter(None, (value.side or "does not count", value.why)))
        line = {"level": value.level, "run": value.run, "side": value.side}
        lines.append(line | {"number": told + value.marks, "said": said, "plot": plot})
    first = group.iloc[0]
    named = {name: first[name] for name in ("unit", "metric", "criterion")}
    return named | {"least": numbers.number(least), "most": numbers.number(most), "lines": lines}


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
