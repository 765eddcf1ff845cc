"""Runs and the table of results.

A number that cannot be traced to the parameters, code and data that made it is worth little, and a run that died
half-way must not be taken for a result. A run is a folder named by `identity.run_id`. What it makes lies in a part of
its own until it ends; then it is moved into the folder, `metrics.json` last and atomically, which means: finished. It
stays until another replaces it. The table is rebuilt from the runs, never edited.
"""

from __future__ import annotations

import ast
import json
import math
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from lib.study import identity, paths

if TYPE_CHECKING:  # the batch engine imports this module: no torch, no matplotlib
    from matplotlib.figure import Figure

COLUMNS = [
    "run_id", "notebook", "batch", "row", "data", "seed", "commit", "code", "device", "seconds", "peak_mb",
    "metric", "value", "low", "high", "published", "note", "departs",
]  # fmt: skip
NUMBERS = ["value", "low", "high"]
INJECTED = "# Parameters\n"  # begins the cell that papermill puts after the notebook's own


@dataclass
class Run:
    """One execution of a notebook."""

    id: str
    notebook: str
    parameters: dict
    folder: Path | None = None  # of what it makes: a part of its own until it ends
    about: dict = field(default_factory=dict)  # the record so far
    began: float = field(default_factory=time.time)
    metrics: list[dict] = field(default_factory=list)

    def save(self, figure: Figure, name: str) -> None:
        """Write a figure into the run's folder as NAME.png."""
        figure.savefig(self.folder / f"{name}.png", dpi=110, bbox_inches="tight")

    def record(
        self, metric: str, value: float, low: float | None = None, high: float | None = None, *,
        published: str = "", note: str = "", data: str = "",
    ) -> None:  # fmt: skip
        """Note one number, its interval and the id of the published figure in data/published.csv it stands beside.

        What is not finite is recorded as none, with a note: a training that came to nothing is a result too. Raises
        ValueError for what is no number.
        """
        line = {"metric": metric, "value": value, "low": low, "high": high, "published": published}
        for name in NUMBERS:
            number = line[name].item() if hasattr(line[name], "item") else line[name]
            if not isinstance(number, int | float) and not (name != "value" and number is None):
                raise ValueError(f"metric {metric}: {name} = {number!r} is no number")
            if number is not None and not math.isfinite(number):
                number, note = None, "; ".join(filter(None, [note, f"{name} is {number}"]))
            line[name] = number
        self.metrics.append(line | {"note": note, "data": data})


def start(notebook: str, namespace: Mapping) -> Run:
    """Begin a run.

    namespace: the notebook's own `globals()`, from which the values of its parameters cell are taken. Under a batch,
    the run is the one that the row's plan names, and `identity` of that row goes into the record. Raises ValueError
    for a parameter that the notebook does not know, or that is not as planned.
    """
    unknown = {name: None for name in _injected(namespace)}
    defaults, row = identity.parameters_of(notebook), _planned_row()
    parameters = identity.check(notebook, unknown | {name: namespace[name] for name in defaults})
    if row and parameters != identity.check(notebook, row["parameters"]):
        raise ValueError(f"{notebook} has other parameters than row {row['row']} of the plan: {parameters}")
    if not row:
        upstream = tuple(os.environ.get("STUDY_AFTER", "").split())
        row = {"batch": "", "row": "", "departs": "run by hand", "commit": commit()}
        if planned := os.environ.get("STUDY_ROW"):
            row["batch"], _, row["row"] = planned.rpartition("/")
            row["departs"] = os.environ.get("STUDY_DEPARTS", "")
        row["identity"] = identity.identity_of(notebook, parameters, upstream)
        row["run_id"] = identity.run_id(notebook, parameters, upstream)
    run = Run(row["run_id"], notebook, parameters)
    run.about = {"run_id": run.id, "notebook": notebook, "batch": row["batch"], "row": row["row"]}
    run.about |= {"parameters": parameters, "departs": row.get("departs", ""), "commit": row["commit"]}
    run.about |= {"chosen": [name for name in defaults if parameters[name] != defaults[name]]}
    run.about |= {"identity": row.get("identity", {}), "code": _code_of(notebook, parameters)}
    folder = paths.runs() / run.id
    folder.mkdir(parents=True, exist_ok=True)
    paths.write_atomically(folder / "params.json", _to_json(run.about))
    run.folder = Path(tempfile.mkdtemp(prefix="part-", dir=folder))
    weakref.finalize(run, shutil.rmtree, run.folder, ignore_errors=True)
    return run


def _injected(namespace: Mapping) -> list[str]:
    """Return the names that papermill has set in this kernel, known to the notebook or not."""
    cells = (cell for cell in namespace.get("In", []) if cell.startswith(INJECTED))
    return [ast.unparse(target) for cell in cells for line in ast.parse(cell).body for target in line.targets]


