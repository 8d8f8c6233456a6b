"""Move operators past split and merge, then fuse poolings that have become neighbours.

Pointwise operators and argmax commute with both. Done before a split or before a merge they let splits meet splits and
merges meet merges; argmax before merging leaves one number a pixel to move instead of one per class.
"""

import onnx_ir as ir
from onnx_ir.passes import common

from export.layouts import POINTWISE, number_poolings
from export.nodes import (
    DOMAIN,
    MERGE,
    drops_channels,
    grid_of,
    is_merge,
    is_split,
    new_node,
    only_reader,
    sizes,
    window_of,
)

__all__ = ["exchange", "fuse_poolings", "hoist"]


def hoist(model: ir.Model) -> None:
    """Take pointwise operators and argmax over channels before the splits and merges whose result they read."""
    while sum(_hoist(model.graph, node) for node in list(model.graph)):
        pass  # what has moved may now stand behind the next pooling
    common.RemoveUnusedNodesPass()(model)


def fuse_poolings(model: ir.Model) -> None:
    """Number the poolings, then make one of consecutive splits and one of consecutive merges."""
    number_poolings(model.graph)
    for node in list(model.graph):
        if (is_split(node) or is_merge(node)) and window_of(node) == (1, 1):
            _remove(model.graph, node)
            continue
        value = node.inputs[0] if node.inputs else None
        before = value.producer() if value else None
        if before is None or value is None or only_reader(value) is not node:
            continue
        if (is_split(before) and is_split(node)) or (is_merge(before) and is_merge(node)):
            _fuse(model.graph, before, node)


def _hoist(graph: ir.Graph, node: ir.Node) -> bool:
    value = node.inputs[0] if node.inputs else None
    pool = value.producer() if value else None
    if pool is None or value is None or not (is_split(pool) or is_merge(pool)):
        return False
    if is_merge(pool) and node.op_type == "ArgMax" and drops_channels(node):
        _argmax_before_merge(graph, node, pool)
        return True
    if node.op_type in POINTWISE and not node.domain and only_reader(value) is node:
        _swap(graph, pool, node)
        return True
    return False


def exchange(graph: ir.Graph, first: ir.Node, second: ir.Node) -> None:
    """x -> first -> y -> second -> z becomes x -> second -> z' -> first -> y', where nobody else reads y.

    Shapes and types of y' and z' are the caller's to say.
    """
    source, between, result = first.inputs[0], first.outputs[0], second.outputs[0]
    result.replace_all_uses_with(between, replace_graph_outputs=True)
    second.replace_input_with(0, source)
    first.replace_input_with(0, result)
    graph.remove(first)
    graph.insert_after(second, first)


def _swap(graph: ir.Graph, pool: ir.Node, node: ir.Node) -> None:
    """Put a pointwise node, which keeps shapes, before the pooling that it reads."""
    source, result, pooled = pool.inputs[0], node.outputs[0], pool.outputs[0]
    assert source is not None and result.dtype is not None
    exchange(graph, pool, node)
    pooled.dtype, result.shape = result.dtype, source.shape


def _argmax_before_merge(graph: ir.Graph, argmax: ir.Node, merge: ir.Node) -> None:
    """argmax(merge(x)) becomes merge(argmax(x)); the old merge stays for others that read it."""
    source, result = merge.inputs[0], argmax.outputs[0]
    assert source is not None and result.dtype is not None
    labels = new_node(
        MERGE, [result], f"{argmax.name}.{merge.name}", sizes(result), result.dtype, DOMAIN, window=window_of(merge)
    )
    result.replace_all_uses_with(labels.outputs[0], replace_graph_outputs=True)
    labels.replace_input_with(0, result)
    argmax.replace_input_with(0, source)
    split_shape = sizes(source)
    result.shape = ir.Shape([None, *split_shape[2:]])
    graph.insert_after(argmax, labels)


def _remove(graph: ir.Graph, node: ir.Node) -> None:
    value = node.inputs[0]
    assert value is not None
    node.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _fuse(graph: ir.Graph, first: ir.Node, second: ir.Node) -> None:
    """Let `second` do the work of both: pooling (a, b) next to (c, d) is pooling (ac, bd)."""
    (rows, columns), (more_rows, more_columns) = window_of(first), window_of(second)
    unsplit_side = first if is_split(first) else second
    second.attributes.add(ir.AttrInt64s("grid", grid_of(unsplit_side)))
    second.attributes.add(ir.AttrInt64s("window", (rows * more_rows, columns * more_columns)))
    second.replace_input_with(0, first.inputs[0])
    graph.remove(first, safe=True)
