"""What lies behind a `tar:` or `folder:` value and behind a net's file, as a digest of the content.

A run depends on the images and nets that it reads, not on where they lie or when they were copied. So each file is
hashed, once: its digest is remembered by path, size, times and inode, and a second look at a million files only lists
them. The memory is a small database in the data folder, which may be deleted at any time.
"""

import hashlib
import os
import sqlite3
import stat
import time
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from lib.study import paths

CROP = "crop:"  # before a set's name: the centres of its images are cut out, and nothing is resized
INCEPTION = "inception:"  # before a path: to the weights of the net that defines the FID
THREADS = 16  # that read and hash: on network storage most of them wait
CHUNK = 256  # files per task of a thread
SMALL = 2**20  # bytes of a file that is read whole
TOGETHER = 20_000  # digests written at once: each writing waits for the disk
SETTLED = 2 * 10**9  # nanoseconds; a younger file may change again within its clock's tick, and is not remembered
IGNORED = {  # what systems, not people, put into a folder, in small letters
    "__macosx", "@eadir", "@tmp", "#recycle", "@recycle", "#snapshot", "@recently-snapshot", "$recycle.bin", "recycler",
    "recycled", "system volume information", "lost+found", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db",
    "desktop.ini", "icon\r", "network trash folder", "temporary items",
}  # fmt: skip


class Entry(NamedTuple):
    """Something below a folder. `trouble` says why it cannot be read, and is empty for folders and files."""

    name: str  # below the folder, parts joined by /
    stat: os.stat_result
    trouble: str = ""

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.stat.st_mode)


def of_images(value: object) -> str:
    """Return a digest of what a `tar:PATH` or `folder:PATH` value holds, in hex; empty for any other value.

    `crop:` may stand before it. Names below a folder count, and every byte; its own name, place and times do not. Empty
    too where nothing is there. OSError names what cannot be read.
    """
    kind, _, path = value.removeprefix(CROP).partition(":") if isinstance(value, str) else ("", "", "")
    if kind not in ("tar", "folder") or not path:
        return ""
    with closing(_Memory()) as memory:
        digests = sorted(_digest(place, memory) for place in places(path))
    return _hash("\n".join(digests).encode()).hex() if digests else ""


def of_net(value: object) -> str:
    """Return a digest of the file behind a net that is a path or comes with the study, in hex; empty for others.

    inception:PATH is a path, too.
    """
    if not isinstance(value, str) or value.startswith("run:"):
        return ""
    is_path = value.startswith(INCEPTION) or value.endswith(".safetensors")
    path = paths.from_root(value.removeprefix(INCEPTION)) if is_path else paths.NETS / f"{value}.safetensors"
    return of_file(path) if path.is_file() else ""


def of_table(value: object) -> str:
    """Return a digest of a table in data/ that a value names, `windows.csv`, in hex; empty for any other value."""
    path = paths.ROOT / "data" / value if isinstance(value, str) and value.endswith(".csv") else None
    return of_file(path) if path and path.is_file() else ""


def of_file(path: Path) -> str:
    """Return the digest of one file's content, in hex. OSError names a file that cannot be read."""
    with closing(_Memory()) as memory:
        return _digest(path, memory)


def places(path: str) -> list[Path]:
    """Return the archives or folders that the PATH of a source means, sorted: one, or those that a glob finds."""
    found = paths.find_source(path).absolute()
    return [found] if found.exists() else sorted(found.parent.glob(found.name))


def is_ignored(name: str) -> bool:
    """Tell whether a path's parts include a hidden one, or one that a system put there."""
    return any(part.startswith(".") or part.lower() in IGNORED for part in name.split("/"))


def walk(folder: Path) -> Iterator[Entry]:
    """Yield what is below a folder, sorted within each folder, links followed; what is ignored is not looked at.

    A link that leads to nothing or back to a folder above it, and what is neither file nor folder, is yielded with its
    trouble. OSError names a folder that cannot be listed.
    """
    return _walk(str(folder), "", (_place_of(os.stat(folder)),))


