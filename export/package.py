"""From a checkpoint to a package folder: export, verify, write, seal."""

import importlib.metadata
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import onnx_ir as ir

from export.graphs import AS_IT_IS, Graphs, Rewriting, contract_for, graphs_from_network
from export.verify import Report, verify
from splitmerge import __version__
from splitmerge.errors import CheckpointError, InputError
from splitmerge.files import new_folder, sha256_of, writable_folder
from splitmerge.package import MANIFEST, REFERENCE, FormTimes, Graph, Manifest, Package, TensorInfo
from training.checkpoint import Checkpoint, load_checkpoint

__all__ = ["PRECISION", "check_place", "existing_parent", "export_package", "keep_package"]

PRECISION = "fp32"
_VERSIONS_OF = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime")


def export_package(
    checkpoint_path: Path,
    size: tuple[int, int],
    folder: Path,
    cut_level: int | None = None,
    logits: bool = False,
    own: str | None = None,
    rewriting: Rewriting = AS_IT_IS,
) -> Package:
    """Export a checkpoint for frames of `size` (height, width), verify the graphs and write them as a package.

    `cut_level` 0, or a network without splits, gives the whole graph alone; for the default see
    `export.graphs.graphs_from_network`. With `logits` the graphs also return float32 `logits`. `own` names the user's
    own network, where it is one (`training.own`). An older package in `folder` is replaced, whole, once the new one is
    verified.

    Raises CheckpointError and InputError for what cannot be exported, VerificationError where a graph disagrees with
    PyTorch.
    """
    check_place(folder)
    checkpoint = load_checkpoint(checkpoint_path, own)
    contract = contract_for(size, checkpoint.model.stride, checkpoint.mean, checkpoint.std)
    graphs = graphs_from_network(checkpoint.model, contract, cut_level, logits, rewriting)
    report = verify(checkpoint.model, graphs)
    with new_folder(folder) as temporary:
        files = {part: _write(model, temporary, part) for part, model in graphs.parts.items()}
        cpu = {part: _write(model, temporary, f"{part}-cpu") for part, model in graphs.cpu.items()}
        shutil.copyfile(checkpoint_path, temporary / REFERENCE)
        if sha256_of(temporary / REFERENCE) != checkpoint.sha256:
            raise CheckpointError(f"{checkpoint_path} was overwritten while it was being exported: export it again.")
        Package.write_manifest(temporary, _manifest(checkpoint, graphs, files, cpu, report))
    return Package.open(folder)


def keep_package(package: Package, folder: Path, form_times: FormTimes) -> Package:
    """Copy the graphs of a package to `folder`, whole, with how the forms of its network compared."""
    graphs = [*package.parts(PRECISION).values(), *package.manifest.cpu.values()]
    with new_folder(folder) as temporary:
        for path in (package.reference_path, *map(package.path, graphs)):
            shutil.copyfile(path, temporary / path.name)
        Package.write_manifest(temporary, replace(package.manifest, form_times=form_times))
    return Package.open(folder)


def check_place(folder: Path) -> None:
    """Refuse a place that cannot be written or holds something else than a package, before anything is computed.

    Makes nothing that stays.
    """
    try:
        if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
            raise InputError(
                f"{folder} exists and is no package (it has no {MANIFEST}): name a new or an empty folder, or remove "
                "it."
            )
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file where a package is a folder: name another one.")
        writable_folder(existing_parent(folder))
    except OSError as error:
        raise InputError(f"Cannot write {folder} ({error.strerror}): name a folder that can be written.") from None


def existing_parent(path: Path) -> Path:
    """The nearest folder above `path` that is there, in which the missing ones would be made."""
    return next(parent for parent in path.absolute().parents if parent.exists())


def _manifest(
    checkpoint: Checkpoint, graphs: Graphs, files: Mapping[str, Graph], cpu: Mapping[str, Graph], report: Report
) -> Manifest:
    return Manifest(
        model=checkpoint.name,
        model_width=checkpoint.width,
        classes=checkpoint.classes,
        input=graphs.contract,
        cut=graphs.cut,
        graphs={PRECISION: dict(files)},
        reference_sha256=checkpoint.sha256,
        versions={"splitmerge": __version__} | {name: importlib.metadata.version(name) for name in _VERSIONS_OF},
        verification=asdict(report),
        form=graphs.rewriting.form,
        output_stride=graphs.rewriting.output_stride,
        cpu=dict(cpu),
    )


def _write(model: ir.Model, folder: Path, part: str) -> Graph:
    path = folder / f"{part}.onnx"
    path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))
    inputs, outputs = (tuple(map(_info, values)) for values in (model.graph.inputs, model.graph.outputs))
    return Graph(path.name, sha256_of(path), inputs, outputs)


def _info(value: ir.Value) -> TensorInfo:
    assert value.name is not None and value.dtype is not None and value.shape is not None
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return TensorInfo(value.name, value.dtype.numpy().name, shape)
