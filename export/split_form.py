"""Dilated convolutions as split, dense convolutions, merge (FastFCN, Eq. 2), in any graph.

A convolution of rate r on an image equals the dense one on the r x r images that split pooling makes of it, each of
which holds the pixels r apart. One pass splits by one small window whatever it divides the rates of; where a rate is
larger, the convolution is dilated still, on the split batches, and a later pass splits those again: rate 4 is a split
by 2 of what is split by 2. `export.regions` chooses which of the operators in between are computed on split batches, so
that no merge is followed by a split.

Sizes that the window does not divide are padded below and on the right, in front of the split, and cropped behind the
merge. Every value in between has ceil(size / window) rows and columns, and is masked where a convolution would read
beyond the image (`export.borders`).
"""

from dataclasses import replace

import onnx_ir as ir
from onnx_ir.passes import common

from export.borders import crop_node, mask_node, pad_node
from export.geometry import Geometry, geometry_of, set_geometry
from export.layouts import Layout, grid, layouts_of
from export.nodes import (
    DOMAIN,
    MERGE,
    SPLIT,
    Window,
    insert_after_value,
    is_constant,
    is_mask,
    new_node,
    size_of,
    sizes,
    unused_name,
)
from export.regions import has_constant_weights, split_region

__all__ = ["is_dilated", "split_dilated"]

_KEEP_ZERO = frozenset({"Abs", "Add", "Cast", "Concat", "Identity", "LeakyRelu", "Neg", "Relu", "Sign", "Sqrt", "Tanh"})
"""Pointwise operators that make zero of zeros (with constants: see `_Pass.zero_beyond`)."""


def split_dilated(model: ir.Model) -> None:
    """Rewrite every dilated convolution of stride 1. Splits, merges and masks are left as nodes, see `export.nodes`.

    All shapes must be known but for the batch. Convolutions with a stride stay dilated. Raises InputError where the
    graph's own split batches are mixed (`export.layouts`).
    """
    graph = model.graph
    for node in list(graph):
        _pad_explicitly(graph, node)
    while window := _next_window(graph):
        region = split_region(graph, window)
        assert region, f"nothing can be split by {window}, and it would be asked for again"
        _Pass(graph, window).apply(region)
    common.RemoveUnusedNodesPass()(model)


def is_dilated(graph: ir.Graph) -> bool:
    """Whether there is anything for `split_dilated` to do."""
    return any(_rates(node) for node in graph)


def _rates(node: ir.Node) -> tuple[Geometry, Window] | None:
    """Geometry and rate of a convolution that can be split, the rate being 1 where the kernel reads one pixel."""
    geometry = geometry_of(node) if node.op_type == "Conv" else None
    if geometry is None or geometry.stride != (1, 1) or min(geometry.before) < 0 or not has_constant_weights(node):
        return None
    rows, columns = (rate if kernel > 1 else 1 for rate, kernel in zip(geometry.rate, geometry.kernel, strict=True))
    return (geometry, (rows, columns)) if (rows, columns) != (1, 1) else None


def _pad_explicitly(graph: ir.Graph, node: ir.Node) -> None:
    """Leave a dilated convolution only as much padding before the image as its rate divides; put the rest in front."""
    if (dilated := _rates(node)) is None:
        return
    geometry, (rows, columns) = dilated
    rest = geometry.before[0] % rows, geometry.before[1] % columns
    if rest != (0, 0):
        value = node.inputs[0]
        assert value is not None
        pad = pad_node(graph, value, rest, (0, 0))
        graph.insert_before(node, pad)
        node.replace_input_with(0, pad.outputs[0])
        top, left = geometry.before
        set_geometry(node, replace(geometry, before=(top - rest[0], left - rest[1])))


def _next_window(graph: ir.Graph) -> Window | None:
    """A prime part of the first rate that is left, in both directions where they share it."""
    for node in graph:
        if (dilated := _rates(node)) is not None:
            rows, columns = dilated[1]
            shared = next((p for p in range(2, min(rows, columns) + 1) if rows % p == columns % p == 0), None)
            if shared:
                return shared, shared
            return (_smallest_factor(rows), 1) if rows > 1 else (1, _smallest_factor(columns))
    return None


def _smallest_factor(number: int) -> int:
    return next(p for p in range(2, number + 1) if number % p == 0)


