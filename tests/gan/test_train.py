"""Training: the plain loop as oracle, exact resumption, both ways to alternate, and what is refused."""

import errno
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.gan import checkpoints, feed, game, train
from lib.images import data
from lib.nets import models, weights
from lib.study import chance

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
    generator, losses = torch.Generator().manual_seed(chance.stream(s.seed, "z", "training")), []
    with torch.no_grad():
        G(torch.randn(game.SAMPLES, 100))  # the first grid moves running averages only
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

    def power_cut(*given):
        for i, batch in enumerate(minibatches(*given)):
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
    assert [weights.read_net(path)[2]["step"] for path in checkpoints.find(tmp_path / "cut")] == [10, 9], "the last two"
    before = checkpoints.find(tmp_path / "cut")
    spent = weights.read_net(before[0])[2]["seconds"]
    assert spent > weights.read_net(before[1])[2]["seconds"] > 0
    resumed = train.fit(**arguments, progress=False)
    assert resumed.seconds > spent, "over all sittings"
    for one, other in ((whole.G, resumed.G), (whole.D, resumed.D)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    assert resumed.log == whole.log
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


def test_one_seed_gives_each_purpose_numbers_of_its_own():
    """The first minibatch's z was the fixed z, and the z by which snapshots are chosen."""
    training = train.Training(*models.from_description(NET, 0), settings(seed=0), torch.device("cpu"))
    first = training.G.sample_z(game.SAMPLES, training.z_generator)
    bare = training.G.sample_z(game.SAMPLES, torch.Generator().manual_seed(0))
    drawn = torch.cat([first, training.fixed_z, bare, training.G.projection.weight[: game.SAMPLES] / 0.02])
    alike = torch.corrcoef(drawn).triu(1)  # of vectors of 100: independent ones stay below 6 sigma
    assert alike.abs().max() < 0.6


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
    assert train.snapshots_in(tmp_path) == {s: tmp_path / f"snapshot-{s:09d}.safetensors" for s in (4, 8, 12)}
    G, D, record = weights.load_net(tmp_path / "snapshot-000000012.safetensors")
    assert record == {"step": 12} and torch.equal(D.head.weight, training.D.head.weight)


def test_snapshots_come_in_the_order_of_their_steps(tmp_path):
    """Beyond a million minibatches too, and where older names have six digits."""
    names = {200_000: "200000", 1_000_000: "1000000", 995_760: "000995760", 1_659_600: "001659600", 7: "000007"}
    for name in names.values():
        (tmp_path / f"snapshot-{name}.safetensors").touch()
    found = train.snapshots_in(tmp_path)
    assert list(found) == [7, 200_000, 995_760, 1_000_000, 1_659_600]
    assert all(path.stem == f"snapshot-{names[step]}" for step, path in found.items())


def test_a_small_net_learns_something(tmp_path):
    """Two flat images, black and white: G starts out grey and must move towards both, from one start in three.

    Which start it is, the processor's rounding decides.
    """
    x = torch.cat([torch.zeros(64, 1, 16, 16), torch.full((64, 1, 16, 16), 255)]).to(torch.uint8)

    def learns(seed):
        how = settings(epochs=60, batch_size=16, lr=2e-3, seed=seed)
        training = train.fit(NET, how, x, tmp_path / str(seed), progress=False)
        light = training.samples[training.step].float().flatten(1).mean(1)
        return torch.minimum(light, 255 - light).mean() < 120 and light.std() > 10  # 127.5 and 0 at the start

    assert any(learns(seed) for seed in range(3))


def test_a_training_survives_whatever_stops_it(tmp_path):
    """Twenty SIGKILLs at random moments, a SIGINT and a SIGTERM; interrupt.py compares with an undisturbed training."""
    script = Path(__file__).with_name("interrupt.py")
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    happened = json.loads(done.stdout)
    assert [end["status"] for end in happened["killed"]] == [-signal.SIGKILL] * 20
    assert sum(end["step"] > 0 for end in happened["killed"]) > 10, "most were killed after a checkpoint"
    assert {name: end["status"] for name, end in happened["told"].items()} == {"SIGINT": 77, "SIGTERM": -signal.SIGTERM}
    assert all(0 < end["step"] == end["logged"] < 80 for end in happened["told"].values()), "saved before it stopped"
    assert happened["equal"] == {"killed": True, "SIGINT": True, "SIGTERM": True}, "to the bit"


def test_an_ignored_signal_stops_nothing():
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with checkpoints.deferred_signals() as signals:
            signal.raise_signal(signal.SIGINT)
            assert not signals
    finally:
        signal.signal(signal.SIGINT, former)


def interrupted(folder, monkeypatch, after=5, error=KeyboardInterrupt):
    """Train into folder with a checkpoint after each minibatch, and stop it after some."""
    minibatches = train.minibatches

    def some(*arguments):
        yield from (batch for _, batch in zip(range(after), minibatches(*arguments), strict=False))
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(train, "minibatches", some)
        with pytest.raises(error):
            train.fit(NET, settings(), X, folder, minutes=0, progress=False)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b""])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, monkeypatch, damage):
    whole = fit(tmp_path / "whole")
    folder = tmp_path / "cut"
    interrupted(folder, monkeypatch)
    newest, before = checkpoints.find(folder)
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.warns(UserWarning, match="checkpoint-000000005.* is damaged: going on from the checkpoint before"):
        resumed = fit(folder)
    assert torch.equal(whole.G.projection.weight, resumed.G.projection.weight) and resumed.log == whole.log
    for path in checkpoints.find(folder):
        path.write_bytes(damage(path.read_bytes()))
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(ValueError, match="no whole checkpoint in .*: delete it and train again"),
    ):
        fit(folder)


