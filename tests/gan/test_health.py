"""Health: what is measured in a net and in a log, and which snapshot is chosen."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import linalg
from torchmetrics.image.fid import FrechetInceptionDistance

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


def of_random_images():
    x = torch.randint(0, 256, (64, 1, 16, 16), dtype=torch.uint8)
    return diagnostics.Health(x, torch.arange(64), torch.device("cpu"))


def test_measuring_finds_what_was_killed_and_changes_nothing():
    G, D = models.from_description(NET)
    z, health = torch.randn(64, 100), of_random_images()
    before = [v.clone() for net in (G, D) for v in net.state_dict().values()]
    well = health.measure(G, D, z)
    assert well["dead_G"] == well["dead_D"] == 0
    assert all(map(torch.equal, before, [v for net in (G, D) for v in net.state_dict().values()]))
    with torch.no_grad():
        G.layers[0][1].weight[:4] = 0  # 4 of 8 maps of G's second layer; 16 + 8 in all
        D.layers[0][0].weight[:3] = 0  # 3 of 8 of D's first; 8 + 16 in all
    ill = health.measure(G, D, z)
    assert (ill["dead_G"], ill["dead_D"]) == (pytest.approx(4 / 24), pytest.approx(3 / 24))


def test_health_is_measured_in_batch_statistics():
    """As the authors sample: running averages, which lag behind, count for nothing."""
    G, D = models.from_description(NET)
    z, health = torch.randn(64, 100), of_random_images()
    usual = health.measure(G.eval(), D.eval(), z)
    for net in (G, D):
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.fill_(50)
                module.running_var.fill_(1e9)
    assert health.measure(G, D, z) == usual and usual["variety"] > 0.01


def test_D_is_asked_about_images_held_out():
    """Answers written out: a D that looks at one pixel, batch norm left out, and images that are all of one grey."""

    class Plain(torch.nn.Module):
        def forward(self, x):
            return x[:, 0, 0, 0] if x.dim() == 4 else x[:, :1, None, None]

    known, unseen, z = (torch.full((4, 1, 2, 2), v) for v in (2.0, -1.0, 0.0))
    health = of_random_images()
    health.known, health.unseen = known, unseen
    asked = health.ask(Plain(), Plain(), z[:, 0, 0])
    expected = {name: 1 / (1 + math.exp(-v)) for name, v in {"D_known": 2, "D_unseen": -1, "D_samples": 0}.items()}
    assert {name: found.tolist() for name, found in asked.items()} == {
        name: pytest.approx([value] * 4) for name, value in expected.items()
    }


def test_health_takes_training_images_from_the_rows_and_others_from_the_rest():
    x = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    health = diagnostics.Health(x, torch.tensor([1, 3, 5]), torch.device("cpu"))
    assert data.to_uint8(health.known).flatten().tolist() == [1, 3, 5]
    assert data.to_uint8(health.unseen).flatten().tolist() == [0, 2, 4, 6, 7, 8, 9]
    G, D = models.from_description(NET)
    x = torch.randint(0, 256, (40, 1, 16, 16), dtype=torch.uint8)
    z = torch.randn(8, 100)
    assert "D_unseen" in diagnostics.Health(x, torch.arange(30), torch.device("cpu")).measure(G, D, z)
    for rows in (40, 39):  # of one image there are no batch statistics
        assert "D_unseen" not in diagnostics.Health(x, torch.arange(rows), torch.device("cpu")).measure(G, D, z)


def test_health_takes_images_from_the_first_class_to_the_last(monkeypatch):
    monkeypatch.setattr(diagnostics, "ASKED", 4)
    health = diagnostics.Health(
        torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1), torch.arange(7), torch.device("cpu")
    )
    assert data.to_uint8(health.known).flatten().tolist() == [0, 1, 3, 5]


def test_how_far_a_net_has_come():
    """Weights of 0.06 and -0.06 in turn spread three times as widely as the start's; a bias of -0.3 is one."""
    _, D = models.build("imagenet32", size=16, nc=2, ndf=8)
    assert diagnostics.spreads(D)["weights"].tolist() == pytest.approx([1] * 5, abs=0.15)
    for layer in D.layers:
        layer[0].weight.data.view(-1)[::2], layer[0].weight.data.view(-1)[1::2] = 0.06, -0.06
    for norm in (layer[1] for layer in D.layers[1:]):
        norm.bias.data.fill_(-0.3), norm.weight.data.fill_(0.9)
    D.head.weight.data.view(-1)[::2], D.head.weight.data.view(-1)[1::2] = 0.02, 0.1
    found = diagnostics.spreads(D)
    assert list(found.index) == ["convolution 1", "convolution 2", "convolution 3", "convolution 4", "head"]
    assert found["weights"].tolist() == pytest.approx([3, 3, 3, 3, 2], rel=0.01)
    assert found["gain"].tolist() == pytest.approx([math.nan, *[0.9] * 3, math.nan], nan_ok=True)
    assert found["bias"].tolist() == pytest.approx([math.nan, *[-0.3] * 3, math.nan], nan_ok=True)


