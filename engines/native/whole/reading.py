"""Read a network from its ONNX graph, or say what in it is not compiled natively. Deployment machines do not need this.

ReLU and sums become part of the step before them.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from engines.native.trunk import Pair
from engines.native.whole.frames import Frames
from engines.native.whole.network import Convolution, Floats, Largest, Network, Resampling, Scale, Size, Step
from engines.native.whole.sides import linear_upsampling, means, windows, windows_along
from splitmerge.errors import EngineError

__all__ = ["read_network"]

_LABEL_TYPES = (onnx.TensorProto.UINT8, onnx.TensorProto.INT32, onnx.TensorProto.INT64)


@dataclass(frozen=True)
class _Between:
    """Logits that are resampled for nothing but their labels."""

    logits: str
    down: Floats
    across: Floats


def read_network(path: Path) -> Network:
    """The network in the ONNX file `path`. Raises EngineError where something in it is no such step, in words."""
    graph = onnx.load(path).graph
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise EngineError(
            f"it takes {len(graph.input)} tensors and gives {len(graph.output)}, not frames and labels alone: export "
            "it without --logits"
        )
    return _Reader(graph).read()


class _Reader:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._constants = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
        self._sizes: dict[str, Size] = {}
        self._joined: dict[str, tuple[str, ...]] = {}
        self._steps: dict[str, Step] = {}  # by result, in order
        self._labels: dict[str, _Between] = {}

    def read(self) -> Network:
        (given,), (wanted,) = self._graph.input, self._graph.output
        batch, *shape = (one.dim_value for one in given.type.tensor_type.shape.dim)
        is_bytes = given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
        if batch or len(shape) != 3 or not all(shape) or not is_bytes:
            raise EngineError(f"its input {given.name} is not any number of uint8 frames of fixed size")
        self._frames = Frames(given.name, Size(shape[2], shape[0], shape[1]), self._constants)
        self._readers = Counter(name for node in self._graph.node for name in node.input)
        self._readers.update([wanted.name])
        for node in self._graph.node:
            try:
                self._read(node)
            except (KeyError, ValueError, IndexError, TypeError):  # attributes or inputs that it lacks
                raise _unknown(node) from None
        labels = self._labels.get(wanted.name)
        is_labels = wanted.type.tensor_type.elem_type == onnx.TensorProto.UINT8
        if labels is None or not is_labels:
            raise EngineError(f"its output {wanted.name} is not the labels of all pixels")
        if (len(labels.down), len(labels.across)) != tuple(shape[:2]):
            raise EngineError(f"its labels are of {len(labels.down)}x{len(labels.across)} pixels, not of the frame's")
        first, mean, factors = self._frames.first
        return Network(
            given.name,
            first,
            mean,
            factors,
            self._sizes,
            self._joined,
            tuple(self._steps.values()),
            labels.logits,
            labels.down,
            labels.across,
            wanted.name,
        )

    def _read(self, node: onnx.NodeProto) -> None:
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        name, result = node.input[0] if node.input else "", node.output[0]
        if node.domain or len(node.output) != 1:
            raise _unknown(node)
        if name in self._frames and self._frames.read(node, attributes):
            if self._frames.size is not None:
                self._value(node, self._frames.size)
            return
        known = [one in self._sizes for one in node.input]
        match node.op_type:
            case "Cast" if name in self._labels and attributes["to"] in _LABEL_TYPES:
                self._labels[result] = self._labels[name]
            case "Slice" if name in self._labels:
                self._labels[result] = self._cropped(node, self._labels[name])
            case "Pad" if self._frames.are(name) and self._readers[name] == 1:
                del self._sizes[name]
                self._value(node, self._frames.pad(node, attributes))
            case "MatMul" if known == [True, False]:
                self._multiplied(node, name, node.input[1], right=True)
            case "MatMul" if known == [False, True]:
                self._multiplied(node, node.input[1], name, right=False)
            case "Concat" if all(known) and attributes["axis"] == 1:
                self._beside(node)
            case "Add" if known == [True, True]:
                self._added(node, *node.input)
            case kind if kind in _READERS and known[:1] == [True] and not any(known[1:]):
                _READERS[kind](self, node, name, attributes)
            case _:
                raise _unknown(node)

    def _cropped(self, node: onnx.NodeProto, labels: "_Between") -> "_Between":
        """The first rows and columns of labels: no others are computed."""
        given = [self._constants.get(name) for name in node.input[1:]]
        starts, ends, axes, *steps = ([] if one is None else one.tolist() for one in given)
        if starts != [0, 0] or len(ends) != 2 or min(ends) < 1 or axes != [1, 2] or steps not in ([], [[1, 1]]):
            raise _unknown(node)
        return _Between(labels.logits, labels.down[: ends[0]], labels.across[: ends[1]])

    def _value(self, node: onnx.NodeProto, size: Size, step: Step | None = None) -> None:
        self._sizes[node.output[0]] = size
        if step is not None:
            self._steps[node.output[0]] = step

    def _convolved(self, node: onnx.NodeProto, value: str, attributes: Mapping[str, Any]) -> None:
        weights, *more = (self._constants.get(name) for name in node.input[1:])
        size = self._sizes[value]
        if weights is None or weights.dtype != np.float32 or any(one is None for one in more):
            raise EngineError(f"its convolution {node.name} has no constant weights of float32")
        if weights.ndim != 4 or weights.shape[1] != size.channels or attributes.get("group", 1) != 1:
            raise EngineError(f"its convolution {node.name} is not of height and width and of all channels")
        out, _, *taps = weights.shape
        stride, rate, before, sides = self._windows(node, size, (taps[0], taps[1]), attributes)
        bias = more[0] if more else np.zeros(out, np.float32)
        assert bias is not None
        step = Convolution(value, node.output[0], weights, bias, stride, rate, before)
        self._value(node, Size(out, *sides), step)

    def _windows(
        self, node: onnx.NodeProto, size: Size, taps: Pair, attributes: Mapping[str, Any]
    ) -> tuple[Pair, Pair, Pair, Pair]:
        """Strides, rates, what is before the first pixel, and the size that a convolution or a pooling gives."""
        given: dict[str, Any] = {
            "strides": [1, 1],
            "dilations": [1, 1],
            "pads": [0] * 4,
            "auto_pad": b"NOTSET",
            "ceil_mode": 0,
        }
        given |= dict(attributes)
        if given["auto_pad"] not in (b"NOTSET", b"") or given["ceil_mode"]:
            raise EngineError(f"its node {node.name} ({node.op_type}) pads by itself")
        strides, rates, pads = (tuple(given[name]) for name in ("strides", "dilations", "pads"))
        down, across = (
            windows_along(length, taps[side], strides[side], rates[side], (pads[side], pads[side + 2]))
            for side, length in enumerate((size.height, size.width))
        )
        if down < 1 or across < 1:
            raise EngineError(f"its node {node.name} ({node.op_type}) gives no pixel")
        return (strides[0], strides[1]), (rates[0], rates[1]), (pads[0], pads[1]), (down, across)

    def _pooled(self, node: onnx.NodeProto, value: str, attributes: Mapping[str, Any]) -> None:
        size, taps = self._sizes[value], tuple(attributes["kernel_shape"])
        stride, rate, before, sides = self._windows(node, size, taps, attributes)
        counts_outside = attributes.get("count_include_pad", 0) and any(attributes.get("pads", ()))
        if rate != (1, 1) or counts_outside:
            raise EngineError(f"its node {node.name} ({node.op_type}) has taps apart, or counts what lies outside")
        step: Step
        if node.op_type == "MaxPool":
            step = Largest(value, node.output[0], taps, stride, before)
        else:
            down, across = (
                means(length, windows(length, count, tap, apart, first))
                for length, count, tap, apart, first in zip(
                    (size.height, size.width), sides, taps, stride, before, strict=True
                )
            )
            step = Resampling(value, node.output[0], down, across)
        self._value(node, Size(size.channels, *sides), step)

    def _averaged(self, node: onnx.NodeProto, value: str, attributes: Mapping[str, Any]) -> None:
        """The mean of all pixels: along the height, and then of one row."""
        axes = self._constants.get(node.input[1]) if len(node.input) > 1 else None
        wanted = axes is not None and sorted(axis % 4 for axis in axes.tolist()) == [2, 3]
        if not wanted or not attributes.get("keepdims", 1):
            raise _unknown(node)
        size, row = self._sizes[value], f"{node.output[0]} of each column"
        down, across = (np.full((1, length), 1 / length, np.float32) for length in (size.height, size.width))
        self._sizes[row] = Size(size.channels, 1, size.width)
        self._steps[row] = Resampling(value, row, down, np.eye(size.width, dtype=np.float32))
        step = Resampling(row, node.output[0], np.ones((1, 1), np.float32), across)
        self._value(node, Size(size.channels, 1, 1), step)

    def _resized(self, node: onnx.NodeProto, value: str, attributes: Mapping[str, Any]) -> None:
        scales = self._constants.get(node.input[2]) if len(node.input) == 3 else None
        down, across = linear_upsampling(node.name, self._sizes[value], scales, attributes)
        size = Size(self._sizes[value].channels, len(down), len(across))
        self._value(node, size, Resampling(value, node.output[0], down, across))

    def _multiplied(self, node: onnx.NodeProto, value: str, name: str, right: bool) -> None:
        """A map times a matrix, along its height or its width."""
        matrix, size = self._constants.get(name), self._sizes[value]
        length = size.width if right else size.height
        if (
            matrix is None
            or matrix.dtype != np.float32
            or matrix.ndim != 2
            or matrix.shape[0 if right else 1] != length
        ):
            raise _unknown(node)
        down, across = (np.eye(side, dtype=np.float32) for side in (size.height, size.width))
        down, across = (down, np.ascontiguousarray(matrix.T)) if right else (matrix, across)
        result = Size(size.channels, len(down), len(across))
        self._value(node, result, Resampling(value, node.output[0], down, across))

    def _scaled(self, node: onnx.NodeProto, value: str, attributes: Mapping[str, Any]) -> None:
        arrays = [self._constants.get(name) for name in node.input[1:]]
        if len(arrays) != 4 or any(one is None for one in arrays) or attributes.get("training_mode", 0):
            raise _unknown(node)
        weight, bias, mean, variance = (np.asarray(one, np.float64) for one in arrays)
        factors = weight / np.sqrt(variance + attributes.get("epsilon", 1e-5))
        offsets = bias - mean * factors
        step = Scale(value, node.output[0], factors.astype(np.float32), offsets.astype(np.float32))
        self._value(node, self._sizes[value], step)

    def _beside(self, node: onnx.NodeProto) -> None:
        first, *_ = sizes = [self._sizes[one] for one in node.input]
        if any((one.height, one.width) != (first.height, first.width) for one in sizes):
            raise EngineError(f"its node {node.name} (Concat) joins maps of several sizes")
        self._value(node, Size(sum(one.channels for one in sizes), first.height, first.width))
        self._joined[node.output[0]] = tuple(node.input)

    def _rectified(self, node: onnx.NodeProto, value: str, _: Mapping[str, Any]) -> None:
        step = self._steps.get(value)
        if step is None or self._readers[value] != 1 or isinstance(step, Largest):
            raise EngineError(f"its node {node.name} (Relu) does not follow a step of its own")
        self._extended(node, value, relu=True)

    def _added(self, node: onnx.NodeProto, one: str, other: str) -> None:
        if self._sizes[one] != self._sizes[other] or one == other:
            raise EngineError(f"its node {node.name} (Add) adds values that are not alike")
        for value, shortcut in ((one, other), (other, one)):
            step = self._steps.get(value)
            open_ = isinstance(step, Convolution | Resampling) and step.added is None and not step.relu
            if open_ and self._readers[value] == 1:
                return self._extended(node, value, added=shortcut)
        raise EngineError(f"its node {node.name} (Add) does not follow a convolution")

    def _extended(self, node: onnx.NodeProto, value: str, **more: Any) -> None:
        """The step before the node does what the node does, in its place."""
        step, size = self._steps.pop(value), self._sizes.pop(value)
        self._value(node, size, replace(step, result=node.output[0], **more))

    def _labelled(self, node: onnx.NodeProto, value: str, attributes: Mapping[str, Any]) -> None:
        """Labels, of what lies between the logits' pixels where they are upsampled for nothing else."""
        wanted = {"axis": 1, "keepdims": 0, "select_last_index": 0}
        defaults = {"axis": 0, "keepdims": 1, "select_last_index": 0}
        if self._labels or any(attributes.get(name, defaults[name]) != wanted[name] for name in wanted):
            raise _unknown(node)
        step, size = self._steps.get(value), self._sizes[value]
        down, across = (np.eye(side, dtype=np.float32) for side in (size.height, size.width))
        logits = value
        if isinstance(step, Resampling) and self._readers[value] == 1 and step.added is None and not step.relu:
            del self._steps[value], self._sizes[value]
            logits, down, across = step.source, step.down, step.across
        self._labels[node.output[0]] = _Between(logits, down, across)


_READERS: Mapping[str, Callable[[_Reader, onnx.NodeProto, str, Mapping[str, Any]], None]] = {
    "Conv": _Reader._convolved,
    "Relu": _Reader._rectified,
    "BatchNormalization": _Reader._scaled,
    "MaxPool": _Reader._pooled,
    "AveragePool": _Reader._pooled,
    "ReduceMean": _Reader._averaged,
    "Resize": _Reader._resized,
    "ArgMax": _Reader._labelled,
}
"""What reads a node of one computed value and constants."""


def _unknown(node: onnx.NodeProto) -> EngineError:
    return EngineError(f"its node {node.name} ({node.op_type}) is none that is compiled natively")
