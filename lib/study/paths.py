"""Where things are, whoever asks: nbval starts a kernel in notebooks/, papermill in the caller's folder.

A relative path means one place everywhere: it begins at the repository's root. Three folders can be moved by the
environment, which kernels inherit: STUDY_RESULTS (all results), STUDY_RUNS (the runs alone), STUDY_DATA. The engine
runs a copy of the code, and tells it where the repository is: STUDY_ROOT, STUDY_NOTEBOOKS.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(os.environ.get("STUDY_ROOT") or Path(__file__).resolve().parent.parent.parent)


def from_root(path: str | Path) -> Path:
    """Return a path as an absolute one: a relative path begins at the repository's root, ~ is the user's folder."""
    return ROOT / Path(path).expanduser()


def _moved(variable: str, usual: Path) -> Path:
    """Return the folder that a variable of the environment names, or the usual one."""
    return from_root(os.environ.get(variable) or usual)


NOTEBOOKS = _moved("STUDY_NOTEBOOKS", ROOT / "notebooks")
NETS = ROOT / "results" / "nets"  # small trained nets that git keeps
RESULTS = _moved("STUDY_RESULTS", ROOT / "results")
KEPT = RESULTS / "kept"  # records of the runs that git keeps
TABLE = RESULTS / "table.csv"
PUBLISHED = ROOT / "data" / "published.csv"


def runs() -> Path:
    """The folder of the runs: STUDY_RUNS where it is set, else runs/ in the results."""
    return _moved("STUDY_RUNS", RESULTS / "runs")


def data_root() -> Path:
    """The folder of downloads and packed arrays: STUDY_DATA where it is set, else data/."""
    return _moved("STUDY_DATA", ROOT / "data")


def find_source(path: str) -> Path:
    """Resolve the PATH of a `tar:` or `folder:` source: from the root, else in STUDY_SOURCES, else in the data folder.

    A batch file names `tar:celeba10k.tar.gz` and stays free of any machine's folders. The last candidate is returned
    where none exists, so that the caller's error names a sensible place. PATH may be a glob.
    """
    sources = [from_root(folder) for folder in os.environ.get("STUDY_SOURCES", "").split(os.pathsep) if folder]
    candidates = [from_root(path), *(folder / path for folder in sources), data_root() / path]
    found = (c for c in candidates if c.exists() or any(c.parent.glob(c.name)))  # a name may hold [ or *
    return next(found, candidates[-1])


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is either whole or, where anything fails, not there at all. OSError names the file."""
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    with naming(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, so that others can read it at once. OSError names the file."""
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Say of an OSError in the block which file could not be written, and the way out."""
    try:
        yield
    except OSError as error:
        why = f"cannot write {path}: {error.strerror}; free space or choose another folder"
        raise OSError(error.errno, why) from error


def short(path: Path) -> str:
    """Return a path as it is typed in the repository's folder."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