def log(**changes):
    healthy = {"step": range(1, 101), "loss_D": 1.2, "variety": 0.9, "dead_G": 0.0, "dead_D": 0.0}
    return pd.DataFrame(healthy | changes)


def test_signs_of_failure():
    assert diagnostics.signs(log()) == []
    won = np.where(np.arange(100) < 60, 1.2, 0.01)
    (sign,) = diagnostics.signs(log(loss_D=won))
    assert sign.startswith("D's loss is within 0.05 of the least") and sign.endswith("(minibatches 69 to 100)")
    (sign,) = diagnostics.signs(log(loss_D=won + 0.3251), real_label=0.9)  # -0.9 ln 0.9 - 0.1 ln 0.1
    assert sign.startswith("D's loss") and not diagnostics.signs(log(loss_D=won + 0.4), real_label=0.9)
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
    asked = {"D_known": 0.8, "D_samples": 0.2}
    assert diagnostics.signs(log(D_unseen=0.51, **asked)) == []
    once = np.where(np.arange(100) == 50, 0.3, 0.7)
    assert diagnostics.signs(log(D_unseen=once, **asked)) == []
    (sign,) = diagnostics.signs(log(D_unseen=0.49, **asked))
    assert "knows its images by heart" in sign
    for fooled in (0.8, 0.9):  # D takes samples for real: whatever it says of held-out images, it tells nothing apart
        assert diagnostics.signs(log(D_known=0.8, D_unseen=0.3, D_samples=fooled)) == []


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
    held = torch.arange(1000, len(digits))
    found = selection.frechet_distances({7: path}, digits.x, held, extractor, seed=3)
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
        metric = FrechetInceptionDistance(extractor, normalize=True)
        metric.update(digits.x[held].float() / 255, real=True)
        metric.update(samples, real=False)
        return metric.compute().item()

    real = distance(digits.x[training].float() / 255)
    assert 5 * real < min(distance(digits.x[:1].expand(400, -1, -1, -1) / 255.0), distance(torch.rand(400, 1, 16, 16)))


def test_the_earliest_of_the_nearest_is_chosen():
    assert selection.choose(pd.Series({10: 3.0, 20: 1.0, 30: 1.0}), 40) == 20
    assert selection.choose(pd.Series(dtype=float), 40) == 40, "none held out: the last"


def test_a_snapshot_can_be_kept_by_its_count():
    distances, steps = pd.Series({10: 3.0, 20: 1.0, 30: 2.0}), [10, 20, 30]
    assert [selection.choose(distances, 40, steps, keep) for keep in range(4)] == [20, 10, 20, 30]
    selection.require_snapshot(3, 3)
    for keep in (-1, 4):
        with pytest.raises(ValueError, match=f"keep = {keep}: there are 3 snapshots"):
            selection.choose(distances, 40, steps, keep)
        with pytest.raises(ValueError, match=f"keep = {keep}: there are 3 snapshots"):
            selection.require_snapshot(keep, 3)


def test_ds_weights_are_averaged_over_snapshots(tmp_path):
    """Of two snapshots whose weights are 1 and 4: 2.5; of one: itself. Statistics are those on the images."""
    net, paths = models.describe("tutorial64", size=16, nc=1, ngf=8, ndf=8), []
    for value in (1.0, 4.0):
        G, D = models.from_description(net)
        for weight in D.parameters():
            weight.data.fill_(value)
        paths.append(tmp_path / f"{value}.safetensors")
        weights.save_net(paths[-1], G, D, {})
    x = torch.randint(0, 256, (64, 1, 16, 16), dtype=torch.uint8)
    D = selection.average_D(paths, x)
    assert {weight.unique().item() for weight in D.parameters()} == {2.5}
    h = D.layers[1][0](D.layers[0](data.to_float(x)))
    torch.testing.assert_close(D.layers[1][1].running_mean, h.mean((0, 2, 3)))
    assert {weight.unique().item() for weight in selection.average_D(paths[1:], x).parameters()} == {4.0}


