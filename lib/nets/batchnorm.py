"""Re-estimate a net's batch-norm statistics, as the authors do before they use D's features.

Running averages of training mix real and generated batches. The authors re-estimate the statistics on the probe's own
real training images, and freeze them. Images lie sorted by class, and minibatches of one class each would have other
statistics than mixed ones: so the rows are shuffled.
"""

import numpy as np
import torch
from torch import Tensor, nn

from lib.images import data
from lib.nets.devices import device_of
from lib.study import chance

MOST = 100  # minibatches are enough: their mean lies within a hundredth of a deviation of that of any more


def recalibrate_batchnorm(
    net: nn.Module, x: Tensor | np.ndarray, batch_size: int = 128, autocast: bool = False
) -> nn.Module:
    """Re-estimate all batch-norm statistics of a net in place, as the authors do, and return it in eval mode.

    x: images (N, C, H, W) for D, uint8 or float in [-1, 1]; z (N, nz) for G, taken in the order of `shuffled`. Each
    minibatch is normalised with its own statistics on its way up; the frozen ones are the means of these, over
    minibatches. PyTorch would average the *unbiased* variance (divided by n - 1); the authors' is the biased one (by
    n), which also normalises: so is ours.
    A last, smaller batch is dropped (its variance has another bias) unless it is the only one, and so are batches
    beyond `MOST`. autocast: convolve in bfloat16, as `features.extract` may. A net without batch norm is returned as it
    is. Raises ValueError for less than two rows and for statistics that are not finite.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    net.eval()
    if not norms:
        return net
    if len(x) < 2 or batch_size < 2:
        raise ValueError(f"{len(x)} rows in batches of {batch_size}: batch statistics need at least two")
    sums = {m: [torch.zeros(m.num_features, dtype=torch.float64) for _ in range(2)] for m in norms}
    before = {m: (m.momentum, m.running_mean.clone(), m.running_var.clone()) for m in norms}

    def add(norm: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        n = inputs[0].numel() // inputs[0].shape[1]
        sums[norm][0] += norm.running_mean.cpu()
        sums[norm][1] += norm.running_var.cpu().double() * (n - 1) / n

    hooks = [m.register_forward_hook(add) for m in norms]
    in_head = any(m in norms for m in getattr(net, "hidden", nn.Identity()).modules())
    forward = net if in_head else getattr(net, "activations", net)  # the authors' D of four layers has no head
    starts, order = range(0, max(len(x) - batch_size, 0) + 1, batch_size)[:MOST], shuffled(len(x))
    try:
        for m in norms:
            m.train().momentum = 1.0  # the running statistics are the last batch's
        with torch.no_grad(), torch.autocast(device_of(net).type, torch.bfloat16, enabled=autocast):
            for start in starts:
                forward(to_inputs(x, np.sort(order[start : start + batch_size]), device_of(net)))
    finally:
        for hook in hooks:
            hook.remove()
        for m in norms:
            m.eval().momentum, mean, variance = before[m]
            m.running_mean.copy_(mean)  # where an image cannot be read, the net is as it was
            m.running_var.copy_(variance)
    if not all(total.isfinite().all() for pair in sums.values() for total in pair):
        raise ValueError("batch-norm statistics are not finite: the images or the weights are not")
    for m, (mean, variance) in sums.items():
        m.running_mean.copy_((mean / len(starts)).float())
        m.running_var.copy_((variance / len(starts)).float())
        m.num_batches_tracked.fill_(len(starts))
    return net


def shuffled(n: int) -> np.ndarray:
    """Return the rows of n images in the one random order in which every net sees them: (n,)."""
    return np.random.default_rng(chance.stream(0, "statistics", "order")).permutation(n)


def to_inputs(x: Tensor | np.ndarray, rows: slice | np.ndarray, device: torch.device) -> Tensor:
    """Return some rows as float32 on the device; uint8 images are scaled to [-1, 1]."""
    batch = x[rows] if isinstance(x, Tensor) else torch.from_numpy(np.array(x[rows]))
    return data.to_float(batch.to(device)).float()
