"""Zeros below and on the right of images, added, taken away and restored.

A split needs a size that its window divides, so images are padded in front of it and cropped behind the merge. In
between, the added rows and columns take part in every operator and soon are no longer zero, whereas a convolution
counts on reading zeros beyond the image. So they are set back to zero where a convolution would read them, by one more
node of the private domain:

    Mask(x)   attribute `size` (rows, columns): what lies beyond them is set to zero, in pixels of the unsplit image

In pixels of the unsplit image, because then a mask means the same in every layout, and commutes with split and merge.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from export.nodes import DOMAIN, MASK, Window, constant, new_node, size_of, sizes, unused_name

__all__ = ["crop_node", "mask_node", "pad_node"]


def pad_node(graph: ir.Graph, value: ir.Value, before: Window, after: Window) -> ir.Node:
    """Zeros around height and width: (top, left) and (bottom, right)."""
    *outer, height, width = sizes(value)
    assert height is not None and width is not None and value.dtype is not None
    name = unused_name(graph, f"{value.name}.pad")
    none = [0] * len(outer)
    pads = constant(graph, f"{name}.pads", np.array([*none, *before, *none, *after], np.int64))
    size = height + before[0] + after[0], width + before[1] + after[1]
    return new_node("Pad", [value, pads], name, [*outer, *size], value.dtype, mode="constant")


def crop_node(graph: ir.Graph, value: ir.Value, size: Window, start: Window = (0, 0)) -> ir.Node:
    """The (height, width) of an image that begin at `start`."""
    *outer, _, _ = shape = sizes(value)
    assert value.dtype is not None
    name = unused_name(graph, f"{value.name}.crop")
    axes = len(shape) - 2, len(shape) - 1
    ends = start[0] + size[0], start[1] + size[1]
    numbers: Sequence[tuple[str, Window]] = (("starts", start), ("ends", ends), ("axes", axes))
    constants = [constant(graph, f"{name}.{kind}", np.array(pair, np.int64)) for kind, pair in numbers]
    return new_node("Slice", [value, *constants], name, [*outer, *size], value.dtype)


def mask_node(graph: ir.Graph, value: ir.Value, size: Window) -> ir.Node:
    """Zeros wherever the unsplit image lies beyond `size`."""
    assert value.dtype is not None and size_of(value)
    name = unused_name(graph, f"{value.name}.mask")
    return new_node(MASK, [value], name, sizes(value), value.dtype, DOMAIN, size=size)
