"""The nets, layer by layer, against the facts that the paper and the authors' code give."""

import pytest
import torch
from torch import nn

from lib.nets import batchnorm, description, models
from lib.probe import features
from lib.study import chance


def conv_shapes(net):
    return [
        (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0])
        for m in net.modules()
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    ]


def test_imagenet32_is_the_authors_net():
    G, D = models.build("imagenet32")
    assert conv_shapes(D) == [
        (3, 128, 3, 1), (128, 128, 3, 2), (128, 256, 3, 1), (256, 256, 3, 2), (256, 512, 3, 1), (512, 512, 3, 2),
    ]  # fmt: skip
    assert conv_shapes(G) == [
        (512, 512, 3, 2), (512, 256, 3, 1), (256, 256, 3, 2), (256, 128, 3, 1), (128, 128, 3, 2), (128, 3, 3, 1),
    ]  # fmt: skip
    assert (G.projection.in_features, G.projection.out_features) == (256, 512 * 16)


def test_paper64_and_svhn32_and_the_tutorials_net():
    G, D = models.build("paper64")
    assert conv_shapes(D) == [(3, 128, 5, 2), (128, 256, 5, 2), (256, 512, 5, 2), (512, 1024, 5, 2)]
    assert conv_shapes(G) == [(1024, 512, 5, 2), (512, 256, 5, 2), (256, 128, 5, 2), (128, 3, 5, 2)]
    G, D = models.build("svhn32")
    assert conv_shapes(D) == [(3, 64, 5, 2), (64, 128, 5, 2), (128, 256, 5, 2)]
    assert G.description.prior == "gaussian" and G.description.nz == 100
    G, D = models.build("tutorial64")
    assert conv_shapes(D) == [(3, 64, 4, 2), (64, 128, 4, 2), (128, 256, 4, 2), (256, 512, 4, 2)]
    G, D = models.build("k5_64")
    assert conv_shapes(D) == [(3, 64, 5, 2), (64, 128, 5, 2), (128, 256, 5, 2), (256, 512, 5, 2)]


# the tutorial prints its own counts; the others follow from the shapes above, written out
COUNTS = {
    # G: 100*8192 + 2*(512+256+128+64) + 16*(512*256 + 256*128 + 128*64 + 64*3); D without its head's bias
    "tutorial64": (3_576_704, 2_765_568),
    "k5_64": (
        100 * 8192 + 2 * (512 + 256 + 128 + 64) + 25 * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 3),
        25 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 2 * (128 + 256 + 512) + 512 * 16,
    ),
    "paper64": (
        100 * 16384 + 2 * (16384 + 512 + 256 + 128) + 25 * (1024 * 512 + 512 * 256 + 256 * 128 + 128 * 3),
        25 * (3 * 128 + 128 * 256 + 256 * 512 + 512 * 1024) + 2 * (256 + 512 + 1024) + 1024 * 16,
    ),
    "imagenet32": (
        256 * 8192
        + 2 * (8192 + 512 + 256 + 256 + 128 + 128)
        + 9 * (512 * 512 + 512 * 256 + 256 * 256 + 256 * 128 + 128 * 128 + 128 * 3),
        9 * (3 * 128 + 128 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 512 * 512)
        + 2 * (128 + 256 + 256 + 512 + 512)
        + 512 * 16,
    ),
    "svhn32": (
        100 * 4096 + 2 * (4096 + 128 + 64) + 25 * (256 * 128 + 128 * 64 + 64 * 3),
        25 * (3 * 64 + 64 * 128 + 128 * 256) + 2 * (128 + 256) + 256 * 16,
    ),
}


@pytest.mark.parametrize("name", description.ARCHITECTURES)
def test_parameter_counts(name):
    counted = tuple(sum(p.numel() for p in net.parameters()) for net in models.build(name))
    assert counted == COUNTS[name]


@pytest.mark.parametrize(("name", "length"), [("imagenet32", 28_672), ("tutorial64", 15_360), ("svhn32", 7_168)])
def test_feature_lengths(name, length):
    net = description.describe(name)
    assert sum(net.maps(net.ndf)[1:]) * 16 == length


