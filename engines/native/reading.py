"""Read a trunk from its ONNX graph, or say what in it is not compiled natively. Deployment machines do not need this.

Splits and merges, as `export.lower` writes them, are no steps: a value keeps all its pixels in the image's order. ReLU
and sums become part of the convolution before them.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from engines.native.trunk import Convolution, Pair, Trunk
from splitmerge.errors import EngineError

__all__ = ["read_trunk"]

_LABEL_TYPES = (onnx.TensorProto.UINT8, onnx.TensorProto.INT32, onnx.TensorProto.INT64)
_LABELS = ""
"""The root of labels, which no value of a graph is called."""


@dataclass(frozen=True)
class _Value:
    """What a name of the graph stands for: a value on maps, parted into `grid` split batches of `size` pixels each.
    `windows` has what a Reshape and a Transpose have done to it on the way through a pooling."""

    root: str
    channels: int | None
    size: Pair
    grid: Pair = (1, 1)
    windows: tuple[int, ...] = ()
    turned: tuple[int, ...] = ()


def read_trunk(path: Path) -> Trunk:
    """The trunk in the ONNX file `path`. Raises EngineError where something in it is no such step, in words."""
    graph = onnx.load(path).graph
    if len(graph.input) != 1:
        raise EngineError(f"it takes {len(graph.input)} tensors, and one is expected: cut the network at level 1 or 2")
    if len(graph.output) != 1:
        raise EngineError(f"it gives {len(graph.output)} tensors and not labels alone: export it without --logits")
    return _Reader(graph).read()


class _Reader:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._constants = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
        self._values: dict[str, _Value] = {}
        self._steps: dict[str, Convolution] = {}  # by result, in order
        self._logits: str | None = None

    def read(self) -> Trunk:
        (given,), (wanted,) = self._graph.input, self._graph.output
        batch, *shape = (one.dim_value for one in given.type.tensor_type.shape.dim)
        if batch or len(shape) != 3 or not all(shape):
            raise EngineError(f"its input {given.name} is not any number of maps of fixed channels, height and width")
        channels, height, width = shape
        self._values[given.name] = _Value(given.name, channels, (height, width))
        self._readers = self._count_readers()
        for node in self._graph.node:
            self._values[node.output[0]] = self._read(node)
        is_labels = wanted.type.tensor_type.elem_type == onnx.TensorProto.UINT8
        merged = _Value(_LABELS, None, (height, width))
        if not is_labels or self._logits is None or self._values[wanted.name] != merged:
            raise EngineError(f"its output {wanted.name} is not the labels of all pixels in their order")
        return Trunk(given.name, channels, height, width, tuple(self._steps.values()), self._logits, wanted.name)

    def _count_readers(self) -> Counter[str]:
        """How often each name is read, where what only passes on a value counts as its readers do."""
        readers: Counter[str] = Counter(one.name for one in self._graph.output)
        for node in reversed(self._graph.node):
            passes = node.op_type in ("Reshape", "Transpose", "Cast")
            for name in node.input:
                readers[name] += readers[node.output[0]] if passes else 1
        return readers

    def _read(self, node: onnx.NodeProto) -> _Value:
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        inputs = [self._values.get(name) for name in node.input]
        if node.domain == "" and inputs and inputs[0] is not None:
            value = inputs[0]
            match node.op_type:
                case "Reshape" if node.input[1] in self._constants and bool(value.windows) == bool(value.turned):
                    return self._reshaped(node, value)
                case "Transpose" if value.windows and not value.turned and "perm" in attributes:
                    return replace(value, turned=tuple(attributes["perm"]))
                case "Cast" if value.root == _LABELS and attributes["to"] in _LABEL_TYPES:
                    return value
                case "Conv" if not value.windows:
                    return self._convolved(node, value, attributes)
                case "Relu":
                    return self._rectified(node, value)
                case "Add" if inputs[1] is not None:
                    return self._added(node, value, inputs[1])
                case "ArgMax" if (
                    self._logits is None and value.root in self._steps and _is_of_channels(value, attributes)
                ):
                    self._logits = value.root
                    return replace(value, root=_LABELS, channels=None)
        raise EngineError(f"its node {node.name} ({node.op_type}) is none that is compiled natively")

    def _reshaped(self, node: onnx.NodeProto, value: _Value) -> _Value:
        """The first or the last step of a pooling, as `export.lower` writes it."""
        shape = tuple(self._constants[node.input[1]].tolist())
        if not value.turned:
            return replace(value, windows=shape)
        before, (height, width) = replace(value, windows=(), turned=()), shape[-2:]
        splits = height < value.size[0] or width < value.size[1]
        large, small = (value.size, (height, width)) if splits else ((height, width), value.size)
        window = large[0] // small[0], large[1] // small[1]
        grid = before.grid if splits else (before.grid[0] // window[0], before.grid[1] // window[1])
        expected = _pooling(before.channels, small, window, grid, splits)
        inner = () if before.channels is None else (before.channels,)
        if (value.windows, value.turned, shape) != (*expected, (-1, *inner, height, width)):
            raise EngineError(f"its node {node.name} ends a rearrangement that is no split or merge")
        after = (grid[0] * window[0], grid[1] * window[1]) if splits else grid
        return replace(before, size=(height, width), grid=after)

    def _convolved(self, node: onnx.NodeProto, value: _Value, attributes: Mapping[str, Any]) -> _Value:
        weights, *more = (self._constants.get(name) for name in node.input[1:])
        if weights is None or weights.dtype != np.float32 or any(one is None for one in more):
            raise EngineError(f"its convolution {node.name} has no constant weights of float32")
        if weights.ndim != 4:
            raise EngineError(f"its convolution {node.name} is not of height and width")
        out, into, *sides = weights.shape
        dilations = tuple(attributes.get("dilations", (1, 1)))
        taps = tuple(sides)
        given = {"group": 1, "strides": [1, 1], "pads": [0, 0, 0, 0], "auto_pad": b"NOTSET"} | dict(attributes)
        pads = [rate * (side // 2) for rate, side in zip(dilations, sides, strict=True)] * 2
        plain = (given["group"], given["strides"], given["pads"]) == (1, [1, 1], pads)
        plain = plain and given["auto_pad"] in (b"NOTSET", b"")
        if taps not in ((1, 1), (3, 3)) or into != value.channels or not plain:
            raise EngineError(f"its convolution {node.name} is no 1x1 or 3x3 one that keeps height and width")
        bias = more[0] if more else np.zeros(out, np.float32)
        assert bias is not None
        step = (dilations[0] * value.grid[0], dilations[1] * value.grid[1])
        self._steps[node.output[0]] = Convolution(value.root, node.output[0], weights, bias, step)
        return replace(value, root=node.output[0], channels=out)

    def _rectified(self, node: onnx.NodeProto, value: _Value) -> _Value:
        if value.root not in self._steps or self._readers[value.root] != 1 or self._steps[value.root].relu:
            raise EngineError(f"its node {node.name} (Relu) does not follow a convolution")
        return self._extended(node, value, relu=True)

    def _added(self, node: onnx.NodeProto, one: _Value, other: _Value) -> _Value:
        if replace(one, root="") != replace(other, root="") or one.root == other.root:
            raise EngineError(f"its node {node.name} (Add) adds values that are not alike")
        for value, shortcut in ((one, other), (other, one)):
            step = self._steps.get(value.root)
            if step and self._readers[value.root] == 1 and step.added is None and not step.relu:
                return self._extended(node, value, added=shortcut.root)
        raise EngineError(f"its node {node.name} (Add) does not follow a convolution")

    def _extended(self, node: onnx.NodeProto, value: _Value, **more: Any) -> _Value:
        """The convolution before the node does what the node does, in its place."""
        step = self._steps.pop(value.root)
        self._steps[node.output[0]] = replace(step, result=node.output[0], **more)
        return replace(value, root=node.output[0])


def _is_of_channels(value: _Value, attributes: Mapping[str, Any]) -> bool:
    """Whether ArgMax gives the number of a pixel's largest channel, the first of equals."""
    wanted = {"axis": 1, "keepdims": 0, "select_last_index": 0}
    defaults = {"axis": 0, "keepdims": 1, "select_last_index": 0}
    return not value.windows and all(attributes.get(name, defaults[name]) == wanted[name] for name in wanted)


def _pooling(
    channels: int | None, size: Pair, window: Pair, grid: Pair, splits: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape between, and the permutation, of a pooling of maps that are `size` when they are split
    (`export.lower`: axes batch, grid, channels, height and window, and those of size 1 are left out)."""
    batch, rows, columns, channel, height, window_rows, width, window_columns = range(8)
    extents = {batch: -1, height: size[0], width: size[1]}
    if channels is not None:
        extents[channel] = channels
    pooled = {rows: grid[0], columns: grid[1], window_rows: window[0], window_columns: window[1]}
    extents |= {axis: count for axis, count in pooled.items() if count > 1}
    unsplit = [axis for axis in range(8) if axis in extents]
    split = (batch, window_rows, rows, window_columns, columns, channel, height, width)
    parted = [axis for axis in split if axis in extents]
    before, after = (unsplit, parted) if splits else (parted, unsplit)
    return tuple(extents[axis] for axis in before), tuple(before.index(axis) for axis in after)
