"""The hash and its scores: written out, or against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics.cluster import pair_confusion_matrix

from lib.images import data
from lib.images.faces import draw_faces
from lib.internals import dedup


@pytest.fixture(scope="module")
def faces():
    return torch.from_numpy(draw_faces(300, 16)[0])


def test_collisions_written_out():
    codes = np.array([[1, 0, 1], [0, 0, 0], [1, 0, 1], [0, 0, 1]], bool)
    numbers = dedup.collide(codes)
    assert numbers[0] == numbers[2]
    assert len(set(numbers)) == 3
    assert [rows.tolist() for rows in dedup.collisions(codes)] == [[2], [0]]
    assert [rows.tolist() for rows in dedup.collisions(codes[1:])] == [[], []]


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
        with torch.no_grad():
            return (net(data.to_float(faces)) - net.centre(faces)).square().mean().item()

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


def test_the_mean_is_that_of_all_images_whatever_their_order(monkeypatch):
    """Half black and half white, sorted: the mean is grey, however many rows are looked at at once."""
    monkeypatch.setattr(dedup, "PART", 7)
    x = torch.cat([torch.zeros(30, 1, 4, 4), torch.full((30, 1, 4, 4), 255)]).to(torch.uint8)
    net = dedup.fit_autoencoder(x, epochs=1, seed=0, units=4)
    torch.testing.assert_close(net.mean, torch.zeros(16), atol=1e-6, rtol=0)


def test_a_fifth_of_the_pixels_and_half_of_the_code_are_dropped_while_it_learns():
    net = dedup.Autoencoder(torch.zeros(1000), units=500).train()
    seen = {}
    net.encoder.register_forward_hook(lambda module, inputs, _: seen.update(pixels=inputs[0]))
    net.decoder.register_forward_hook(lambda module, inputs, _: seen.update(code=inputs[0]))
    torch.nn.init.zeros_(net.encoder.weight)
    torch.nn.init.ones_(net.encoder.bias)
    torch.manual_seed(0)
    net(torch.ones(50, 1000))
    assert (seen["pixels"] == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert (seen["code"] == 0).float().mean().item() == pytest.approx(0.5, abs=0.02)
    net.eval()(torch.ones(50, 1000))
    assert (seen["pixels"] == 1).all() and (seen["code"] == 1).all()
