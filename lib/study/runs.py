"""Runs and the table of results.

A number that cannot be traced to the parameters, code and data that made it is worth little, and a run that died
half-way must not be taken for a result. A run is a folder named after a hash of all it depends on; `params.json` is
written into it first and `metrics.json` last and atomically, so that the presence of the latter means finished. The
table is rebuilt from the runs, never edited.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pandas as pd
from papermill import inspect_notebook

from lib.study import paths

if TYPE_CHECKING:  # the batch engine imports this module: no torch, no matplotlib
    from matplotlib.figure import Figure

COLUMNS = [
    "run_id", "notebook", "batch", "row", "data", "seed", "commit", "device", "seconds", "peak_mb",
    "metric", "value", "low", "high", "published", "note", "departs",
]  # fmt: skip
PRESENTATION = {"look.figures", "study.paths", "study.results", "study.batch"}  # modules that change no number
TYPES = {"str": str, "int": int, "float": float, "bool": bool}


@dataclass
class Run:
    """One execution of a notebook."""

    id: str
    notebook: str
    parameters: dict
    began: float = field(default_factory=time.time)
    metrics: list[dict] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return paths.runs() / self.id

    def save(self, figure: Figure, name: str) -> None:
        """Write a figure into the run's folder as NAME.png."""
        figure.savefig(self.folder / f"{name}.png", dpi=110, bbox_inches="tight")

    def record(
        self, metric: str, value: float, low: float | None = None, high: float | None = None, *,
        published: str = "", note: str = "", data: str = "",
    ) -> None:  # fmt: skip
        """Note one number, its interval and the id of the published figure in data/published.csv it stands beside."""
        line = {"metric": metric, "value": value, "low": low, "high": high, "published": published, "note": note}
        self.metrics.append({k: v.item() if hasattr(v, "item") else v for k, v in line.items()} | {"data": data})


def parameters_of(notebook: str) -> dict[str, dict]:
    """Return a notebook's parameters: name -> {type, default, help}. Raises ValueError for an unknown notebook."""
    path = paths.NOTEBOOKS / f"{notebook}.ipynb"
    if not path.exists():
        raise ValueError(f"unknown notebook {notebook!r}: choose one of {', '.join(notebooks())}")
    found = {}
    for name, entry in inspect_notebook(str(path)).items():
        kind = entry["inferred_type_name"]
        if kind not in TYPES:
            raise ValueError(f"{notebook}: parameter {name} needs a type: {', '.join(TYPES)}")
        try:
            default = ast.literal_eval(entry["default"])
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"{notebook}: parameter {name} = {entry['default']} must be a literal") from error
        found[name] = {"type": TYPES[kind], "default": default, "help": entry["help"]}
    return found


def notebooks() -> list[str]:
    """Return the names of the study's notebooks, in order."""
    return sorted(path.stem for path in paths.NOTEBOOKS.glob("[0-9]*.ipynb"))


def check_parameters(notebook: str, given: Mapping) -> dict:
    """Return a notebook's parameters with `given` in place. Raises ValueError for an unknown name or a wrong type."""
    known = parameters_of(notebook)
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{notebook} has no parameter {name!r}: it has {', '.join(known)}")
        kind = known[name]["type"]
        right = type(value) is kind or (kind is float and type(value) is int)
        if not right:
            hint = "; YAML reads 1e-3 as text, write 1.0e-3" if kind is float and isinstance(value, str) else ""
            raise ValueError(f"{notebook}: {name} = {value!r} is no {kind.__name__}{hint}")
    return {name: entry["type"](given.get(name, entry["default"])) for name, entry in known.items()}


def run_id(notebook: str, parameters: Mapping, upstream: tuple[str, ...] = ()) -> str:
    """Return the name of a run: its notebook and a hash of parameters, code and what it comes after."""
    digests = dependencies(notebook, check_parameters(notebook, parameters), upstream)
    return f"{notebook}-{hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:10]}"


