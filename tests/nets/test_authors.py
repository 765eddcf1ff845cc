"""The authors' nets: Theano's arithmetic said again in SciPy, gaps and damage in the files, and the real ones."""

import io
import tarfile
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.signal import convolve

from lib.nets import authors, batchnorm, models, weights
from lib.nets.authors import NETS, load_radford2015
from lib.probe import features
from lib.study import paths

WIDTHS = {"svhn": {"ngf": 4, "ndf": 4, "nz": 6}, "imagenet": {"ngf": 2, "ndf": 2, "nz": 5}}
rng = np.random.default_rng


def write(tmp_path, kind):
    """Write random weights as the authors' files lie, and return their folder and the arrays of G and D."""
    released = NETS[f"radford2015-{kind}"]
    folder, w, r = tmp_path / released.folder, WIDTHS[kind], rng(0)
    folder.mkdir()
    k, per_scale = (5, 1) if kind == "svhn" else (3, 2)
    maps = [3, *(w["ndf"] * 2 ** (i // per_scale) for i in range(3 * per_scale))]
    norm = lambda n: [r.normal(1, 0.2, n), r.normal(0, 0.2, n)]  # noqa: E731
    D = [r.normal(0, 0.2, (maps[1], 3, k, k))]
    for a, b in pairwise(maps[1:]):
        D += [r.normal(0, 0.2, (b, a, k, k)), *norm(b)]
    D += [r.normal(0, 0.2, (maps[-1] * 16, 1))]
    G = [r.normal(0, 0.5, (w["nz"], maps[-1] * 16)), *norm(maps[-1] * 16)]
    for a, b in pairwise(maps[:0:-1]):
        G += [r.normal(0, 0.2, (a, b, k, k)), *norm(b)]
    G += [r.normal(0, 0.2, (maps[1], 3, k, k))]
    for name, arrays in (("gen", G), ("discrim", D)):
        for i, array in enumerate(arrays, 1):
            np.save(folder / f"{released.epoch}_{name}_params.jl_{i:02d}.npy", array.astype(np.float32))
    return folder, G, D


def convolution(x, w, stride):
    """Theano's convolution: kernels turned by 180 degrees. (N, I, H, W), (O, I, k, k) -> (N, O, H / s, W / s)."""
    pad = (w.shape[2] - 1) // 2
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    # over maps and positions at once: the maps' order is turned first, since convolution turns it too
    summed = [[convolve(image, kernel[::-1], "valid")[0] for kernel in w] for image in x]
    return np.array(summed)[:, :, ::stride, ::stride]


def up_convolution(y, w, stride):
    """The gradient of `convolution` for its input, the authors' way up: (N, O, H, W) -> (N, I, s H, s W)."""
    pad, side = (w.shape[2] - 1) // 2, y.shape[2] * stride
    spread = np.zeros((*y.shape[:2], side, side))
    spread[:, :, ::stride, ::stride] = y
    turned = w[::-1, :, ::-1, ::-1]
    summed = [[convolve(image, turned[:, i])[len(w) - 1] for i in range(w.shape[1])] for image in spread]
    return np.array(summed)[:, :, pad : pad + side, pad : pad + side]


def normalised(h, gain, bias):
    """The authors': this minibatch's own mean and variance, eps 1e-8."""
    axes = (0, 2, 3)[: 1 if h.ndim == 2 else 3]
    shape = (1, -1) if h.ndim == 2 else (1, -1, 1, 1)
    mean = h.mean(axes, keepdims=True)
    deviation = np.sqrt(((h - mean) ** 2).mean(axes, keepdims=True) + 1e-8)
    return (h - mean) / deviation * gain.reshape(shape) + bias.reshape(shape)


def draw(z, G, strides):
    """The authors' G in NumPy: (N, nz) -> (N, 3, 32, 32)."""
    h = np.maximum(normalised(z @ G[0], G[1], G[2]), 0).reshape(len(z), -1, 4, 4)
    for i, stride in enumerate(strides[:-1]):
        w, gain, bias = G[3 + 3 * i : 6 + 3 * i]
        h = np.maximum(normalised(up_convolution(h, w, stride), gain, bias), 0)
    return np.tanh(up_convolution(h, G[-1], strides[-1]))


def judge(x, D, strides):
    """The authors' D in NumPy: (N, 3, 32, 32) -> the layers' outputs and D(x), a probability."""
    leaky = lambda h: np.where(h > 0, h, 0.2 * h)  # noqa: E731
    hs = [leaky(convolution(x, D[0], strides[0]))]
    for i, stride in enumerate(strides[1:]):
        w, gain, bias = D[1 + 3 * i : 4 + 3 * i]
        hs.append(leaky(normalised(convolution(hs[-1], w, stride), gain, bias)))
    return hs, 1 / (1 + np.exp(-hs[-1].reshape(len(x), -1) @ D[-1]))[:, 0]


def test_the_oracles_are_adjoint():
    r = rng(1)
    x, y, w = r.normal(size=(2, 3, 8, 8)), r.normal(size=(2, 4, 4, 4)), r.normal(size=(4, 3, 5, 5))
    np.testing.assert_allclose((convolution(x, w, 2) * y).sum(), (x * up_convolution(y, w, 2)).sum())


@pytest.mark.parametrize(("kind", "strides"), [("svhn", (2, 2, 2)), ("imagenet", (1, 2, 1, 2, 1, 2))])
def test_the_authors_arithmetic(tmp_path, kind, strides):
    folder, G_arrays, D_arrays = write(tmp_path, kind)
    G, D = load_radford2015(folder, **WIDTHS[kind])
    assert not G.training and not D.training
    r = rng(2)
    z, x = r.normal(size=(6, WIDTHS[kind]["nz"])), r.uniform(-1, 1, (6, 3, 32, 32))
    z32, x32 = (torch.from_numpy(a).float() for a in (z, x))
    with torch.no_grad():
        # frozen on one minibatch, the statistics are that minibatch's own, which are the authors'
        drawn = batchnorm.recalibrate_batchnorm(G, z32)(z32)
        batchnorm.recalibrate_batchnorm(D, x32)
        hs, answer = D.activations(x32), D(x32).sigmoid()
    np.testing.assert_allclose(drawn, draw(z, G_arrays, strides[::-1]), atol=1e-4)
    expected, probability = judge(x, D_arrays, strides)
    assert [h.shape for h in hs] == [h.shape for h in expected]
    for h, e in zip(hs, expected, strict=True):
        np.testing.assert_allclose(h, e, atol=1e-4)
    np.testing.assert_allclose(answer, probability, atol=1e-4)
    assert drawn.std() > 0.1 and probability.std() > 0.01, "the nets tell inputs apart"


def test_statistics_are_frozen_on_z_and_on_samples(tmp_path):
    G, D = load_radford2015(write(tmp_path, "svhn")[0], **WIDTHS["svhn"])
    z = G.sample_z(2000, torch.Generator().manual_seed(3))
    with torch.no_grad():
        x = G(z)
        torch.testing.assert_close(G(z[:1]), x[:1], atol=1e-5, rtol=0)  # whatever its neighbours
        for norm, h in ((G.projection_bn, G.projection(z)), (D.layers[1][1], D.layers[1][0](D.layers[0](x)))):
            spread, axes = norm.running_var.sqrt(), (0, 2, 3)[: 1 if h.dim() == 2 else 3]
            assert ((norm.running_mean - h.mean(axes)).abs() < 0.2 * spread).all()
            assert ((spread / h.std(axes) - 1).abs() < 0.2).all()


def without(folder, *names):
    for name in names:
        (folder / name).unlink()
    return folder


def test_a_d_ends_below_a_missing_file(tmp_path):
    folder = write(tmp_path, "imagenet")[0]
    whole = load_radford2015(folder, **WIDTHS["imagenet"])[1]
    without(folder, "30_discrim_params.jl_11.npy", "30_discrim_params.jl_14.npy", "30_gen_params.jl_01.npy")
    with pytest.warns(UserWarning, match="missing 30_gen.*_01.npy, 30_discrim.*_11.npy, 30_discrim.*_14.npy .see"):
        G, D = load_radford2015(folder, **WIDTHS["imagenet"])
    x = torch.from_numpy(rng(4).uniform(-1, 1, (130, 3, 32, 32))).float()
    for d in (whole, D):
        batchnorm.recalibrate_batchnorm(d, x)
    ours = features.extract(D, x)
    assert ours.shape == (130, (2 + 2 + 4 + 4) * 16) == (130, features.feature_length(D.description))
    torch.testing.assert_close(ours, features.extract(whole, x, layers=[0, 1, 2, 3]))
    untrained = batchnorm.recalibrate_batchnorm(models.from_description(D.description)[1], x)
    assert features.extract(untrained, x).shape == ours.shape, "the control ends where D ends"
    with pytest.raises(ValueError, match="only the features of convolutions 0 to 3: missing 30_discrim_params.jl_11"):
        D(x)
    with pytest.raises(ValueError, match="the net has 0, 1, 2, 3"):
        features.extract(D, x, layers=[4])
    for use in (lambda: G.sample_z(2, None), lambda: G.description):
        with pytest.raises(AttributeError, match="this G cannot be used: missing 30_gen_params.jl_01.npy"):
            use()
    with pytest.raises(ValueError, match="this G cannot be used"):
        G(x)


@pytest.mark.parametrize(("gone", "usable"), [("200_discrim_params.jl_08.npy", 3), ("200_discrim_params.jl_03.npy", 1)])
def test_any_gap_leaves_what_lies_below_it(tmp_path, gone, usable):
    folder = without(write(tmp_path, "svhn")[0], gone)
    with pytest.warns(UserWarning, match=f"missing {gone}"):
        G, D = load_radford2015(folder, **WIDTHS["svhn"])
    x = G(G.sample_z(2, torch.Generator().manual_seed(0)))
    assert len(D.activations(x)) == usable
    with pytest.raises(ValueError, match=gone):
        D(x)


def test_nothing_is_left_without_the_first_kernels(tmp_path):
    folder = without(write(tmp_path, "svhn")[0], "200_discrim_params.jl_01.npy")
    with (
        pytest.warns(UserWarning, match="missing 200_discrim_params.jl_01.npy"),
        pytest.raises(ValueError, match="without its first kernels: missing 200_discrim_params.jl_01.npy"),
    ):
        load_radford2015(folder, **WIDTHS["svhn"])


def damage_cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def damage_empty(path):
    path.write_bytes(b"")


def damage_pickle(path):
    np.save(path, np.array([{"a": 1}], dtype=object))


def damage_text(path):
    path.write_text("<html>404</html>")


def damage_shape(path):
    np.save(path, np.zeros((3, 3), np.float32))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_cut, "jl_05.npy: truncated, or no array of numbers"),
        (damage_empty, "jl_05.npy: truncated, or no array of numbers"),
        (damage_pickle, "jl_05.npy: truncated, or no array of numbers"),
        (damage_text, "jl_05.npy: truncated, or no array of numbers"),
        (damage_shape, r"jl_05.npy: layers.2.0.weight would be \(3, 3\), not \(16, 8, 5, 5\)"),
    ],
)
def test_damaged_files(tmp_path, damage, message):
    folder = write(tmp_path, "svhn")[0]
    damage(folder / "200_discrim_params.jl_05.npy")
    with pytest.raises(ValueError, match=message):
        load_radford2015(folder, **WIDTHS["svhn"])


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no net of the authors is called so; there are svhn_unsup"):
        load_radford2015(tmp_path)


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """An empty STUDY_SOURCES; load_radford2015 only tells which files it was given."""
    for name in ("sources", "data"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("STUDY_SOURCES", str(tmp_path / "sources"))
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(authors, "load_radford2015", lambda f: (sorted(p.name for p in f.iterdir()), f.name))
    return tmp_path / "sources"


def pack(path, name, content=b"x", member="a.npy"):
    with tarfile.open(path, "w:gz") as tar:
        for inside in (f"top/{name}/{member}", "top/other/b.npy"):
            info = tarfile.TarInfo(inside)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("place", ["", "radford2015-weights", "dcgan_code/models"])
def test_a_net_is_found_in_a_folder(sources, place):
    folder = sources / place / NETS["radford2015-svhn"].folder
    folder.mkdir(parents=True)
    (folder / "a.npy").touch()
    assert weights.load_net("radford2015-svhn") == (
        ["a.npy"],
        folder.name,
        {"source": authors.HOME, "epochs": 200, "parameters": {"data_set": "SVHN"}},
    )


def test_a_net_is_found_in_the_archive(sources):
    name = NETS["radford2015-imagenet"].folder
    pack(sources / "radford2015-weights.tar.gz", name)
    assert authors.load("radford2015-imagenet")[:2] == (["a.npy"], name)
    with pytest.raises(ValueError, match="holds no folder svhn_unsup"):
        authors.load("radford2015-svhn")


def test_archives_that_are_damaged_or_reach_outside(sources):
    archive, name = sources / "radford2015-weights.tar.gz", NETS["radford2015-svhn"].folder
    pack(archive, name, member="../../../outside.npy")
    with pytest.raises(ValueError, match="truncated or not an archive .*outside the destination"):
        authors.load("radford2015-svhn")
    pack(archive, name, rng(0).bytes(100_000))
    for damaged in (archive.read_bytes()[:5000], b"no archive"):
        archive.write_bytes(damaged)
        with pytest.raises(ValueError, match="truncated or not an archive"):
            authors.load("radford2015-svhn")


def test_absent_weights_and_where_to_get_them(sources):
    with pytest.raises(ValueError, match="no svhn_unsup.* in STUDY_SOURCES .*models/ of"):
        weights.load_net("radford2015-svhn")


# --- the real files ------------------------------------------------------------------------------------------------

real = pytest.mark.skipif(
    not paths.find_source("radford2015-weights.tar.gz").exists(), reason="radford2015-weights.tar.gz is not there"
)


@pytest.mark.shared
@real
def test_the_authors_svhn_net():
    with authors._folder_of("radford2015-svhn") as folder:
        files = [[np.load(path) for path in sorted(folder.glob(f"*_{kind}_*.npy"))] for kind in ("gen", "discrim")]
        G, D = load_radford2015(folder)
    assert features.feature_length(D.description) == 7168
    z = G.sample_z(3, torch.Generator().manual_seed(5))
    with torch.no_grad():
        x = batchnorm.recalibrate_batchnorm(G, z)(z)
        answer = batchnorm.recalibrate_batchnorm(D, x)(x).sigmoid()
    np.testing.assert_allclose(x, draw(z.numpy(), files[0], (2, 2, 2)), atol=1e-4)
    np.testing.assert_allclose(answer, judge(x.numpy(), files[1], (2, 2, 2))[1], atol=1e-4)


@pytest.mark.shared
@real
def test_the_authors_imagenet_net():
    with pytest.warns(UserWarning, match="30_discrim_params.jl_11.npy, 30_discrim_params.jl_14.npy"):
        _, D, _ = weights.load_net("radford2015-imagenet")
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert features.extract(batchnorm.recalibrate_batchnorm(D, x), x).shape == (4, 12_288)
