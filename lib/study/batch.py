"""A batch: Snakemake orders its rows, papermill executes their notebooks.

An executed notebook looks the same after success and after its kernel was killed, and kernels side by side fight for
ports, cores and cards. So each row gets its own, and has succeeded when its last cell has written metrics.json.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from lib.study import identity, leases, paths, runs
from lib.study.rows import Batch, Row

SHOWN = ["row", "data", "metric", "value", "low", "high", "published", "code"]
SOCKETS = Path("/tmp")  # a socket's path must be short
GRACE = 60  # seconds that an interrupted training has to end its minibatch and save
WATCHER = """
import signal, sys, psutil
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.stdin.read()  # ends with the process that holds the other end
for process in psutil.process_iter(["environ"]):
    if (process.info["environ"] or {}).get("STUDY_EXECUTOR") == sys.argv[1]:
        process.kill()
"""


SNAKEMAKE = [
    sys.executable, "-m", "snakemake", "--snakefile", paths.ROOT / "Snakefile", "--scheduler", "greedy",
    "--rerun-triggers", "mtime", "input", "--nolock", "--quiet", "all",
]  # fmt: skip


class Failed(Exception):
    """A row's notebook did not come to its end."""


def run(batch: Batch, *options: str, only: Sequence[str] = ()) -> int:
    """Run the rows that are not finished, rebuild the table, print what came of it; return the exit code.

    options: handed to Snakemake. only: these rows and what they need (none named: all). Raises ValueError where the
    batch has no such row.
    """
    for name in only:
        find(batch, name)
    meant = {name: {"run_id": row.run_id, "departs": row.departs} for name, row in batch.rows.items()}
    runs.claim(batch.name, batch.path, meant)
    wanted = list(only) or list(batch.rows)
    unfinished = batch.waiting()
    waiting = [name for name in wanted if name in unfinished]
    print(f"{batch.name}: {len(waiting)} of {len(wanted)} rows to run", flush=True)
    until = ("--until", *_last(batch, waiting)) if only else ()  # of a finished row Snakemake would know nothing
    code = _snakemake(batch, (*options, *until)) if waiting else 0
    try:
        runs.write_table()
    finally:
        summarise(batch)
    return 1 if set(wanted) & set(batch.waiting()) else code


def find(batch: Batch, name: str) -> Row:
    if name not in batch.rows:
        raise ValueError(f"{batch.path} has no row {name!r}: it has {', '.join(batch.rows)}")
    return batch.rows[name]


def _last(batch: Batch, names: Sequence[str]) -> list[str]:
    """Return those rows that none of the others needs, near or far: Snakemake's --until leaves out what comes after."""
    upstream = {}
    for name, row in batch.rows.items():  # each after those that it needs
        upstream[name] = set(row.needs).union(*(upstream[other] for other in row.needs))
    return [name for name in names if not any(name in upstream[other] for other in names)]


def _snakemake(batch: Batch, options: tuple[str, ...]) -> int:
    """Let Snakemake run a batch. A signal reaches every row's executor, which ends its kernel (`_interrupt`)."""
    command = [*SNAKEMAKE, "--directory", paths.runs(), "--keep-going", "--rerun-incomplete"]
    command += ["--config", f"batch={batch.path}"]
    if not any(option.startswith(("--profile", "--executor")) for option in options):  # a cluster counts for itself
        memory = [max(mb, 1) for mb in leases.visible().values()]
        counted = [f"card_mb={max(memory)}", "--resources", f"gpu_mb={sum(memory)}"] if memory else []
        command += [*counted, "--cores", "all"]
    child = subprocess.Popen([*map(str, command), *options])

    def stop(*_: object) -> None:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if not _is_kernel(process):  # which hears of it once, from its executor
                    process.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return child.wait()


def execute(batch: Batch, row: Row, threads: int) -> None:
    """Run one row's notebook. Raises Failed, which names the cause and the notebook that shows it."""
    row.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(row.folder / "lock"), _watch():
        if row.finished():  # by another batch, meanwhile
            return
        row.failure.unlink(missing_ok=True)
        began = time.monotonic()
        _say(f"{row.name} started")
        try:
            _execute(batch, row, threads)
        except BaseException as error:
            row.metrics.unlink(missing_ok=True)
            reason = _reason(error)
            with suppress(OSError):
                paths.write_atomically(row.failure, reason.encode())
            raise Failed(f"{batch.name}, row {row.name}: {reason}; see {short(row.executed)}") from error
        _say(f"{row.name} finished in {time.monotonic() - began:.0f} s")


def _execute(batch: Batch, row: Row, threads: int) -> None:
    from papermill import execute_notebook
    from traitlets.config import Config

    os.environ |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    os.environ |= {"STUDY_ROW": f"{batch.name}/{row.name}", "STUDY_DEPARTS": row.departs}
    os.environ |= {"STUDY_AFTER": " ".join(row.after)}
    os.environ |= {"STUDY_RUNS": str(paths.runs().absolute()), "STUDY_RESULTS": str(paths.RESULTS.absolute())}
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    shares = (row.resources.get(key, 0) for key in ("gpu", "gpu_mb"))
    with leases.lease(*shares), tempfile.TemporaryDirectory(prefix="study-", dir=SOCKETS) as sockets:
        try:
            execute_notebook(
                paths.NOTEBOOKS / f"{row.notebook}.ipynb", row.executed, row.parameters, kernel_name="python3",
                cwd=paths.ROOT, progress_bar=False, coalesce_streams=True, shutdown_kernel="immediate",
                config=Config({"KernelManager": {"transport": "ipc", "connection_file": f"{sockets}/kernel.json"}}),
            )  # fmt: skip
        finally:
            _kill(psutil.Process().children(recursive=True))
    if not row.finished():
        raise Failed("ended without metrics.json: no cell reached runs.finish, or code changed meanwhile")


