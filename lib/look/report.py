"""The study as static pages: every claim with its verdict, a page per batch, and one per executed notebook.

Exported notebooks fetch scripts and icons from other people's servers and leave their figures without a word for those
who cannot see them. These pages hold all they show, open from a folder without a network, and name each figure.
"""

import shutil
from html import escape
from pathlib import Path

import nbformat
import pandas as pd

from lib.look import charts, numbers, pages, verdicts
from lib.look.claims import Claim
from lib.study import paths, tables
from lib.study.paths import write_atomically

STYLE = """
body { font-family: sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; line-height: 1.45; }
table { border-collapse: collapse; font-size: 0.85rem; } th, td { padding: 0.3rem 0.6rem; text-align: left; }
td { border-top: 1px solid #ccc; vertical-align: top; } img { max-width: 100%; background: white; }
.badge { padding: 0.1rem 0.5rem; border-radius: 0.6rem; background: #ddd; color: #222; white-space: nowrap; }
.supported { background: #bfe3c4; } .contradicted { background: #f3c1bb; } .mixed { background: #f4e2ae; }
@media (max-width: 45rem) { tr { display: block; border-top: 1px solid #ccc; }
  td { display: inline-block; border: 0; } }
@media (prefers-color-scheme: dark) { body { background: #1b1b1b; color: #ddd; } a { color: #8ab4f8; } }
.figures img { max-height: 9rem; margin: 0.3rem; }
"""


def write(batch: str) -> Path:
    """Write the site of a batch's runs, as they were last claimed, to results/site; return its index.

    Raises ValueError, which says what makes them, where nothing of the batch was run.
    """
    ran = {row: paths.runs() / meant["run_id"] for (_, row), meant in tables.claimed(batch).items()}
    ran = {row: folder for row, folder in ran.items() if (folder / "notebook.ipynb").exists()}
    if not ran:
        how = "make study" if batch == "quick" else f"make batch BATCH=batches/{batch}.yaml"
        raise ValueError(f"no executed notebook of {batch} in {paths.runs()}: `{how}` makes them")
    site = paths.RESULTS / "site" / batch
    shutil.rmtree(site, ignore_errors=True)
    titles = {}
    for row, folder in ran.items():
        notebook = nbformat.read(folder / "notebook.ipynb", as_version=4)
        titles[row] = next((c.source.splitlines()[0].lstrip("# ") for c in notebook.cells if c.source), row)
        write_atomically(site / f"{row}.html", pages.page(notebook, f"{titles[row]} ({row})").encode())
        for figure in folder.glob("*.png"):
            shutil.copy(figure, site / f"{row}.{figure.name}")
    write_atomically(site / "index.html", index(batch, ran, titles).encode())
    shutil.copy(charts.HEADLINE, site.parent)
    write_atomically(site.parent / "index.html", front(site.parent).encode())
    return site / "index.html"


def index(batch: str, ran: dict[str, Path], titles: dict[str, str]) -> str:
    """Return a batch's page: the claims that its runs decide, then the runs with their figures."""
    known, values, judged = numbers.judge(tables.read())
    here = {f"{batch}/{row}": row for row in ran}
    lines = [*head(f"batch {batch}"), '<p><a href="../index.html">← all claims</a></p>']
    rows = []
    for line in judged.itertuples():
        deciding = " ".join(values.loc[values["claim"] == line.claim, "run"]).replace(";", "").split()
        if pages := [f'<a href="{here[run]}.html">{here[run]}</a>' for run in here if run in deciding]:
            rows.append(claim_row(known[line.claim], line, values, ", ".join(pages)))
    if rows:
        lines += ["<h2>Claims that these runs decide</h2><table>", *rows, "</table>"]
    lines.append("<h2>Runs</h2>")
    for row, folder in ran.items():
        failed = "" if (folder / "metrics.json").exists() else " — <b>not finished</b>"
        lines.append(f'<h3><a href="{row}.html">{row}</a>: {escape(titles[row])}{failed}</h3><p class=figures>')
        for figure in sorted(folder.glob("*.png")):
            alt = escape(f"{figure.stem} of {row}")
            lines.append(f'<a href="{row}.html"><img src="{row}.{figure.name}" alt="{alt}" loading=lazy></a>')
        lines.append("</p>")
    return "\n".join(lines)


def front(site: Path) -> str:
    """Return the front page: the headline figure, every claim with its verdict, and the batches that have pages."""
    known, values, judged = numbers.judge(tables.read())
    counts = judged["verdict"].value_counts()
    told = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in verdicts.VERDICTS)
    alt = "Accuracies on CIFAR-10 by method, cited and measured here, as kept in git"
    lines = [
        *head("verdicts"),
        f'<img src="{charts.HEADLINE.name}" alt="{alt}">',
        f"<p>{len(judged)} claims: {told}. {numbers.MARKS}</p>",
    ]
    batches = sorted(place.parent.name for place in site.glob("*/index.html"))
    links = ", ".join(f'<a href="{escape(batch)}/index.html">{escape(batch)}</a>' for batch in batches)
    lines += [f"<p>Batches with pages: {links}</p>" * bool(links), "<table>"]
    lines += [
        claim_row(known[line.claim], line, values, escape(known[line.claim].section)) for line in judged.itertuples()
    ]
    return "\n".join([*lines, "</table>"])


def head(title: str) -> list[str]:
    """Return the beginning of a page."""
    told = escape(title)
    style = f'<meta name=viewport content="width=device-width"><title>{told}</title><style>{STYLE}</style>'
    return [f"<!DOCTYPE html><html lang=en><meta charset=utf-8>{style}", f"<h1>DCGAN, replicated: {told}</h1>"]


def claim_row(claim: Claim, line: object, values: pd.DataFrame, last: str) -> str:
    """Return one claim as a row: its words, verdict and level as badges, its number, and a last cell.

    line: a row of `verdicts.judge`; last: HTML.
    """
    level = f"<span class=badge>{escape(numbers.TITLES[line.level])}</span>" if line.level else ""
    number = numbers.number_of(values, claim.id, line.level) if line.level else line.why
    badge = f'<span class="badge {line.verdict.replace(" ", "-")}">{line.verdict}</span>'
    cells = [escape(claim.words), badge, level, escape(number), last]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
