"""What tests of several rooms begin from, and in which order they run."""

import shutil

import pytest

from lib.study import paths

LONG = (
    "test_every_parameter_through_the_engine", "test_a_training_survives_whatever_stops_it",
    "test_the_road_from_photographs_to_pictures", "test_nbval", "test_a_slider_moves_the_picture_in_jupyterlab",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Begin with those that take longest, so that no process is left alone with one of them at the end."""
    items.sort(key=lambda item: [item.name.startswith(name) for name in LONG], reverse=True)


@pytest.fixture(scope="session")
def tied():
    """Words before a command that is to end when these tests are killed; none where a system has no such words."""
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """An empty folder of shipped nets, and what makes 01-abc a finished run whose net's statistics are estimated."""
    import torch  # which the tests of most rooms do without

    from lib.nets import batchnorm, models, weights

    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    monkeypatch.setattr(paths, "NETS", tmp_path / "nets")
    (tmp_path / "01-abc").mkdir()
    (tmp_path / "01-abc" / "metrics.json").touch()

    def train(architecture="tutorial64", **changes):
        G, D = models.build(architecture, **{"size": 16, "nc": 1, "ngf": 8, "ndf": 8, "seed": 1} | changes)
        z = torch.randn(256, G.description.nz, generator=torch.Generator().manual_seed(0))
        batchnorm.recalibrate_batchnorm(G, z)
        batchnorm.recalibrate_batchnorm(D, torch.rand(256, *D.description.shape) * 2 - 1)
        record = {"parameters": {"seed": 1}, "commit": "0123abc"}
        weights.save_net(tmp_path / "01-abc" / "net.safetensors", G, D, record)
        return G, D

    return train
