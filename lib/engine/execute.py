"""One row: its notebook, executed as it was planned, in a kernel of its own.

An executed notebook looks the same after success and after its kernel was killed; kernels side by side fight for ports
and cores; whatever python3 is installed and whatever the shell has set would change what comes out. So each row has a
process of its own, and a run is finished only when the last cell has said so and the notebook has ended well. Nothing
is left behind, however a row ends.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import FileLock

from lib.engine.row import Row
from lib.study import paths

GRACE = 60  # seconds that an interrupted training has to end its minibatch and save
SHORT = Path("/tmp")  # a socket's path must be short
# What a row sees of the environment in which the batch was started; all else is as if it were not set.
PASSED = re.compile(
    r"HOME|USER|LOGNAME|PATH|TMPDIR|LD_LIBRARY_PATH|XDG_RUNTIME_DIR|OMP_WAIT_POLICY|\w+_(proxy|PROXY)"
    r"|(STUDY|CUDA|NVIDIA|PYTORCH|SLURM|SBATCH|SSL)_\w+"
)
WATCHER = """
import contextlib, signal, sys, psutil
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.stdin.read()  # ends with the process that holds the other end
for process in psutil.process_iter(["environ"]):
    if (process.info["environ"] or {}).get("STUDY_EXECUTOR") == sys.argv[1]:
        with contextlib.suppress(psutil.Error):  # it has just ended
            process.kill()
"""


class Failed(Exception):
    """A row's notebook did not come to its end."""


def environment(code: Path) -> dict[str, str]:
    """Return the environment of a row's process, the same wherever the batch was started, with `code` to import."""
    given = {name: value for name, value in os.environ.items() if PASSED.fullmatch(name)}
    moved = {"STUDY_RUNS": paths.runs(), "STUDY_RESULTS": paths.RESULTS, "STUDY_DATA": paths.data_root()}
    fixed = {
        "STUDY_ROOT": paths.ROOT,
        "STUDY_NOTEBOOKS": code / "notebooks",
        "PYTHONPATH": code,
        "PYTHONSAFEPATH": 1,  # the repository's lib, which may change meanwhile, lies in the kernel's folder
        "PYTHONNOUSERSITE": 1,
        "PYTHONUTF8": 1,
        "PYTHONHASHSEED": 0,
        "LC_ALL": "C.UTF-8",
        "MPLCONFIGDIR": paths.runs() / "cache" / "matplotlib",
    }
    named = {"HOME": tempfile.gettempdir(), "LOGNAME": "study"}  # a container's user may have neither
    return named | given | {name: str(value) for name, value in (moved | fixed).items()}


def execute(plan: Path, name: str, tied: bool = False) -> None:
    """Run one row of a plan. tied: end it when standard input ends.

    Raises Failed, which names the cause and the notebook that shows it.
    """
    for number in interruptions():
        signal.signal(number, _interrupt)
    if tied:
        threading.Thread(target=_end_with_input, daemon=True).start()
    content = json.loads(plan.read_text(encoding="utf-8"))
    row = Row(**content["rows"][name])
    row.folder.mkdir(parents=True, exist_ok=True)
    if row.is_running():
        say(f"{name} waits: it runs in another call")
    with FileLock(row.lock), _watch():
        if row.finished(plan):  # by another batch, meanwhile
            return
        for former in (row.ended, row.failure):
            former.unlink(missing_ok=True)
        began = time.monotonic()
        say(f"{name} started")
        try:
            os.environ |= {"STUDY_PLAN": str(plan), "STUDY_ROW": f"{content['batch']}/{name}"}
            _execute(row)
            if not row.ended.exists():
                raise Failed("ended without metrics.json: no cell reached runs.finish")
            row.ended.replace(row.metrics)
            row.failure.unlink(missing_ok=True)
        except BaseException as error:
            reason = _reason(error)
            with suppress(OSError):
                paths.write_atomically(row.failure, reason.encode())
            at = f"{Path(content['path']).name}, row {name}"
            raise Failed(f"{at}: {reason}; see {paths.short(row.executed)}") from error
        say(f"{name} finished in {time.monotonic() - began:.0f} s")


