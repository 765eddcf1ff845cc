"""The judge of samples: it learns what it is shown, and refuses concepts without exemplars."""

import numpy as np
import pandas as pd
import pytest
import torch

from lib.images import data
from lib.images.faces import Face, paint_face
from lib.internals import attributes
from lib.nets import judges, models


@pytest.fixture(scope="module")
def taught():
    """Bright or dark images, with a white left or right edge: two attributes that can be told from pixels."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (600, 2))
    x = rng.integers(0, 60, (600, 1, 16, 16)) + 120 * truth[:, 0, None, None, None]
    x[truth[:, 1] == 1, :, :, :3] = 255
    x[truth[:, 1] == 0, :, :, -3:] = 255
    x = torch.from_numpy(x).to(torch.uint8)
    return judges.fit(x[:500], truth[:500], ["bright", "left"], epochs=4, seed=0, ndf=8), x, truth


def test_it_learns(taught):
    net, x, truth = taught
    told = judges.tell(net, x[500:])
    assert told.shape == (100, 2) and told.min() >= 0 and told.max() <= 1
    assert ((told > 0.5).numpy() == truth[500:]).mean() > 0.95


def test_what_pixels_say_written_out():
    x = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    x[1, 0] = 200  # red all over
    x[2, :, 2:-2, 2:-2] = 255  # a light middle
    x[3], x[3, :, 2:-2, 2:-2] = 255, 0  # a dark one, on white
    found = attributes.measure(x)
    assert found["bright"].tolist() == [0, 1, 0, 1]
    assert found["light_inside"].tolist() == [0, 0, 1, 0]
    assert found["warm"].tolist() == [0, 1, 0, 0]
    assert list(attributes.measure(x[:, :1])) == ["bright", "light_inside"], "grey images are neither warm nor cold"


def test_samples_are_a_set_with_what_pixels_say():
    G, _ = models.build("tutorial64", size=16, ngf=4, ndf=4)
    z = torch.randn(130, 100, generator=torch.Generator().manual_seed(0))
    drawn = attributes.samples_of(G.eval(), z)
    assert drawn.x.shape == (130, 3, 16, 16) and torch.equal(drawn.x[128:], data.to_uint8(G(z[128:])))
    assert drawn.attributes.equals(attributes.measure(drawn.x)) and (drawn.y == data.UNLABELLED).all()


def test_bytes_and_floats_are_told_alike(taught):
    net, x, _ = taught
    torch.testing.assert_close(judges.tell(net, x[:5]), judges.tell(net, x[:5] / 127.5 - 1))


def test_the_same_seed_gives_the_same_net(taught):
    _, x, truth = taught
    one, other = (judges.fit(x[:200], truth[:200], ["bright", "left"], 1, seed=3, ndf=8) for _ in range(2))
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())


def test_having_asks_for_all_attributes(taught):
    net, x, truth = taught
    hits = attributes.having(net, x[500:], {"left": True, "bright": False})
    expected = (truth[500:, 1] == 1) & (truth[500:, 0] == 0)
    assert (hits.numpy() == expected).mean() > 0.95


def test_exemplars_written_out():
    belief = pd.DataFrame({"smiling": [0.9, 0.9, 0.1, 0.7], "male": [0.1, 0.9, 0.1, 0.1]})
    assert attributes.exemplars(belief, {"smiling": True, "male": False}, 1).tolist() == [0]
    assert attributes.exemplars(belief, {"male": False}, 3).tolist() == [0, 2, 3]
    doubtful = pd.DataFrame({"male": [0.1, 0.5, 0.9]})
    assert [attributes.exemplars(doubtful, {"male": has}, 1).tolist() for has in (False, True)] == [[0], [2]]
    with pytest.raises(
        ValueError, match="smiling, not male: 1 exemplars found among 4 samples, 3 needed; samples = 12 may"
    ):
        attributes.exemplars(belief, {"smiling": True, "male": False}, 3)


def test_a_judge_that_came_with_a_net_is_asked_only_what_it_tells():
    belief = pd.DataFrame({"smiling": [0.9], "male": [0.1]})
    said = "the judge does not tell hat, wig: it tells smiling, male; name a data_set that knows it"
    with pytest.raises(ValueError, match=said):
        attributes.exemplars(belief, {"smiling": True, "hat": False, "wig": True}, 1)
    judge = judges.AttributeNet(["smiling", "male"], 16, 3, 4, 0).eval()
    with pytest.raises(ValueError, match="the judge does not tell yaw: it tells smiling, male"):
        attributes.angle(torch.zeros(1, 3, 16, 16), judge, "yaw")


def test_no_exemplar_at_all():
    with pytest.raises(
        ValueError, match="male: 0 exemplars found among 1,000 samples, 2 needed; draw many more samples"
    ):
        attributes.exemplars(pd.DataFrame({"male": np.zeros(1000)}), {"male": True}, 2)


def test_images_are_laid_over_each_other_as_their_sum():
    """Of images of one level each, a - b + c of means of two: a level again, cut where no byte goes."""
    x = torch.tensor([0, 60, 255], dtype=torch.uint8)[:, None, None, None].expand(3, 1, 4, 4)
    laid = attributes.overlays(x, 40, 2, torch.Generator().manual_seed(0))
    rows = torch.randint(3, (40, 3, 2), generator=torch.Generator().manual_seed(0))
    a, b, c = x[:, 0, 0, 0].double()[rows].mean(2).T
    expected = (a - b + c).clamp(0, 255)
    assert laid.dtype == torch.uint8 and laid.shape == (40, 1, 4, 4) and (laid == laid[:, :1, :1, :1]).all()
    torch.testing.assert_close(laid[:, 0, 0, 0].double(), expected, atol=1, rtol=0)


def test_both_judges_of_sums_learn_and_say_how_well(taught):
    """Overlays of these have grey edges, or two, unless all are of one kind: then nothing tells them from images."""
    _, x, truth = taught
    table = pd.DataFrame(truth, columns=["bright", "left"])
    images = data.ImageSet("edges", x, torch.zeros(600), attributes=table)
    came = attributes.fit_judges(images, ["bright", "left"], "", 12, 3, seed=0)
    assert min((came["attributes"].accuracy | came["overlays"].accuracy).values()) > 0.7
    assert list(came["overlays"].accuracy) == ["single", "overlay"]
    laid = attributes.overlays(x, 50, 3, torch.Generator().manual_seed(1))
    worth = torch.tensor([-0.9, -0.5, 0.0, 0.5])

    def D(x):
        return x.mean((1, 2, 3))

    for some, single in ((data.to_float(x[:50]), 0.85), (data.to_float(laid), 0.4)):
        told = attributes.verdicts(some, came, {"bright": True}, D, worth)
        assert (told["single"].float().mean() > single) == (single > 0.5)
        assert torch.equal(told["works and is single"], told["works"] & told["single"])
        assert told["face"].float().mean() < 0.1
        assert told["rank"].tolist() == [sum(level > answer for answer in worth).item() / 4 for level in D(some)]
    some = data.to_float(x[:6])
    table = attributes.trials("A > B", {"sum": some, "by chance": some}, came, {"bright": True}, D, worth)
    assert table.index.names == ["draw", "way", "sum"] and len(table) == 12
    works = attributes.verdicts(some, came, {"bright": True}, D, worth)["works"].tolist()
    assert table.works.xs("by chance", level="way").tolist() == works
    found = attributes.verdicts(data.to_float(x), came, {"bright": True}, D, worth)["works"]
    assert (found.numpy() == truth[:, 0]).mean() > 0.9


def test_who_looks_where():
    """Told by a judge that knows the angle, or by the detector; sure is what lies beyond 0.6 either way."""
    assert [rows.tolist() for rows in attributes.sides(torch.tensor([-0.7, 0.5, 0.7, -0.5, 0, 1]))] == [[0], [2, 5]]
    judge = judges.AttributeNet(["smiling", "yaw"], 16, 3, 4, 0).eval()
    x = torch.rand(5, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(attributes.angle(x, judge, "yaw"), judges.tell(judge, x)[:, 1] * 2 - 1)
    faces = torch.from_numpy(np.stack([paint_face(Face(yaw=yaw), 64) for yaw in (-1, 1)]))
    assert attributes.angle(faces, judge).sign().tolist() == [-1, 1]
    found = attributes.angles({"there": faces[None], "back": faces.flip(0)[None]}, judge)
    assert np.sign(found.to_numpy()).tolist() == [[-1, 1], [1, -1]] and found.columns.name == "place"
    assert found.index.tolist() == [("there", 0), ("back", 0)]


def test_the_papers_sum_written_out():
    three, asked = attributes.concepts("glasses > not male", ["smiling", "glasses", "male"])
    assert three == {
        "glasses, male": {"smiling": False, "glasses": True, "male": True},
        "no glasses, male": {"smiling": False, "glasses": False, "male": True},
        "no glasses, no male": {"smiling": False, "glasses": False, "male": False},
    }
    assert asked == {"smiling": False, "glasses": True, "male": False}


@pytest.mark.parametrize("wrong", ["glasses", "glasses > hat", "male > not male", "glasses - male"])
def test_sums_that_cannot_be_read(wrong):
    with pytest.raises(ValueError, match="say A > B or A > not B with two of glasses, male"):
        attributes.concepts(wrong, ["glasses", "male"])


def test_a_quantity_is_told_on_a_line():
    """The brightness of a grey image, from 0 to 1, is regressed."""
    level = np.random.default_rng(0).random(600)
    x = torch.from_numpy(30 + 200 * level)[:, None, None, None].expand(600, 1, 16, 16).to(torch.uint8)
    net = judges.fit(x[:500], level[:500, None], ["level"], epochs=6, seed=0, ndf=8)
    told = judges.tell(net, x[500:])[:, 0].numpy()
    assert np.corrcoef(told, level[500:])[0, 1] > 0.98


def a_set(y, classes=(), **attributes):
    table = pd.DataFrame(attributes) if attributes else None
    return data.ImageSet("photos", torch.zeros(len(y), 1, 4, 4).byte(), torch.tensor(y), classes, table)


def test_what_is_known_of_images():
    images, labels = attributes.known(
        a_set([0, 0, 0], ("all",), bright=[0, 1, 1], same=[2, 2, 2], name=["a", "b", "c"])
    )
    assert labels.to_dict("list") == {"bright": [0, 1, 1]} and len(images) == 3
    images, labels = attributes.known(a_set([0, 1, 0, -1], ("cat", "dog")))
    assert labels.to_dict("list") == {"cat": [1, 0, 1], "dog": [0, 1, 0]}
    assert images.y.tolist() == [0, 1, 0], "an image without a label is no dog, as the last class is"
    for nothing in (a_set([0, 0], ("all",)), a_set([-1, -1], ("cat", "dog")), a_set([0, 0], ("all",), same=[1, 1])):
        assert attributes.known(nothing)[1].columns.empty


def test_a_set_that_does_not_know_what_is_asked():
    images = a_set([0, 0], ("all",), smiling=[0, 1], male=[1, 1])
    assert list(attributes.require(images, ["male", "smiling"])) == ["male", "smiling"]
    with pytest.raises(
        ValueError, match="photos does not know hat, wig: it knows smiling, male; name another set as data_set"
    ):
        attributes.require(images, ["male", "hat", "wig"])
    with pytest.raises(
        ValueError, match="photos does not know smiling: it has no labels; name another set as data_set"
    ):
        attributes.require(a_set([0, 0], ("all",)), ["smiling"])
    with pytest.raises(ValueError, match="^male: an attribute is named twice"):
        attributes.require(images, ["male", "smiling", "male"])


def test_judges_cannot_learn_from_images_that_nobody_labelled():
    with pytest.raises(
        ValueError, match="photos does not know smiling, male: it has no labels; name another set as data_set"
    ):
        attributes.fit_judges(a_set([0] * 20, ("all",)), ["smiling", "male"], "", 1, 3, seed=0)


def test_what_a_judge_learns_written_out():
    images = a_set([0, 0, 0], ("all",), smiling=[-1, 0, 1], male=[True, True, False], yaw=[-1.0, 0.5, 1.0])
    assert attributes.truth(images, ["male", "smiling"], "yaw").tolist() == [[1, 0, 0], [1, 0, 0.75], [0, 1, 1]]
    assert attributes.truth(images, ["smiling"]).tolist() == [[0], [0], [1]]
