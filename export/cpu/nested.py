"""Compute a trunk depth first: one split batch after the other, from a split on to the labels.

Of a large frame even one split batch's maps are large. Where they are, the graph is cut behind a split (`export.cut`),
and what follows becomes the body of a Scan over that split's batches; and so on within it, until its maps are small.
"""

from collections.abc import Mapping
from math import prod

import onnx_ir as ir

from export.commute import fuse_poolings
from export.cpu.emitter import Emitter
from export.cpu.form import tile_convolutions
from export.cpu.shortcuts import cheapen_shortcuts
from export.cut import Parts, cut_at, split_levels
from export.layouts import Layout, grid, layouts_of
from export.lower import lower_poolings
from export.nodes import sizes
from splitmerge.errors import InputError

__all__ = ["MAP_BYTES", "tiled_depth_first"]

_GRAPH = ir.AttributeType.GRAPH
_SMALL_BYTES = 1024
"""Shapes and the like stay where they are."""

MAP_BYTES = 32_000_000
"""What the largest map may take. About three are alive in a body, and as many bodies run as there are contexts. Less
would not be faster: bands of rows keep to the cache by themselves. Bodies of 6 MB were as fast as whole split batches
with 16 channels and 8 % slower with 64 (SMP-18 at 512x1024 and 256x512, AMD EPYC, Zen 4)."""


def tiled_depth_first(part: ir.Model, whole: bool = False) -> tuple[ir.Model, int]:
    """The graph with its convolutions tiled and its poolings lowered, and how many convolutions that were.

    `part` has its poolings as nodes, one for each split of the network. It may be changed. A `whole` graph that cannot
    be shared out by split batches is not computed depth first either.
    """
    cheapen_shortcuts(part, whole)
    tiled, count = _tiled(part, layouts_of(part.graph), whole) if whole else _depth_first(part, 0)
    _lift_weights(tiled.graph)
    return tiled, count


def _depth_first(part: ir.Model, depth: int) -> tuple[ir.Model, int]:
    layouts = layouts_of(part.graph)
    if _largest_map(layouts) > MAP_BYTES:
        for level in range(1, split_levels(part) + 1):
            try:
                halves = cut_at(part, level)
            except InputError:  # something leads around the splits of that level
                continue
            _name_after(halves, depth)
            body, tiled = _depth_first(halves.trunk, depth + 1)
            if tiled and not _has_convolutions(body.graph):
                front, before = _tiled(halves.stem, layouts_of(halves.stem.graph))
                _join(front, body, halves, depth)
                return front, before + tiled
    return _tiled(part, layouts)


def _lift_weights(graph: ir.Graph) -> None:
    """Move the weights out of all bodies, which may read what lies around them. ONNX Runtime 1.31 keeps four copies of
    a body's own (723 MB where a trunk of 64 channels has 168 MB of them).
    """
    for node in ir.traversal.RecursiveGraphIterator(graph):
        for body in (attribute.as_graph() for attribute in node.attributes.values() if attribute.type == _GRAPH):
            for name, value in list(body.initializers.items()):
                if value.const_value is not None and value.const_value.nbytes > _SMALL_BYTES:
                    del body.initializers[name]
                    graph.register_initializer(value)


def _has_convolutions(graph: ir.Graph) -> bool:
    """Whether a convolution was left as it is. ONNX Runtime 1.31 lays their channels out in blocks, under names that
    are the same in a graph and in those inside it, and then refuses what it has written.
    """
    return any(node.op_type == "Conv" for node in ir.traversal.RecursiveGraphIterator(graph))


def _tiled(part: ir.Model, layouts: Mapping[ir.Value, Layout], whole: bool = False) -> tuple[ir.Model, int]:
    fuse_poolings(part)
    count = tile_convolutions(part, layouts, whole)
    lower_poolings(part)
    return part, count


def _largest_map(layouts: Mapping[ir.Value, Layout]) -> int:
    """Bytes of the largest value for one batch of the graph, in single precision."""
    return max(4 * prod(n or 1 for n in sizes(value)[1:]) * prod(grid(layout)) for value, layout in layouts.items())


def _name_after(halves: Parts, depth: int) -> None:
    """Names that no other cut of the same graph has given."""
    for index, (feature, batch) in enumerate(zip(halves.stem.graph.outputs, halves.trunk.graph.inputs, strict=True)):
        producer = feature.producer()
        assert producer is not None
        feature.name = producer.name = f"split_batches.{depth}.features{index}"
        batch.name = f"split_batches.{depth}.batch{index}"


def _join(front: ir.Model, body: ir.Model, halves: Parts, depth: int) -> None:
    """Let the front's features, split batches `[n*rows*columns,C,h,w]`, go through the body one by one, and merge what
    it returns: `[n,h,w]` (and logits `[n,C,h,w]`) for each becomes `[n,h*rows,w*columns]`.
    """
    graph, name = front.graph, f"split_batches.{depth}"
    rows, columns = halves.cut.rows, halves.cut.columns
    emit = Emitter(name)
    scanned = []
    for feature, inner in zip(graph.outputs, body.graph.inputs, strict=True):
        inside = [size or 1 for size in sizes(inner)[1:]]
        by_batch = emit.reshape(feature, -1, rows * columns, *inside)
        scanned.append(emit("Transpose", by_batch, perm=[1, 0, *range(2, len(inside) + 2)]))
    shapes = [[size or 1 for size in sizes(output)[1:]] for output in body.graph.outputs]
    body.graph.name = name
    for index, output in enumerate(body.graph.outputs):
        output.name = f"{name}.result{index}"
    scan = ir.node(
        "Scan",
        scanned,
        {"body": ir.AttrGraph("body", body.graph), "num_scan_inputs": len(scanned)},
        outputs=[ir.val(f"{name}.stacked{index}") for index in range(len(shapes))],
        name=f"{name}.scan",
    )
    emit.nodes.append(scan)
    merged = [_merged(emit, value, shape, rows, columns) for value, shape in zip(scan.outputs, shapes, strict=True)]
    for value, output, shape in zip(merged, body.graph.outputs, shapes, strict=True):
        *channels, height, width = shape
        assert output.dtype is not None
        value.dtype, value.shape = output.dtype, ir.Shape([None, *channels, height * rows, width * columns])
    emit.insert_before(graph, None)
    graph.outputs[:] = merged


def _merged(emit: Emitter, value: ir.Value, shape: list[int], rows: int, columns: int) -> ir.Value:
    """`[rows*columns,n,...,h,w]` to `[n,...,h*rows,w*columns]`: batch (k,l) has the pixels (i*rows+k,j*columns+l)."""
    *channels, height, width = shape
    apart = emit.reshape(value, rows, columns, -1, *channels, height, width)
    last = 3 + len(channels)
    turned = emit("Transpose", apart, perm=[2, *range(3, last), last, 0, last + 1, 1])
    return emit.reshape(turned, -1, *channels, height * rows, width * columns)
