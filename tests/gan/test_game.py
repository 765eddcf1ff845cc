"""The game's options: what D sees in place of an image, by hand and by identities; the rate; one-sided labels."""

import math
import re

import pytest
import torch

from lib.gan import game, train
from lib.gan.game import AUGMENTATIONS, colour, cutout, flip, shift
from lib.images import data
from lib.nets import models, weights
from lib.study import identity

NET = models.describe("tutorial64", size=16, nc=1, ngf=8, ndf=8)
X = torch.randint(0, 256, (200, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
OPTIONS = {
    "flip": True,
    "augment": "colour+shift+cutout",
    "lr_decay": 0.5,
    "real_label": 0.9,
    "noise": 0.2,
    "D_rate": 0.5,
    "r1": 1.0,
    "weight_decay": 1e-4,
}
OFF = {  # as the paper trains
    "flip": False,
    "augment": "",
    "lr_decay": 0.0,
    "real_label": 1.0,
    "noise": 0.0,
    "D_rate": 1.0,
    "r1": 0.0,
    "weight_decay": 0.0,
    "start": "",
    "frozen": False,
    "onward": "",
}


def settings(**changes):
    values = dict(
        epochs=2, batch_size=32, lr=2e-4, beta1=0.5, weight_decay=0.0, update="both", precision="float32", seed=0
    )
    return train.Settings(**values | changes)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def training(total=0, **changes):
    return train.Training(*models.from_description(NET), settings(**changes), torch.device("cpu"), total)


def test_flip_mirrors_some_images_left_to_right():
    x = torch.arange(400 * 2 * 2 * 2.0).view(400, 2, 2, 2)
    found = flip(x, chance())
    turned = (found != x).flatten(1).any(1)
    first = int(turned.nonzero()[0, 0])
    assert (found[first] - 8 * first).tolist() == [[[1, 0], [3, 2]], [[5, 4], [7, 6]]]
    assert torch.equal(found[turned], x[turned].flip(3)) and 150 < turned.sum() < 250


def test_shift_moves_by_up_to_an_eighth_and_brings_zeros_in():
    x = torch.arange(1.0, 257).view(1, 1, 16, 16).expand(500, 2, 16, 16)
    seen = set()
    for image in shift(x, chance()):
        assert torch.equal(image[0], image[1]), "all channels alike"
        row, column = image[0].nonzero()[0].tolist()
        first = int(image[0, row, column]) - 1
        down, right = row - first // 16, column - first % 16
        expected = torch.zeros(20, 20)
        expected[2 + down : 18 + down, 2 + right : 18 + right] = x[0, 0]
        assert torch.equal(image[0], expected[2:18, 2:18])
        seen.add((down, right))
    assert seen == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}


def test_cutout_blanks_a_square_of_half_the_side():
    found = cutout(torch.ones(2000, 3, 8, 8), chance())
    holes = found == 0
    assert torch.equal(holes, holes[:, :1].expand(-1, 3, -1, -1)) and ((found == 0) | (found == 1)).all()
    rows, columns = holes[:, 0].any(2), holes[:, 0].any(1)  # which a hole touches
    assert torch.equal(holes[:, 0], rows[:, :, None] & columns[:, None, :]), "a rectangle"
    assert rows.sum(1).unique().tolist() == columns.sum(1).unique().tolist() == [2, 3, 4], "cut by the edges alone"
    inside = ~rows[:, 0] & ~rows[:, -1]
    assert (rows.sum(1)[inside] == 4).all()
    # a pixel i is blanked by centres from i + 0.5 - 2 to i + 0.5 + 2 of 0 to 8: of eight pixels 2.5, 3.5, 4, 4, 4, ...
    assert holes.float().mean().item() == pytest.approx((28 / 64) ** 2, abs=0.005)


def test_colour_changes_brightness_saturation_and_contrast():
    """Of a grey image saturation changes nothing: what is left is a line, a x + b, per image."""
    x = torch.tensor([-1.0, 0, 0, 1]).view(1, 1, 2, 2).expand(2000, 3, 2, 2)
    found = colour(x, chance())
    contrast, brightness = (found[:, 0, 1, 1] - found[:, 0, 0, 0]) / 2, found[:, 0, 0, 1]
    torch.testing.assert_close(found, contrast.view(-1, 1, 1, 1) * x + brightness.view(-1, 1, 1, 1))
    for value, low, high in ((contrast, 0.5, 1.5), (brightness, -0.5, 0.5)):
        assert low <= value.min() < low + 0.01 and high - 0.01 < value.max() <= high
    hue = torch.tensor([-0.3, 0, 0.3]).view(1, 3, 1, 1).expand(2000, 3, 2, 2)
    found = colour(hue, chance())
    torch.testing.assert_close(found[:, 2] - found[:, 1], found[:, 1] - found[:, 0])
    apart = (found[:, 2] - found[:, 1])[:, 0, 0] / 0.3  # saturation times contrast
    assert 0 <= apart.min() < 0.02 and 2.5 < apart.max() <= 3


@pytest.mark.parametrize("name", [*AUGMENTATIONS, "flip"])
def test_gradients_pass_and_chance_is_given(name):
    apply = getattr(game, name)
    x = torch.rand(3, 2, 8, 8, generator=chance(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: apply(x, chance(1)), x)
    assert torch.equal(apply(x, chance(1)), apply(x, chance(1)))
    assert not torch.equal(apply(x, chance(1)), apply(x, chance(2)))


def test_real_images_and_samples_are_changed_alike_and_g_learns_through_it(monkeypatch):
    """Where D sees nothing of either, it cannot tell them apart, and G learns nothing."""
    seen = []
    monkeypatch.setitem(AUGMENTATIONS, "cutout", lambda x, _: seen.append(len(x)) or 0 * x)
    blind = training(augment="cutout")
    before = blind.G.projection.weight.clone()
    losses = [blind.train_minibatch(data.to_float(X[:32]))["loss_D"].item() for _ in range(3)]
    assert losses == pytest.approx([2 * math.log(2)] * 3, abs=1e-5) and seen == [32] * 9
    assert torch.equal(blind.G.projection.weight, before)
    monkeypatch.setitem(AUGMENTATIONS, "cutout", lambda x, _: 2 * x)
    seeing = training(augment="cutout")
    seeing.train_minibatch(data.to_float(X[:32]))
    assert not torch.equal(seeing.G.projection.weight, before)


def test_real_images_alone_are_mirrored(monkeypatch):
    mirrored = []
    monkeypatch.setattr(game, "flip", lambda x, _: mirrored.append(x) or x)
    x = data.to_float(X[:32])
    training(flip=True).train_minibatch(x)
    assert len(mirrored) == 1 and torch.equal(mirrored[0], x)


def test_the_rate_falls_over_the_last_share():
    found, one = [], training(total=8, lr=1.0, lr_decay=0.5)
    for _ in range(8):
        one.train_minibatch(data.to_float(X[:32]))
        found.append([optimizer.param_groups[0]["lr"].item() for optimizer in one.optimizers.values()])
    assert found == [[rate] * 2 for rate in (1, 1, 1, 1, 1, 0.75, 0.5, 0.25)]


def test_the_optimizer_takes_the_rate_that_is_set():
    """Adam's first step is as long as its rate."""
    steps = []
    for done in (0, 4, 8):
        one = training(total=8, lr=1e-3, lr_decay=1.0)
        one.step, before = done, one.D.head.weight.clone()
        one.train_minibatch(data.to_float(X[:32]))
        steps.append((one.D.head.weight - before).abs().median().item())
    assert steps == pytest.approx([1e-3, 5e-4, 0], rel=0.01)


def test_one_sided_labels_by_hand():
    """D's loss on real images is least where it answers 0.9; samples' label stays 0."""
    one, real = training(real_label=0.9), torch.zeros(4, 1, 16, 16)
    answers = {0.0: torch.full((4,), math.log(9.0)), 1.0: torch.full((4,), -50.0)}  # a logit of 0.9, and of nearly 0
    one.D.forward = lambda x: answers[x.max().item()].clone().requires_grad_()
    assert one._update_D(real, real + 1)["loss_D"].item() == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))


