"""Training: the plain loop as oracle, exact resumption, both ways to alternate, and what is refused."""

import json

import pytest
import torch
import torch.nn.functional as F

from lib import data, models, nets, train

X = torch.randint(0, 256, (200, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
NET = models.describe("tutorial64", size=16, nc=1, ngf=8, ndf=8)


def settings(**changes):
    values = dict(
        epochs=2, batch_size=32, lr=2e-4, beta1=0.5, weight_decay=0.0, update="both", precision="float32", seed=0
    )
    return train.Settings(**values | changes)


def fit(folder, **changes):
    return train.fit(NET, settings(**changes), X, folder, progress=False)


def plain_loop(steps, **changes):
    """The tutorial's loop, as plainly as it can be said: real and fake halves of D, then G, probabilities and BCE."""
    s = settings(**changes)
    G, D = models.from_description(NET, s.seed)
    G.train(), D.train()
    optG, optD = (torch.optim.Adam(n.parameters(), s.lr, (s.beta1, 0.999), weight_decay=s.weight_decay) for n in (G, D))
    generator, losses = torch.Generator().manual_seed(s.seed), []
    with torch.no_grad():
        G(
            G.sample_z(train.SAMPLES, torch.Generator().manual_seed(s.seed))
        )  # the first grid moves running averages only
    for batch in train.minibatches(X, s, 0, steps):
        real, z = data.to_float(batch), G.sample_z(s.batch_size, generator)
        ones = torch.ones(s.batch_size)
        D.zero_grad()
        loss_D = F.binary_cross_entropy(D(real).sigmoid(), ones)
        loss_D = loss_D + F.binary_cross_entropy(D(G(z).detach()).sigmoid(), 0 * ones)
        loss_D.backward()
        optD.step()
        G.zero_grad()
        loss_G = F.binary_cross_entropy(D(G(z)).sigmoid(), ones)
        loss_G.backward()
        optG.step()
        losses.append((loss_D.item(), loss_G.item()))
    return G, D, losses


@pytest.mark.parametrize("weight_decay", [0.0, 1e-4])
def test_the_fast_path_is_the_plain_loop(tmp_path, weight_decay):
    training = fit(tmp_path, weight_decay=weight_decay)
    G, D, losses = plain_loop(12, weight_decay=weight_decay)
    ours = [(line["loss_D"], line["loss_G"]) for line in training.log]
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(losses), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(training.D.head.weight, D.head.weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("update", ["both", "alternate"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stopped_training_resumes_to_the_bit(tmp_path, monkeypatch, update, precision):
    whole = fit(tmp_path / "whole", update=update, precision=precision)
    minibatches = train.minibatches

    def power_cut(x, settings, start, total):
        for i, batch in enumerate(minibatches(x, settings, start, total)):
            if i == 5:
                raise KeyboardInterrupt
            yield batch

    arguments = dict(
        description=NET, settings=settings(update=update, precision=precision), x=X, folder=tmp_path / "cut"
    )
    monkeypatch.setattr(train, "minibatches", power_cut)
    for _ in range(2):  # two cuts, five minibatches apart
        with pytest.raises(KeyboardInterrupt):
            train.fit(**arguments, minutes=0, progress=False)
    monkeypatch.undo()
    assert nets.read_net(tmp_path / "cut" / "checkpoint.safetensors")[2]["step"] == 10
    resumed = train.fit(**arguments, progress=False)
    for one, other in ((whole.G, resumed.G), (whole.D, resumed.D)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    assert resumed.log == whole.log or update == "alternate"
    assert all(torch.equal(whole.samples[step], resumed.samples[step]) for step in whole.samples)


def test_a_finished_training_is_loaded_not_repeated(tmp_path, monkeypatch):
    first = fit(tmp_path)
    monkeypatch.setattr(train.Training, "train_minibatch", lambda *_: pytest.fail("trained again"))
    again = fit(tmp_path)
    assert again.step == first.step == 12
    assert again.log == first.log == [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]


def test_alternation_updates_one_net_at_a_time():
    training = train.Training(*models.from_description(NET), settings(update="alternate"), torch.device("cpu"))
    x = data.to_float(X[:32])
    for expected in ("D", "G", "D"):
        before = {n: getattr(training, n).layers[0][0].weight.clone() for n in "GD"}
        measured = training.train_minibatch(x)
        changed = {n for n in "GD" if not torch.equal(before[n], getattr(training, n).layers[0][0].weight)}
        assert changed == {expected} and f"loss_{expected}" in measured


def test_minibatches_cover_each_epoch_once():
    s = settings(batch_size=50)
    x = torch.arange(200).view(200, 1, 1, 1)
    batches = torch.stack(list(train.minibatches(x, s, 0, 8))).flatten(1)
    for epoch in (batches[:4], batches[4:]):
        assert sorted(epoch.flatten().tolist()) == list(range(200))
    assert not torch.equal(batches[:4], batches[4:])
    torch.testing.assert_close(torch.stack(list(train.minibatches(x, s, 3, 8))).flatten(1), batches[3:])


def test_samples_and_snapshots(tmp_path):
    training = train.fit(NET, settings(), X, tmp_path, snapshots=3, progress=False)
    assert sorted(training.samples)[0] == 0 and sorted(training.samples)[-1] == 12
    assert training.samples[12].shape == (64, 1, 16, 16) and training.samples[12].dtype == torch.uint8
    assert [p.name for p in sorted(tmp_path.glob("snapshot-*"))] == [
        f"snapshot-{s:06d}.safetensors" for s in (4, 8, 12)
    ]
    G, D, record = nets.load_net(tmp_path / "snapshot-000012.safetensors")
    assert record == {"step": 12} and torch.equal(D.head.weight, training.D.head.weight)


def test_a_small_net_learns_something(tmp_path):
    """Two flat images, black and white: G starts out grey and must move towards both."""
    x = torch.cat([torch.zeros(64, 1, 16, 16), torch.full((64, 1, 16, 16), 255)]).to(torch.uint8)
    training = train.fit(NET, settings(epochs=60, batch_size=16, lr=2e-3), x, tmp_path, progress=False)
    images = training.samples[training.step].float().flatten(1)
    off = torch.minimum(images.mean(1), 255 - images.mean(1)).mean()  # 127.5 at the start
    assert off < 115
    assert images.mean(1).std() > 10


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="images of .3, 8, 8. do not fit a net for .1, 16, 16.: change size or nc"):
        train.fit(NET, settings(), torch.zeros(40, 3, 8, 8, dtype=torch.uint8), tmp_path)
    with pytest.raises(ValueError, match="20 images are fewer than one minibatch of 32: lower batch_size"):
        train.fit(NET, settings(), X[:20], tmp_path)
    with pytest.raises(ValueError, match="update = 'never': choose one of both, alternate"):
        settings(update="never")
    with pytest.raises(ValueError, match="lr = 0: must be above 0"):
        settings(lr=0)
    fit(tmp_path)
    with pytest.raises(ValueError, match="another training .lr = 0.0002 there, 0.001 asked"):
        fit(tmp_path, lr=1e-3)
