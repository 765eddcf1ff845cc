"""What a unit of D responds to: guided backprop (paper, figure 5), the gradient, Grad-CAM, the image it likes best.

Guided backprop changes the gradient of every ReLU on its way down to the image. The tools at hand, captum's and
pytorch-grad-cam's, look for `nn.ReLU` alone: on D, whose activations are LeakyReLU, they return the plain gradient
and say nothing, which is where report 000 gave up. The rules for LeakyReLU are here; Grad-CAM is captum's.

Everything explains D as it is at inference: in eval mode, with batch norm's running statistics, so that an image's
map does not depend on the images beside it. D is left as it was found, after an error too.

A map that looks right proves nothing: guided backprop draws the image's edges, whatever the weights are. Whether it
does so here is measured as Adebayo et al. (2018, arXiv:1810.03292) ask: by randomising D's layers one after another.
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor, nn

from lib.images.data import to_float
from lib.nets import batchnorm, models
from lib.nets.devices import device_of
from lib.nets.models import Discriminator
from lib.study import chance

Rule = Literal["plain", "clamp", "springenberg"]
RULES = ("plain", "clamp", "springenberg")
METHODS = (*RULES, "grad-cam")
JITTER, BLUR = 2, 0.4  # of `maximise`: pixels, and the Gaussian's sigma in pixels

# what is explained: a filter, as (layer, map), by its strongest response anywhere in the image; or D's logit
Target = tuple[int, int] | Literal["logit"]


def guided_backprop(D: Discriminator, x: Tensor, target: Target, rule: Rule = "springenberg") -> Tensor:
    """Return the gradient of `target` with respect to each image, its activations treated by `rule`.

    Where an activation of slope a (0.2 in D; 0 for a ReLU) had the input h and the gradient g comes down to it, the
    rule sends on:

                         h > 0         h <= 0
                      g > 0  g < 0  g > 0  g < 0
        plain           g      g     a g    a g   the gradient itself
        clamp           g      0     a g     0    g clamped to its positive part, then LeakyReLU as usual
        springenberg    g      0      0      0    also nothing where the input was negative (arXiv:1412.6806)

    On a ReLU net the two rules are one, and captum's. `target` includes its layer's batch norm and activation, so
    under springenberg the map of an image to which a filter responds with nothing positive is 0.

    (N, nc, size, size) -> the same. Raises ValueError for images that do not fit the net, and for a rule, layer or
    map that does not exist.
    """
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}: choose one of {', '.join(RULES)}")
    _check_images(D, x)
    target = _check_target(D, target)
    x = x.detach().clone().requires_grad_()
    with models.as_at_inference(D), _rule(D, rule), torch.enable_grad():
        (gradient,) = torch.autograd.grad(_response(D, x, target).sum(), x)
    return gradient


def grad_cam(D: Discriminator, x: Tensor, layer: int = -1, target: Target = "logit") -> Tensor:
    """Return where in each image the maps of a convolution speak for `target` (Grad-CAM, arXiv:1610.02391).

    The maps after their activation, each weighted by the mean of the target's gradient over it, summed, cut at zero
    and enlarged to the image bilinearly.

    (N, nc, size, size) -> (N, 1, size, size), not negative. Raises ValueError as `guided_backprop` does, and where
    the target lies below the layer.
    """
    _check_images(D, x)
    layer, target = _check_layer(D, layer), _check_target(D, target)
    if target != "logit" and target[0] < layer:
        raise ValueError(f"layer {layer}: a map of layer {target[0]} does not depend on it; choose 0 to {target[0]}")
    with models.as_at_inference(D):
        explain = LayerGradCam(lambda x: _response(D, x, target), D.layers[layer])
        # the image takes a gradient so that a net with frozen weights has one too
        cam = explain.attribute(x.detach().clone().requires_grad_(), relu_attributions=True)  # (N, 1, H, W)
    return LayerAttribution.interpolate(cam.detach(), tuple(x.shape[-2:]), "bilinear")  # (N, 1, size, size)


@torch.no_grad()
def top_responses(
    D: Discriminator, x: Tensor, layer: int, map: int, k: int = 6, batch_size: int = 256
) -> tuple[Tensor, Tensor]:
    """Find the images to which a filter responds most strongly at any position: the images for figure 5.

    x: (N, nc, size, size), in [-1, 1] or uint8 as data sets are at rest; only a batch at a time goes to D's device.
    Returns (indices, values), (k,) each, strongest first; of equal ones the first in x. Raises ValueError as
    `guided_backprop` does, and where x has fewer than k images.
    """
    target = _check_target(D, (layer, map))
    if not 1 <= k <= len(x):
        raise ValueError(f"k = {k}: choose 1 to {len(x)}, the number of images")
    values = []
    with models.as_at_inference(D):
        for batch in x.split(batch_size):
            batch = to_float(batch.to(device_of(D)))
            _check_images(D, batch)
            values.append(_response(D, batch, target))  # (batch_size,)
    values, indices = torch.cat(values).sort(descending=True, stable=True)  # (N,)
    return indices[:k].to(x.device), values[:k].to(x.device)


def to_panel(gradient: Tensor, percentile: float = 99) -> Tensor:
    """Scale each gradient to an image in [-1, 1], where 0 (grey) stays 0.

    The given percentile of its magnitudes becomes 1 and what is beyond is cut off, so that a few pixels do not leave
    the rest grey. Pixels whose gradient is exactly 0 do not count: a filter of a low layer sees little of the image.
    A gradient of nothing but 0 stays so. Panels have lost their scale: they compare in pattern, not in strength.

    (N, C, H, W) -> the same.
    """
    panels = torch.zeros_like(gradient)
    for panel, g in zip(panels, gradient, strict=True):
        if g.any():
            panel.copy_(g / g[g != 0].abs().quantile(percentile / 100))
    return panels.clamp(-1, 1)


def maximise(D: Discriminator, target: Target, n: int = 3, steps: int = 100, lr: float = 0.05, seed: int = 0) -> Tensor:
    """Draw n images that excite `target` as much as they can, by gradient ascent on their pixels (report 004).

    Adam from faint noise, pixels kept in [-1, 1]. Each step looks at the images moved by up to JITTER pixels, and
    blurs them a little: without it the ascent finds noise that no image holds.

    -> (n, nc, size, size). Raises ValueError as `guided_backprop` does.
    """
    from torchvision.transforms.functional import gaussian_blur  # two seconds of import that most sessions do without

    target, d = _check_target(D, target), D.description
    generator = torch.Generator().manual_seed(chance.stream(seed, "maximise"))
    x = (0.1 * torch.randn(n, d.nc, d.size, d.size, generator=generator)).to(device_of(D))
    optimizer = torch.optim.Adam([x], lr, maximize=True)
    with models.as_at_inference(D):
        for _ in range(steps):
            shift = torch.randint(-JITTER, JITTER + 1, (2,), generator=generator).tolist()
            with torch.enable_grad():
                moved = x.requires_grad_().roll(shift, (2, 3))
                (gradient,) = torch.autograd.grad(_response(D, moved, target).sum(), x)
            x.requires_grad_(False).grad = gradient
            optimizer.step()
            x.copy_(gaussian_blur(x, [5, 5], [BLUR, BLUR])).clamp_(-1, 1)
    return x.detach()  # without its gradient


def explain(D: Discriminator, x: Tensor, target: Target, method: str, layer: int = -1) -> Tensor:
    """Return one map per image by a method of METHODS: where pixels matter for `target`, whatever their sign.

    The magnitude of the gradient, summed over channels, or Grad-CAM of `layer`. (N, nc, size, size) -> (N, 1, size,
    size), not negative. Raises ValueError for an unknown method, and as the methods do.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    if method == "grad-cam":
        return grad_cam(D, x, layer, target)
    return guided_backprop(D, x, target, method).abs().sum(1, keepdim=True)


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
    from torchmetrics import functional as metrics  # seconds of import that most sessions do without

    a, b = (to_panel(maps.detach().cpu()) for maps in (a, b))
    ranks = [metrics.spearman_corrcoef(one.flatten(), other.flatten()) for one, other in zip(a, b, strict=True)]
    ssim = metrics.image.structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")
    return {"rank correlation": torch.stack(ranks), "SSIM": ssim}


