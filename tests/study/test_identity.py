"""Identity: what an edit costs. Which names of runs change, and which runs say that other code made them."""

import ast
import sys

import pytest

from lib.study import identity, manifest, paths, syntax

LIB = syntax.LIB
PARAMETERS = "steps: int = 3  # minibatches\nlr: float = 0.1\nname: str = 'x'\nfast: bool = True\nnet: str = 'none'"
NOTEBOOK = "from lib.gan import train\n", "run = 1\ntrain.fit(steps, lr)\n"
CODE = {
    "gan/train.py": '''"""Train."""
from lib.gan.game import play
from lib.look import figures

VERSIONS = {"training": 1}
ARCHITECTURES = {"wide": 64, "narrow": 16}


def fit(steps, lr):
    """Fit."""
    if steps < 1:
        raise ValueError(f"steps = {steps}: give one at leest")
    return [play(lr) for _ in range(steps)]  # a comment
''',
    "gan/game.py": "def play(lr):\n    return lr * 2\n",
    "gan/idle.py": 'VERSIONS = {"idle": 7}\n',
    "look/figures.py": "def show():\n    pass\n",
}


@pytest.fixture(autouse=True)
def study(study, tmp_path, monkeypatch):
    """A study of one notebook and a small lib of its own."""
    for name in ("STUDY_SOURCES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(paths, "NETS", tmp_path / "nets")
    monkeypatch.setattr(syntax, "LIB", tmp_path / "lib")
    study.write("01_one", *NOTEBOOK, parameters=PARAMETERS)
    for name, code in CODE.items():
        (tmp_path / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / name).write_text(code)
    return study


def edit(study, name, *change):
    path = study.folder / "lib" / name
    old = path.read_text()
    assert change[0] in old
    path.write_text(old.replace(*change))


def in_lib(name, *change):
    return lambda study: edit(study, name, *change)


def in_notebook(*cells, parameters=PARAMETERS, **metadata):
    return lambda study: study.write("01_one", *cells, parameters=parameters, **metadata)


def move_play(study):
    (study.folder / "lib" / "nets").mkdir()
    (study.folder / "lib" / "gan" / "game.py").rename(study.folder / "lib" / "nets" / "match.py")
    edit(study, "gan/train.py", "lib.gan.game", "lib.nets.match")


EDITS = {  # what is edited: how, whether runs get other names, and what of their code is then another
    "a typo in an error's message": (in_lib("gan/train.py", "leest", "least"), False, []),
    "a comment": (in_lib("gan/train.py", "# a comment", "# another"), False, []),
    "a docstring": (in_lib("gan/train.py", '"""Fit."""', '"""Fit a net."""'), False, []),
    "line breaks": (in_lib("gan/train.py", "[play(lr)", "[\n        play(lr)"), False, []),
    "a new architecture": (in_lib("gan/train.py", '"wide": 64', '"wide": 64, "deep": 256'), False, []),
    "a new function": (in_lib("gan/train.py", "VERSIONS", "def more():\n    pass\n\n\nVERSIONS"), False, []),
    "how a figure looks": (in_lib("look/figures.py", "pass", "return 1"), False, []),
    "a module that no notebook reaches": (in_lib("gan/idle.py", "7", "8"), False, []),
    "prose of the notebook": (in_notebook("# remark", *NOTEBOOK), False, []),
    "a magic in the notebook": (in_notebook("  !nvidia-smi", *NOTEBOOK), False, ["01_one.statements", "01_one.cells"]),
    "a new parameter at its default": (in_notebook(*NOTEBOOK, parameters=f"{PARAMETERS}\nmore: int = 1"), False, []),
    "an architecture": (in_lib("gan/train.py", "64", "128"), False, ["gan.train.ARCHITECTURES['wide']"]),
    "a function": (in_lib("gan/game.py", "* 2", "* 3"), False, ["gan.game.play"]),
    "the notebook's code": (in_notebook(NOTEBOOK[0], "run = 2\ntrain.fit(steps, lr)"), False, ["01_one.run"]),
    "a cell that sets a parameter": (in_notebook("lr = 9", *NOTEBOOK), False, ["01_one.lr", "01_one.cells"]),
    "a function's place": (move_play, False, ["gan.train.import lib.nets.match.play"]),
    "a declared version": (
        in_lib("gan/train.py", '"training": 1', '"training": 2'),
        True,
        ["gan.train.VERSIONS['training']"],
    ),
    "a notebook's declared version": (in_notebook(*NOTEBOOK, versions={"one": 2}), True, []),
}


def name_of(given, upstream=()):
    return syntax.digest(identity.identity_of("01_one", given, upstream))


@pytest.mark.parametrize("what", EDITS)
def test_what_an_edit_costs(study, what):
    change, renames, differ = EDITS[what]
    given = {"steps": 7}
    name, code = name_of(given), identity.code_of("01_one")
    change(study)
    assert (name_of(given) != name) == renames
    now = identity.code_of("01_one")
    gone = set(code.values()) - set(now.values())
    assert ([place for place, found in now.items() if found not in code.values()] if gone else []) == differ
    assert bool(gone) == bool(differ)


# --- what a name holds


def test_a_run_is_named_after_what_it_depends_on():
    name = name_of({})
    assert len(name) == 10
    assert name_of({"steps": 3, "lr": 0.1}) == name, "defaults, said or not"
    others = [{"steps": 4}, {"steps": 5}, {"lr": 4}, {"name": "run:01_one-0123456789"}]
    assert len({name, *(name_of(given) for given in others)}) == 5
    assert len({name, *(name_of({}, up) for up in (("a",), ("b",), ("a", "b"), ("b", "a")))}) == 4
    assert identity.identity_of("01_one", {"lr": 1, "fast": False}, ("b", "a")) == {
        "lr": "1.0", "fast": "false", "after": "a b",
    }  # fmt: skip


def test_the_name_holds_the_content_of_images_and_nets(study):
    (study.folder / "photos" / "cat").mkdir(parents=True)
    (study.folder / "nets").mkdir()
    image, net = study.folder / "photos" / "cat" / "1.png", study.folder / "nets" / "digits.safetensors"
    given = {"name": f"folder:{study.folder}/photos", "net": "digits"}
    names = []
    for content in (b"one", b"two", b"one"):
        image.write_bytes(content)
        net.write_bytes(b"net")
        names.append(name_of(given))
    assert names[0] == names[2] != names[1]
    net.write_bytes(b"ten")
    assert name_of(given) != names[0]
    told = identity.identity_of("01_one", given)
    assert told["content of name"] == manifest.of_images(given["name"])
    assert told["content of net"] == manifest.of_net("digits")


@pytest.mark.parametrize("name", ["start", "onward", "beside", "features"])
def test_the_name_holds_the_content_of_every_net_that_is_named(study, name):
    study.write("01_one", *NOTEBOOK, parameters=f"{PARAMETERS}\n{name}: str = ''")
    (study.folder / "nets").mkdir()
    (study.folder / "nets" / "digits.safetensors").write_bytes(b"net")
    told = identity.identity_of("01_one", {name: "digits"})
    assert told[f"content of {name}"] == manifest.of_net("digits") != ""


def test_the_name_holds_the_content_of_a_table(study, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", study.folder)
    (study.folder / "data").mkdir()
    names = {name_of({"name": "boxes.csv"})}
    for content in (b"file,x0", b"file,x0\na,1"):
        (study.folder / "data" / "boxes.csv").write_bytes(content)
        names.add(name_of({"name": "boxes.csv"}))
    assert len(names) == 3


def test_a_label_is_declared_once(study):
    edit(study, "gan/game.py", "def play", 'VERSIONS = {"training": 1}\n\n\ndef play')
    with pytest.raises(ValueError, match="two modules declare a version of training: give one another label"):
        name_of({})


def test_versions_of_a_module_are_those_that_it_reaches(study):
    assert identity.versions_of("lib.gan.train") == {}
    edit(study, "gan/game.py", "def play", 'VERSIONS = {"game": 3}\n\n\ndef play')
    assert identity.versions_of("lib.gan.train") == {"game": 3}
    assert identity.versions_of("lib.gan.idle") == {"idle": 7}


# --- parameters


@pytest.mark.parametrize(("cell", "message"), [("x = 3", "x needs a type"), ("x: int = 2 * 3", "must be a literal")])
def test_a_parameter_is_a_typed_literal(study, cell, message):
    study.write("02_two", parameters=cell)
    with pytest.raises(ValueError, match=message):
        identity.parameters_of("02_two")


def test_parameters_of():
    found = identity.parameters_of("01_one")
    assert found == {"steps": 3, "lr": 0.1, "name": "x", "fast": True, "net": "none"}
    assert [type(value) for value in identity.check("01_one", {"lr": 2}).values()] == [int, float, str, bool, str]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"step": 3}, "has no parameter 'step': it has steps, lr, name, fast"),
        ({"steps": 3.0}, "steps = 3.0 is no int"),
        ({"steps": True}, "steps = True is no int"),
        ({"lr": "1e-3"}, "lr = '1e-3' is no float"),
        ({"lr": float("nan")}, "lr = nan is no finite number"),
        ({"lr": True}, "lr = True is no float"),
        ({"name": None}, "name = None is no str"),
        ({"fast": 1}, "fast = 1 is no bool"),
    ],
)
def test_a_wrong_parameter_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        identity.check("01_one", given)


