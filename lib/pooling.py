"""Pool feature maps of any size to one grid, so that every layer of D gives features of the same shape."""

import torch.nn.functional as F
from torch import Tensor


def max_pool_to_grid(h: Tensor, size: int = 4) -> Tensor:
    """Max-pool each feature map to a size x size grid (paper, section 5.1).

    (N, C, H, W) -> (N, C, size, size). Raises ValueError where H or W is smaller than size.
    """
    if min(h.shape[-2:]) < size:
        raise ValueError(f"feature maps of {h.shape[-2]} x {h.shape[-1]} cannot be pooled to a {size} x {size} grid")
    return F.adaptive_max_pool2d(h, size)
