"""What a batch writes down before it runs, and what is left over when nothing needs it any more.

Days may pass between a plan and its last row. So the rows lie in a file, beside a copy of the code that runs them, once
for each content. Plans and copies go by themselves; trainings, gigabytes each, when somebody asks for it.
"""

import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from lib.engine.row import Row, is_held
from lib.engine.rows import Batch
from lib.study import paths, records, runs

OLD = 30 * 86400  # seconds after which the plan of a batch that was given up goes


def write(batch: Batch, rows: Mapping[str, Row]) -> Path:
    """Write down the rows that are to run, and copy the code that will run them; return the plan's path."""
    folder = paths.runs() / "plans"
    with paths.naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        content = {
            "batch": batch.name,
            "path": str(batch.path),
            "commit": records.commit(),
            "code": _copy_code(),
            "rows": {name: asdict(row) for name, row in rows.items()},
        }
        path = folder / f"{secrets.token_hex(5)}.json"
        paths.write_atomically(path, records.to_json(content))
        _prune()
    return path


def read(plan: Path) -> dict:
    """Return what a plan says; its rows are `Row`s by name."""
    content = json.loads(plan.read_text(encoding="utf-8"))
    return content | {"rows": {name: Row(**entry) for name, entry in content["rows"].items()}}


def code_of(plan: Path) -> Path:
    """Return the folder of the code that a plan's rows run."""
    return paths.runs() / "code" / read(plan)["code"]


def _copy_code() -> str:
    """Copy lib and notebooks as they are, once for each content; return the digest that names the copy."""
    lib = Path(__file__).parent.parent
    files = {f"lib/{path.relative_to(lib)}": path.read_bytes() for path in sorted(lib.rglob("*.py"))}
    files |= {f"notebooks/{path.name}": path.read_bytes() for path in sorted(paths.NOTEBOOKS.glob("*.ipynb"))}
    listed = "".join(f"{name} {hashlib.sha256(content).hexdigest()}\n" for name, content in files.items())
    copy = paths.runs() / "code" / hashlib.sha256(listed.encode()).hexdigest()[:10]
    if not copy.exists():
        part = copy.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        for name, content in files.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(content)
        part.rename(copy)
    return copy.name


def _prune() -> None:
    """Remove plans of which nothing is left to run, and copies of the code that no plan uses."""
    used = set()
    for path in (paths.runs() / "plans").glob("*.json"):
        content = read(path)
        unfinished = [row for row in content["rows"].values() if not row.finished(path)]
        if unfinished and (time.time() - path.stat().st_mtime < OLD or any(row.is_running() for row in unfinished)):
            used.add(content["code"])
        else:
            path.unlink()
    for folder in (paths.runs() / "code").iterdir():
        if folder.name not in used:
            shutil.rmtree(folder)


def find_orphans() -> dict[Path, int]:
    """Return what no finished, planned or present run uses: folder -> bytes.

    Trainings, which note in `used_by` the runs that train or read them and hold a lock while they last, and the parts
    of runs whose kernel was killed.
    """
    claims = [json.loads(path.read_text(encoding="utf-8")) for path in (paths.runs() / "claims").glob("*.json")]
    needed = {entry["run_id"] for claim in claims for entry in claim["rows"].values()}
    needed |= {path.parent.name for path in paths.runs().glob("*/metrics.json")}
    needed |= {row.run_id for path in (paths.runs() / "plans").glob("*.json") for row in read(path)["rows"].values()}
    found = runs.left_behind()
    for folder in paths.runs().glob("training-*"):
        users, lock = folder / "used_by", folder / "lock"
        used = users.exists() and needed & set(users.read_text(encoding="utf-8").split())
        if not used and not (lock.exists() and is_held(lock)):
            found.append(folder)
    return {path: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in sorted(found)}


def tell_orphans(remove: bool = False) -> None:
    """Print what no run uses, with its sizes; delete it if asked to."""
    found = find_orphans()
    for folder, size in found.items():
        print(f"{size / 2**20:10.1f} MiB  {paths.short(folder)}")
        if remove:
            shutil.rmtree(folder)
    total = f"{len(found)} folders that no finished or planned run uses, {sum(found.values()) / 2**20:.1f} MiB"
    print(f"{total}{', removed' if remove else ': `make orphans ARGS=--remove` deletes them' if found else ''}")
