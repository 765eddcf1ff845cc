"""Guided backprop's rules written out and against captum's on a ReLU net; Grad-CAM and top responses by hand.

Images drawn by ascent, against the best that there is.
"""

import pytest
import torch
from captum.attr import GuidedBackprop
from torch import nn

from lib.images.data import to_uint8
from lib.internals import attribution
from lib.internals.attribution import (
    grad_cam,
    guided_backprop,
    maximise,
    to_panel,
    top_responses,
)
from lib.nets import models

CAPTUM_WARNS = "backward hooks on ReLU"
TARGETS = ["logit", (0, 3), (1, 5), (-1, 0)]


class Response(nn.Module):
    """D with the target as its only output, as captum's GuidedBackprop wants it."""

    def __init__(self, D, target):
        super().__init__()
        self.D, self.target = D, target

    def forward(self, x):
        return attribution._response(self.D, x, self.target)


def build(relu=False, **changes):
    """Build a small D in eval mode whose batch norm has seen data; with `relu`, LeakyReLU is swapped for ReLU."""
    _, D = models.build("svhn32", **{"size": 16, "ndf": 8} | changes)
    generator = torch.Generator().manual_seed(1)
    for module in D.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.mul_(10)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    if relu:
        for layer in D.layers:
            layer[-1] = nn.ReLU(inplace=True)
    return D.eval()


def images(n=5, nc=3, size=16):
    return torch.rand(n, nc, size, size, generator=torch.Generator().manual_seed(2)) * 2 - 1


def by_hand(maps=2, size=8):
    """Build a D of one layer whose map c shows, at (i, j), channel 0's pixel (2 i, 2 j) times c + 1."""
    _, D = models.build("svhn32", size=size, ndf=maps, nc=1, kernel=3)
    weight = torch.zeros(maps, 1, 3, 3)
    weight[:, 0, 1, 1] = torch.arange(maps) + 1.0
    D.layers[0][0].weight.data = weight
    return D.eval()


# the truth table: sign of the forward input h, upstream gradient g, what goes down at slope 0.2
TRUTH = {
    "h": [3.0, 3.0, -3.0, -3.0, 0.0, 0.0],
    "g": [5.0, -5.0, 5.0, -5.0, 5.0, -5.0],
    "plain": [5.0, -5.0, 1.0, -1.0, 1.0, -1.0],
    "clamp": [5.0, 0.0, 1.0, 0.0, 1.0, 0.0],
    "springenberg": [5.0, 0.0, 0.0, 0.0, 0.0, 0.0],
}


@pytest.mark.parametrize("rule", attribution.RULES)
@pytest.mark.parametrize("inplace", [True, False])
def test_truth_table(rule, inplace):
    h = torch.tensor(TRUTH["h"], requires_grad=True)
    activation = nn.LeakyReLU(0.2, inplace=inplace)
    with attribution._rule(activation, rule):
        y = activation(h * 1)
    torch.testing.assert_close(y.detach(), torch.tensor([3, 3, -0.6, -0.6, 0, 0]))  # forward is untouched
    y.backward(torch.tensor(TRUTH["g"]))
    torch.testing.assert_close(h.grad, torch.tensor(TRUTH[rule]))


@pytest.mark.parametrize("target", TARGETS)
def test_plain_is_autograd(target):
    D, x = build(), images().requires_grad_()
    Response(D, target)(x).sum().backward()
    torch.testing.assert_close(guided_backprop(D, x, target, "plain"), x.grad, rtol=0, atol=0)


