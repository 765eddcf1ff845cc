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
    for name, place in {"RESULTS": "", "KEPT": "kept", "TABLE": "table.csv"}.items():
        monkeypatch.setattr(paths, name, study.folder / "results" / place)
    monkeypatch.delenv("STUDY_RUNS", raising=False)
    monkeypatch.chdir(study.folder)
    return study
