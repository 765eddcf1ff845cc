"""A net is shipped where its D is worth as much to the probe in half precision as in full."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lib.nets import batchnorm, models, weights
from lib.probe import protocol

PROBE = {"data_set": "digits", "development": 200, "per_class": 20, "C": 0.01}


def test_a_net_is_shipped_with_what_its_probe_said(trained):
    _, own = trained("imagenet32")
    path = protocol.ship("01-abc", "imagenet32", **PROBE)
    _, D, record = weights.load_net("imagenet32")
    assert path == weights.find_net("imagenet32") and record["run"] == "01-abc" and record["parameters"] == {"seed": 1}
    assert record["probe"].items() >= {"data_set": "digits", "per_class": 20, "C": 0.01}.items()
    assert 50 < record["probe"]["trained"] == pytest.approx(record["probe"]["shipped"], abs=protocol.AGREED)
    for name, value in weights.halved(own).state_dict().items():
        assert torch.equal(D.state_dict()[name], value), "what was probed is what the file gives back"
    assert not torch.equal(D.head.weight, own.head.weight)


def test_a_net_that_half_precision_changes_is_not_shipped(trained, monkeypatch):
    trained("imagenet32")
    before = protocol.ship("01-abc", "imagenet32", **PROBE).read_bytes()
    worthless = models.build("imagenet32", size=16, nc=1, ngf=8, ndf=8)[1]
    for layer in worthless.layers:
        layer[0].weight.data.fill_(0.01)
    monkeypatch.setattr(
        weights, "halved", lambda _: batchnorm.recalibrate_batchnorm(worthless, torch.rand(64, 1, 16, 16))
    )
    with pytest.raises(
        ValueError, match="01-abc: not shipped, half precision changes its probe on digits: of the trained"
    ):
        protocol.ship("01-abc", "imagenet32", **PROBE)
    assert weights.find_net("imagenet32").read_bytes() == before


def test_a_shipped_net_that_is_not_what_its_record_says_is_refused(trained):
    """Another training's weights under the record of this one, whatever wrote them."""
    trained("imagenet32")
    path = protocol.ship("01-abc", "imagenet32", **PROBE)
    with safe_open(path, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    for wrong in ({"D.head.weight": 2 * tensors["D.head.weight"]}, {}):
        record = metadata["record"] if wrong else metadata["record"].replace("01-abc", "01-def")
        save_file(tensors | wrong, path, metadata | {"record": record})
        with pytest.raises(ValueError, match="imagenet32.safetensors is damaged .its checksum differs."):
            weights.load_net("imagenet32")
