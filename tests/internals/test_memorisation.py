"""Neighbours against scikit-learn's; the control against its images."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, quantile_test
from sklearn.neighbors import NearestNeighbors

from lib.images import data
from lib.images.faces import draw_faces
from lib.internals import memorisation
from lib.nets import models
from lib.study.chance import Interval


@pytest.fixture(scope="module")
def faces():
    return torch.from_numpy(draw_faces(300, 16)[0])


@pytest.mark.parametrize("part", [7, 10_000])
def test_neighbours_are_scikit_learns(faces, monkeypatch, part):
    """In pixels and in features, whatever part of the set is looked at at once, bytes or floats."""
    monkeypatch.setattr(memorisation, "PART", part)
    x = data.to_float(faces)
    for to in (torch.Tensor.float, lambda x: x[:, :, ::2, ::3].square()):
        distances, rows = memorisation.nearest(faces[:30], x[30:], to=to)
        peer = NearestNeighbors(n_neighbors=1).fit(to(x[30:]).flatten(1).numpy())
        expected, chosen = peer.kneighbors(to(x[:30]).flatten(1).numpy())
        np.testing.assert_allclose(distances, expected[:, 0], rtol=1e-3)
        assert (rows.numpy() == chosen[:, 0]).mean() > 0.9  # float32 may settle a near tie otherwise


def test_a_moved_image_is_found_by_a_shift():
    training = torch.zeros(3, 1, 8, 8)
    training[1, 0, 3:5, 3:5] = 1
    query = torch.zeros(1, 1, 8, 8)
    query[0, 0, 4:6, 2:4] = 1
    assert memorisation.nearest(query, training)[0].item() > 1
    distance, row = memorisation.nearest(query, training, shift=1)
    assert (distance.item(), row.item()) == (0, 1)


def test_a_copy_in_a_mirror_is_found_in_a_mirror(faces):
    copies, others = faces[:40].flip(3), faces[40:]
    assert (memorisation.nearest(copies, faces, rows=torch.arange(40))[0] > 0).all()
    distances, rows = memorisation.nearest(copies, faces, mirrored=True)
    assert torch.equal(rows, torch.arange(40)) and (distances < 0.05).all(), "but for cdist's rounding"
    straight = memorisation.nearest(others[:20], faces[:200], mirrored=True)[0]
    either = [memorisation.nearest(x, faces[:200])[0] for x in (others[:20], others[:20].flip(3))]
    torch.testing.assert_close(straight, torch.minimum(*either), atol=0.02, rtol=0)
    square = torch.zeros(1, 1, 8, 8)
    square[0, 0, 3:5, 1:3] = 1
    moved = torch.zeros(1, 1, 8, 8)
    moved[0, 0, 3:5, 4:6] = 1
    assert memorisation.nearest(moved, square, shift=1, mirrored=True)[0].item() == 0, "moved, and in a mirror"


def test_ratio_of_medians():
    generator = torch.Generator().manual_seed(0)
    a, b = 2 + torch.rand(400, generator=generator), 4 + 2 * torch.rand(400, generator=generator)
    ratio = memorisation.ratio_of_medians(a, b, seed=0)
    assert ratio.mean == pytest.approx(float(np.median(a) / np.median(b)))
    assert ratio.low < 0.5 < ratio.high and ratio.high - ratio.low < 0.06
    assert memorisation.ratio_of_medians(a, a, seed=0).mean == 1


def test_the_control_memorises(faces):
    """Its samples are its stored images, each from around its own code, and nearer than others' images are."""
    description = models.describe("tutorial64", size=16, nc=3, ngf=16, ndf=4)
    G, codes = memorisation.memorise(description, faces[:8], steps=120, seed=0)
    rows = torch.arange(100) % 8
    z = memorisation.recall(G, codes[rows], torch.Generator().manual_seed(1))
    assert z.var().item() == pytest.approx(1, abs=0.1)
    with torch.no_grad():
        samples = G(z)
    distances, found = memorisation.nearest(samples, data.to_float(faces[:8]))
    assert (found == rows).float().mean() > 0.95
    others = memorisation.nearest(data.to_float(faces[8:108]), data.to_float(faces[:8]))[0]
    assert distances.median() < 0.7 * others.median()


