"""An executed notebook for whoever has no kernel: as git keeps it and a forge shows it, and as a page.

An executed notebook is the evidence, figures and all. Git is no place for megabytes: papermill writes the stored
notebook into its metadata once more, players need scripts that no forge runs, and figures are saved in full colour.
Exported pages fetch scripts and icons from other people's servers, and leave their figures without a word for those who
cannot see them. What is kept has none of the former, and a page none of the latter.
"""

import base64
import io
import re
from collections.abc import Iterable
from functools import cache
from html import escape, unescape
from math import log
from pathlib import Path

import nbformat
import pandas as pd
from jinja2 import DictLoader
from nbconvert import HTMLExporter
from nbconvert.filters import clean_html
from PIL import Image

from lib.look import claims
from lib.study import paths, records, tables

BUDGET = 3 * 2**19  # bytes of a kept notebook: 1.5 MiB
COLOURS = (256, 64, 16)  # of its pictures: fewer where the notebook is still too large, fewest without colour
FRAMES = 12  # of a player, side by side
WIDGET = "application/vnd.jupyter.widget-view+json"
RUN = re.compile(r"[\w.-]+/[\w.-]+")
FRAME = re.compile(r'frames\[\d+\] = "data:image/png;base64,([^"]+)"')
TEMPLATES = Path(__file__).parent / "templates"
# Buttons of matplotlib's player, whose icons are a font on the network.
ICONS = {"play": "▶", "pause": "❚❚", "plus": "+", "minus": "−", "step-forward": "❙▶", "step-backward": "◀❙",
         "fast-forward": "▶▶", "fast-backward": "◀◀"}  # fmt: skip
PLAYER = "".join(
    f'.fa-{name}::before {{ content: "{sign}"; font-style: normal; }}\n' for name, sign in ICONS.items()
) + ".fa-flip-horizontal { display: inline-block; transform: scaleX(-1); }\n"  # fmt: skip


def keep(run: str, batch: str = "") -> Path:
    """Keep the record and the executed notebook of a batch's finished run in git's part of the results.

    batch: whose row it is, where batches share it. Returns their folder. Raises ValueError where there is no such run,
    or where its notebook is too large.
    """
    found = (record for record in tables.made_here() if record["run_id"] == run and batch in ("", record["batch"]))
    record = next(found, None)
    if not record:
        raise ValueError(f"no finished run {run} in {paths.runs()}")
    if not record["batch"]:
        raise ValueError(f"{run} belongs to no batch: run it through a batch file to keep it")
    folder = folder_of(record["batch"], record["row"])
    executed = paths.runs() / run / "notebook.ipynb"
    content = to_small(nbformat.read(executed, as_version=4), f"{record['batch']}/{record['row']}")
    paths.write_atomically(folder / "notebook.ipynb", content)
    paths.write_atomically(folder / "metrics.json", records.to_json(record))
    return folder


def folder_of(batch: str, row: str) -> Path:
    """Return where git keeps a row."""
    return paths.KEPT / re.sub(r"[^\w.-]+", "-", batch).strip("-") / row


def to_small(notebook: nbformat.NotebookNode, name: str) -> bytes:
    """Return an executed notebook as git keeps it: figures as pictures of few colours, no widgets, players or paths.

    Raises ValueError, which names it, where it takes more than BUDGET all the same.
    """
    shown = ("kernelspec", "language_info")
    notebook.metadata = nbformat.from_dict({k: v for k, v in notebook.metadata.items() if k in shown})
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        cell.outputs = [still(output) for output in cell.get("outputs", [])] if cell.cell_type == "code" else []
        if cell.cell_type != "code":
            del cell["outputs"]
    for colours in COLOURS:
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = with_few_colours(output.data["image/png"], colours)
        content = nbformat.writes(notebook).encode()
        if len(content) <= BUDGET:
            return content
    raise ValueError(
        f"the executed notebook of {name} takes {len(content) / 2**20:.1f} MiB with {colours} colours: at most "
        f"{BUDGET / 2**20} MiB is kept; show smaller or fewer figures"
    )