def _walk(folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[Entry]:
    with os.scandir(folder) as listed:
        found = sorted((entry for entry in listed if not is_ignored(entry.name)), key=lambda entry: entry.name)
    for entry in found:
        name = prefix + entry.name
        try:
            status = entry.stat()
        except OSError:
            yield Entry(name, entry.stat(follow_symlinks=False), "a link to nothing")
            continue
        if stat.S_ISDIR(status.st_mode):
            place = _place_of(status)
            if place in above:
                yield Entry(name, entry.stat(follow_symlinks=False), "a link to a folder above it")
            else:
                yield Entry(name, status)
                yield from _walk(entry.path, f"{name}/", (*above, place))
        else:
            yield Entry(name, status, "" if stat.S_ISREG(status.st_mode) else "neither file nor folder")


def _place_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:16]


def _stamp(path: str, status: os.stat_result) -> bytes:
    """Return what tells a file that was seen before. The inode's own time changes even where the other is set back."""
    known = f"{path}\0{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    return _hash(known.encode(errors="surrogateescape"))


def _digest(place: Path, memory: "_Memory") -> str:
    """Return the digest of a file, or of the names and files below a folder."""
    place = place.resolve()
    if not place.is_dir():
        return memory.digests([str(place)], [_stamp(str(place), place.stat())], place)[0].hex()
    names, stamps = [], []
    for entry in walk(place):
        if not entry.trouble and not entry.is_folder:
            names.append(entry.name)
            stamps.append(_stamp(f"{place}/{entry.name}", entry.stat))
    whole = _hash(b"".join(stamps))
    if (known := memory.get(whole)) is None:
        digests = memory.digests([f"{place}/{name}" for name in names], stamps, place)
        # a file's name may come back composed or decomposed from another system, and is the same name
        lines = sorted(
            unicodedata.normalize("NFC", name).encode(errors="surrogateescape") + b"\0" + digest
            for name, digest in zip(names, digests, strict=True)
        )
        known = _hash(b"\n".join(lines))
        if all(memory.get(stamp) for stamp in stamps):
            memory.put([(whole, known)])
    return known.hex()


class _Memory:
    """Digests by stamp, in a database that several processes share; where it cannot be written, nothing is kept."""

    def __init__(self) -> None:
        path = paths.data_root() / "manifest.sqlite"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.base = self._open(path)
        except (sqlite3.OperationalError, OSError):  # a folder that nobody may write to, or storage without locks
            self.base = self._open(":memory:")
        except sqlite3.DatabaseError:  # it was cut, or is no database
            path.unlink(missing_ok=True)
            self.base = self._open(path)

    @staticmethod
    def _open(path: Path | str) -> sqlite3.Connection:
        base = sqlite3.connect(path, timeout=60)
        try:
            with base:
                base.execute("CREATE TABLE IF NOT EXISTS digests (stamp BLOB PRIMARY KEY, digest BLOB) WITHOUT ROWID")
        except sqlite3.Error:
            base.close()
            raise
        return base

    def close(self) -> None:
        self.base.close()

    def get(self, stamp: bytes) -> bytes | None:
        found = self.base.execute("SELECT digest FROM digests WHERE stamp = ?", (stamp,)).fetchone()
        return found and found[0]

    def put(self, pairs: list[tuple[bytes, bytes]]) -> None:
        with suppress(sqlite3.OperationalError), self.base:  # the disk is full: then it is hashed again next time
            self.base.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?)", pairs)

    def digests(self, files: list[str], stamps: list[bytes], place: Path) -> list[bytes]:
        """Return the digest of each file, hashing those that are not known by their stamp."""
        known = [self.get(stamp) for stamp in stamps]
        missing = [i for i, digest in enumerate(known) if digest is None]
        chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
        bar = tqdm(total=len(missing), desc=f"reading {place}", unit=" files", delay=3, mininterval=10)
        settled = []
        with bar, ThreadPoolExecutor(THREADS) as pool:
            for rows, read in zip(chunks, pool.map(_read_files, ([files[i] for i in c] for c in chunks)), strict=True):
                for i, (digest, is_settled) in zip(rows, read, strict=True):
                    known[i] = digest
                    settled += [(stamps[i], digest)] * is_settled
                if len(settled) >= TOGETHER:
                    self.put(settled)
                    settled = []
                bar.update(len(rows))
        self.put(settled)
        return known


def _read_files(files: list[str]) -> list[tuple[bytes, bool]]:
    """Return each file's digest, and whether it had settled before it was read."""
    read = []
    for path in files:
        began = time.time_ns()
        with open(path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            content = hashlib.sha256(file.read()) if status.st_size < SMALL else hashlib.file_digest(file, "sha256")
        read.append((content.digest()[:16], began - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED))
    return read
