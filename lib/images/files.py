"""Folders and tar archives of images, read once, in their own order.

What is there is taken or named. What systems put into folders is ignored, as `manifest` has it; anything else that is
no image is counted by kind, with one example. Nothing is extracted to disk.
"""

import contextlib
import tarfile
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path, PurePosixPath

import pandas as pd
from PIL import Image

from lib.images import labels
from lib.images.labels import Key
from lib.images.pictures import Read, formats, open_image
from lib.study import manifest

ARCHIVES = {b"PK": "zip", b"Rar!": "rar", b"7z\xbc\xaf": "7z", b"\x28\xb5\x2f\xfd": "file compressed by zstd"}

Decode = Callable[[], Image.Image]
Described = tuple[list[Key], pd.DataFrame | None, list[str]]  # keys and attributes in the source's order, and notes


class Files:
    """The images of some folders or archives; `describe` tells what was found once `read` has come to its end."""

    def __init__(self, kind: str, path: str) -> None:
        self.kind = kind
        self.total: int | None = None  # of images, once it is known
        self.places = find_places(kind, path)
        self.where = ", ".join(map(str, self.places))
        self.names: list[str] = []
        self.origins: list[str] = []  # the place of each image
        self.tables: list[labels.Table] = []
        self.left_out: dict[str, list[str]] = {}  # kind -> names

    def read(self) -> Iterator[tuple[str, Decode]]:
        """Yield where each image lies, for errors, and how to decode it.

        Raises ValueError for an archive that is cut, and of a folder all that `describe` does.
        """
        images = self._find()
        if self.kind == "folder":  # what is wrong with it is said before a million images are decoded
            images = list(images)
            self.describe()
            self.total = len(images)
        yield from images

    @cache  # noqa: B019 - one table per source, which does not outlive the packing
    def describe(self) -> Described:
        """Return keys, attributes and notes. Raises ValueError where names or tables do not fit."""
        if not self.names:
            raise ValueError(f"{self.where}: holds no images; expected split/class/file{self._told()}")
        keys = labels.keys(self.names, self.origins, self.where)
        seen = set()
        if twice := next((key for key in keys if key in seen or seen.add(key)), None):
            raise ValueError(f"{self.where}: {'/'.join(filter(None, twice))} is there twice; name each archive once")
        attributes, notes = labels.join(self.tables, self.names, keys) if self.tables else (None, [])
        return keys, attributes, notes + [self._told().removeprefix("; ")] * bool(self.left_out)

    def _find(self) -> Iterator[tuple[str, Decode]]:
        for place in self.places:
            folders, full = set(), set()
            for name, read in (scan_folder if self.kind == "folder" else scan_tar)(place, self._leave_out):
                if read is None:
                    folders.add(name)
                elif self._is_image(place, name, read):
                    if self.kind == "tar":  # which only goes forward: read now, decode when there is time
                        read()
                    self.names.append(name)
                    self.origins.append(place.name.partition(".")[0])
                    full.update(map(str, PurePosixPath(name).parents))
                    yield f"{place}: {name}", partial(open_image, read)
            if empty := folders - full:
                raise ValueError(f"{place}: folder {min(empty)} holds no images; remove it or fill it{self._told()}")

    def _is_image(self, place: Path, name: str, read: Read) -> bool:
        path = PurePosixPath(name)
        suffix = path.suffix.lower()
        if path.name.lower() == labels.ATTRIBUTES:
            self.tables.append(labels.read_table(f"{place}: {name}", name, read()))
        elif suffix in formats()[1] or (not suffix and _opens(read)):
            return True
        else:
            self._leave_out(suffix or "no image", name)
        return False

    def _leave_out(self, kind: str, name: str) -> None:
        self.left_out.setdefault(kind, []).append(name)

    def _told(self) -> str:
        kinds = (f"{kind}: {len(names)} ({names[0]})" for kind, names in sorted(self.left_out.items()))
        return f"; not taken: {', '.join(kinds)}" if self.left_out else ""


