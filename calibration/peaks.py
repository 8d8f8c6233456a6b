"""How large the values inside a network become: float16 ends at 65504, and what lies beyond becomes infinite.

Labels do not show that on a CPU: ONNX Runtime keeps float16 values in float32 between many operators.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

__all__ = ["largest", "watched", "with_extremes"]

_GROW = ("Add", "Conv")
_SUFFIXES = (".largest", ".smallest")


def watched(half: onnx.ModelProto) -> list[str]:
    """The values that a float16 graph stores in float16, among those that can be larger than what they are made of."""
    typed = {value.name: value.type.tensor_type.elem_type for value in half.graph.value_info}
    typed |= {value.name: value.type.tensor_type.elem_type for value in half.graph.output}
    casts = {node.input[0]: node.output[0] for node in half.graph.node if node.op_type == "Cast"}
    grown = [node.output[0] for node in half.graph.node if node.op_type in _GROW]
    return [
        name
        for name in grown
        if typed.get(name) == TensorProto.FLOAT16 or typed.get(casts.get(name, "")) == TensorProto.FLOAT16
    ]


def with_extremes(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy of a float32 graph that also returns the largest and the smallest element of the values named."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for name in names:
        for kind, suffix in zip(("ReduceMax", "ReduceMin"), _SUFFIXES, strict=True):
            output = name + suffix
            copy.graph.node.append(helper.make_node(kind, [name], [output], name=output, keepdims=0))
            copy.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
    return copy


def largest(outputs: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]) -> dict[str, float]:
    """The largest magnitude of each value, from one run's outputs of a graph with extremes."""
    peaks: dict[str, float] = {}
    for output, value in outputs.items():
        for suffix in _SUFFIXES:
            if output.endswith(suffix):
                name = output.removesuffix(suffix)
                peaks[name] = max(peaks.get(name, 0.0), abs(float(value)))
    return peaks
