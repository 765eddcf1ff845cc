"""Devices and precision: what is there, what is refused, and where convolutions become bfloat16."""

import pytest
import torch
from torch import nn

from lib.nets import devices, supervised

CPU = torch.device("cpu")


@pytest.fixture
def two_cards(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1", "cpu"])
def test_a_device_that_is_there(two_cards, name):
    assert devices.find_device(name) == torch.device(name)
    assert devices.find_device("auto") == torch.device("cuda")


@pytest.mark.parametrize("name", ["cuda:2", "cuda:9", "cuda:-1", "cuda:x", "cpu:1", "CUDA", "tpu", "", "gpu"])
def test_a_device_that_is_not_there(two_cards, name):
    with pytest.raises(ValueError, match=f"device = '{name}': (there is none on this|this machine has [12] of)"):
        devices.find_device(name)


def test_the_fastest_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.find_device("auto") == torch.device("mps")
    with pytest.raises(ValueError, match="'cuda': there is none on this machine; choose auto or one of mps, cpu"):
        devices.find_device("cuda")


@pytest.mark.parametrize("word", ["bf16", "bfloat61", "half", ""])
def test_another_precision_is_refused_wherever_it_is_given(word):
    message = f"precision = '{word}': choose one of"
    with pytest.raises(ValueError, match=message):
        devices.find_precision(word, CPU)
    with pytest.raises(ValueError, match=message):
        devices.autocast(word, CPU)
    with pytest.raises(ValueError, match=message):
        supervised.fit(nn.Flatten(), torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4), 1, precision=word)


def test_precision_is_what_is_asked_for_or_what_the_machine_has(monkeypatch):
    found = []
    monkeypatch.setattr(
        devices.identity, "find_precision", lambda word, on_gpu: found.append((word, on_gpu)) or "float32"
    )
    assert {devices.find_precision("auto", torch.device(kind)) for kind in ("cpu", "cuda", "mps")} == {"float32"}
    assert found == [("auto", False), ("auto", True), ("auto", False)]


def test_what_a_batch_found_when_it_was_planned_stands_for_auto(monkeypatch):
    for word, other in (("float32", "bfloat16"), ("bfloat16", "float32")):
        monkeypatch.setenv("STUDY_PRECISION", word)
        assert devices.find_precision("auto", CPU) == word
        assert devices.find_precision(other, CPU) == other, "what is asked for by its name is not changed"


def test_convolutions_alone_are_cast():
    x, conv = torch.ones(1, 1, 4, 4), nn.Conv2d(1, 1, 3)
    for word, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with devices.autocast(word, CPU):
            assert conv(x).dtype == dtype
    assert conv.weight.dtype == torch.float32


def test_where_a_net_lies():
    assert devices.device_of(nn.Linear(1, 1, device="meta")) == torch.device("meta")
    assert devices.device_of(nn.Flatten()) == CPU