@pytest.mark.parametrize("name", description.ARCHITECTURES)
@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("nc", [1, 3])
def test_shapes_at_any_size_and_channel(name, size, nc):
    G, D = models.build(name, size=size, nc=nc, ngf=8, ndf=8)
    z = G.sample_z(2, torch.Generator().manual_seed(0))
    x = G(z)
    assert x.shape == (2, nc, size, size) and x.abs().max() <= 1
    assert D(x).shape == (2,)
    assert [h.shape[-1] for h in D.activations(x)] == [size // s for s in _falling(D)]
    assert torch.equal(G.activations(z)[-1], G(z))


def _falling(D):
    side, sides = 1, []
    for stride in D.description.strides:
        side *= stride
        sides.append(side)
    return sides


@pytest.mark.parametrize("name", description.ARCHITECTURES)
def test_the_guidelines(name):
    G, D = models.build(name, ngf=8, ndf=8)
    first, *others = D.layers
    assert not any(isinstance(m, nn.BatchNorm2d) for m in first), "no batch norm on D's input layer"
    assert all(isinstance(layer[1], nn.BatchNorm2d) for layer in others)
    assert all(layer[-1].negative_slope == 0.2 for layer in D.layers)
    *others, last = G.layers
    assert isinstance(last[-1], nn.Tanh) and len(last) == 2, "no batch norm on G's output layer"
    assert all(isinstance(layer[2], nn.ReLU) for layer in others)
    assert not any(isinstance(m, nn.MaxPool2d | nn.AvgPool2d) for net in (G, D) for m in net.modules())
    assert sum(isinstance(m, nn.Linear) for net in (G, D) for m in net.modules()) == 2, "z's projection and D's logit"


VARIANTS = [
    {"batch_norm": "D_input"}, {"batch_norm": "G_output"}, {"batch_norm": "none"}, {"resample": "pooling"},
    {"hidden": 24}, {"G_activation": "tanh"}, {"kernel": 4}, {"prior": "gaussian"}, {"project_bn": "channel"},
]  # fmt: skip


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda c: " ".join(f"{k}-{v}" for k, v in c.items()))
def test_every_variant_learns_and_gives_features(changes):
    """Each departs in its one point, sends a gradient to every weight, and keeps D's maps, which the features need."""
    G, D = models.build("paper64", **{"size": 32, "ngf": 8, "ndf": 8} | changes)
    x = G(G.sample_z(4, torch.Generator().manual_seed(0)))
    assert x.shape == (4, 3, 32, 32) and x.abs().max() <= 1
    D(x).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for net in (G, D) for p in net.parameters())
    assert [tuple(h.shape[1:]) for h in D.activations(x)] == [(8, 16, 16), (16, 8, 8), (32, 4, 4)]
    assert features.extract(D, x.detach()).shape == (4, features.feature_length(D.description)) == (4, 56 * 16)
    for net in (G, D):  # the running averages can be estimated anew and the net saved, whatever it is made of
        inputs = torch.randn(8, 100) if net is G else x.detach()
        assert not batchnorm.recalibrate_batchnorm(net, inputs).training


def test_what_the_guidelines_replace():
    """The modules by name, so that a variant cannot quietly be the guideline's net."""

    def names(changes):
        nets = models.build("paper64", **{"size": 16, "ngf": 8, "ndf": 8} | changes)
        leaves = [[m for m in net.modules() if not [*m.children()]] for net in nets]
        return ["-".join(type(m).__name__ for m in own if not isinstance(m, nn.Sequential)) for own in leaves]

    norm = "BatchNorm2d"
    guideline = G, D = names({})
    assert guideline == [
        f"Linear-BatchNorm1d-ReLU-ConvTranspose2d-{norm}-ReLU-ConvTranspose2d-Tanh",
        f"Conv2d-LeakyReLU-Conv2d-{norm}-LeakyReLU-Linear",
    ]
    assert names({"batch_norm": "D_input"}) == [G, f"Conv2d-{norm}-LeakyReLU-Conv2d-{norm}-LeakyReLU-Linear"]
    assert names({"batch_norm": "G_output"}) == [G.replace("ConvTranspose2d-Tanh", f"ConvTranspose2d-{norm}-Tanh"), D]
    assert names({"batch_norm": "none"})[1] == "Conv2d-LeakyReLU-Conv2d-LeakyReLU-Linear"
    assert "BatchNorm" not in names({"batch_norm": "none"})[0]
    assert names({"resample": "pooling"}) == [
        G.replace("ConvTranspose2d", "Upsample-Conv2d"),
        f"Conv2d-LeakyReLU-MaxPool2d-Conv2d-{norm}-LeakyReLU-MaxPool2d-Linear",
    ]
    assert names({"G_activation": "tanh"}) == [G.replace("ReLU", "Tanh"), D]
    assert names({"hidden": 24}) == [
        f"Linear-BatchNorm1d-ReLU-{G}",
        D.replace("LeakyReLU-Linear", "LeakyReLU-Linear-BatchNorm1d-LeakyReLU-Linear"),
    ]


