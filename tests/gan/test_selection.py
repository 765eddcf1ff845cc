"""The path of Inception's own features, with a stand-in for its 90 MiB: 2,048 channels of numbers known beforehand."""

import pytest
import torch
from torch import nn
from torchmetrics.image import fid

from lib.gan import selection
from lib.nets import models, weights


class StandIn(nn.Module):
    """The pixels of bytes in three channels as features, each repeated: alike for every image of one level."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **_):
        super().__init__()
        assert (features_list, feature_extractor_weights_path) == (["2048"], "inception.pth")

    def forward(self, x):
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        return x.double().mean((1, 2, 3))[:, None].repeat(1, 2048)


@pytest.mark.filterwarnings("ignore:Metric `FrechetInceptionDistance`")
def test_inceptions_features_take_the_extractors_place(tmp_path, monkeypatch):
    """A grey net whose samples are all 0 in [-1, 1], bytes of 127: 27 from 100 in each of 2,048 features."""
    monkeypatch.setattr(fid, "NoTrainInceptionV3", StandIn)
    monkeypatch.setattr(fid, "_TORCH_FIDELITY_AVAILABLE", True)
    monkeypatch.setattr(selection, "LEAST", 1 / 1024)  # two images are held out
    monkeypatch.setattr(selection, "SAMPLES", (2, 2))
    monkeypatch.setattr(selection.batchnorm, "recalibrate_batchnorm", lambda G, z: G)
    G, D = models.build("tutorial64", size=16, nc=1, ngf=4, ndf=4)
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.zero_()
    weights.save_net(tmp_path / "net.safetensors", G, D, {})
    x = torch.full((4, 1, 16, 16), 100, dtype=torch.uint8)
    found = selection.frechet_distances(
        {7: tmp_path / "net.safetensors"}, x, torch.tensor([1, 3]), nn.Identity(), 0, "inception.pth"
    )
    assert found.to_dict() == {7: pytest.approx(2048 * 27**2)}
