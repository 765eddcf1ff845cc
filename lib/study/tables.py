"""The table of results, rebuilt from the records of runs and never edited.

A row of a batch stands for the run that its file means now, and for the newest record of it, kept in git or made here.
Numbers outlive the code that made them, so each says whether today's code did.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from lib.study import paths, records, syntax
from lib.study.runs import NUMBERS

LEVELS = {  # how far evidence reaches, the strongest first
    "direct": "the published data, net and protocol",
    "authors": "the net that the authors released, measured here",
    "conceptual": "the same claim on nets trained here, on real images, other or fewer than the paper's",
    "toy": "drawn or embedded images, small nets: shows the instrument, decides nothing",
}
COLUMNS = [
    "run_id", "notebook", "batch", "row", "data", "seed", "commit", "code", "device", "seconds", "peak_mb",
    "metric", "value", "low", "high", "published", "note", "level", "departs",
]  # fmt: skip


def claim(batch: str, path: Path, rows: Mapping[str, Mapping]) -> None:
    """Write down what each row of a batch file means now: another parameter value is another run.

    batch: its name in the table. rows: name -> run_id, `level` of evidence, and `departs`, in which it differs from the
    published setting.
    """
    entry = {"batch": batch, "path": str(path), "rows": rows}
    name = f"{path.stem}-{syntax.digest(str(path))}.json"
    paths.write_atomically(paths.runs() / "claims" / name, records.to_json(entry))


def claimed() -> dict[tuple[str, str], dict]:
    """Return what the rows of the batches run here mean: (batch, row) -> run_id, level, departs.

    Of two checkouts that claimed one row, the last one says.
    """
    files = sorted((paths.runs() / "claims").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    claims = (json.loads(path.read_text(encoding="utf-8")) for path in files)
    return {(claim["batch"], row): meant for claim in claims for row, meant in claim["rows"].items()}


def read(batch: str = "", kept_only: bool = False) -> pd.DataFrame:
    """Return the long table of all finished runs: those kept in git, and those made here, of two of a row the newer.

    batch: only this one's rows. kept_only: without those made here. One row per metric, columns COLUMNS; `code` is
    empty where today's code made the run, `accepted` where somebody has said that it stands, else `older`.
    """
    newest = {}
    kept = (records.read_metrics(path) for path in sorted(paths.KEPT.glob("*/*/metrics.json")))
    for record in [*kept, *(() if kept_only else made_here())]:
        key = (record["batch"], record["row"]) if record["batch"] else record["run_id"]
        if key not in newest or record["finished"] >= newest[key]["finished"]:
            newest[key] = record
    lines = []
    for record in newest.values():
        if batch in ("", record["batch"]):
            given = record["parameters"]
            code = "older" if records.differs(record) else "accepted" if "accepted" in record else ""
            run = record | {"seed": given.get("seed"), "code": code}
            lines += [run | line | {"data": line["data"] or given.get("data_set", "")} for line in record["metrics"]]
    frame = pd.DataFrame(lines, columns=COLUMNS).astype(dict.fromkeys(NUMBERS, float))
    return frame.sort_values(["batch", "notebook", "row"], kind="stable", ignore_index=True)


def made_here() -> Iterator[dict]:
    """Yield the records of the runs finished here: each batch's rows as last claimed, then runs by hand."""
    meant = claimed()
    for (batch, row), entry in meant.items():
        if (metrics := paths.runs() / entry["run_id"] / "metrics.json").exists():
            said = {"level": entry.get("level", ""), "departs": entry.get("departs", "")}
            yield records.read_metrics(metrics) | {"batch": batch, "row": row} | said
    told = {batch for batch, _ in meant} | {entry["run_id"] for entry in meant.values()}
    for path in sorted(paths.runs().glob("*/metrics.json")):
        record = records.read_metrics(path)
        if told.isdisjoint((record["batch"], record["run_id"])):
            yield record


def write(kept_only: bool = False) -> Path:
    """Rebuild results/table.csv from the kept runs, or a table beside the runs from these and those made here."""
    path = paths.TABLE if kept_only else paths.runs() / "table.csv"
    frame = read(kept_only=kept_only)
    frame = frame[frame["batch"] != ""]
    paths.write_atomically(path, frame.to_csv(index=False, float_format="%.6g").encode())
    return path
