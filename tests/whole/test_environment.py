"""One set of packages in three files (pyproject.toml, environment.yml, requirements.lock), and `make setup` of them."""

import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml

from lib.study import paths

# conda-forge's names
CONDA = {"pytorch": "torch", "python-lmdb": "lmdb", "matplotlib-base": "matplotlib", "ruamel.yaml": "ruamel-yaml"}


def split(requirement: str) -> tuple[str, str]:
    """Return a requirement's name and its bounds."""
    name, bounds = re.fullmatch(r"([\w.-]+)\s*(.*)", requirement).groups()
    return CONDA.get(name, name), bounds


def of_project() -> dict[str, str]:
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return dict(map(split, project["dependencies"] + extras)) | {"python": project["requires-python"]}


def of_lock() -> dict[str, list[str]]:
    pins = {}
    for line in (paths.ROOT / "requirements.lock").read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            name, pin = re.match(r"([\w.-]+)==(\S+)", line).groups()
            pins.setdefault(name, []).append(pin)
    return pins


def test_conda_has_the_same_packages_with_the_same_bounds():
    content = yaml.safe_load((paths.ROOT / "environment.yml").read_text())
    assert content["channels"] == ["conda-forge", "nodefaults"]
    *listed, by_pip = content["dependencies"]
    listed += [line for line in by_pip["pip"] if line != "-e ."]
    ours = dict(map(split, listed))
    assert ours.pop("pip") == ""
    assert ours == of_project()


def test_lock_pins_every_package():
    missing = of_project().keys() - of_lock().keys() - {"python"}
    assert not missing


def test_lock_is_compiled_from_these_bounds():
    for name, bounds in of_project().items():
        for pin in of_lock().get(name, []):
            least = re.search(r">=([\d.]+)", bounds).group(1)
            assert [int(n) for n in re.findall(r"\d+", pin)][:3] >= [int(n) for n in least.split(".")], name


def test_no_file_holds_an_address():
    for name in ("requirements.lock", "environment.yml", "Makefile", "pyproject.toml", ".ci/run"):
        content = (paths.ROOT / name).read_text()
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", content), name


def test_the_same_pythons_everywhere():
    (least, most) = re.search(r">=3\.(\d+),<3\.(\d+)", of_project()["python"]).groups()
    makefile = (paths.ROOT / "Makefile").read_text()
    fits = re.search(r"^FITS = import sys; sys.exit\(not (.*)\)$", makefile, re.MULTILINE).group(1)
    assert fits == f"(3, {least}) <= sys.version_info < (3, {most})"
    tried = re.search(r"for p in python3 (.*?);", makefile).group(1).split()
    assert tried == [f"python3.{minor}" for minor in reversed(range(int(least), int(most)))]
    assert f"no Python 3.{least} to 3.{int(most) - 1}" in makefile


STUB = """#!/bin/bash
echo "$(basename $0) $*" "PIP_USER=$PIP_USER PYTHONPATH=$PYTHONPATH PIP_TARGET=$PIP_TARGET" \\
     "UV_CACHE_DIR=$UV_CACHE_DIR" >> {log}
make_stub() {{ mkdir -p .venv/bin; ln -sf $PWD/bin/python3 .venv/bin/$1; }}
case "$(basename $0) $*" in
    {refused}) exit 1 ;;
    *"-m venv"*) rm -rf .venv; make_stub python ;;
    *"pip install"*" uv") make_stub uv ;;
    *"import pip"*) ;;
    *" -c "*) exec {python} "$@" ;;
esac
"""


@pytest.fixture
def setup(tmp_path):
    """`make setup` in a folder of its own, with a python3, a pip and a uv that note how they were called."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(paths.ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    log = tmp_path / "log"

    def run(refused="nothing", arguments=(), **env):
        stub = tmp_path / "bin" / "python3"
        stub.write_text(STUB.format(log=log, refused=refused, python=sys.executable))
        stub.chmod(0o755)
        log.write_text("")
        env = os.environ | {"PATH": f"{stub.parent}:{os.environ['PATH']}"} | env
        done = subprocess.run(["make", "setup", *arguments], cwd=tmp_path, env=env, capture_output=True, text=True)
        errors = [line for line in done.stderr.splitlines() if not line.startswith("make")]
        return done.returncode, errors, log.read_text().splitlines()

    return run


def test_setup_makes_an_environment_once(setup):
    status, errors, calls = setup()
    assert (status, errors) == (0, [])
    assert [call.split(" PIP_USER")[0] for call in calls if " -c " not in call] == [
        "python3 -m venv --clear .venv",
        "python -m pip install --quiet --no-cache-dir --disable-pip-version-check uv",
        "uv pip sync --quiet --python .venv/bin/python requirements.lock",
        "uv pip install --quiet --python .venv/bin/python --no-deps --editable .",
    ]
    assert setup()[2] == [], "nothing to do"


def test_setup_after_a_first_try_that_failed(setup, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    status, errors, calls = setup()
    assert (status, errors) == (0, [])
    assert any("-m venv --clear" in call for call in calls)


def test_setup_goes_on_where_it_stopped(setup):
    status, (error,), _ = setup(refused='"uv pip sync"*')
    assert status
    assert error.startswith("error: not all packages of requirements.lock were installed")
    status, errors, calls = setup(refused='"python3 -m venv"*')
    assert (status, errors) == (0, [])
    assert not any("-m venv" in call for call in calls), "the environment was whole"


def test_setup_is_not_led_elsewhere_by_the_environment(setup):
    status, errors, calls = setup(PIP_USER="1", PIP_TARGET="/elsewhere", PYTHONPATH="/other/packages")
    assert (status, errors) == (0, [])
    assert all("PIP_USER=0 PYTHONPATH= PIP_TARGET= " in call for call in calls if " -c " not in call)


@pytest.mark.parametrize(
    ("env", "where"),
    [
        ({"HOME": "/nonexistent"}, ".venv/.cache"),
        ({"HOME": ""}, ".venv/.cache"),
        ({"HOME": "/nonexistent", "UV_CACHE_DIR": "mine"}, "mine"),
        ({"HOME": "."}, ""),
    ],
)
def test_setup_without_a_home_that_can_be_written(setup, env, where):
    status, errors, calls = setup(**{"UV_CACHE_DIR": "", "XDG_CACHE_HOME": ""} | env)
    assert (status, errors) == (0, [])
    assert all(call.endswith(f"UV_CACHE_DIR={where}") for call in calls if call.startswith("uv"))


@pytest.mark.parametrize(
    ("refused", "arguments", "reason"),
    [
        ('"python3 -I -c"*', ["PYTHON=python3"], r"python3 is no Python 3.11 to 3.14, .* wheels .*environment.yml"),
        ("nothing", ["PYTHON="], r"python3 is no Python 3.11 to 3.14"),
        ('*"-m venv"*', [], r"python3 cannot make an environment in .venv: .* python3-venv"),
        ('*"pip install"*" uv"', [], r"pip could not install uv: is there a network"),
    ],
)
def test_setup_says_why_it_stops_in_one_line(setup, refused, arguments, reason):
    status, errors, _ = setup(refused, arguments)
    assert status
    assert len(errors) == 1
    assert re.match(f"error: {reason}", errors[0])
