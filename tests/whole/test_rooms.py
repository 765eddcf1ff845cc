"""The rooms of lib: who may use whom, as pyproject.toml has it and CONTRIBUTING.md draws it."""

import subprocess
import sys
import tomllib

import pytest

from lib.study import paths

CONTRACTS = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
ROOMS = [room.strip().removeprefix("lib.") for layer in CONTRACTS[0]["layers"] for room in layer.split("|")]


def test_the_contract_is_kept():
    linter = [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports_command as main; main()"]
    done = subprocess.run(linter, cwd=paths.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_room_is_in_the_contract_and_says_what_lives_there():
    rooms = {path.parent.name for path in (paths.ROOT / "lib").glob("*/__init__.py")}
    assert rooms == set(ROOMS) - {"__main__"}
    for room in rooms:
        assert len((paths.ROOT / "lib" / room / "__init__.py").read_text().splitlines()) >= 4


@pytest.mark.parametrize("room", sorted(set(ROOMS) - {"__main__"}))
def test_a_room_has_three_to_eight_modules_that_are_read_at_one_sitting(room):
    lines = {path.name: len(path.read_text().splitlines()) for path in (paths.ROOT / "lib" / room).glob("[!_]*.py")}
    assert 3 <= len(lines) <= 8
    assert {name: count for name, count in lines.items() if not 40 <= count <= 250} == {}


def test_the_diagram_is_the_contract():
    text = (paths.ROOT / "CONTRIBUTING.md").read_text()
    drawn = [line.split()[0] for line in text.split("```text\n")[1].split("```")[0].splitlines() if line.strip()]
    assert drawn == [layer.replace("lib.", "").replace(" ", "") for layer in CONTRACTS[0]["layers"][1:]]
