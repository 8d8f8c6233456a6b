"""The shipped network as a package of small frames, exported once a session and copied for each test."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from export.package import export_package
from splitmerge.package import Package

CHECKPOINT = Path(__file__).parents[2] / "training" / "checkpoints" / "smp18-streets.safetensors"
SIZE = (64, 128)


@cache
def _exported() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="splitmerge-trained-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    export_package(CHECKPOINT, SIZE, folder / "package")
    return folder / "package"


def trained_package(folder: Path) -> Package:
    shutil.copytree(_exported(), folder)
    return Package.open(folder)


def models_of(package: Package, precision: str = "fp32") -> dict[str, onnx.ModelProto]:
    return {part: onnx.load(package.path(graph)) for part, graph in package.parts(precision).items()}


def with_weights(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for weight in copy.graph.initializer:
        if weight.name == name:
            weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight).copy()), name))
    return copy