def test_noise_falls_to_nothing():
    """Its spread at the start, in the middle and at the end, on real images and on samples, drawn anew for each."""
    one, seen = training(total=8, noise=0.5), []
    one.D.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    x = torch.full((32, 1, 16, 16), 0.25)
    for done in (0, 4, 8):
        one.step = done
        one.train_minibatch(x)
    real = seen[::3]
    assert [found.sub(0.25).std().item() for found in real] == pytest.approx([0.5, 0.25, 0], rel=0.02)
    assert [found.mean().item() for found in real] == pytest.approx([0.25] * 3, abs=0.02)
    blurred, again = seen[1] - seen[7], seen[2] - seen[8]  # of D's turn and of G's; G has hardly moved
    assert blurred.std().item() == pytest.approx(0.5, rel=0.1) and not torch.allclose(blurred, again, atol=0.5)


def test_ds_rate_moves_d_by_so_much():
    """Adam's first step is as long as its rate, whether or not that falls."""
    for decay, total in ((0.0, 0), (1.0, 8)):
        one = training(total=total, lr=1e-3, D_rate=0.25, lr_decay=decay)
        before = [
            net.state_dict()[name].clone() for net, name in ((one.D, "head.weight"), (one.G, "projection.weight"))
        ]
        one.train_minibatch(data.to_float(X[:32]))
        after = one.D.head.weight, one.G.projection.weight
        steps = [(b - a).abs().median().item() for a, b in zip(before, after, strict=True)]
        assert steps == pytest.approx([2.5e-4, 1e-3], rel=0.01)


