"""The record of a run: what it says, and whether today's code made it.

Numbers outlive the code that made them. So a record holds digests of all functions that were reached, those of the runs
whose nets it uses too; what differs today is told, and somebody decides whether the numbers still stand.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from lib.study import identity, paths, syntax

LOADED = time.time()  # when this kernel imported lib


def read_metrics(path: Path) -> dict:
    """Read a metrics.json. Raises ValueError that names the file where it is no such thing."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        needed = ("run_id", "notebook", "batch", "row", "departs", "parameters", "finished", "metrics")
        _ = [record[key] for key in needed]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no metrics file ({error!r}): delete the folder and run again") from error
    return record


def commit() -> str:
    """Return the short hash of the commit that runs here, `+` appended where files differ from it; or unknown."""
    git, how = ["git", "-C", str(paths.ROOT)], {"capture_output": True, "check": True}
    try:
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], **how).stdout.decode().strip()
        changed = subprocess.run([*git, "status", "--porcelain", "lib", "notebooks"], **how).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + "+" * bool(changed)


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
    changed = []
    if not old <= set(today.values()):
        changed = [name for name, found in today.items() if found not in old]
        changed = changed or ["code that is gone, or was edited in a live kernel"]
    defaults = identity.parameters_of(made["notebook"])
    values = {name: value for name, value in made["parameters"].items() if name not in made["chosen"]}
    return changed + [f"{name}, {value!r} by default" for name, value in values.items() if defaults.get(name) != value]


def accept(folder: Path) -> list[str]:
    """Note in a run's record, here or kept, that its numbers stand for today's code too; return what had differed."""
    record = read_metrics(folder / "metrics.json")
    if found := differs(record):
        defaults, chosen = identity.parameters_of(record["notebook"]), record.get("chosen", record["parameters"])
        given = {name: record["parameters"][name] for name in defaults if name in chosen}
        given = identity.check(record["notebook"], given)
        record["accepted"] = {
            "by": os.environ.get("USER") or f"user {os.getuid()}",
            "at": now(),
            "commit": commit(),
            "code": " ".join(sorted(set(_todays_code(record).values()))),
            "parameters": given,
            "chosen": [name for name, value in given.items() if value != defaults[name]],
        }
        paths.write_atomically(folder / "metrics.json", to_json(record))
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


def code_of(notebook: str, parameters: Mapping) -> str:
    """Return digests of the code that is about to make a run, and of that which made what it uses."""
    digests = set(identity.code_of(notebook).values())
    if any(path.stat().st_mtime > LOADED for path in syntax.LIB.rglob("*.py")):
        digests.add("edited")  # what is in memory may be older than the files
    for run in _upstream(parameters):
        if (path := paths.runs() / run / "metrics.json").exists():
            made = read_metrics(path)
            digests |= set((made | made.get("accepted", {})).get("code", "unknown").split())
    return " ".join(sorted(digests))


def now() -> str:
    """Return the time in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def to_json(record: Mapping) -> bytes:
    """Write a record as text."""
    return json.dumps(record, indent=1, allow_nan=False).encode()
