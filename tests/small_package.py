"""A small split-merge package made without PyTorch: random weights, the same operators an exported network has.

stem   frame -> normalise -> pad -> 3x3 convolution -> split by rows x columns
trunk  convolution -> split 2x2 -> two convolutions -> classifier -> argmax -> merge 2x2
model  stem, trunk, merge, crop
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from splitmerge.files import sha256_of
from splitmerge.labels import CITYSCAPES
from splitmerge.package import Cut, Graph, InputContract, Manifest, Package, TensorInfo

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_DTYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


class _Builder:
    """Appends operators to a list; every method gives the name of its output."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(seed)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: NDArray[Any]) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def shaped(self, x: str, *shape: int) -> str:
        return self.op("Reshape", x, self.constant(np.array(shape, np.int64)))

    def conv(self, x: str, inputs: int, outputs: int, size: int, relu: bool = True) -> str:
        scale = (2 / (inputs * size * size)) ** 0.5
        weight = self.random.normal(0, scale, (outputs, inputs, size, size)).astype(np.float32)
        bias = self.random.normal(0, 0.1, outputs).astype(np.float32)
        y = self.op("Conv", x, self.constant(weight), self.constant(bias), pads=[size // 2] * 4)
        return self.op("Relu", y) if relu else y

    def split(self, x: str, channels: int, size: tuple[int, int], window: tuple[int, int]) -> str:
        (height, width), (rows, columns) = size, window
        h, w = height // rows, width // columns
        x = self.shaped(x, -1, channels, h, rows, w, columns)
        return self.shaped(self.op("Transpose", x, perm=[0, 3, 5, 1, 2, 4]), -1, channels, h, w)

    def merge(self, labels: str, size: tuple[int, int], window: tuple[int, int]) -> str:
        (h, w), (rows, columns) = size, window
        x = self.shaped(labels, -1, rows, columns, h, w)
        return self.shaped(self.op("Transpose", x, perm=[0, 3, 1, 4, 2]), -1, h * rows, w * columns)

    def cast(self, x: str, dtype: int, output: str) -> None:
        self.nodes.append(helper.make_node("Cast", [x], [output], name=f"cast_to_{output}", to=dtype))

    def save(self, path: Path, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]) -> Graph:
        graph = helper.make_graph(self.nodes, path.stem, _values(inputs), _values(outputs), self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
        return Graph(path.name, sha256_of(path), inputs, outputs)


def _values(tensors: tuple[TensorInfo, ...]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(t.name, _DTYPES[t.dtype], ["n" if d is None else d for d in t.shape])
        for t in tensors
    ]


def _stem(b: _Builder, contract: InputContract, channels: int, window: tuple[int, int]) -> str:
    below, right = contract.padded_height - contract.height, contract.padded_width - contract.width
    x = b.op("Transpose", b.op("Cast", "frames", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    bgr = np.array([contract.mean, contract.std], np.float32)[:, ::-1, None, None] * 255
    x = b.op("Div", b.op("Sub", x, b.constant(bgr[0][None])), b.constant(bgr[1][None]))
    x = b.op("Pad", x, b.constant(np.array([0, 0, 0, 0, 0, 0, below, right], np.int64)))
    padded = (contract.padded_height, contract.padded_width)
    return b.split(b.conv(x, 3, channels, 3), channels, padded, window)


def _trunk(b: _Builder, x: str, channels: int, size: tuple[int, int]) -> str:
    x = b.conv(x, channels, 2 * channels, 3)
    x = b.split(x, 2 * channels, size, (2, 2))
    x = b.conv(b.conv(x, 2 * channels, 2 * channels, 3), 2 * channels, 4 * channels, 3)
    scores = b.conv(x, 4 * channels, len(CITYSCAPES), 1, relu=False)
    return b.merge(b.op("ArgMax", scores, axis=1, keepdims=0), (size[0] // 2, size[1] // 2), (2, 2))


def make_package(
    folder: Path,
    size: tuple[int, int] = (45, 70),
    window: tuple[int, int] = (4, 4),
    channels: int = 4,
    cut: bool = True,
    seed: int = 0,
) -> Package:
    """Write a package for frames of `size` whose cut steps `window` = (rows, columns) pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    height, width = size
    rows, columns = window
    padded = (-(-height // (2 * rows)) * 2 * rows, -(-width // (2 * columns)) * 2 * columns)
    contract = InputContract(height, width, *padded, MEAN, STD)
    small = (padded[0] // rows, padded[1] // columns)
    frames = (TensorInfo("frames", "uint8", (None, height, width, 3)),)
    labels = (TensorInfo("labels", "uint8", (None, height, width)),)
    features = (TensorInfo("features", "float32", (None, channels, *small)),)

    whole = _Builder(seed)
    merged = whole.merge(_trunk(whole, _stem(whole, contract, channels, window), channels, small), small, window)
    ends = [whole.constant(np.array(v, np.int64)) for v in ([0, 0], [height, width], [1, 2])]
    whole.cast(whole.op("Slice", merged, *ends), TensorProto.UINT8, "labels")
    parts = {"model": whole.save(folder / "model.onnx", frames, labels)}
    if cut:
        builder = _Builder(seed)  # the same seed draws the same weights in the same order
        stem = _stem(builder, contract, channels, window)
        trunk = _Builder(seed)
        trunk.random = builder.random
        builder.nodes.append(helper.make_node("Identity", [stem], ["features"], name="to_features"))
        parts["stem"] = builder.save(folder / "stem.onnx", frames, features)
        trunk.cast(_trunk(trunk, "features", channels, small), TensorProto.UINT8, "labels")
        parts["trunk"] = trunk.save(folder / "trunk.onnx", features, (TensorInfo("labels", "uint8", (None, *small)),))
    manifest = Manifest(
        model="small",
        model_width=channels,
        classes=CITYSCAPES,
        input=contract,
        cut=Cut(level=2, rows=rows, columns=columns) if cut else None,
        graphs={"fp32": parts},
        reference_sha256="0" * 64,
        versions={"onnx": onnx.__version__},
    )
    return Package.write_manifest(folder, manifest)
