"""Nets on disk: safetensors files that carry their description and the record of how they were made.

A pickle from a stranger runs code when it is loaded and a bare state dict does not say which net it belongs to. Here
one file holds the weights of G and D, the `Description` that rebuilds them and a JSON record; it is written under
another name and renamed when it is whole, and a checksum over all of it tells when it no longer is.
"""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lib.nets import authors, models
from lib.nets.models import Description, Discriminator, Generator
from lib.study import manifest, paths
from lib.study.paths import write_atomically

RESTORE = "git checkout HEAD results/nets"  # of the nets that come with the study
LARGEST = 25 * 2**20  # bytes of a net that git keeps
OF_CONVOLUTIONS = ("size", "nc", "ndf", "kernel", "convs_per_scale", "batch_norm", "resample")  # what shapes D's
PICKLES = {".pth", ".pt", ".pkl", ".ckpt", ".bin", ".jl"}  # suffixes of files that run code when they are loaded


def save_net(
    path: Path,
    G: Generator | None,
    D: Discriminator,
    record: dict,
    extra: dict[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write G and D, or D alone, with their record, and `extra` tensors beside them.

    record: what made the net, as plain JSON values. dtype: store floating weights in this type (half the size at
    torch.float16); `load_net` returns float32 always.
    """
    nets = {"G.": G, "D.": D} if G else {"D.": D}
    tensors = {prefix + k: v for prefix, net in nets.items() for k, v in net.state_dict().items()}
    if dtype:
        tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}
    tensors = {k: v.cpu().contiguous() for k, v in (tensors | (extra or {})).items()}
    metadata = {"description": json.dumps(asdict(D.description)), "record": json.dumps(record)}
    write_atomically(path, save(tensors, metadata | {"sha256": _digest(tensors, metadata)}))


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """Hash everything that a file of `save_net` holds."""
    digest = hashlib.sha256(json.dumps([metadata.get("description"), metadata.get("record")]).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read_net(path: Path) -> tuple[dict[str, Tensor], Description, dict]:
    """Read a file of `save_net`: its tensors, description and record.

    Raises ValueError where it is none, is cut, has lost its checksum (files of before there was one are taken), or
    describes a net that this version of the study does not know.
    """
    if not path.is_file():
        raise ValueError(f"no net at {path}: train one first (notebook 01, or `make study`)")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}): {_way_out(path)}") from error
    if metadata.get("sha256", digest := _digest(tensors, metadata)) != digest:
        raise ValueError(f"{path} is damaged (its checksum differs): {_way_out(path)}")
    if "description" not in metadata:
        raise ValueError(f"{path} is no net of this study: its description is missing")
    described = json.loads(metadata["description"])
    if unknown := described.keys() - {field.name for field in fields(Description)}:
        raise ValueError(
            f"{path}: unknown field {', '.join(sorted(unknown))} of a net: it was made by another version of the "
            f"study: {_way_out(path)}"
        )
    try:
        return tensors, Description(**described), json.loads(metadata["record"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}; it was made by another version of the study: {_way_out(path)}") from error


def _way_out(path: Path) -> str:
    return f"take the study's own again, {RESTORE}" if path.parent == paths.NETS else "delete it and train again"


def load_net(net: str | Path) -> tuple[Generator, Discriminator, dict]:
    """Rebuild G and D, in eval mode and float32, with their record.

    net: what `find_net` takes, a file's path, or a net that the authors released (`radford2015-svhn`,
    `radford2015-imagenet`). The G of a D that came alone is an `authors.Missing`. Raises ValueError as `find_net`,
    `read_net` and `authors.load` do.
    """
    if net in authors.NETS:
        return authors.load(net)
    path = net if isinstance(net, Path) else find_net(net)
    tensors, description, record = read_net(path)
    G, D = models.from_description(description)
    if not any(name.startswith("G.") for name in tensors):
        G = authors.Missing(f"this G cannot be used: {path.name} holds D alone")
    for prefix, own in (("G.", G), ("D.", D)):
        load_weights(own, {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}, path)
    return G.eval(), D.eval(), record


def load_weights(net: torch.nn.Module, tensors: dict[str, Tensor], path: Path | str) -> None:
    """Copy tensors into the net. Raises ValueError, naming the first tensor that does not fit, for another net's."""
    own = net.state_dict()
    for name in sorted(own.keys() ^ tensors.keys()):
        raise _another(path, f"{name} is {'missing' if name in own else 'not in this net'}")
    for name, value in tensors.items():
        if own[name].shape != value.shape:
            raise _another(path, f"{name} is {tuple(value.shape)}, not {tuple(own[name].shape)}")
    net.load_state_dict(tensors)


def _another(path: Path | str, differs: str) -> ValueError:
    return ValueError(f"{path} holds another net: {differs}: {_way_out(Path(path))}")


def take_convolutions(D: Discriminator, net: str, frozen: bool) -> None:
    """Copy the convolutions of another net's D into D, batch norm with them, as far as that D has them.

    net: as `load_net` takes it. frozen: these shall not learn. Raises ValueError, naming what differs, where they do
    not fit.
    """
    there = load_net(net)[1]
    if differing := _differing(D, there, OF_CONVOLUTIONS):
        raise ValueError(f"start = {net!r}: its convolutions do not fit ({differing})")
    for layer, found in zip(D.layers, there.layers, strict=False):  # a D that was released in part has fewer
        layer.load_state_dict(found.state_dict())
        layer.requires_grad_(not frozen)


def take_all(G: Generator, D: Discriminator, net: str) -> None:
    """Copy the weights of another net's G and D into G and D, so that a training goes on where its one ended.

    net: as `load_net` takes it. Raises ValueError, naming what differs, where it is of another description.
    """
    found = load_net(net)
    if isinstance(found[0], authors.Missing):
        raise ValueError(f"onward = {net!r}: {found[0].message}")
    if differing := _differing(D, found[1], [field.name for field in fields(Description)]):
        raise ValueError(f"onward = {net!r}: it is another net ({differing})")
    for own, there in zip((G, D), found, strict=False):
        load_weights(own, there.state_dict(), net)


def minibatches_of(net: str) -> int:
    """Return how many minibatches made a net, in all sittings that it went on from (`onward`); of none: 0."""
    if not net:
        return 0
    record = load_net(net)[2]
    return record["minibatches"] + minibatches_of(record["parameters"].get("onward", ""))


def hold_out_seed(parameters: Mapping) -> int:
    """Return the seed by which a training holds images out: of the sittings on the same images the first one's.

    Any other would hold out images that the sittings before have learned. parameters: of notebook 01. Raises ValueError
    where a net that it went on from is not here, or held out fewer.
    """
    former = load_net(parameters["onward"])[2]["parameters"] if parameters.get("onward") else None
    if former is None or any(former.get(of) != parameters.get(of) for of in ("data_set", "split", "limit")):
        return parameters.get("seed", 0)
    if parameters.get("held_out", 0) > (held := former.get("held_out", 0)):
        raise ValueError(f"held_out = {parameters['held_out']}: a sitting before learned some: {held} at most")
    return hold_out_seed(former)


def _differing(own: Discriminator, there: Discriminator, names: Iterable[str]) -> str:
    """Say in which of these fields of their descriptions two nets differ; empty: in none."""
    pairs = ((name, getattr(there.description, name), getattr(own.description, name)) for name in names)
    return "; ".join(f"{name} = {a} there, {b} here" for name, a, b in pairs if a != b)


def content_of(net: str) -> str:
    """Return a digest of the file that a `net` means; empty where there is none, and for the authors', which stay."""
    made = paths.runs() / net.removeprefix("run:") / "net.safetensors"
    return manifest.of_file(made) if net.startswith("run:") and made.is_file() else manifest.of_net(net)


def find_net(net: str) -> Path:
    """Return the file that a notebook's `net` parameter means.

    net: the name of a small trained net that comes with the study (`digits`, `toy-faces`), `run:ID` for a finished
    run of notebook 01, or a path to a .safetensors file. Raises ValueError that lists the choices, or says why a pickle
    is none.
    """
    if net.startswith("run:"):
        run = paths.runs() / net.removeprefix("run:")
        if not (run / "metrics.json").is_file():
            raise ValueError(f"{net}: no finished run at {run}; `make study` or notebook 01 makes one")
        if not (run / "net.safetensors").is_file():
            raise ValueError(f"{net}: that run trained no net; give a run of notebook 01")
        return run / "net.safetensors"
    if Path(net).suffix.lower() in PICKLES:
        raise ValueError(
            f"{net}: pickles are not loaded, because a pickle can run any code; where you trust it, load it elsewhere "
            "with torch.load(weights_only=True), fill a net of `models.build`, and write it with `weights.save_net`"
        )
    if net.endswith(".safetensors"):
        return paths.from_root(net)
    shipped = sorted(path.stem for path in paths.NETS.glob("*.safetensors"))
    if net not in shipped:
        raise ValueError(
            f"unknown net {net!r}: give one of {', '.join([*shipped, *authors.NETS])}, run:ID or a path to a "
            f".safetensors file; one that came with the study and is gone comes back by {RESTORE}"
        )
    return paths.NETS / f"{net}.safetensors"


def halved(net: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of a net as a file in half precision gives it back, in float32."""
    copied = copy.deepcopy(net)
    copied.load_state_dict(
        {k: v.half().to(v.dtype) for k, v in net.state_dict().items() if v.is_floating_point()}, False
    )
    return copied


def ship(run: str, name: str, more: dict | None = None, D_alone: bool = False) -> Path:
    """Copy a finished run's net, in half precision, to the small nets that git keeps; return the file.

    What lies beside G and D, such as the judges of notebook 03, goes with them, and a record with `more`. Raises
    ValueError where it would be larger than LARGEST, or half precision cannot hold it; what was there stays then.
    """
    G, D, record = load_net(f"run:{run}")
    tensors = read_net(find_net(f"run:{run}"))[0]
    tensors = {k: v for k, v in tensors.items() if not (D_alone and k.startswith("G."))}
    floating = {k: v for k, v in tensors.items() if v.is_floating_point()}
    if (largest := max(v.abs().max() for v in floating.values())) > torch.finfo(torch.float16).max:
        raise ValueError(f"{run}: its net holds {largest:g}, more than half precision can: ship another")
    if (size := sum(2 * v.numel() for v in tensors.values())) > LARGEST:
        raise ValueError(f"{run}: its net takes {size / 2**20:.0f} of {LARGEST >> 20} MiB: ship a narrower one")
    path = paths.NETS / f"{name}.safetensors"
    beside = {k: floating[k].half() if k in floating else v for k, v in tensors.items() if k[:2] not in ("G.", "D.")}
    save_net(path, None if D_alone else G, D, record | {"run": run} | (more or {}), beside, dtype=torch.float16)
    return path