def _planned_row() -> dict:
    """Return the row that a batch executes in this kernel, as planned; empty by hand."""
    if "STUDY_PLAN" not in os.environ:
        return {}
    plan = json.loads(Path(os.environ["STUDY_PLAN"]).read_text(encoding="utf-8"))
    row = os.environ["STUDY_ROW"].rpartition("/")[2]
    return {"batch": plan["batch"], "row": row, "commit": plan["commit"]} | plan["rows"][row]


def finish(run: Run) -> pd.DataFrame:
    """End a run: write its record, and return its numbers beside the published ones.

    By hand that is metrics.json; under a batch finished.json, which becomes it when the notebook has ended well.
    """
    record = run.about | {
        "device": device_name(run.parameters.get("device", "cpu")),
        "seconds": round(time.time() - run.began, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "torch": version("torch"),
        "finished": _now(),
        "metrics": run.metrics,
    }
    part, run.folder = run.folder, paths.runs() / run.id
    for path in part.iterdir():
        path.replace(run.folder / path.name)
    part.rmdir()
    name = "finished.json" if "STUDY_PLAN" in os.environ else "metrics.json"
    paths.write_atomically(run.folder / name, _to_json(record))
    return beside_published(pd.DataFrame(run.metrics, columns=["metric", *NUMBERS, "published"]))


def beside_published(metrics: pd.DataFrame) -> pd.DataFrame:
    """Join metrics with data/published.csv: columns metric, value, low, high, published (a figure), source."""
    published = pd.read_csv(paths.PUBLISHED).set_index("id")
    known = published.reindex(metrics["published"])
    frame = metrics[["metric", *NUMBERS]].copy()
    frame["published"], frame["source"] = known["value"].to_numpy(), known["source"].to_numpy()
    return frame


# --- was it made by today's code?


def differs(record: Mapping) -> list[str]:
    """Return what of today's code differs from that which made a run: module.function, or a parameter's default.

    Empty where today's code made it, or was accepted for it; a function that is merely new makes no difference.
    """
    made = record | record.get("accepted", {})
    if "code" not in made:
        return ["made by another version of the study"]
    if made["notebook"] not in identity.notebooks():
        return [f"{made['notebook']} is gone"]
    old, today = set(made["code"].split()), _todays_code(made)
    changed = [name for name, found in today.items() if found not in old] if old - set(today.values()) else []
    if not changed and old - set(today.values()):
        changed = ["code that is gone"]
    defaults = identity.parameters_of(made["notebook"])
    values = {name: value for name, value in made["parameters"].items() if name not in made["chosen"]}
    return changed + [f"{name}, {value!r} by default" for name, value in values.items() if defaults.get(name) != value]


def accept(folder: Path) -> list[str]:
    """Note in a run's record, here or kept, that its numbers stand for today's code too; return what had differed."""
    record = read_metrics(folder / "metrics.json")
    if found := differs(record):
        defaults = identity.parameters_of(record["notebook"])
        given = {name: record["parameters"][name] for name in record.get("chosen", record["parameters"])}
        given = identity.check(record["notebook"], {name: given[name] for name in given if name in defaults})
        record["accepted"] = {
            "by": os.environ.get("USER") or f"user {os.getuid()}",
            "at": _now(),
            "commit": commit(),
            "code": " ".join(sorted(set(_todays_code(record).values()))),
            "parameters": given,
            "chosen": [name for name, value in given.items() if value != defaults[name]],
        }
        paths.write_atomically(folder / "metrics.json", _to_json(record))
    return found


def _upstream(parameters: Mapping) -> list[str]:
    """Return the ids of the runs whose nets a run uses."""
    values = (str(value) for value in parameters.values())
    return [value.removeprefix("run:") for value in values if value.startswith("run:")]


def _todays_code(record: Mapping) -> dict[str, str]:
    """Return `identity.code_of` a run's notebook and of those that made what it uses."""
    notebooks = {record["notebook"], *(run.rpartition("-")[0] for run in _upstream(record["parameters"]))}
    codes = [identity.code_of(notebook) for notebook in sorted(notebooks) if notebook in identity.notebooks()]
    return {name: found for code in codes for name, found in code.items()}


def _code_of(notebook: str, parameters: Mapping) -> str:
    """Return digests of the code that is about to make a run, and of that which made what it uses."""
    digests = set(identity.code_of(notebook).values())
    for run in _upstream(parameters):
        if (path := paths.runs() / run / "metrics.json").exists():
            made = read_metrics(path)
            digests |= set((made | made.get("accepted", {})).get("code", "unknown").split())
    return " ".join(sorted(digests))


# --- the table


def claim(batch: str, path: Path, rows: Mapping[str, Mapping]) -> None:
    """Write down what each row of a batch file means now: another parameter value is another run.

    batch: its name in the table. rows: name -> run_id, and `departs`, in which it differs from the published setting.
    """
    entry = {"batch": batch, "path": str(path), "rows": rows}
    name = f"{path.stem}-{identity.digest(str(path))}.json"
    paths.write_atomically(paths.runs() / "claims" / name, _to_json(entry))


def claimed(batch: str = "") -> dict[tuple[str, str], dict]:
    """Return what the rows of the batches run here mean: (batch, row) -> run_id, departs. batch: only this one's."""
    files = sorted((paths.runs() / "claims").glob("*.json"))
    entries = (json.loads(path.read_text(encoding="utf-8")) for path in files)
    found = ((entry["batch"], row, meant) for entry in entries for row, meant in entry["rows"].items())
    return {(name, row): meant for name, row, meant in found if batch in ("", name)}


def table(batch: str = "", kept_only: bool = False) -> pd.DataFrame:
    """Return the long table of all finished runs: those kept in git, and those made here, which replace them.

    batch: only this one's rows. kept_only: without those made here. One row per metric, columns COLUMNS; `code` is
    empty where today's code made the run, `accepted` where somebody has said that it stands, else `older`.
    """
    records = {}
    kept = (read_metrics(path) for path in sorted(paths.KEPT.glob("*/*/metrics.json")))
    for record in [*kept, *(() if kept_only else _made_here())]:
        key = (record["batch"], record["row"]) if record["batch"] else record["run_id"]
        if key not in records or record["finished"] >= records[key]["finished"]:
            records[key] = record
    lines = []
    for record in records.values():
        if batch in ("", record["batch"]):
            given = record["parameters"]
            code = "older" if differs(record) else "accepted" if "accepted" in record else ""
            run = record | {"seed": given.get("seed"), "code": code}
            lines += [run | line | {"data": line["data"] or given.get("data_set", "")} for line in record["metrics"]]
    frame = pd.DataFrame(lines, columns=COLUMNS).astype(dict.fromkeys(NUMBERS, float))
    return frame.sort_values(["batch", "notebook", "row"], kind="stable", ignore_index=True)


def _made_here() -> Iterator[dict]:
    """Yield the records of the runs finished here: each batch's rows as last claimed, then runs by hand."""
    meant = claimed()
    for (batch, row), entry in meant.items():
        if (metrics := paths.runs() / entry["run_id"] / "metrics.json").exists():
            yield read_metrics(metrics) | {"batch": batch, "row": row, "departs": entry.get("departs", "")}
    told = {batch for batch, _ in meant} | {entry["run_id"] for entry in meant.values()}
    for path in sorted(paths.runs().glob("*/metrics.json")):
        record = read_metrics(path)
        if told.isdisjoint((record["batch"], record["run_id"])):
            yield record


def read_metrics(path: Path) -> dict:
    """Read a metrics.json. Raises ValueError that names the file where it is no such thing."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        needed = ("run_id", "notebook", "batch", "row", "departs", "parameters", "finished", "metrics")
        _ = [record[key] for key in needed]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no metrics file ({error!r}): delete the folder and run again") from error
    return record


def write_table(kept_only: bool = False) -> Path:
    """Rebuild results/table.csv from the kept runs, or a table beside the runs from these and those made here."""
    path = paths.TABLE if kept_only else paths.runs() / "table.csv"
    frame = table(kept_only=kept_only)
    frame = frame[frame["batch"] != ""]
    paths.write_atomically(path, frame.to_csv(index=False, float_format="%.6g").encode())
    return path


def keep(run: str) -> Path:
    """Copy a finished batch run's record, without its figures, to where git keeps them; return the folder."""
    record = next((record for record in _made_here() if record["run_id"] == run), None)
    if not record:
        raise ValueError(f"no finished run {run} in {paths.runs()}")
    if not record["batch"]:
        raise ValueError(f"{run} belongs to no batch: run it through a batch file to keep it")
    path = paths.KEPT / re.sub(r"[^\w.-]+", "-", record["batch"]).strip("-") / record["row"] / "metrics.json"
    paths.write_atomically(path, _to_json(record))
    return path.parent


def commit() -> str:
    """Return the short hash of the commit that runs here, `+` appended where files differ from it; or unknown."""
    git, how = ["git", "-C", str(paths.ROOT)], {"capture_output": True, "check": True}
    try:
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], **how).stdout.decode().strip()
        changed = subprocess.run([*git, "status", "--porcelain", "lib", "notebooks"], **how).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + "+" * bool(changed)


def device_name(device: str = "auto") -> str:
    """Return the name of what a parameter `device` means here: the GPU's, or the CPU's kind and its threads."""
    torch = sys.modules.get("torch")  # a notebook that computes has imported it
    if torch and device != "cpu":
        if device.startswith(("auto", "cuda")) and torch.cuda.is_available():
            return torch.cuda.get_device_name(None if device == "auto" else device)
        if device in ("auto", "mps") and torch.backends.mps.is_available():
            return f"{platform.machine()} GPU"
    return f"{platform.machine()} CPU, {torch.get_num_threads() if torch else 1} threads"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _to_json(record: Mapping) -> bytes:
    return json.dumps(record, indent=1, allow_nan=False).encode()
