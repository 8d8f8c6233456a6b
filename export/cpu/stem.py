"""The stem of a large frame, one split batch at a time.

Where a stem is one convolution and splits behind it, split batch (k,l) is the same convolution with the splits' step
for stride, of the image from pixel (k,l) on. So no pixel is computed twice, and the map of the whole frame, the largest
tensor of all, is never made. ONNX's Scan goes from batch to batch and writes each where the trunk reads it.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from export.cpu.emitter import Emitter
from export.cpu.nested import MAP_BYTES
from export.layouts import POINTWISE, grid, layouts_of
from export.nodes import is_constant, is_split, size_of, sizes, window_of

__all__ = ["stem_by_batches"]

_INT64 = ir.DataType.INT64


def stem_by_batches(stem: ir.Model) -> bool:
    """Rewrite a stem, its poolings as nodes, and return whether that was done: where its map is larger than MAP_BYTES.

    Below, the convolution of the whole frame is faster (two cores, 16 channels: 256x512 17 ms in one go and 21 by
    batches, 512x1024 73 and 71, 1024x2048 257 and 236; 64 channels: 256x512 94 and 35, 1024x2048 1,163 and 520).
    """
    graph = stem.graph
    nodes = _convolution_and_splits(graph)
    if nodes is None:
        return False
    convolution, *behind = nodes
    image, whole = convolution.inputs[0], convolution.outputs[0]
    assert image is not None
    _, channels, height, width = sizes(whole)
    if not (channels and height and width) or 4 * channels * height * width <= MAP_BYTES:
        return False
    step = grid(tuple(window_of(node) for node in behind if is_split(node)))
    (features,) = graph.outputs
    made = _scanned(graph, image, convolution, [node for node in behind if not is_split(node)], step)
    made.name, features.name = features.name, f"{features.name}.before"
    made.dtype, made.shape = ir.DataType.FLOAT, ir.Shape([None, *sizes(features)[1:]])
    graph.outputs[:] = [made]
    common.RemoveUnusedNodesPass()(stem)
    return True


def _scanned(
    graph: ir.Graph, image: ir.Value, convolution: ir.Node, pointwise: Sequence[ir.Node], step: tuple[int, int]
) -> ir.Value:
    """The split batches `[N*rows*columns,C,h,w]` of all images, image by image."""
    (rows, columns), (height, width) = step, size_of(convolution.outputs[0])
    weights = convolution.inputs[1]
    assert weights is not None
    taps_down, taps_across = size_of(weights)
    emit = Emitter("split_batches")
    pads = convolution.attributes.get_ints("pads", [0, 0, 0, 0])
    padded = emit("Pad", image, emit.constant(np.array([0, 0, *pads[:2], 0, 0, *pads[2:]])), mode="constant")
    starts = np.array([[0, 0, row, column] for row in range(rows) for column in range(columns)])
    count = emit("Squeeze", emit("Shape", image, start=0, end=1))
    image_index = emit("Range", emit.constant(np.array(0)), count, emit.constant(np.array(1)))
    of_image = emit("Mul", emit.reshape(image_index, -1, 1, 1), emit.constant(np.array([1, 0, 0, 0])))
    start = emit.reshape(emit("Add", of_image, emit.constant(starts[None])), -1, 4)
    extent = [1, sizes(image)[1] or 1, height - rows + taps_down, width - columns + taps_across]
    end = emit("Add", start, emit.constant(np.array(extent)))
    body = _body(padded, convolution, pointwise, step)
    made = emit("Scan", start, end, body=body, num_scan_inputs=2)
    emit.insert_before(graph, convolution)
    return made


def _body(padded: ir.Value, convolution: ir.Node, pointwise: Sequence[ir.Node], step: tuple[int, int]) -> ir.Graph:
    """One split batch `[C,h,w]`, from where it starts and ends in the images `[N,C,H,W]`, which lie outside."""
    emit = Emitter("split_batches.one")
    start, end = (ir.val(f"{emit.name}.{name}", _INT64, [4]) for name in ("start", "end"))
    _, *constants = convolution.inputs
    value = emit("Conv", emit("Slice", padded, start, end), *constants)
    kept = {name: attribute for name, attribute in convolution.attributes.items() if name in ("group", "kernel_shape")}
    emit.nodes[-1].attributes.update({**kept, "strides": ir.AttrInt64s("strides", step)})
    for node in pointwise:
        value = emit(node.op_type, value, *node.inputs[1:])
        emit.nodes[-1].attributes.update(node.attributes)
    _, channels, height, width = sizes(convolution.outputs[0])
    shape = [channels or 1, (height or 1) // step[0], (width or 1) // step[1]]
    out = emit.reshape(value, *shape)
    out.dtype, out.shape = ir.DataType.FLOAT, ir.Shape(shape)
    return ir.Graph([start, end], [out], nodes=emit.nodes, initializers=emit.constants, name=emit.name)


def _convolution_and_splits(graph: ir.Graph) -> list[ir.Node] | None:
    """The nodes from the only convolution to the only output, if splits and what treats each number by itself is all
    that stands between them, nobody else reads a value there, and the image is not split; else None.
    """
    if len(graph.outputs) != 1 or sum(node.op_type == "Conv" for node in graph) != 1:
        return None
    layouts = layouts_of(graph)
    nodes: list[ir.Node] = []
    value: ir.Value | None = graph.outputs[0]
    while value is not None and len(value.uses()) == (1 if nodes else 0):
        node = value.producer()
        if node is None:
            return None
        nodes.insert(0, node)
        if node.op_type == "Conv":
            return nodes if _is_plain(node) and layouts[value] == () else None
        alone = all(other is None or is_constant(other) for other in node.inputs[1:])
        if not is_split(node) and (node.domain or node.op_type not in POINTWISE or not alone):
            return None
        value = node.inputs[0]
    return None


def _is_plain(node: ir.Node) -> bool:
    """Whether it is a float convolution, not dilated, that keeps height and width."""
    image, *constants = node.inputs
    if image is None or not constants or not all(value is not None and is_constant(value) for value in constants):
        return False
    weights, made = constants[0], node.outputs[0]
    assert weights is not None
    dense = set(node.attributes.get_ints("dilations", [1])) == set(node.attributes.get_ints("strides", [1])) == {1}
    padded = node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    return weights.dtype == ir.DataType.FLOAT and dense and padded and size_of(image) == size_of(made)