def test_the_control_never_sees_a_code_twice(faces, monkeypatch):
    """Noise around the codes is drawn for each minibatch, or an image would be stored at a point."""
    seen, forward = [], models.Generator.forward
    monkeypatch.setattr(models.Generator, "forward", lambda G, z: (seen.append(z.detach().clone()), forward(G, z))[1])
    _, codes = memorisation.memorise(models.describe("tutorial64", size=16, ngf=4, ndf=4), faces[:8], steps=3, seed=0)
    first, *others = (z.sort(dim=0).values for z in seen if len(z) == 8)
    assert len(others) >= 2
    assert all((z - first).abs().mean() > 0.01 for z in [*others, codes.sort(dim=0).values])


def test_the_control_takes_images_of_its_net(faces):
    description = models.describe("tutorial64", size=16, nc=1, ngf=4, ndf=4)
    with pytest.raises(ValueError, match=r"images of \(3, 16, 16\) do not fit a net for \(1, 16, 16\)"):
        memorisation.memorise(description, faces[:8], steps=1, seed=0)


def test_a_memorised_image_fills_a_region_and_not_a_point():
    """z around a code: seven tenths of its variance are the code's, three tenths are new."""
    G, _ = models.build("tutorial64", size=16, ngf=4, ndf=4)  # of a Gaussian prior
    code = torch.randn(1, 100, generator=torch.Generator().manual_seed(0))
    z = memorisation.recall(G, code.expand(4000, -1), torch.Generator().manual_seed(1))
    torch.testing.assert_close(z.mean(0), 0.7**0.5 * code[0], atol=0.04, rtol=0)
    assert z.var(0).mean().item() == pytest.approx(0.3, abs=0.01)


def test_the_interval_of_a_ratio_is_one_of_95_percent():
    """SciPy's own interval of a median by order statistics: Student's quantiles would do as well."""
    generator = torch.Generator().manual_seed(3)
    a, b = 5 + torch.randn(900, generator=generator), torch.full((50,), 5.0)
    ratio = memorisation.ratio_of_medians(a, b, seed=0)
    known = quantile_test(a.double().numpy(), p=0.5).confidence_interval(0.95)
    assert (ratio.high - ratio.low) * 5 == pytest.approx(known.high - known.low, rel=0.2)
    assert memorisation.ratio_of_medians(a, b, seed=0) == ratio != memorisation.ratio_of_medians(a, b, seed=1)


def test_some_rows_alone_are_looked_at(faces, monkeypatch):
    monkeypatch.setattr(memorisation, "PART", 16)
    rows = torch.arange(1, 300, 3)
    distances, found = memorisation.nearest(faces[:40], faces, rows=rows)
    expected, place = memorisation.nearest(faces[:40], faces[rows])
    assert torch.equal(found, rows[place]) and torch.equal(distances, expected)
    assert (found[1:40:3] == torch.arange(1, 40, 3)).all(), "each that is among them finds itself"


def test_features_of_the_training_images_are_taken_once(faces, monkeypatch):
    monkeypatch.setattr(memorisation, "PART", 100)
    seen = []

    def to(x):
        seen.append(len(x))
        return x.flatten(1)

    memorisation.nearest(faces[:10], faces, to=to)
    assert seen == [10, 100, 100, 100]


def test_one_image_is_no_control(faces):
    description = models.describe("tutorial64", size=16, ngf=4, ndf=4)
    with pytest.raises(ValueError, match="two at least"):
        memorisation.memorise(description, faces[:1], steps=1, seed=0)


def test_the_nearest_other_is_scikit_learns_second(faces):
    flat = data.to_float(faces).flatten(1).numpy()
    expected = NearestNeighbors(n_neighbors=2).fit(flat).kneighbors(flat)[0][:, 1]
    np.testing.assert_allclose(memorisation.nearest_other(faces), expected, rtol=1e-3)


def test_the_excess_written_out():
    """Of a hundred one lies below the limit; of ours five of fifty: 0.1 less 0.01."""
    control = torch.arange(100.0)
    ours = torch.cat([torch.zeros(5), torch.full((45,), 60.0)])
    gap = memorisation.excess(ours, control)
    assert gap.mean == pytest.approx(0.09)
    (l1, u1), (l2, u2) = (binomtest(k, n).proportion_ci(method="wilson") for k, n in ((5, 50), (1, 100)))
    assert gap.low == pytest.approx(0.09 - ((0.1 - l1) ** 2 + (u2 - 0.01) ** 2) ** 0.5)
    assert gap.high == pytest.approx(0.09 + ((u1 - 0.1) ** 2 + (0.01 - l2) ** 2) ** 0.5)