def _execute(row: Row) -> None:
    import nbformat  # which with papermill takes a second, that whoever plans does without
    from papermill import execute_notebook
    from traitlets.config import Config

    threads = str(min(row.threads, cores()))
    os.environ |= {name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    os.environ["STUDY_PRECISION"] = row.precision
    if not row.resources.get("gpu"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory(prefix="study-", dir=SHORT) as folder:
        _use_own_kernel(Path(folder))
        execute_notebook(
            nbformat.read(paths.NOTEBOOKS / f"{row.notebook}.ipynb", as_version=4),
            re.sub("[{}]", r"\g<0>\g<0>", str(row.executed)),  # papermill fills in what stands in braces
            row.parameters, kernel_name="python3", cwd=paths.ROOT, progress_bar=False, coalesce_streams=True,
            shutdown_kernel="immediate",
            config=Config({"KernelManager": {"transport": "ipc", "connection_file": f"{folder}/kernel.json"}}),
        )  # fmt: skip


def _use_own_kernel(folder: Path) -> None:
    """Make this interpreter the kernel python3, whatever is installed under that name, without any user's settings."""
    interpreter = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    alone = ["--InteractiveShellApp.ignore_cwd=True", "--HistoryManager.enabled=False"]
    spec = {"argv": interpreter + alone, "display_name": "Python 3", "language": "python"}
    paths.write_atomically(folder / "kernels" / "python3" / "kernel.json", json.dumps(spec).encode())
    for name in ("JUPYTER_PATH", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        os.environ[name] = str(folder)


def _end_with_input() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _watch() -> subprocess.Popen:
    """Start a process that kills what this row leaves behind, once this one leaves `with` or is killed."""
    mark = f"{os.getpid()}-{time.time_ns()}"
    watcher = [sys.executable, "-c", WATCHER, mark]
    watching = subprocess.Popen(watcher, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    os.environ["STUDY_EXECUTOR"] = mark  # which a kernel and all that it starts inherit
    return watching


def _interrupt(number: int, _: object) -> None:
    """End the kernel, which first saves a training (`checkpoints.deferred_signals`), and with it the row."""
    for other in interruptions():
        signal.signal(other, signal.SIG_IGN)  # the kernel is being shut down
    kernels = [process for process in psutil.Process().children(recursive=True) if _is_kernel(process)]
    for kernel in kernels:
        with suppress(psutil.NoSuchProcess):
            kernel.terminate()
    for kernel in psutil.wait_procs(kernels, GRACE)[1]:
        with suppress(psutil.NoSuchProcess):
            kernel.kill()
    raise KeyboardInterrupt(f"by {signal.Signals(number).name}")


def _is_kernel(process: psutil.Process) -> bool:
    try:
        return "ipykernel_launcher" in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


def _reason(error: BaseException) -> str:
    """Say in one line why a notebook stopped."""
    name, text = getattr(error, "ename", type(error).__name__), str(getattr(error, "evalue", error))
    if name == "DeadKernelError":
        return "kernel died (killed, or out of memory)"
    if name == "KeyboardInterrupt":
        return f"interrupted {text}".strip()
    text = (text.strip().splitlines() or [""])[0]
    return text if isinstance(error, Failed) else f"{name}: {text}"


def interruptions() -> list[signal.Signals]:
    """Return the signals that end a run: a terminal's that is closed too, unless nohup has it ignored."""
    hung_up = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []
    return [signal.SIGTERM, signal.SIGINT, *(n for n in hung_up if signal.getsignal(n) != signal.SIG_IGN)]


def say(text: str) -> None:
    """Print what happens, and when."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":  # with the words of `places.command`: whoever plans needs more than one row does
    plan, name, *tied = sys.argv[1:]
    try:
        execute(Path(plan), name, bool(tied))
    except (Failed, OSError, ValueError, KeyboardInterrupt) as error:
        sys.exit(f"error: {_reason(error)}")
