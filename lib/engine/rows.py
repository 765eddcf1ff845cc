"""The rows of a batch file: which notebook runs with which parameters, and after which other rows.

papermill takes a misspelled parameter with a warning and text where a number belongs, and a training of a day must not
end there. So a batch file is read as plain data and checked as a whole before anything runs: each error names the file
and the row. The same check gives every row its run id, so that finished runs are known by name.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from ruamel.yaml import YAML, YAMLError

from lib.engine import rules
from lib.engine.row import RESOURCES, Row
from lib.study import identity, manifest, paths, syntax, tables


@dataclass(frozen=True)
class Batch:
    """A batch file: its rows by name, each after those it needs."""

    path: Path
    rows: dict[str, Row]

    @property
    def name(self) -> str:
        return name_of(self.path)

    def waiting(self) -> dict[str, Row]:
        """Return the rows that are not finished."""
        return {name: row for name, row in self.rows.items() if not row.finished()}


def name_of(path: str | Path) -> str:
    """Return a batch's name: its file's stem, and a digest of its place where that is not batches/."""
    path = Path(path).resolve()
    if path.parent == paths.ROOT.resolve() / "batches":
        return path.stem
    return f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"


def load(path: str | Path) -> Batch:
    """Read and check a batch file. Raises ValueError that names the file, the row and what is wrong there."""
    path = Path(path).absolute()
    if not path.is_file():
        raise ValueError(f"no batch file {path}")
    with at(path):
        content = _read(path)
    given, defaults, drafts, rows = content["rows"], content.get("defaults", {}), {}, {}
    shared = {"level": content["level"]} if "level" in content else {}
    for name, row in given.items():
        with at(path, name):
            drafts[name] = _draft(name, shared | row if isinstance(row, dict) else row, given, defaults)
    try:
        order = list(TopologicalSorter({name: draft["needs"] for name, draft in drafts.items()}).static_order())
    except CycleError as error:
        raise ValueError(f"{path.name}: rows wait for each other: {' before '.join(error.args[1])}") from error
    of_images = cache(manifest.of_images)  # which rows share
    for name in order:
        with at(path, name):
            row = _resolve(name, drafts[name], rows, of_images)
            for other in rows.values():
                if other.run_id == row.run_id:
                    raise ValueError(f"is the same run as row {other.name}")
            row.finished()
            rows[name] = row
    return Batch(path, rows)


@contextmanager
def at(path: Path, row: object = None) -> Iterator[None]:
    """Name the place in what goes wrong there."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}" if row is None else f"{path.name}, row {row}: {error}") from error


def _read(path: Path) -> dict:
    """Return a batch file's content, of the right shape: YAML 1.2, in which 010 is ten and `no` is a word."""
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f"line {mark.line + 1 if mark else '?'}: {getattr(error, 'problem', 'no YAML')}") from error
    if not isinstance(content, dict) or not isinstance(content.get("rows"), dict):
        raise ValueError("needs `rows:`, each NAME: {notebook: ..., parameters: {...}}")
    _only(content, "description", "level", "defaults", "rows")
    defaults = content.get("defaults", {})
    if not isinstance(defaults, dict) or not all(isinstance(values, dict) for values in defaults.values()):
        raise ValueError("defaults: NOTEBOOK: {parameter: value}")
    used = [row.get("notebook") for row in content["rows"].values() if isinstance(row, dict)]
    for notebook in defaults:
        if notebook not in used:
            raise ValueError(f"defaults for {notebook!r}, which no row runs")
    return content


def _only(given: dict, *known: str) -> None:
    for key in given:
        if key not in known:
            raise ValueError(f"unknown key {key!r}: known are {', '.join(known)}")


