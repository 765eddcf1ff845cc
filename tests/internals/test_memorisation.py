"""The hash, its scores and the neighbours: written out, or against scikit-learn; the control against its images."""

import numpy as np
import pytest
import torch
from sklearn.metrics.cluster import pair_confusion_matrix
from sklearn.neighbors import NearestNeighbors

from lib.images import data
from lib.images.faces import draw_faces
from lib.internals import dedup, memorisation
from lib.nets import models


@pytest.fixture(scope="module")
def faces():
    return torch.from_numpy(draw_faces(300, 16)[0])


def test_collisions_written_out():
    codes = np.array([[1, 0, 1], [0, 0, 0], [1, 0, 1], [0, 0, 1]], bool)
    numbers = dedup.collide(codes)
    assert numbers[0] == numbers[2]
    assert len(set(numbers)) == 3


def test_pairs_are_scored_as_scikit_learn_does():
    rng = np.random.default_rng(0)
    codes, truth = rng.random((80, 4)) < 0.5, rng.integers(0, 30, 80)
    (_, wrong), (missed, right) = pair_confusion_matrix(truth, dedup.collide(codes))
    expected = right / (right + wrong), right / (right + missed)
    assert dedup.score_pairs(codes, truth) == pytest.approx(expected)


def test_pairs_that_differ_in_bits():
    codes, truth = np.array([[0, 0, 0], [0, 0, 1], [1, 1, 1]], bool), np.array([5, 5, 7])
    assert np.isnan(dedup.score_pairs(codes, truth)[0])
    assert dedup.score_pairs(codes, truth, bits=1) == (1, 1)
    assert dedup.score_pairs(codes, truth, bits=2) == (0.5, 1)


def test_copies_collide_and_strangers_do_not(faces):
    net = dedup.fit_autoencoder(faces, epochs=5, seed=0, units=64)
    codes = dedup.hash_images(net, torch.cat([faces, faces[:20]]))
    assert codes.shape == (320, 64) and codes.dtype == bool
    truth = np.concatenate([np.arange(300), np.arange(20)])
    precision, recall = dedup.score_pairs(codes, truth)
    assert recall == 1 and precision > 0.9
    again = dedup.fit_autoencoder(faces, epochs=5, seed=0, units=64)
    assert np.array_equal(dedup.hash_images(again, faces), codes[:300])


def test_the_autoencoder_learns(faces):
    def error(epochs: int) -> float:
        net = dedup.fit_autoencoder(faces, epochs, seed=0)
        x = data.to_float(faces).flatten(1) - net.mean
        with torch.no_grad():
            return (net(x) - x).square().mean().item()

    assert error(20) < 0.7 * error(1)


@pytest.mark.parametrize("channels", [1, 3])
def test_variants_look_the_same_and_are_not(faces, channels):
    image = faces[3, :channels]
    for kind, change in dedup.VARIANTS.items():
        made = change(image)
        assert made.shape == image.shape and made.dtype == torch.uint8
        assert torch.equal(made, image) == (kind == "copy"), kind
    moved = dedup.VARIANTS["shifted by a pixel"](image)
    assert torch.equal(moved[:, :, 1:], image[:, :, :-1])


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
    z = memorisation.recall(G, codes, rows, torch.Generator().manual_seed(1))
    assert z.var().item() == pytest.approx(1, abs=0.1)
    with torch.no_grad():
        samples = G(z)
    distances, found = memorisation.nearest(samples, data.to_float(faces[:8]))
    assert (found == rows).float().mean() > 0.95
    others = memorisation.nearest(data.to_float(faces[8:108]), data.to_float(faces[:8]))[0]
    assert distances.median() < 0.7 * others.median()


def test_the_control_takes_images_of_its_net(faces):
    description = models.describe("tutorial64", size=16, nc=1, ngf=4, ndf=4)
    with pytest.raises(ValueError, match=r"images of \(3, 16, 16\) do not fit a net for \(1, 16, 16\)"):
        memorisation.memorise(description, faces[:8], steps=1, seed=0)


def test_what_a_training_held_out_was_not_learned():
    whole = data.load("digits", 16)
    record = {"parameters": {"data_set": "digits", "split": "train", "limit": 0, "held_out": 0.1, "seed": 3}}
    images, unseen = memorisation.split_of(record, "digits", 16, "train", "training")
    rows, kept = data.hold_out(len(whole), 0.1, 3)  # as notebook 01 does
    assert torch.equal(images.x, whole.x[rows]) and torch.equal(unseen, whole.x[kept])
    some = memorisation.split_of(record, "digits", 16, "train", "training", most=10)[1]
    assert len(some) == 10 and torch.equal(some[[0, 5]], unseen[[0, len(unseen) // 2]])
    record["parameters"]["limit"] = 100
    images, unseen = memorisation.split_of(record, "digits", 16, "train", "training")
    assert len(images) == 90 and len(unseen) == 10, "of the images that it was given, no others"
    assert len(memorisation.split_of({}, "digits", 16, "train", "test", most=7)[1]) == 7, "a split needs no record"


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"split": "all"}, "did not learn digits, train"), ({"held_out": 0.0}, "held no image out")],
)
def test_a_training_that_held_nothing_of_this_out(changed, said):
    record = {"parameters": {"data_set": "digits", "split": "train", "limit": 0, "held_out": 0.1, "seed": 3} | changed}
    with pytest.raises(ValueError, match=said):
        memorisation.split_of(record, "digits", 16, "train", "training")