def test_a_full_disk_stops_with_the_last_checkpoint_intact(tmp_path, monkeypatch):
    interrupted(tmp_path, monkeypatch)
    before = {path: path.read_bytes() for path in checkpoints.find(tmp_path)}

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="cannot write .*: No space left on device; free space or choose another folder"):
        fit(tmp_path)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in checkpoints.find(tmp_path)} == before
    assert not [*tmp_path.glob("*.part-*")]
    assert fit(tmp_path).step == 12


def test_an_unwritable_folder_is_told_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(train.Training, "train_minibatch", lambda *_: pytest.fail("trained first"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot write .*file/deep: Not a directory; free space or choose another folder"):
        fit(tmp_path / "file" / "deep")
    (tmp_path / "lock").mkdir()  # no file can be opened there, whoever asks
    with pytest.raises(OSError, match="cannot write"):
        fit(tmp_path)


def test_a_second_training_waits_for_the_first_and_finds_it_finished(tmp_path, monkeypatch):
    """In two processes: the second says so once, trains nothing, and ends with the first's weights."""
    monkeypatch.setattr(checkpoints, "WAIT", 0.01)
    held, done = (multiprocessing.get_context("fork").Event() for _ in range(2))
    minibatches = train.minibatches

    def slowly(*given):
        held.set()
        done.wait(60)
        yield from minibatches(*given)

    with monkeypatch.context() as patch:
        patch.setattr(train, "minibatches", slowly)
        first = multiprocessing.get_context("fork").Process(target=fit, args=(tmp_path,))
        first.start()
    assert held.wait(60)
    monkeypatch.setattr(train.Training, "train_minibatch", lambda *_: pytest.fail("trained too"))
    threading.Timer(0.2, done.set).start()
    with pytest.warns(UserWarning, match="another process trains in .*: waiting for it") as warned:
        second = fit(tmp_path)
    first.join()
    assert len(warned) == 1 and first.exitcode == 0 and second.step == 12
    assert torch.equal(second.D.head.weight, weights.load_net(checkpoints.find(tmp_path)[0])[1].head.weight)


@pytest.mark.parametrize("poisoned", ["loss", "weight"])
def test_a_diverged_training_stops_and_saves_nothing_bad(tmp_path, monkeypatch, poisoned):
    step = train.Training.train_minibatch

    def diverge(self, x):
        measured = step(self, x)
        if self.step == 7 and poisoned == "loss":
            return measured | {"loss_D": torch.tensor(float("nan"))}
        if self.step == 7:
            self.G.projection.weight.data[0, 0] = float("inf")
        return measured

    monkeypatch.setattr(train.Training, "train_minibatch", diverge)
    name = {"loss": "loss_D is nan", "weight": "norm of G is inf"}[poisoned]
    with pytest.raises(FloatingPointError, match=f"{name} after minibatch 7: .* Lower lr"):
        train.fit(NET, settings(), X, tmp_path, minutes=0, progress=False)
    tensors, _, record = weights.read_net(checkpoints.find(tmp_path)[0])
    assert record["step"] == 6 and all(v.isfinite().all() for v in tensors.values())


def test_out_of_device_memory_says_what_to_lower(tmp_path, monkeypatch):
    def short(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(train.Training, "train_minibatch", short)
    with pytest.raises(
        torch.OutOfMemoryError, match="cpu has too little memory for minibatches of 32.*lower batch_size"
    ):
        fit(tmp_path)


def test_the_log_streams(tmp_path):
    lines = []

    def look(training):
        lines.append(len((tmp_path / "log.jsonl").read_text().splitlines()))

    train.fit(NET, settings(), X, tmp_path, progress=False, watch=look)
    assert lines == list(range(1, 13)), "each minibatch's line is there before the next one"


def test_looking_at_the_health_changes_nothing(tmp_path, monkeypatch):
    looked = fit(tmp_path / "looked")
    assert {"variety", "dead_G", "dead_D"} <= looked.log[-1].keys()
    monkeypatch.setattr(train.diagnostics.Health, "measure", lambda *_: {})
    unseen = fit(tmp_path / "unseen")
    for one, other in ((looked.G, unseen.G), (looked.D, unseen.D)):
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())


def test_minibatches_gathered_ahead_are_the_same():
    batches = list(feed._ahead(train.minibatches(X, settings(), 0, 12)))
    assert len(batches) == 12
    assert all(map(torch.equal, batches, train.minibatches(X, settings(), 0, 12)))


def test_only_the_rows_that_are_given_are_learned(tmp_path, monkeypatch):
    seen = []
    step = train.Training.train_minibatch
    monkeypatch.setattr(
        train.Training, "train_minibatch", lambda self, x: [seen.append(data.to_uint8(x)), step(self, x)][1]
    )
    rows = torch.arange(0, 200, 2)
    train.fit(NET, settings(batch_size=25), X, tmp_path, progress=False, rows=rows)
    for epoch in (seen[:4], seen[4:]):
        pixels = torch.cat(epoch).flatten(1)
        assert sorted(map(bytes, pixels.numpy())) == sorted(map(bytes, X[rows].flatten(1).numpy()))


IMAGES = data.ImageSet("x", X, torch.zeros(200))


@pytest.mark.parametrize(
    "changes",
    [
        {"description": replace(NET, ndf=9)},
        {"settings": settings(seed=1)},
        {"settings": settings(flip=True)},
        {"images": data.ImageSet("x", X.roll(1, 0), torch.zeros(200))},
        {"rows": torch.arange(100)},
        {"rows": torch.arange(100) + 1},
        {"snapshots": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_folder_is_of_one_training(changes):
    """Whatever makes another training makes another folder, and what names the images does not."""
    usual = {"description": NET, "settings": settings(), "images": IMAGES}
    assert train.folder_of(**usual) == train.folder_of(**usual | {"images": replace(IMAGES, name="y")})
    assert train.folder_of(**usual) != train.folder_of(**usual | changes)


def test_a_training_is_another_where_its_code_says_so(monkeypatch):
    """A declared version counts, wherever it stands below `train`; a new field at its default does not."""
    before = train.folder_of(NET, settings(), IMAGES)
    seen = []
    monkeypatch.setattr(train.identity, "versions_of", lambda module: seen.append(module) or {"training": 2})
    assert train.folder_of(NET, settings(), IMAGES) != before and seen == ["lib.gan.train"]
    monkeypatch.undo()

    @dataclass(frozen=True)
    class Later(train.Settings):
        flip: bool = False

    later = Later(*vars(settings()).values())
    assert train.folder_of(NET, later, IMAGES) == before
    assert train.folder_of(NET, replace(later, flip=True), IMAGES) != before


def test_the_bar_is_quiet_where_nobody_watches(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    train.fit(NET, settings(epochs=10), X, tmp_path)
    shown = capsys.readouterr().err
    assert "1920/1920" in shown and "images/s" in shown
    assert shown.count("\r") <= 3


def test_progress_can_be_followed_from_outside(tmp_path, monkeypatch, capsys):
    """A line every so often, with minibatch, losses and time left, whoever watches; and where it went on from."""
    monkeypatch.setattr(train, "TOLD", -1)
    train.fit(NET, settings(epochs=1), X, tmp_path, progress=False)
    lines = (tmp_path / "progress.txt").read_text().splitlines()
    assert [re.search(r"\| (\d+)/192 \[.*<.*images/s, minibatch=(\d+)", line).groups() for line in lines] == [
        (str(32 * step), str(step)) for step in range(1, 7)
    ]
    assert all(re.search(r"loss_D=\d\.\d\d, loss_G=\d\.\d\d\]$", line) for line in lines)
    assert not capsys.readouterr().err
    monkeypatch.undo()
    train.fit(NET, settings(epochs=1), X, tmp_path / "calm", progress=False)
    assert len((tmp_path / "calm" / "progress.txt").read_text().splitlines()) == 1, "the last"


def test_images_lie_on_the_device_where_they_fit(monkeypatch):
    """Half of what is free at most; what does not fit, or turns out not to, streams."""
    device = torch.device("meta")  # stands for a GPU
    for free, kind in ((2 * X.nbytes, "meta"), (2 * X.nbytes - 1, "cpu")):
        monkeypatch.setattr(feed.devices, "free_bytes", lambda _, free=free: free)
        assert feed.place(X, device, None).device.type == kind
    assert feed.place(X, device, X.nbytes).device.type == "meta" and feed.place(X, device, 0) is X
    monkeypatch.setattr(torch.Tensor, "to", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("in pieces")))
    assert feed.place(X, device, X.nbytes) is X


def test_a_mapped_set_is_never_copied(tmp_path):
    np.save(tmp_path / "x.npy", X.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "x.npy", mmap_mode="c"))
    assert feed.place(mapped, torch.device("cpu"), None).data_ptr() == mapped.data_ptr()
    batches = train.minibatches(mapped, settings(), 0, 12)
    assert all(map(torch.equal, batches, train.minibatches(X, settings(), 0, 12)))


def test_the_order_inside_a_minibatch_does_not_matter():
    """Losses and batch statistics are means over it: sorted rows, which a file reads faster, are the same training."""
    x, turned = data.to_float(X[:32]), data.to_float(X[:32].flip(0))
    trainings = [train.Training(*models.from_description(NET), settings(), torch.device("cpu")) for _ in range(2)]
    for _ in range(3):
        lines = [t.train_minibatch(batch) for t, batch in zip(trainings, (x, turned), strict=True)]
        for name, value in lines[0].items():
            torch.testing.assert_close(value, lines[1][name], rtol=1e-4, atol=1e-5)
    for name, value in trainings[0].D.state_dict().items():
        torch.testing.assert_close(value, trainings[1].D.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_a_checkpoint_of_another_kind_of_device_is_refused_in_one_line(tmp_path):
    """The state of a card's generator is sixteen bytes."""
    fit(tmp_path)
    path = checkpoints.find(tmp_path)[0]
    tensors, _, record = weights.read_net(path)
    training = fit(tmp_path)
    extra = {k: v for k, v in tensors.items() if k[:2] not in ("G.", "D.")}
    weights.save_net(path, training.G, training.D, record, extra | {"z_generator": torch.zeros(16, dtype=torch.uint8)})
    with pytest.raises(ValueError, match="begun on another kind of device.*: go on there, or delete it"):
        fit(tmp_path)


def test_a_checkpoint_from_before_a_setting_was_there_is_resumed(tmp_path):
    """Its default is what the training had."""
    fit(tmp_path)
    path = checkpoints.find(tmp_path)[0]
    tensors, _, record = weights.read_net(path)
    del record["settings"]["flip"]
    training = fit(tmp_path)
    weights.save_net(
        path, training.G, training.D, record, {k: v for k, v in tensors.items() if k[:2] not in ("G.", "D.")}
    )
    assert fit(tmp_path).step == 12
    with pytest.raises(ValueError, match="holds another training .flip = False there, True asked"):
        fit(tmp_path, flip=True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": 1.5}, "seed = 1.5: must be a whole number from 0"),
        ({"seed": "1"}, "seed = '1': must be a whole number"),
        ({"seed": True}, "seed = True: must be a whole number"),
        ({"seed": -1}, "seed = -1: must be a whole number"),
        ({"batch_size": 0}, "batch_size = 0: must be a whole number from 2"),
        ({"batch_size": 1}, "batch_size = 1: must be a whole number from 2"),
        ({"epochs": 0}, "epochs = 0: must be above 0"),
        ({"epochs": float("nan")}, "epochs = nan: must be a number"),
        ({"lr": 0}, "lr = 0: must be above 0"),
        ({"lr": "2e-4"}, "lr = '2e-4': must be a number"),
        ({"beta1": 1.0}, "beta1 = 1.0: must be below 1"),
        ({"weight_decay": -1e-5}, "weight_decay = -1e-05: must be a number, and not below 0"),
        ({"update": "never"}, "update = 'never': choose one of both, alternate"),
        ({"precision": "half"}, "precision = 'half': choose one of float32, bfloat16"),
    ],
)
def test_settings_that_mean_nothing(wrong, message):
    with pytest.raises(ValueError, match=message):
        settings(**wrong)


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="images of .3, 8, 8. do not fit a net for .1, 16, 16.: change size or nc"):
        train.fit(NET, settings(), torch.zeros(40, 3, 8, 8, dtype=torch.uint8), tmp_path)
    with pytest.raises(ValueError, match="20 images are fewer than one minibatch of 32: lower batch_size"):
        train.fit(NET, settings(), X[:20], tmp_path)
    fit(tmp_path)
    with pytest.raises(ValueError, match="another training .lr = 0.0002 there, 0.001 asked; seed = 0 there, 1 asked"):
        fit(tmp_path, lr=1e-3, seed=1)
    with pytest.raises(ValueError, match="another training .images = 200 there, 199 asked"):
        train.fit(NET, settings(), X[:199], tmp_path)