def test_each_broken_guideline_is_one_change():
    kept = description.describe("paper64")
    broken = {name: description.describe("paper64", name) for name in description.BROKEN}
    assert broken.pop("") == kept and len(set(broken.values())) == len(broken) == 6
    for name, net in broken.items():
        assert sum(getattr(net, f) != getattr(kept, f) for f in vars(kept)) == 1, name


def test_batch_norm_over_the_projection():
    assert models.build("imagenet32", ngf=8, ndf=8)[0].projection_bn.num_features == 32 * 16, "per unit"
    assert models.build("tutorial64", ngf=8, ndf=8)[0].projection_bn.num_features == 64, "per channel"


def test_initialisation():
    G, D = models.build("tutorial64", seed=3)
    weights = torch.cat([m.weight.flatten() for m in D.modules() if isinstance(m, nn.Conv2d)])
    assert weights.mean().abs() < 1e-4 and (weights.std() - 0.02).abs() < 1e-4
    gains = torch.cat([m.weight for m in G.modules() if isinstance(m, nn.BatchNorm2d)])
    assert (gains.mean() - 1).abs() < 5e-3 and (gains.std() - 0.02).abs() < 5e-3
    again, _ = models.build("tutorial64", seed=3)
    other, _ = models.build("tutorial64", seed=4)
    assert torch.equal(G.projection.weight, again.projection.weight)
    assert not torch.equal(G.projection.weight, other.projection.weight)


def test_weights_share_nothing_with_z_nor_g_with_d():
    """One seed for both made row i of the projection 0.02 times z_i, and unit i answered z_i with ten sigma."""
    G, D = models.build("tutorial64", seed=0, size=32, nc=1, ngf=16, ndf=16)
    for seed in (0, chance.stream(0, "z", "training")):
        z = G.sample_z(64, torch.Generator().manual_seed(seed))
        answers = G.projection(z)  # (64, units), each N(0, 0.02 * 10)
        assert (answers.diagonal().mean() / answers.std()).abs() < 3 / 8
    weights = [next(p for p in net.parameters() if p.dim() > 1).flatten()[:64] for net in (G, D)]
    assert (weights[0] - weights[1]).abs().max() > 0.02
    assert torch.corrcoef(torch.stack(weights))[0, 1].abs() < 3 / 8


def test_priors():
    uniform = models.build("paper64", ngf=8, ndf=8)[0].sample_z(4000, torch.Generator().manual_seed(0))
    assert uniform.min() >= -1 and uniform.max() <= 1 and abs(uniform.var() - 1 / 3) < 0.01
    gaussian = models.build("svhn32", ngf=8, ndf=8)[0].sample_z(4000, torch.Generator().manual_seed(0))
    assert abs(gaussian.var() - 1) < 0.02


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: models.build("resnet"), "unknown architecture 'resnet'.*paper64"),
        (lambda: models.build("paper64", width=3), "a net has no width: it has size"),
        (
            lambda: description.describe("paper64", "dropout"),
            "unknown guideline 'dropout': break one of bn_D_input, .*tanh",
        ),
        (lambda: models.build("paper64", size=28), "image size 28: the net takes"),
        (lambda: models.build("paper64", size=0), "image size 0"),
        (lambda: models.build("paper64", size=32.0), "image size 32.0: must be a whole number"),
        (lambda: models.build("paper64", ngf=0), "ngf = 0"),
        (lambda: models.build("paper64", ndf=1.5), "ndf = 1.5: must be a whole number"),
        (lambda: models.build("paper64", hidden=-1), "hidden = -1: must be a whole number of at least 0"),
        (lambda: models.build("paper64", batch_norm="some"), "batch_norm = 'some': choose one of guideline"),
        (lambda: models.build("paper64", kernel=4, resample="pooling"), "kernel = 4: a convolution of stride 1 needs"),
        (lambda: models.build("paper64", prior="cauchy"), "prior = 'cauchy': choose one of uniform, gaussian"),
        (lambda: models.build("imagenet32", kernel=4), "kernel = 4: a convolution of stride 1 needs an odd kernel"),
    ],
)
def test_errors_name_the_thing_and_the_way_out(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_images_that_do_not_fit_are_named():
    assert description.describe("paper64", size=32, nc=1).shape == (1, 32, 32)
    models.require_fit(torch.zeros(5, 1, 32, 32), (1, 32, 32))
    with pytest.raises(
        ValueError, match=r"images of \(3, 32, 32\) do not fit a net for \(1, 32, 32\): change size or nc"
    ):
        models.require_fit(torch.zeros(5, 3, 32, 32), (1, 32, 32))
