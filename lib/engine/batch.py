"""A batch: its rows are planned once, written down, and run from there, each when those it needs are finished.

A batch takes days. Meanwhile its code is edited, another batch wants the same rows, a row dies of memory, the terminal
is closed. So a batch runs a copy of the code as it was when it began; rows that two batches share are run by one of
them; a row that fails ends nothing but what needs it; and a finished row is never touched.
"""

import signal
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path

from lib.engine import plans
from lib.engine.execute import interruptions, say
from lib.engine.places import Machine
from lib.engine.row import Row
from lib.engine.rows import Batch
from lib.study import paths, records, tables
from lib.study.paths import short

TICK = 0.1  # seconds between two looks at what runs


def run(batch: Batch, place: Machine, only: Sequence[str] = (), rerun: Sequence[str] = ()) -> int:
    """Run the rows that are not finished, rebuild the table, print what came of it; return the exit code.

    only: these rows and what they need (none named: all). rerun: these although they are finished. Raises ValueError
    where the batch has no such row.
    """
    wanted, waiting = choose(batch, only, rerun)
    print(f"{batch.path.name}: {len(waiting)} of {len(wanted)} rows to run", flush=True)
    tell_left(batch, waiting)
    place.prepare(waiting.values())
    claim(batch)
    failed = work_through(waiting, plans.write(batch, waiting), place) if waiting else set()
    try:
        tables.write()
    finally:
        summarise(batch, wanted)
    return 1 if failed or wanted & batch.waiting().keys() else 0


def claim(batch: Batch) -> None:
    """Write down what the rows of a batch file mean now, for the table and for what is kept."""
    meant = {
        name: {"run_id": row.run_id, "level": row.level, "departs": row.departs} for name, row in batch.rows.items()
    }
    tables.claim(batch.name, batch.path, meant)


def plan(batch: Batch, only: Sequence[str] = (), rerun: Sequence[str] = ()) -> int:
    """Print which rows would run, and why."""
    wanted, waiting = choose(batch, only, rerun)
    print(f"{batch.path.name}: {len(waiting)} of {len(wanted)} rows to run")
    tell_left(batch, waiting)
    for name, row in waiting.items():
        print(f"  {name:<20} {'asked for' if row.finished() else why(batch, row)}")
    for name in sorted(wanted - waiting.keys()):
        record = records.read_metrics(batch.rows[name].metrics)
        if found := records.differs(record):
            print(f"  {name:<20} finished; code differs since {record['commit']}: {few(found)}")
    return 0


def tell_left(batch: Batch, waiting: Mapping[str, Row]) -> None:
    """Say which finished rows took what is run again now, and are not run again themselves."""
    needs, again = {name: row.needs for name, row in batch.rows.items()}, {n for n, row in waiting.items() if row.rerun}
    took = [name for name in needs if name not in waiting and again & upstream(needs, name)]
    if left := [name for name in took if batch.rows[name].finished()]:
        print(f"{', '.join(left)} took what is run again, and keep their numbers: name them with --rerun, too")


