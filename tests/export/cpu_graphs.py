"""Random graphs of the operators that export's form for CPUs knows, and of some that it does not.

`run` computes a graph as it is; `tiled` rewrites it for CPUs. Their results differ by rounding alone.
"""

from dataclasses import dataclass, field
from unittest.mock import patch

import numpy as np
import onnx_ir as ir
from export_samples import ort
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx_ir.passes import common

from export.commute import fuse_poolings
from export.cpu import form
from export.layouts import layouts_of
from export.lower import lower_poolings
from export.nodes import DOMAIN, MERGE, SPLIT, Window, size_of, sizes

Array = NDArray[np.float32]


@dataclass
class Graph:
    """A graph on `x` float32 `[N,C,H,W]`, an operator at a time. `layouts` has the windows each value was split by."""

    channels: int
    height: int
    width: int
    seed: int = 0
    layouts: dict[ir.Value, tuple[Window, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.x = ir.val("x", ir.DataType.FLOAT, ["N", self.channels, self.height, self.width])
        self.graph = ir.Graph([self.x], [], nodes=[], opset_imports={"": 19, DOMAIN: 1}, name="random")
        self.layouts[self.x] = ()

    def node(
        self,
        kind: str,
        inputs: list[ir.Value],
        shape: tuple[int | None, ...] | None = None,
        dtype: ir.DataType | None = None,
        domain: str = "",
        **attributes: object,
    ) -> ir.Value:
        """A new node's output, of its first input's shape and type unless others are given."""
        name = f"n{len(self.graph)}"
        shape = sizes(inputs[0]) if shape is None else shape
        output = ir.val(name, dtype or inputs[0].dtype, [None, *shape[1:]])
        self.graph.append(ir.node(kind, inputs, attributes, domain=domain, outputs=[output], name=name))
        self.layouts[output] = next(self.layouts[value] for value in inputs if value in self.layouts)
        return output

    def constant(self, array: NDArray[np.generic]) -> ir.Value:
        name = f"c{len(self.graph.initializers)}"
        value = ir.val(name, const_value=ir.tensor(np.ascontiguousarray(array), name=name))
        self.graph.register_initializer(value)
        return value

    def normal(self, *shape: int) -> Array:
        return self.random.normal(size=shape).astype(np.float32)

    def conv(
        self, value: ir.Value, out: int, size: int = 3, bias: bool = True, stride: int = 1, group: int = 1
    ) -> ir.Value:
        channels, (height, width) = sizes(value)[1] or 0, size_of(value)
        weights = self.normal(out, channels // group, size, size) / np.float32(size * (channels // group) ** 0.5)
        inputs = [value, self.constant(weights)] + ([self.constant(self.normal(out))] if bias else [])
        shape = (None, out, -(-height // stride), -(-width // stride))
        return self.node("Conv", inputs, shape, pads=[size // 2] * 4, strides=[stride] * 2, group=group)

    def relu(self, value: ir.Value) -> ir.Value:
        return self.node("Relu", [value])

    def add(self, one: ir.Value, other: ir.Value) -> ir.Value:
        return self.node("Add", [one, other])

    def maximum(self, value: ir.Value) -> ir.Value:
        return self.node("MaxPool", [value], kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def argmax(self, value: ir.Value) -> ir.Value:
        _, _, height, width = sizes(value)
        return self.node("ArgMax", [value], (None, height, width), ir.DataType.INT64, axis=1, keepdims=0)

    def split(self, value: ir.Value, window: Window = (2, 2)) -> ir.Value:
        *outer, height, width = sizes(value)
        assert height is not None and width is not None
        shape = (*outer, height // window[0], width // window[1])
        output = self.node(SPLIT, [value], shape, domain=DOMAIN, window=window)
        self.layouts[output] = (*self.layouts[value], window)
        return output

    def merge(self, value: ir.Value) -> ir.Value:
        *outer, height, width = sizes(value)
        *rest, window = self.layouts[value]
        assert height is not None and width is not None
        shape = (*outer, height * window[0], width * window[1])
        output = self.node(MERGE, [value], shape, domain=DOMAIN, window=window)
        self.layouts[output] = tuple(rest)
        return output

    def merged(self, value: ir.Value) -> ir.Value:
        while self.layouts[value]:
            value = self.merge(value)
        return value

    def model(self, *outputs: ir.Value) -> ir.Model:
        for index, value in enumerate(outputs):
            value.name = f"y{index}"
        self.graph.outputs.extend(outputs)
        model = ir.Model(self.graph, ir_version=10)
        common.RemoveUnusedNodesPass()(model)
        return model


def run(model: ir.Model, x: Array) -> dict[str, NDArray[np.generic]]:
    """Outputs in ONNX Runtime of a graph whose poolings are nodes still; the graph stays as it is."""
    finished = model.clone()
    fuse_poolings(finished)
    lower_poolings(finished)
    return ort(finished, {"x": x})


def tiled(model: ir.Model, always: bool = True) -> tuple[ir.Model, int]:
    """The graph in the form for CPUs, checked as export does, and how many convolutions are matrix products in it.

    With `always` that is not left to whether it gains.
    """
    part = model.clone()
    layouts = layouts_of(part.graph)
    fuse_poolings(part)
    with patch.object(form, "gains", (lambda *_: True) if always else form.gains):
        count = form.tile_convolutions(part, layouts)
    lower_poolings(part)
    for node in part.graph:
        for value in node.outputs:
            if value not in part.graph.outputs:
                value.shape = None
    common.RemoveUnusedNodesPass()(part)
    common.RemoveUnusedOpsetsPass()(part)
    common.ShapeInferencePass(strict_mode=True)(part)
    common.CheckerPass(full_check=True)(part)
    return part, count


def input_of(model: ir.Model, batch: int = 2) -> Array:
    (x,) = model.graph.inputs
    shape = [size for size in sizes(x) if size is not None]
    return np.random.default_rng(1).normal(size=(batch, *shape)).astype(np.float32)


def check(model: ir.Model, batches: tuple[int, ...] = (2,), always: bool = True) -> tuple[ir.Model, int]:
    """Tiled, the graph gives the same numbers but for rounding, and the same names and types, for so many images."""
    part, count = tiled(model, always)
    for batch in batches:
        x = input_of(model, batch)
        expected, found = run(model, x), ort(part, {"x": x})
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert found[name].dtype == value.dtype and found[name].shape == value.shape
            if value.dtype == np.float32:
                np.testing.assert_allclose(found[name], value, rtol=0, atol=2e-5 * max(1, np.abs(value).max()))
            else:
                assert (found[name] == value).mean() > 0.98  # two logits may be as good as equal
    return part, count


KINDS = st.sampled_from(
    ["block", "block", "block", "conv", "point", "relu", "add", "max", "split", "split", "merge", "rare"]
)
RARE = st.sampled_from(["strided", "group", "clip", "sigmoid", "shift", "cast", "concat"])


@st.composite
def graphs(draw: st.DrawFn, operators: int = 12) -> ir.Model:
    """Values are taken from anywhere, so that they have several readers; some of them are returned, too."""
    build = Graph(
        draw(st.integers(1, 5)),
        draw(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16])),
        draw(st.sampled_from([1, 2, 3, 5, 8, 12, 16, 24, 48])),
        draw(st.integers(0, 1000)),
    )
    values = [build.x]
    for _ in range(draw(st.integers(3, operators))):
        values += _next(draw, build, draw(st.sampled_from(values[-3:])), values)
    ends = draw(st.lists(st.sampled_from(values[1:]), min_size=1, max_size=3, unique=True))
    outputs = [build.merged(value) for value in dict.fromkeys([values[-1], *ends])]
    if draw(st.booleans()):
        outputs.append(build.merged(build.argmax(values[-1])))
    return build.model(*dict.fromkeys(value for value in outputs if value is not build.x))


def _next(draw: st.DrawFn, build: Graph, value: ir.Value, values: list[ir.Value]) -> list[ir.Value]:
    """An operator on a value, or a residual block, between whose two branches somebody may need plain values."""
    if draw(KINDS) != "block":
        return [_operator(draw, build, draw(KINDS), value, values)]
    value = build.relu(value)
    branch = build.conv(value, sizes(value)[1] or 0)
    between = [build.maximum(value)] if draw(st.booleans()) else []
    joined = build.add(*draw(st.permutations([branch, value])))
    return [*between, build.relu(joined) if draw(st.booleans()) else joined]


def _operator(draw: st.DrawFn, build: Graph, kind: str, value: ir.Value, values: list[ir.Value]) -> ir.Value:
    (height, width), channels = size_of(value), sizes(value)[1] or 0
    match draw(RARE) if kind == "rare" else kind:
        case "conv":
            return build.conv(value, draw(st.sampled_from([channels, 3, 6])), bias=draw(st.booleans()))
        case "point":
            return build.conv(value, draw(st.sampled_from([channels, 4])), 1, bias=draw(st.booleans()))
        case "strided":
            return build.conv(value, 4, draw(st.sampled_from([1, 3])), stride=2)
        case "group":
            return build.conv(value, 2 * channels, group=channels)
        case "sigmoid":
            return build.node("Sigmoid", [value])
        case "cast":
            return build.node("Cast", [value], to=ir.DataType.FLOAT.value)
        case "clip":
            limits = [build.constant(np.float32(0)), build.constant(np.float32(draw(st.sampled_from([1, 6]))))]
            return build.node("Clip", [value, *limits])
        case "shift":
            shape = draw(st.sampled_from([(1, channels, 1, 1), (channels, 1, 1), ()]))
            return build.node("Add", [value, build.constant(build.normal(*shape))])
        case "add":
            alike = [v for v in values if (sizes(v), build.layouts[v]) == (sizes(value), build.layouts[value])]
            other = draw(st.sampled_from(alike))
            return build.add(*draw(st.permutations([value, other])))
        case "max":
            return build.maximum(value)
        case "split":
            windows = [w for w in ((2, 2), (2, 1), (1, 2), (3, 2), (4, 4)) if not (height % w[0] or width % w[1])]
            return build.split(value, draw(st.sampled_from(windows))) if windows else build.relu(value)
        case "merge":
            return build.merge(value) if build.layouts[value] else build.relu(value)
        case "concat":
            return build.node("Concat", [value, value], (None, 2 * channels, height, width), axis=1)
        case _:
            return build.relu(value)
