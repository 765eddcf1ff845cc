"""Rules: what no notebook can take is refused in a line before any work, and what batches have is not."""

import re
import subprocess
import sys
from dataclasses import fields

import nbformat
import pytest

from lib.engine import rows, rules
from lib.gan import game
from lib.study import identity, paths

TRAIN, PROBE, WALK, FORGETTING = "01_train_gan", "05_cifar10_probe", "02_walk_latent_space", "06_forgetting"


@pytest.mark.parametrize(
    ("notebook", "given", "message"),
    [
        (TRAIN, {"precision": "bf16"}, "precision = 'bf16': choose one of auto, float32, bfloat16"),
        (TRAIN, {"batch_size": 1}, "batch_size = 1: give 2 or more: batch norm needs two images"),
        (TRAIN, {"lr": 0.0}, "lr = 0.0: give a number above 0"),
        (TRAIN, {"lr": -0.1}, "lr = -0.1: give a number above 0"),
        (TRAIN, {"beta1": 1.0}, "beta1 = 1.0: give a number from 0, below 1"),
        (TRAIN, {"epochs": 0.0}, "epochs = 0.0: give a number above 0"),
        (TRAIN, {"held_out": 1.0}, "held_out = 1.0: give a share from 0, below 1"),
        (TRAIN, {"split": "train+train"}, "split = 'train+train': name each part once, joined by +"),
        (TRAIN, {"split": "train+"}, "split = 'train+': name each part once"),
        (TRAIN, {"keep": 9, "snapshots": 2}, "keep = 9: there are 2 snapshots to keep one of"),
        (TRAIN, {"keep": 1, "snapshots": 0}, "keep = 1: there are 0 snapshots to keep one of"),
        (TRAIN, {"update": "never"}, "update = 'never': choose one of both, alternate"),
        (TRAIN, {"claim": "paper.varietyy"}, "claim = 'paper.varietyy': not in data/published.csv"),
        (TRAIN, {"claim": "paper.var"}, "claim = 'paper.var': not in data/published.csv"),
        (TRAIN, {"device": "gpu"}, "device = 'gpu': choose one of auto, cpu, cuda, cuda:N, mps"),
        (TRAIN, {"device": "cuda:9"}, "device = 'cuda:9': a row with gpu: 1 sees one card, any other none"),
        (TRAIN, {"device": "cuda"}, "device = 'cuda': a row with gpu: 1 sees one card, any other none"),
        (TRAIN, {"architecture": "paper46"}, "unknown architecture 'paper46': choose one of paper64"),
        (TRAIN, {"size": 48}, "image size 48: the net takes 4 times a power of two"),
        (TRAIN, {"breaks": "all"}, "unknown guideline 'all'"),
        (TRAIN, {"augment": "zoom"}, "augment = 'zoom': join some of"),
        (TRAIN, {"real_label": 1.5}, "real_label = 1.5: give a number above 0, of at most 1"),
        (TRAIN, {"real_label": 0.0}, "real_label = 0.0: give a number above 0, of at most 1"),
        (TRAIN, {"average": 2, "keep": 1}, "average = 2: say with keep which snapshot is the last of them"),
        (TRAIN, {"start": "digit"}, "start = 'digit': give run:ID of notebook 01, a net that comes with the study, a"),
        (TRAIN, {"onward": "run"}, "onward = 'run': give run:ID of notebook 01, a net that comes with the study, a"),
        (TRAIN, {"features": "face"}, "features = 'face': give a net that comes with the study and its judges, run:ID"),
        (TRAIN, {"features": "radford2015-imagenet"}, "features = 'radford2015-imagenet': give a net that comes with"),
        (TRAIN, {"features": "inception:none.pth"}, "features = 'inception:none.pth': give a net that comes with"),
        (PROBE, {"net": "digit"}, "net = 'digit': give run:ID of notebook 01, a net that comes with the study, a path"),
        (WALK, {"net": "none.safetensors"}, "net = 'none.safetensors': give run:ID of notebook 01, a net that comes"),
        (TRAIN, {"onward": "digits", "start": "digits"}, "onward and start: two beginnings; leave one out"),
        (TRAIN, {"frozen": True}, "frozen: say with start which net's convolutions stay as they are"),
        (TRAIN, {"D_rate": 0.0}, "D_rate = 0.0: give a number above 0"),
        (TRAIN, {"r1": -1.0}, "r1 = -1.0: give 0 or more"),
        (TRAIN, {"lr_decay": 1.5}, "lr_decay = 1.5: give a share from 0 to 1"),
        (TRAIN, {"data_set": "digit"}, "unknown data set 'digit': choose one of digits"),
        (TRAIN, {"data_set": "toy-faces:x"}, "say toy-faces:N"),
        (TRAIN, {"data_set": "crop:tra:photos"}, "unknown data set 'tra:photos': choose one of digits"),
        (PROBE, {"lines": "raw pixel"}, "lines = 'raw pixel': choose all, or some of trained D"),
        (PROBE, {"lines": "trained D + D beside"}, "lines: say with beside whose D stands beside"),
        (PROBE, {"beside": "imagenet"}, "beside = 'imagenet': give run:ID of notebook 01, a net that comes with"),
        (PROBE, {"draws": 1}, "draws = 1: give 2 or more: an interval needs two draws"),
        (PROBE, {"claim": "paper.cifar"}, "claim = 'paper.cifar': not in"),
        (FORGETTING, {"draws": 1}, "draws = 1: give 2 or more"),
        ("08_conditional_mnist", {"size": 30}, "size = 30: give a multiple of 4"),
        ("08_conditional_mnist", {"counts": "300, 1000"}, "counts = '300, 1000': give numbers above 0"),
        ("11_reports_explained", {"claim": "4x4.imagenet46"}, "claim = '4x4.imagenet46': not in"),
        (WALK, {"control": "toy-face"}, "unknown data set 'toy-face'"),
        (WALK, {"real": "toy-face"}, "unknown data set 'toy-face'"),
        (WALK, {"others": "toy-room"}, "unknown data set 'toy-room'"),
        ("03_vector_arithmetic", {"real": "toy-face"}, "unknown data set 'toy-face'"),
        (
            TRAIN,
            {"architecture": "imagenet32", "kernel": 4},
            "kernel = 4: a convolution of stride 1 needs an odd",
        ),
        (TRAIN, {"breaks": "pooling", "kernel": 4}, "kernel = 4: a convolution of stride 1 needs an odd kernel"),
        ("04_guided_backprop", {"randoms": 2}, "randoms = 2: give 3 or more"),
        ("04_guided_backprop", {"told": -1}, "told = -1: give 1 or more"),
        ("03_vector_arithmetic", {"pairs": 0}, "pairs = 0: give 1 or more"),
        ("07_memorisation", {"planted": 0}, "planted = 0: give 1 or more"),
        ("10_svhn_protocol", {"draws_for_C": 1}, "draws_for_C = 1: give 2 or more"),
        (WALK, {"fits": -3}, "fits = -3: give 1 or more"),
        (WALK, {"counted": -1}, "counted = -1: give 0 or more"),
        (FORGETTING, {"boxed_set": "toy-romms"}, "unknown data set 'toy-romms'"),
        ("12_snapshots", {"claim": "paper.walk"}, "claim = 'paper.walk': not in data/published.csv"),
    ],
)
def test_what_no_notebook_can_take(notebook, given, message):
    values = identity.check(notebook, given)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        rules.check(notebook, values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["tar:no.tar", "folder:no", "crop:tar:no.tar", "crop:folder:no", "crop:celeba"])
