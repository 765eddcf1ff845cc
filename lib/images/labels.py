"""What names say of an image: its split and class, and the line of `attributes.csv` that is its own.

Nothing is guessed in silence. Where folders could be read in two ways, or a table's lines do not fit its header, it is
an error that shows both; what is merely worth knowing is returned as notes.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

UNLABELLED = -1
ATTRIBUTES = "attributes.csv"  # in any case; its first column names the image
SPLITS = {  # usual words for a split
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "devel", "development", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), "test"),
    **dict.fromkeys(("unlabelled", "unlabeled"), "unlabelled"),
    "extra": "extra",
}
FILLERS = r"set|data|dataset|split|images?|imgs?|pictures?|pics?|photos?|files?|samples?"  # train_set, images-test
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
MISSING = {"", "na", "n/a", "nan"}

Key = tuple[str, str, str]  # split, class ("" where there is none), file name


# --- splits and classes --------------------------------------------------------------------------------------------


def split_of(name: str, ignored: frozenset[str] = frozenset()) -> str:
    """Return the split that a folder's name means in one of its usual spellings (`Training`, `test_set`), or ""."""
    found = {SPLITS.get(word, word) for word in _words(name) - ignored}
    if found == {"train", "val"} or found == {"trainval"}:
        return "train"
    return found.pop() if len(found) == 1 and found <= set(SPLITS.values()) else ""


def _words(name: str) -> set[str]:
    """Split a name into small words that say something: TrainSet, train-set, trainset_2 all say train."""
    words = re.split(r"[\W\d_]+", re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])", " ", name).lower())
    glued = re.compile(rf"({'|'.join(SPLITS)})(?:{FILLERS})")
    words = [found[1] if (found := glued.fullmatch(word)) and word not in SPLITS else word for word in words]
    return {word for word in words if word and not re.fullmatch(rf"{FILLERS}|[a-z]", word)}


def _splits(folders: Sequence[str]) -> dict[str, str]:
    """Return the split of each of the folders beside each other; a word that all have (seg_train, seg_test) is none."""
    common = frozenset.intersection(*(frozenset(_words(folder)) for folder in folders)) if len(folders) > 1 else set()
    return {folder: split_of(folder) or split_of(folder, frozenset(common)) for folder in folders}


def keys(names: Sequence[str], places: Sequence[str], where: str) -> list[Key]:
    """Read split, class and file from paths: split/class/file, class/file or files, under any common folders.

    places: the archive or folder that each name comes from; where nothing inside means a split, those called
    mnist-train and mnist-test do. Raises ValueError where some folders beside each other look like splits and others
    do not, where two mean the same split, and where splits lie below classes.
    """
    parts = [tuple(name.split("/")) for name in names]
    while _share_top(parts) and not split_of(parts[0][0]):
        parts = [p[1:] for p in parts]
    if len(set(places)) > 1 and not any(_splits(_tops(parts)).values()):
        meant = _splits(sorted(set(places)))
        if all(meant.values()) and len(set(meant.values())) > 1:
            parts = [(meant[place], *p) for place, p in zip(places, parts, strict=True)]
    splits = _splits(tops := _tops(parts))
    looks = [top for top in tops if splits[top]]
    others = [top for top in tops if not splits[top]] + [p[0] for p in parts if len(p) == 1][:1]
    if looks and others:
        raise ValueError(
            f"{where}: {', '.join(looks)} look{'s' * (len(looks) == 1)} like a split, {', '.join(others[:10])} not; "
            "move what is no split elsewhere, or all classes into one folder called train"
        )
    for split in set(splits.values()) - {""}:
        if len(same := [top for top in tops if splits[top] == split]) > 1:
            raise ValueError(f"{where}: {' and '.join(same)} both mean the split {split}; join them or rename one")
    if not looks:
        _refuse_splits_below_classes(parts, where)
        return [_key("train", p) for p in parts]
    below = [p[1:] for p in parts]
    tops_below = {(p[0], p[1]) for p in parts}
    if len(tops_below) == len(tops) and min(map(len, below)) > 2:  # seg_train/seg_train/class/file
        below = [p[1:] for p in below]
    return [_key(splits[p[0]], rest) for p, rest in zip(parts, below, strict=True)]


def _tops(parts: list[tuple[str, ...]]) -> list[str]:
    return sorted({p[0] for p in parts if len(p) > 1})


def _share_top(parts: list[tuple[str, ...]]) -> bool:
    return len({p[0] for p in parts}) == 1 and min(map(len, parts)) > 1


def _key(split: str, parts: tuple[str, ...]) -> Key:
    return (split, parts[0], "/".join(parts[1:])) if len(parts) > 1 else (split, "", parts[0])


def _refuse_splits_below_classes(parts: list[tuple[str, ...]], where: str) -> None:
    below = {}
    for p in parts:
        if len(p) > 2:
            below.setdefault(p[0], set()).add(p[1])
    for top, folders in below.items():
        splits = _splits(sorted(folders))
        if all(splits.values()) and len(folders) > 1:
            shown = ", ".join(f"{top}/{folder}" for folder in sorted(folders))
            raise ValueError(f"{where}: {shown} are splits below a class; move them above: split/class/file")


def number(keys: Sequence[Key]) -> tuple[tuple[str, ...], np.ndarray, list[str]]:
    """Return the classes, those of the train split where there is one, each image's index into them, and notes."""
    learned = [c for split, c, _ in keys if split == "train"] or [c for _, c, _ in keys]
    classes = tuple(sorted(set(learned) - {""}))
    if classes in ((), ("all",)):
        classes, index = ("all",), {"": 0, "all": 0}
    else:
        index = {c: i for i, c in enumerate(classes)}
    y = np.array([UNLABELLED if split == "unlabelled" else index.get(c, UNLABELLED) for split, c, _ in keys])
    lost = [key for key in keys if key[0] != "unlabelled" and key[1] not in index]
    loose, strange = [key for key in lost if not key[1]], [key for key in lost if key[1]]
    kinds = {"have no class folder": loose, "are of a class that train does not have": strange}
    notes = [
        f"{len(some)} images {what} ({'/'.join(filter(None, some[0]))}): their label is {UNLABELLED}"
        for what, some in kinds.items()
        if some
    ]
    return classes, y, notes