def dependencies(notebook: str, parameters: Mapping, upstream: tuple[str, ...] = ()) -> dict[str, str]:
    """Return what a run's numbers follow from: parameters, the notebook's code, and each module that computes."""
    code = {f"lib/{_file_of(name)}": digest_of_module(name) for name in _modules_of(_code_of(notebook)) - PRESENTATION}
    given = {name: json.dumps(value) for name, value in parameters.items()}
    files = {f"files of {name}": found for name, value in parameters.items() if (found := _files_of(value))}
    return given | files | {"notebook": _digest(_code_of(notebook))} | code | {"after": " ".join(sorted(upstream))}


@cache
def _files_of(value: object) -> str:
    """Return a hash of the names and sizes behind a `tar:` or `folder:` parameter: other images, another run.

    Times of change do not count: a copy on another machine is the same source. Empty for any other value.
    """
    kind, _, path = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind not in ("tar", "folder"):
        return ""
    source = paths.find_source(path)
    files = chain.from_iterable([place, *place.rglob("*")] for place in source.parent.glob(source.name))
    listed = sorted(f"{file.name} {file.stat().st_size}" for file in files if file.is_file())
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()[:16]


def _code_of(notebook: str) -> str:
    """Return the code of a notebook without its parameters cell, whose values count on their own."""
    cells = nbformat.read(paths.NOTEBOOKS / f"{notebook}.ipynb", as_version=4).cells
    code = (c.source for c in cells if c.cell_type == "code" and "parameters" not in c.metadata.get("tags", []))
    return "\n".join(line for cell in code for line in cell.splitlines() if not line.startswith("%"))


def _modules_of(source: str) -> set[str]:
    """Return the names of the lib modules that a piece of code imports, and those which they import."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lib."):
            room, _, module = node.module.removeprefix("lib.").partition(".")
            found |= {f"{room}.{module}"} if module else {f"{room}.{alias.name}" for alias in node.names}
    return found.union(*(_imports(name) for name in found))


@cache
def _imports(module: str) -> frozenset[str]:
    return frozenset(_modules_of((paths.ROOT / "lib" / _file_of(module)).read_text()))


def _file_of(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


@cache
def digest_of_module(module: str) -> str:
    """Return a hash of what a module of lib does: comments and docstrings do not count."""
    return _digest((paths.ROOT / "lib" / _file_of(module)).read_text())


def _digest(source: str) -> str:
    """Hash what a piece of code does: its syntax tree, without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    dump = ast.dump(tree).replace(", type_params=[]", "")  # which Python 3.12 adds: same code, same hash
    return hashlib.sha256(dump.encode()).hexdigest()[:16]


def start(notebook: str, namespace: Mapping) -> Run:
    """Begin a run: make its folder and write params.json.

    namespace: the notebook's own `globals()`, from which the values of its parameters cell are taken.
    """
    parameters = check_parameters(notebook, {name: namespace[name] for name in parameters_of(notebook)})
    upstream = tuple(os.environ.get("STUDY_AFTER", "").split())
    run = Run(run_id(notebook, parameters, upstream), notebook, parameters)
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "metrics.json").unlink(missing_ok=True)
    batch, _, row = os.environ.get("STUDY_ROW", "").partition("/")
    record = {"run_id": run.id, "notebook": notebook, "batch": batch, "row": row, "parameters": parameters}
    record["departs"] = os.environ.get("STUDY_DEPARTS", "") if batch else "run by hand"
    record["commit"] = commit()  # now, not when it ends: the code is in memory, whatever happens to the files
    record["dependencies"] = dependencies(notebook, parameters, upstream)
    paths.write_atomically(run.folder / "params.json", json.dumps(record, indent=1).encode())
    return run


