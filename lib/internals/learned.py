"""The images that a net learned, found by its record.

A net that is asked about other images answers all the same. So every notebook asks about the net's own set, split and
rows unless another set is named, and says in one line which images it took.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib.images import data
from lib.images.data import ImageSet
from lib.internals import attributes, latent
from lib.nets import weights
from lib.nets.models import Generator

SAMPLES = "samples"  # in the place of a set's name: what G draws
BEYOND = "beyond "  # a number follows: the images of the split that a limit of so many leaves out


@dataclass(frozen=True)
class Asked:
    """The images that a net is asked about."""

    whole: ImageSet  # the split, as far as the net's training was given it
    rows: Tensor  # (n,) of it: those that it trained on; all of another set
    kept: Tensor  # (k,) of it: those that its training held out
    split: str
    learned: str  # what the net learned, where that is something else; empty: these
    limit: int = 0  # so many images of the split the net's training was given (0: all)
    own: str = ""  # the split of this set that the net learned; empty: it learned another set

    def __str__(self) -> str:
        these = f"{len(self.rows):,} images of {self.whole.name}" + (f", {self.split}" if self.split else "")
        return f"{these}; the net learned {self.learned}" if self.learned else f"{these}, which the net learned"

    def some(self, most: int = 0) -> ImageSet:
        """Return so many of the rows, evenly spaced since they are sorted by class (0: all of them)."""
        rows = data.spread(self.rows, most)
        return self.whole if len(rows) == len(self.whole) else self.whole[rows]

    def real(self, most: int = 0) -> ImageSet:
        """Return so many images of the whole split, evenly spaced, whatever the training was given (0: all)."""
        whole = self.whole
        if self.limit:
            whole = _fitting(data.load(whole.name, whole.x.shape[-1], self.split), whole.x.shape[1])
        rows = data.spread(torch.arange(len(whole)), most)
        return whole if len(rows) == len(whole) else whole[rows]

    def unseen(self, held_out: str, most: int = 0) -> Tensor:
        """Return uint8 images (N, nc, S, S) that the net never saw, evenly spaced.

        held_out: another split of the set; `training`: those that the net's training held out for choosing a snapshot;
        or `beyond L`: those of its split that a limit of L images leaves out, the same for all nets whose own limit
        divides L. most: at most so many of them (0: all). Raises ValueError for images that the net learned or is asked
        about, for `training` where it learned others or is not known to have held any out, and for an L whose images it
        may not all know.
        """
        if held_out.startswith(BEYOND):
            return self._beyond(held_out, most)
        if held_out != "training":
            self._refuse_seen(held_out)
            others = _fitting(data.load(self.whole.name, self.whole.x.shape[-1], held_out), self.whole.x.shape[1])
            return others.x[data.spread(torch.arange(len(others)), most)]
        if self.learned:
            raise ValueError(f"held_out = training: the net learned {self.learned}: name a split instead")
        if not len(self.kept):
            raise ValueError("held_out = training: the net is not known to have held images out: name a split")
        return self.whole.x[data.spread(self.kept, most)]

    def _refuse_seen(self, held_out: str) -> None:
        name, size = self.whole.name, self.whole.x.shape[-1]
        for told, split in (("learned", self.own), ("is asked about", self.split)):
            if split and (seen := set(data.splits(name, size, split)).intersection(data.splits(name, size, held_out))):
                raise ValueError(
                    f"held_out = {held_out}: the net {told} images of {' and '.join(sorted(seen))}: name another "
                    "split, or training for what its training held out"
                )

    def _beyond(self, held_out: str, most: int) -> Tensor:
        end = held_out.removeprefix(BEYOND)
        if self.learned:
            raise ValueError(f"held_out = {held_out}: the net learned {self.learned}: name a split instead")
        if not self.limit or not end.isdecimal() or not int(end) or int(end) % self.limit:
            given = (
                f"its limit was {self.limit}: give a multiple of that"
                if self.limit
                else "it had no limit: give a split"
            )
            raise ValueError(f"held_out = {held_out}: the net may know some of these images; {given}")
        whole = self.real()
        if int(end) >= len(whole):
            raise ValueError(f"held_out = {held_out}: there are {len(whole)} images in all; give fewer")
        others = torch.ones(len(whole), dtype=torch.bool)
        others[data.spread(torch.arange(len(whole)), int(end))] = False  # rows of a limit lie in a multiple's
        return whole.x[data.spread(others.nonzero()[:, 0], most)]


def find(
    G: Generator, record: dict, data_set: str = "", split: str = "", size: int = 0, samples: int = 2000, seed: int = 0
) -> Asked:
    """Find the images to ask a net about: those that it learned itself, unless others are named.

    record: the net's, as `weights.load_net` returns it. data_set: a set by name, or `samples`: so many that G draws,
    with what their pixels say. split: of another set it is train by default. size: in place of the net's own. Grey
    images are given the channels of a net of colours.

    Raises ValueError where the record names no set that is at hand, and where the images do not fit the net.
    """
    own, size, nc = record.get("parameters", {}), size or G.description.size, G.description.nc
    learned = ", ".join(filter(None, (own.get("data_set", ""), own.get("split", "")))) or "nobody wrote down what"
    if data_set == SAMPLES:
        whole = attributes.samples_of(G, latent.points(G, samples, seed, "asked"))
        return Asked(whole, torch.arange(samples), torch.arange(0), "", learned)
    if not data_set and "split" not in own:
        raise ValueError(f"the net learned {learned}, which is no set at hand: name data_set, or {SAMPLES} of G itself")
    data_set = data_set or own["data_set"]
    known = own.get("split", "") if data_set == own.get("data_set") else ""
    split = split or known or "train"
    if split != known:
        whole = _fitting(data.load(data_set, size, split), nc)
        return Asked(whole, torch.arange(len(whole)), torch.arange(0), split, learned, own=known)
    whole = _fitting(data.load(data_set, size, split, own.get("limit", 0)), nc)
    try:
        rows, kept = data.hold_out(len(whole), own.get("held_out", 0.0), weights.hold_out_seed(own))
    except ValueError:  # the net that it went on from is not here, nor what that one held out
        rows, kept = torch.arange(len(whole)), torch.arange(0)
    return Asked(whole, rows, kept, split, "", own.get("limit", 0), known)


def _fitting(images: ImageSet, nc: int) -> ImageSet:
    """Return the images with nc channels. Raises ValueError for colours and a net of grey."""
    if images.x.shape[1] == nc:
        return images
    if images.x.shape[1] != 1:
        raise ValueError(f"{images.name} has {images.x.shape[1]} channels, the net takes {nc}: name another set")
    return replace(images, x=images.x.expand(-1, nc, -1, -1))
