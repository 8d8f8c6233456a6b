"""Puts graphs of another precision into a package, beside those that are there."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from splitmerge.files import new_file, sha256_of
from splitmerge.package import Graph, Package, TensorInfo

__all__ = ["add_precision"]


def add_precision(
    package: Package,
    precision: str,
    graphs: Mapping[str, onnx.ModelProto],
    verification: Mapping[str, Any] | None = None,
) -> Package:
    """Write `graphs` (by part: model, stem, trunk) as the package's `precision` and seal it again.

    Older graphs of that precision are replaced. The package is whole at any moment, should this be cut off: without the
    precision at first, then with all of it. `verification` is kept in the manifest under the precision's name.
    """
    package = _without(package, precision)
    written = {part: _write(package, f"{part}.{precision}.onnx", model) for part, model in graphs.items()}
    manifest = package.manifest
    manifest = dataclasses.replace(
        manifest,
        graphs={**manifest.graphs, precision: written},
        verification={**manifest.verification, **({precision: dict(verification)} if verification else {})},
    )
    return Package.write_manifest(package.folder, manifest)


def _without(package: Package, precision: str) -> Package:
    manifest = package.manifest
    if precision not in manifest.graphs:
        return package
    graphs = {name: parts for name, parts in manifest.graphs.items() if name != precision}
    verification = {name: facts for name, facts in manifest.verification.items() if name != precision}
    return Package.write_manifest(
        package.folder, dataclasses.replace(manifest, graphs=graphs, verification=verification)
    )


def _write(package: Package, name: str, model: onnx.ModelProto) -> Graph:
    path = package.folder / name
    with new_file(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    graph = model.graph
    return Graph(name, sha256_of(path), tuple(map(_info, graph.input)), tuple(map(_info, graph.output)))


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    shape = tuple(size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim)
    return TensorInfo(value.name, dtype, shape)
