"""K-means features as Coates, Lee and Ng (2011) have them, an opponent of Table 1.

The paper cites their numbers. Run beside D's features, on the same images and with the same L2-SVM, they show what part
of an accuracy belongs to the features and what to the protocol.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lib.study import chance

PATCH = 6  # side of Coates and Ng's patches
QUADRANTS = 2  # their pooling: 2 x 2 sums


@dataclass(frozen=True)
class Codebook:
    """What k-means learned of patches: a whitening and the centroids in the whitened space."""

    mean: Tensor  # (d,), d = nc * PATCH * PATCH
    whitening: Tensor  # (d, d)
    centroids: Tensor  # (units, d)


def fit_codebook(x: Tensor, units: int, patches: int = 0, iterations: int = 50, seed: int = 0) -> Codebook:
    """Learn a codebook from uint8 images x (N, C, H, W), as Coates, Lee and Ng (2011) do.

    Patches of 6 x 6 from anywhere, each normalised for brightness and contrast, all whitened (ZCA), then k-means.
    patches: 0 takes theirs, 400,000, or 1,000 per unit where that is fewer.
    """
    patches = patches or min(400_000, 1000 * units)
    sample = _normalise(_draw_patches(x, patches, torch.Generator().manual_seed(chance.stream(seed, "patches"))))
    mean = sample.mean(0)
    variances, axes = torch.linalg.eigh(torch.cov(sample.T).double())
    whitening = ((axes / (variances.clamp(min=0) + 0.1).sqrt()) @ axes.T).float()
    means = KMeans(units, init="random", n_init=1, max_iter=iterations, random_state=chance.stream(seed, "centroids"))
    means.fit(((sample - mean) @ whitening).numpy())
    return Codebook(mean, whitening, torch.from_numpy(means.cluster_centers_).float())


@torch.no_grad()
def encode(codebook: Codebook, x: Tensor, batch_size: int = 2, device: str | torch.device = "cpu") -> Tensor:
    """Return Coates and Ng's features: uint8 images (N, C, H, W) -> (N, 4 * units), float32, on the CPU.

    Each patch answers to a centroid by how much closer than the average it is (the "triangle" code); answers are
    summed over the image's quadrants. batch_size: small on a CPU, whose cache then holds the answers; larger on a GPU.
    """
    mean, whitening, centroids = (t.to(device) for t in (codebook.mean, codebook.whitening, codebook.centroids))
    out = torch.empty(len(x), QUADRANTS**2 * len(centroids))
    side = x.shape[-1] - PATCH + 1
    for at in range(0, len(x), batch_size):
        batch = x[at : at + batch_size].to(device).float()
        patches = F.unfold(batch, PATCH).transpose(1, 2).flatten(0, 1)  # (B * side * side, d)
        distance = torch.cdist((_normalise(patches) - mean) @ whitening, centroids)
        code = (distance.mean(1, keepdim=True) - distance).relu_().view(len(batch), side, side, -1)
        halves = (slice(None, side // 2), slice(side // 2, None))
        sums = [code[:, rows, columns].sum((1, 2)) for rows in halves for columns in halves]
        out[at : at + len(batch)] = torch.cat(sums, 1).cpu()
    return out


def kmeans_features(x: Tensor, x_test: Tensor, units: int, seed: int = 0, **options: int) -> tuple[Tensor, Tensor]:
    """Return standardised k-means features of training and test images: (N, 4 * units), (N_test, 4 * units)."""
    codebook = fit_codebook(x, units, seed=seed, **options)
    scaler = StandardScaler(copy=False)
    learned, test = encode(codebook, x).numpy(), encode(codebook, x_test).numpy()
    return torch.from_numpy(scaler.fit_transform(learned)), torch.from_numpy(scaler.transform(test))


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