def few(names: Sequence[str], most: int = 6) -> str:
    """Return names as words, the first of them where they are many."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def choose(batch: Batch, only: Sequence[str], rerun: Sequence[str]) -> tuple[set[str], dict[str, Row]]:
    """Return the rows that are wanted, by name, and those of them that are to run."""
    named = [row.name for row in find(batch, *only, *rerun)]
    needs = {name: row.needs for name, row in batch.rows.items()}
    wanted = set(named).union(*(upstream(needs, name) for name in named)) if named else set(batch.rows)
    unfinished = batch.waiting()
    chosen = {name: row for name, row in batch.rows.items() if name in wanted and (name in unfinished or name in rerun)}
    return wanted, {name: replace(row, rerun=name in rerun) for name, row in chosen.items()}


def find(batch: Batch, *names: str) -> list[Row]:
    """Return the rows of these names. Raises ValueError where the batch has no such row."""
    for name in names:
        if name not in batch.rows:
            raise ValueError(f"{batch.path} has no row {name!r}: it has {', '.join(batch.rows)}")
    return [batch.rows[name] for name in names]


def upstream(needs: Mapping[str, Collection[str]], name: str) -> set[str]:
    """Return all rows that a row needs, near or far."""
    return set(needs[name]).union(*(upstream(needs, other) for other in needs[name]))


# --- the work ------------------------------------------------------------------------------------------------------


def work_through(rows: Mapping[str, Row], plan: Path, place: Machine) -> set[str]:
    """Run the rows of a plan, what others wait for first; return the names of those that failed."""
    needs = {name: set(row.needs) & rows.keys() for name, row in rows.items()}
    waited_for = Counter(other for name in rows for other in upstream(needs, name))
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    ready, failed, told, stopping = [*sorter.get_ready()], set(), set(), False
    with _deferred_signals() as signals:
        while ready or place.running:
            for row, code in place.ended():
                if code == 0:
                    sorter.done(row.name)
                else:
                    failed.add(row.name)
                    _note_failure(row, code)
            if signals:
                signals.clear()
                place.stop()
                stopping = True
            ready = [] if stopping else [*ready, *sorter.get_ready()]
            for name in sorted(ready, key=lambda name: -waited_for[name]):
                if not place.has_room(rows[name]):
                    continue
                came = _begin(rows[name], plan, place)
                if came == "finished":
                    say(f"{name} was finished in another call")
                    sorter.done(name)
                if came in ("finished", "begun"):
                    ready.remove(name)
                elif (name, came) not in told:
                    say(f"{name} waits: {came}")
                    told.add((name, came))
            time.sleep(TICK)
    return failed


def _begin(row: Row, plan: Path, place: Machine) -> str:
    """Begin a row, where nothing holds it up; return begun, finished, or what it waits for."""
    if row.is_running():
        return "it runs in another call"
    if row.finished(plan):
        return "finished"
    row.failure.unlink(missing_ok=True)
    return place.start(row, plan, plans.code_of(plan)) or "begun"


def _note_failure(row: Row, code: int) -> None:
    """Say of a row whose process could not do so itself why it ended."""
    if not row.failure.exists() and not row.is_running():  # by another call, which tells its own end
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        reason = f"its process {how}" + (", perhaps for want of memory" if code == -signal.SIGKILL else "")
        print(f"error: row {row.name}: {reason}", file=sys.stderr, flush=True)
        with suppress(OSError):
            paths.write_atomically(row.failure, reason.encode())


@contextmanager
def _deferred_signals() -> Iterator[list[int]]:
    """Collect what interrupts a batch in a list, by which a batch ends what it began before it ends itself."""
    caught = []
    former = {n: signal.signal(n, lambda number, _: caught.append(number)) for n in interruptions()}
    try:
        yield caught
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


# --- what is told --------------------------------------------------------------------------------------------------


def why(batch: Batch, row: Row) -> str:
    """Say what sets a row that is to run apart from its last finished run."""
    if row.is_running():
        return "runs now, in another call"
    if row.failure.exists() or ((row.folder / "params.json").exists() and not row.metrics.exists()):
        return f"not finished last time: {_stopped(row)}"
    made = [records.read_metrics(path) for path in paths.runs().glob("*/metrics.json")]
    made = [record for record in made if (record["batch"], record["row"]) == (batch.name, row.name)]
    if not made:
        return "run by hand only" if row.metrics.exists() else "new row"
    before = max(made, key=lambda record: record["finished"]).get("identity", {})
    both = [(key, before.get(key, "default"), row.identity.get(key, "default")) for key in {**before, **row.identity}]
    return "; ".join(f"{key}: {was} -> {now}" for key, was, now in both if was != now)


def _stopped(row: Row) -> str:
    return row.failure.read_text(encoding="utf-8") if row.failure.exists() else "interrupted"


def summarise(batch: Batch, wanted: Collection[str]) -> None:
    """Print each row's state, and where its numbers and figures are. wanted: the rows that were asked for."""
    print(f"\n{batch.path.name}:")
    waiting = batch.waiting()
    for name, row in batch.rows.items():
        if name not in waiting and row.failure.exists():
            print(f"  FAILED    {name:<20} {_stopped(row)}; see {short(row.executed)}; its former numbers stay")
        elif name not in waiting:
            record = records.read_metrics(row.metrics)
            print(f"  finished  {name:<20} {record['seconds']:>7} s {record['peak_mb']:>6} MB  {short(row.executed)}")
        elif row.is_running():
            print(f"  running   {name:<20} in another call")
        elif row.failure.exists() or row.executed.exists():
            print(f"  FAILED    {name:<20} {_stopped(row)}; see {short(row.executed)}")
        else:
            needs = ", ".join(sorted(set(row.needs) & waiting.keys()))
            reason = "not asked for" if name not in wanted else f"after {needs}" if needs else ""
            print(f"  not run   {name:<20} {reason}".rstrip())
    print(
        f"\nAll numbers: {short(paths.runs() / 'table.csv')}. Figures (*.png) are beside each row's executed notebook."
    )