@pytest.mark.parametrize("target", TARGETS)
def test_equals_captum_on_a_relu_net(target):
    D, x = build(relu=True), images()
    with pytest.warns(UserWarning, match=CAPTUM_WARNS):
        expected = GuidedBackprop(Response(D, target)).attribute(x.clone().requires_grad_()).detach()
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(guided_backprop(D, x, target), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(guided_backprop(D, x, target, "clamp"), expected, rtol=0, atol=1e-6)


def test_captum_returns_the_plain_gradient_of_a_leaky_net_and_we_do_not():
    D, x = build(), images()
    plain, clamp, springenberg = (guided_backprop(D, x, "logit", rule) for rule in attribution.RULES)
    with pytest.warns(UserWarning, match=CAPTUM_WARNS):
        theirs = GuidedBackprop(D).attribute(x.clone().requires_grad_())
    torch.testing.assert_close(theirs, plain)
    size = plain.abs().mean()
    for a, b in ((plain, clamp), (plain, springenberg), (clamp, springenberg)):
        assert (a - b).abs().mean() > 0.1 * size


def test_an_images_gradient_does_not_depend_on_its_neighbours():
    D, x = build().train(), images()
    torch.testing.assert_close(guided_backprop(D, x, (1, 0))[2:3], guided_backprop(D, x[2:3], (1, 0)))


def test_a_filters_gradient_by_hand():
    D, x = by_hand(), torch.full((1, 1, 8, 8), -0.5)
    x[0, 0, 4, 6] = 0.25  # map 1 is strongest there: 2 x 0.25
    expected = torch.zeros_like(x)
    expected[0, 0, 4, 6] = 2
    for rule in attribution.RULES:
        torch.testing.assert_close(guided_backprop(D, x, (0, 1), rule), expected)


@pytest.mark.parametrize(("rule", "slope"), [("plain", 0.2), ("clamp", 0.2), ("springenberg", 0.0)])
def test_a_filter_that_responds_with_nothing_positive(rule, slope):
    x = torch.full((1, 1, 8, 8), -0.5)
    gradient = guided_backprop(by_hand(), x, (0, 1), rule)
    assert gradient.count_nonzero() == (slope > 0)  # one position of the many equal ones
    torch.testing.assert_close(gradient.sum(), torch.tensor(2 * slope))


def test_grad_cam_by_hand():
    """The maps show pixels p and 2 p; the head weighs them by 0.5 and 0.25 in the mean: 0.5 p + 0.25 (2 p) = p."""
    D, x = by_hand(), torch.zeros(1, 1, 8, 8)
    p = torch.arange(16.0).view(4, 4) / 15 - 0.4  # of both signs
    x[0, 0, ::2, ::2] = p
    head = torch.zeros(1, 2, 4, 4)
    head[0, 0, 0, 0], head[0, 1, 3, 3] = 8.0, 4.0  # means over the 16 positions: 0.5 and 0.25
    D.head.weight.data = head.flatten(1)
    small = torch.where(p > 0, p, 0.0)[None, None]  # Grad-CAM's own ReLU cuts what LeakyReLU left of the negatives
    expected = nn.functional.interpolate(small, size=(8, 8), mode="bilinear")
    torch.testing.assert_close(grad_cam(D, x), expected)
    D.head.weight.data = -head.flatten(1)  # now only the negatives speak for the logit, which LeakyReLU left 0.2 of
    small = torch.where(p < 0, -0.2 * p, 0.0)[None, None]
    expected = nn.functional.interpolate(small, size=(8, 8), mode="bilinear")
    torch.testing.assert_close(grad_cam(D, x), expected)


@pytest.mark.parametrize("layer", [0, 1, -1])
@pytest.mark.parametrize("frozen", [False, True])
def test_grad_cam_takes_every_layer_and_target(layer, frozen):
    D, x = build().requires_grad_(not frozen), images()
    for target in ("logit", (-1, 2)):
        h = D.activations(x)[layer].detach().requires_grad_()
        above = D.layers[layer + 1 :] if layer >= 0 else []
        top = nn.Sequential(*above)(h * 1)
        response = D.head(top.flatten(1)) if target == "logit" else top[:, 2].amax((1, 2))
        (gradient,) = torch.autograd.grad(response.sum(), h)
        small = (gradient.mean((2, 3), keepdim=True) * h.detach()).sum(1, keepdim=True).relu()
        cam = grad_cam(D, x, layer, target)
        assert cam.any()
        assert not cam.requires_grad
        torch.testing.assert_close(cam, nn.functional.interpolate(small, size=(16, 16), mode="bilinear"))


def test_top_responses_by_hand():
    D = by_hand()
    x = torch.zeros(7, 1, 8, 8)
    x[torch.arange(7), 0, torch.arange(7) // 2 * 2, 2] = torch.tensor([0.1, 0.5, -0.9, 0.3, 0.5, 0.0, 0.7])
    for batch_size in (2, 256):
        indices, values = top_responses(D, x, 0, 1, k=4, batch_size=batch_size)
        assert indices.tolist() == [6, 1, 4, 3]  # of the equal 1 and 4 the first
        torch.testing.assert_close(values, torch.tensor([1.4, 1.0, 1.0, 0.6]))


def test_top_responses_of_images_at_rest():
    D, x = build(), to_uint8(images(9))
    indices, values = top_responses(D, x, -1, 3, k=9)
    assert sorted(indices.tolist()) == list(range(9))
    assert (values.diff() <= 0).all()
    assert not values.requires_grad


def test_to_panel():
    g = torch.arange(-100.0, 101)[None, None, None] * torch.tensor([1.0, 1e-6, 0.0]).view(3, 1, 1, 1)
    panel = to_panel(g)
    torch.testing.assert_close(panel[0, 0, 0, 100:], (torch.arange(101) / 99.01).clamp(max=1), atol=1e-2, rtol=0)
    torch.testing.assert_close(panel[0], -panel[0].flip(-1))  # 0 stays 0
    torch.testing.assert_close(panel[1], panel[0])
    assert not panel[2].any()
    few = torch.zeros(1, 1, 40, 40)
    few[0, 0, 0, 0] = -0.5
    assert to_panel(few)[0, 0, 0, 0] == -1


CALLS = {
    "guided_backprop": lambda D: guided_backprop(D, images(), "logit"),
    "grad_cam": lambda D: grad_cam(D, images(), 0),
    "top_responses": lambda D: top_responses(D, images(), 0, 0, 2),
    "maximise": lambda D: maximise(D, (1, 0), n=1, steps=2),
    "randomise_downwards": lambda D: [d(images()) for _, d in attribution.randomise_downwards(D, images())],
}


def state(D):
    return (
        [(name, type(m), id(m), m.training) for name, m in D.named_modules()],
        [(p.requires_grad, p.grad) for p in D.parameters()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in D.modules()],
    )


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fails", [False, True])
def test_leaves_the_net_as_it_was(call, fails, monkeypatch):
    D = build().train()
    D.layers[1][1].eval()  # each module's own mode comes back
    D.head.weight.requires_grad_(False)
    before, weights = state(D), {k: v.clone() for k, v in D.state_dict().items()}
    if fails:

        def fail(h):
            raise RuntimeError("broken layer")

        monkeypatch.setattr(D.layers[1][0], "forward", fail)
        with pytest.raises(RuntimeError, match="broken layer"):
            CALLS[call](D)
    else:
        CALLS[call](D)
    assert state(D) == before
    for name, value in D.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_leaves_the_images_as_they_were():
    D, x = build(), images()
    before = x.clone()
    with torch.no_grad():
        guided_backprop(D, x, "logit")
        grad_cam(D, x)
    assert torch.equal(x, before)
    assert not x.requires_grad


@pytest.mark.parametrize("target", TARGETS)
def test_maximise_beats_nine_in_ten(target):
    """Nine in ten images of blocks, that is: noise excites a random net more, and is what `maximise` leaves out."""
    D, blocks = build(seed=1), nn.functional.interpolate(images(50)[..., :4, :4], scale_factor=4)
    drawn = maximise(D, target, n=2, seed=1)
    assert drawn.shape == (2, 3, 16, 16) and drawn.abs().max() <= 1 and not drawn.requires_grad
    with torch.no_grad():
        assert attribution._response(D, drawn, target).mean() > attribution._response(D, blocks, target).quantile(0.9)
    assert torch.equal(drawn, maximise(D, target, n=2, seed=1))


def test_a_net_without_batch_norm_and_of_grey_images():
    D, x = build(nc=1), images(20, nc=1)
    for layer in D.layers:
        if isinstance(layer[1], nn.BatchNorm2d):
            layer[1] = nn.Identity()
    for method in attribution.METHODS:
        assert attribution.explain(D, x, "logit", method, 0).shape == (20, 1, 16, 16)
    assert [name for name, _ in attribution.randomise_downwards(D, x)] == ["logit", "layer 1", "layer 0"]
    assert maximise(D, "logit", n=1, steps=2).shape == (1, 1, 16, 16)


@pytest.fixture(scope="module")
def D():
    return models.build("imagenet32", ngf=8)[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda D, x: guided_backprop(D, x, (9, 0)), "layer 9: this net has conv layers 0 to 5"),
        (lambda D, x: guided_backprop(D, x, (-7, 0)), "layer -7: this net has conv layers 0 to 5"),
        (lambda D, x: guided_backprop(D, x, (5, 600)), "map 600: layer 5 has maps 0 to 511"),
        (lambda D, x: guided_backprop(D, x, (-1, -1)), "map -1: layer 5 has maps 0 to 511"),
        (lambda D, x: guided_backprop(D, x, "loss"), "unknown target 'loss'"),
        (lambda D, x: guided_backprop(D, x, "logit", "relu"), "unknown rule 'relu': choose one of plain, clamp"),
        (
            lambda D, x: guided_backprop(D, x[:, :1], "logit"),
            r"images of \(1, 32, 32\) do not fit a net for \(3, 32, 32\)",
        ),
        (lambda D, x: guided_backprop(D, x[0], "logit"), r"images of \(32, 32\) do not fit a net"),
        (lambda D, x: guided_backprop(D, to_uint8(x), "logit"), "images are torch.uint8"),
        (lambda D, x: attribution.explain(D, x, "logit", "lime"), "unknown method 'lime': choose one of plain, clamp"),
        (lambda D, x: maximise(D, (9, 0)), "layer 9: this net has conv layers 0 to 5"),
        (lambda D, x: grad_cam(D, x, 6), "layer 6: this net has conv layers 0 to 5"),
        (lambda D, x: grad_cam(D, x, 5, (2, 0)), "layer 5: a map of layer 2 does not depend on it; choose 0 to 2"),
        (lambda D, x: top_responses(D, x, 6, 0), "layer 6: this net has"),
        (lambda D, x: top_responses(D, x, 0, 128), "map 128: layer 0 has maps 0 to 127"),
        (lambda D, x: top_responses(D, x, 0, 0, k=3), "k = 3: choose 1 to 2"),
        (lambda D, x: top_responses(D, x[..., :16], 0, 0, k=2), r"images of \(3, 32, 16\) do not fit"),
    ],
)
def test_errors(call, message, D):
    with pytest.raises(ValueError, match=message):
        call(D, images(2, size=32))
