"""Make the shortcuts of residual blocks move and add less.

A shortcut is a 1x1 convolution, often to twice as many channels, and a split. Both treat every pixel by itself, so the
split may come first, while there are fewer channels; and what the convolution adds to all pixels may be added by the
one that the shortcut is summed with, where it costs nothing more.
"""

import numpy as np
import onnx_ir as ir

from export.commute import exchange
from export.cpu.form import is_pointwise_convolution, is_worth_tiling
from export.layouts import layouts_of
from export.nodes import is_constant, is_split, numpy_of, only_reader, sizes
from export.simplify import set_weights

__all__ = ["cheapen_shortcuts"]


def cheapen_shortcuts(model: ir.Model, whole: bool = False) -> None:
    """Change the graph in place; its poolings are nodes, one for each split of the network. `whole` as in `form`."""
    graph = model.graph
    layouts = layouts_of(graph)

    def tiled(node: ir.Node | None) -> bool:
        return node is not None and is_worth_tiling(node, layouts, whole)

    for node in [node for node in graph if is_split(node)]:
        convolution = node.inputs[0].producer() if node.inputs[0] else None
        if convolution is None or not _widens(convolution) or only_reader(convolution.outputs[0]) is not node:
            continue
        if any(map(tiled, _summed_with(node))):
            _split_first(graph, convolution, node)
    for node in [node for node in graph if node.op_type == "Add"]:
        _one_bias(graph, node)


def _summed_with(split: ir.Node) -> list[ir.Node | None]:
    """What makes the other summand, where what is split, perhaps again, is added to something and nothing else.

    Only if that is tiled will the shortcut be. A convolution that is not must stay in front of the split, or no Scan
    over split batches could begin there (`nested`).
    """
    value = split.outputs[0]
    while is_split(reader := only_reader(value)):
        assert reader is not None
        value = reader.outputs[0]
    if reader is None or reader.op_type != "Add":
        return []
    return [other.producer() for other in reader.inputs if other is not None and other is not value]


def _widens(node: ir.Node) -> bool:
    """Whether it is a 1x1 convolution of every pixel to at least as many channels."""
    if not is_pointwise_convolution(node):
        return False
    out, into = numpy_of(node.inputs[1]).shape[:2]
    return bool(out >= into)


def _split_first(graph: ir.Graph, convolution: ir.Node, split: ir.Node) -> None:
    source, wide, narrow = convolution.inputs[0], convolution.outputs[0], split.outputs[0]
    assert source is not None
    exchange(graph, convolution, split)
    wide.shape = narrow.shape
    narrow.shape = ir.Shape([None, sizes(source)[1], *sizes(wide)[2:]])


def _one_bias(graph: ir.Graph, add: ir.Node) -> None:
    """Let the larger convolution of a sum add what the 1x1 one does."""
    one, other = (_summed_alone(value) for value in add.inputs)
    if one is None or other is None or one is other:
        return
    if sizes(one.outputs[0])[1] != sizes(other.outputs[0])[1]:
        return  # one of them has a channel that is added to all
    large, point = (one, other) if is_pointwise_convolution(other) else (other, one)
    if not is_pointwise_convolution(point) or is_pointwise_convolution(large) or len(point.inputs) < 3:
        return
    bias = numpy_of(point.inputs[2]).astype(np.float64)
    if len(large.inputs) > 2 and large.inputs[2] is not None:
        bias += numpy_of(large.inputs[2]).astype(np.float64)
    set_weights(graph, large, numpy_of(large.inputs[1]), bias)
    point.resize_inputs(2)


def _summed_alone(value: ir.Value | None) -> ir.Node | None:
    """The convolution whose result, split or not, is read by a sum and by nobody else."""
    while value is not None and only_reader(value) is not None:
        node = value.producer()
        if not is_split(node):
            return node if node is not None and _is_convolution(node) else None
        value = node.inputs[0] if node else None
    return None


def _is_convolution(node: ir.Node) -> bool:
    """Whether it is a convolution with constant weights."""
    return node.op_type == "Conv" and not node.domain and all(v is not None and is_constant(v) for v in node.inputs[1:])
