"""Two batches that share rows, started seconds apart: no row runs twice, no record is ever missing, both end well.

python tests/engine/ordeal.py --rows 20 --shared 10 --times 10
"""

import argparse
import random
import re
import sys
import tempfile
import threading
import time
from pathlib import Path

from studies import Study


def shared_batches(study: Study, count: int, shared: int) -> list[Path]:
    """Write two batch files of one name, of so many rows each, and so many of them the same runs."""
    row = "{notebook: 01_good, parameters: {steps: %d}}"
    first = [f"  r{i}: {row % (i + 1)}" for i in range(count)]
    second = [f"  s{i}: {row % (i + 1)}" for i in range(count - shared, 2 * count - shared)]
    written = []
    for folder, lines in (("p", first), ("q", second)):
        (study.folder / folder).mkdir()
        written.append(study.folder / folder / "mine.yaml")
        written[-1].write_text("\n".join(["level: toy", "rows:", *lines]))
    return written


def watch(study: Study, stop: threading.Event, faults: list[str]) -> None:
    """Look from outside, all the time: a record that was there once has to stay, and to stay the same."""
    seen = {}
    while not stop.is_set():
        found = {path: path.read_bytes() for path in study.runs.glob("*/metrics.json")}
        faults += [f"{path.parent.name}: its record is gone" for path in seen.keys() - found.keys()]
        faults += [f"{path.parent.name}: another record" for path in seen if found.get(path, seen[path]) != seen[path]]
        seen |= found
        time.sleep(0.01)


def run(folder: Path, count: int, shared: int, apart: float) -> list[str]:
    """Run two batches, the second so many seconds after the first; return what went wrong."""
    study, faults, stop = Study(folder), [], threading.Event()
    paths = shared_batches(study, count, shared)
    watcher = threading.Thread(target=watch, args=(study, stop, faults))
    watcher.start()
    said = []
    processes = [study.start("run", paths[0])]
    time.sleep(apart)
    processes.append(study.start("run", paths[1]))
    readers = [threading.Thread(target=lambda p=p: said.append(p.communicate())) for p in processes]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join()
    stop.set()
    watcher.join()
    faults += [f"exit code {p.returncode}" for p in processes if p.returncode]
    faults += [err for _, err in said if err]
    started = re.findall(r"  (\S+) started", "".join(out for out, _ in said))
    records = len(list(study.runs.glob("*/metrics.json")))
    expected = 2 * count - shared
    if len(started) != expected or records != expected:
        faults.append(f"{len(started)} rows started and {records} records, not {expected}")
    lines = (study.runs / "table.csv").read_text().count("steps")
    if lines != 2 * count:
        faults.append(f"{lines} rows in the table, not {2 * count}: each batch has its own")
    return faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--shared", type=int, default=10)
    parser.add_argument("--times", type=int, default=10)
    given = parser.parse_args()
    failed = 0
    for time_ in range(given.times):
        with tempfile.TemporaryDirectory() as folder:
            began, apart = time.monotonic(), random.Random(time_).uniform(0, 6)
            faults = run(Path(folder), given.rows, given.shared, apart)
            failed += bool(faults)
            print(f"{time_ + 1}: {apart:.1f} s apart, {time.monotonic() - began:.0f} s:", faults or "well", flush=True)
    sys.exit(bool(failed))
