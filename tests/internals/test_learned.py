"""The images that a net is asked about: its own by its record, others where they are named, and a line that says so."""

import pytest
import torch

from lib.images import data
from lib.internals import learned
from lib.nets import models, weights

RECORD = {"parameters": {"data_set": "digits", "split": "train", "limit": 0, "held_out": 0.1, "seed": 3}}


def record(**changes):
    return {"parameters": RECORD["parameters"] | changes}


@pytest.fixture(scope="module")
def G():
    return models.build("tutorial64", size=16, nc=1, ngf=4, ndf=4)[0].eval()


@pytest.fixture(scope="module")
def whole():
    return data.load("digits", 16)


def test_a_net_is_asked_about_what_it_learned(G, whole):
    asked = learned.find(G, record())
    rows, kept = data.hold_out(len(whole), 0.1, 3)  # as notebook 01 does
    assert torch.equal(asked.some().x, whole.x[rows])
    assert torch.equal(asked.unseen("training"), whole.x[kept])
    assert str(asked) == "1,167 images of digits, train, which the net learned"
    assert len(learned.find(G, record(split="test")).rows) == 450, "its own split"
    fewer = learned.find(G, record(limit=100))
    assert len(fewer.some()) == 90 and len(fewer.unseen("training")) == 10, "of the images that it was given, no others"


def test_what_a_net_held_out_in_its_first_sitting(G, whole, tmp_path):
    first = tmp_path / "first.safetensors"
    weights.save_net(first, G, models.build("tutorial64", size=16, nc=1, ngf=4, ndf=4)[1], record(onward=""))
    asked = learned.find(G, record(seed=8, onward=str(first)))
    assert torch.equal(asked.unseen("training"), whole.x[data.hold_out(len(whole), 0.1, 3)[1]])
    first.unlink()
    with pytest.raises(ValueError, match="not known to have held images out: name a split"):
        learned.find(G, record(seed=8, onward=str(first))).unseen("training")