def _response(D: Discriminator, x: Tensor, target: Target) -> Tensor:
    """Return what is explained, one number per image: (N, nc, size, size) -> (N,)."""
    if target == "logit":
        return D(x)
    layer, map = target
    # the maximum's own position and no mean over equal ones, which amax would take
    return D.activations(x)[layer][:, map].flatten(1).max(dim=1).values


@contextmanager
def _rule(D: nn.Module, rule: Rule) -> Iterator[None]:
    """Let every LeakyReLU and ReLU of D treat its gradient by `rule`, for as long as the context lasts."""

    def guide(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        (h,) = inputs
        positive = h > 0  # before the activation, which works in place, overwrites h

        def after_activation(gradient: Tensor) -> Tensor:
            # the slope is positive: clamping below the activation is the same as clamping above it
            gradient = gradient.clamp(min=0)
            return gradient * positive if rule == "springenberg" else gradient

        h.register_hook(after_activation)
        return h.clone()  # for the activation to overwrite; a full backward hook would forbid it to

    with ExitStack() as hooks:
        for module in D.modules():
            if rule != "plain" and isinstance(module, nn.LeakyReLU | nn.ReLU):
                hooks.enter_context(module.register_forward_pre_hook(guide))
        yield


def _check_images(D: Discriminator, x: Tensor) -> None:
    """Raise ValueError where x is not images of D's size and channels in floating point."""
    d = D.description
    models.require_fit(x, (d.nc, d.size, d.size))
    if not x.is_floating_point():
        raise ValueError(f"images are {x.dtype}: give floating point in [-1, 1] (`data.to_float`)")


def _check_layer(D: Discriminator, layer: int) -> int:
    """Return the layer counted from 0, or raise ValueError where there is none; -1 is the last."""
    n = len(D.layers)
    if not -n <= layer < n:
        raise ValueError(f"layer {layer}: this net has conv layers 0 to {n - 1}")
    return layer % n


def _check_target(D: Discriminator, target: Target) -> Target:
    """Return the target, its layer counted from 0, or raise ValueError where there is none."""
    if target == "logit":
        return target
    if isinstance(target, str) or len(target) != 2:
        raise ValueError(f"unknown target {target!r}: give (layer, map) or 'logit'")
    layer, map = _check_layer(D, target[0]), target[1]
    maps = D.layers[layer][0].out_channels
    if not 0 <= map < maps:
        raise ValueError(f"map {map}: layer {layer} has maps 0 to {maps - 1}")
    return layer, map
