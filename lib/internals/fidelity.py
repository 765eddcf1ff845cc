"""Ask how real samples are of judges that no GAN here was trained to please.

D is a partial judge. OpenCV ships a cascade for frontal faces (Viola and Jones 2001) that nobody here made: it looks
for eyes, nose and mouth by the light and dark around them, at their places. What it misses in real faces, and finds
where there is none, has to stand beside its counts. Another one finds faces that look to the left, and tells left from
right by what it finds in the mirror image. The eye is asked by boards of blind pairs.

Distances between sets of images need features, and compare only within one net's. `gan.selection` trains its own for
each training; here each set of images has one extractor, rebuilt from a seed, whichever training is asked about.
Neither is the FID, for which `selection.extractor_of` takes the file of Inception's weights.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from lib.gan.selection import NDF, Extractor
from lib.images import data
from lib.images.data import ImageSet
from lib.nets import batchnorm
from lib.nets.judges import AttributeNet
from lib.study import chance, paths
from lib.study.chance import Interval

FRONTAL, PROFILE = "haarcascade_frontalface_alt.xml", "haarcascade_profileface.xml"
SIDE = 128  # pixels that an image is enlarged to: a small face has to cover a cascade's window of 20 several times
LEAST = 64  # pixels of it that a face covers at least
STEP = 1.05  # from one size that is looked for to the next
FACE, CLEAR = 3, 20  # neighbouring finds that make a face, and one that leaves little doubt
ACROSS = 10  # pairs in a row of a board for the eye
GREY = (0.299, 0.587, 0.114)  # of red, green and blue, as OpenCV weighs them

SEED = 0  # of the fixed extractor's weights
NEAR = 3  # neighbours of a feature vector: how far its images reach (Kynkäänniemi et al. 2019, arXiv:1904.06991)


# --- faces


@cache
def _cascade(file: str) -> cv2.CascadeClassifier:
    return cv2.CascadeClassifier(cv2.data.haarcascades + file)


def _enlarge(images: Tensor) -> np.ndarray:
    """Return images (N, nc, S, S), uint8 or in [-1, 1], as a cascade takes them: grey bytes (N, SIDE, SIDE)."""
    x = data.to_float(images.detach().cpu()).add(1).mul(127.5)
    grey = x if x.shape[1] == 1 else (x * torch.tensor(GREY)[:, None, None]).sum(1, keepdim=True)
    return F.interpolate(grey, (SIDE, SIDE), mode="bicubic").round().clamp(0, 255).to(torch.uint8).squeeze(1).numpy()


def has_face(images: Tensor, agreeing: int = FACE) -> Tensor:
    """Tell in which images a frontal face is found, half as wide as the image at least, by so many finds that agree.

    (N, nc, S, S), uint8 or in [-1, 1] -> (N,) bool, on the CPU.
    """
    look = _cascade(FRONTAL).detectMultiScale
    finds = (look(image, STEP, agreeing, minSize=(LEAST, LEAST)) for image in _enlarge(images))
    return torch.tensor([len(found) > 0 for found in finds], dtype=torch.bool)


def looks_left(images: Tensor) -> Tensor:
    """Count the finds that agree best on a face in profile that looks to the left: (N, nc, S, S) -> (N,); 0: none."""
    look = _cascade(PROFILE).detectMultiScale2
    counts = (look(image, STEP, 1, minSize=(LEAST, LEAST))[1] for image in _enlarge(images))
    return torch.tensor([max(agreeing, default=0) for agreeing in counts])


def turned(images: Tensor) -> Tensor:
    """Tell where faces look, from -1, the image's left, to 1, its right: (N, nc, S, S) -> (N,), on the CPU.

    What the mirror image has more of finds in profile than the image, of both and CLEAR more, so that a few finds say
    little. 0: neither has any, as where a face looks ahead, or both have as many. A mirror image has the opposite
    answer, whatever it shows: how often the answer is right is another matter.
    """
    left, right = looks_left(images), looks_left(images.flip(-1))
    return (right - left) / (right + left + CLEAR)


def tiles(size: int) -> Tensor:
    """Cut the two photographs that scikit-learn ships, a temple and a flower, up: uint8 (N, 3, size, size), no face."""
    photographs = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2)
    cut = photographs.unfold(2, size, size).unfold(3, size, size)  # (2, 3, down, across, size, size)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).contiguous()


# --- the eye


def blind(first: Tensor, second: Tensor, most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Put pairs of images side by side, in an order drawn by lot: (n, ...), (m, ...) -> (2 pairs, ...), (pairs,) bool.

    Of the longer ones as many as there are pairs, `most` at most. The second value tells where the first of a pair is
    at the left.
    """
    first, second = (images[: min(most, len(first), len(second))].cpu() for images in (first, second))
    at_left = torch.rand(len(first), generator=generator) < 0.5
    pairs = torch.stack([first, second], 1)
    return torch.where(at_left.view(-1, *[1] * (first.dim())), pairs, pairs.flip(1)).flatten(0, 1), at_left


