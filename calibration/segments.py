"""Runs a graph in segments, one after the other, so that what is looked into need not all be alive at once.

A tensor that is looked at cannot be overwritten while its graph runs. At 1024x2048 those of one split batch of SMP-18
(quarter width) are 830 MiB; cut behind every 64 MiB of them, a segment's are read and given back before the next
begins, and only what later segments need is passed on. Nothing is computed twice.
"""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from splitmerge.errors import EngineError, InputError

__all__ = ["SegmentedGraph"]

Arrays = dict[str, NDArray[Any]]

SEGMENT_BYTES = 64 << 20
"""A segment ends behind the node with which the tensors that are looked at pass this size."""


@dataclass(frozen=True)
class _Segment:
    session: onnxruntime.InferenceSession
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    spent: tuple[str, ...]
    """Values that no later segment reads."""


class SegmentedGraph:
    """A graph that computes one frame or split batch at a time and shows the tensors `taps` on the way.

    `results` are the values that a run returns. What neither needs is not computed. Raises InputError for taps that are
    not float tensors, EngineError where ONNX Runtime refuses the graph.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        taps: Collection[str],
        results: Collection[str] = (),
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.taps, self.results = set(taps), tuple(results)
        self._model = _for_one(model)
        graph = self._model.graph
        self._values = {v.name: v for v in (*graph.input, *graph.output, *graph.value_info)}
        self._weights = {weight.name: weight for weight in graph.initializer}
        for name in sorted(self.taps):
            self._check(name)
        self.segments = self._segments(_needed(graph, self.taps | set(self.results)), segment_bytes)

    def run(self, feeds: Mapping[str, NDArray[Any]], visit: Callable[[str, NDArray[Any]], None]) -> Arrays:
        """Compute from `feeds`, by the names of the inputs; `visit(name, values)` each tap once. Gives the results."""
        alive: Arrays = dict(feeds)
        for name in feeds:
            if name in self.taps:
                visit(name, feeds[name])
        for segment in self.segments:
            made = self._run(segment, {name: alive[name] for name in segment.inputs})
            for name in segment.outputs:
                if name in self.taps:
                    visit(name, made[name])
            alive |= made
            for name in segment.spent:
                del alive[name]
            made.clear()
        return {name: alive[name] for name in self.results}

    def _run(self, segment: _Segment, feeds: Arrays) -> Arrays:
        try:
            values = segment.session.run(list(segment.outputs), feeds)
        except Exception as error:  # its own errors share no base but Exception
            raise EngineError(f"ONNX Runtime could not run the {self._model.graph.name} graph: {error}") from error
        return dict(zip(segment.outputs, values, strict=True))

    def _check(self, name: str) -> None:
        kind = self._values[name].type.tensor_type.elem_type
        if kind not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            word = onnx.TensorProto.DataType.Name(kind).lower()
            raise InputError(f"Tensor {name} is {word}, and ranges are for floating-point tensors: leave it out.")

    def _segments(self, nodes: list[onnx.NodeProto], segment_bytes: int) -> list[_Segment]:
        groups: list[list[onnx.NodeProto]] = [[]]
        size = 0
        for node in nodes:
            if size > segment_bytes:
                groups.append([])
                size = 0
            groups[-1].append(node)
            size += sum(_bytes(self._values[name]) for name in node.output if name in self.taps)
        made = {name: index for index, group in enumerate(groups) for node in group for name in node.output}
        last_read = {n: index for index, group in enumerate(groups) for node in group for n in node.input}
        segments = []
        for index, group in enumerate(groups):
            if not group:
                continue  # taps that are inputs need no computing
            inputs = dict.fromkeys(n for node in group for n in node.input if n and n not in self._weights)
            outside = tuple(n for n in inputs if made.get(n) != index)
            kept = self.taps | set(self.results)
            outputs = [n for node in group for n in node.output if n in kept or last_read.get(n, index) > index]
            gone = (n for n in (*outside, *outputs) if n not in self.results and last_read.get(n, index) <= index)
            segments.append(_Segment(self._session(group, outside, outputs), outside, tuple(outputs), tuple(gone)))
        return segments

    def _session(
        self, nodes: list[onnx.NodeProto], inputs: Collection[str], outputs: Collection[str]
    ) -> onnxruntime.InferenceSession:
        read = dict.fromkeys(name for node in nodes for name in node.input)
        graph = helper.make_graph(
            nodes,
            self._model.graph.name,
            [self._values[name] for name in inputs],
            [self._values[name] for name in outputs],
            [self._weights[name] for name in read if name in self._weights],
        )
        model = helper.make_model(graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version)
        try:
            return onnxruntime.InferenceSession(
                model.SerializeToString(), _options(), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its own errors share no base but Exception
            raise EngineError(f"ONNX Runtime refuses the {self._model.graph.name} graph: {error}") from error


def _options() -> onnxruntime.SessionOptions:
    """As engines for ONNX Runtime have them, but without an arena: each segment's would keep what it ever needed."""
    options = onnxruntime.SessionOptions()
    # The cores that this process may use, where the system tells.
    affinity = getattr(os, "sched_getaffinity", None)
    options.intra_op_num_threads = len(affinity(0)) if affinity else os.cpu_count() or 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _for_one(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose free dimensions are 1, with all shapes inferred anew."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in (*copy.graph.input, *copy.graph.output):
        dims = value.type.tensor_type.shape.dim
        for dim in dims:
            if not dim.HasField("dim_value"):
                dim.dim_value = 1
        if any(value is output for output in copy.graph.output):
            value.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True)


def _needed(graph: onnx.GraphProto, values: Collection[str]) -> list[onnx.NodeProto]:
    """The nodes that `values` depend on, in their order."""
    wanted, nodes = set(values), []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            nodes.append(node)
    return nodes[::-1]


def _bytes(value: onnx.ValueInfoProto) -> int:
    tensor = value.type.tensor_type
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return int(dtype.itemsize * prod(dim.dim_value for dim in tensor.shape.dim))
