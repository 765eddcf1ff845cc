"""K-means features as Coates, Lee and Ng (2011) have them, an opponent of Table 1.

The paper cites their numbers. Run beside D's features, on the same images and with the same L2-SVM, they show what part
of an accuracy belongs to the features and what to the protocol. All steps and constants are those of the code that they
published; nothing larger than the features is held in memory.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.study import chance

PATCH = 6  # side of their patches
PATCHES = 400_000  # that their centroids are learned from
QUADRANTS = 2  # their pooling: 2 x 2 sums
BLOCK = 4096  # patches, or images, at a time


@dataclass(frozen=True)
class Codebook:
    """What k-means learned of patches: a whitening and the centroids in the whitened space."""

    mean: Tensor  # (d,), d = nc * PATCH * PATCH
    whitening: Tensor  # (d, d)
    centroids: Tensor  # (units, d)


def fit_codebook(
    x: Tensor, units: int, patches: int = 0, iterations: int = 50, seed: int = 0, device: str | torch.device = "cpu"
) -> Codebook:
    """Learn a codebook from uint8 images x (N, C, H, W), as Coates, Lee and Ng (2011) do.

    Patches of 6 x 6 from anywhere, each normalised for brightness and contrast, all whitened (ZCA), then k-means.
    patches: 0 takes theirs, 400,000, or 1,000 per unit where that is fewer.
    """
    patches = patches or min(PATCHES, 1000 * units)
    sample = _normalise(_draw_patches(x, patches, torch.Generator().manual_seed(chance.stream(seed, "patches"))))
    mean = sample.mean(0)
    variances, axes = torch.linalg.eigh(torch.cov(sample.T).double())
    whitening = ((axes / (variances.clamp(min=0) + 0.1).sqrt()) @ axes.T).float()
    white = ((sample - mean) @ whitening).to(device)
    generator = torch.Generator().manual_seed(chance.stream(seed, "centroids"))
    centroids = 0.1 * torch.randn(units, white.shape[1], generator=generator).to(device)
    for _ in range(iterations):
        centroids = step(white, centroids)
    return Codebook(mean, whitening, centroids.cpu())


def step(points: Tensor, centroids: Tensor) -> Tensor:
    """Return the mean of the points (n, d) that are nearest to each centroid (units, d); 0 where none is, as theirs."""
    sums, counts = torch.zeros_like(centroids), centroids.new_zeros(len(centroids))
    half = -0.5 * centroids.square().sum(1)
    for block in points.split(BLOCK):
        nearest = torch.addmm(half, block, centroids.T).argmax(1)
        sums.index_add_(0, nearest, block)
        counts += torch.bincount(nearest, minlength=len(centroids))
    return sums / counts.clamp(min=1)[:, None]


@torch.no_grad()
def encode(codebook: Codebook, x: Tensor, device: str | torch.device = "cpu") -> Tensor:
    """Return Coates and Ng's features: uint8 images (N, C, H, W) -> (N, 4 * units), float16, on the CPU.

    Each patch answers to a centroid by how much closer than the average it is (the "triangle" code); answers are
    summed over the image's quadrants.
    """
    mean, whitening, centroids = (t.to(device) for t in (codebook.mean, codebook.whitening, codebook.centroids))
    ones = centroids.new_ones(len(centroids), 1)
    squares = torch.cat([-2 * centroids, ones, centroids.square().sum(1, keepdim=True)], 1).T.contiguous()
    side = x.shape[-1] - PATCH + 1
    halves = (slice(None, (side + 1) // 2), slice((side + 1) // 2, None))
    quadrants = [(rows, columns) for rows in halves for columns in halves]
    out = torch.empty(len(x), len(quadrants), len(centroids), dtype=torch.float16)
    for i, image in enumerate(x):
        patches = F.unfold(image[None].to(device).float(), PATCH)[0].T  # (side * side, d)
        white = (_normalise(patches) - mean) @ whitening
        white = torch.cat([white, white.square().sum(1, keepdim=True), torch.ones_like(white[:, :1])], 1)
        for q, (rows, columns) in enumerate(quadrants):  # one at a time: its distances fit a processor's cache
            block = white.view(side, side, -1)[rows, columns].flatten(0, 1)
            distance = (block @ squares).clamp_(min=0).sqrt_()  # |p|^2 - 2 pc + |c|^2, in one product
            out[i, q] = torch.sub(distance.mean(1, keepdim=True), distance, out=distance).relu_().sum(0)
    return out.flatten(1)


def kmeans_features(x: Tensor, x_test: Tensor, units: int, seed: int = 0, **options) -> tuple[Tensor, Tensor]:
    """Return standardised k-means features of training and test images, float16: (N, 4 * units), (N_test, 4 * units).

    options: of `fit_codebook`. Both are standardised by the training images, in place.
    """
    codebook = fit_codebook(x, units, seed=seed, **options)
    learned, test = (encode(codebook, images, options.get("device", "cpu")) for images in (x, x_test))
    n, total, squares = len(learned), 0, 0
    for block in learned.split(BLOCK):
        total, squares = total + block.double().sum(0), squares + block.double().square().sum(0)
    mean = total / n
    deviation = ((squares - n * mean.square()) / (n - 1) + 0.01).sqrt()  # 0.01 is theirs
    for part in (learned, test):
        for block in part.split(BLOCK):
            block.copy_((block.float() - mean.float()) / deviation.float())
    return learned, test


def _draw_patches(x: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw n patches from anywhere in images (N, C, H, W): (n, C * PATCH * PATCH), float32."""
    rows = torch.randint(len(x), (n,), generator=generator)
    top, left = (torch.randint(side - PATCH + 1, (n, 1, 1), generator=generator) for side in x.shape[2:])
    steps = torch.arange(PATCH)
    picked = x[rows[:, None, None], :, top + steps[:, None], left + steps]  # (n, PATCH, PATCH, C)
    return picked.permute(0, 3, 1, 2).flatten(1).float()


def _normalise(patches: Tensor) -> Tensor:
    """Take brightness and contrast out of each patch (n, d) of values 0 to 255; 10 is the authors' constant."""
    return (patches - patches.mean(1, keepdim=True)) / (patches.var(1, keepdim=True) + 10).sqrt()
