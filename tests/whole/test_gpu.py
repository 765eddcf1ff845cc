"""On a GPU: a training that is recorded, streamed or resumed is the plain one; features, SVM, distances as on a CPU."""

import numpy as np
import pytest
import torch

from lib.gan import feed, game, selection, train
from lib.images import data
from lib.internals import attribution, dedup, forgetting, latent, memorisation
from lib.nets import batchnorm, devices, judges, models, weights
from lib.nets.judges import AttributeNet
from lib.probe import features, l2svm

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

X = torch.randint(0, 256, (200, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
NET = models.describe("tutorial64", size=16, nc=1, ngf=8, ndf=8)
GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Let every kernel give the same sum each time, and float32 be float32."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def settings(**changes):
    values = dict(
        epochs=4, batch_size=32, lr=2e-4, beta1=0.5, weight_decay=0.0, update="both", precision="float32", seed=0
    )
    return train.Settings(**values | changes)


def fit(folder, on_device=None, **changes):
    return train.fit(NET, settings(**changes), X, folder, GPU, progress=False, on_device=on_device)


def same(one, other, rtol=1e-4):
    """Both trainings' losses and weights are equal but for rounding."""
    for line, beside in zip(one.log, other.log, strict=True):
        assert line == pytest.approx(beside, rel=rtol, abs=rtol / 10)
    for name in "GD":
        weights = getattr(other, name).state_dict()
        for key, value in getattr(one, name).state_dict().items():
            torch.testing.assert_close(value, weights[key], rtol=rtol, atol=rtol / 10, msg=f"{name}.{key}")


OPTIONS = {
    "flip": True,
    "augment": "colour+shift+cutout",
    "lr_decay": 0.8,
    "real_label": 0.9,
    "noise": 0.2,
    "D_rate": 0.5,
}


@pytest.mark.parametrize("options", [{}, OPTIONS, {"r1": 1.0}], ids=["paper", "options", "r1"])
@pytest.mark.parametrize("update", ["both", "alternate"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_recorded_training_is_the_plain_one(tmp_path, monkeypatch, update, precision, options):
    recorded = fit(tmp_path / "recorded", update=update, precision=precision, **options)
    assert all(play.graph is not None for play in recorded.plays), "nothing was recorded"
    monkeypatch.setattr(game, "Recorded", lambda function, _: function)
    plain = fit(tmp_path / "plain", update=update, precision=precision, **options)
    same(recorded, plain)


def test_a_recorded_minibatch_draws_new_z(tmp_path):
    training = fit(tmp_path)
    x = data.to_float(X[:32].to(GPU))
    drawn = {training.train_minibatch(x)["D_G_z"].item() for _ in range(4)}
    assert len(drawn) == 4


def test_images_that_stream_are_the_same_training(tmp_path):
    same(fit(tmp_path / "streams", on_device=0), fit(tmp_path / "on the device"))


def test_images_lie_on_the_gpu_up_to_half_of_what_is_free():
    free = devices.free_bytes(GPU)
    assert 0 < free <= torch.cuda.get_device_properties(0).total_memory
    assert feed.place(X, GPU, None).is_cuda
    more = torch.empty(1, dtype=torch.uint8).expand(int(0.6 * free))  # takes one byte here
    assert not feed.place(more, GPU, None).is_cuda


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second GPU")
def test_another_card_records_its_own_graph(tmp_path):
    second = train.fit(NET, settings(), X, tmp_path / "1", torch.device("cuda:1"), progress=False)
    assert all(play.graph is not None for play in second.plays)
    same(second, fit(tmp_path / "0"))


def test_a_stopped_training_resumes(tmp_path, monkeypatch):
    whole, minibatches = fit(tmp_path / "whole"), train.minibatches

    def power_cut(*given):
        for i, batch in enumerate(minibatches(*given)):
            if i == 9:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(train, "minibatches", power_cut)
    with pytest.raises(KeyboardInterrupt):
        train.fit(NET, settings(), X, tmp_path / "cut", GPU, minutes=0, progress=False)
    monkeypatch.undo()
    same(whole, fit(tmp_path / "cut"), 1e-3)  # not to the bit, as on a CPU: kernels are chosen anew


def test_seconds_are_the_gpus(tmp_path):
    """A GPU works behind Python: what it took is at least what its own clock says of the same minibatches."""
    net = models.describe("tutorial64", nc=1)
    x = torch.randint(0, 256, (1024, 1, 64, 64), dtype=torch.uint8)
    training = train.fit(net, settings(batch_size=128), x, tmp_path, GPU, progress=False)
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    batch = data.to_float(x[:128].to(GPU)).contiguous(memory_format=torch.channels_last)
    began.record()
    for _ in range(training.step):
        training.train_minibatch(batch)
    ended.record()
    torch.cuda.synchronize()
    assert training.seconds > 0.8 * began.elapsed_time(ended) / 1000


def test_features_and_statistics_are_the_cpus():
    nets_of_D = [models.from_description(NET)[1] for _ in range(2)]
    on_cpu, on_gpu = (
        features.extract(batchnorm.recalibrate_batchnorm(D.to(device), X), X, device=device).cpu()
        for D, device in zip(nets_of_D, ("cpu", "cuda"), strict=True)
    )
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-3, atol=1e-4)


def test_the_svm_is_the_cpus():
    chance = np.random.default_rng(0)
    y = np.arange(600) % 5
    F = torch.from_numpy(chance.normal(size=(600, 300)) + np.eye(300)[y] * 3).float()
    on_cpu, on_gpu = (l2svm.L2SVM(C=0.01, tol=1e-6, device=device).fit(F, y) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(on_gpu.coef_, on_cpu.coef_, rtol=1e-2, atol=1e-4)
    assert (on_gpu.predict(F) == on_cpu.predict(F)).mean() > 0.99


def test_frechet_distances_are_the_cpus(tmp_path):
    for step in (1, 2):
        weights.save_net(tmp_path / f"{step}", *models.from_description(NET, step), {"step": step})
    found = {step: tmp_path / f"{step}" for step in (1, 2)}
    extractor = selection.Extractor(AttributeNet(["none"], 16, 1, 8, 0).eval())
    on_cpu, on_gpu = (
        selection.frechet_distances(found, X, torch.arange(len(X)), extractor, 0, device=device)
        for device in ("cpu", "cuda")
    )
    assert on_gpu.to_numpy() == pytest.approx(on_cpu.to_numpy(), rel=1e-2)


def test_neighbours_are_those_of_a_cpu():
    _, D = models.from_description(NET)
    for how in ({"shift": 1}, {"to": lambda x: features.extract(D, x)}):
        here, there = (memorisation.nearest(X[:20], X[20:], **how, device=device) for device in ("cpu", GPU))
        torch.testing.assert_close(there[0], here[0], rtol=1e-3, atol=1e-3)
        assert torch.equal(there[1], here[1])
        D.to(GPU)


def test_what_learns_in_the_notebooks_learns_on_a_gpu():
    """The control, the hash, a judge and a segmenter: each answers on the CPU, or draws there what was drawn."""
    memory, codes = memorisation.memorise(NET, X[:8], 5, 0, GPU)
    drawn = memory(memorisation.recall(memory, codes, torch.Generator().manual_seed(0)).to(GPU))
    assert drawn.is_cuda and drawn.shape == X[:8].shape
    assert dedup.hash_images(dedup.fit_autoencoder(X, 1, 0, 16, GPU), X).shape == (200, 16)
    judge = judges.fit(X, np.eye(2)[np.arange(200) % 2], ["a", "b"], 1, 0, 8, GPU)
    assert judges.tell(judge, X).shape == (200, 2) and not judges.tell(judge, X).is_cuda
    segmenter = forgetting.fit(X, X[:, 0] > 128, 1, 0, GPU)
    assert forgetting.find_boxes(segmenter, data.to_float(X[:5]).to(GPU)).shape == (5, 4)


def test_explanations_and_their_check_are_those_of_a_cpu():
    D, x = models.from_description(NET)[1].eval(), data.to_float(X[:6])
    here = {
        name: attribution.explain(d, x, "logit", "springenberg") for name, d in attribution.randomise_downwards(D, X)
    }
    D.to(GPU)
    for name, d in attribution.randomise_downwards(D, X):
        maps = attribution.explain(d, x.to(GPU), "logit", "springenberg")
        torch.testing.assert_close(maps.cpu(), here[name], rtol=1e-2, atol=1e-4)
    assert attribution.maximise(D, "logit", n=1, steps=2).is_cuda
    assert attribution.explain(D, x.to(GPU), "logit", "grad-cam").is_cuda


def test_points_are_drawn_alike_and_maps_are_dropped_there():
    G, _ = models.from_description(NET)
    z = latent.points(G.eval(), 5, 0, "walk")
    here = forgetting.draw(G, z, 1, [0])
    assert torch.equal(latent.points(G.to(GPU), 5, 0, "walk").cpu(), z)
    torch.testing.assert_close(forgetting.draw(G, z.to(GPU), 1, [0]).cpu(), here, rtol=1e-3, atol=1e-4)
