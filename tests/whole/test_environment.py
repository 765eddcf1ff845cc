"""One set of packages, three files: pyproject.toml, environment.yml for conda, requirements.lock for pip."""

import re
import tomllib

import yaml

from lib.study import paths

CONDA = {"pytorch": "torch", "python-lmdb": "lmdb", "matplotlib-base": "matplotlib"}  # conda-forge's names


def split(requirement: str) -> tuple[str, str]:
    """Return a requirement's name and its bounds."""
    name, bounds = re.fullmatch(r"([\w-]+)\s*(.*)", requirement).groups()
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