def boards(
    sides: Mapping[str, tuple[Tensor, Tensor]], most: int, generator: torch.Generator, folder: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Draw boards of blind pairs, each into folder/pairs-NAME.jpg without its order; return them, and the orders.

    sides: by the board's name, the images (n, nc, S, S) of one kind and those of the other, as `blind` takes them.
    """
    drawn = {name: blind(*both, most, generator) for name, both in sides.items()}
    for name, (board, _) in drawn.items():
        picture = data.tile(data.to_uint8(board), 2 * ACROSS)
        words = "-".join(re.findall(r"\w+", name))
        Image.fromarray(picture).save(folder / f"pairs-{words}.jpg", quality=90)
    return {name: board for name, (board, _) in drawn.items()}, {name: order for name, (_, order) in drawn.items()}


def marks_of(run_id: str, board: str) -> str:
    """Return how data/marks.csv has an eye mark a board that a run drew, L or R for each pair; empty: none looked."""
    told = pd.read_csv(paths.ROOT / "data" / "marks.csv")
    return "".join(told["marks"][(told["run"] == run_id) & (told["board"] == board)])


def agreed(run_id: str, orders: Mapping[str, Tensor]) -> dict[str, Interval]:
    """Return on how many pairs of a run's boards an eye agrees, by board: those that nobody marked are left out."""
    marks = {board: marks_of(run_id, board) for board in orders}
    return {board: chance.interval_of_share(hits_of(told, orders[board])) for board, told in marks.items() if told}


def hits_of(marks: str, at_left: Tensor) -> list[bool]:
    """Return where an eye's marks, one L or R for each of n pairs, are right: at_left (n,) bool, where L is.

    Raises ValueError for another number of marks, and other letters.
    """
    if len(marks) != len(at_left) or set(marks) - {"L", "R"}:
        raise ValueError(f"{len(marks)} marks {marks!r} for {len(at_left)} pairs: give one L or R for each")
    return [(mark == "L") == bool(left) for mark, left in zip(marks, at_left, strict=True)]


# --- distances in features


def extractor(images: ImageSet) -> Extractor:
    """Return the extractor of a set of images, the same for every net that is asked about it.

    A random convolutional net: its weights come from SEED, its batch norm from images evenly spaced over the set.
    """
    net = AttributeNet(["none"], images.x.shape[-1], images.x.shape[1], NDF, SEED)
    batchnorm.recalibrate_batchnorm(net.body, images.x[torch.arange(1280) * len(images) // 1280])
    return Extractor(net.eval())


@torch.no_grad()
def features(net: nn.Module, images: Tensor) -> Tensor:
    """Return an extractor's features of images (N, nc, S, S), uint8 or in [-1, 1]: (N, F) float32, on the CPU."""
    return torch.cat([net(data.to_float(part).add(1).div(2)).cpu() for part in images.split(256)])


def frechet(a: Tensor, b: Tensor) -> float:
    """Return the Fréchet distance between Gaussians fitted to features (n, F) and (m, F)."""
    a, b = a.double(), b.double()
    of_a, of_b = a.T.cov(), b.T.cov()
    both = torch.linalg.eigvals(of_a @ of_b).sqrt().real.sum()  # the trace of the product's root
    return float((a.mean(0) - b.mean(0)).square().sum() + of_a.trace() + of_b.trace() - 2 * both)


def between_halves(real: Tensor, seed: int) -> tuple[float, int]:
    """Return the Fréchet distance between two halves of features (N, F), drawn by lot, and the images in each.

    The floor: what is left where nothing differs, since Gaussians fitted to few images err. It falls as 1 / images.
    """
    lots = torch.randperm(len(real), generator=torch.Generator().manual_seed(chance.stream(seed, "halves")))
    n = len(real) // 2
    return frechet(*real[lots[: 2 * n]].split(n)), n


def distances(net: nn.Module, sets: Mapping[str, Tensor], new: Tensor, real: Tensor, seed: int) -> pd.DataFrame:
    """Return the Fréchet distance of sets of images to new ones in a net's features, and that of two halves of real.

    All uint8 (N, nc, S, S). A row for each distance, with how many images were compared with how many.
    """
    there = features(net, new)
    rows = {f"to held-out images: {k}": (frechet(features(net, x), there), len(x), len(new)) for k, x in sets.items()}
    apart, n = between_halves(features(net, real), seed)
    rows["between two halves of the real images"] = apart, n, n
    return pd.DataFrame.from_dict(rows, "index", columns=["Fréchet distance", "images", "compared with"])


def covered(x: Tensor, base: Tensor) -> Tensor:
    """Tell which features x (n, F) lie as near to one of base (m, F) as its NEAR-th neighbour in base does: (n,) bool.

    Samples that real images cover are their precision; real images that samples cover, their recall.
    """
    reach = torch.cdist(base, base).kthvalue(NEAR + 1, dim=1).values  # itself is the first
    return (torch.cdist(x, base) <= reach).any(1)
