"""Split batches as dilation: the inverse of `export.split_form`, for any graph with split and merge pooling.

Splits and merges go; what was computed on the batches of an r x c grid is computed on the image instead, with rates and
paddings r and c times as large. Few operators know heights and widths: those that slide a kernel, pad, crop and pick
rows or columns. Of the rest, those that treat pixels alike stay as they are, and any other one (a strided convolution,
a pooling of the whole image, a maximum whose padding would be as large as its kernel, resizing) keeps a split in front
of it and a merge behind it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from export.geometry import geometry_of, set_geometry
from export.layouts import grid, layouts_of
from export.nodes import (
    DOMAIN,
    MERGE,
    SPLIT,
    Window,
    constant,
    is_constant,
    is_merge,
    is_split,
    new_node,
    numpy_of,
    size_of,
    sizes,
    unused_name,
)
from export.regions import treats_pixels_alike

__all__ = ["dilate_split"]


def dilate_split(model: ir.Model) -> None:
    """Rewrite everything between splits and merges. All shapes must be known but for the batch.

    Raises InputError where split batches are mixed (`export.layouts`).
    """
    graph = model.graph
    grids = {value: grid(layout) for value, layout in layouts_of(graph).items()}
    poolings = [node for node in graph if is_split(node) or is_merge(node)]
    on_batches = [node for node in graph if node not in poolings and grids[node.outputs[0]] != (1, 1)]
    kept = [node for node in on_batches if not _dilate(graph, node, grids[node.outputs[0]])]
    for node in reversed(kept):  # afterwards and backwards, so that all sizes that are read are those of split batches
        _keep_split(graph, node, grids[node.outputs[0]])
    split_still = {value for node in kept for value in node.outputs}
    for node in poolings:
        _bypass(graph, node)
    for value, (rows, columns) in grids.items():
        if (rows, columns) != (1, 1) and value not in split_still and value.producer() not in poolings:
            *outer, height, width = sizes(value)
            assert height is not None and width is not None
            value.shape = ir.Shape([*outer, height * rows, width * columns])
    common.RemoveUnusedNodesPass()(model)


def _dilate(graph: ir.Graph, node: ir.Node, step: Window) -> bool:
    """Let the operator do on the image what it did on its split batches. False where it cannot."""
    if len(node.outputs) != 1:
        return False
    if treats_pixels_alike(node):
        return True
    geometry = geometry_of(node)
    if geometry is not None:
        if geometry.stride != (1, 1):
            return False
        rate, before, after = (
            (pair[0] * step[0], pair[1] * step[1]) for pair in (geometry.rate, geometry.before, geometry.after)
        )
        if node.op_type != "Conv" and any(pad >= geometry.kernel[i % 2] for i, pad in enumerate((*before, *after))):
            return False  # ONNX Runtime refuses such a pooling, whatever its rate
        set_geometry(node, replace(geometry, rate=rate, before=before, after=after))
        return True
    rule = _RULES.get(node.op_type)
    return rule is not None and rule(graph, node, step)


def _dilate_pad(graph: ir.Graph, node: ir.Node, step: Window) -> bool:
    pads = _integers(node.inputs[1])
    if node.attributes.get_string("mode", "constant") != "constant" or len(pads) < 6:
        return False
    factors = [1] * (len(pads) // 2 - 2) + list(step)
    _replace_constant(graph, node, 1, pads * np.array(factors * 2))
    return True


def _dilate_slice(graph: ir.Graph, node: ir.Node, step: Window) -> bool:
    value = node.inputs[0]
    assert value is not None
    rank, size = len(sizes(value)), size_of(value)
    starts, ends, axes = (_integers(one) for one in node.inputs[1:4])
    axes = axes % rank
    if (axes < rank - 2).any() or (len(node.inputs) > 4 and (_integers(node.inputs[4]) != 1).any()):
        return False
    lengths, factors = (np.array(pair)[axes - (rank - 2)] for pair in (size, step))
    for index, bounds in ((1, starts), (2, ends)):
        within = np.clip(np.where(bounds < 0, bounds + lengths, bounds), 0, lengths)
        _replace_constant(graph, node, index, within * factors)
    return True


def _dilate_gather(graph: ir.Graph, node: ir.Node, step: Window) -> bool:
    value, indices = node.inputs[0], _integers(node.inputs[1])
    assert value is not None
    rank, size = len(sizes(value)), size_of(value)
    axis = node.attributes.get_int("axis", 0) % rank - (rank - 2)
    if axis < 0 or indices.ndim != 1:
        return False
    by_pixel = (indices % size[axis])[:, None] * step[axis] + np.arange(step[axis])
    _replace_constant(graph, node, 1, by_pixel.reshape(-1))
    return True


_RULES: Mapping[str, Callable[[ir.Graph, ir.Node, Window], bool]] = {
    "Gather": _dilate_gather,
    "Pad": _dilate_pad,
    "Slice": _dilate_slice,
}


def _integers(value: ir.Value | None) -> NDArray[np.int64]:
    return numpy_of(value).astype(np.int64)


def _replace_constant(graph: ir.Graph, node: ir.Node, index: int, array: NDArray[np.int64]) -> None:
    """Other readers of the old constant keep it."""
    name = f"{node.name}.dilated.{index}"
    node.replace_input_with(index, constant(graph, name, array))


def _keep_split(graph: ir.Graph, node: ir.Node, step: Window) -> None:
    """Put a split and a merge of its own around the operator; the values outside are about to become whole images."""
    for index, value in enumerate(node.inputs):
        if value is not None and not is_constant(value):
            assert value.dtype is not None
            name = unused_name(graph, f"{node.name}.split")
            split = new_node(SPLIT, [value], name, sizes(value), value.dtype, DOMAIN, window=step)
            graph.insert_before(node, split)
            node.replace_input_with(index, split.outputs[0])
    for result in node.outputs:
        assert result.dtype is not None
        *outer, height, width = sizes(result)
        assert height is not None and width is not None
        name = unused_name(graph, f"{node.name}.merge")
        shape = [*outer, height * step[0], width * step[1]]
        merge = new_node(MERGE, [], name, shape, result.dtype, DOMAIN, window=step)
        _hand_over(graph, result, merge.outputs[0])
        merge.resize_inputs(1)
        merge.replace_input_with(0, result)
        graph.insert_after(node, merge)


def _bypass(graph: ir.Graph, pooling: ir.Node) -> None:
    value = pooling.inputs[0]
    assert value is not None
    _hand_over(graph, pooling.outputs[0], value)
    graph.remove(pooling, safe=True)


def _hand_over(graph: ir.Graph, value: ir.Value, successor: ir.Value) -> None:
    """Let everything read `successor` instead; an output of the graph keeps its name."""
    if value.is_graph_output():
        value.name, successor.name = successor.name, value.name
    value.replace_all_uses_with(successor, replace_graph_outputs=True)