@pytest.mark.parametrize(("planted", "found"), [(0, False), (0.01, False), (0.05, True), (0.1, True)])
def test_planted_copies_are_found_from_some_share_on_and_medians_find_none(planted, found):
    """Among 600 distances of new images, as many of other new images beside them."""
    generator = torch.Generator().manual_seed(0)
    control, distances = 10 + torch.randn(2, 600, generator=generator)
    distances[: round(planted * 600)] = 1.0
    assert (memorisation.excess(distances, control).low > 0) == found
    assert memorisation.ratio_of_medians(distances, control, seed=0).low > 0.8, "no copies by the median's account"


def test_hardly_ever_is_there_an_excess_where_nothing_was_planted():
    generator, alarms = torch.Generator().manual_seed(1), 0
    for _ in range(400):
        alarms += memorisation.excess(*torch.randn(2, 300, generator=generator)).low > 0
    assert alarms < 0.05 * 400


def test_a_repeated_sample_is_found(faces):
    """A tenth of the samples is one image: nearer to each other than held-out images are."""
    made, held_out = faces[:150].clone(), faces[150:]
    limits = memorisation.nearest_other(held_out)
    assert memorisation.excess(memorisation.nearest_other(made), limits).low <= 0
    made[:15] = made[0]
    assert memorisation.excess(memorisation.nearest_other(made), limits).low > 0


def test_no_sample_nearer_than_any_two_of_the_control_is_no_excess_at_quantile_0():
    control = torch.tensor([3.0, 3, 5, 8])
    assert memorisation.excess(torch.tensor([3.0, 4, 9, 9]), control, quantile=0).mean == 0
    assert memorisation.excess(torch.tensor([2.9, 2.9, 9, 9]), control, quantile=0).mean == 0.5


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("nothing", set()),
        ("copies", {"copies, all"}),
        ("one sample again and again", {"repeats, all", "twins, all"}),
        ("the middle alone", {"precision", "lost recall"}),
    ],
)
def test_each_failure_has_its_sign(planted, found):
    """300 points of eight dimensions for samples, as many new ones, and as many that a G learned."""
    x = torch.randn(900, 8, generator=torch.Generator().manual_seed(0))
    samples, new, learned = x.split(300)
    if planted == "copies":
        samples = torch.cat([learned[:60] + 0.01, samples[60:]])
    elif planted == "the middle alone":
        samples = samples * 0.5
    rows, control = torch.arange(300), torch.arange(300, 600)
    if planted == "one sample again and again":
        rows[:100] = 0
    both = torch.cat([samples, new])
    near = memorisation.nearest(both, learned)[0]
    told = memorisation.signs(rows, control, {"all": near}, {"all": both}, learned, "all")
    seen = {name for name, sign in told.items() if sign.low > 0}
    assert seen == found if planted in ("nothing", "copies") else seen >= found


def test_what_is_planted_and_from_which_share_on_a_sign_finds_it():
    """A sign that counts copies among the rows, sure of itself from three on; one that is never; one that always is."""

    def ask(rows, control):
        assert control.tolist() == list(range(100, 200)) and len(rows) == 100
        copies, repeats = int((rows >= 200).sum()), int((rows == 0).sum())
        return {
            "copies": Interval(copies, copies - 2, 0),
            "blind": Interval(0, -1, 1),
            "repeats": Interval(0, repeats - 5, 0),
        }

    power = memorisation.power(ask, torch.arange(100), torch.arange(100, 200), torch.arange(200, 210))
    assert {share: power["copies", "copies", share].mean for share in (0.0, 0.01, 0.02, 0.05, 0.1)} == {
        0.0: 0, 0.01: 1, 0.02: 2, 0.05: 5, 0.1: 10,
    }  # fmt: skip
    least = memorisation.least_found(power)
    assert least["copies", "copies"] == 0.05 and least["repeats", "repeats"] == 0.1
    assert least[["blind"]].isna().all() and np.isnan(least["copies", "repeats"])
