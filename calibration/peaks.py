"""How large and how small the values inside a network become: beyond 65504 float16 has infinity, below 2**-25 zero.

Labels do not show that on a CPU: ONNX Runtime keeps float16 values in float32 between many operators.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from calibration.half import CARRYING, LARGEST, normalising
from splitmerge.errors import InputError

__all__ = ["HEADROOM", "Extent", "extents_of", "outside_float16", "unfit_weights", "watched", "with_extents"]

HEADROOM = 2.0
"""What was seen may be this many times as large in other frames: the largest value of a tensor was up to 1.8 times too
low with one image, 1.5 times with four and 1.3 times with sixteen (min-max in the table of calibration/images)."""

SMALLEST_NORMAL, FLUSHED = 2.0**-14, 2.0**-25
"""float16 has fewer bits for values below the first, which are subnormal, and rounds those up to the second to 0."""

_BOUNDED = ("Sigmoid", "Softmax", "Tanh")
_COUNTS = {"largest": "ReduceMax", "total": "ReduceSum", "zero": "Equal", "flushed": "LessOrEqual", "small": "Less"}
_LIMITS = {"zero": 0.0, "flushed": FLUSHED, "small": SMALLEST_NORMAL}


@dataclass(frozen=True)
class Extent:
    """What a tensor was seen to hold: the largest |x|, the sum of all |x|, how many values are not 0, how many of these
    float16 holds as `subnormal` numbers and how many it holds as 0.
    """

    largest: float = 0.0
    total: float = 0.0
    nonzero: int = 0
    subnormal: int = 0
    flushed: int = 0

    def __add__(self, other: "Extent") -> "Extent":
        return Extent(
            max(self.largest, other.largest),
            self.total + other.total,
            self.nonzero + other.nonzero,
            self.subnormal + other.subnormal,
            self.flushed + other.flushed,
        )

    @property
    def too_small(self) -> bool:
        """Whether the mean |x|, zeros left out, is below the normal numbers. Small values beside large ones lose
        nothing that rounding the large ones does not lose, too.
        """
        return self.total < SMALLEST_NORMAL * self.nonzero

    @property
    def lost(self) -> float:
        """The share of the values, 0..1, that float16 holds with fewer bits or none."""
        return (self.subnormal + self.flushed) / max(1, self.nonzero)


def outside_float16(extents: Mapping[str, Extent]) -> dict[str, str]:
    """The values that shall stay float32, and why."""
    found = {}
    for name, extent in extents.items():
        if extent.largest * HEADROOM > LARGEST:
            found[name] = f"values up to {extent.largest:.3g}"
        elif extent.too_small:
            found[name] = f"{extent.lost:.0%} of the values below {SMALLEST_NORMAL:.2g}"
    return found


def unfit_weights(model: onnx.ModelProto) -> dict[str, str]:
    """The convolutions whose weights or biases float16 should not hold, and why; NaN and infinity are passed over."""
    arrays = {weight.name: weight for weight in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        for index, name in enumerate(node.input[1:] if node.op_type == "Conv" else ()):
            size = np.abs(numpy_helper.to_array(arrays[name])) if name in arrays else np.zeros(0, np.float32)
            largest, filled = float(size.max(initial=0)), size[size > 0]
            if size.dtype == np.float32 and LARGEST < largest < inf:
                found[node.name] = f"weights up to {largest:.3g}"
            elif index == 0 and filled.size and float(filled.mean(dtype=np.float64)) < SMALLEST_NORMAL:
                found[node.name] = f"{(filled < SMALLEST_NORMAL).mean():.0%} of the weights below {SMALLEST_NORMAL:.2g}"
    return found


def watched(model: onnx.ModelProto) -> list[str]:
    """The values of a float32 graph that its float16 form may store in float16, but for those that are others moved."""
    model = onnx.shape_inference.infer_shapes(model)
    values = (*model.graph.value_info, *model.graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    made = [node.output[0] for node in model.graph.node if node.op_type not in (*CARRYING, *_BOUNDED)]
    before = normalising(model)
    return [name for name in made if name in floats and name not in before]


def with_extents(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy of a float32 graph that also returns, for the values named, what `extents_of` reads."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for kind, limit in _LIMITS.items() if names else ():
        graph.initializer.append(numpy_helper.from_array(np.array(limit, np.float32), f"extent.{kind}"))

    def add(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        graph.node.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    for name in names:
        size = add("Abs", [name], f"{name}.size")
        for kind, operator in _COUNTS.items():
            output, summed = f"{name}.extent.{kind}", size
            if kind in _LIMITS:
                below = add(operator, [size, f"extent.{kind}"], f"{output}.is")
                summed, operator = add("Cast", [below], f"{output}.one", to=TensorProto.INT32), "ReduceSum"
            add(operator, [summed], output, keepdims=0)
            dtype = TensorProto.INT32 if kind in _LIMITS else TensorProto.FLOAT
            graph.output.append(helper.make_tensor_value_info(output, dtype, []))
        output = add("Size", [name], f"{name}.extent.values")
        graph.output.append(helper.make_tensor_value_info(output, TensorProto.INT64, []))
    return copy


def extents_of(outputs: Mapping[str, NDArray[Any]], names: Iterable[str]) -> dict[str, Extent]:
    """Of each value, from one run's outputs of a graph with extents. Raises InputError for NaN and infinity."""
    found = {}
    for name in names:
        largest, total, zero, flushed, small, values = (
            float(outputs[f"{name}.extent.{kind}"]) for kind in (*_COUNTS, "values")
        )
        if not (isfinite(total) and isfinite(largest)):  # a maximum passes over NaN, a sum does not
            raise InputError(
                f"The layer {name} gives NaN or infinity in float32 already: check the network's weights, or leave the "
                "image out."
            )
        found[name] = Extent(largest, total, int(values - zero), int(small - flushed), int(flushed - zero))
    return found
