"""Features with the answer written out on `arange`, statistics against NumPy."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import nn

from lib.nets.batchnorm import recalibrate_batchnorm, shuffled
from lib.nets.description import ARCHITECTURES, describe
from lib.nets.models import build
from lib.probe.features import (
    areas,
    best_alone,
    compare_alone,
    extract,
    extract_in_windows,
    feature_length,
    lead,
    roc_area,
)


class Doubling(nn.Module):
    """A net whose layers are known: the image, and twice the image at half the side (its top-left pixels)."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def activations(self, x):
        self.calls.append(len(x))
        return [x, 2 * x[:, :, ::2, ::2]]


@pytest.fixture
def D():
    return build("svhn32", ndf=2)[1]


@pytest.fixture
def images():
    return torch.randint(256, (10, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_features_are_pooled_flattened_and_concatenated_image_side_first():
    x = torch.arange(2 * 8 * 8.0).view(2, 1, 8, 8)
    # each cell of the 2 x 2 grid keeps its largest value, the lower right one; the second layer has 0, 2, 4, 6 of a row
    first = [27, 31, 59, 63]
    second = [2 * 18, 2 * 22, 2 * 50, 2 * 54]
    truth = torch.tensor([first + second, [64 + v for v in first] + [128 + v for v in second]]).float()
    torch.testing.assert_close(extract(Doubling(), x, grid=2), truth, rtol=0, atol=0)
    torch.testing.assert_close(extract(Doubling(), x, layers=[1], grid=2), truth[:, 4:], rtol=0, atol=0)
    torch.testing.assert_close(extract(Doubling(), x, layers=[1, 0], grid=2, batch_size=1), truth, rtol=0, atol=0)


def test_windows_overlap_and_the_last_layer_is_left_out():
    x = torch.arange(72.0).view(1, 2, 6, 6).repeat(300, 1, 1, 1)  # more than are taken at once
    x[299] += 100
    found = extract_in_windows(Doubling(), x)
    corners = [21, 23, 33, 35]  # the lower right of each window of 4, two apart
    assert found.shape == (300, 8) and found[0].tolist() == found[298].tolist() == corners + [36 + c for c in corners]
    assert found[299].tolist() == (found[0] + 100).tolist()
    assert extract_in_windows(Doubling(), x[:1], window=2, stride=4).tolist() == [[7, 11, 31, 35, 43, 47, 67, 71]]


def test_channels_come_before_cells_whatever_the_memory_format():
    x = torch.arange(3 * 4 * 4.0).view(1, 3, 4, 4)
    torch.testing.assert_close(extract(Doubling(), x, layers=[0]), x.flatten(1), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "length"), [("imagenet32", 28672), ("tutorial64", 15360), ("svhn32", 7168)])
def test_lengths_of_the_papers_nets(name, length):
    assert feature_length(ARCHITECTURES[name]) == length


def test_length_is_what_extract_gives(D, images):
    for layers, grid in ((None, 4), ([0, 2], 4), ([1], 2)):
        assert extract(D, images, layers, grid).shape == (10, feature_length(D.description, layers, grid))
    assert feature_length(describe("svhn32", ndf=2), [0], 1) == 2


def test_uint8_and_float_images_give_the_same(D, images):
    x = images.float() / 127.5 - 1
    truth = extract(D, x)
    assert torch.equal(extract(D, images), truth)
    frozen = images.numpy().copy()
    frozen.flags.writeable = False  # as a memory map is
    assert torch.equal(extract(D, frozen), truth)
    torch.testing.assert_close(extract(D, images, batch_size=3), truth)
    torch.testing.assert_close(extract(D, images, dtype=torch.bfloat16), truth.bfloat16(), rtol=0, atol=0)
    torch.testing.assert_close(extract(D, images, autocast=True), truth, rtol=0.05, atol=0.05)


def test_extract_leaves_the_net_as_it_was(D, images):
    D.train()
    before = {name: value.clone() for name, value in D.state_dict().items()}
    extract(D, images)
    assert D.training
    assert all(torch.equal(value, before[name]) and value.is_contiguous() for name, value in D.state_dict().items())


# --- bad input


def test_errors_are_one_line(D, images):
    for match, arguments in {
        r"layers = \[3\]: the net has 0, 1, 2": {"layers": [1, 3]},
        r"layers = \[\]: the net has 0, 1, 2": {"layers": []},
        "cannot be pooled": {"grid": 5},
        "dtype": {"dtype": torch.int32},
        "0 images": {"x": images[:0]},
        "images of .3, 64, 64. do not fit a net for .3, 32, 32.: change size": {"x": images.repeat(1, 1, 2, 2)},
        "images of .1, 32, 32. do not fit": {"x": images[:, :1]},
    }.items():
        with pytest.raises(ValueError, match=match) as error:
            extract(D, **{"x": images} | arguments)
        assert "\n" not in str(error.value)


def test_features_that_are_not_finite_are_named(D):
    x = torch.zeros(5, 1, 4, 4)
    x[3] = torch.nan
    with pytest.raises(ValueError, match=r"image 3 in layer 0 are not finite"):
        extract(Doubling(), x, layers=[0], batch_size=2)
    with pytest.raises(ValueError, match=r"image 1 in layer 0 are not finite as torch.float16"):
        extract(
            Doubling(), torch.tensor([1.0, 1e5]).view(2, 1, 1, 1).expand(2, 1, 4, 4), layers=[0], dtype=torch.float16
        )


def test_less_device_memory_means_smaller_batches_said_once():
    class Small(Doubling):
        def activations(self, x):
            if len(x) > 2:
                raise torch.OutOfMemoryError
            return super().activations(x)

    x = torch.rand(9, 1, 8, 8)
    with pytest.warns(RuntimeWarning, match="smaller batches") as said:
        found = extract(Small(), x, grid=2, batch_size=8)
    assert len(said) == 1
    assert torch.equal(found, extract(Doubling(), x, grid=2))


# --- batch norm


def by_hand(layers, x, batch_size, eps=1e-5):
    """Mean over minibatches of each batch's mean and biased variance, layer by layer, in NumPy."""
    sums = []
    starts = range(0, max(len(x) - batch_size, 0) + 1, batch_size)
    for start in starts:
        h = x[start : start + batch_size]
        found = []
        for conv, norm, activation in layers:
            with torch.no_grad():
                h = conv(h)
            if norm is not None:
                a = h.double().numpy()
                axes = tuple(i for i in range(a.ndim) if i != 1)
                mean, variance = a.mean(axes, keepdims=True), a.var(axes, keepdims=True)
                found.append((mean.ravel(), variance.ravel()))
                gain, bias = (p.detach().numpy().reshape(mean.shape) for p in (norm.weight, norm.bias))
                h = torch.from_numpy((a - mean) / np.sqrt(variance + eps) * gain + bias).float()
            h = activation(h)
        sums.append(found)
    return [[np.mean([batch[i][j] for batch in sums], 0) for j in (0, 1)] for i in range(len(sums[0]))]


@pytest.mark.parametrize("rows", [12, 14, 3])  # whole minibatches; a smaller last one, dropped; the only one
def test_statistics_of_D_are_means_over_minibatches_of_biased_ones(D, rows):
    x = torch.randint(256, (rows, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    layers = [(layer[0], layer[1] if len(layer) == 3 else None, nn.LeakyReLU(0.2)) for layer in D.layers]
    truth = by_hand(layers, x[shuffled(rows)].float() / 127.5 - 1, 4)
    D.train().requires_grad_(False)
    assert recalibrate_batchnorm(D, x, batch_size=4) is D
    norms = [m for m in D.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == len(truth) == 2
    for norm, (mean, variance) in zip(norms, truth, strict=True):
        np.testing.assert_allclose(norm.running_mean, mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(norm.running_var, variance, rtol=1e-4)
        assert norm.momentum == 0.1
        assert not norm._forward_hooks
    assert not any(m.training for m in D.modules())
    assert not any(p.requires_grad for p in D.parameters())


def test_statistics_of_G_on_its_projection():
    G = build("svhn32", ngf=2)[0]
    z = torch.randn(8, 100, generator=torch.Generator().manual_seed(2))
    recalibrate_batchnorm(G, z, batch_size=4)
    h = G.projection(z[shuffled(8)]).detach().double().view(2, 4, -1)
    np.testing.assert_allclose(G.projection_bn.running_mean, h.mean(1).mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(G.projection_bn.running_var, h.var(1, correction=0).mean(0), rtol=1e-4)


def test_frozen_statistics_of_one_minibatch_normalise_as_the_minibatch_does(D, images):
    x = images.float() / 127.5 - 1
    with torch.no_grad():
        live = D.train()(x)
        frozen = recalibrate_batchnorm(D, x, batch_size=10)(x)
    torch.testing.assert_close(frozen, live, rtol=1e-4, atol=1e-5)


def test_a_net_without_batch_norm_is_returned_in_eval_mode():
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.LeakyReLU())
    assert not recalibrate_batchnorm(net, torch.zeros(2, 1, 4, 4)).training


def test_recalibration_that_fails_changes_nothing(D, images):
    before = {name: value.clone() for name, value in D.state_dict().items() if "running" in name}
    x = images.float()
    x[7] = torch.nan
    for bad, match in ((x, "not finite"), (images[:1], "at least two")):
        with pytest.raises(ValueError, match=match):
            recalibrate_batchnorm(D, bad, batch_size=5)
    with pytest.raises(RuntimeError):
        recalibrate_batchnorm(D, torch.zeros(4, 5, 32, 32))  # five channels
    assert all(torch.equal(D.state_dict()[name], value) for name, value in before.items())


def test_statistics_are_of_mixed_minibatches_though_images_lie_sorted():
    norm = nn.BatchNorm2d(1)
    x = torch.cat([torch.full((64, 1, 2, 2), -1.0), torch.full((64, 1, 2, 2), 1.0)])  # two classes, black and white
    recalibrate_batchnorm(nn.Sequential(norm), x, batch_size=16)
    assert norm.running_var > 0.8, "of sorted minibatches it is 0, of all images 1"
    assert abs(norm.running_mean) < 1e-6


def test_the_order_is_a_random_one_of_all_rows_and_always_the_same():
    order = shuffled(1000)
    assert sorted(order) == list(range(1000))
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.15
    assert (order == shuffled(1000)).all()


def test_the_area_under_the_roc_curve_is_scikit_learns_ties_included():
    rng = np.random.default_rng(0)
    X, truth = rng.integers(0, 6, (60, 4)).astype(float), rng.random((60, 3)) < [0.5, 0.2, 0.8]
    theirs = [[roc_auc_score(thing, feature) for feature in X.T] for thing in truth.T]
    np.testing.assert_allclose(roc_area(X, truth), theirs, rtol=0, atol=1e-12)
    assert np.isnan(roc_area(X, np.ones((60, 1), bool))).all()


def told(n, rng, strength):
    """Two things, each there in half of the places, and six features of which 4 and 1 speak for them."""
    truth = rng.random((n, 3, 2)) < 0.5
    X = rng.normal(size=(n, 3, 6))
    X[..., [4, 1]] += strength * truth
    return X, truth


def test_each_thing_gets_its_feature_and_the_other_half_tests_it():
    X, truth = told(300, np.random.default_rng(1), 3.0)
    best, chosen, known = best_alone(X, truth, 0)
    assert best.tolist() == [4, 1] and chosen.shape == known.shape == (150, 3, 2)
    assert areas(chosen, known).min() > 0.95  # two normals three apart: 0.983
    rows = [np.flatnonzero((X[..., best] == image).all((1, 2))).item() for image in chosen]
    assert len(set(rows)) == 150 and (truth[rows] == known).all()


def test_a_feature_chosen_from_noise_is_chance_on_the_other_half():
    X, truth = told(400, np.random.default_rng(2), 0.0)
    _, chosen, known = best_alone(np.repeat(X, 20, -1) + np.random.default_rng(3).normal(size=(400, 3, 120)), truth, 0)
    np.testing.assert_allclose(areas(chosen, known), 0.5, atol=0.06)  # three standard errors


def test_a_lead_errs_by_images_and_by_the_other_nets():
    rng = np.random.default_rng(4)
    truth = told(500, rng, 0)[1]
    ours, *others = (
        best_alone(rng.normal(size=(500, 3, 2)) + strength * truth, truth, 0)[1] for strength in (2, 1, 1, 0)
    )
    known = best_alone(np.zeros((500, 3, 2)), truth, 0)[2]
    value, low, high = lead(ours, others, known, 0)
    own, *theirs = (areas(chosen, known).mean() for chosen in (ours, *others))
    assert value == pytest.approx(own - np.mean(theirs))
    images = np.std([areas(ours[rows], known[rows]).mean() for rows in rng.integers(250, size=(200, 250))])
    reach = stats.t.ppf(0.975, 2) * (np.var(theirs, ddof=1) * 4 / 3) ** 0.5  # of nets alone
    assert high - value == pytest.approx(value - low)
    assert reach < high - value < reach + 3 * stats.t.ppf(0.975, 2) * images


def test_a_lead_over_nets_of_its_own_kind_is_none_in_nineteen_of_twenty():
    rng = np.random.default_rng(5)
    known, none = np.zeros((40, 1, 1), bool), []
    known[:20] = True
    for _ in range(100):
        nets = [rng.normal(size=(40, 1, 1)) + rng.normal(0, 0.5) * known for _ in range(6)]
        value, low, high = lead(nets[0], nets[1:], known, 0, resamples=20)
        none.append(low < 0 < high)
    assert sum(none) >= 90


def test_two_random_nets_do_not_tell_how_far_random_nets_lie_apart():
    known = np.zeros((4, 1, 1), bool)
    known[:2] = True
    with pytest.raises(ValueError, match="2 random nets: three at least"):
        compare_alone([np.zeros((4, 1, 1))] * 3, known, 0)


def test_a_thing_that_is_everywhere_cannot_choose():
    with pytest.raises(ValueError, match="thing 1 is everywhere or nowhere in 5 of the images: give more"):
        best_alone(np.arange(20.0).reshape(10, 1, 2), np.array([[[i % 2, 1]] for i in range(10)], bool), 0)
