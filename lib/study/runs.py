"""Runs: one execution of a notebook each, and the record that it leaves.

A number that cannot be traced to the parameters, code and data that made it is worth little, and a run that died
half-way must not be taken for a result. A run is a folder, named after its `identity`. What it makes lies in a part
of its own until it ends; then it is moved into the folder, `metrics.json` last and atomically, which means: finished.
It stays until another replaces it, and says which code made it.
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
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import psutil

from lib.study import identity, paths, records, syntax

if TYPE_CHECKING:  # the batch engine imports this module: no torch, no matplotlib
    from matplotlib.figure import Figure

NUMBERS = ["value", "low", "high"]
INJECTED = "# Parameters\n"  # begins the cell that papermill puts after the notebook's own


@dataclass
class Run:
    """One execution of a notebook."""

    id: str
    notebook: str
    parameters: dict
    folder: Path | None = None  # of what it makes: a part of its own until it ends
    data: str = ""  # the images that its numbers are about, where the parameters do not name them
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
        self.metrics.append(line | {"note": note, "data": data or self.data})


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
        row = {"batch": "", "row": "", "level": "", "departs": "run by hand", "commit": records.commit()}
        row["identity"] = identity.identity_of(notebook, parameters)
        row["run_id"] = f"{notebook}-{syntax.digest(row['identity'])}"
    run = Run(row["run_id"], notebook, parameters)
    os.environ["STUDY_RUN"] = run.id  # for a training to note who uses it
    run.about = {"run_id": run.id, "notebook": notebook, "batch": row["batch"], "row": row["row"]}
    run.about |= {"parameters": parameters, "level": row["level"], "departs": row["departs"], "commit": row["commit"]}
    run.about |= {"chosen": [name for name in defaults if parameters[name] != defaults[name]]}
    run.about |= {"identity": row["identity"], "code": records.code_of(notebook, parameters)}
    folder = paths.runs() / run.id
    folder.mkdir(parents=True, exist_ok=True)
    paths.write_atomically(folder / "params.json", records.to_json(run.about))
    for left in folder.glob("part-*") if row["batch"] else ():  # by an executor that was killed
        shutil.rmtree(left, ignore_errors=True)
    kind = "part" if row["batch"] else "hand"
    run.folder = Path(tempfile.mkdtemp(prefix=f"{kind}-{platform.node()}-{os.getpid()}-", dir=folder))
    weakref.finalize(run, shutil.rmtree, run.folder, ignore_errors=True)
    return run


def left_behind() -> list[Path]:
    """Return the parts of runs whose kernel was killed on this machine."""
    own = re.compile(rf"(part|hand)-{re.escape(platform.node())}-\d+-[^-]*")  # no other machine's whose name begins so
    parts = [path for path in paths.runs().glob("*/*-*-*-*") if own.fullmatch(path.name)]
    return [path for path in parts if not psutil.pid_exists(int(path.name.split("-")[-2]))]


def _injected(namespace: Mapping) -> list[str]:
    """Return the names that papermill has set in this kernel, known to the notebook or not."""
    cells = (ast.parse(cell) for cell in namespace.get("In", []) if cell.startswith(INJECTED))
    lines = (line for cell in cells for line in cell.body if isinstance(line, ast.Assign))
    return [ast.unparse(target) for line in lines for target in line.targets]


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
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10),
        "torch": version("torch"),
        "finished": records.now(),
        "metrics": run.metrics,
    }
    part, run.folder = run.folder, paths.runs() / run.id
    if part != run.folder:  # the last cell may be run again
        for path in part.iterdir():
            if (former := run.folder / path.name).is_dir():
                shutil.rmtree(former)
            path.replace(former)
        part.rmdir()
    name = "finished.json" if "STUDY_PLAN" in os.environ else "metrics.json"
    paths.write_atomically(run.folder / name, records.to_json(record))
    frame = pd.DataFrame(run.metrics, columns=["metric", *NUMBERS, "published"])
    published = pd.read_csv(paths.PUBLISHED).set_index("id").reindex(frame["published"])
    return frame.assign(published=published["value"].to_numpy(), source=published["source"].to_numpy())


def device_name(device: str = "auto") -> str:
    """Return the name of what a parameter `device` means here: the GPU's, or the CPU's kind and its threads."""
    torch = sys.modules.get("torch")  # a notebook that computes has imported it
    if torch and device != "cpu":
        if device.startswith(("auto", "cuda")) and torch.cuda.is_available():
            return torch.cuda.get_device_name(None if device == "auto" else device)
        if device in ("auto", "mps") and torch.backends.mps.is_available():
            return f"{platform.machine()} GPU"
    return f"{platform.machine()} CPU, {torch.get_num_threads() if torch else 1} threads"
