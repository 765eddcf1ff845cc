"""Write what the study found from its records: README.md's tables and figure, and results/NUMBERS.md.

Everything here comes from results/table.csv, data/published.csv, data/claims.yaml and data/steps.yaml; a test compares
what stands in git with what these give, so that no number is typed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from lib.look import charts, claims, pages, verdicts
from lib.look.charts import LABELS
from lib.study import paths, tables

README, NUMBERS = paths.ROOT / "README.md", paths.ROOT / "results" / "NUMBERS.md"
SPEED = paths.ROOT / "results" / "speed.csv"  # of `make bench ARGS=--record`
TITLES = {"direct": "direct", "authors": "authors' net", "conceptual": "conceptual", "toy": "toy", "": ""}

# Settings over their seeds, by batch: title, batch, metrics.
SEEDS = [
    ("One choice of the paper departed from at a time, on digits", "ablation",
     ["variety of samples / of real images", "swing of D(x), last half", "signs of failure",
      "Fréchet distance to held-out images", "Fréchet distance, last / chosen snapshot"]),
    ("One training in two precisions, on digits", "precision",
     ["trained D: few labels", "trained D: all labels", "Fréchet distance to held-out images"]),
]  # fmt: skip

# Runs whose records name a published figure that is not theirs: house numbers have no smile and no glasses, and the
# authors' D has 3 x 3 kernels, not report 000's.
NOT_BESIDE = {"authors/svhn-arithmetic": "paper.arithmetic.(smile|glasses)", "cifar10/reports": "report000"}


def write() -> None:
    """Write results/table.csv from the kept records, README.md's parts and figure, and results/NUMBERS.md."""
    tables.write(kept_only=True)
    table = pd.read_csv(paths.TABLE)
    charts.write_headline(table)
    charts.write_courses(table)
    paths.write_atomically(README, fill(README.read_text(), table, PARTS).encode())
    for path in sorted((paths.ROOT / "notebooks").glob("*.ipynb")):
        paths.write_atomically(path, fill_notebook(path, table).encode())
    paths.write_atomically(NUMBERS, to_markdown(table).encode())


def fill(text: str, table: pd.DataFrame, parts: Mapping[str, Callable]) -> str:
    """Return a text with each part between its marks, `<!-- NAME -->` and `<!-- /NAME -->`, written anew."""
    for name, to_text in parts.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, found, rest = text.partition(start)
        if not found or end not in rest:
            raise ValueError(f"README.md has no marks {start} and {end}")
        text = f"{before}{start}\n{to_text(table)}\n{end}{rest.partition(end)[2]}"
    return text


def fill_notebook(path: Path, table: pd.DataFrame) -> str:
    """Return a stored notebook with what the kept runs say to its claims, in the cell that has the marks for it."""
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if "<!-- kept -->" in source:
            parts = {"kept": lambda table: came_out(table, path.stem)}
            cell["source"] = fill(source, table, parts).splitlines(keepends=True)
            return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    return text


def came_out(table: pd.DataFrame, notebook: str) -> str:
    """Return the verdicts of a notebook's claims as a table, with the number or the reason."""
    known, values, judged = verdicts.judge_all(table)
    cells = [
        [f"[{known[line.claim].words}](../results/NUMBERS.md#{line.claim})", line.verdict, TITLES[line.level],
         verdicts.number_of(values, line.claim, line.level) if line.level else line.why]
        for line in judged.itertuples() if known[line.claim].notebook == notebook
    ]  # fmt: skip
    return grid(["claim", "verdict", "evidence", "the kept runs"], cells)


def main_number(table: pd.DataFrame, whole: bool = False) -> str:
    """Return Table 1 on CIFAR-10 as a table, README's lines of it; whole: every line, and on which images."""
    lines = charts.main_lines(table, whole)
    if not whole:
        lines = lines[lines["who"].str.startswith("**") | lines["who"].isin(charts.SHORT)]
    more = ["images"] if whole else []
    cells = [[line["who"], *(_cell(line, label) for label in LABELS), *line[more]] for _, line in lines.iterrows()]
    return grid(["CIFAR-10, % correct", *LABELS.values(), *more], cells)


