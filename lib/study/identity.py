"""What a run is called, and which code made its numbers.

A name that changes with every typo makes days of training count for nothing; a name that a mended fault leaves alone
passes faulty numbers on as new ones. So two things are kept apart. A run's name follows from what a person chose: the
parameters that differ from their defaults, the content of the images, nets and tables they name, what is upstream, the
precision found, and the versions that code declares. The code that was reached is noted beside it, function by
function, and `records.differs` tells what has changed since.

A module that computes numbers may declare `VERSIONS = {"training": 1}`, a notebook `versions` in its metadata. Whoever
changes what it computes, and wants every run that reaches it made anew, raises the number. Labels outlive renaming.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from lib.study import manifest, paths, syntax
from lib.study.syntax import Source, Value

PRECISIONS = ("float32", "bfloat16")
NETS = ("net", "start", "onward", "beside", "features")  # parameters that name a file of weights
CPUINFO = Path("/proc/cpuinfo")  # of Linux; elsewhere float32 is found
BFLOAT16_CPU = {"avx512_bf16", "amx_bf16", "bf16"}  # flags of x86 and ARM
BFLOAT16_GPU = 8.0  # the least compute capability with instructions for bfloat16


# --- parameters


def notebooks() -> list[str]:
    """Return the names of the study's notebooks, in order."""
    return sorted(path.stem for path in paths.NOTEBOOKS.glob("[0-9]*.ipynb"))


def parameters_of(notebook: str) -> dict[str, Value]:
    """Return a notebook's parameters and their defaults. Raises ValueError for an unknown notebook or no literal."""
    return dict(_read(notebook).defaults)


def _read(notebook: str) -> Source:
    path = paths.NOTEBOOKS / f"{notebook}.ipynb"
    if not path.exists():
        raise ValueError(f"unknown notebook {notebook!r}: choose one of {', '.join(notebooks())}")
    return syntax.read(path)


def check(notebook: str, given: Mapping) -> dict[str, Value]:
    """Return a notebook's parameters with `given` in place. Raises ValueError for an unknown name or a wrong type."""
    values = parameters_of(notebook)
    for name, value in given.items():
        if name not in values:
            raise ValueError(f"{notebook} has no parameter {name!r}: it has {', '.join(values)}")
        kind = type(values[name])
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(f"{notebook}: {name} = {value!r} is no {kind.__name__}")
        values[name] = kind(value)
        if kind is float and not math.isfinite(value):
            raise ValueError(f"{notebook}: {name} = {value!r} is no finite number")
    return values


# --- the name of a run


def identity_of(
    notebook: str, given: Mapping, upstream: tuple[str, ...] = (), on_gpu: bool | None = None,
    of_images: Callable[[object], str] = manifest.of_images,
) -> dict[str, str]:  # fmt: skip
    """Return what sets a run apart from that of the notebook as it stands.

    given: parameters by name, those not named are at their defaults. upstream: ids of the runs it comes after. on_gpu:
    whether a GPU will compute it, to find its precision by; None: as its parameter `device` says, on this machine.
    of_images: digests the images that a value names; a batch looks at those of all its rows once.
    """
    values, source = check(notebook, given), _read(notebook)
    told = {name: json.dumps(value) for name, value in values.items() if value != source.defaults[name]}
    content = {name: of_images(value) or manifest.of_table(value) for name, value in values.items()}
    content |= {name: manifest.of_net(values.get(name)) for name in NETS}
    told |= {f"content of {name}": found for name, found in content.items() if found}
    precision = values.get("precision", "")
    on_gpu = precision == "auto" and _is_on_gpu(values) if on_gpu is None else on_gpu
    if (found := find_precision(precision, on_gpu)) != precision:
        told["precision found"] = found
    if upstream:
        told["after"] = " ".join(sorted(upstream))
    return told | {f"version of {label}": str(number) for label, number in _versions(source).items()}


def versions_of(module: str) -> dict[str, int]:
    """Return the versions other than 1 that a module, such as lib.gan.train, and all that it imports declare."""
    return _versions(syntax.read(syntax.path_of(module)))


def _versions(source: Source) -> dict[str, int]:
    found = {}
    for one in (source, *syntax.reached(source).values()):
        if twice := found.keys() & one.versions.keys():
            raise ValueError(f"two modules declare a version of {', '.join(twice)}: give one another label")
        found |= one.versions
    return {label: number for label, number in sorted(found.items()) if number != 1}


def code_of(notebook: str) -> dict[str, str]:
    """Return a digest of each function, class and constant in the modules that a notebook reaches, and of its own."""
    sources = {notebook: _read(notebook)}
    sources |= {module.removeprefix("lib."): source for module, source in syntax.reached(sources[notebook]).items()}
    return {f"{place}.{name}": found for place, source in sources.items() for name, found in source.units.items()}


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