class _Pass:
    """One more split, by `window`, of a part of the graph. Sizes are those before it, unless called split."""

    def __init__(self, graph: ir.Graph, window: Window) -> None:
        self._graph, self._window = graph, window
        self._layouts: dict[ir.Value, Layout] = layouts_of(graph)
        self._size: dict[ir.Value, Window] = {}  # of values on split batches, as they were
        self._entered: dict[ir.Value, ir.Value] = {}
        self._masked: dict[ir.Value, ir.Value] = {}

    def apply(self, region: set[ir.Node]) -> None:
        for node in [node for node in self._graph if node in region]:
            for index, value in enumerate(node.inputs):
                if value is not None and not is_constant(value) and value.producer() not in region:
                    node.replace_input_with(index, self._enter(value))
            geometry = geometry_of(node) if node.op_type == "Conv" else None
            self._resize(node)
            if geometry is not None:
                self._divide(node, geometry)
        for node in region:
            self._leave(node.outputs[0], region)

    def _split_size(self, size: Window) -> Window:
        (height, width), (rows, columns) = size, self._window
        return -(-height // rows), -(-width // columns)

    def _enter(self, value: ir.Value) -> ir.Value:
        """The value, padded and split."""
        if value not in self._entered:
            size, (rows, columns) = size_of(value), self._window
            height, width = self._split_size(size)
            missing = height * rows - size[0], width * columns - size[1]
            pad = pad_node(self._graph, value, (0, 0), missing) if missing != (0, 0) else None
            source = pad.outputs[0] if pad else value
            split = self._pooling(SPLIT, source, (height, width), "split")
            insert_after_value(self._graph, value, [pad, split] if pad else [split])
            self._entered[value] = split.outputs[0]
            self._size[split.outputs[0]] = size
            self._layouts[split.outputs[0]] = self._layouts.get(value, ())
        return self._entered[value]

    def _resize(self, node: ir.Node) -> None:
        result = node.outputs[0]
        self._size[result] = size = size_of(result)
        result.shape = ir.Shape([*_outer(result), *self._split_size(size)])

    def _divide(self, conv: ir.Node, geometry: Geometry) -> None:
        """Divide rate and padding by the window, reading zeros wherever the convolution did."""
        value = conv.inputs[0]
        assert value is not None
        size, split, made = self._size[value], size_of(value), size_of(conv.outputs[0])
        rate, before, after, beyond = [], [], [], False
        for axis, step in enumerate(self._window):
            rate.append(geometry.rate[axis] // step if geometry.kernel[axis] > 1 else 1)
            before.append(geometry.before[axis] // step)
            after.append(made[axis] - split[axis] - before[axis] + (geometry.kernel[axis] - 1) * rate[axis])
            beyond |= bool(size[axis] % step) and geometry.after[axis] > 0
        if beyond:
            conv.replace_input_with(0, self._mask(value))
        pairs = ((rate[0], rate[1]), (before[0], before[1]), (after[0], after[1]))
        set_geometry(conv, Geometry(geometry.kernel, pairs[0], (1, 1), pairs[1], pairs[2]))

    def _mask(self, value: ir.Value) -> ir.Value:
        if value not in self._masked:
            rows, columns = grid(self._layouts[value])
            height, width = self._size[value]
            size = height * rows, width * columns
            if self._zero_beyond(value, size):
                return value
            mask = mask_node(self._graph, value, size)
            insert_after_value(self._graph, value, [mask])
            self._masked[value] = mask.outputs[0]
        return self._masked[value]

    def _zero_beyond(self, value: ir.Value, size: Window) -> bool:
        """Whether the value is known to be zero beyond `size`, in pixels of the unsplit image."""
        node = value.producer()
        if value in self._entered.values():
            return True
        if node is None or value not in self._size:
            return False
        if is_mask(node):
            rows, columns = node.attributes["size"].as_ints()
            if rows <= size[0] and columns <= size[1]:
                return True
        return node.op_type in _KEEP_ZERO and all(v is not None and self._zero_beyond(v, size) for v in node.inputs)

    def _leave(self, value: ir.Value, region: set[ir.Node]) -> None:
        """Let whoever is not on split batches read the value merged and cropped."""
        outside = [use for use in value.uses() if use.node not in region and not self._is_own(use.node)]
        if not outside and not value.is_graph_output():
            return
        size, (rows, columns) = self._size[value], self._window
        height, width = size_of(value)
        nodes = [self._pooling(MERGE, value, (height * rows, width * columns), "merge")]
        if (height * rows, width * columns) != size:
            nodes.append(crop_node(self._graph, nodes[0].outputs[0], size))
        insert_after_value(self._graph, value, nodes)
        result = nodes[-1].outputs[0]
        for node, index in outside:
            node.replace_input_with(index, result)
        if value.is_graph_output():
            self._graph.outputs[:] = [result if output is value else output for output in self._graph.outputs]
            value.name, result.name = result.name, value.name

    def _is_own(self, node: ir.Node) -> bool:
        return is_mask(node) and node.outputs[0] in self._masked.values()

    def _pooling(self, kind: str, value: ir.Value, size: Window, word: str) -> ir.Node:
        assert value.dtype is not None
        rows, columns = self._window
        name = unused_name(self._graph, f"{value.name}.{word}{rows}x{columns}")
        return new_node(kind, [value], name, [*_outer(value), *size], value.dtype, DOMAIN, window=self._window)


def _outer(value: ir.Value) -> tuple[int | None, ...]:
    """The dimensions before height and width, the number of split batches being free."""
    return (None, *sizes(value)[1:-2])
