"""The path of Inception's own features, with a stand-in for its 90 MiB: 2,048 channels of numbers known beforehand."""

import pytest
import torch
from torch import nn
from torchmetrics.image import fid

from lib.gan import selection
from lib.nets import judges, models, weights
from lib.study import paths


class StandIn(nn.Module):
    """The pixels of bytes in three channels as features, each repeated: alike for every image of one level."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **_):
        super().__init__()
        assert features_list == ["2048"] and feature_extractor_weights_path.endswith("/inception.pth")

    def forward(self, x):
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        return x.double().mean((1, 2, 3))[:, None].repeat(1, 2048)


@pytest.mark.filterwarnings("ignore:Metric `FrechetInceptionDistance`")
def test_inceptions_features_take_the_extractors_place(tmp_path, monkeypatch):
    """A grey net whose samples are all 0 in [-1, 1], bytes of 127: 27 from 100 in each of 2,048 features."""
    monkeypatch.setattr(fid, "NoTrainInceptionV3", StandIn)
    monkeypatch.setattr(selection, "LEAST", 1 / 1024)  # two images are held out
    monkeypatch.setattr(selection, "SAMPLES", (2, 2))
    monkeypatch.setattr(selection.batchnorm, "recalibrate_batchnorm", lambda G, z: G)
    G, D = models.build("tutorial64", size=16, nc=1, ngf=4, ndf=4)
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.zero_()
    weights.save_net(tmp_path / "net.safetensors", G, D, {})
    x = torch.full((4, 1, 16, 16), 100, dtype=torch.uint8)
    (tmp_path / "inception.pth").touch()
    extractor = selection.extractor_of(f"inception:{tmp_path}/inception.pth", nc=1)
    found = selection.frechet_distances({7: tmp_path / "net.safetensors"}, x, torch.tensor([1, 3]), extractor, 0)
    assert found.to_dict() == {7: pytest.approx(2048 * 27**2)}
    assert found.name == "FID"


def test_inceptions_features_ask_for_their_file_and_for_many_images(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=f"features = inception:none.pth: no file {paths.ROOT}/none.pth: give that"):
        selection.extractor_of("inception:none.pth", nc=3)
    monkeypatch.setattr(fid, "NoTrainInceptionV3", StandIn)
    (tmp_path / "inception.pth").touch()
    extractor = selection.extractor_of(f"inception:{tmp_path}/inception.pth", nc=3)
    assert selection.least_held_out(32, extractor) == 4096
    assert selection.frechet_distances({}, torch.zeros(0), torch.arange(4095), extractor, 0).empty


def test_a_judge_that_came_with_a_net_gives_the_features(tmp_path):
    """The means of its last maps, before any of its attributes is told, for images of another size, too."""
    judge = judges.AttributeNet(["smiling"], 16, 3, 4, seed=0).eval()
    judge.accuracy = {"smiling": 1.0}
    tensors, about = judges.packed({"attributes": judge})
    G, D = models.build("tutorial64", size=16, ngf=4, ndf=4)
    weights.save_net(tmp_path / "net.safetensors", G, D, about, tensors)
    found = selection.extractor_of(str(tmp_path / "net.safetensors"), nc=3)
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = judge.body.activations(x * 2 - 1)[-1].mean((2, 3))
        torch.testing.assert_close(found(x), expected, rtol=1e-2, atol=1e-3)  # a net's file is in half precision
        assert found.measure == "Fréchet distance"
        assert found.num_features == expected.shape[1]
        for size in (8, 32):  # an image of one colour is the same at any size
            flat, own = (torch.full((2, 3, side, side), 0.3) for side in (size, 16))
            torch.testing.assert_close(found(flat), found(own))


def test_a_net_without_a_judge_gives_no_features(tmp_path):
    G, D = models.build("tutorial64", size=16, ngf=4, ndf=4)
    weights.save_net(tmp_path / "net.safetensors", G, D, {})
    with pytest.raises(ValueError, match="net.safetensors: no judge of attributes came with this net: faces has one"):
        selection.extractor_of(str(tmp_path / "net.safetensors"), nc=3)


def test_a_judge_of_photographs_in_colour_does_not_see_grey_images():
    with pytest.raises(ValueError, match="features = faces: its judge takes images of 3 channels, and these have 1"):
        selection.extractor_of("faces", nc=1)
