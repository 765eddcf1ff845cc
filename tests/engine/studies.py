"""Small studies for the tests of the engine: notebooks, batch files and results in a folder of their own."""

import io
import json
import os
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from types import SimpleNamespace

import nbformat
import psutil
import yaml

from lib import __main__

GOOD = """
from lib.study import runs
run = runs.start("01_good", globals())
---
import os
print(repr(text))
run.record("steps", steps)
run.record("threads", int(os.environ["OMP_NUM_THREADS"]))
---
runs.finish(run)
"""
BAD = """
import os, subprocess, sys, time
from lib.study import runs
run = runs.start("02_bad", globals())
---
if how == "raise":
    raise RuntimeError("out of luck\\nand of more")
if how == "kill":
    os.kill(os.getpid(), 9)
if how == "exit":
    sys.exit(0)
if how == "late":
    run.record("x", 1)
    runs.finish(run)
    raise RuntimeError("after the end")
if how == "sleep":
    (run.folder.parent / "pids").write_text(f"{os.getpid()} {subprocess.Popen(['sleep', '600']).pid}")
    time.sleep(600)
if how == "leave":  # a process whose parent has ended
    words = "setsid sleep 600 >/dev/null 2>&1 & echo $!"
    left = subprocess.run(words, shell=True, capture_output=True, text=True)
    (run.folder.parent / "pids").write_text(left.stdout)
    runs.finish(run)
if how == "wait":
    waits = run.folder.parent / "waits"
    waits.touch()
    while waits.exists():
        time.sleep(0.1)
    runs.finish(run)
if how == "train":
    from lib.gan import checkpoints
    with checkpoints.deferred_signals() as signals:
        (run.folder.parent / "trains").touch()
        while not signals:
            time.sleep(0.01)
        time.sleep(1)  # the rest of its minibatch
        (run.folder.parent / "saved").touch()
"""
PARAMETERS = {
    "01_good": "steps: int = 3\nlr: float = 0.1\ntext: str = 'plain'\nnet: str = 'none'\ndevice: str = 'auto'",
    "02_bad": "how: str = 'raise'",
}
HOSTILE = """'); import os; os.system("touch stolen") #\n"\\" {steps} $(touch stolen) `touch stolen` ${HOME} !!map"""


def write_notebook(folder, name, source):
    cells = [nbformat.v4.new_code_cell(PARAMETERS[name], metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(cell.strip()) for cell in source.split("---\n")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / f"{name}.ipynb")


class Study:
    """Notebooks, results and batch files in a folder of their own."""

    def __init__(self, folder):
        self.folder, self.runs = folder, folder / "results" / "runs"
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("STUDY_")} | {
            "STUDY_NOTEBOOKS": str(folder / "notebooks"),
            "STUDY_RESULTS": str(folder / "results"),
        }
        (folder / "notebooks").mkdir()
        write_notebook(folder / "notebooks", "01_good", GOOD)
        write_notebook(folder / "notebooks", "02_bad", BAD)

    def write(self, content, name="quick"):
        path = self.folder / f"{name}.yaml"
        if not isinstance(content, str):
            content = yaml.safe_dump({"level": "toy", "rows": content}, sort_keys=False)
        path.write_text(content)
        return path

    def start(self, *arguments):
        command = [sys.executable, "-m", "lib", *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env=self.environment, cwd=self.folder, start_new_session=True
        )

    def call(self, *arguments):
        process = self.start(*arguments)
        process.out, process.err = process.communicate(timeout=3600)
        return process

    def say(self, *words):
        """As `call`, in this very process: for words that start no row, and the fixture `here`."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = __main__.main([str(word) for word in words])
            except SystemExit as stopped:  # of the reader of words
                code = stopped.code
        return SimpleNamespace(returncode=code, out=out.getvalue(), err=err.getvalue())

    def folder_of(self, row):
        (claimed,) = (self.runs / "claims").glob("quick-*.json")
        return self.runs / json.loads(claimed.read_text())["rows"][row]["run_id"]

    def record(self, row):
        path = self.folder_of(row) / "metrics.json"
        return json.loads(path.read_text()) if path.exists() else None


def wait_for(found, seconds=120):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if result := found():
            yield from result
        time.sleep(0.2)
    raise TimeoutError


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def executor_of(process):
    """The process of the one row that a batch runs."""
    return next(child for child in psutil.Process(process.pid).children() if "lib.engine.execute" in child.cmdline())


def kernels_of(pid):
    """The kernels that run below a process."""
    found = set()
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, IndexError):
                if "ipykernel_launcher" in process.cmdline():
                    found.add(process)
    return found