def still(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return an output that needs no kernel, script or folder of this machine: a player as frames side by side."""
    shown = output.get("data", {})
    shown.pop(WIDGET, None)
    if "<script" in shown.get("text/html", ""):
        frames = FRAME.findall(shown.pop("text/html").replace("\\\n", ""))
        if frames:
            shown["image/png"] = _side_by_side(frames)
    if "text" in output:
        output.text = re.sub(r"(?<!\S)\S*?/code/[0-9a-f]{10}/", "", output.text).replace(f"{paths.ROOT}/", "")
    return output


def _side_by_side(frames: list[str]) -> str:
    """Return frames, PNGs in base64, as one PNG: at most FRAMES of them, the first and the last among them."""
    count = min(FRAMES, len(frames))
    chosen = [frames[round(i * (len(frames) - 1) / max(count - 1, 1))] for i in range(count)]
    pictures = [Image.open(io.BytesIO(base64.b64decode(frame))).convert("RGB") for frame in chosen]
    width, height = pictures[0].size
    whole = Image.new("RGB", (width * count, height), "white")
    for i, picture in enumerate(pictures):
        whole.paste(picture, (i * width, 0))
    return _to_base64(whole)


def with_few_colours(png: str, colours: int) -> str:
    """Return a PNG in base64 with a palette of so many colours, or a few greys; as it was where that takes no less."""
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    flat = Image.new("RGB", picture.size, "white")
    flat.paste(picture, mask=picture.convert("RGBA").getchannel("A"))
    grey = len({channel.tobytes() for channel in flat.split()}) == 1
    small = _to_base64(flat.quantize(COLOURS[-1] if grey else colours, dither=Image.Dither.NONE))
    return min(png.strip(), small, key=len)


def _to_base64(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return base64.b64encode(content.getvalue()).decode()


def runs_of(runs: Iterable[str]) -> list[str]:
    """Return the runs, BATCH/ROW, behind values, each once."""
    return list(dict.fromkeys(RUN.findall(" ".join(runs))))


def executed(run: str) -> str:
    """Return where git has a run's executed notebook, from the repository's root; empty where it has none."""
    place = f"results/kept/{run}/notebook.ipynb"
    return place if (paths.ROOT / place).exists() else ""


def link(run: str) -> str:
    """Write what runs a value is of, in Markdown of the results' folder: links to their executed notebooks."""

    def one(found: re.Match) -> str:
        place = executed(found[0]).removeprefix("results/")
        return f"[{found[0]}]({place})" if place else f"`{found[0]}`"

    return RUN.sub(one, run)


# --- as a page ----------------------------------------------------------------------------------------------------


def title_of(notebook: nbformat.NotebookNode) -> str:
    """Return a notebook's first heading."""
    return next((cell.source.splitlines()[0].lstrip("# ") for cell in notebook.cells if cell.source), "a notebook")


def page(notebook: nbformat.NotebookNode, title: str, back: str, target: str = "index.html") -> str:
    """Return an executed notebook as one HTML page that needs no network and names its figures.

    back: what a link to `target` is called.
    """
    notebook.metadata["title"] = title
    notebook.metadata.pop("widgets", None)  # they need a kernel, or the network; their pictures stay
    describe_figures(notebook)
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell(f"[← {back}]({target})"))
    html, _ = _exporter().from_notebook_node(notebook)
    html = re.sub(
        r"\.\./results/NUMBERS\.md#([\w-]+)", r"../claims/\1.html", html
    )  # on these pages claims have their own
    return re.sub(r"""<link [^>]*href=["']?https?://[^>]*>""", "", html)


@cache
def _exporter() -> HTMLExporter:
    template = (TEMPLATES / "notebook.html.j2").read_text().replace("ICONS", PLAYER)
    exporter = HTMLExporter(extra_loaders=[DictLoader({"page.html.j2": template})], template_file="page.html.j2")
    exporter.register_filter("clean_html", cache(clean_html))  # half of the time: rows of one notebook share cells
    return exporter


def figures_of(notebook: nbformat.NotebookNode) -> list[dict[str, str]]:
    """Return a notebook's figures: `source`, a data address, and `alt`, its text."""
    describe_figures(notebook)
    shown = "".join(
        output.data.get("text/html", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output
    )
    found = re.findall(r'<img alt="([^"]*)" src="(data:[^"]+)"', shown)
    return [{"alt": unescape(alt), "source": source} for alt, source in found]


def describe_figures(notebook: nbformat.NotebookNode) -> None:
    """Give each figure alternative text: the heading that it stands under, and the prose before it."""
    heading, prose = "", ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found = re.findall(r"^#+ (.+)", cell.source, re.MULTILINE)
            heading = found[-1] if found else heading
            text = re.sub(r"^(#.*|\|.*)$", "", cell.source, flags=re.MULTILINE)
            prose = re.split(r"(?<=[.:?]) ", " ".join(re.sub(r"[*_`>]", "", text).split()))[0]
        alt = escape(": ".join(filter(None, (heading, prose))) or "a figure")
        for output in cell.get("outputs", []):
            shown = output.get("data", {})
            if "image/png" in shown:  # nbconvert's page leaves out the text that an output may carry
                shown.pop("application/vnd.jupyter.widget-view+json", None)
                width = output.metadata.get("image/png", {}).get("width", "")
                source = f"data:image/png;base64,{shown.pop('image/png').strip()}"
                shown["text/html"] = f'<img alt="{alt}" src="{source}"{f" width={width}" if width else ""}>'
            elif "text/html" in shown:
                named = f'<img alt="{alt}"'  # a function: in a replacement the backslashes of LaTeX would be commands
                shown["text/html"] = re.sub(r"<img(?![^>]*\balt=)", lambda _, named=named: named, shown["text/html"])


# --- small plots in a page, which take its colours -----------------------------------------------------------------

LINE = 10  # height of one value in a plot


def to_svg(frame: pd.DataFrame, label: str, span: tuple[float, float] | None = None, width: int = 240) -> str:
    """Return values with their intervals as an SVG, one line each, coloured by side, the criterion's bounds dashed.

    frame: columns value, low, high, side, criterion; span: what the plot reaches from and to.
    """
    least, most = span or claims.span_of(frame)
    scaled = log if frame["unit"].iloc[0].startswith("times") and least > 0 else float
    least, most = scaled(least), scaled(most)

    def x(value: float) -> float:
        return round(6 + (width - 12) * (scaled(value) - least) / ((most - least) or 1), 1)

    height = LINE * (len(frame) + 1)
    bounds = [x(bound) for bound in claims.bounds_of(frame["criterion"].iloc[0])]
    drawn = [f'<line class="bound" x1="{at}" x2="{at}" y1="0" y2="{height}"/>' for at in bounds]
    for i, line in enumerate(frame.itertuples(), 1):
        y = LINE * i
        reach = "" if pd.isna(line.low) else f'<line x1="{x(line.low)}" x2="{x(line.high)}" y1="{y}" y2="{y}"/>'
        drawn.append(f'<g class="{line.side or "none"}">{reach}<circle cx="{x(line.value)}" cy="{y}" r="3"/></g>')
    box = f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}"'
    return f"<svg {box}>{''.join(drawn)}</svg>"
