"""Health: what is measured in a net and in a log, and which snapshot is chosen."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import linalg

from lib.gan import diagnostics, selection
from lib.images import data
from lib.nets import batchnorm, models, weights
from lib.study import chance

NET = models.describe("tutorial64", size=16, nc=1, ngf=8, ndf=8)


def test_only_finite_values_pass():
    diagnostics.require_finite({"step": 3, "loss_D": 0.0})
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(FloatingPointError, match=f"loss_D is {value} after minibatch 3: .* Lower lr"):
            diagnostics.require_finite({"step": 3, "loss_D": value})


def test_variety_is_a_ratio_of_mean_distances():
    real = torch.tensor([0.0, 2.0, 4.0]).view(3, 1, 1, 1)  # distances 2, 4, 2
    samples = torch.tensor([0.0, 0.0, 4.0]).view(3, 1, 1, 1)  # 0, 4, 4
    assert diagnostics.variety(samples, real) == pytest.approx(1)
    assert diagnostics.variety(torch.zeros(3, 1, 1, 1), real) == 0
    assert diagnostics.variety(real / 2, real) == pytest.approx(0.5)


def test_dead_filters_are_counted():
    h = torch.randn(8, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    h[:, 1] = 3.0  # constant, though not zero
    h[:, 2] *= 0.005
    assert diagnostics.dead_share([h]) == 0.5
    assert diagnostics.dead_share([h, torch.zeros(8, 4, 5, 5)]) == 0.75
    assert diagnostics.dead_share([h[:, [0, 3]]]) == 0


def test_measuring_finds_what_was_killed_and_changes_nothing():
    G, D = models.from_description(NET)
    z, real = torch.randn(64, 100), torch.rand(64, 1, 16, 16) * 2 - 1
    before = [v.clone() for net in (G, D) for v in net.state_dict().values()]
    well = diagnostics.measure(G, D, z, real)
    assert well["dead_G"] == well["dead_D"] == 0
    assert all(map(torch.equal, before, [v for net in (G, D) for v in net.state_dict().values()]))
    with torch.no_grad():
        G.layers[0][1].weight[:4] = 0  # 4 of 8 maps of G's second layer; 16 + 8 in all
        D.layers[0][0].weight[:3] = 0  # 3 of 8 of D's first; 8 + 16 in all
    ill = diagnostics.measure(G, D, z, real)
    assert (ill["dead_G"], ill["dead_D"]) == (pytest.approx(4 / 24), pytest.approx(3 / 24))


def log(**changes):
    healthy = {"step": range(1, 101), "loss_D": 1.2, "variety": 0.9, "dead_G": 0.0, "dead_D": 0.0}
    return pd.DataFrame(healthy | changes)


def test_signs_of_failure():
    assert diagnostics.signs(log()) == []
    won = np.where(np.arange(100) < 60, 1.2, 0.01)
    (sign,) = diagnostics.signs(log(loss_D=won))
    assert sign.startswith("D's loss is below 0.05") and sign.endswith("(minibatches 69 to 100)")
    spikes = np.where(np.arange(100) % 5, 0.01, 1.2)  # near zero, but never for long
    assert diagnostics.signs(log(loss_D=spikes)) == []
    early = np.where(np.arange(100) < 40, 0.0, 0.9)  # G begins with grey images
    assert diagnostics.signs(log(variety=early)) == []
    alike = np.where(np.arange(100) < 80, 0.9, 0.1)
    assert ["collapsed (minibatches 81 to 100)" in sign for sign in diagnostics.signs(log(variety=alike))] == [True]
    assert [sign[-24:] for sign in diagnostics.signs(log(variety=0.1))] == ["(minibatches 100 to 100)"], "never varied"
    assert len(diagnostics.signs(log(dead_G=0.5, dead_D=0.5))) == 2
    gaps = np.where(np.arange(100) % 2, np.nan, 0.01)  # updates in turn: every other line has no loss of D
    assert len(diagnostics.signs(log(loss_D=gaps))) == 1


def test_rows_are_held_out_once_and_at_random():
    training, held = data.hold_out(1000, 0.1, 0)
    assert len(held) == 100 and sorted([*training.tolist(), *held.tolist()]) == list(range(1000))
    assert 400 < held.float().mean() < 600 and not torch.equal(held, data.hold_out(1000, 0.1, 1)[1])
    assert len(data.hold_out(10, 0.0, 0)[1]) == 0
    with pytest.raises(ValueError, match="held_out = 1: must be a share from 0, and below 1"):
        data.hold_out(10, 1, 0)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", 16)


def test_the_distance_is_frechets(tmp_path, digits):
    """Against the formula in scipy's matrix square root, on features taken here."""
    G, D = models.from_description(NET)
    path = tmp_path / "snapshot.safetensors"
    weights.save_net(path, G, D, {})
    extractor = selection.fit_extractor(digits, torch.arange(1000), 0, most=1280)
    found = selection.frechet_distances({7: path}, digits.x[1000:], extractor, seed=3)
    z = G.sample_z(1000, torch.Generator().manual_seed(chance.stream(3, "z", "evaluation")))
    batchnorm.recalibrate_batchnorm(G, z)
    with torch.no_grad():
        one, other = extractor(G(z).add(1).div(2)).double(), extractor(digits.x[1000:].float() / 255).double()
    a, b = one.T.cov().numpy(), other.T.cov().numpy()
    root = linalg.sqrtm(a @ b).real
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum().item() + np.trace(a + b - 2 * root)
    assert found.index.tolist() == [7] and found[7] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_worse_net_is_further_away(tmp_path, digits, labelled):
    """Real images in place of samples are nearest, copies of one of them furthest, noise in between or far."""
    images = digits if labelled else data.ImageSet("digits", digits.x, torch.full((len(digits),), -1))
    training, held = data.hold_out(len(digits), 0.4, 0)
    extractor = selection.fit_extractor(images, training, 0, most=2560)

    def distance(samples):
        metric = selection.FrechetInceptionDistance(extractor, normalize=True)
        metric.update(digits.x[held].float() / 255, real=True)
        metric.update(samples, real=False)
        return metric.compute().item()

    real = distance(digits.x[training].float() / 255)
    assert 5 * real < min(distance(digits.x[:1].expand(400, -1, -1, -1) / 255.0), distance(torch.rand(400, 1, 16, 16)))


def test_the_earliest_of_the_nearest_is_chosen():
    assert selection.choose(pd.Series({10: 3.0, 20: 1.0, 30: 1.0}), 40) == 20
    assert selection.choose(selection.frechet_distances({}, torch.zeros(0), None, 0), 40) == 40, (
        "none held out: the last"
    )


def test_a_snapshot_can_be_kept_by_its_count():
    distances, steps = pd.Series({10: 3.0, 20: 1.0, 30: 2.0}), [10, 20, 30]
    assert [selection.choose(distances, 40, steps, keep) for keep in range(4)] == [20, 10, 20, 30]
    for keep in (-1, 4):
        with pytest.raises(ValueError, match=f"keep = {keep}: there are 3 snapshots"):
            selection.choose(distances, 40, steps, keep)