def test_the_steepness_of_a_linear_d_is_its_weights_norm():
    weight = torch.tensor([[[1.0, -2.0], [0.0, 2.0]]])
    x = torch.rand(5, 1, 2, 2, requires_grad=True)
    assert game.steepness((x * weight).sum((1, 2, 3)), x).item() == 9


def test_r1_adds_half_its_weight_times_the_steepness():
    """D answers 3 a to images of one pixel: the steepness is 9 a a, and r1 / 2 of it has the slope 9 r1 a."""
    slopes = []
    for r1 in (0.0, 2.0):
        one = training(r1=r1)
        one.D.a = torch.nn.Parameter(torch.tensor(0.5))
        one.D.forward = lambda x, D=one.D: 3 * D.a * x[:, 0, 0, 0]
        one.optimizers["D"] = torch.optim.SGD([one.D.a], lr=1.0)
        loss = one._update_D(torch.zeros(4, 1, 1, 1), torch.zeros(4, 1, 1, 1))["loss_D"]
        slopes.append(0.5 - one.D.a.item())
        assert loss.item() == pytest.approx(2 * math.log(2)), "the game's own loss"
    assert slopes == pytest.approx([0, 9 * 2.0 * 0.5])


def test_l2_is_on_all_parameters():
    """As in the authors' code, on gains and biases too: where it is all there is, Adam's first step is towards 0."""
    one = training(weight_decay=1e6, lr=1e-3)
    for net in (one.G, one.D):
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.bias.data.fill_(-0.5)
    before = {name: {k: v.detach().clone() for k, v in getattr(one, name).named_parameters()} for name in "GD"}
    one.train_minibatch(data.to_float(X[:32]))
    for name, were in before.items():
        for k, v in getattr(one, name).named_parameters():
            torch.testing.assert_close(v, were[k] - 1e-3 * were[k].sign(), atol=1e-5, rtol=1e-4, msg=f"{name}.{k}")


def test_options_at_their_defaults_are_the_papers_training():
    stored = identity.parameters_of("01_train_gan")
    assert {name: stored[name] for name in OFF} == OFF and stored["average"] == 0
    plain, told = training(), training(**OFF)
    assert plain.settings == told.settings and OPTIONS.keys() <= OFF.keys()
    for one in (plain, told):
        one.train_minibatch(data.to_float(X[:32]))
    assert torch.equal(plain.D.head.weight, told.D.head.weight)
    assert plain.optimizers["D"].param_groups[0]["lr"] == 2e-4


