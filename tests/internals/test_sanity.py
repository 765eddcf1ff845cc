"""Maps compared and D randomised step by step: by hand, and against SciPy's rank correlation."""

import copy

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from lib.internals import attribution
from lib.internals.attribution import explain, grad_cam, guided_backprop, randomise_downwards, similarity, to_panel
from lib.nets import batchnorm, models


def build(**changes):
    """A small D in eval mode whose answers are large enough to compare."""
    _, D = models.build("svhn32", **{"size": 16, "ndf": 8} | changes)
    for module in D.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.mul_(10)
    return D.eval()


def images(n=5, nc=3, size=16):
    return torch.rand(n, nc, size, size, generator=torch.Generator().manual_seed(2)) * 2 - 1


def test_explain_is_each_methods_map_without_sign():
    D, x = build(), images()
    for rule in attribution.RULES:
        expected = guided_backprop(D, x, (1, 2), rule).abs().sum(1, keepdim=True)
        torch.testing.assert_close(explain(D, x, (1, 2), rule), expected)
    torch.testing.assert_close(explain(D, x, "logit", "grad-cam", 0), grad_cam(D, x, 0))


def test_similarity_by_hand():
    a = torch.arange(1.0, 257).view(1, 1, 16, 16)
    maps = torch.cat([a, a, a, a])
    others = torch.cat([a, a**3, 257 - a, torch.zeros_like(a)])
    compared = similarity(maps, others)
    torch.testing.assert_close(compared["rank correlation"], torch.tensor([1.0, 1.0, -1.0, 0.0]), atol=1e-3, rtol=0)
    assert compared["SSIM"][0] == pytest.approx(1, abs=1e-4)
    assert compared["SSIM"][2] < compared["SSIM"][1] < 0.99


def test_rank_correlation_is_scipys():
    r = torch.Generator().manual_seed(0)
    a, b = torch.rand(3, 1, 16, 16, generator=r), torch.rand(3, 1, 16, 16, generator=r)
    b, b[:, :, ::2] = b + a, 0.0  # ties, too
    ours = similarity(a, b)["rank correlation"]
    a, b = to_panel(a), to_panel(b)
    theirs = [spearmanr(one.flatten(), other.flatten()).statistic for one, other in zip(a, b, strict=True)]
    torch.testing.assert_close(ours, torch.tensor(theirs, dtype=torch.float32), atol=1e-4, rtol=0)


def weights_of(D):
    return {"logit": D.head.weight.clone()} | {
        f"layer {i}": layer[0].weight.clone() for i, layer in enumerate(D.layers)
    }


def test_layers_are_randomised_one_after_another_from_the_logit_down():
    D, x = build(), images(40)
    before, lost = weights_of(D), []
    for name, d in randomise_downwards(D, x, seed=3):
        lost.append(name)
        assert {k for k, w in weights_of(d).items() if not torch.equal(w, before[k])} == set(lost)
        assert d is not D and not d.training
        if name != "logit":
            fresh = d.layers[int(name[-1])][0].weight
            assert fresh.std().item() == pytest.approx(0.02, rel=0.15), "as an untrained net's"
        recalibrated = batchnorm.recalibrate_batchnorm(copy.deepcopy(d), x)
        torch.testing.assert_close(d(x), recalibrated(x))
    assert lost == ["logit", "layer 1", "layer 0"]
    again = [weights_of(d)["layer 0"] for _, d in randomise_downwards(D, x, seed=3)]
    assert torch.equal(again[-1], weights_of(d)["layer 0"])


def test_a_map_that_ignores_the_upper_layers_keeps_its_similarity():
    """The check itself: what the first layer alone explains survives until that layer goes."""
    D, x = build(), images(30)
    of_first = lambda d: explain(d, x, (0, 1), "plain")  # noqa: E731
    kept = [similarity(of_first(D), of_first(d))["rank correlation"].mean() for _, d in randomise_downwards(D, x)]
    assert kept[0] == pytest.approx(1, abs=1e-3) == kept[1]
    assert kept[2] < 0.5


def test_all_of_D_is_random_in_the_end_its_hidden_layer_too():
    D, x = build(hidden=12), images(40)
    stages = [(name, {k: v.clone() for k, v in d.state_dict().items()}) for name, d in randomise_downwards(D, x)]
    assert [name for name, _ in stages] == ["logit", "hidden", "layer 1", "layer 0"]
    weights = [name for name, value in D.state_dict().items() if name.endswith("weight") and value.dim() > 1]
    assert len(weights) == 4
    assert not [name for name in weights if torch.equal(stages[-1][1][name], D.state_dict()[name])]
    assert torch.equal(stages[0][1]["hidden.0.weight"], D.hidden[0].weight)


def test_layers_of_one_shape_become_different_layers():
    """Each is drawn from a stream of its own: no two of them share their first numbers."""
    *_, (_, d) = randomise_downwards(models.build("imagenet32", ndf=4, size=16)[1], images(20), seed=0)
    first = [layer[0].weight.flatten()[:50] for layer in d.layers]
    assert not any(torch.equal(a, b) for i, a in enumerate(first) for b in first[:i])
    *_, (_, other) = randomise_downwards(models.build("imagenet32", ndf=4, size=16)[1], images(20), seed=1)
    assert not torch.equal(d.layers[0][0].weight, other.layers[0][0].weight)
