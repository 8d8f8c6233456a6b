"""The shipped network as a package of small frames, exported once a session and copied for each test."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from calibration.package import add_precision
from export.package import export_package
from splitmerge.package import Package

CHECKPOINT = Path(__file__).parents[2] / "training" / "checkpoints" / "smp18-streets.safetensors"
SIZE = (64, 128)
FRAGILE = "layer3.0.conv2"
OUTLIER = 300.0


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


def fragile_package(folder: Path) -> Package:
    """The shipped network, but one channel is 300 times as large, and read with weights 300 times as small."""
    package = trained_package(folder)

    def scaled(model: onnx.ModelProto) -> onnx.ModelProto:
        (maker,) = (node for node in model.graph.node if node.name == "layer3.0.conv1")
        (reader,) = (node for node in model.graph.node if node.name == FRAGILE)

        def larger(array: np.ndarray) -> np.ndarray:
            array[channel] *= OUTLIER
            return array

        def smaller(array: np.ndarray) -> np.ndarray:
            array[:, channel] /= OUTLIER
            return array

        weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        channel = int(np.argmax(np.abs(weights[reader.input[1]]).max(axis=(0, 2, 3))))
        for name in maker.input[1:]:
            model = with_weights(model, name, larger)
        return with_weights(model, reader.input[1], smaller)

    models = models_of(package)
    changed = {part: scaled(model) if part != "stem" else model for part, model in models.items()}
    return add_precision(package, "fp32", changed)


def rescaled_package(folder: Path, factor: float) -> Package:
    """The same network with every activation `factor` (a power of two) times as large: the same labels, bit for bit."""
    package = trained_package(folder)
    models = models_of(package)
    for part, model in models.items():
        first = {name for node in model.graph.node if node.name == "conv1" for name in node.input[1:2]}
        biases = {name for node in model.graph.node if node.op_type == "Conv" for name in node.input[2:]}
        for name in first | biases:
            models[part] = with_weights(models[part], name, lambda array: array * np.float32(factor))
    return add_precision(package, "fp32", models)


def half_values(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The float16 values that a graph has inside, as they are stored."""
    inferred = onnx.shape_inference.infer_shapes(model)
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    names = [name for node in model.graph.node for name in node.output if kinds.get(name) == onnx.TensorProto.FLOAT16]
    inferred.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(inferred.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, feeds), strict=True)) if names else {}
