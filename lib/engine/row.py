"""One row of a batch: a run of a notebook that is planned, and where what becomes of it lies.

Whatever has a row in hand can tell whether it is finished, runs, or failed: from files, which other processes read too.
"""

from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from lib.study import paths, records

# gpu_mb is the part of the card that is taken, without it the whole; runtime is for a cluster
RESOURCES = {"gpu": "cards, 0 or 1", "gpu_mb": "MiB of a card", "mem_mb": "MiB", "runtime": "minutes"}


@dataclass(frozen=True)
class Row:
    """One run of a notebook."""

    name: str
    notebook: str
    parameters: dict  # those given; `run:ROW` has become `run:ID`
    after: tuple[str, ...]  # run ids of the rows that `after` names
    needs: tuple[str, ...]  # names of all rows that must be finished first
    run_id: str
    identity: dict[str, str]  # what the run id is a digest of
    level: str = ""  # of evidence, one of tables.LEVELS
    departs: str = ""  # how the row's setting differs from the published one's
    threads: int = 1
    resources: dict[str, int] = field(default_factory=dict)
    precision: str = ""  # found for `precision: auto` where the row was planned
    rerun: bool = False  # although it is finished

    folder = property(lambda row: paths.runs() / row.run_id)
    metrics = property(lambda row: row.folder / "metrics.json")
    executed = property(lambda row: row.folder / "notebook.ipynb")
    ended = property(lambda row: row.folder / "finished.json")  # the last cell's, and the metrics when all is well
    failure = property(lambda row: row.folder / "failed.txt")
    lock = property(lambda row: row.folder / "lock")

    def finished(self, plan: Path | None = None) -> bool:
        """Tell whether the run is finished, with a plan: and not planned to run again.

        One by hand finishes no row: it leaves no executed notebook. Raises ValueError where its metrics.json is damaged
        or another run's.
        """
        if not self.metrics.exists():
            return False
        record = records.read_metrics(self.metrics)
        if record["run_id"] != self.run_id:
            raise ValueError(f"{self.metrics} belongs to {record['run_id']}: delete the folder and run again")
        again = plan and self.rerun and self.metrics.stat().st_mtime < plan.stat().st_mtime
        return bool(record["batch"]) and not again

    def is_running(self) -> bool:
        """Tell whether a process is at the row at this moment: it holds the row's lock."""
        return self.lock.exists() and is_held(self.lock)


def is_held(lock: Path) -> bool:
    """Tell whether a process holds a lock."""
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
