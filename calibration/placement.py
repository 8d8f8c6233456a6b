"""Where an exported graph becomes int8: quantise and dequantise nodes (Q/DQ) as TensorRT wants them.

    x -> Q -> reshape, transpose, reshape -> DQ -> Conv <- DQ <- int8 weights

TensorRT fuses a convolution with the DQs in front of it and computes it in int8; everything else it takes as written.
So the inputs of convolutions are quantised and never their outputs, and nothing stands between a convolution and its
ReLU. Of a residual sum only the shortcut is quantised, because the other side never leaves the kernel of the
convolution that computes it. One Q serves all readers of a tensor. Reshapes, transposes and max pooling give the same
result on int8, so Q goes in front of them wherever all that they feed wants int8, and split and merge move a byte a
number. Scales are symmetric, zero points 0, biases stay float.
"""

from collections.abc import Collection, Mapping
from math import isfinite

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from calibration.half import half_graph
from calibration.quantise_uses import Use, chosen, int8_uses, is_move, root, source_of
from calibration.weights import LEVELS, quantised_weight, scales_for, weight_scales
from export.nodes import constant, insert_after_value, numpy_of, only_reader
from splitmerge.errors import InputError

__all__ = ["RESTS", "convolutions", "quantised_graph", "quantised_tensors"]

RESTS = ("fp16", "fp32")
"""What the rest of a quantised graph may be."""

_OPSET = 19  # the first in which scales may be float16
_INT8 = ir.DataType.INT8


def convolutions(model: onnx.ModelProto) -> list[str]:
    """The convolutions that can be quantised, in the graph's order."""
    return [node.name or "" for node in chosen(ir.from_proto(model).graph, None)]


def quantised_tensors(
    model: onnx.ModelProto, layers: Collection[str] | None = None, features: Collection[str] = ()
) -> list[str]:
    """The float tensors whose thresholds `quantised_graph` needs, in the order of their use.

    A tensor that split or merge have moved goes by the name it had before: the numbers are the same.
    """
    graph = ir.from_proto(model).graph
    values = [source_of(*use) for use in int8_uses(graph, chosen(graph, layers))] + _ends(graph, features)
    return list(dict.fromkeys(root(value).name or "" for value in values))


def quantised_graph(
    model: onnx.ModelProto,
    thresholds: Mapping[str, float],
    layers: Collection[str] | None = None,
    rest: str = "fp16",
    keep: Collection[str] = (),
    features: Collection[str] = (),
    wide: Collection[str] = (),
) -> onnx.ModelProto:
    """A copy of an exported float32 graph that computes the convolutions `layers` (by default all) in int8.

    `thresholds` has for each of `quantised_tensors` the largest absolute value that int8 shall hold. The `rest` is
    "fp16" or "fp32"; with fp16 the convolutions in `keep` stay float32, and so do the values in `wide`: an int8
    convolution that makes or reads one is int8 all the same and gives float32. The graph's inputs and outputs named in
    `features` are int8 themselves, in steps of `scales_for(thresholds[name])`: name them for both sides of a cut.

    Raises InputError for thresholds that are missing or cannot be, layers that the graph lacks, a graph that is
    quantised already, or an old opset.
    """
    _check(model, rest, keep, layers)
    copy = ir.from_proto(model)
    common.ShapeInferencePass()(copy)
    _Placement(copy.graph, thresholds, chosen(copy.graph, layers), features).run()
    if rest == "fp16":
        return half_graph(ir.to_proto(copy), keep, wide)
    common.ShapeInferencePass(strict_mode=True)(copy)
    common.CheckerPass(full_check=True)(copy)
    return ir.to_proto(copy)


