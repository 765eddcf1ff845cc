"""Nets on disk: round trips, and files that are not what they should be."""

import json
import os
import pickle
import random
from dataclasses import asdict

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lib.nets import authors, judges, models, weights
from lib.nets.judges import AttributeNet
from lib.study import paths


@pytest.fixture
def pair():
    return models.build("tutorial64", size=16, nc=1, ngf=8, ndf=8, seed=1)


def test_round_trip(tmp_path, pair):
    path = tmp_path / "deep" / "net.safetensors"
    weights.save_net(path, *pair, {"parameters": {"seed": 1}}, {"extra": torch.arange(3)})
    G, D, record = weights.load_net(path)
    assert record == {"parameters": {"seed": 1}} and G.description == pair[0].description
    assert not G.training and not D.training
    for one, other in ((pair[0], G), (pair[1], D)):
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())
    assert torch.equal(weights.read_net(path)[0]["extra"], torch.arange(3))
    assert [p.name for p in path.parent.iterdir()] == ["net.safetensors"], "no half-written file remains"


def test_half_precision_halves_the_file(tmp_path, pair):
    for name, dtype in (("whole", None), ("half", torch.float16)):
        weights.save_net(tmp_path / f"{name}.safetensors", *pair, {}, dtype=dtype)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    G, _, _ = weights.load_net(tmp_path / "half.safetensors")
    assert G.projection.weight.dtype == torch.float32
    torch.testing.assert_close(G.projection.weight, pair[0].projection.weight, rtol=1e-3, atol=1e-5)


def test_no_pickle_is_executed(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was executed",))

    path = tmp_path / "net.safetensors"
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(ValueError, match="is no whole safetensors file"):
        weights.load_net(path)


def test_damaged_and_foreign_files(tmp_path, pair):
    path = tmp_path / "net.safetensors"
    with pytest.raises(ValueError, match="no net at .*: train one first"):
        weights.load_net(path)
    weights.save_net(path, *pair, {})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is no whole safetensors file .*: delete it and train again"):
        weights.load_net(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="is no net of this study: its description is missing"):
        weights.load_net(path)


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path, pair):
    path = tmp_path / "net.safetensors"
    weights.save_net(path, *pair, {"step": 3}, {"extra": torch.arange(3)})
    whole = path.read_bytes()
    chance = random.Random(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    for at in [*chance.sample(range(header), 60), *chance.sample(range(header, len(whole)), 60)]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :])
        try:
            tensors, description, record = weights.read_net(path)
        except ValueError:
            continue
        assert whole[at - 6 : at + 6].find(b"sha256") >= 0, f"bit {at} was flipped unseen"  # of the checksum's name
        assert description == pair[0].description and record == {"step": 3} and len(tensors["extra"]) == 3


def test_every_net_that_comes_with_the_study_carries_its_checksum():
    for path in paths.NETS.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            assert file.metadata()["sha256"], path
        assert weights.read_net(path)[0], "and matches it"


