"""Labels of upsampled logits, in the order of memory that CPUs are faster with.

ONNX Runtime upsamples logits class by class and then compares, for each pixel, numbers that lie a whole map apart. Here
the width alone is upsampled by its own operator, a small part of the work, and the classes of a pixel are put side by
side. Of a band of rows a small matrix makes all the rows between them, and the largest logit is sought in one piece:

    [N,C,h,W] -> [N,h,W,C] -> bands [N,h/R,R+2,W*C] -> matrix [R*factor,R+2] -> [N,H,W,C] -> labels [N,H,W]

The two further rows of a band are its neighbours', or its own border once more.
"""

from math import floor

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.cpu.emitter import Emitter
from export.nodes import drops_channels, is_constant, numpy_of, sizes, take_over

__all__ = ["label_bands", "rows_between"]

_BAND = 4
"""Rows of a band before they are upsampled, at most. With 2 to 8 it took as long, with 1 a tenth longer (factor 4)."""


def label_bands(model: ir.Model) -> int:
    """Rewrite each argmax over the classes of linearly upsampled logits, and return how many that were.

    The factor must be a whole number with pixel centres at halves. Whoever else reads the upsampled logits is given
    those that were compared.
    """
    count = 0
    for argmax in [node for node in model.graph if node.op_type == "ArgMax" and drops_channels(node)]:
        resize = argmax.inputs[0].producer() if argmax.inputs[0] is not None else None
        factors = _factors(resize) if resize is not None else None
        if resize is not None and factors:
            _rewrite(model.graph, argmax, resize, factors)
            count += 1
    return count


def rows_between(rows: int, factor: int) -> NDArray[np.float32]:
    """Linear upsampling as a matrix `[rows * factor,rows + 2]`, from rows with one more above and below.

    Row y lies at (y + 0.5) / factor - 0.5 (ONNX's Resize, `half_pixel`).
    """
    matrix = np.zeros((rows * factor, rows + 2), np.float32)
    for y, weights in enumerate(matrix):
        place = (y + 0.5) / factor - 0.5
        above = floor(place)
        weights[above + 1] = 1 - (place - above)
        weights[above + 2] = place - above
    return matrix


def _rewrite(graph: ir.Graph, argmax: ir.Node, resize: ir.Node, factors: tuple[int, int]) -> None:
    logits, upsampled = resize.inputs[0], resize.outputs[0]
    assert logits is not None
    _, classes, height, width = sizes(logits)
    assert classes and height and width
    down, across = factors
    emit = Emitter(f"{argmax.name}.bands")
    value = logits
    if across > 1:
        value = emit("Resize", logits, None, emit.floats(np.array([1, 1, 1, across])))
        emit.nodes[-1].attributes.update(resize.attributes)
    value = emit("Transpose", value, perm=[0, 2, 3, 1])
    rows = max(rows for rows in range(1, _BAND + 1) if height % rows == 0)
    bands = height // rows
    taken = np.clip(np.arange(bands)[:, None] * rows + np.arange(-1, rows + 1), 0, height - 1)
    value = emit("Gather", value, emit.constant(taken), axis=1)
    value = emit.reshape(value, -1, bands, rows + 2, width * across * classes)
    value = emit("MatMul", emit.floats(rows_between(rows, down)), value)
    value = emit.reshape(value, -1, height * down, width * across, classes)
    last = argmax.attributes.get_int("select_last_index", 0)
    labels = emit("ArgMax", value, axis=3, keepdims=0, select_last_index=last)
    take_over(argmax.outputs[0], labels)
    graph.remove(argmax, safe=True)
    if upsampled.uses() or upsampled.is_graph_output():
        take_over(upsampled, emit("Transpose", value, perm=[0, 3, 1, 2]))
    emit.insert_before(graph, resize)
    graph.remove(resize, safe=True)


def _factors(node: ir.Node) -> tuple[int, int] | None:
    """Whole factors (rows, columns) of a linear upsampling that `rows_between` says; None for all others."""
    if node.op_type != "Resize" or len(node.inputs) != 3:
        return None
    logits, _, factors = node.inputs
    if logits is None or factors is None or not is_constant(factors):
        return None
    centres = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    linear = node.attributes.get_string("mode", "nearest") == "linear" and not node.attributes.get_int("antialias", 0)
    before, scales = sizes(logits), numpy_of(factors)
    if not linear or centres not in ("half_pixel", "pytorch_half_pixel"):
        return None
    if len(before) != 4 or None in before[1:] or set(scales[:2]) != {1}:
        return None
    down, across = (float(scale) for scale in scales[2:])
    return (int(down), int(across)) if down.is_integer() and across.is_integer() and down > 1 and across > 0 else None
