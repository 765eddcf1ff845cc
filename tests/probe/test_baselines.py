"""Table 1's opponents: each step of k-means against NumPy, and nets that learn what they are asked."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from lib.images import data
from lib.nets import authors, models, supervised
from lib.probe import exemplar_cnn, kmeans
from lib.study import chance


@pytest.fixture(scope="module")
def images():
    return torch.randint(256, (40, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_patches_are_cut_from_the_images_and_normalised(images):
    patches = kmeans._draw_patches(images, 5, torch.Generator().manual_seed(1))
    every = images.unfold(2, 6, 1).unfold(3, 6, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1).float()
    assert all((every == patch).all(1).any() for patch in patches)
    found = kmeans._normalise(patches).numpy()
    p = patches.numpy()
    truth = (p - p.mean(1, keepdims=True)) / np.sqrt(p.var(1, ddof=1, keepdims=True) + 10)
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-6)


def test_whitened_patches_are_white(images):
    book = kmeans.fit_codebook(images, 4, patches=4000, iterations=2)
    patches = kmeans._normalise(
        kmeans._draw_patches(images, 4000, torch.Generator().manual_seed(chance.stream(0, "patches")))
    )
    covariance = torch.cov(((patches - book.mean) @ book.whitening).T)
    variances = torch.linalg.eigvalsh(torch.cov(patches.T))
    truth = (variances / (variances + 0.1)).sort().values  # what ZCA with that constant leaves of each variance
    torch.testing.assert_close(torch.linalg.eigvalsh(covariance), truth, atol=1e-3, rtol=1e-3)


def test_a_step_of_kmeans_is_scikit_learns():
    points = torch.randn(500, 7, generator=torch.Generator().manual_seed(0))
    start = torch.randn(6, 7, generator=torch.Generator().manual_seed(1))
    theirs = KMeans(6, init=start.numpy(), n_init=1, max_iter=1).fit(points.numpy())
    centroids = kmeans.step(points, start)
    np.testing.assert_allclose(centroids, theirs.cluster_centers_, rtol=1e-4, atol=1e-5)


def test_a_centroid_that_no_point_is_nearest_to_becomes_zero():
    points, start = torch.tensor([[1.0, 1], [3, 1], [-5, 0]]), torch.tensor([[2.0, 0], [-5, 1], [90, 90]])
    assert kmeans.step(points, start).tolist() == [[2, 1], [-5, 0], [0, 0]]


def test_centroids_begin_near_zero_not_at_outlying_patches(images, monkeypatch):
    begun = []
    monkeypatch.setattr(kmeans, "step", lambda points, centroids: begun.append((points, centroids)) or centroids)
    kmeans.fit_codebook(images, 50, patches=2000, iterations=3)
    points, centroids = begun[0]
    assert len(begun) == 3
    assert abs(centroids.std() - 0.1) < 0.01 and points.std() > 0.8


def test_triangle_code_summed_over_quadrants(images):
    book = kmeans.fit_codebook(images, 5, patches=500, iterations=3)
    found = kmeans.encode(book, images[:3]).numpy()
    x, half = images[0].numpy().astype(float), 4  # 7 x 7 patches: 4 and 3
    sums = np.zeros((2, 2, 5))
    for i in range(7):
        for j in range(7):
            p = x[:, i : i + 6, j : j + 6].ravel()
            p = (p - p.mean()) / np.sqrt(p.var(ddof=1) + 10)
            distance = np.linalg.norm((p - book.mean.numpy()) @ book.whitening.numpy() - book.centroids.numpy(), axis=1)
            sums[int(i >= half), int(j >= half)] += np.maximum(0, distance.mean() - distance)
    assert found.shape == (3, 20) and found.dtype == np.float16
    np.testing.assert_allclose(found[0], sums.ravel(), rtol=2e-3, atol=1e-2)


def test_kmeans_features_are_standardised_by_the_training_images(images):
    book = kmeans.fit_codebook(images[:30], 4, patches=500, iterations=2)
    raw, raw_test = (kmeans.encode(book, part).double() for part in (images[:30], images[30:]))
    learned, test = kmeans.kmeans_features(images[:30], images[30:], 4, patches=500, iterations=2)
    assert learned.shape == (30, 16) and test.shape == (10, 16)
    scale = (raw.var(0) + 0.01).sqrt()
    torch.testing.assert_close(learned.double(), (raw - raw.mean(0)) / scale, rtol=1e-2, atol=2e-3)
    torch.testing.assert_close(test.double(), (raw_test - raw.mean(0)) / scale, rtol=1e-2, atol=2e-3)


def test_exemplar_net_tells_its_images_apart():
    x = data.load("toy-faces:40", 16).x
    net = exemplar_cnn.fit_exemplar_net(x, 8, views=400, maps=(16, 16, 32), lr=5e-3)
    generator = torch.Generator().manual_seed(chance.stream(0, "surrogates"))
    chosen = x[torch.randperm(len(x), generator=generator)[:8]]
    assert (supervised.predict(net, chosen) == np.arange(8)).mean() >= 0.75
    assert exemplar_cnn.exemplar_features(net, x).shape == (len(x), 4 * 16 + 4 * 16 + 32)


def test_exemplar_nets_have_the_published_layers():
    net = exemplar_cnn.ExemplarNet((64, 128, 256, 512), 3, 32, 10)
    assert [tuple(h.shape[1:]) for h in net.activations(torch.zeros(1, 3, 32, 32))] == [
        (64, 16, 16), (128, 8, 8), (256, 8, 8), (512, 1, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("classes", [1, 41])
def test_surrogate_classes_are_images(images, classes):
    with pytest.raises(ValueError, match=f"{classes} surrogate classes of 40 images"):
        exemplar_cnn.fit_exemplar_net(images, classes, 1)


def digits():
    """scikit-learn's digits at 8 x 8: uint8 images (N, 1, 8, 8) and classes."""
    x, y = load_digits(return_X_y=True)
    return torch.from_numpy((x.reshape(-1, 1, 8, 8) * 15).astype(np.uint8)), y


def test_a_classifier_learns_digits_and_is_the_same_twice():
    x, y = digits()
    description = models.describe("svhn32", size=8, nc=1, ndf=16)
    nets = [supervised.classifier(description, 10, dropout=0.2, seed=3) for _ in range(2)]
    found = [supervised.predict(supervised.fit(net, x[:1300], y[:1300], 15, seed=5), x[1300:]) for net in nets]
    assert (found[0] == y[1300:]).mean() > 0.85
    assert (found[0] == found[1]).all()


def test_supervised_refuses_what_it_cannot_learn_from():
    x, y = digits()
    net = supervised.classifier(models.describe("svhn32", size=8, nc=1, ndf=4), 10)
    with pytest.raises(ValueError, match="20 images and 10 labels"):
        supervised.fit(net, x[:20], y[:10], 1)
    with pytest.raises(ValueError, match="loss is nan.*lower lr"):
        supervised.fit(net, x[:200], y[:200], 3, lr=1e12)


def test_the_opponent_of_a_truncated_D_is_whole():
    """As loaded from the authors' files, of whose ImageNet D two convolutions are missing."""
    cut = authors.Truncated(size=16, convs_per_scale=2, kernel=3, ndf=4, convs=3)
    whole = supervised.classifier(cut, classes=5)
    assert len(whole.layers) == len(cut.strides) + 1 == 4
    assert whole(torch.zeros(2, 3, 16, 16)).shape == (2, 5)
