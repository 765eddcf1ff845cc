"""What a parameter can be, beyond its type: refused here in a line, not by a kernel after a day's work.

A rule belongs to a parameter's name, whichever notebook has it; where notebooks mean different things by one name, it
says which. What a net or a set of images can be, their own rooms say, without torch: a batch is checked in a moment.
"""

import csv
import re
import sys
from collections.abc import Callable, Mapping

from lib.images import sources
from lib.nets import description
from lib.study import identity, manifest, paths

LINES = (  # of notebook 05's table
    "trained D", "trained D, running averages", "untrained D", "D beside", "raw pixels", "k-means", "Exemplar CNN",
    "k-nearest neighbours", "supervised net",
)  # fmt: skip
AUGMENTATIONS = ("shift", "cutout", "colour")  # of notebook 01, as `gan.game` has them
NET = {"architecture", "breaks", "size", "nc", "ngf", "ndf", "prior", "kernel"}  # of notebook 01
IMAGES = {"data_set", "many_set", "control", "real", "02.others", "06.boxed_set"}


def check(notebook: str, given: Mapping, gpu: bool = False) -> None:
    """Refuse what a notebook's parameters cannot be. ValueError names the parameter, its value and the way out.

    given: all of them, of the right types; a default is the notebook's own, and fits. gpu: whether the run has a card.
    """
    defaults = identity.parameters_of(notebook)
    for name, value in given.items():
        for known in (name, f"{notebook[:2]}.{name}"):
            fits, needed = RULES.get(known, (None, ""))
            if fits and value != defaults[name] and not fits(value):
                raise ValueError(f"{notebook}: {name} = {value!r}: {needed}")
    if "keep" in given and given["keep"] > given["snapshots"]:
        raise ValueError(f"{notebook}: keep = {given['keep']}: there are {given['snapshots']} snapshots to keep one of")
    if "average" in given and given["average"] > given["keep"]:
        raise ValueError(f"{notebook}: average = {given['average']}: say with keep which snapshot is the last of them")
    if given.get("onward") and given["start"]:
        raise ValueError(f"{notebook}: onward and start: two beginnings; leave one out")
    if "D beside" in given.get("lines", "") and not given["beside"]:
        raise ValueError(f"{notebook}: lines: say with beside whose D stands beside")
    if given.get("frozen") and not given["start"]:
        raise ValueError(f"{notebook}: frozen: say with start which net's convolutions stay as they are")
    if (claim := given.get("claim")) and not _is_published(notebook, claim):
        raise ValueError(f"{notebook}: claim = {claim!r}: not in data/published.csv; add it there, or leave it out")
    _check_device(notebook, given.get("device"), gpu)
    if given.keys() >= NET:
        description.describe(**{name: given[name] for name in NET if given[name] or name not in ("prior", "kernel")})
    for name in (name for name in given if {name, f"{notebook[:2]}.{name}"} & IMAGES):
        named = given[name] not in ("", "samples", "none", defaults[name])
        if named and not re.match("(crop:)?(tar|folder):.", given[name]):  # which may be another machine's
            sources.find(given[name], 8, paths.data_root(), "")


def at_least(least: float) -> tuple[Callable, str]:
    """Refuse less."""
    return lambda value: value >= least, f"give {least} or more"


def one_of(*choices: str) -> tuple[Callable, str]:
    """Refuse anything else."""
    return lambda value: value in choices, f"choose one of {', '.join(choice or 'nothing' for choice in choices)}"


