"""Frozen statistics: of a set sorted by class as of the same set in any order."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.nets import models
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


@pytest.mark.parametrize(("n", "read"), [(396, 396), (400, 400), (404, 400), (4000, 400)])
def test_a_hundred_minibatches_are_enough(n, read):
    """4000 images drawn at random would do what 400 of them do, in a tenth of the time."""
    seen, net = [], nn.Sequential(nn.BatchNorm2d(1))
    net.register_forward_pre_hook(lambda _, given: seen.extend(given[0].flatten().tolist()))
    recalibrate_batchnorm(net, torch.arange(float(n)).view(n, 1, 1, 1), batch_size=4)
    assert len(seen) == len(set(seen)) == read
    assert net[0].running_mean.item() == pytest.approx(np.mean(seen), rel=1e-5)
    if n == 4000:
        assert min(seen) < 100 and max(seen) > 3900, "of all of them"


def test_statistics_of_bfloat16_are_those_of_bfloat16():
    """What is frozen is what the features are normalised with: convolved as they are."""
    torch.manual_seed(0)
    conv, x = nn.Conv2d(3, 8, 3), torch.rand(64, 3, 8, 8)
    nets = [nn.Sequential(conv, nn.BatchNorm2d(8)) for _ in range(2)]
    for net, autocast in zip(nets, (False, True), strict=True):
        recalibrate_batchnorm(net, x, autocast=autocast)
    rounded = conv.bfloat16()(x.bfloat16()).float()
    torch.testing.assert_close(nets[1][1].running_mean, rounded.mean((0, 2, 3)), rtol=0, atol=1e-4)
    assert not torch.equal(nets[0][1].running_mean, nets[1][1].running_mean)


def test_statistics_of_a_hidden_layer_above_the_convolutions():
    """One of the guidelines' departures: batch norm in D's head, which the activations alone never reach."""
    _, D = models.build("tutorial64", breaks="hidden", size=16, nc=1, ngf=4, ndf=4, seed=0)
    x = torch.rand(64, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        normalised = D.train()(x)
        recalibrate_batchnorm(D, x, batch_size=64)
        torch.testing.assert_close(D(x), normalised, atol=0.05, rtol=0)
    (norm,) = (m for m in D.hidden if isinstance(m, nn.BatchNorm1d))
    assert (norm.running_var > 0).all()


def test_inputs_are_scaled_once():
    rows = np.array([2, 0])
    bytes_ = torch.tensor([0, 9, 255], dtype=torch.uint8).view(3, 1)
    for x in (bytes_, bytes_.numpy(), bytes_.double() / 127.5 - 1, np.array([[-1.0], [0], [1]])):
        found = to_inputs(x, rows, torch.device("cpu"))
        assert found.dtype == torch.float32 and found.flatten().tolist() == [1, -1]