def _cell(line: pd.Series, label: str) -> str:
    """Write an accuracy: a published figure as it was published."""
    if pd.isna(line[label]):
        return ""
    return f"{line[label]:g}" if line["images"] == "cited" else f"{line[label]:.1f}{line['marks']}"


def claims_table(table: pd.DataFrame) -> str:
    """Return how many claims have each verdict, and README's table of those that were tested."""
    known, values, judged = verdicts.judge_all(table)
    cells = []
    for line in judged[judged["level"] != ""].itertuples():
        claim = known[line.claim]
        own = values[(values["claim"] == claim.id) & (values["level"] == line.level)]
        kept = next(filter(None, map(pages.executed, pages.runs_of(own["run"]))), "")
        place = f"[{claim.notebook[:2]}{' run' * bool(kept)}]({kept or f'notebooks/{claim.notebook}.ipynb'})"
        verdict = f"[{line.verdict}](results/NUMBERS.md#{claim.id})"
        told = verdicts.number_of(values, claim.id, line.level)
        cells.append([claim.whose + claim.words, verdict, TITLES[line.level], told, place])
    return f"{verdicts.tally(judged)}\n\n{grid(['claim', 'verdict', 'evidence', 'the number', ''], cells)}"


def untested_list(table: pd.DataFrame) -> str:
    """Return README's list of the claims that were not tested, and why."""
    known, _, judged = verdicts.judge_all(table)
    untested = judged[judged["level"] == ""].itertuples()
    return "\n".join(f"- {known[line.claim].whose}*{known[line.claim].words}.* {line.why}" for line in untested)


def speed_table(_: pd.DataFrame) -> str:
    """Return README's table of training speed in images per second, as recorded on each kind of machine."""
    speed = pd.read_csv(SPEED)[["net", "device", "loop", "here", "ratio", "share"]]
    return grid([*speed.columns[:-1], "of the matmul rate"], speed.to_numpy())


