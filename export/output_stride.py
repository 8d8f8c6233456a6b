"""Lower a trained network's output stride without training it again (à trous; DeepLabv3 paper, section 3.1).

Where a network would reduce its resolution below the output stride asked for, it keeps every pixel instead: the
reducing convolution or pooling is computed at stride 1 and its result is split. What comes after is the network as it
was, on batches that hold the pixels which it would have dropped. So a convolution behind k such reductions has the rate
2**k, without a weight being touched, and split batches never meet before they are merged: at stride 1 the network can
be cut and streamed like a Split-Merge Pooling network.

The layout of a value follows from its size: a map S times smaller than the image, at output stride o, is on a grid of
S / o split batches.

Means over the whole image are taken over all split batches above output stride 1, as by a network made for that stride.
At 1 they are the network's own, of the map that it was trained with (`export.context`), and each split batch gets them
as a copy of its own: so no split batch waits for another, and such networks are cut and streamed, too.

Bilinear upsampling reads between the pixels that there are now, at the places at which it would have read: output
pixel p of an upsampling by S (half-pixel centres) reads at input pixel p - (S - 1) / 2, since pixel j of the map stands
for the S pixels from S * j on. Resizing by what is left, o, reads at p - (o - 1) / 2, so the result is moved by
(S - o) / 2 pixels. Without that the labels would lie up to 15.5 pixels above and to the left of what they name. Where
nothing is left to resize, it is moved by whole pixels, rounded up.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from export.context import compute_context_apart
from export.geometry import Geometry, geometry_of, set_geometry
from export.nodes import DOMAIN, MERGE, SPLIT, constant, new_node, size_of, sizes, unused_name
from splitmerge.errors import InputError

__all__ = ["lower_output_stride"]

_MEANS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "ReduceMean"})
_WITH_ONE_PIXEL = frozenset({"Add", "Div", "Mul", "Sub"})


def lower_output_stride(model: ir.Model, stride: int) -> None:
    """Rewrite a network from `x` `[N,3,H,W]` to logits, in which nothing is split yet, to an output stride 1, 2, 4, ...

    All shapes must be known but for the batch. Raises InputError for a stride that cannot be, or a network with
    operators that this does not know how to place.
    """
    if stride < 1 or stride & (stride - 1):
        raise InputError(f"An output stride of {stride} cannot be: choose 1, 2, 4, 8 or 16.")
    _Lowering(model.graph, stride).apply()
    common.RemoveUnusedNodesPass()(model)


class _Lowering:
    """Values keep the sizes that they had, now on the batches of as many splits by 2x2 as their stride asks for."""

    def __init__(self, graph: ir.Graph, target: int) -> None:
        self._graph, self._target = graph, target
        self._image = size_of(graph.inputs[0])
        self._strides: dict[ir.Value, int | None] = {value: self._stride_from_size(value) for value in graph.inputs}
        for node in graph:
            read = [self._strides[value] for value in node.inputs if value in self._strides]
            no_map = bool(read) and not any(read) and node.op_type != "Resize"
            for value in node.outputs:
                self._strides[value] = None if no_map else self._stride_from_size(value)
        self._last: ir.Node  # behind which the next node goes

    def apply(self) -> None:
        largest = max(stride or 1 for stride in self._strides.values())
        if largest <= self._target:
            raise InputError(
                f"The network's output stride is {largest}, and {self._target} was asked for: choose a lower one."
            )
        nodes = list(self._graph)
        if self._target == 1:
            compute_context_apart(self._graph, self._strides)
        for node in nodes:
            inputs = [self._strides[v] for v in node.inputs if v is not None and v in self._strides]
            result = self._strides[node.outputs[0]]
            if any((stride or 1) > self._target for stride in (*inputs, result)):
                self._last = node
                self._place(node, inputs, result)
        for value in self._graph.outputs:
            if self._levels(self._strides.get(value)):
                raise InputError(
                    f"The network returns {value.name} at 1/{self._strides[value]} of the image: --output-stride is "
                    "for networks that upsample their logits."
                )

    def _place(self, node: ir.Node, inputs: Sequence[int | None], result: int | None) -> None:
        geometry = geometry_of(node)
        if node.op_type == "Resize":
            self._resize(node)
        elif geometry is not None and geometry.stride != (1, 1):
            self._keep_pixels(node, geometry)
        elif node.op_type in _WITH_ONE_PIXEL and None in inputs:
            self._with_one_pixel(node)
        elif node.op_type in _MEANS and result is None:
            self._compute_merged(node)
        elif any(stride != result for stride in inputs):
            raise self._unknown(node)

    def _unknown(self, node: ir.Node) -> InputError:
        maps = [value for value in node.inputs if value in self._strides]
        return InputError(
            f"{node.name} ({node.op_type}) goes from {_shape(maps[0])} to {_shape(node.outputs[0])}, which is not "
            "known at another output stride: export the network without --output-stride."
        )

    def _stride_from_size(self, value: ir.Value) -> int | None:
        """How many times smaller than the image a map is; None for what is no map of it."""
        shape = sizes(value)[-2:] if value.shape is not None else ()
        if len(shape) < 2 or None in shape or 0 in shape or shape == (1, 1):
            return None
        ratios = {divmod(large, small or 1) for large, small in zip(self._image, shape, strict=True)}
        ratio, rest = ratios.pop()
        return None if ratios or rest or ratio & (ratio - 1) else ratio

    def _levels(self, stride: int | None) -> int:
        """How many splits a map of that stride is behind."""
        return max((stride or 1) // self._target, 1).bit_length() - 1

    def _keep_pixels(self, node: ir.Node, geometry: Geometry) -> None:
        """Stride 1 (or what is left of it above the output stride), and a split behind it."""
        value, result = node.inputs[0], node.outputs[0]
        assert value is not None
        before, after, step = self._strides[value], self._strides[result], geometry.stride[0]
        cells = zip(size_of(value), geometry.kernel, size_of(result), geometry.stride, strict=True)
        cut_short = any((made - 1) * step + kernel > read for read, kernel, made, step in cells)
        uneven = node.op_type == "AveragePool" and (geometry.before != (0, 0) or cut_short)
        if before is None or after is None or geometry.stride != (step, step) or after != before * step or uneven:
            raise InputError(
                f"{node.name} ({node.op_type}) goes from {_shape(value)} to {_shape(result)} with the stride "
                f"{geometry.stride}, which is not known at another output stride: export it without --output-stride."
            )
        splits = self._levels(after) - self._levels(before)
        left = step >> splits
        size = [length << splits for length in size_of(result)]
        lengths = zip(size, geometry.spread, size_of(value), geometry.before, strict=True)
        rows, columns = (max((made - 1) * left + spread + 1 - read - top, 0) for made, spread, read, top in lengths)
        set_geometry(node, replace(geometry, stride=(left, left), after=(rows, columns)))
        node.attributes.pop("ceil_mode", None)
        if node.op_type == "AveragePool":  # beyond the border there are zeros
            node.attributes.add(ir.AttrInt64("count_include_pad", 1))
        self._split_result(node, splits)

    def _compute_merged(self, node: ir.Node) -> None:
        """On the whole map: what mixes split batches, and what has one number for all pixels of an image."""
        for index, value in enumerate(node.inputs):
            if value is not None and value in self._strides:
                node.replace_input_with(index, self._pooled(node, value, -self._levels(self._strides[value])))
        self._split_result(node, self._levels(self._strides[node.outputs[0]]))

    def _with_one_pixel(self, node: ir.Node) -> None:
        """What has one number for all pixels of an image: on the whole map, or at output stride 1 on copies of it."""
        if self._target > 1:
            self._compute_merged(node)
            return
        levels = self._levels(self._strides[node.outputs[0]])
        for index, value in enumerate(node.inputs):
            if value is not None and value in self._strides and self._strides[value] is None:
                node.replace_input_with(index, self._for_each_batch(node, value, levels))
        result = node.outputs[0]
        result.shape = ir.Shape([None, *sizes(result)[1:]])  # of batches of an image, not of images

    def _for_each_batch(self, node: ir.Node, value: ir.Value, levels: int) -> ir.Value:
        """`[N,C,1,1]` repeated for every split batch: enlarged to a map of one pixel each, which is split."""
        shape, side = sizes(value), 1 << levels
        if len(shape) != 4 or shape[-2:] != (1, 1):
            raise InputError(
                f"{node.name} ({node.op_type}) spreads {_shape(value)} over the image, as pyramids of means do, and at "
                "another output stride only one number for the whole image is known: export the network without "
                "--output-stride."
            )
        assert value.dtype is not None
        name = unused_name(self._graph, f"{value.name}.copies")
        factors = constant(self._graph, f"{name}.factors", np.array([1, 1, side, side], np.float32))
        modes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        copies = new_node("Resize", [value, None, factors], name, [*shape[:2], side, side], value.dtype, **modes)
        self._graph.insert_before(node, copies)
        return self._pooled(node, copies.outputs[0], levels)

    def _split_result(self, node: ir.Node, splits: int) -> None:
        """Let the node compute at a larger size, and everybody read its result split."""
        result = node.outputs[0]
        *outer, height, width = sizes(result)
        assert height is not None and width is not None
        readers = list(result.uses())
        result.shape = ir.Shape([*outer, height << splits, width << splits])
        self._hand_over(result, readers, self._pooled(node, result, splits, behind=True))

    def _resize(self, node: ir.Node) -> None:
        value, result = node.inputs[0], node.outputs[0]
        assert value is not None
        small, large = self._strides[value], self._strides[result]
        if large is None or (small is not None and small < large) or not _is_bilinear(node):
            raise InputError(
                f"{node.name} ({node.op_type}) resizes {_shape(value)} to {_shape(result)}, and only bilinear "
                "upsampling by powers of two with half-pixel centres is known at another output stride: export the "
                "network without --output-stride."
            )
        if small is None:
            self._with_one_pixel(node)
            if self._target > 1:
                self._set_factors(node)
            return
        deep, high = self._levels(small), self._levels(large)
        cells = small >> deep, large >> high  # pixels from one to the next, when merged
        twice = ((small - large) - (cells[0] - cells[1])) // cells[1]  # halves of a cell to be moved by
        readers = list(result.uses())
        if cells[0] > cells[1]:
            node.replace_input_with(0, self._pooled(node, value, -deep))
            *outer, height, width = sizes(result)
            assert height is not None and width is not None
            result.shape = ir.Shape([*outer, height << high, width << high])
            self._set_factors(node)
            end = self._pooled(node, self._moved(node, result, twice), high, behind=True)
        elif cells[1] == 1 or twice % 2 == 0:
            end = self._moved_on_batches(node, value, -(-twice // 2), deep, high)
        else:
            dense = self._pooled(node, value, -deep, behind=True)
            end = self._pooled(node, self._moved(node, dense, twice), high, behind=True)
        self._hand_over(result, readers, end)

    def _moved_on_batches(self, node: ir.Node, value: ir.Value, cells: int, deep: int, high: int) -> ir.Value:
        """Moved while it is split as far as the distance allows; a row that is missing is its own batch's first one."""
        levels = deep
        while cells % (1 << levels):
            levels -= 1
        moved = self._moved(node, self._pooled(node, value, levels - deep, behind=True), 2 * (cells >> levels))
        return self._pooled(node, moved, high - levels, behind=True)

    def _moved(self, node: ir.Node, value: ir.Value, halves: int) -> ir.Value:
        """Moved down and to the right by halves of a cell, the first row and column repeated."""
        for axis in (2, 3):
            value = self._moved_along(node, value, halves, axis) if halves else value
        return value

    def _moved_along(self, node: ir.Node, value: ir.Value, halves: int, axis: int) -> ir.Value:
        assert value.dtype is not None
        shape, length = sizes(value), size_of(value)[axis - 2]
        places = [np.clip(np.arange(length) - cells, 0, None) for cells in {halves // 2, -(-halves // 2)}]
        moved = []
        for numbers in places:
            name = unused_name(self._graph, f"{node.name}.moved{axis}")
            indices = constant(self._graph, f"{name}.places", numbers)
            moved.append(self._behind(new_node("Gather", [value, indices], name, shape, value.dtype, axis=axis)))
        if len(moved) == 1:
            return moved[0]
        name = unused_name(self._graph, f"{node.name}.between{axis}")  # the mean of two neighbours
        half = constant(self._graph, f"{name}.half", np.array(0.5, value.dtype.numpy()))
        both = self._behind(new_node("Add", moved, f"{name}.sum", shape, value.dtype))
        return self._behind(new_node("Mul", [both, half], name, shape, value.dtype))

    def _pooled(self, node: ir.Node, value: ir.Value, count: int, behind: bool = False) -> ir.Value:
        """The value behind `count` splits, or merges where it is negative, made in front of `node` or behind it."""
        kind = SPLIT if count > 0 else MERGE
        for _ in range(abs(count)):
            *outer, height, width = sizes(value)
            assert height is not None and width is not None and value.dtype is not None
            size = (height // 2, width // 2) if count > 0 else (height * 2, width * 2)
            name = unused_name(self._graph, f"{value.name}.{kind.removesuffix('Pool').lower()}")
            pool = new_node(kind, [value], name, [None, *outer[1:], *size], value.dtype, DOMAIN, window=(2, 2))
            if behind:
                value = self._behind(pool)
            else:
                self._graph.insert_before(node, pool)
                value = pool.outputs[0]
        return value

    def _behind(self, node: ir.Node) -> ir.Value:
        """Put a node behind the one at hand and what was put there before."""
        self._graph.insert_after(self._last, node)
        self._last = node
        return node.outputs[0]

    def _hand_over(self, value: ir.Value, readers: Sequence[tuple[ir.Node, int]], successor: ir.Value) -> None:
        for reader, index in readers:
            reader.replace_input_with(index, successor)
        self._graph.outputs[:] = [successor if output is value else output for output in self._graph.outputs]
        self._strides[successor] = self._strides[value]

    def _set_factors(self, node: ir.Node) -> None:
        """The factors from a resize's input to its output."""
        value, result = node.inputs[0], node.outputs[0]
        assert value is not None
        factors = [large / small for small, large in zip(size_of(value), size_of(result), strict=True)]
        node.resize_inputs(3)
        name = f"{unused_name(self._graph, node.name or '')}.factors"
        node.replace_input_with(2, constant(self._graph, name, np.array([1, 1, *factors], np.float32)))
        node.attributes.pop("axes", None)


def _is_bilinear(node: ir.Node) -> bool:
    centres = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    return node.attributes.get_string("mode", "nearest") == "linear" and centres in ("half_pixel", "pytorch_half_pixel")


def _shape(value: ir.Value | None) -> str:
    return "nothing" if value is None else "x".join("?" if size is None else str(size) for size in sizes(value)[1:])
