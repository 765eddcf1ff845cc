"""Small faults, planted one at a time: do the tests notice? `make mutants` tells, in minutes.

Each line of MUTANTS below changes one place of `lib` into something wrong that still runs, and names the tests of
which one must fail then. They run on a copy, and stop at the first failure. A fault that none of them notices is a gap
in the tests.
"""

import argparse
import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("lib", "tests", "notebooks", "batches", "data", "results/nets", "results/kept", "pyproject.toml", "Makefile")
LIMIT = 300  # seconds; tests that a fault keeps from ending have noticed it
LARGE = ("torch", "torchvision", "torchmetrics", "captum.attr", "sklearn.svm", "scipy.stats", "pandas", "papermill")
FORK = multiprocessing.get_context("fork")  # what is large is imported once, before processes fork off


@dataclass(frozen=True)
class Mutant:
    """A fault: in `file` of lib, `old` (which stands there once) becomes `new`; one of `tests` must fail."""

    file: str
    old: str
    new: str
    tests: str  # below tests/, separated by spaces, as pytest takes them

    def plant(self, root: Path) -> str:
        """Put the fault into a copy; return the text without it. Raises ValueError unless `old` is there once."""
        path = root / "lib" / self.file
        text = path.read_text()
        if (times := text.count(self.old)) != 1:
            raise ValueError(f"lib/{self.file} has {self.old!r} {times} times, not once: mend the list of mutants")
        path.write_text(text.replace(self.old, self.new))
        return text


MUTANTS = [
    Mutant(
        "nets/models.py",
        'chance.stream(seed, "weights", name)',
        "seed",
        "nets/test_models.py::test_weights_share_nothing_with_z_nor_g_with_d",
    ),
    Mutant(
        "nets/order.py",
        'stream(seed, "order", epoch)',
        'stream(0, "order", epoch)',
        "nets/test_order.py",
    ),
    Mutant(
        "nets/order.py",
        'stream(seed, "order", epoch)',
        'stream(seed, "order")',
        "nets/test_order.py",
    ),
    Mutant(
        "nets/batchnorm.py",
        "shuffled(len(x))",
        "np.arange(len(x))",
        "nets/test_batchnorm.py",
    ),
    Mutant(
        "nets/devices.py",
        "map(str, range(count[kind]))",
        "index",
        "nets/test_devices.py",
    ),
    Mutant(
        "gan/game.py",
        's.seed, "z", "fixed"',
        's.seed, "z", "training"',
        "gan/test_train.py::test_one_seed_gives_each_purpose_numbers_of_its_own",
    ),
    Mutant(
        "gan/game.py",
        "side // 8",
        "side // 4",
        "gan/test_game.py::test_shift_moves_by_up_to_an_eighth_and_brings_zeros_in",
    ),
    Mutant(
        "gan/game.py",
        "self.D(self._augmented(fake))",
        "self.D(fake)",
        "gan/test_game.py::test_real_images_and_samples_are_changed_alike_and_g_learns_through_it",
    ),
    Mutant(
        "gan/game.py",
        "on_real, self.settings.real_label",
        "on_real, 1.0",
        "gan/test_game.py::test_one_sided_labels_by_hand",
    ),
    Mutant(
        "gan/game.py",
        "* min(1, left)",
        "* left",
        "gan/test_game.py::test_the_rate_falls_over_the_last_share",
    ),
    Mutant(
        "gan/train.py",
        "[*departs, images.checksum, chosen",
        "[*departs, chosen",
        "gan/test_train.py::test_a_folder_is_of_one_training",
    ),
    Mutant(
        "gan/train.py",
        "chosen, snapshots, versions",
        "chosen, snapshots",
        "gan/test_train.py::test_a_training_is_another_where_its_code_says_so",
    ),
    Mutant(
        "gan/train.py",
        'record["step"], record["seconds"]',
        'record["step"], 0.0',
        "gan/test_train.py::test_a_stopped_training_resumes_to_the_bit",
    ),
    Mutant(
        "gan/diagnostics.py",
        "copy.deepcopy(G).train(), copy.deepcopy(D).train()",
        "copy.deepcopy(G).eval(), copy.deepcopy(D).eval()",
        "gan/test_health.py::test_health_is_measured_in_batch_statistics",
    ),
    Mutant(
        "gan/selection.py",
        "        metric.reset()\n",
        "",
        "gan/test_health.py::test_each_snapshot_is_compared_by_itself",
    ),
    Mutant(
        "gan/selection.py",
        "[y[y != UNLABELLED]].numpy()",
        "[0 * y[y != UNLABELLED]].numpy()",
        "gan/test_health.py::test_the_extractor_learns_the_labels_it_is_given",
    ),
    Mutant(
        "gan/selection.py",
        "batchnorm.recalibrate_batchnorm(random.body, some.x[:1280])",
        "random.body.eval()",
        "gan/test_health.py::test_the_extractor_learns_the_labels_it_is_given",
    ),
    Mutant(
        "gan/selection.py",
        "LEAST = 2",
        "LEAST = 1",
        "gan/test_health.py::test_a_handful_of_images_ranks_nothing",
    ),
    Mutant(
        "gan/conditional.py",
        "min(1, 2 - 2 * step / total)",
        "1",
        "gan/test_conditional.py::test_the_learning_rate_falls_over_the_second_half",
    ),
    Mutant(
        "internals/latent.py",
        "lengths.median(1)",
        "lengths.mean(1, keepdim=True).median(1)",
        "internals/test_latent.py",
    ),
    Mutant("probe/protocol.py", "table.accuracy.idxmax()", "table.accuracy.idxmin()", "probe/test_probe.py"),
]