@pytest.mark.parametrize("name", OFF)
def test_an_option_makes_another_training_and_a_resume_with_it_is_refused_by_name(tmp_path, name):
    changed = OPTIONS | {"start": "run:first", "frozen": True, "onward": "run:first"}
    given = {name: changed[name]} | ({"start": "run:first"} if name == "frozen" else {})
    one, other = training(), training(**given)
    images = data.ImageSet("x", X, torch.zeros(200))
    assert train.folder_of(NET, one.settings, images) != train.folder_of(NET, other.settings, images)
    train.save(one, tmp_path, len(X))
    named = "; ".join(f"{k} = {OFF[k]} there, {v} asked" for k, v in sorted(given.items(), reverse=True))
    with pytest.raises(ValueError, match=re.escape(f"holds another training ({named}): choose another or delete it")):
        train.resume(other, tmp_path, len(X))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_with_options_resumes_to_the_bit(tmp_path, monkeypatch, precision):
    given = dict(description=NET, x=X, progress=False)
    own = settings(precision=precision, **OPTIONS)
    whole = train.fit(folder=tmp_path / "whole", settings=own, **given)
    minibatches = train.minibatches

    def power_cut(*arguments):
        for i, batch in enumerate(minibatches(*arguments)):
            if i == 8:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(train, "minibatches", power_cut)
        with pytest.raises(KeyboardInterrupt):
            train.fit(folder=tmp_path / "cut", settings=own, minutes=0, **given)
    resumed = train.fit(folder=tmp_path / "cut", settings=own, **given)
    assert resumed.log == whole.log and len(whole.log) == 12
    for one, other in ((whole.G, resumed.G), (whole.D, resumed.D)):
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())
    other = settings(precision=precision, augment="shift")
    with pytest.raises(ValueError, match="flip = True there, False asked; augment = colour.shift.cutout there, shift"):
        train.fit(folder=tmp_path / "cut", settings=other, **given)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"augment": "blur"}, "augment = 'blur': join some of shift, cutout, colour by +"),
        ({"augment": "shift+"}, "augment = 'shift.': join some of"),
        ({"augment": "shift cutout"}, "augment = 'shift cutout': join some of"),
        ({"lr_decay": 1.1}, "lr_decay = 1.1: must not be above 1"),
        ({"lr_decay": -0.1}, "lr_decay = -0.1: must be a number, and not below 0"),
        ({"real_label": 0}, "real_label = 0: must be above 0"),
        ({"real_label": 1.2}, "real_label = 1.2: must not be above 1"),
        ({"noise": -1}, "noise = -1: must be a number, and not below 0"),
        ({"D_rate": 0}, "D_rate = 0: must be above 0"),
        ({"r1": math.inf}, "r1 = inf: must be a number"),
        ({"start": "digits", "onward": "digits"}, "onward = 'digits' and start = 'digits': two beginnings"),
        ({"frozen": True}, "frozen: say with start which net's convolutions stay as they are"),
    ],
)
def test_options_that_mean_nothing(wrong, message):
    with pytest.raises(ValueError, match=message):
        settings(**wrong)


@pytest.fixture
def started(tmp_path, monkeypatch):
    """A net of two convolutions, of which a D was released that ends after the first: `run:first`."""
    there = models.from_description(NET, 7)[1]
    there.layers = there.layers[:1]
    monkeypatch.setattr(weights, "load_net", lambda _: (None, there, {}))
    return there


@pytest.mark.parametrize("frozen", [True, False])
def test_d_starts_from_anothers_convolutions(tmp_path, started, frozen):
    """Those that are there; they stay as they are, or learn, and a training that was cut goes on to the bit."""
    taken, own = started.layers[0][0].weight.detach().clone(), models.from_description(NET)[1].layers[1][0].weight
    given = dict(description=NET, x=X, progress=False)
    how = settings(start="run:first", frozen=frozen, epochs=1, r1=1.0)
    seen = []
    whole = train.fit(folder=tmp_path / "whole", settings=how, **given, watch=lambda one: seen.append(one.step))
    first, second = (layer[0].weight for layer in whole.D.layers)
    assert torch.equal(first, taken) == frozen and (first - taken).abs().max() < 6 * 2 * how.lr
    assert not torch.equal(second, own) and (second - own).abs().max() < 6 * 2 * how.lr
    assert whole.D.head.weight.requires_grad and first.requires_grad == (not frozen)
    cut = train.Training(*models.from_description(NET, 0), how, torch.device("cpu"), 6)
    weights.take_convolutions(cut.D, how.start, frozen)
    cut = train.Training(cut.G, cut.D, how, torch.device("cpu"), 6)
    cut.take_samples()
    for batch in train.minibatches(X, how, 0, 3):
        cut.train_minibatch(data.to_float(batch).contiguous(memory_format=torch.channels_last))
    train.save(cut, tmp_path / "cut", len(X))
    resumed = train.fit(folder=tmp_path / "cut", settings=how, **given)
    for name, value in whole.D.state_dict().items():
        assert torch.equal(value, resumed.D.state_dict()[name]), name
    with pytest.raises(ValueError, match="start = run:first there,  asked"):
        train.fit(folder=tmp_path / "cut", settings=settings(epochs=1), **given)


