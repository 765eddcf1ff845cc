"""What a run is called, and which code made its numbers.

A name that changes with every typo makes days of training count for nothing; a name that a mended fault leaves alone
passes faulty numbers on as new ones. So two things are kept apart. A run's name follows from what a person chose: the
parameters that differ from their defaults, the content of the images and nets they name, what is upstream, the
precision found, and the versions that code declares. The code that was reached is noted beside it, function by
function, and `runs.differs` tells what has changed since.

A module that computes numbers may declare `VERSIONS = {"training": 1}`, a notebook `versions` in its metadata. Whoever
changes what it computes, and wants every run that reaches it made anew, raises the number. Labels outlive renaming.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import filterfalse
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager

from lib.study import manifest, paths

LIB = Path(__file__).resolve().parent.parent
QUIET = {"lib.study.identity", "lib.study.manifest", "lib.study.paths", "lib.study.runs", "lib.look.figures"}
TYPES = {"str": str, "int": int, "float": float, "bool": bool}
PRECISIONS = ("float32", "bfloat16")
CPUINFO = Path("/proc/cpuinfo")  # of Linux; elsewhere float32 is found
BFLOAT16_CPU = {"avx512_bf16", "amx_bf16", "bf16"}  # flags of x86 and ARM
BFLOAT16_GPU = 8.0  # the least compute capability with instructions for bfloat16

Value = str | int | float | bool


# --- parameters


def notebooks() -> list[str]:
    """Return the names of the study's notebooks, in order."""
    return sorted(path.stem for path in paths.NOTEBOOKS.glob("[0-9]*.ipynb"))


def parameters_of(notebook: str) -> dict[str, Value]:
    """Return a notebook's parameters and their defaults. Raises ValueError for an unknown notebook or no literal."""
    return dict(_read_notebook(notebook).defaults)


def check(notebook: str, given: Mapping) -> dict[str, Value]:
    """Return a notebook's parameters with `given` in place. Raises ValueError for an unknown name or a wrong type."""
    values = parameters_of(notebook)
    for name, value in given.items():
        if name not in values:
            raise ValueError(f"{notebook} has no parameter {name!r}: it has {', '.join(values)}")
        kind = type(values[name])
        if type(value) is not kind and not (kind is float and type(value) is int):
            hint = "; YAML reads 1e-3 as text, write 1.0e-3" if kind is float and isinstance(value, str) else ""
            raise ValueError(f"{notebook}: {name} = {value!r} is no {kind.__name__}{hint}")
        values[name] = kind(value)
        if kind is float and not math.isfinite(value):
            raise ValueError(f"{notebook}: {name} = {value!r} is no finite number")
    return values


# --- the name of a run


def run_id(notebook: str, given: Mapping, upstream: tuple[str, ...] = (), on_gpu: bool | None = None) -> str:
    """Return the name of a run: its notebook, and a digest of what `identity_of` says."""
    return f"{notebook}-{digest(identity_of(notebook, given, upstream, on_gpu))}"


def identity_of(
    notebook: str, given: Mapping, upstream: tuple[str, ...] = (), on_gpu: bool | None = None
) -> dict[str, str]:
    """Return what sets a run apart from that of the notebook as it stands.

    given: parameters by name, those not named are at their defaults. upstream: ids of the runs it comes after. on_gpu:
    whether a GPU will compute it, to find its precision by; None: as its parameter `device` says, on this machine.
    """
    values, source = check(notebook, given), _read_notebook(notebook)
    told = {name: json.dumps(value) for name, value in values.items() if value != source.defaults[name]}
    content = {name: manifest.of_images(value) for name, value in values.items()}
    content["net"] = manifest.of_net(values.get("net"))
    told |= {f"content of {name}": found for name, found in content.items() if found}
    precision = values.get("precision", "")
    on_gpu = precision == "auto" and _is_on_gpu(values) if on_gpu is None else on_gpu
    if (found := find_precision(precision, on_gpu)) != precision:
        told["precision found"] = found
    if upstream:
        told["after"] = " ".join(sorted(upstream))
    return told | {f"version of {label}": str(number) for label, number in _versions(source).items()}


def digest(value: object) -> str:
    """Return ten hex digits that tell one value of plain data from another."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()[:10]


def versions_of(module: str) -> dict[str, int]:
    """Return the versions other than 1 that a module, such as lib.gan.train, and all that it imports declare."""
    return _versions(_read_module(module))


def _versions(source: Source) -> dict[str, int]:
    found = {}
    for one in {id(one): one for one in (source, *_reached(source).values())}.values():
        if twice := found.keys() & one.versions.keys():
            raise ValueError(f"two modules declare a version of {', '.join(twice)}: give one another label")
        found |= one.versions
    return {label: number for label, number in sorted(found.items()) if number != 1}


def find_precision(precision: str, on_gpu: bool) -> str:
    """Return the type to convolve in, float32 or bfloat16: the given one; for `auto` what is faster here.

    STUDY_PRECISION in the environment, which a batch sets to what was found when it was planned, stands for `auto`.
    Raises ValueError for another word.
    """
    if precision == "auto":
        precision = os.environ.get("STUDY_PRECISION") or "auto"
    if precision not in ("", "auto", *PRECISIONS):
        raise ValueError(f"precision = {precision!r}: choose one of auto, {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    fast = min(_capabilities(), default=BFLOAT16_GPU) >= BFLOAT16_GPU if on_gpu else _cpu_has_bfloat16()
    return PRECISIONS[fast]


def _is_on_gpu(values: Mapping) -> bool:
    """Tell whether a run's parameter `device` means an NVIDIA card here."""
    device, torch = values.get("device", "cpu"), sys.modules.get("torch")  # imported in a kernel, not by the engine
    here = device == "auto" and (torch.cuda.is_available() if torch else bool(_capabilities()))
    return here or device.startswith("cuda")


