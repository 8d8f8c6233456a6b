"""Which operators to compute on split batches: those that moves the least data.

A convolution whose rate the window divides must be split. Operators that treat every pixel alike may be, on either side
of a split or merge. All others may not. A value that is read on the other side than it is computed on costs one pooling
of its bytes, no matter how many read it there. The operators to split are then the smaller side of a minimum cut
between the two kinds (exactly, since there are only two sides), and of equally good ones those that split the most.
"""

from collections.abc import Mapping
from math import prod

import networkx
import onnx_ir as ir

from export.geometry import Geometry, geometry_of
from export.layouts import POINTWISE
from export.nodes import Window, is_constant, is_mask, numpy_of, sizes

__all__ = ["fits", "has_constant_weights", "split_region", "treats_pixels_alike"]

_BROADCASTING = frozenset({"Add", "Div", "Max", "Mean", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum", "Where"})
_ALONG_CHANNELS: Mapping[str, int | None] = {"ArgMax": 0, "Concat": None, "LogSoftmax": -1, "Softmax": -1}
_SPLIT, _UNSPLIT = "split", "unsplit"


def fits(geometry: Geometry, window: Window) -> bool:
    """Whether a convolution may be computed on split batches: it reads pixels of the output's own batch alone."""
    return geometry.stride == (1, 1) and all(
        (kernel == 1 or rate % step == 0) and before >= 0 and before % step == 0
        for kernel, rate, before, step in zip(geometry.kernel, geometry.rate, geometry.before, window, strict=True)
    )


def split_region(graph: ir.Graph, window: Window) -> set[ir.Node]:
    """The operators to compute on the batches of one more split by `window`."""
    network, nodes = networkx.DiGraph(), list(graph)
    index = {node: number for number, node in enumerate(nodes)}
    network.add_nodes_from([_SPLIT, _UNSPLIT])
    for number, node in enumerate(nodes):
        must, may = _sides(node, window)
        if must or not may:  # an edge without a capacity cannot be cut
            network.add_edge(*((_SPLIT, number) if must else (number, _UNSPLIT)))
    for name, value in enumerate((*graph.inputs, *(output for node in nodes for output in node.outputs))):
        producer = value.producer()
        readers = [index.get(reader, _UNSPLIT) for reader in value.consumers()]
        readers += [_UNSPLIT] * value.is_graph_output()
        _add_value(network, name, index[producer] if producer else _UNSPLIT, readers, _bytes(value))
    _, (split, _) = networkx.minimum_cut(network, _SPLIT, _UNSPLIT)
    return {node for node in nodes if index[node] in split}


def _add_value(network: networkx.DiGraph, name: int, producer: int | str, readers: list[int | str], cost: int) -> None:
    """Let it cost once if any reader is on the other side than the producer."""
    if producer == _UNSPLIT and not readers:
        return
    merged, split = ("merge", name), ("split", name)
    network.add_edge(producer, merged, capacity=cost)
    network.add_edge(split, producer, capacity=cost)
    for reader in readers:
        network.add_edge(merged, reader)
        network.add_edge(reader, split)


def _bytes(value: ir.Value) -> int:
    """Of one image, at least 1: sub-byte types and unknown shapes are no reason to move a value twice."""
    numbers = prod(size for size in sizes(value) if size) if value.shape is not None else 1
    bits = value.dtype.bitwidth if value.dtype and value.dtype != ir.DataType.STRING else 8
    return max(numbers * bits // 8, 1)


def _sides(node: ir.Node, window: Window) -> tuple[bool, bool]:
    """Whether an operator must, and whether it may be split."""
    if any(value is not None and value.shape is None for value in node.inputs):
        return False, False
    if node.op_type == "Conv":
        geometry = geometry_of(node)
        if geometry is None or not fits(geometry, window) or not has_constant_weights(node):
            return False, False
        return any(k > 1 and step > 1 for k, step in zip(geometry.kernel, window, strict=True)), True
    return False, treats_pixels_alike(node)


def treats_pixels_alike(node: ir.Node) -> bool:
    """Whether every pixel of the one output is the same function of that pixel of the inputs, all of one size."""
    if len(node.outputs) != 1:
        return False
    result, inputs = node.outputs[0], [value for value in node.inputs if value is not None]
    computed = [value for value in inputs if not is_constant(value)]
    if result.shape is None or not computed or any(sizes(v)[-2:] != sizes(result)[-2:] for v in computed):
        return False
    rank = len(sizes(computed[0]))
    if rank not in (3, 4) or any(len(sizes(v)) != rank for v in computed) or None in sizes(result)[-2:]:
        return False
    if is_mask(node):
        return True
    if node.domain:
        return False
    if node.op_type in POINTWISE or node.op_type == "BatchNormalization":
        return has_constant_weights(node)
    if node.op_type in _BROADCASTING:
        return all(_is_one_pixel(v, rank) for v in inputs if is_constant(v))
    if node.op_type == "Slice":
        return len(node.inputs) > 3 and rank == 4 and numpy_of(node.inputs[3]).tolist() in ([1], [-3])
    if node.op_type in _ALONG_CHANNELS:
        axis = node.attributes.get_int("axis", _ALONG_CHANNELS[node.op_type])
        return len(computed) == len(inputs) and rank == 4 and axis is not None and axis % 4 == 1
    return False


def has_constant_weights(node: ir.Node) -> bool:
    """Whether all inputs but the first are constants."""
    return all(value is None or is_constant(value) for value in node.inputs[1:])


def _is_one_pixel(value: ir.Value, rank: int) -> bool:
    """Whether a constant is broadcast over images, heights and widths."""
    shape = sizes(value)
    return all(size == 1 for size in shape[-2:]) and (len(shape) < rank or shape[0] == 1) and len(shape) <= rank