def _watch() -> subprocess.Popen:
    """Start a process that waits for the end of this one and kills what it leaves behind, after a `kill -9` too."""
    mark = f"{os.getpid()}-{time.time_ns()}"
    watcher = [sys.executable, "-c", WATCHER, mark]
    watching = subprocess.Popen(watcher, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    os.environ["STUDY_EXECUTOR"] = mark  # which a kernel and all that it starts inherit
    return watching


def _interrupt(number: int, _: object) -> None:
    """End the kernel, which first saves a training (`checkpoints.deferred_signals`), and with it the row."""
    for other in (signal.SIGTERM, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)  # the kernel is being shut down
    below = psutil.Process().children(recursive=True)
    kernels = [process for process in below if _is_kernel(process)]
    for kernel in kernels:
        with suppress(psutil.NoSuchProcess):
            kernel.terminate()
    psutil.wait_procs(kernels, GRACE)
    _kill(below)
    raise KeyboardInterrupt(f"by {signal.Signals(number).name}")


def _is_kernel(process: psutil.Process) -> bool:
    try:
        return "ipykernel_launcher" in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _reason(error: BaseException) -> str:
    """Say in one line why a notebook stopped."""
    name, text = getattr(error, "ename", type(error).__name__), str(getattr(error, "evalue", error))
    if name == "DeadKernelError":
        return "kernel died (killed, or out of memory)"
    if name == "KeyboardInterrupt":
        return f"interrupted {text}".strip()
    text = (text.strip().splitlines() or [""])[0]
    return text if isinstance(error, Failed) else f"{name}: {text}"


def plan(batch: Batch) -> int:
    """Print which rows would run, and why."""
    waiting = batch.waiting()
    print(f"{batch.name}: {len(waiting)} of {len(batch.rows)} rows to run")
    for name, row in waiting.items():
        print(f"  {name:<20} {why(batch, row)}")
    return 0


def workflow(batch: Batch) -> int:
    """Write Snakemake's report of a batch (order, times, figures) as one HTML file; return the exit code."""
    page = paths.RESULTS / "site" / f"{batch.name}-workflow.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    command = [*SNAKEMAKE, "--directory", paths.runs(), "--report", page, "--config", f"batch={batch.path}", "report=1"]
    done = subprocess.run(map(str, command), capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"Snakemake made no report of {batch.name}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    print(short(page))
    return 0


def why(batch: Batch, row: Row) -> str:
    """Say what sets a row that is to run apart from its last finished run."""
    if (row.folder / "params.json").exists():
        return "runs now, in another call" if _runs(row) else f"not finished last time: {_stopped(row)}"
    records = [runs.read_metrics(path) for path in paths.runs().glob("*/metrics.json")]
    records = [record for record in records if (record["batch"], record["row"]) == (batch.name, row.name)]
    if not records:
        return "new row"
    before = max(records, key=lambda record: record["finished"]).get("identity", {})
    now = identity.identity_of(row.notebook, row.parameters, row.after)
    return "; ".join(
        f"{key}: {before.get(key, 'default')} -> {now.get(key, 'default')}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    )


def _runs(row: Row) -> bool:
    """Whether an executor is at a row at this moment: it holds the row's lock."""
    lock = row.folder / "lock"
    if not lock.exists():
        return False
    try:
        with FileLock(lock, blocking=False):
            return False
    except Timeout:
        return True


def _stopped(row: Row) -> str:
    return row.failure.read_text() if row.failure.exists() else "interrupted"


def summarise(batch: Batch) -> int:
    """Print each row's state, the batch's table and where things are; return 1 where a row is not finished."""
    print(f"\n{batch.name}:")
    waiting = batch.waiting()
    for name, row in batch.rows.items():
        if name not in waiting:
            record = json.loads(row.metrics.read_text())
            print(f"  finished  {name:<20} {record['seconds']:>7} s {record['peak_mb']:>6} MB  {short(row.executed)}")
        elif _runs(row):
            print(f"  running   {name:<20} in another call")
        elif row.executed.exists():
            print(f"  FAILED    {name:<20} {_stopped(row)}; see {short(row.executed)}")
        else:
            print(f"  not run   {name:<20} after {', '.join(set(row.needs) & waiting.keys()) or 'nothing'}")
    table = runs.table(batch.name)[SHOWN]
    if len(table):
        print(f"\n{table.to_string(index=False, na_rep='', float_format=lambda x: f'{x:.4g}')}")
    print(f"\nTable: {short(paths.runs() / 'table.csv')}. Figures (*.png) are beside each row's executed notebook.")
    return 1 if waiting else 0


def short(path: Path) -> str:
    """Return a path as it is typed in the repository's folder."""
    return str(path.relative_to(paths.ROOT) if path.is_relative_to(paths.ROOT) else path)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)
