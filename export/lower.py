"""Write split and merge pooling as reshape, transpose, reshape with constant shapes (never more than 8 dimensions).

In pixel order (see `export.layouts`) a split by r x c of an image that R x S batches hold already is, with K < R and
k < r the row offsets before and by this split,

    [N*R*S, C, h*r, w*c] = [N,R,S,C,h,r,w,c]  ->  [N,r,R,c,S,C,h,w] = [N*(r*R)*(c*S), C, h, w]

because the pixel's full row offset becomes K + R*k. A merge is the same, backwards. A mask is a choice between the
value and zero by a constant that says for each split batch which of its pixels lie within the image.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from export.nodes import constant, grid_of, is_mask, is_merge, is_split, new_node, size_of, sizes, window_of
from splitmerge.errors import InputError

__all__ = ["MAX_RANK", "lower_poolings"]

MAX_RANK = 8  # of a tensor in TensorRT

_BATCH, _ROWS, _COLUMNS, _CHANNELS, _HEIGHT, _WINDOW_ROWS, _WIDTH, _WINDOW_COLUMNS = range(8)
_UNSPLIT = (_BATCH, _ROWS, _COLUMNS, _CHANNELS, _HEIGHT, _WINDOW_ROWS, _WIDTH, _WINDOW_COLUMNS)
_SPLIT = (_BATCH, _WINDOW_ROWS, _ROWS, _WINDOW_COLUMNS, _COLUMNS, _CHANNELS, _HEIGHT, _WIDTH)


def lower_poolings(model: ir.Model) -> None:
    """Replace every pooling and mask of the graph. They must have been numbered."""
    for node in list(model.graph):
        if is_split(node) or is_merge(node):
            _lower(model.graph, node)
        elif is_mask(node):
            _lower_mask(model.graph, node)
    model.graph.opset_imports.pop("splitmerge", None)


def _lower(graph: ir.Graph, pool: ir.Node) -> None:
    source, result = pool.inputs[0], pool.outputs[0]
    assert source is not None and pool.name is not None and result.dtype is not None
    extents, after = _extents(pool)
    order_from, order_to = (_UNSPLIT, _SPLIT) if is_split(pool) else (_SPLIT, _UNSPLIT)
    before = [axis for axis in order_from if axis in extents]
    permutation = [before.index(axis) for axis in order_to if axis in extents]
    windows = [extents[axis] for axis in before]
    name, dtype = pool.name, result.dtype
    own, result.name = result.name, f"{name}.pooled"  # gives its name to the last of the three
    first = _reshape(graph, source, windows, f"{name}.windows", dtype)
    turned = [None if windows[i] == -1 else windows[i] for i in permutation]
    second = new_node("Transpose", [first.outputs[0]], f"{name}.turned", turned, dtype, perm=permutation)
    third = _reshape(graph, second.outputs[0], after, name, dtype)
    third.outputs[0].name = own
    graph.insert_before(pool, [first, second, third])
    result.replace_all_uses_with(third.outputs[0], replace_graph_outputs=True)
    graph.remove(pool, safe=True)


def _extents(pool: ir.Node) -> tuple[dict[int, int], list[int]]:
    """Size of each axis of the pooling's window form, without axes of size 1, and the shape that it ends in."""
    value = pool.inputs[0]
    assert value is not None
    shape = sizes(value)
    if len(shape) not in (3, 4) or None in shape[1:]:
        raise InputError(f"{pool.name} pools {value.name} of shape {shape}: export needs [N,C,H,W] with a fixed C,H,W.")
    *channels, height, width = (size for size in shape[1:] if size is not None)
    (rows, columns), (grid_rows, grid_columns) = window_of(pool), grid_of(pool)
    if is_split(pool):
        height, width = height // rows, width // columns
        after = [-1, *channels, height, width]
    else:
        after = [-1, *channels, height * rows, width * columns]
    extents = {_BATCH: -1, _HEIGHT: height, _WIDTH: width}
    if channels:
        extents[_CHANNELS] = channels[0]
    pooled = {_ROWS: grid_rows, _COLUMNS: grid_columns, _WINDOW_ROWS: rows, _WINDOW_COLUMNS: columns}
    extents |= {axis: size for axis, size in pooled.items() if size > 1}
    return extents, after


def _lower_mask(graph: ir.Graph, mask: ir.Node) -> None:
    source, result = mask.inputs[0], mask.outputs[0]
    assert source is not None and mask.name is not None and result.dtype is not None
    shape, (rows, columns), (height, width) = sizes(source), grid_of(mask), size_of(source)
    last_row, last_column = (limit - 1 for limit in mask.attributes["size"].as_ints())
    all_rows = np.arange(height * rows).reshape(height, rows).T  # [R,h]: row K + R*i of the image
    all_columns = np.arange(width * columns).reshape(width, columns).T
    inside = (all_rows <= last_row)[:, None, :, None] & (all_columns <= last_column)[None, :, None, :]  # [R,S,h,w]
    batches = rows * columns
    name, dtype, inner = mask.name, result.dtype, shape[1:-2]
    keep = constant(graph, f"{name}.inside", inside.reshape(1, batches, *(1 for _ in inner), height, width))
    zero = constant(graph, f"{name}.zero", np.zeros((), dtype.numpy()))
    own, result.name = result.name, f"{name}.masked"
    by_batch = [-1, batches, *(size or 0 for size in inner), height, width]
    first = _reshape(graph, source, by_batch, f"{name}.batches", dtype)
    chosen = new_node("Where", [keep, first.outputs[0], zero], f"{name}.chosen", [None, *by_batch[1:]], dtype)
    last = _reshape(graph, chosen.outputs[0], [-1, *by_batch[2:]], name, dtype)
    last.outputs[0].name = own
    graph.insert_before(mask, [first, chosen, last])
    result.replace_all_uses_with(last.outputs[0], replace_graph_outputs=True)
    graph.remove(mask, safe=True)


def _reshape(graph: ir.Graph, value: ir.Value, shape: Sequence[int], name: str, dtype: ir.DataType) -> ir.Node:
    target = constant(graph, f"{name}.shape", np.array(shape, np.int64))
    return new_node("Reshape", [value, target], name, [None if size == -1 else size for size in shape], dtype)