def grid(head: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown without padding: a long cell does not widen every line."""
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines)


# by their marks in README.md
PARTS = {"main number": main_number, "claims": claims_table, "not tested": untested_list, "speed": speed_table}


def to_markdown(table: pd.DataFrame) -> str:
    """Return results/NUMBERS.md: every number by claim, with what each run departs in."""
    known, values, judged = verdicts.judge_all(table)
    claims.check_records(known, table)
    spreads = {title: claims.over_seeds(table, *of).reset_index() for title, *of in SEEDS}
    parts = {
        "Table 1 on CIFAR-10": main_number(table, whole=True),
        "What each step is worth to the probe": ladder(table),
        "Claims": "\n\n".join(_claim(known[line.claim], values, line) for line in judged.itertuples()),
        "Other published figures and bounds": _beside(table),
        "Settings over their seeds": "\n\n".join(
            f"### {title}\n\n{grid(spread.columns, spread.to_numpy())}" for title, spread in spreads.items()
        ),
        "How each run departs from the published setting": _departures(table),
    }
    contents = []
    for title in parts:
        contents.append(f"- [{title}](#{_anchor(title)})")
        if title == "Claims":
            contents += [f"  - [{claim.words}](#{claim.id}): {judged['verdict'][claim.id]}" for claim in known.values()]
    levels = "\n".join(f"- *{TITLES[level]}*: {meaning}" for level, meaning in tables.LEVELS.items())
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in parts.items())
    return "\n\n".join([INTRODUCTION, levels, "## Contents", "\n".join(contents), body]) + "\n"


MARKS = f"{verdicts.OLDER} marks a number of older code, {verdicts.LOSSY} one of a lossy copy of CIFAR-10."
INTRODUCTION = f"""# Numbers

Written by `make readme` from `results/table.csv`, `data/claims.yaml` and `data/published.csv`. Intervals are of 95%.
{MARKS}
A run that is a link has its executed notebook in git. Of several seeds of one setting the first has.

Each training gives one value: *for* the claim where its whole interval meets the criterion, *against* where none of it
does, else *open*. All for: supported. All against: contradicted. Otherwise mixed. The strongest level of evidence that
has a value decides:"""


def _anchor(title: str) -> str:
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")


def ladder(table: pd.DataFrame) -> str:
    """Return the figure of the ladder's courses, and what each of its steps is worth as a table."""
    (said, steps), records = claims.ladder(), verdicts.records_of(table)

    def gain(pairs: Sequence[Sequence[str]], labels: str) -> str:
        return verdicts.gain([[records.get(claims.probed(side, labels)) for side in pair] for pair in pairs])

    def runs(pairs: Sequence[Sequence[str]]) -> str:
        sides = ([claims.probed(side, "").partition(":")[0] for side in pair] for pair in pairs)
        return pages.link("; ".join(" minus ".join(dict.fromkeys(pair)) for pair in sides))  # of two snapshots: one

    picture = f"![Accuracy over updates, by recipe](pictures/{charts.COURSES.name})"
    cells = [[step, *(gain(pairs, labels) for labels in LABELS), runs(pairs)] for step, pairs in steps.items()]
    return "\n\n".join([picture, said, grid(["points gained by", *LABELS.values(), "runs"], cells)])


def _claim(claim: claims.Claim, values: pd.DataFrame, line: object) -> str:
    """Return one claim's part: words, verdict, criterion and why, and every value that decides."""
    whose = f"{claim.source}, {claim.section}. Notebook `{claim.notebook}`."
    said = [f'### <a id="{claim.id}"></a>{claim.words}', whose]
    judged = {TITLES[level]: getattr(line, level) for level in tables.LEVELS}
    levels = [f"{level}: {verdict}" for level, verdict in judged.items() if verdict != verdicts.NOT_TESTED]
    said.append(f"**{line.verdict}**" + (f" ({'; '.join(levels)})." if levels else f". {line.why}"))
    if claim.measures:
        said.append(claim.why + (f" Does not meet it: {claim.fails}." if claim.fails else ""))
        own = values[values["claim"] == claim.id]
        said.append(grid(["measure", "evidence", "run", "value", "criterion", "side"], [
            [v.unit, TITLES[v.level], pages.link(v.run), verdicts.number(v.value, v.low, v.high) + v.marks, v.criterion,
             ", ".join(filter(None, [v.side or "does not count", v.why]))]
            for v in own.itertuples()
        ]))  # fmt: skip
    return "\n\n".join(said)


def _beside(table: pd.DataFrame) -> str:
    """Return what no claim decides: each published figure, or bound of ours, and the runs that stand beside it.

    Records outlive figures: one that published.csv no longer has is passed over.
    """
    known, parts = claims.published(), []
    lines = table.assign(run=claims.runs_of(table), marks=verdicts.marks_of(table))
    lines = lines[lines["published"].isin(known["id"])]
    lines = lines[~lines["batch"].isin(["quick", "smoke", "ablation", "precision"])]
    for run, figures in NOT_BESIDE.items():
        lines = lines[(lines["run"] != run) | ~lines["published"].str.match(figures)]
    for name, group in lines.groupby("published", sort=True):
        figure = known.loc[name]
        value = "" if pd.isna(figure["value"]) else f": {figure['value']:g} {figure.fillna('')['unit']}".rstrip()
        parts.append(f"### {figure['claim']}{value}\n\n{figure['source']}. {_words(figure['protocol'])}")
        rows = [
            [pages.link(x.run), x.metric, verdicts.number(x.value, x.low, x.high) + x.marks] for x in group.itertuples()
        ]
        parts.append(grid(["run", "measure", "here"], rows))
    return "\n\n".join(parts)


def _departures(table: pd.DataFrame) -> str:
    """Return how the runs depart, those that depart alike on one line."""
    departs = table.assign(run=claims.runs_of(table)).dropna(subset=["departs"]).drop_duplicates("run")
    groups = departs.groupby("departs")["run"].apply(list)
    return "\n".join(f"- {departs}: {', '.join(f'`{run}`' for run in runs)}" for departs, runs in groups.items())


def _words(text: str | float) -> str:
    """Return a cell of text as a sentence, an empty one as nothing."""
    return "" if pd.isna(text) else f"{text[0].upper()}{text[1:]}."