def copy(target: Path) -> Path:
    """Copy what tests need to a folder in which faults can be planted."""
    for name in COPIED:
        source = ROOT / name
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "packed", "downloads"))
        else:
            shutil.copy(source, target / name)
    (target / "tmp").mkdir()
    return target


def run_tests(root: Path, tests: list[str]) -> tuple[int, str]:
    """Run tests on a copy in a process of their own; return pytest's exit code (-1: no end) and what it said."""
    process = FORK.Process(target=_pytest, args=(root, tests))
    process.start()
    process.join(LIMIT)
    code = -1 if process.exitcode is None else process.exitcode
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # and what it left running
    process.join()
    return code, (root / "log").read_text()


def _pytest(root: Path, tests: list[str]) -> None:
    os.setsid()
    os.chdir(root)
    for name in [name for name in os.environ if name.startswith("STUDY_")]:
        del os.environ[name]
    os.environ |= {"PYTHONPATH": str(root), "TMPDIR": str(root / "tmp"), "OMP_NUM_THREADS": "1"}
    tempfile.tempdir, sys.path[0] = None, str(root)
    sys.dont_write_bytecode = True  # a fault of the same length, planted in the same second, would run as it was before
    with (root / "log").open("w") as log, redirect_stdout(log), redirect_stderr(log):
        import pytest

        options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:nbval"]
        code = int(pytest.main([*options, *(f"tests/{test}" for test in tests)]))
    from lib.study import paths

    os._exit(code if Path(paths.__file__).is_relative_to(root) else 99)


def judge(folder: Path, mutant: Mutant) -> str:
    """Plant one fault and say whether its tests caught it. Raises RuntimeError where they could not be run."""
    root = folder / str(os.getpid())  # each worker's own copy
    if not root.exists():
        copy(root)
    text = mutant.plant(root)
    code, said = run_tests(root, mutant.tests.split())
    (root / "lib" / mutant.file).write_text(text)
    if code not in (-1, 0, 1):
        raise RuntimeError(f"{mutant}: pytest ended with {code}\n{said[-3000:]}")
    return "survived" if code == 0 else "caught"


def main() -> int:
    """Check the list and its tests, plant every fault, print what came of it; return 1 where one survived."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", help="faults in these files of lib alone, such as probe/l2svm.py")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if not given.only or mutant.file in given.only]
    for name in LARGE:
        importlib.import_module(name)
    began, survived = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        whole = copy(Path(folder, "whole"))
        for mutant in chosen:
            (whole / "lib" / mutant.file).write_text(mutant.plant(whole))
        code, said = run_tests(whole, sorted({test for mutant in chosen for test in mutant.tests.split()}))
        if code:
            sys.exit(f"error: the tests fail without any fault, too:\n{said[-3000:]}")
        with ProcessPoolExecutor(given.jobs, mp_context=FORK) as pool:
            for mutant, came in zip(chosen, pool.map(partial(judge, Path(folder)), chosen), strict=True):
                survived += came == "survived"
                print(f"{came:9} lib/{mutant.file}: {mutant.old!r} -> {mutant.new!r}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} caught in {time.monotonic() - began:.0f} s")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