def test_an_average_needs_its_snapshots():
    selection.require_snapshot(3, 3, 3)
    for keep, average in ((0, 2), (2, 3), (3, -1)):
        with pytest.raises(ValueError, match=f"average = {average}: say with keep which snapshot"):
            selection.require_snapshot(keep, 3, average)


def test_the_extractor_learns_the_labels_it_is_given(digits):
    """It tells held-out digits apart; where there are no two classes it stays random, normalised on the images."""
    extractor = selection.fit_extractor(digits, torch.arange(0, len(digits), 2), 0)
    held = digits[torch.arange(1, len(digits), 2)]
    with torch.no_grad():
        told = extractor.body.head(extractor.body.activations(data.to_float(held.x))[-1].flatten(1)).argmax(1)
    assert (told == held.y).float().mean() > 0.8
    random = selection.fit_extractor(replace(digits, y=torch.full_like(digits.y, -1)), torch.arange(1000), 0)
    features = random.body.layers[-1][:2](random.body.activations(data.to_float(digits.x))[-2])
    assert features.mean().abs() < 0.1 and 0.8 < features.std() < 1.2, "the last maps before LeakyReLU"


@pytest.fixture
def snapshots(tmp_path):
    for step in (1, 2):
        weights.save_net(tmp_path / f"{step}", *models.from_description(NET, step), {})
    return {step: tmp_path / f"{step}" for step in (1, 2)}


def test_a_handful_of_images_ranks_nothing(snapshots, digits):
    """Of 32 features, 64 images at least: a covariance of fewer than 33 has no inverse."""
    extractor = selection.fit_extractor(digits, torch.arange(1000), 0, most=640)
    assert extractor.num_features == 32 and selection.least_held_out(16) == 64
    assert [selection.least_held_out(size) for size in (32, 64)] == [128, 256]
    for n, compared in ((0, 0), (63, 0), (64, 2)):
        held = torch.arange(1000, 1000 + n)
        assert len(selection.frechet_distances(snapshots, digits.x, held, extractor, 0)) == compared


def test_each_snapshot_is_compared_by_itself(snapshots, digits):
    """Its distance does not depend on those that were compared before it."""
    extractor = selection.fit_extractor(digits, torch.arange(1000), 0, most=640)
    held = torch.arange(1000, 1200)
    both = selection.frechet_distances(snapshots, digits.x, held, extractor, 0)
    alone = selection.frechet_distances({2: snapshots[2]}, digits.x, held, extractor, 0)
    assert both[2] == pytest.approx(alone[2], rel=1e-6) and both[1] != pytest.approx(both[2], rel=1e-3)


def test_no_more_images_are_compared_than_the_fields_number(snapshots, digits, monkeypatch):
    extractor = selection.fit_extractor(digits, torch.arange(1000), 0, most=640)
    seen = {True: [], False: []}

    class Counted(FrechetInceptionDistance):
        def update(self, x, real):
            seen[real].append(x)
            super().update(x, real=real)

    monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance", Counted)
    monkeypatch.setattr(selection, "SAMPLES", (100, 128))
    selection.frechet_distances({1: snapshots[1]}, digits.x, torch.arange(1297), extractor, 0)
    assert {real: sum(map(len, xs)) for real, xs in seen.items()} == {True: 128, False: 128}
    drawn = torch.cat(seen[True])
    assert len(digits.y[[int((digits.x / 255.0 - x).abs().sum((1, 2, 3)).argmin()) for x in drawn]].unique()) == 10, (
        "of all classes, though rows are sorted by class"
    )


class OnMPS(torch.Tensor):
    """A tensor that says of itself that it lies on a Mac's GPU, and can there what it can."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.cpu:
            return args[0].as_subclass(torch.Tensor)
        if func in (torch.pdist, torch.Tensor.double):
            raise NotImplementedError(f"{func.__name__} on MPS")
        return super().__torch_function__(func, types, args, kwargs or {})


def test_variety_is_measured_on_a_mac():
    real = torch.tensor([0.0, 2.0, 4.0]).view(3, 1, 1, 1)
    with pytest.raises(NotImplementedError, match="pdist on MPS"):
        torch.pdist(real.flatten(1).as_subclass(OnMPS))
    assert diagnostics.variety((real / 2).as_subclass(OnMPS), real.as_subclass(OnMPS)) == pytest.approx(0.5)
