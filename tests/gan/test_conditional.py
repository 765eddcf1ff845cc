"""The conditional net: the authors' layers said again in plain torch, what a label does, training and its refusals."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier

from lib.gan import conditional, train
from lib.gan.conditional import Discriminator, Generator, beside, fit, sample
from lib.images import data
from lib.study import chance

X = torch.randint(0, 256, (96, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
Y = torch.arange(96) % 3


def settings(**changes):
    values = dict(
        epochs=1,
        batch_size=32,
        lr=2e-3,
        beta1=0.5,
        weight_decay=2.5e-5,
        update="alternate",
        precision="float32",
        seed=0,
    )
    return train.Settings(**values | changes)


def pair(**changes):
    sizes = {"classes": 3, "size": 16, "hidden": 12} | changes
    return Generator(nz=5, ngf=4, **sizes), Discriminator(ndf=4, **sizes)


def draw(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, 0, 0.3, generator=generator)
    return net


def test_beside_by_hand():
    y = torch.tensor([[0, 1], [1, 0]])
    assert beside(torch.tensor([[5.0], [6.0]]), y).tolist() == [[5, 0, 1], [6, 1, 0]]
    maps = beside(torch.arange(8.0).view(2, 1, 2, 2), y)
    assert maps[0].tolist() == [[[0, 1], [2, 3]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]]
    assert maps[1, 1:].tolist() == [[[1, 1], [1, 1]], [[0, 0], [0, 0]]]


def norm(h):
    axes = (0,) if h.dim() == 2 else (0, 2, 3)
    return (h - h.mean(axes, keepdim=True)) / (h.var(axes, keepdim=True, correction=0) + 1e-8).sqrt()


def test_g_is_the_authors():
    """train_cond_dcgan.py's gen, its convolutions as torch's."""
    G, _ = pair()
    w, w2, w3, wx = draw(G).parameters()
    z, y = torch.rand(7, 5) * 2 - 1, torch.tensor([0, 1, 2, 0, 1, 2, 2])
    one = F.one_hot(y, 3).float()
    spread = one[:, :, None, None]
    h = norm(torch.cat([z, one], 1) @ w.T).relu()
    h = norm(torch.cat([h, one], 1) @ w2.T).relu().view(7, 8, 4, 4)
    h = torch.cat([h, spread.expand(-1, -1, 4, 4)], 1)
    h = norm(F.conv_transpose2d(h, w3, stride=2, padding=2, output_padding=1)).relu()
    h = torch.cat([h, spread.expand(-1, -1, 8, 8)], 1)
    expected = F.conv_transpose2d(h, wx, stride=2, padding=2, output_padding=1).sigmoid()
    for mode in (True, False):
        torch.testing.assert_close(G.train(mode)(z, y), expected)
    assert expected.shape == (7, 1, 16, 16)


def test_d_is_the_authors():
    _, D = pair()
    w, w2, w3, wy = draw(D).parameters()
    x, y = torch.rand(7, 1, 16, 16), torch.tensor([0, 1, 2, 0, 1, 2, 2])
    one = F.one_hot(y, 3).float()
    spread = one[:, :, None, None]
    h = F.leaky_relu(F.conv2d(torch.cat([x, spread.expand(-1, -1, 16, 16)], 1), w, stride=2, padding=2), 0.2)
    h = norm(F.conv2d(torch.cat([h, spread.expand(-1, -1, 8, 8)], 1), w2, stride=2, padding=2))
    h = torch.cat([F.leaky_relu(h, 0.2).flatten(1), one], 1)
    h = torch.cat([F.leaky_relu(norm(h @ w3.T), 0.2), one], 1)
    torch.testing.assert_close(D.eval()(x, y), (h @ wy.T)[:, 0])


def test_the_papers_sizes():
    G, D = Generator(), Discriminator()
    shapes = [tuple(p.shape) for net in (G, D) for p in net.parameters()]
    assert shapes == [
        (1024, 110), (6272, 1034), (138, 64, 5, 5), (74, 1, 5, 5),
        (64, 11, 5, 5), (128, 74, 5, 5), (1024, 6282), (1, 1034),
    ]  # fmt: skip


def test_affine_gives_gain_and_bias():
    plain, affine = pair(), pair(affine=True)
    added = [len([*a.parameters()]) - len([*p.parameters()]) for p, a in zip(plain, affine, strict=True)]
    assert added == [6, 4]


def test_the_label_decides():
    G, D = map(draw, pair())
    z, x = torch.rand(9, 5), torch.rand(9, 1, 16, 16)
    a, b = torch.arange(9) % 3, (torch.arange(9) + 1) % 3
    assert (G(z, a) - G(z, b)).abs().mean() > 0.01
    assert (D(x, a) - D(x, b)).abs().mean() > 0.01


@pytest.mark.parametrize("update", ["both", "alternate"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_follows_from_the_seed(update, precision):
    runs = []
    for seed in (0, 0, 1):
        G, D = pair()
        log = fit(G, D, X, Y, settings(seed=seed, update=update, precision=precision), progress=False)
        runs.append(torch.cat([p.flatten() for p in (*G.parameters(), *D.parameters())]))
        assert log["step"].tolist() == [1, 2, 3]
        assert log["loss_G"].notna().tolist() == ([True] * 3 if update == "both" else [True, False, True])
        assert all(p.requires_grad for p in D.parameters())
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_the_first_steps_by_hand():
    """One update of G, then one of D, with torch's own loss; the learning rate falls over the second half."""
    ours, plain = pair(), pair()
    s = settings(epochs=1, weight_decay=0.0)
    fit(*ours, X[:64], Y[:64], s, progress=False)
    for name, net in zip("GD", plain, strict=True):
        generator = torch.Generator().manual_seed(chance.stream(0, "weights", name))
        for weight in net.parameters():
            torch.nn.init.normal_(weight, 0, 0.02, generator=generator)
    generator = torch.Generator().manual_seed(chance.stream(0, "z", "training"))
    adams = [torch.optim.Adam(net.parameters(), s.lr, (s.beta1, 0.999)) for net in plain]
    G, D = plain
    for step, rows in enumerate(data.minibatches(torch.arange(64), s.batch_size, s.seed, 0, 2)):
        x, y, z = X[rows] / 255, Y[rows], torch.rand(32, 5, generator=generator) * 2 - 1
        ones = torch.ones(32)
        loss = F.binary_cross_entropy(D(G(z, y), y).sigmoid(), ones if step == 0 else 0 * ones)
        if step:
            loss = loss + F.binary_cross_entropy(D(x, y).sigmoid(), ones)
        adams[step].zero_grad()
        loss.backward()
        adams[step].step()
    for a, b in zip(ours, plain, strict=True):
        for one, other in zip(a.parameters(), b.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_learning_rate_falls_over_the_second_half(monkeypatch):
    rates = []
    step = torch.optim.Adam.step
    noted = lambda self, *given: [rates.append(self.param_groups[0]["lr"]), step(self, *given)][1]  # noqa: E731
    monkeypatch.setattr(torch.optim.Adam, "step", noted)
    fit(*pair(), X, Y, settings(epochs=2, batch_size=12, lr=1.0), progress=False)
    assert rates == pytest.approx([1] * 9 + [7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_samples():
    G, _ = pair()
    draw(G)
    x, y = sample(G, 150, torch.Generator().manual_seed(1))
    assert x.shape == (150, 1, 16, 16) and x.dtype == torch.uint8 and y.shape == (150,)
    assert y.unique().tolist() == [0, 1, 2] and x.float().std() > 10
    again = sample(G, 150, torch.Generator().manual_seed(1))
    assert torch.equal(x, again[0]) and torch.equal(y, again[1])


def test_it_learns_what_is_asked_for():
    """Three shapes: a nearest neighbour that has seen samples alone tells real ones apart."""
    images = data.load("digits", 16)
    few = images[(images.y < 3).nonzero()[:, 0]]
    G, D = Generator(3, 16, nz=8, ngf=8, hidden=64), Discriminator(3, 16, ndf=8, hidden=64)
    fit(G, D, few.x, few.y, settings(epochs=50), progress=False)
    x, y = sample(G, 300, torch.Generator().manual_seed(0))
    judge = KNeighborsClassifier(1).fit(x.flatten(1).float().numpy(), y.numpy())
    assert judge.score(few.x.flatten(1).float().numpy(), few.y.numpy()) > 0.8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": Y - 1}, "labels from -1 to 1: each image needs one of 0 to 2"),
        ({"y": Y + 1}, "labels from 1 to 3"),
        ({"y": Y[:5]}, "each image needs one"),
        ({"x": X[:9], "y": Y[:9]}, "9 images are fewer than one minibatch of 32"),
        ({"x": X[:, :, :12]}, r"images of \(1, 12, 16\) do not fit"),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=message):
        fit(*pair(), **{"x": X, "y": Y} | change, settings=settings(), progress=False)


def test_a_size_that_cannot_be_halved():
    for make in (conditional.Generator, conditional.Discriminator):
        with pytest.raises(ValueError, match="image size 30: this net takes multiples of 4, such as 28"):
            make(size=30)