def test_a_training_goes_on_from_a_net(tmp_path, monkeypatch):
    """From G and D as a training ended, statistics too; with Adam's moments it would go on as if nothing had been."""
    given = dict(description=NET, x=X, progress=False)
    first = train.fit(folder=tmp_path / "first", settings=settings(epochs=1), **given)
    weights.save_net(tmp_path / "net.safetensors", first.G, first.D, {})
    how = settings(epochs=1, onward=str(tmp_path / "net.safetensors"), lr=1e-12)
    still = train.fit(folder=tmp_path / "still", settings=how, **given)
    for name in ("G", "D"):
        there, here = getattr(first, name).named_parameters(), getattr(still, name).named_parameters()
        for (of, a), (_, b) in zip(there, here, strict=True):
            assert (a - b).abs().max() < 1e-9, f"{name}.{of}"
    assert first.D.layers[1][1].num_batches_tracked < still.D.layers[1][1].num_batches_tracked
    both = train.fit(folder=tmp_path / "both", settings=settings(epochs=1, onward=how.onward), **given)
    assert not torch.equal(both.D.head.weight, first.D.head.weight)
    other = models.describe("tutorial64", size=16, nc=1, ngf=4, ndf=8)
    with pytest.raises(ValueError, match="onward = .*it is another net .ngf = 8 there, 4 here."):
        train.fit(other, how, X, tmp_path / "other", progress=False)


@pytest.mark.parametrize("begins", ["start", "onward"])
def test_what_a_training_begins_with_is_part_of_it(tmp_path, begins):
    """By content: a net that was shipped anew under its name begins another training, and another run."""
    images, path = data.ImageSet("x", X, torch.zeros(len(X)), recorded="sum"), tmp_path / "net.safetensors"
    how, folders, names = settings(**{begins: str(path)}), set(), set()
    for seed in (0, 1):
        weights.save_net(path, *models.from_description(NET, seed), {})
        folders.add(train.folder_of(NET, how, images))
        names.add(str(identity.identity_of("01_train_gan", {begins: str(path)})))
    assert len(folders) == len(names) == 2 and train.folder_of(NET, settings(), images) not in folders


def test_a_training_that_begins_with_a_runs_net_is_another_where_that_run_made_another(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    images, folders = data.ImageSet("x", X, torch.zeros(len(X)), recorded="sum"), set()
    for seed in (0, 1):
        weights.save_net(tmp_path / "01_train_gan-a" / "net.safetensors", *models.from_description(NET, seed), {})
        (tmp_path / "01_train_gan-a" / "metrics.json").touch()
        folders.add(train.folder_of(NET, settings(onward="run:01_train_gan-a"), images))
    assert len(folders) == 2


def test_convolutions_of_another_shape_are_refused(tmp_path, started):
    narrow = models.describe("tutorial64", size=16, nc=1, ngf=8, ndf=4)
    with pytest.raises(ValueError, match="start = 'run:first': its convolutions do not fit .ndf = 8 there, 4 here."):
        train.fit(narrow, settings(start="run:first"), X, tmp_path / "folder", progress=False)


def test_notebook_01s_parameters_make_net_and_settings():
    net = {
        "architecture": "svhn32",
        "breaks": "no_bn",
        "size": 16,
        "nc": 1,
        "ngf": 8,
        "ndf": 4,
        "prior": "",
        "kernel": 3,
    }
    parameters = net | {"split": "train"} | vars(settings(flip=True, seed=3))
    description, found = train.configure(parameters)
    assert description == models.describe("svhn32", "no_bn", size=16, nc=1, ngf=8, ndf=4, kernel=3)
    assert found == settings(flip=True, seed=3)
    for change, message in (
        ({"size": 48}, "image size 48"),
        ({"batch_size": 1}, "batch_size = 1"),
        ({"lr": 0}, "lr = 0"),
    ):
        with pytest.raises(ValueError, match=message):
            train.configure(parameters | change)