def test_an_unknown_notebook_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="unknown notebook '1_one': choose one of 01_one"):
        identity.check("1_one", {})


# --- the precision found


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make this machine one with such a CPU and such an nvidia-smi."""

    def make(flags="", answer=None, code=0):
        monkeypatch.setattr(identity, "CPUINFO", tmp_path / "cpuinfo")
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu {flags}\n")
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / "nvidia-smi").unlink(missing_ok=True)
        if answer is not None:
            (tmp_path / "bin" / "nvidia-smi").write_text(f"#!/bin/sh\necho '{answer}'\nexit {code}\n")
            (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
        for cached in (identity._ask_cards, identity._cpu_has_bfloat16):
            cached.cache_clear()

    yield make
    for cached in (identity._ask_cards, identity._cpu_has_bfloat16):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("flags", "found"),
    [("avx2", "float32"), ("avx512_bf16 sse", "bfloat16"), ("amx_bf16", "bfloat16"), ("avx512f", "float32")],
)
def test_a_cpu_computes_in_bfloat16_where_it_has_instructions_for_it(machine, flags, found):
    machine(flags, "9.0")
    assert identity.find_precision("auto", on_gpu=False) == found


@pytest.mark.parametrize(
    ("answer", "found"),
    [("8.0", "bfloat16"), ("9.0", "bfloat16"), ("12.0", "bfloat16"), ("7.5", "float32"), ("9.0\n7.0", "float32"),
     ("[N/A]", "bfloat16"), ("Failed to initialize NVML", "bfloat16"), (None, "bfloat16")],
)  # fmt: skip
def test_a_gpu_computes_in_bfloat16_from_8_0_and_where_none_answers_here(machine, answer, found):
    machine("", answer)
    assert identity.find_precision("auto", on_gpu=True) == found


def test_a_precision_that_is_given_or_planned_is_taken(machine, monkeypatch):
    machine("avx512_bf16", "9.0")
    assert identity.find_precision("float32", on_gpu=True) == "float32"
    assert identity.find_precision("", on_gpu=True) == ""
    monkeypatch.setenv("STUDY_PRECISION", "float32")
    assert identity.find_precision("auto", on_gpu=True) == "float32"
    assert identity.find_precision("bfloat16", on_gpu=True) == "bfloat16"
    monkeypatch.setenv("STUDY_PRECISION", "")
    assert identity.find_precision("auto", on_gpu=True) == "bfloat16"
    for word in ("bf16", "bfloat61"):
        with pytest.raises(ValueError, match=f"precision = '{word}': choose one of auto, float32, bfloat16"):
            identity.find_precision(word, on_gpu=False)


def test_the_precision_found_is_part_of_the_name(study, machine, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    parameters = "precision: str = 'auto'\ndevice: str = 'auto'"
    study.write("02_two", "pass", parameters=parameters)

    def found(**given):
        return identity.identity_of("02_two", given).get("precision found")

    machine("avx2", "8.6")
    assert (found(), found(device="cpu"), found(device="cuda")) == ("bfloat16", "float32", "bfloat16")
    assert found(precision="float32") is None
    assert identity.identity_of("02_two", {}, on_gpu=False)["precision found"] == "float32"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert found() == "float32", "no card is lent to it"
    machine("avx2", "No devices were found", code=6)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert found() == "float32"


# --- the code that is reached


def test_what_code_does_is_the_same_on_every_python():
    code = (
        "def f(x: int) -> None:\n    'docstring'\n    if x:\n        raise ValueError(f'{x} of')\n    return x  # why"
    )
    name = ["Name", ["id", "'x'"], ["ctx", ["Load"]]]
    integer, none = ["Name", ["id", "'int'"], ["ctx", ["Load"]]], ["Constant"]
    error = ["Raise", ["Name", ["id", "'ValueError'"], ["ctx", ["Load"]]]]
    assert syntax._shape(ast.parse(code).body[0]) == [
        "FunctionDef",
        ["name", "'f'"],
        ["args", ["arguments", ["args", [["arg", ["arg", "'x'"], ["annotation", integer]]]]]],
        ["body", [["If", ["test", name], ["body", [error]]], ["Return", ["value", name]]]],
        ["returns", none],
    ]


def test_a_notebook_with_commands_is_read(study):
    cell = "!nvidia-smi\nif True:\n    %matplotlib inline\nfiles = !ls\nfrom lib.gan import train"
    study.write("02_two", cell, "%%bash\nls 'unfinished", "train?")
    assert "gan.train.fit" in identity.code_of("02_two")


@pytest.mark.parametrize(
    ("break_it", "place"),
    [
        (in_lib("gan/game.py", "return", "retrun"), "game.py, line 2"),
        (in_notebook("x = ("), "01_one.ipynb, cell 2, line 1"),
    ],
)
def test_code_that_cannot_be_read_is_named(study, break_it, place):
    break_it(study)
    with pytest.raises(ValueError, match=place):
        identity.code_of("01_one")


def test_the_code_of_every_notebook_of_the_study_is_read_and_fits_into_a_record(monkeypatch):
    monkeypatch.setattr(syntax, "LIB", LIB)
    monkeypatch.setattr(paths, "NOTEBOOKS", paths.ROOT / "notebooks")
    for notebook in identity.notebooks():
        code = identity.code_of(notebook)
        assert len(" ".join(set(code.values()))) < 5000
        assert not [name for name in code if name.startswith(("look.figures.", "study.runs."))]
    assert {"gan.train.fit", "nets.models.Generator"} <= identity.code_of("01_train_gan").keys()