def _capabilities() -> list[float]:
    """Return the compute capability of each card here, such as 8.0; none where they are hidden or do not answer."""
    return [] if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1") else _ask_cards()


@cache
def _ask_cards() -> list[float]:
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    return [float(line) for line in lines if line.strip().replace(".", "", 1).isdecimal()]


@cache
def _cpu_has_bfloat16() -> bool:
    """Tell whether this CPU has instructions for bfloat16; one without emulates them, far slower."""
    return CPUINFO.exists() and not BFLOAT16_CPU.isdisjoint(CPUINFO.read_text(encoding="utf-8").split())


# --- the code that a run reaches


@dataclass(frozen=True)
class Source:
    """A module or a notebook, as its code says."""

    units: dict[str, str]  # function, class, constant, entry of a table, import -> digest of what it does
    modules: frozenset[str]  # of lib that it imports
    versions: dict[str, int]  # as declared
    defaults: dict[str, Value] = field(default_factory=dict)  # of a notebook's parameters


def code_of(notebook: str) -> dict[str, str]:
    """Return a digest of each function, class and constant in the modules that a notebook reaches, and of its own code.

    Comments, docstrings and the texts of errors do not count, nor do modules that compute no number (QUIET).
    """
    sources = {notebook: _read_notebook(notebook)}
    sources |= {module.removeprefix("lib."): source for module, source in _reached(sources[notebook]).items()}
    return {f"{place}.{name}": found for place, source in sources.items() for name, found in source.units.items()}


def _reached(source: Source) -> dict[str, Source]:
    """Return the modules of lib that a source imports, and those that they import, by name."""
    reached, waiting = {}, set(source.modules)
    while waiting:
        module = waiting.pop()
        reached[module] = _read_module(module)
        waiting |= reached[module].modules - reached.keys()
    return dict(sorted(reached.items()))


# --- reading code: once for each state of a file, also in a kernel that lives on while files change


def _read_module(module: str) -> Source:
    return _source_of_module(module, *_state(_path_of(module)))


def _read_notebook(notebook: str) -> Source:
    path = paths.NOTEBOOKS / f"{notebook}.ipynb"
    if not path.exists():
        raise ValueError(f"unknown notebook {notebook!r}: choose one of {', '.join(notebooks())}")
    return _source_of_notebook(notebook, *_state(path))


def _path_of(module: str) -> Path:
    return LIB.joinpath(*module.split(".")[1:]).with_suffix(".py")


def _state(path: Path) -> tuple[Path, int, int, int]:
    status = path.stat()
    return path, status.st_mtime_ns, status.st_size, status.st_ino


@lru_cache(maxsize=256)
def _source_of_module(module: str, path: Path, *_: int) -> Source:
    tree = _parse(module, path.read_text(encoding="utf-8"))
    declared = (s.value for s in tree.body if isinstance(s, ast.Assign) and ast.unparse(s.targets[0]) == "VERSIONS")
    return Source(*_units(tree), next(map(ast.literal_eval, declared), {}))


@lru_cache(maxsize=64)
def _source_of_notebook(notebook: str, path: Path, *_: int) -> Source:
    content = json.loads(path.read_text(encoding="utf-8"))
    defaults, tree = {}, ast.Module([], [])
    for number, cell in enumerate(content["cells"], 1):
        if cell["cell_type"] == "code":
            code = "".join(cell["source"])
            statements = _parse(f"{notebook}, cell {number}", code, TransformerManager().transform_cell).body
            if "parameters" in cell["metadata"].get("tags", []):
                defaults |= (_parameter(notebook, statement) for statement in statements)
            else:
                tree.body += statements
    units, modules = _units(tree)
    units["cells"] = digest(list(units))  # a new cell may set what others read, as a new function cannot
    return Source(units, modules, content["metadata"].get("versions", {}), defaults)


def _parse(place: str, code: str, prepare: Callable[[str], str] = str) -> ast.Module:
    try:
        return ast.parse(prepare(code))
    except SyntaxError as error:
        raise ValueError(f"{place}, line {error.lineno}: {error.msg}") from error


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
    return {name: digest([name, _shape(nodes)]) for name, nodes in (parts | imports).items()}, modules


def _imports(tree: ast.Module) -> Iterator[str]:
    """Yield what code imports from lib's modules that count, as lib.ROOM.MODULE or lib.ROOM.MODULE.NAME."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                target = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
                if (
                    target.startswith("lib.")
                    and _module_of(target) not in QUIET
                    and _path_of(_module_of(target)).is_file()
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
