"""The images of a probe: unlabelled ones left out and counted, some set apart, the same ones whatever is asked."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lib.images import data
from lib.images.data import ImageSet
from lib.probe import protocol, splits
from lib.study import paths
from lib.study.runs import Run


@pytest.fixture
def sets(monkeypatch):
    """A train split of 90 images of three classes and 10 without a label, a test split of 20 and 4; each image's
    pixels are its row."""

    def load(name, size, split="train", limit=0):
        assert not limit
        y = np.sort(np.arange(90) % 3) if split == "train" else np.sort(np.arange(20) % 3)
        y = np.concatenate([np.full(10 if split == "train" else 4, -1), y])
        if name == "nobody's":
            y[:] = -1
        x = torch.arange(len(y), dtype=torch.uint8)[:, None, None, None].expand(-1, 1, size, size)
        return ImageSet(name, x, torch.from_numpy(y), ("a", "b", "c"))

    monkeypatch.setattr(data, "load", load)


def rows(images):
    return images.x[:, 0, 0, 0].tolist()


def test_unlabelled_images_are_left_out_of_both_splits_and_counted(sets):
    found = splits.load("some", 4)
    assert rows(found.learn) == list(range(10, 100)) and rows(found.test) == list(range(4, 24))
    assert found.unlabelled == 14
    assert (found.own, found.apart, found.final) == (slice(0, 90), slice(90, 90), slice(0, 90))
    with pytest.raises(ValueError, match="nobody's: none of its 100 images has a label"):
        splits.load("nobody's", 4)


def test_images_set_apart_come_last_class_by_class_and_are_nobody_elses(sets):
    found = splits.load("some", 4, development=30)
    own, apart = rows(found.learn[found.own]), rows(found.learn[found.apart])
    assert len(own) == 60 and len(apart) == 30 and sorted(own + apart) == list(range(10, 100))
    assert np.bincount(found.learn.y[found.apart]).tolist() == [10, 10, 10]
    assert found.final == slice(0, 90)
    assert own == sorted(own) and apart != list(range(70, 100))


def test_the_same_images_are_set_apart_whatever_the_limit(sets):
    every, some = (splits.load("some", 4, limit=limit, development=30) for limit in (0, 20))
    assert rows(some.learn[some.apart]) == rows(every.learn[every.apart])
    own = rows(every.learn[every.own])
    assert rows(some.learn[some.own]) == own[::3], "evenly spaced"
    assert len(splits.load("some", 4, limit=200).learn) == 90


def test_choices_are_tested_on_the_images_set_apart(sets):
    found = splits.load("some", 4, test="development", development=30)
    assert rows(found.test) == rows(found.learn[found.apart])
    assert found.unlabelled == 10
    assert found.final == found.own == slice(0, 60), "no image is learned from and tested on"
    with pytest.raises(ValueError, match="no images are set apart to be tested on: give development a number or test"):
        splits.load("some", 4, test="development")


@pytest.mark.parametrize("number", [2, 88, -1])
def test_a_number_that_leaves_a_class_out_is_refused(sets, number):
    with pytest.raises(ValueError, match=f"development = {number}: of 90 training images of 3 classes"):
        splits.load("some", 4, development=number)


@pytest.fixture(scope="module")
def cifar10():
    """50,000 images of CIFAR-10's classes whose mean is exact in 3 decimals only: 125, 123 and 114 of 255."""
    colours = torch.tensor([[0, 0, 0], [250, 246, 228]], dtype=torch.uint8).repeat_interleave(25_000, 0)
    x = colours[:, :, None, None].expand(-1, -1, 32, 32).contiguous()
    return ImageSet("cifar10", x, torch.arange(50_000) % 10, splits.CIFAR10, notes=("packed",))


def test_a_copy_of_cifar10_that_is_not_exact_is_said_with_its_cost(cifar10, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(data, "load", lambda name, size, split="train": cifar10 if split == "train" else cifar10[:50])
    monkeypatch.setattr(paths, "TABLE", tmp_path / "table.csv")
    told = "not the exact CIFAR-10, its mean is 0.49020, 0.48235, 0.44706 and not 0.49140, 0.48216, 0.44653: "
    kept = {
        "raw pixels: all labels": 41,
        "trained D minus untrained D, JPEG 75: all labels": 12,
        "k-means minus k-means, JPEG 75: few labels": 2,
    }
    measured = {
        "trained D minus trained D, JPEG 75: all labels": 3.84,
        "k-means minus k-means, JPEG 75: all labels": 3.06,
    }
    for lines, cost in (
        ({}, "rows pixels-jpeg and kmeans-jpeg of batches/cifar10.yaml measure what a lossy copy costs"),
        (kept, "rows pixels-jpeg and kmeans-jpeg of batches/cifar10.yaml measure what a lossy copy costs"),
        (
            kept | measured,
            "a copy saved as JPEG 75 cost trained D 3.8, k-means 3.1 points of what the probe gets from all labels",
        ),
    ):
        if lines:  # none are kept: there is no table
            pd.Series(lines, name="value").rename_axis("metric").to_csv(paths.TABLE)
        found = splits.load("cifar10", 32, development=50)
        assert found.learn.notes == ("packed", told + cost)
        assert capsys.readouterr().err.count(told + cost) == 1, "said once"


def test_exact_images_and_other_sets_are_no_copies(cifar10, monkeypatch):
    assert splits.not_its_own(cifar10) and not splits.not_its_own(replace(cifar10, classes=("cat", "dog")))
    assert not splits.not_its_own(cifar10[:1000])
    monkeypatch.setattr(splits, "EXACT", (125 / 255, 123 / 255, 114 / 255))
    assert not splits.not_its_own(cifar10)


def test_images_of_another_size_than_cifar10s_are_told(cifar10):
    told = "CIFAR-10 at 8 x 4, the size of the net: take one for 32 x 32 to compare with the paper"
    assert splits.not_its_own(replace(cifar10, x=cifar10.x[..., :4, :8])) == told


def test_what_was_told_of_the_images_is_recorded(sets):
    run, found = Run("a", "b", {}), splits.load("some", 4)
    protocol.record_images(run, replace(found, learn=replace(found.learn, notes=("one", "two"))))
    assert [(line["metric"], line["value"], line["note"]) for line in run.metrics] == [
        ("images to be tested on", 20, "one; two")
    ]


def test_jpeg_blurs_colour_and_keeps_brightness(sets):
    x = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x[0] = torch.arange(16, dtype=torch.uint8).mul(16)  # grey, smooth
    images = ImageSet("some", x, torch.zeros(2, dtype=torch.int64))
    found = splits.compress(images, 75).x
    assert (found[0].int() - x[0].int()).abs().max() < 12 and not torch.equal(found, x)
    assert torch.equal(images.x, x), "the set itself is as it was"
    fine = splits.compress(images, 95).x
    assert (fine[0].int() - x[0].int()).abs().sum() < (found[0].int() - x[0].int()).abs().sum()

    def colour(images):  # Cr, from pixel to pixel
        r, g, b = images[1].float()
        cr = 0.5 * r - 0.419 * g - 0.081 * b
        return (cr[:, 1::2] - cr[:, ::2]).abs().mean()

    assert colour(fine) < 0.5 * colour(x), "half the resolution"
    with pytest.raises(ValueError, match="jpeg = 96: a quality lies between 1 and 95"):
        splits.compress(images, 96)
