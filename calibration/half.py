"""The float16 form of an exported graph: what is stored and computed in 32 bits is stored and computed in 16.

TensorRT's networks are strongly typed, so a plan is as precise as its graph, layer by layer. Frames and labels stay
uint8, logits float32; the features between stem and trunk become float16, which halves what is moved.

Frames are normalised in float32 and rounded once, behind that. In float16 the mean itself is off by up to 0.03 of 255;
on the shipped network (64x128, 8 images of streets, logits up to 19) the logits were then off by 3.9e-3 (root mean
square) instead of 2.6e-3, and 0.038 % of the labels differed from float32's instead of 0.024 %.

A convolution that stays float32 takes what follows along, up to its ReLU: alone between two casts it was computed in
float16 all the same, with its weights rounded, by TensorRT-RTX 1.7. A value that stays float32 takes along what makes,
moves and reads it; an int8 convolution then dequantises to float32, and is an int8 one still.
"""

from collections.abc import Collection, Iterable

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from export.ends import LOGITS
from splitmerge.errors import InputError

__all__ = ["CARRYING", "LARGEST", "carried", "half_graph", "normalising"]

LARGEST = float(np.finfo(np.float16).max)
"""65504, the largest float16; what is larger becomes infinite."""

_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
_ENDINGS = {_FLOAT: "float", _HALF: "half"}
_ARITHMETIC = ("Add", "Div", "Mul", "Sub")
CARRYING = (
    "AveragePool", "Concat", "DequantizeLinear", "Expand", "Flatten", "Gather", "GlobalAveragePool", "GlobalMaxPool",
    "Identity", "MaxPool", "Pad", "QuantizeLinear", "Relu", "Reshape", "Resize", "Slice", "Split", "Squeeze",
    "Transpose", "Unsqueeze",
)  # fmt: skip
"""Operators that give nothing larger than they read, but may give as much."""

_FOLLOWERS = ("Add", "ArgMax", "Relu", "Reshape", "Transpose")


def half_graph(model: onnx.ModelProto, keep: Collection[str] = (), wide: Collection[str] = ()) -> onnx.ModelProto:
    """A float16 copy of an exported graph. The convolutions named in `keep` stay float32, with casts round them, and so
    do the values named in `wide`, wherever they are moved; names in it that the graph lacks are passed over.

    Weights are rounded once, to nearest. Raises InputError for weights that float16 cannot hold, and for names in
    `keep` that are no convolutions of the graph.
    """
    converted = ir.from_proto(model)
    common.ShapeInferencePass()(converted)
    graph = converted.graph
    convolutions = {node.name or "": node for node in graph if node.op_type == "Conv"}
    missing = sorted(set(keep) - set(convolutions))
    if missing:
        raise InputError(f"The graph {graph.name} has no convolution {missing[0]!r} that could stay in float32.")
    values = _carried(graph, wide)
    kept = _kept([convolutions[name] for name in keep], values)
    _Halving(converted, {*kept, *_normalising(graph)}, values).run()
    common.ShapeInferencePass(strict_mode=True)(converted)
    common.CheckerPass(full_check=True)(converted)
    return ir.to_proto(converted)


def carried(models: Iterable[onnx.ModelProto], names: Collection[str]) -> set[str]:
    """`names` and those of all values that these are moved to, also across a cut: `models` are stem, trunk, model."""
    graphs = [ir.from_proto(model).graph for model in models]
    found, before = set(names), set[str]()
    while found != before:
        before = set(found)
        for graph in graphs:
            found |= {value.name or "" for value in _carried(graph, found)}
    return found


def normalising(model: onnx.ModelProto) -> set[str]:
    """The values in front of the convolutions that stay float32 always."""
    return {value.name or "" for node in _normalising(ir.from_proto(model).graph) for value in node.outputs}


