"""Pooling, with the answer written out, and torch's own pooling as oracle."""

import pytest
import torch
import torch.nn.functional as F

from lib.probe.features import max_pool_to_grid


def test_the_answer_written_out():
    h = torch.arange(64.0).view(1, 1, 8, 8)
    assert max_pool_to_grid(h)[0, 0].tolist() == [[9, 11, 13, 15], [25, 27, 29, 31], [41, 43, 45, 47], [57, 59, 61, 63]]


@pytest.mark.parametrize("side", [4, 8, 16, 32, 64])
def test_equal_windows_are_plain_max_pooling(side):
    h = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    assert torch.equal(max_pool_to_grid(h), F.max_pool2d(h, side // 4))


def test_a_grid_of_its_own_size_changes_nothing_and_any_size_is_taken():
    h = torch.randn(1, 2, 4, 4)
    assert torch.equal(max_pool_to_grid(h), h)
    assert max_pool_to_grid(torch.randn(1, 2, 7, 9), 3).shape == (1, 2, 3, 3)


def test_maps_smaller_than_the_grid_are_refused():
    with pytest.raises(ValueError, match="feature maps of 3 x 8 cannot be pooled to a 4 x 4 grid"):
        max_pool_to_grid(torch.zeros(1, 1, 3, 8))
