"""What code does, as digests: of a module of lib, or of a notebook.

Files change all the time, mostly without changing a number. So each function, class and constant has a digest of its
own, in which comments, docstrings, line breaks and the texts of errors do not count. A file is read once for each of
its states, also in a kernel that lives on while it is edited.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import filterfalse
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager

LIB = Path(__file__).resolve().parent.parent
QUIET = {f"lib.study.{name}" for name in ("identity", "manifest", "paths", "records", "runs", "syntax", "tables")}
QUIET |= {"lib.look.figures"}  # modules that compute no number
TYPES = {"str": str, "int": int, "float": float, "bool": bool}

Value = str | int | float | bool


@dataclass(frozen=True)
class Source:
    """A module or a notebook, as its code says."""

    units: dict[str, str]  # function, class, constant, entry of a table, import -> digest of what it does
    modules: frozenset[str]  # of lib that it imports, such as lib.gan.train
    versions: dict[str, int]  # as declared
    defaults: dict[str, Value] = field(default_factory=dict)  # of a notebook's parameters


def read(path: Path) -> Source:
    """Read a module or a notebook. Raises ValueError that names the place where it cannot be read."""
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size, status.st_ino)


@lru_cache(maxsize=512)
def _read(path: Path, *_: int) -> Source:
    return (_read_notebook if path.suffix == ".ipynb" else _read_module)(path, path.read_text(encoding="utf-8"))


def path_of(module: str) -> Path:
    """Return the file of a module such as lib.gan.train."""
    return LIB.joinpath(*module.split(".")[1:]).with_suffix(".py")


def reached(source: Source) -> dict[str, Source]:
    """Return the modules of lib that a source imports, and those that they import, by name."""
    found, waiting = {}, set(source.modules)
    while waiting:
        module = waiting.pop()
        found[module] = read(path_of(module))
        waiting |= found[module].modules - found.keys()
    return dict(sorted(found.items()))


def digest(value: object) -> str:
    """Return ten hex digits that tell one value of plain data from another."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()[:10]


def _read_module(path: Path, text: str) -> Source:
    tree = _parse(path.name, text)
    declared = (s.value for s in tree.body if isinstance(s, ast.Assign) and ast.unparse(s.targets[0]) == "VERSIONS")
    return Source(*_units(tree), next(map(ast.literal_eval, declared), {}))


def _read_notebook(path: Path, text: str) -> Source:
    content, defaults, tree = json.loads(text), {}, ast.Module([], [])
    for number, cell in enumerate(content["cells"], 1):
        if cell["cell_type"] == "code":
            code = "".join(cell["source"])
            statements = _parse(f"{path.name}, cell {number}", code, TransformerManager().transform_cell).body
            if "parameters" in cell["metadata"].get("tags", []):
                defaults |= (_parameter(path.stem, statement) for statement in statements)
            else:
                tree.body += statements
    units, modules = _units(tree)
    units["cells"] = digest(list(units))[:8]  # a new cell may set what others read, as a new function cannot
    return Source(units, modules, content["metadata"].get("versions", {}), defaults)


def _parameter(notebook: str, statement: ast.stmt) -> tuple[str, Value]:
    """Return the name and the value of one line of the parameters cell, `steps: int = 3`."""
    declared, _, value = ast.unparse(statement).partition(" = ")
    name, _, kind = declared.partition(": ")
    if kind not in TYPES:
        raise ValueError(f"{notebook}: parameter {name} needs a type: {', '.join(TYPES)}")
    try:
        return name, TYPES[kind](ast.literal_eval(value))
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{notebook}: parameter {name} = {value} must be a literal") from error


def _parse(place: str, code: str, prepare: Callable[[str], str] = str) -> ast.Module:
    try:
        return ast.parse(prepare(code))
    except SyntaxError as error:
        raise ValueError(f"{place}, line {error.lineno}: {error.msg}") from error


def _units(tree: ast.Module) -> tuple[dict[str, str], frozenset[str]]:
    """Return a digest of each thing that code defines or imports from lib, and the modules imported.

    Each entry of a table, such as a dict of architectures, is a thing of its own: adding one changes no other.
    """
    parts = defaultdict(list)
    for statement in filterfalse(_is_idle, tree.body):
        value, target = getattr(statement, "value", None), getattr(statement, "target", None)
        target = getattr(statement, "targets", [target])[0]
        name = getattr(statement, "name", ast.unparse(target) if isinstance(target, ast.Name) else "statements")
        if isinstance(target, ast.Name) and isinstance(value, ast.Dict):
            for key, entry in zip(value.keys, value.values, strict=True):
                parts[f"{name}[{key and ast.unparse(key)}]"] += [key, entry]
        else:
            parts[name].append(statement)
    imports = {f"import {target}": target for target in _imports(tree)}
    modules = frozenset(map(_module_of, imports.values()))
    return {name: digest([name, _shape(nodes)])[:8] for name, nodes in (parts | imports).items()}, modules


def _imports(tree: ast.Module) -> Iterator[str]:
    """Yield what code imports from lib's modules that count, as lib.ROOM.MODULE or lib.ROOM.MODULE.NAME."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                target = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
                if (
                    target.startswith("lib.")
                    and _module_of(target) not in QUIET
                    and path_of(_module_of(target)).is_file()
                ):
                    yield target


def _module_of(target: str) -> str:
    return ".".join(target.split(".")[:3])


def _is_idle(node: object) -> bool:
    """Tell whether a statement does nothing of its own: an import, a docstring, imports for type checkers."""
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    checking = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    return text or checking or isinstance(node, ast.Import | ast.ImportFrom)


def _shape(node: object) -> list | str:
    """Return what code does as plain data, the same on every Python; of an error only what kind it is."""
    if isinstance(node, ast.Raise):
        node = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ["Raise", _shape(node)]
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
        return [type(node).__name__, *([name, _shape(value)] for name, value in fields)]
    if isinstance(node, list):
        return [_shape(item) for item in filterfalse(_is_idle, node)]
    return repr(node)