ABOVE_ZERO = (lambda value: value > 0, "give a number above 0")
DRAWS = (lambda value: value >= 2, "give 2 or more: an interval needs two draws")
SPLIT = (
    lambda value: len(set(value.split("+"))) == len(value.split("+")) and all(value.split("+")),
    "name each part once, joined by +",
)
BEGINNING = (
    lambda value: re.fullmatch("run:.+|radford2015-(svhn|imagenet)", value) or manifest.of_net(value),
    "give run:ID of notebook 01, a net that comes with the study, a path to one, or one that the authors released",
)
JUDGE = (
    lambda value: re.fullmatch("run:.+", value) or manifest.of_net(value),
    "give a net that comes with the study and its judges, run:ID, a path to one, or inception:PATH of a file",
)
RULES = {
    "precision": one_of("auto", "float32", "bfloat16"),
    "device": (
        lambda value: re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", value),
        "choose one of auto, cpu, cuda, cuda:N, mps",
    ),
    "update": one_of("both", "alternate"),
    "batch_size": (lambda value: value >= 2, "give 2 or more: batch norm needs two images"),
    "lr": ABOVE_ZERO,
    "tol": ABOVE_ZERO,
    "C": ABOVE_ZERO,
    "beta1": (lambda value: 0 <= value < 1, "give a number from 0, below 1"),
    "augment": (
        lambda value: set(value.split("+")) <= set(AUGMENTATIONS),
        f"join some of {', '.join(AUGMENTATIONS)} by +, or leave it empty",
    ),
    "lr_decay": (lambda value: 0 <= value <= 1, "give a share from 0 to 1"),
    "real_label": (lambda value: 0 < value <= 1, "give a number above 0, of at most 1"),
    "D_rate": ABOVE_ZERO,
    **dict.fromkeys(("net", "start", "onward", "beside"), BEGINNING),
    "features": JUDGE,
    "01.held_out": (lambda value: 0 <= value < 1, "give a share from 0, below 1"),
    "10.held_out": at_least(1),
    "08.size": (lambda value: value >= 4 and value % 4 == 0, "give a multiple of 4"),
    "most_C": (lambda value: value >= 0.00001, "give 0.00001, the smallest C that is tried, or more"),
    "least_C": (lambda value: 0 < value <= 0.05, "give 0.05, the largest C that is tried, or less"),
    "jpeg": (lambda value: 0 <= value <= 95, "give a quality from 1 to 95, or 0 to leave the images as they are"),
    "development": at_least(0),
    "05.lines": (
        lambda value: value == "all" or {line.strip() for line in value.split("+")} <= set(LINES),
        f"choose all, or some of {', '.join(LINES)}, joined by +",
    ),
    "08.counts": (
        lambda value: value.split() and all(n.isdecimal() and int(n) > 0 for n in value.split()),
        "give numbers above 0, apart by spaces",
    ),
    "02.stops": at_least(2),
    "02.walks": at_least(2),
    "03.sums": at_least(2),
    "04.randoms": at_least(3),
    "10.draws_for_C": DRAWS,
    **{f"{notebook}.draws": DRAWS for notebook in ("05", "06", "09", "10", "12")},
    **dict.fromkeys(("epochs", "hash_epochs", "box_epochs"), ABOVE_ZERO),
    **dict.fromkeys(("split", "train_split", "test_split", "many_split"), SPLIT),
    **dict.fromkeys(
        ("limit", "train_limit", "many_limit", "snapshots", "keep", "average", "seed", "weight_decay", "noise", "r1",
         "shift", "skew", "boxed", "counted"),
        at_least(0),
    ),
    **dict.fromkeys(
        ("size", "nc", "ngf", "ndf", "hidden", "per_class", "grid", "units", "surrogates", "views", "steps", "samples",
         "exemplars", "most", "stored", "compared", "labels", "draws_for_C", "searches", "part", "maps", "images",
         "checked", "columns", "iterations", "kernel_images", "told", "fits", "pairs", "turns", "planted"),
        at_least(1),
    ),
}  # fmt: skip


def _is_published(notebook: str, claim: str) -> bool:
    """Tell whether a claim names a figure of data/published.csv, or the beginning of several."""
    with paths.PUBLISHED.open(newline="", encoding="utf-8") as file:
        known = [line["id"] for line in csv.DictReader(file)]
    if notebook.startswith("12"):  # few labels
        return f"{claim}.400" in known
    if notebook.startswith("11"):  # report 000's net and images: 4x4.imagenet64
        model, _, images = claim.partition(".")
        return any(re.fullmatch(rf"report000\.{re.escape(model)}\..*\.{re.escape(images)}\..*", id) for id in known)
    return any(id == claim or id.startswith(f"{claim}.") for id in known)


def _check_device(notebook: str, device: str | None, gpu: bool) -> None:
    """Refuse a device that the row will not see: with `gpu: 1` it sees one card, without it none."""
    if gpu and device is None:
        raise ValueError(f"gpu: 1, but {notebook} computes on the CPU: it has no parameter `device`")
    if gpu and device in ("cpu", "mps"):
        raise ValueError(f"gpu: 1, but device = {device!r}: a card would be held for nothing; leave one of them out")
    if device and device.startswith("cuda") and not (gpu and device in ("cuda", "cuda:0")):
        raise ValueError(f"device = {device!r}: a row with gpu: 1 sees one card, any other none; give gpu: 1 and auto")
    if device == "mps" and sys.platform != "darwin":
        raise ValueError("device = 'mps': only a Mac has it; choose auto")
