"""Files and values from strangers: they are data, and never run."""

import ast
import hashlib
import io
import json
import os
import pickle
import re
import struct
import subprocess
import tarfile
import urllib.request
from urllib.error import URLError

import nbformat
import numpy as np
import pytest
import torch
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from PIL import Image

from lib.engine import rows
from lib.gan import checkpoints
from lib.images import data
from lib.nets import authors, weights
from lib.study import identity, paths


class Hostile:
    """A pickle that leaves a file where it is run."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def trace(tmp_path):
    """What a hostile pickle would make; the test fails where it is there in the end."""
    trace = tmp_path / "stolen"
    yield trace
    assert not trace.exists(), "a pickle was run"


def test_the_trap_works(tmp_path):
    pickle.loads(pickle.dumps(Hostile(tmp_path / "stolen")))
    assert (tmp_path / "stolen").exists()


def as_pickle(trace):
    return pickle.dumps(Hostile(trace))


def as_torch(trace):
    buffer = io.BytesIO()
    torch.save({"G": Hostile(trace)}, buffer)
    return buffer.getvalue()


def as_numpy(trace):
    buffer = io.BytesIO()
    np.save(buffer, np.array([Hostile(trace)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def with_long_header(trace):
    return struct.pack("<Q", 2**62) + b"{}" + as_pickle(trace)


KINDS = [as_pickle, as_torch, as_numpy, with_long_header]


@pytest.mark.parametrize("make", KINDS)
def test_a_weight_file(make, trace, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(make(trace))
    with pytest.raises(ValueError, match=r"net.safetensors is no whole safetensors file"):
        weights.load_net(weights.find_net(str(path)))


@pytest.mark.parametrize("make", KINDS)
def test_a_checkpoint(make, trace, tmp_path):
    (tmp_path / "checkpoint-000000001.safetensors").write_bytes(make(trace))
    with pytest.raises(ValueError, match=r"checkpoint-000000001.safetensors"):
        checkpoints.read(tmp_path)


@pytest.mark.parametrize("file", ["x.npy", "y.npy"])
def test_a_packed_set(file, trace, tmp_path):
    data.load("digits", 8, root=tmp_path / "data")
    (packed,) = (tmp_path / "data").glob("packed/*/" + file)
    meta = packed.with_name("meta.json")
    content = as_numpy(trace)
    packed.write_bytes(content)
    known = json.loads(meta.read_text())
    known["files"][file] = hashlib.sha256(content).hexdigest()[:32]  # as its maker would write it
    meta.write_text(json.dumps(known))
    with pytest.raises(ValueError, match="a damaged packed set"):
        data.load("digits", 8, root=tmp_path / "data")


def test_cifar10_batches_that_are_not_the_published_ones(trace, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    folder = tmp_path / "downloads" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (folder / name).write_bytes(as_pickle(trace))
    (tmp_path / "downloads" / "cifar-10-python.tar.gz").write_bytes(as_pickle(trace))
    with pytest.raises(ValueError, match="cifar10: not found in .* and not downloaded"):
        data.load("cifar10", 32, root=tmp_path)


def test_a_list_of_lsun_keys_in_the_working_folder(trace, tmp_path, monkeypatch):
    lmdb = pytest.importorskip("lmdb")
    place = tmp_path / "downloads" / "lsun" / "bedroom_train_lmdb"
    place.mkdir(parents=True)
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "webp")
    with lmdb.open(str(place)) as there, there.begin(write=True) as writing:
        writing.put(b"key", buffer.getvalue())
    letters = "".join(c for c in str(place.resolve()) if c.isascii() and c.isalpha())
    (tmp_path / f"_cache_{letters}").write_bytes(as_pickle(trace))
    monkeypatch.chdir(tmp_path)
    assert len(data.load("lsun:bedroom_train", 16, root=tmp_path)) == 1


def test_the_authors_weights(trace, tmp_path):
    folder = tmp_path / authors.NETS["radford2015-svhn"].folder
    folder.mkdir()
    (folder / "200_gen_params.jl_01.npy").write_bytes(as_numpy(trace))
    with pytest.raises(ValueError, match=r"_01.npy: truncated, or no array of numbers"):
        authors.load_radford2015(folder)


@pytest.mark.parametrize("name", ["../../climbed.npy", "{out}/climbed.npy", "link/climbed.npy"])
def test_the_authors_archive_writes_nothing_outside(name, tmp_path, monkeypatch):
    folder = authors.NETS["radford2015-svhn"].folder
    (tmp_path / "out").mkdir()
    with tarfile.open(tmp_path / f"{authors.ARCHIVE}.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo(f"{folder}/link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "out")
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo(f"{folder}/{name}".format(out=tmp_path / "out")))
    monkeypatch.setenv("STUDY_SOURCES", str(tmp_path))
    with pytest.raises(ValueError, match="truncated or not an archive"):
        weights.load_net("radford2015-svhn")
    assert not [*tmp_path.rglob("climbed.npy")]


def png():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "png")
    return buffer.getvalue()


def test_archives_write_nothing_outside_the_packed_set(tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    path = tmp_path / "in" / "images.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as archive:
        for name in ("../../climbed.png", "/train/a/absolute.png", "train/a/1.png", "train/a/2.png"):
            member = tarfile.TarInfo(name)
            member.size = len(png())
            archive.addfile(member, io.BytesIO(png()))
        for kind, name, target in (
            (tarfile.SYMTYPE, "train/a/link.png", str(tmp_path / "secret.png")),
            (tarfile.SYMTYPE, "train/out", str(tmp_path)),
            (tarfile.LNKTYPE, "train/a/hard.png", "../../secret.png"),
            (tarfile.FIFOTYPE, "train/a/pipe.png", ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    before = {*tmp_path.rglob("*")}
    images = data.load(f"tar:{path}", 8, split="all", root=tmp_path / "data")
    assert len(images) == 3, "neither links nor a name that climbs"
    made = {*tmp_path.rglob("*")} - before
    assert made
    assert all(p.is_relative_to(tmp_path / "data") for p in made), made
    written = {p.name for p in made if p.is_file() and p.suffix not in (".lock", ".sqlite")}
    assert written == {"x.npy", "y.npy", "names.txt", "meta.json"}


def test_jupyter_listens_here_alone_and_asks_for_its_token():
    said = subprocess.run(["make", "-n", "lab"], cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout
    (command,) = (line for line in said.splitlines() if "jupyter" in line and " lab " in line)
    assert "--ip 127.0.0.1" in command
    assert not re.search("token|password|allow_origin|disable_check_xsrf|0.0.0.0", command)


@pytest.mark.parametrize(
    "text", ["1; import os", "'); import os; os.mkdir('stolen') #", "{__import__('os')}", "a\nb", "\\"]
)
def test_a_hostile_parameter_is_text(text, tmp_path):
    path = tmp_path / "hostile.yaml"
    given = {"a": {"notebook": "03_vector_arithmetic", "parameters": {"smiling": text}}}
    path.write_text(json.dumps({"level": "toy", "rows": given}))  # which is YAML, too
    (row,) = rows.load(path).rows.values()
    assert row.parameters == {"smiling": text}
    stored = load_notebook_node(str(paths.NOTEBOOKS / "03_vector_arithmetic.ipynb"))
    made = parameterize_notebook(stored, row.parameters, report_mode=False)
    (cell,) = (cell for cell in made.cells if "injected-parameters" in cell.metadata.get("tags", []))
    (statement,) = ast.parse(cell.source).body
    assert ast.literal_eval(statement.value) == text


@pytest.mark.parametrize("value", ["'1; import os'", "!!python/object/apply:os.getpid []", "!!python/name:os.system"])
def test_a_hostile_number_is_refused(value, tmp_path):
    path = tmp_path / "hostile.yaml"
    path.write_text(f"level: toy\nrows:\n  a: {{notebook: 02_walk_latent_space, parameters: {{seed: {value} }}}}\n")
    with pytest.raises(ValueError, match=r"hostile.yaml.*(is no int|could not determine a constructor)"):
        rows.load(path)


FORBIDDEN = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load", "torch.hub.load", "joblib.load", "pd.read_pickle",
    "eval", "exec", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load",
}  # fmt: skip


def sources():
    for path in sorted((paths.ROOT / "lib").rglob("*.py")):
        yield pytest.param(path.read_text(), id=path.stem)
    for name in identity.notebooks():
        cells = nbformat.read(paths.NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
        lines = (line for cell in cells if cell.cell_type == "code" for line in cell.source.splitlines())
        yield pytest.param("\n".join(line for line in lines if not line.startswith("%")), id=name)


@pytest.mark.parametrize("source", list(sources()))
def test_no_code_runs_what_it_reads(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert called not in FORBIDDEN, f"line {node.lineno}: {called}"
            archives = not called.endswith((".str.extract", "features.extract"))  # of words, of a net
            unpacks = called.endswith((".extract", ".extractall")) and archives
            assert not unpacks or given.get("filter") == "'data'", f"line {node.lineno}: {called}"
            assert given.get("allow_pickle", "False") == "False"
            assert given.get("shell", "False") == "False"
            assert called != "YAML" or given.get("typ") == "'safe'", "plain data"
            assert called != "yaml.load"
