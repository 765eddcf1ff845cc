"""Ask whether an explanation depends on what D learned.

A map that looks right proves nothing: guided backprop draws the image's edges, whatever the weights are. Whether it
does so here is measured as Adebayo et al. (2018, arXiv:1810.03292) ask: by randomising D's layers one after another.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor
from torchmetrics.functional import spearman_corrcoef
from torchmetrics.functional.image import structural_similarity_index_measure

from lib.internals import attribution
from lib.internals.attribution import RULES, Target
from lib.nets import batchnorm, models
from lib.nets.devices import device_of
from lib.nets.models import Discriminator
from lib.study import chance

METHODS = (*RULES, "grad-cam")


def explain(D: Discriminator, x: Tensor, target: Target, method: str, layer: int = -1) -> Tensor:
    """Return one map per image by a method of METHODS: where pixels matter for `target`, whatever their sign.

    The magnitude of the gradient, summed over channels, or Grad-CAM of `layer`. (N, nc, size, size) -> (N, 1, size,
    size), not negative. Raises ValueError for an unknown method, and as the methods do.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    if method == "grad-cam":
        return attribution.grad_cam(D, x, layer, target)
    return attribution.guided_backprop(D, x, target, method).abs().sum(1, keepdim=True)


def randomise_downwards(D: Discriminator, x: Tensor, seed: int = 0) -> Iterator[tuple[str, Discriminator]]:
    """Draw D's layers anew, one after another from the logit down to the image, and yield it after each.

    The cascading randomisation of Adebayo et al., in a copy of D, which is changed further by the next step. Batch norm
    is re-estimated on x (N, nc, size, size) each time: with the trained layers' statistics new layers would saturate.
    """
    D, device = copy.deepcopy(D), device_of(D)
    layers = {f"layer {i}": layer for i, layer in enumerate(D.layers)}
    for name, part in reversed([*layers.items(), ("hidden", D.hidden), ("logit", D.head)]):
        if any(True for _ in part.parameters()):  # few nets have a hidden layer, and a published D may have no head
            models.initialise(part.cpu(), torch.Generator().manual_seed(chance.stream(seed, "randomised", name)))
            part.to(device)
            yield name, batchnorm.recalibrate_batchnorm(D, x)


def similarity(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Compare maps image by image: Spearman's rank correlation, and SSIM of the maps at one scale.

    A map of one value ranks nothing: its correlation is 0. Two of (N, 1, H, W) -> {rank correlation, SSIM}, (N,) each.
    """
    a, b = (attribution.to_panel(maps.detach().cpu()) for maps in (a, b))
    ranks = [spearman_corrcoef(one.flatten(), other.flatten()) for one, other in zip(a, b, strict=True)]
    ssim = structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")
    return {"rank correlation": torch.stack(ranks), "SSIM": ssim}