def test_what_a_limit_leaves_out_no_net_of_a_limit_that_divides_it_has_seen(G, whole):
    """1,297 digits, 400 and 100 of them evenly spaced: the rows written out as `data.load` takes them."""
    four = {i * 1297 // 400 for i in range(400)}
    assert {i * 1297 // 100 for i in range(100)} < four
    others = sorted(set(range(1297)) - four)
    for limit in (400, 100):
        asked = learned.find(G, record(limit=limit))
        assert torch.equal(asked.unseen("beyond 400"), whole.x[others])
        assert torch.equal(asked.unseen("beyond 400", 3), whole.x[[others[i * 897 // 3] for i in range(3)]])
        assert torch.equal(asked.real().x, whole.x), "the whole split, whatever the training was given"
        assert torch.equal(asked.real(2).x, whole.x[[0, 648]])
    free = learned.find(G, record())
    assert free.real() is free.whole and torch.equal(free.real(2).x, whole.x[[0, 648]])


@pytest.mark.parametrize(
    ("limit", "beyond", "said"),
    [
        (100, "beyond 250", "may know some of these images; its limit was 100: give a multiple of that"),
        (100, "beyond", "no split 'beyond'"),
        (100, "beyond many", "its limit was 100: give a multiple of that"),
        (100, "beyond 0", "its limit was 100: give a multiple of that"),
        (0, "beyond 400", "may know some of these images; it had no limit: give a split"),
        (100, "beyond 1300", "held_out = beyond 1300: there are 1297 images in all; give fewer"),
    ],
)
def test_images_that_a_net_may_know_are_not_beyond(G, limit, beyond, said):
    with pytest.raises(ValueError, match=said):
        learned.find(G, record(limit=limit)).unseen(beyond)


def test_nothing_is_beyond_what_another_net_learned(G):
    with pytest.raises(ValueError, match="beyond 400: the net learned digits, all: name a split instead"):
        learned.find(G, record(split="all", limit=100), "digits", "train").unseen("beyond 400")


def test_its_own_set_by_name_is_its_own(G):
    assert torch.equal(learned.find(G, record(), "digits").rows, learned.find(G, record()).rows)
    other = learned.find(G, record(), "digits", "test")
    assert len(other.rows) == 500
    assert str(other) == "500 images of digits, test; the net learned digits, train"


def test_another_set_is_said_in_one_line(G):
    asked = learned.find(G, record(data_set="toy-faces", split="all"), "digits")
    assert str(asked) == "1,297 images of digits, train; the net learned toy-faces, all"
    assert len(asked.rows) == 1297 and not len(asked.kept)


@pytest.mark.parametrize("net", ["digits", "toy-faces", "toy-rooms"])
def test_the_nets_that_come_with_the_study_know_what_they_learned(net, monkeypatch):
    G, _, about = weights.load_net(net)
    few = data.ImageSet(net, torch.zeros(9, 1, 2, 2).byte(), torch.zeros(9))
    monkeypatch.setattr(data, "load", lambda *given: few if given == (net, 32, "train", 0) else None)
    asked = learned.find(G, about)
    assert (asked.split, asked.learned, len(asked.rows)) == ("train", "", 9)


def test_samples_are_what_G_draws(G):
    asked = learned.find(G, {"parameters": {"data_set": "SVHN"}}, "samples", samples=40, seed=1)
    assert str(asked) == "40 images of samples; the net learned SVHN"
    assert asked.whole.x.shape == (40, 1, 16, 16) and set(asked.whole.attributes) == {"bright", "light_inside"}
    again = learned.find(G, {}, "samples", samples=40, seed=2)
    assert not torch.equal(again.whole.x, asked.whole.x) and again.learned == "nobody wrote down what"


def test_a_net_whose_images_are_not_at_hand(G):
    """The authors' nets say what they learned, by a name that is no set here."""
    with pytest.raises(ValueError, match="the net learned SVHN, which is no set at hand: name data_set, or samples"):
        learned.find(G, {"source": "their page", "parameters": {"data_set": "SVHN"}})
    with pytest.raises(ValueError, match="the net learned nobody wrote down what"):
        learned.find(G, {})


def test_some_are_evenly_spaced_and_all_are_no_copy(G, whole):
    asked = learned.find(G, record(held_out=0.0))
    assert asked.some() is asked.whole and asked.some(5000) is asked.whole
    assert torch.equal(asked.some(4).x, whole.x[[0, 324, 648, 972]])
    assert len(asked.some(4).y.unique()) > 1, "not one class, as the first rows are"
    kept = learned.find(G, record()).unseen("training")
    assert torch.equal(learned.find(G, record()).unseen("training", 10)[[0, 5]], kept[[0, len(kept) // 2]])
    assert len(learned.find(G, record()).unseen("test", 7)) == 7
    assert len(learned.find(G, record()).unseen("test", 5000)) == 500, "at most so many"


@pytest.mark.parametrize(
    ("changes", "held_out", "said"),
    [
        ({"split": "all"}, "training", "the net learned digits, all: name a split instead"),
        ({"held_out": 0.0}, "training", "not known to have held images out"),
        ({}, "train", "held_out = train: the net learned images of train: name another split, or training"),
        ({}, "Training", "the net learned images of train: name another"),
        ({}, "all", "the net learned images of train: name another"),
        ({"split": "all"}, "test", "the net learned images of test: name another"),
        ({"split": "train+test"}, "test", "the net learned images of test: name another"),
        ({"split": "test"}, "train", "the net is asked about images of train: name another"),
        ({"data_set": "toy-faces"}, "train+test", "the net is asked about images of train: name another"),
    ],
)
def test_nothing_is_taken_for_unseen_that_may_have_been_seen(G, changes, held_out, said):
    with pytest.raises(ValueError, match=said):
        learned.find(G, record(**changes), "digits", "train").unseen(held_out)


def test_grey_images_become_those_of_a_net_of_colours(whole):
    colour, _ = models.build("tutorial64", size=16, ngf=4, ndf=4)
    asked = learned.find(colour, record(held_out=0.0))
    assert torch.equal(asked.whole.x, whole.x.expand(-1, 3, -1, -1))
    grey, _ = models.build("tutorial64", size=16, nc=1, ngf=4, ndf=4)
    with pytest.raises(ValueError, match="toy-faces:10 has 3 channels, the net takes 1: name another set"):
        learned.find(grey, record(), "toy-faces:10")


def test_another_size_for_the_hash(G):
    assert learned.find(G, record(), size=8).whole.x.shape[-1] == 8