def _draft(name: object, row: object, rows: dict, defaults: dict) -> dict:
    """Return a row as written, checked but for its parameters' names and types, with the rows that it needs."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w-]*", name) or name == "all":
        raise ValueError("a row is named with letters, digits, - and _, and not `all`")
    if not isinstance(row, dict) or row.get("notebook") not in identity.notebooks():
        notebook = row.get("notebook") if isinstance(row, dict) else row
        raise ValueError(f"unknown notebook {notebook!r}: choose one of {', '.join(identity.notebooks())}")
    _only(row, "notebook", "parameters", "after", "level", "departs", "threads", *RESOURCES)
    if not isinstance(row.get("parameters", {}), dict):
        raise ValueError("parameters: {name: value}")
    if not isinstance(row.get("departs", ""), str):
        raise ValueError("departs: how the row's setting differs from the published one's, in words")
    _check_level(row)
    for key, meaning in {"threads": "cores, at least 1", **RESOURCES}.items():
        value = row.get(key, 1)
        if type(value) is not int or value < (key == "threads") or (key == "gpu" and value > 1):
            raise ValueError(f"{key} = {value!r}: give a number of {meaning}")
    if row.get("gpu_mb") and not row.get("gpu"):
        raise ValueError("gpu_mb is a part of a card: give gpu: 1 too")
    after = row.get("after", [])
    if after == "all":
        after = [other for other in rows if other != name]
    if not isinstance(after, list):
        raise ValueError("after: [row, ...] or all")
    for other in after:
        if other not in rows:
            raise ValueError(f"after: there is no row {other!r}")
    parameters = defaults.get(row["notebook"], {}) | row.get("parameters", {})
    upstream = [found for value in parameters.values() if (found := _upstream(value, rows))]
    return row | {"parameters": parameters, "after": after, "needs": {*after, *upstream}}


def _check_level(row: dict) -> None:
    """Refuse a row that does not say how far its evidence reaches, and a direct one that departs."""
    if "level" not in row:
        raise ValueError(
            f"no level of evidence: give `level:`, one of {', '.join(tables.LEVELS)}, to it or to the batch"
        )
    if row["level"] not in list(tables.LEVELS):  # which may be no text at all
        raise ValueError(f"level = {row['level']!r}: choose one of {', '.join(tables.LEVELS)}")
    if row["level"] == "direct" and row.get("departs"):
        raise ValueError(f"level = 'direct', but it departs: {row['departs']}")


def _upstream(value: object, rows: dict) -> str | None:
    """Return ROW of a value `run:ROW`, None for any other value and for `run:ID` of a finished run."""
    if not isinstance(value, str) or not value.startswith("run:"):
        return None
    name = value.removeprefix("run:")
    if name in rows:
        return name
    if "/" in name or not (paths.runs() / name / "metrics.json").is_file():
        raise ValueError(f"{value}: there is no row and no finished run of this name")
    return None


def _resolve(name: str, draft: dict, rows: dict[str, Row], of_images: Callable[[object], str]) -> Row:
    """Return the row with its parameters checked and its run id; `rows` holds those that it needs."""
    given = {
        k: f"run:{rows[other].run_id}" if (other := _upstream(v, rows)) else v for k, v in draft["parameters"].items()
    }
    notebook, on_gpu = draft["notebook"], bool(draft.get("gpu"))
    checked = identity.check(notebook, given)
    rules.check(notebook, checked, on_gpu)
    after = tuple(sorted({rows[other].run_id for other in draft["after"]}))
    told = identity.identity_of(notebook, given, after, on_gpu, of_images)
    return Row(
        name=name,
        notebook=notebook,
        parameters={k: checked[k] for k in given},
        after=after,
        needs=tuple(sorted(draft["needs"])),
        run_id=f"{notebook}-{syntax.digest(told)}",
        identity=told,
        precision=identity.find_precision(checked.get("precision", ""), on_gpu),
        level=draft["level"],
        departs=draft.get("departs", ""),
        threads=draft.get("threads", 1),
        resources={key: draft[key] for key in RESOURCES if key in draft},
    )
