"""Frozen statistics: of a set sorted by class as of the same set in any order."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.nets.batchnorm import recalibrate_batchnorm, to_inputs

BLACK_THEN_WHITE = torch.cat([torch.zeros(640, 1, 4, 4), torch.full((640, 1, 4, 4), 255)]).to(torch.uint8)


@pytest.mark.parametrize("kind", [lambda x: x, lambda x: x.numpy(), lambda x: x.float() / 127.5 - 1])
def test_the_order_of_rows_is_not_taken_for_chance(kind):
    """Minibatches of one class have no variance: averaged, black and white images would be normalised as grey ones."""
    net = nn.Sequential(nn.BatchNorm2d(1))
    recalibrate_batchnorm(net, kind(BLACK_THEN_WHITE))
    assert net[0].running_mean.item() == pytest.approx(0, abs=0.1)
    assert net[0].running_var.item() == pytest.approx(1, abs=0.05), "half at -1, half at 1"
    again = recalibrate_batchnorm(nn.Sequential(nn.BatchNorm2d(1)), kind(BLACK_THEN_WHITE))[0]
    assert torch.equal(again.running_mean, net[0].running_mean) and torch.equal(again.running_var, net[0].running_var)


def test_rows_that_fill_no_minibatch_are_dropped_at_random():
    x = torch.arange(10.0).view(10, 1, 1, 1)
    means = {recalibrate_batchnorm(nn.BatchNorm2d(1), x[:n], batch_size=4).running_mean.item() for n in (8, 9, 10)}
    assert len(means) == 3, "the last two are not always those that are left out"
    assert recalibrate_batchnorm(nn.BatchNorm2d(1), x[:3], batch_size=4).running_mean.item() == 1, "a small one alone"


def test_inputs_are_scaled_once():
    rows = np.array([2, 0])
    bytes_ = torch.tensor([0, 9, 255], dtype=torch.uint8).view(3, 1)
    for x in (bytes_, bytes_.numpy(), bytes_.double() / 127.5 - 1, np.array([[-1.0], [0], [1]])):
        found = to_inputs(x, rows, torch.device("cpu"))
        assert found.dtype == torch.float32 and found.flatten().tolist() == [1, -1]