class _Halving:
    """One conversion. A value is float16 if what computes it can give that, and is cast where a reader needs another.

    The nodes in `kept` compute in float32; the graph's inputs in `wide` are float32.
    """

    def __init__(self, model: ir.Model, kept: Collection[ir.Node], wide: Collection[ir.Value]) -> None:
        self._graph, self._kept, self._wide = model.graph, kept, wide
        self._opset = model.opset_imports[""]
        self._floats = {value for value in self._values() if value.dtype == _FLOAT}
        self._others: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        graph = self._graph
        weights = {value for value in self._floats if value.const_value is not None}
        for value in self._floats - weights:
            if value.is_graph_input() and value not in self._wide:
                value.dtype = _HALF
        for node in list(graph):
            for index, source in enumerate(node.inputs):
                if source is not None and source in self._floats:
                    node.replace_input_with(index, self._as(source, self._reads(node, index), node))
            for index, output in enumerate(node.outputs):
                if output in self._floats:
                    self._compute(node, index, output)
        for value in weights:
            if not value.uses():
                graph.initializers.pop(value.name or "", None)
        for index, output in enumerate(graph.outputs):
            if output.dtype == _HALF and output.name == LOGITS:
                self._keep_logits(index, output)

    def _values(self) -> list[ir.Value]:
        made = [value for node in self._graph for value in node.outputs]
        return [*self._graph.inputs, *self._graph.initializers.values(), *made]

    def _reads(self, node: ir.Node, index: int) -> ir.DataType:
        """The type that a node shall read a float input in."""
        formal = self._schema(node).inputs
        return self._type(node, formal[min(index, len(formal) - 1)])  # the last one may be variadic

    def _compute(self, node: ir.Node, index: int, value: ir.Value) -> None:
        formal = self._schema(node).outputs
        value.dtype = self._type(node, formal[min(index, len(formal) - 1)])
        if value.dtype == _HALF and node.op_type == "Cast":
            node.attributes.add(ir.AttrInt64("to", _HALF.value))

    def _schema(self, node: ir.Node) -> onnx.defs.OpSchema:
        if node.domain or any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
            raise InputError(f"{node.name} ({node.op_type}) is no operator that can be turned into float16.")
        return onnx.defs.get_schema(node.op_type, self._opset)

    def _type(self, node: ir.Node, formal: onnx.defs.OpSchema.FormalParameter) -> ir.DataType:
        return _HALF if "tensor(float16)" in formal.types and node not in self._kept else _FLOAT

    def _as(self, value: ir.Value, dtype: ir.DataType, reader: ir.Node) -> ir.Value:
        """`value` in the type asked for: itself, or its rounded weights, or a cast in front of `reader`."""
        if value.dtype == dtype:
            return value
        if (value, dtype) not in self._others:
            name = f"{value.name}.{_ENDINGS[dtype]}"
            if value.const_value is not None:
                other = ir.val(name, const_value=ir.tensor(_rounded(value), name=name))
                self._graph.register_initializer(other)
            else:
                cast = ir.node(
                    "Cast", [value], {"to": dtype.value}, outputs=[ir.val(name, dtype, value.shape)], name=name
                )
                self._graph.insert_before(reader, cast)
                other = cast.outputs[0]
            self._others[value, dtype] = other
        return self._others[value, dtype]

    def _keep_logits(self, index: int, value: ir.Value) -> None:
        value.name = f"{LOGITS}.half"
        cast = ir.node(
            "Cast", [value], {"to": _FLOAT.value}, outputs=[ir.val(LOGITS, _FLOAT, value.shape)], name=LOGITS
        )
        self._graph.append(cast)
        self._graph.outputs[index] = cast.outputs[0]


def _rounded(value: ir.Value) -> NDArray[np.float16]:
    assert value.const_value is not None
    array = value.const_value.numpy()
    largest = float(np.abs(array).max(initial=0))
    with np.errstate(over="ignore"):
        rounded = array.astype(np.float16)
    if not np.isfinite(rounded).all():
        raise InputError(
            f"{value.name} holds weights up to {largest:.3g} and float16 holds up to {LARGEST:.0f}: keep the layer "
            "that reads it in float32, or train with weight decay."
        )
    return rounded


def _carried(graph: ir.Graph, names: Collection[str]) -> set[ir.Value]:
    values = (*graph.inputs, *(value for node in graph for value in node.outputs))
    found = {value for value in values if value.name in names}
    for node in graph:  # sorted: what a node reads has been looked at
        if node.op_type in CARRYING and found.intersection(value for value in node.inputs if value is not None):
            found.update(node.outputs)
    return found


def _kept(convolutions: Iterable[ir.Node], wide: Collection[ir.Value]) -> set[ir.Node]:
    """What computes in float32: these convolutions and all that makes or reads wide values.

    With a convolution go what follows it up to ReLUs, argmax and other convolutions, and what dequantises for it, with
    all that reads the same: a cast between the two would make a float convolution of an int8 one.
    """
    kept: set[ir.Node] = set()
    found = [*convolutions, *(reader for value in wide for reader in value.consumers())]
    found += [node for value in wide if (node := value.producer()) is not None]
    while found:
        node = found.pop()
        if node in kept:
            continue
        kept.add(node)
        if node.op_type == "Conv":
            found += _followers(node)
            makers = [value.producer() for value in node.inputs if value is not None]
            found += [maker for maker in makers if maker is not None and maker.op_type == "DequantizeLinear"]
        elif node.op_type == "DequantizeLinear":
            found += [reader for reader in node.outputs[0].consumers() if reader.op_type == "Conv"]
    return kept


def _followers(convolution: ir.Node) -> set[ir.Node]:
    """What reads a convolution, up to ReLUs, argmax and other convolutions."""
    followers: set[ir.Node] = set()
    found = [convolution]
    while found:
        for reader in found.pop().outputs[0].consumers():
            if reader.op_type in _FOLLOWERS and reader not in followers:
                followers.add(reader)
                if reader.op_type != "Relu":
                    found.append(reader)
    return followers


def _normalising(graph: ir.Graph) -> list[ir.Node]:
    """The nodes from uint8 frames up to the last arithmetic in front of the convolutions."""
    region: list[ir.Node] = []
    for node in graph:
        sources = [value for value in node.inputs if value is not None and value.const_value is None]
        inside = [value.dtype == ir.DataType.UINT8 or value.producer() in region for value in sources]
        if inside and all(inside) and node.op_type != "Conv":
            region.append(node)
    while region and region[-1].op_type not in _ARITHMETIC:
        region.pop()
    return region