def test_another_nets_weights_are_refused(tmp_path, pair):
    wider = models.build("tutorial64", size=16, nc=1, ngf=16, ndf=8)[0].state_dict()
    with pytest.raises(ValueError, match=r"holds another net: .* is \(.*\), not \(.*\)"):
        weights.load_weights(pair[0], wider, tmp_path)
    with pytest.raises(ValueError, match="holds another net: head.weight is not in this net|is missing"):
        weights.load_weights(pair[0], pair[1].state_dict(), tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    weights.write_atomically(path, b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="cannot write .*file: No space left on device; free space"):
        weights.write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_net_of_another_version_of_the_study(tmp_path, pair):
    """One line that names what is not known here, where it is read and where it is loaded."""
    path = tmp_path / "net.safetensors"
    for changed, message in (
        (
            {"spectral": True},
            "net.safetensors: unknown field spectral of a net: .* another version of the study: delete it",
        ),
        (
            {"prior": "cauchy"},
            "net.safetensors: prior = 'cauchy': choose one of .*another version of the study: delete it",
        ),
    ):
        described = json.dumps(asdict(pair[0].description) | changed)
        save_file({"G.x": torch.ones(2)}, path, {"description": described, "record": "{}"})
        for read in (weights.read_net, weights.load_net):
            with pytest.raises(ValueError, match=message):
                read(path)


@pytest.mark.parametrize("name", ["net.pth", "a/net.pt", "/x/NET.PKL", "net.ckpt", "params.jl"])
def test_pickles_are_refused_by_their_name(name):
    with pytest.raises(
        ValueError, match=f"{name}: pickles are not loaded, because a pickle can run any code; .*save_net"
    ):
        weights.load_net(name)


def test_a_shipped_net_is_the_trained_one_to_half_precision(trained):
    G, D = trained()
    path = weights.ship("01-abc", "mine")
    G_shipped, D_shipped, record = weights.load_net("mine")
    assert path == weights.find_net("mine")
    assert record == {"parameters": {"seed": 1}, "commit": "0123abc", "run": "01-abc"}
    z = torch.randn(64, 100, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        x = G(z)
        for one, other in ((x, G_shipped(z)), *zip(D.activations(x), D_shipped.activations(x), strict=True)):
            assert 0 < (one - other).abs().max() < 4e-3 * one.abs().max()  # eleven bits, a few layers deep


def test_judges_go_with_a_shipped_net(trained, tmp_path):
    trained()
    assert judges.beside("run:01-abc") == judges.beside("radford2015-svhn") == {}
    judge = AttributeNet(["smile", "age"], 16, 1, 4, seed=3).eval()
    judge.accuracy = {"smile": 0.9, "age": 0.8}
    tensors, about = judges.packed({"attributes": judge})
    G, D, record = weights.load_net("run:01-abc")
    weights.save_net(tmp_path / "01-abc" / "net.safetensors", G, D, record | about, tensors)
    weights.ship("01-abc", "mine")
    (name, shipped), *rest = judges.beside("mine").items()
    assert (name, rest, shipped.names, shipped.accuracy) == ("attributes", [], ["smile", "age"], judge.accuracy)
    assert (
        not shipped.training
        and weights.read_net(paths.NETS / "mine.safetensors")[0]["judge.attributes.body.head.bias"].dtype
        == torch.float16
    )
    x = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(judges.tell(shipped, x), judges.tell(judge, x), atol=2e-3, rtol=0)
    weights.save_net(tmp_path / "01-abc" / "net.safetensors", G, D, record | about)
    with pytest.raises(ValueError, match="holds another net: body.* is missing"):
        judges.beside("run:01-abc")
    del about["judges"]["attributes"]["ndf"]
    weights.save_net(tmp_path / "01-abc" / "net.safetensors", G, D, record | about, tensors)
    with pytest.raises(
        ValueError, match="its judge of attributes lacks ndf: it was made by another version of the study"
    ):
        judges.beside("run:01-abc")


def test_a_judge_of_pixels_goes_with_a_shipped_net(trained, tmp_path):
    trained(nc=3)
    judge = judges.Segmenter(3, width=8).eval()
    judge.accuracy = {"boxes": 0.8}
    G, D, record = weights.load_net("run:01-abc")
    judges.save(tmp_path / "01-abc" / "net.safetensors", G, D, record, {"boxes": judge})
    weights.ship("01-abc", "mine")
    shipped = judges.beside("mine")["boxes"]
    assert shipped.accuracy == judge.accuracy and not shipped.training
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(shipped(x), judge(x), atol=2e-2, rtol=0)


def test_the_minibatches_of_all_sittings_count(tmp_path, pair):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    weights.save_net(first, *pair, {"minibatches": 12, "parameters": {"onward": ""}})
    weights.save_net(second, *pair, {"minibatches": 30, "parameters": {"onward": str(first)}})
    assert [weights.minibatches_of(net) for net in ("", str(first), str(second))] == [0, 12, 42]


def test_later_sittings_hold_out_what_the_first_one_did(tmp_path, pair):
    """Or they would call images unseen that a sitting before has learned; of other images, by their own seed."""
    first, second, other = (tmp_path / f"{name}.safetensors" for name in ("first", "second", "other"))
    common = {"data_set": "digits", "split": "train", "limit": 0}
    weights.save_net(first, *pair, {"parameters": common | {"seed": 3, "onward": ""}})
    weights.save_net(second, *pair, {"parameters": common | {"seed": 4, "onward": str(first)}})
    weights.save_net(other, *pair, {"parameters": common | {"limit": 50, "seed": 6, "onward": str(first)}})
    onward = {net: common | {"seed": 5, "onward": str(net)} for net in (first, second, other)}
    assert [weights.hold_out_seed(parameters) for parameters in onward.values()] == [3, 3, 5]
    assert weights.hold_out_seed(common | {"seed": 7}) == 7
    with pytest.raises(ValueError, match="held_out = 0.1: a sitting before learned some: 0 at most"):
        weights.hold_out_seed(onward[first] | {"held_out": 0.1})
    assert weights.hold_out_seed({}) == 0, "of a record that says nothing"


def test_a_D_that_is_shipped_alone_says_so_to_whoever_asks_its_G(trained):
    G, D = trained()
    whole = weights.ship("01-abc", "mine").stat().st_size
    assert weights.ship("01-abc", "mine", D_alone=True).stat().st_size < 0.7 * whole
    absent, shipped, _ = weights.load_net("mine")
    x = torch.rand(4, *D.description.shape) * 2 - 1
    torch.testing.assert_close(shipped(x), D.eval()(x), atol=5e-2, rtol=0)
    for use in (lambda: absent(torch.zeros(1, 100)), lambda: weights.take_all(G, D, "mine")):
        with pytest.raises(ValueError, match="this G cannot be used: mine.safetensors holds D alone"):
            use()


def test_a_net_of_the_papers_width_can_be_shipped(trained):
    """The authors' ImageNet net: 128 maps, 11 million weights."""
    trained()
    sizes = [sum(p.numel() for p in net.parameters()) for net in models.build("imagenet32")]
    assert 2 * sum(sizes) < weights.LARGEST == 25 * 2**20


def test_what_cannot_be_shipped_leaves_the_old_one(trained, monkeypatch, tmp_path):
    trained()
    path = weights.ship("01-abc", "mine")
    before = path.read_bytes()
    G, D, _ = weights.load_net("run:01-abc")
    G.projection.weight.data[0, 0] = 70_000  # float16 ends at 65,504
    weights.save_net(tmp_path / "01-abc" / "net.safetensors", G, D, {})
    with pytest.raises(ValueError, match="01-abc: its net holds 70000, more than half precision can"):
        weights.ship("01-abc", "mine")
    trained()
    monkeypatch.setattr(weights, "LARGEST", 1000)
    with pytest.raises(ValueError, match="01-abc: its net takes .* MiB: ship a narrower one"):
        weights.ship("01-abc", "mine")
    assert path.read_bytes() == before


def test_find_net(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    with pytest.raises(ValueError, match="unknown net 'imagenet': give one of .*run:ID or a path"):
        weights.find_net("imagenet")
    with pytest.raises(ValueError, match="run:x: no finished run at"):
        weights.find_net("run:x")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "metrics.json").touch()
    with pytest.raises(ValueError, match="run:x: that run trained no net"):
        weights.find_net("run:x")
    (tmp_path / "x" / "net.safetensors").touch()
    assert weights.find_net("run:x") == tmp_path / "x" / "net.safetensors"


def test_a_net_of_the_study_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NETS", tmp_path)
    (tmp_path / "digits.safetensors").touch()
    said = "unknown net 'faces': give one of .*digits.*run:ID or a path.*comes back by git checkout HEAD results/nets"
    with pytest.raises(ValueError, match=said):
        weights.find_net("faces")


def test_the_way_out_of_a_net_of_the_study_is_the_study_not_a_training(tmp_path, monkeypatch, pair):
    """Cut, of another version, and of another shape: what git keeps is taken again, what one trained is not there."""
    path, G = tmp_path / "faces.safetensors", pair[0]
    described = json.dumps(asdict(G.description) | {"ngf": 2 * G.description.ngf})
    save_file({"G.x": torch.ones(2)}, path, {"description": described, "record": "{}"})
    for nets, out in ((tmp_path, "take the study's own again, git checkout HEAD results/nets"), (None, "train again")):
        monkeypatch.setattr(paths, "NETS", nets)
        with pytest.raises(ValueError, match=f"holds another net: .*: .*{out}"):
            weights.load_net(path)
    monkeypatch.setattr(paths, "NETS", tmp_path)
    path.write_bytes(b"{}")
    with pytest.raises(ValueError, match="is no whole safetensors file .*: take the study's own again"):
        weights.load_net("faces")


@pytest.mark.parametrize("path", sorted(paths.NETS.glob("*.safetensors")), ids=lambda p: p.stem)
def test_shipped_nets(path):
    assert path.stat().st_size <= weights.LARGEST
    G, D, record = weights.load_net(path)
    assert {"notebook", "parameters", "commit", "minibatches"} <= record.keys()
    with torch.no_grad():
        if isinstance(G, authors.Missing):  # its D came alone
            noise = torch.rand(64, *D.description.shape, generator=torch.Generator().manual_seed(0))
            x = D.activations(2 * noise - 1)[-1]
        else:
            x = G(G.sample_z(64, torch.Generator().manual_seed(0)))
    assert x.std(0).mean() > 0.1, "samples, or features, differ"


def test_real_faces_come_with_judges_that_were_tested_on_photographs():
    came = judges.beside("faces")
    assert came["attributes"].names == ["Smiling", "Eyeglasses", "Male", "Blond_Hair", "Young"]
    assert list(came["attributes"].accuracy) == came["attributes"].names
    assert list(came["overlays"].accuracy) == ["single", "overlay"]
    assert all(0.75 < share <= 1 for judge in came.values() for share in judge.accuracy.values())