def _opens(read: Read) -> bool:
    try:
        return bool(open_image(read))
    except Exception:  # whatever a reader makes of bytes that are no image
        return False


def find_places(kind: str, path: str) -> list[Path]:
    """Return the folders or archives of a source. Raises FileNotFoundError for none, ValueError for the other kind."""
    found = manifest.places(path)
    if not found:
        raise FileNotFoundError(
            f"{path}: no such {kind}; a path begins at the repository, in STUDY_SOURCES or in STUDY_DATA"
        )
    for place in found:
        if place.is_file():
            with place.open("rb") as file:
                head = file.read(4)
            if archive := next((name for magic, name in ARCHIVES.items() if head.startswith(magic)), None):
                raise ValueError(f"{place}: is a {archive}: unpack it and load it as folder:")
        if place.is_dir() != (kind == "folder"):
            right = "folder" if place.is_dir() else "tar"
            raise ValueError(f"{place}: is no {kind}; load it as {right}:{path}")
    return found


LeaveOut = Callable[[str, str], None]
Scan = Iterator[tuple[str, Read | None]]  # a file's name inside the place and how to read it; None for a folder


def _readable(name: str) -> str:
    """Return a file's name composed, and read as Latin-1 where it is not UTF-8, as it was made before UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        name = name.encode(errors="surrogateescape").decode("latin-1")
    return unicodedata.normalize("NFC", name)


def scan_folder(folder: Path, leave_out: LeaveOut) -> Scan:
    """Yield what is below a folder, sorted."""
    for entry in manifest.walk(folder):
        name = _readable(entry.name)
        if entry.trouble:
            leave_out(entry.trouble, name)
        else:
            yield name, None if entry.is_folder else partial(_read_file, f"{folder}/{entry.name}")


def _read_file(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def scan_tar(path: Path, leave_out: LeaveOut) -> Scan:
    """Yield an archive's members in its order, and then what its links lead to, for which it is read once more."""
    links: dict[str, list[str]] = {}  # a member's name -> links to it
    for name, member, read in _members(path):
        if name is None:
            leave_out("a name that climbs out", member.name)
        elif member.isfile() or member.isdir():
            yield name, read if member.isfile() else None
        elif member.islnk() or member.issym():
            start = f"{PurePosixPath(name).parent}/" if member.issym() else ""
            links.setdefault(_clean(start + member.linkname) or "", []).append(name)
        else:
            leave_out("neither file nor folder", name)
    for name, member, read in _members(path) if links else ():
        if name in links and member.isfile():
            yield from ((link, read) for link in links.pop(name))
    for link in sorted(link for names in links.values() for link in names):
        leave_out("a link to no file of the archive", link)


def _members(path: Path) -> Iterator[tuple[str | None, tarfile.TarInfo, Read]]:
    """Yield an archive's members; each must be read, if at all, before the next is asked for."""
    with _reading_tar(path), tarfile.open(path, tarinfo=_StrictHeader) as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # tarfile would remember every member
            name = _clean(member.name)
            if name is None or (name and not manifest.is_ignored(name)):
                yield name, member, cache(partial(_read_member, path, archive, member))


def _clean(name: str) -> str | None:
    """Return a member's name without what roots it somewhere; None for one that climbs out of the archive.

    A Windows archive may part its names by backslashes, after a drive's letter.
    """
    name = name if "/" in name else name.replace("\\", "/")
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", ".") and not (not parts and len(part) == 2 and part[1] == ":"):
            parts.append(part)
    return _readable("/".join(parts))


class _StrictHeader(tarfile.TarInfo):
    """A member's header. A block of zeros ends an archive; tarfile takes a bad or a missing header for its end, too."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(first_line(error)) from error


def _read_member(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    with _reading_tar(path):
        return archive.extractfile(member).read()


@contextlib.contextmanager
def _reading_tar(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(
            f"{path}: truncated or not an archive ({first_line(error)}); copy or download it again"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error, or its name where it has no text."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
