"""A small study, seen from outside or by the very process that tests it."""

import pytest
from studies import Study

from lib.study import paths


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path)


@pytest.fixture
def here(study, monkeypatch):
    """The study as this very process sees it."""
    monkeypatch.setattr(paths, "NOTEBOOKS", study.folder / "notebooks")
    monkeypatch.setattr(paths, "RESULTS", study.folder / "results")
    monkeypatch.delenv("STUDY_RUNS", raising=False)
    return study