def test_images_may_lie_on_another_machine(name):
    rules.check(TRAIN, identity.check(TRAIN, {"data_set": name}))


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_a_card_is_not_held_for_nothing(device):
    with pytest.raises(ValueError, match=f"gpu: 1, but device = '{device}': a card would be held for nothing"):
        rules.check(TRAIN, identity.check(TRAIN, {"device": device}), gpu=True)
    for right in ("auto", "cuda", "cuda:0"):
        rules.check(TRAIN, identity.check(TRAIN, {"device": right}), gpu=True)


def test_attributes_that_should_stay_are_no_set_of_images():
    rules.check(FORGETTING, identity.check(FORGETTING, {"others": "bed, rug"}))


def test_a_card_is_for_a_notebook_that_has_a_device(tmp_path):
    path = tmp_path / "cards.yaml"
    path.write_text("rows:\n  a: {notebook: 99_verdicts, level: toy, gpu: 1}\n")
    with pytest.raises(ValueError, match="^cards.yaml, row a: gpu: 1, but 99_verdicts computes on the CPU"):
        rows.load(path)


def test_each_setting_of_a_training_has_a_rule():
    parameters, settings = identity.parameters_of(TRAIN), {field.name for field in fields(game.Settings)}
    open_ones = {name for name in settings & parameters.keys() if not isinstance(parameters[name], bool)}
    assert open_ones <= rules.RULES.keys()
    assert tuple(game.AUGMENTATIONS) == rules.AUGMENTATIONS


def test_a_batch_is_checked_without_torch():
    code = "import sys; from lib.engine import batch, rows; batch.plan(rows.load('batches/paper.yaml')); "
    heavy = subprocess.run(
        [sys.executable, "-c", f"{code} print({{'torch', 'scipy.stats', 'sklearn'}} & sys.modules.keys())"],
        cwd=paths.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert heavy.stdout.endswith("set()\n"), heavy.stderr


def test_the_lines_of_the_table_are_the_notebooks():
    cells = nbformat.read(paths.NOTEBOOKS / f"{PROBE}.ipynb", as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert all(f'"{line}"' in code for line in rules.LINES)
    sources = code.split("sources = {")[1].split("\n}")[0]
    assert set(re.findall(r'^    "(.+?)":', sources, re.MULTILINE)) <= set(rules.LINES)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("limit: 1:30", "limit = '1:30' is no int"),
        ("lr: 1:30.5", "lr = '1:30.5' is no float"),
        ("lr: .nan", "lr = nan is no finite number"),
        ("seed: on", "seed = 'on' is no int"),
        ("split: 2015-11-19", "is no str"),
        ("seed: true", "seed = True is no int"),
    ],
)  # fmt: skip
def test_what_only_looks_like_a_number_is_refused(tmp_path, written, message):
    path = tmp_path / "b.yaml"
    path.write_text(f"rows:\n  a: {{notebook: 01_train_gan, level: toy, parameters: {{{written} }}}}\n")
    with pytest.raises(ValueError, match=re.escape(message)):
        rows.load(path)


def test_numbers_that_mean_what_they_say(tmp_path):
    """YAML 1.1 reads 010 as eight, 1e-3 as text and `no` as false."""
    path = tmp_path / "b.yaml"
    path.write_text(
        "level: toy\n"
        "rows:\n  a: {notebook: 01_train_gan, parameters: {seed: 010, limit: 1_000, lr: 1e-3, epochs: 2, split: no}}\n"
    )
    given = rows.load(path).rows["a"].parameters
    assert given == {"seed": 10, "limit": 1000, "lr": 0.001, "epochs": 2.0, "split": "no"}, (
        "as YAML 1.1 does not read them"
    )
