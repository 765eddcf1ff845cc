"""Trainings that nothing needs any more: gigabytes each, and nothing else ever deletes them."""

import json
import shutil
from pathlib import Path

from lib.study import paths


def find() -> dict[Path, int]:
    """Return the trainings that no finished and no planned run uses: folder -> bytes.

    A training notes in its `used_by` the runs that train or read it.
    """
    claims = [json.loads(path.read_text(encoding="utf-8")) for path in (paths.runs() / "claims").glob("*.json")]
    needed = {entry["run_id"] for claim in claims for entry in claim["rows"].values()}
    needed |= {path.parent.name for path in paths.runs().glob("*/metrics.json")}
    found = {}
    for folder in sorted(paths.runs().glob("training-*")):
        users = folder / "used_by"
        if not (users.exists() and needed & set(users.read_text(encoding="utf-8").split())):
            found[folder] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return found


def tell(remove: bool = False) -> None:
    """Print the trainings that no run uses, with their sizes; delete them if asked to."""
    found = find()
    for folder, size in found.items():
        print(f"{size / 2**20:10.1f} MiB  {paths.short(folder)}")
        if remove:
            shutil.rmtree(folder)
    total = f"{len(found)} trainings that no finished or planned run uses, {sum(found.values()) / 2**20:.1f} MiB"
    print(f"{total}{', removed' if remove else ': `make orphans ARGS=--remove` deletes them' if found else ''}")
