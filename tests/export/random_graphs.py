"""Random graphs of dilated convolutions that compute in whole numbers, so that results can be compared bit for bit.

Weights and inputs are small integers in float32 and values are clipped before they outgrow its mantissa: every order of
summation then gives the same number.
"""

from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx_ir as ir
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx_ir.passes import common

LARGEST = 2**20
"""Values may reach this; float32 holds whole numbers up to 2**24."""

Array = NDArray[np.float32]


@dataclass
class Builder:
    """A graph on `x` float32 `[N,C,H,W]`, an operator at a time. `bounds` has the largest magnitude of each value."""

    channels: int
    height: int
    width: int
    seed: int = 0
    bounds: dict[ir.Value, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.x = ir.val("x", ir.DataType.FLOAT, ["N", self.channels, self.height, self.width])
        self.graph = ir.Graph([self.x], [], nodes=[], opset_imports={"": 19}, name="random")
        self.bounds[self.x] = 2
        self._count = 0

    def node(self, kind: str, inputs: list[ir.Value], bound: int, **attributes: object) -> ir.Value:
        name = f"n{self._count}"
        self._count += 1
        output = ir.val(name, ir.DataType.FLOAT)
        node = ir.node(kind, inputs, attributes, outputs=[output], name=name)  # type: ignore[arg-type]
        self.graph.append(node)
        self.bounds[output] = bound
        self._infer(node)
        return output

    def constant(self, array: Array) -> ir.Value:
        name = f"c{self._count}"
        self._count += 1
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self.graph.register_initializer(value)
        return value

    def integers(self, *shape: int, low: int = -1, high: int = 1) -> Array:
        return self.random.integers(low, high + 1, shape).astype(np.float32)

    def clip(self, value: ir.Value, limit: int = 3) -> ir.Value:
        low, high = self.constant(np.float32(-limit)), self.constant(np.float32(limit))
        return self.node("Clip", [value, low, high], limit)

    def conv(
        self,
        value: ir.Value,
        outputs: int,
        kernel: tuple[int, int],
        rate: tuple[int, int],
        groups: int = 1,
        **pads: object,
    ) -> ir.Value:
        inputs = channels_of(value) // groups
        reached = prod(kernel) * inputs
        if self.bounds[value] * reached + 2 > LARGEST:
            value = self.clip(value)
        weight = self.constant(self.integers(outputs, inputs, *kernel))
        bias = self.constant(self.integers(outputs, low=1, high=2))
        bound = self.bounds[value] * reached + 2
        return self.node("Conv", [value, weight, bias], bound, dilations=rate, group=groups, **pads)

    def model(self, outputs: list[ir.Value]) -> ir.Model:
        for index, value in enumerate(outputs):
            value.name = f"y{index}"
        self.graph.outputs.extend(outputs)
        model = ir.Model(self.graph, ir_version=10)
        common.RemoveUnusedNodesPass()(model)
        common.CheckerPass()(model)
        return model

    def _infer(self, node: ir.Node) -> None:
        """Shapes by ONNX's own inference, one operator at a time."""
        inputs = [ir.val(v.name, v.dtype, v.shape, const_value=v.const_value) for v in node.inputs if v is not None]
        output = ir.val("y", ir.DataType.FLOAT)
        lone = ir.Node("", node.op_type, inputs, list(node.attributes.values()), outputs=[output])
        constants = [value for value in inputs if value.const_value is not None]
        free = [value for value in inputs if value.const_value is None]
        graph = ir.Graph(free, [output], nodes=[lone], initializers=constants, opset_imports={"": 19}, name="one")
        common.ShapeInferencePass(strict_mode=True)(ir.Model(graph, ir_version=10))
        node.outputs[0].shape, node.outputs[0].dtype = output.shape, output.dtype


def channels_of(value: ir.Value) -> int:
    assert value.shape is not None and isinstance(value.shape[1], int)
    return value.shape[1]


def size_of(value: ir.Value) -> tuple[int, int]:
    assert value.shape is not None
    height, width = value.shape[-2:]
    assert isinstance(height, int) and isinstance(width, int)
    return height, width


RATES = st.one_of(
    st.sampled_from([(2, 2), (4, 4), (2, 2), (1, 1), (3, 3), (6, 6)]), st.tuples(st.integers(1, 6), st.integers(1, 6))
)
KERNELS = st.one_of(st.sampled_from([(3, 3), (3, 3), (1, 1)]), st.tuples(st.integers(1, 4), st.integers(1, 4)))
OPERATORS = st.sampled_from(
    [
        "conv",
        "conv",
        "conv",
        "conv",
        "pointwise",
        "pointwise",
        "point conv",
        "join",
        "join",
        "norm",
        "max",
        "strided",
        "slice",
    ]
)


@st.composite
def graphs(draw: st.DrawFn, operators: int = 7) -> ir.Model:
    """Convolutions of random kernels, rates, groups and paddings, with whatever stands between them."""
    build = Builder(
        draw(st.integers(1, 3)), draw(st.integers(5, 19)), draw(st.integers(5, 19)), draw(st.integers(0, 1000))
    )
    values = [build.x]
    for _ in range(draw(st.integers(2, operators))):
        value = draw(st.sampled_from(values[-3:]))
        values.append(_next(draw, build, value, values))
    ends = draw(st.lists(st.sampled_from(values[1:]), min_size=1, max_size=2, unique=True))
    return build.model(list(dict.fromkeys([values[-1], *ends])))


def _next(draw: st.DrawFn, build: Builder, value: ir.Value, values: list[ir.Value]) -> ir.Value:
    bound, channels = build.bounds[value], channels_of(value)
    match draw(OPERATORS):
        case "conv":
            kernel, rate = draw(KERNELS), draw(RATES)
            groups = channels if draw(st.booleans()) else 1
            return build.conv(
                value, groups * draw(st.integers(1, 2)), kernel, rate, groups, **_pads(draw, value, kernel, rate)
            )
        case "point conv":
            return build.conv(value, draw(st.integers(1, 3)), (1, 1), (1, 1))
        case "strided":
            return build.conv(value, 2, (3, 3), draw(RATES), strides=[2, 1], pads=[8, 8, 8, 8])
        case "join":
            return _join(draw, build, value, values)
        case "norm":
            one, low = np.ones(channels, np.float32), build.integers(channels)
            constants = [build.constant(array) for array in (one, build.integers(channels, low=1), low, one)]
            return build.node("BatchNormalization", [value, *constants], bound + 3, epsilon=0.0)
        case "max":
            return build.node("MaxPool", [value], bound, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        case "slice":
            limits = [build.constant(np.array([one])) for one in (channels // 2, channels, 1)]
            return build.node("Slice", [value, *limits], bound)
        case _:
            return _pointwise(draw, build, value)


def _pads(draw: st.DrawFn, value: ir.Value, kernel: tuple[int, int], rate: tuple[int, int]) -> dict[str, object]:
    spread = [(k - 1) * r for k, r in zip(kernel, rate, strict=True)]
    fits = all(size > s for size, s in zip(size_of(value), spread, strict=True))
    kinds = ["same", "same", "same", "odd"] + ["VALID"] * fits
    match kind := draw(st.sampled_from(kinds)):
        case "same":
            return {"pads": [spread[0] // 2, spread[1] // 2, spread[0] - spread[0] // 2, spread[1] - spread[1] // 2]}
        case "odd":
            before = [draw(st.integers(0, s + 2)) for s in spread]
            return {
                "pads": [
                    *before,
                    *(s - b + draw(st.integers(0, 2)) if b <= s else 0 for s, b in zip(spread, before, strict=True)),
                ]
            }
        case _:
            return {"auto_pad": kind}


def _join(draw: st.DrawFn, build: Builder, value: ir.Value, values: list[ir.Value]) -> ir.Value:
    alike = [one for one in values if size_of(one) == size_of(value)]
    other = draw(st.sampled_from(alike))
    bound = build.bounds[value] + build.bounds[other]
    if bound > LARGEST:
        value, other, bound = build.clip(value), build.clip(other), 6
    if channels_of(other) == channels_of(value) and draw(st.booleans()):
        return build.node(draw(st.sampled_from(["Add", "Sub", "Max"])), [value, other], bound)
    return build.node("Concat", [value, other], bound, axis=1)


def _pointwise(draw: st.DrawFn, build: Builder, value: ir.Value) -> ir.Value:
    bound, channels = build.bounds[value], channels_of(value)
    match kind := draw(st.sampled_from(["Relu", "Neg", "bias", "image", "scale", "clip"])):
        case "bias":  # no longer zero where it was
            return build.node("Add", [value, build.constant(build.integers(channels, 1, 1, low=1, high=2))], bound + 2)
        case "image":  # a constant with a height and a width cannot be on split batches
            return build.node("Add", [value, build.constant(build.integers(1, 1, *size_of(value)))], bound + 1)
        case "scale":
            return build.node("Mul", [value, build.constant(build.integers(1, channels, 1, 1))], bound)
        case "clip":
            return build.clip(value)
        case _:
            return build.node(kind, [value], bound)
