"""The list of small faults that `make mutants` plants fits the code and the tests."""

import ast

import pytest
from mutants import MUTANTS, Mutant  # tests/whole/mutants.py

from lib.study import paths


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.file}: {mutant.new}"[:60])
def test_a_mutant_can_be_planted_and_its_tests_are_there(mutant, tmp_path):
    path = tmp_path / "lib" / mutant.file
    path.parent.mkdir(parents=True)
    path.write_text((paths.ROOT / "lib" / mutant.file).read_text())
    assert mutant.plant(tmp_path) != path.read_text()
    ast.parse(path.read_text())
    for test in mutant.tests.split():
        file, *names = test.split("::")
        assert all(f"def {name}(" in (paths.ROOT / "tests" / file).read_text() for name in names)


def test_a_fault_whose_place_is_gone_is_told(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.py").write_text("x = 1\nx = 1\n")
    for old, times in (("x = 1", 2), ("y = 1", 0)):
        with pytest.raises(ValueError, match=f"lib/a.py has '{old}' {times} times, not once"):
            Mutant("a.py", old, "x = 2", "").plant(tmp_path)