# --- attributes ----------------------------------------------------------------------------------------------------

# A table as it is read: where it lies, its folder, the names of its columns, and each line's number, file and cells.
Table = tuple[str, str, list[str], list[tuple[int, str, list[str]]]]


def read_table(where: str, name: str, content: bytes) -> Table:
    """Read a table whose first column is the image's file name. Raises ValueError that names the line."""
    try:
        encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        text = unicodedata.normalize("NFC", content.decode(encoding))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: cannot be read as a table ({error}); save it as UTF-8") from None
    readings = []
    for sign in ",;\t|":
        with suppress(csv.Error):
            readings.append(list(csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True)))
    # the sign that separates the header's fields, best one that gives every line as many
    even = [r for r in readings if r and len(r[0]) > 1 and all(len(line) in (0, len(r[0])) for line in r)]
    lines = next(iter(even), max(readings, key=lambda r: len(r[0]) if r else 0, default=[]))
    header = [cell.strip() for cell in lines[0]] if lines else []
    if len(header) < 2:
        raise ValueError(f"{where}: cannot be read as a table of file names and attributes, separated by commas")
    columns = header[1:]
    for column in columns:
        if not column or columns.count(column) > 1:
            raise ValueError(f"{where}: its header has {f'{column} twice' if column else 'a column without a name'}")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if line and len(line) != len(header):
            raise ValueError(f"{where}: line {number} has {len(line)} fields, and the header {len(header)}")
        if line:
            rows.append((number, line[0].strip().removeprefix("./"), [cell.strip() for cell in line[1:]]))
    return where, str(PurePosixPath(name).parent), columns, rows


def join(tables: list[Table], names: Sequence[str], keys: Sequence[Key]) -> tuple[pd.DataFrame, list[str]]:
    """Return one row of attributes per image, and notes.

    names: each image's path. A table is for the images in its folder and below, and names them by their path from
    there or by the file name alone.
    """
    columns = tables[0][2]
    for where, _, other, _ in tables:
        if other != columns:
            raise ValueError(
                f"{where}: its columns are {', '.join(other)}, and {tables[0][0]} has {', '.join(columns)}"
            )
    found: list[tuple[str, int, list[str]] | None] = [None] * len(names)
    notes = []
    for where, folder, _, rows in tables:
        below = "" if folder == "." else f"{folder}/"
        mine = [i for i, name in enumerate(names) if name.startswith(below)]
        images, doubled = {}, set()
        for i in mine:
            for label in {names[i].removeprefix(below), keys[i][2]}:
                if images.setdefault(label, i) != i:
                    doubled.add(label)
        used, strangers = set(), []
        for number, file, cells in rows:
            if file in used:
                raise ValueError(f"{where}: goes by file name, but {file} has a second row (line {number})")
            if file in doubled:
                raise ValueError(f"{where}: goes by file name, but {file} has a second image; name them by their path")
            used.add(file)
            if file in images and (other := found[images[file]]):
                image = names[images[file]]
                raise ValueError(
                    f"{where}: line {number} is about {image}, as is line {other[1]} of {other[0]}; keep one"
                )
            if file in images:
                found[images[file]] = (where, number, cells)
            else:
                strangers.append(file)
        if strangers:
            notes.append(f"{where} has {len(strangers)} rows without an image ({strangers[0]})")
    where = tables[0][0]
    if (missing := next((i for i, row in enumerate(found) if row is None), None)) is not None:
        known = next((file for _, _, _, rows in tables for _, file, _ in rows), "none")
        raise ValueError(
            f"{where}: has no row for {keys[missing][2]} (its first is for {known}); add it or remove the image"
        )
    cells = [[row[2][c] for row in found] for c in range(len(columns))]
    places = [f"{row[0]}: line {row[1]}" for row in found]
    return pd.DataFrame({name: _values(name, c, places) for name, c in zip(columns, cells, strict=True)}), notes


def _values(column: str, cells: list[str], places: list[str]) -> pd.Series:
    """Return a column as whole numbers, numbers, truths or text. Raises ValueError for half of each."""
    known = [cell for cell in cells if cell.lower() not in MISSING]
    numbers = sum(NUMBER.fullmatch(cell) is not None for cell in known)
    if {cell.lower() for cell in known} in ({"true"}, {"false"}, {"true", "false"}) and len(known) == len(cells):
        return pd.Series([cell.lower() == "true" for cell in cells])
    if numbers == len(known):
        values = pd.Series([float(cell) if cell.lower() not in MISSING else np.nan for cell in cells], dtype=float)
        whole = len(known) == len(cells) and all(re.fullmatch(r"[+-]?\d{1,15}", cell) for cell in cells)
        return values.astype(np.int64) if whole else values
    if numbers or all(re.fullmatch(r"[+-]?\d+,\d+", cell) for cell in known):
        odd = next(i for i, cell in enumerate(cells) if cell in known and not NUMBER.fullmatch(cell))
        hint = "; write a point, not a comma" if re.fullmatch(r"[+-]?\d+,\d+", cells[odd]) else ""
        raise ValueError(f"{places[odd]}: {column} = {cells[odd]!r} is no number, and others are{hint}")
    return pd.Series([cell or np.nan for cell in cells], dtype=object)
