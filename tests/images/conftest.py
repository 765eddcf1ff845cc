"""Every test of images keeps to its own folder and off the network."""

import socket

import pytest

from lib.study import paths


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """Keep every test in its own folder and off the network."""

    def offline(*args, **kwargs):
        raise OSError("there is no network")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "study"))
    monkeypatch.delenv("STUDY_SOURCES", raising=False)
    monkeypatch.setattr(paths, "ROOT", tmp_path)  # where a relative path begins
    monkeypatch.chdir(tmp_path)