def finish(run: Run) -> pd.DataFrame:
    """End a run: write metrics.json, and return its numbers beside the published ones."""
    for line in run.metrics:
        if not isinstance(line["value"], int | float):
            raise ValueError(f"metric {line['metric']}: {line['value']!r} is no number")
    record = json.loads((run.folder / "params.json").read_text())
    record |= {
        "device": device_name(),
        "seconds": round(time.time() - run.began, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "torch": version("torch"),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "metrics": run.metrics,
    }
    paths.write_atomically(run.folder / "metrics.json", json.dumps(record, indent=1).encode())
    return beside_published(pd.DataFrame(run.metrics, columns=["metric", "value", "low", "high", "published"]))


def beside_published(metrics: pd.DataFrame) -> pd.DataFrame:
    """Join metrics with data/published.csv: columns metric, value, low, high, published (a figure), source."""
    published = pd.read_csv(paths.PUBLISHED).set_index("id")
    known = published.reindex(metrics["published"])
    frame = metrics[["metric", "value", "low", "high"]].copy()
    frame["published"], frame["source"] = known["value"].to_numpy(), known["source"].to_numpy()
    return frame


def claim(batch: str, rows: Mapping[str, Mapping[str, str]]) -> None:
    """Write down what each row of a batch means now: another parameter value is another run.

    rows: name -> run_id, and `departs`, in which the row's setting differs from the published one's.
    """
    paths.write_atomically(paths.runs() / f"{batch}.rows.json", json.dumps(rows, indent=1).encode())


def table(batch: str = "") -> pd.DataFrame:
    """Return the long table of all finished runs: those kept in git, and those made here, which replace them.

    batch: only this one's rows. One row per metric, columns COLUMNS.
    """
    records = {}
    for record in [*map(read_metrics, sorted(paths.KEPT.glob("*/*/metrics.json"))), *_made_here()]:
        key = (record["batch"], record["row"]) if record["batch"] else record["run_id"]
        if key not in records or record["finished"] >= records[key]["finished"]:
            records[key] = record
    lines = []
    for record in records.values():
        if not batch or record["batch"] == batch:
            given = record["parameters"]
            run = record | {"seed": given.get("seed")}
            lines += [run | line | {"data": line["data"] or given.get("data_set", "")} for line in record["metrics"]]
    frame = pd.DataFrame(lines, columns=COLUMNS)
    return frame.sort_values(["batch", "notebook", "row"], kind="stable", ignore_index=True)


def _made_here() -> Iterator[dict]:
    """Yield the records of the runs finished here: each batch's rows as last claimed, then runs by hand."""
    claimed = {path.name.removesuffix(".rows.json"): path for path in sorted(paths.runs().glob("*.rows.json"))}
    for batch, path in claimed.items():
        for row, meant in json.loads(path.read_text()).items():
            if (metrics := paths.runs() / meant["run_id"] / "metrics.json").exists():
                yield read_metrics(metrics) | {"batch": batch, "row": row} | meant
    for path in sorted(paths.runs().glob("*/metrics.json")):
        record = read_metrics(path)
        if record["batch"] not in claimed:
            yield record


def read_metrics(path: Path) -> dict:
    """Read a metrics.json. Raises ValueError that names the file where it is no such thing."""
    try:
        record = json.loads(path.read_text())
        _ = [
            record[k]
            for k in ("run_id", "batch", "row", "departs", "parameters", "dependencies", "finished", "metrics")
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no metrics file ({error!r}): delete the folder and run again") from error
    return record


def write_table() -> Path:
    """Rebuild results/table.csv from the runs of all batches."""
    frame = table()
    frame = frame[frame["batch"] != ""]
    paths.write_atomically(paths.TABLE, frame.to_csv(index=False, float_format="%.6g").encode())
    return paths.TABLE


def keep(run: str) -> Path:
    """Copy a finished batch run's record, without its figures, to where git keeps them; return the folder."""
    record = next((record for record in _made_here() if record["run_id"] == run), None)
    if not record:
        raise ValueError(f"no finished run {run} in {paths.runs()}")
    if not record["batch"]:
        raise ValueError(f"{run} belongs to no batch: run it through a batch file to keep it")
    target = paths.KEPT / record["batch"] / record["row"]
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    paths.write_atomically(part / "metrics.json", json.dumps(record, indent=1).encode())
    shutil.rmtree(target, ignore_errors=True)
    return part.rename(target)


def commit() -> str:
    """Return the short hash of the commit that runs here, `+` appended where files differ from it."""
    git = ["git", "-C", str(paths.ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        return "unknown"
    changed = subprocess.run([*git, "status", "--porcelain", "lib", "notebooks"], capture_output=True, text=True)
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def device_name() -> str:
    """Return what computes here: the GPU's name, or the CPU's kind and its threads."""
    torch = sys.modules.get("torch")  # a notebook that computes has imported it
    if torch and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads() if torch else 1} threads"