class _Placement:
    """One quantisation of a graph, in place."""

    def __init__(
        self, graph: ir.Graph, thresholds: Mapping[str, float], layers: list[ir.Node], features: Collection[str]
    ) -> None:
        self._graph, self._thresholds, self._layers = graph, thresholds, layers
        self._ends = _ends(graph, features)
        self._uses = int8_uses(graph, layers)
        self._wanted = set(self._uses)
        self._commuting = {node for node in graph if _commutes(node)}
        self._scales: dict[str, ir.Value] = {}
        self._zero = _scalar(graph, "int8.zero", np.int8(0))

    def run(self) -> None:
        values = dict.fromkeys([*self._ends, *(source_of(*use) for use in self._uses)])
        sources = {self._earliest(value): root(value) for value in values}
        for end in self._ends:
            self._check_both_names(end)
        for value, named in sources.items():
            self._quantise(value, self._scale(named))
        for layer in self._layers:
            self._quantise_weight(layer)
        for weight in list(self._graph.initializers.values()):
            if not weight.uses() and not weight.is_graph_output():
                del self._graph.initializers[weight.name or ""]

    def _earliest(self, value: ir.Value) -> ir.Value:
        """What to quantise so that `value` comes as int8: the tensor before as many moves as all readers agree to."""
        while (node := value.producer()) is not None and node in self._commuting and self._is_int8(value):
            value = source_of(node)
        return value

    def _is_int8(self, value: ir.Value) -> bool:
        """Whether no reader of a tensor needs it as float."""
        if value.is_graph_output() and value not in self._ends:
            return False
        return all((use.node, use.idx) in self._wanted or self._carries(*use) for use in value.uses())

    def _carries(self, node: ir.Node, index: int) -> bool:
        return index == 0 and node in self._commuting and self._is_int8(node.outputs[0])

    def _quantise(self, value: ir.Value, scale: ir.Value) -> None:
        name, uses = value.name or "", [(use.node, use.idx) for use in value.uses()]
        if value.is_graph_input() and value in self._ends:
            value.dtype = _INT8
            self._carry(value, name, uses, scale, all_read=True)
            return
        quantised = ir.val(f"{name}.int8", _INT8, value.shape)
        node = ir.node("QuantizeLinear", [value, scale, self._zero], outputs=[quantised], name=f"{name}.quantise")
        insert_after_value(self._graph, value, [node])
        if value in self._ends:
            value.name, quantised.name = f"{name}.float", name
            self._graph.outputs[self._graph.outputs.index(value)] = quantised
        self._carry(quantised, name, uses, scale)

    def _carry(self, quantised: ir.Value, name: str, uses: list[Use], scale: ir.Value, all_read: bool = False) -> None:
        """Let `uses` of the float tensor `name` have its int8 form: dequantised, or as it is to be moved."""
        carried = [use for use in uses if self._carries(*use)]
        readers = [use for use in uses if use not in carried and (all_read or use in self._wanted)]
        if readers:
            real = ir.val(f"{name}.dequantised", ir.DataType.FLOAT, quantised.shape)
            node = ir.node(
                "DequantizeLinear", [quantised, scale, self._zero], outputs=[real], name=f"{name}.dequantise"
            )
            insert_after_value(self._graph, quantised, [node])
            for reader, index in readers:
                reader.replace_input_with(index, real)
        for move, index in carried:
            moved = move.outputs[0]
            following = [(use.node, use.idx) for use in moved.uses()]
            move.replace_input_with(index, quantised)
            moved.dtype = _INT8
            self._carry(moved, moved.name or "", following, scale)

    def _quantise_weight(self, layer: ir.Node) -> None:
        weight = source_of(layer, 1)
        name = f"{weight.name}.int8"
        if name not in self._graph.initializers:
            array = numpy_of(weight)
            scales = weight_scales(array)
            constant(self._graph, name, quantised_weight(array, scales))
            constant(self._graph, f"{name}.scale", scales)
        stored, scale = self._graph.initializers[name], self._graph.initializers[f"{name}.scale"]
        named = f"{layer.outputs[0].name}.weight"
        real = ir.val(f"{named}.dequantised", ir.DataType.FLOAT, weight.shape)
        node = ir.node("DequantizeLinear", [stored, scale], {"axis": 0}, outputs=[real], name=f"{named}.dequantise")
        self._graph.insert_before(layer, node)
        layer.replace_input_with(1, real)

    def _scale(self, value: ir.Value) -> ir.Value:
        name = value.name or ""
        if name not in self._scales:
            scale = np.float32(scales_for(_threshold(self._thresholds, name)))
            self._scales[name] = _scalar(self._graph, f"{name}.int8.scale", scale)
        return self._scales[name]

    def _check_both_names(self, end: ir.Value) -> None:
        """The stem quantises before the split and knows the threshold by that name, the trunk by the features'."""
        names = [name for name in (root(end).name or "", end.name or "") if name in self._thresholds]
        given = [self._thresholds[name] for name in names]
        if len(set(given)) > 1:
            raise InputError(
                f"{' and '.join(names)} are the same numbers and have the thresholds {given[0]:g} and {given[1]:g}: "
                "give both one, or stem and trunk disagree on what a step of int8 is."
            )


def _scalar(graph: ir.Graph, name: str, number: np.generic) -> ir.Value:
    """A constant of no dimension. With a dimension of 1 TensorRT-RTX 1.7 computes every convolution as float."""
    value = ir.val(name, const_value=ir.tensor(np.array(number), name=name))
    graph.register_initializer(value)
    return value


def _commutes(node: ir.Node) -> bool:
    """Whether a node gives the same on int8; max pooling does if nothing else reads what it pools."""
    if node.op_type == "MaxPool" and not node.domain:
        return len(node.outputs) == 1 and only_reader(source_of(node)) is node
    return is_move(node)


def _ends(graph: ir.Graph, names: Collection[str]) -> list[ir.Value]:
    ends = (*graph.inputs, *graph.outputs)
    found = [value for value in ends if value.name in names and value.dtype == ir.DataType.FLOAT]
    if len(found) != len(set(names)):
        missing = sorted(set(names) - {value.name for value in found})
        raise InputError(f"The graph {graph.name} has no float32 input or output {missing[0]!r} that could be int8.")
    return found


def _threshold(thresholds: Mapping[str, float], name: str) -> float:
    if name not in thresholds:
        raise InputError(f"Calibration has no threshold for {name}, which is to be int8: calibrate on this very graph.")
    threshold = float(thresholds[name])
    if threshold == 0:
        raise InputError(
            f"{name} was zero in all images of the calibration, so nothing is known of its range: calibrate with other "
            "images, or leave the layers that read it out of int8."
        )
    if not (isfinite(threshold) and threshold > 0 and np.isfinite(scales_for(threshold))):
        raise InputError(
            f"The threshold of {name} is {threshold:g} where a positive number is needed that float16 holds in "
            f"{LEVELS} steps: look for NaN and infinity in the network's activations."
        )
    return threshold


def _check(model: onnx.ModelProto, rest: str, keep: Collection[str], layers: Collection[str] | None) -> None:
    if rest not in RESTS:
        raise InputError(f"The rest of a quantised graph cannot be {rest!r}: choose one of {', '.join(RESTS)}.")
    versions = {opset.domain: opset.version for opset in model.opset_import}
    if versions.get("", 0) < _OPSET:
        raise InputError(
            f"The graph {model.graph.name} is of opset {versions.get('', 0)} and int8 beside float16 needs {_OPSET} or "
            "later: export the network again."
        )
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise InputError(f"The graph {model.graph.name} is quantised already: give the package's fp32 graph.")
    both = sorted(set(keep) & set(convolutions(model) if layers is None else layers))
    if both and rest == "fp16":
        raise InputError(f"{both[0]} cannot be kept in float32 and be int8: leave it out of the int8 layers.")
