"""Devices, and the precision to convolve in on them.

Whatever computes takes a device's name, asks here whether the machine has it, and convolves under `autocast`: weights
and sums stay float32, bfloat16 is for the convolutions alone.
"""

import math

import torch
from torch import nn

from lib.study import identity

PRECISIONS = identity.PRECISIONS


def find_device(device: str) -> torch.device:
    """Return the device of this name; `auto`: CUDA, else Apple's MPS, else the CPU. ValueError where it is missing."""
    count = {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    there = [kind for kind, n in count.items() if n]
    if device == "auto":
        return torch.device(there[0])
    kind, _, index = device.partition(":")
    if kind not in there:
        raise ValueError(
            f"device = {device!r}: there is none on this machine; choose auto or one of {', '.join(there)}"
        )
    if index not in ("", *map(str, range(count[kind]))):
        raise ValueError(f"device = {device!r}: this machine has {count[kind]} of {kind}, counted from {kind}:0")
    return torch.device(device)


def find_precision(precision: str, device: torch.device) -> str:
    """Return the type to convolve in, float32 or bfloat16: the given one; for `auto` the faster one on the device.

    Raises ValueError for another word.
    """
    if not precision:
        raise ValueError(f"precision = '': choose one of auto, {', '.join(PRECISIONS)}")
    return identity.find_precision(precision, on_gpu=device.type == "cuda")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return a context in which convolutions are computed in float32 or bfloat16. Raises ValueError for another."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision = {precision!r}: choose one of {', '.join(PRECISIONS)}")
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def device_of(net: nn.Module) -> torch.device:
    """Return the device where a net's parameters lie: the CPU for a net without any."""
    return next((p.device for p in net.parameters()), torch.device("cpu"))


def free_bytes(device: torch.device) -> float:
    """Return the bytes that are free on a device; where images need not be copied, on a CPU, without end."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return math.inf
