"""The two ends of a graph: frames as they are decoded go in, label maps come out.

TensorRT knows uint8 at inputs and outputs only, so the cast is the first operator after `frames` and the last one
before `labels`.
"""

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from export.borders import crop_node
from export.nodes import constant, insert_after_value, is_split, new_node, numpy_of, sizes
from export.simplify import set_weights
from splitmerge.errors import InputError
from splitmerge.package import InputContract

__all__ = ["FRAMES", "LABELS", "LOGITS", "add_frames_input", "add_labels", "finish_labels"]

FRAMES, LABELS, LOGITS = "frames", "labels", "logits"

_Number = TypeVar("_Number", bound=np.generic)


def add_frames_input(model: ir.Model, contract: InputContract) -> None:
    """Put cast, layout, normalisation and padding in front: `frames` uint8 `[N,H,W,3]`, blue-green-red.

    Red and blue change places in the first convolution's weights and in the constants, which costs nothing.
    """
    graph = model.graph
    (x,) = graph.inputs
    _reverse_first_convolutions(graph, x)
    height, width = contract.height, contract.width
    frames = ir.val(FRAMES, ir.DataType.UINT8, ["N", height, width, 3])
    nodes = list(_preprocessing(graph, frames, contract))
    graph.inputs[:] = [frames]
    insert_after_value(graph, frames, nodes)
    x.replace_all_uses_with(nodes[-1].outputs[0])


def add_labels(model: ir.Model, logits: bool) -> None:
    """Make the labels the graph's output, still as int32, and keep its logits behind them where they are asked for."""
    graph = model.graph
    (scores,) = graph.outputs
    _, _, height, width = sizes(scores)
    argmax = new_node(
        "ArgMax", [scores], "argmax", [None, height, width], ir.DataType.INT64, axis=1, keepdims=0, select_last_index=0
    )
    narrow = new_node(
        "Cast", argmax.outputs, "argmax.int32", [None, height, width], ir.DataType.INT32, to=ir.DataType.INT32.value
    )
    graph.extend([argmax, narrow])
    graph.outputs[:] = [narrow.outputs[0], scores] if logits else [narrow.outputs[0]]


def finish_labels(model: ir.Model, batch: str, crop: tuple[int, int] | None) -> None:
    """End the graph with `labels` uint8 `[batch,H,W]` (and `logits`), cropped to (height, width) if one is given."""
    graph = model.graph
    outputs = list(graph.outputs)
    if crop is not None:
        crops = [crop_node(graph, output, crop) for output in outputs]
        graph.extend(crops)
        outputs = [node.outputs[0] for node in crops]
    _, height, width = sizes(outputs[0])
    cast = new_node("Cast", outputs[:1], LABELS, [batch, height, width], ir.DataType.UINT8, to=ir.DataType.UINT8.value)
    graph.append(cast)
    outputs[0] = cast.outputs[0]
    if len(outputs) > 1:
        outputs[1].name = LOGITS
        outputs[1].shape = ir.Shape([batch, *sizes(outputs[1])[1:]])
    graph.outputs[:] = outputs


def _preprocessing(graph: ir.Graph, frames: ir.Value, contract: InputContract) -> Iterator[ir.Node]:
    height, width = contract.size
    mean = 255 * _channels(contract.mean)
    inverse_std = 1 / (255 * _channels(contract.std))
    real = ir.DataType.FLOAT
    cast = new_node("Cast", [frames], "frames.float", [None, height, width, 3], real, to=real.value)
    yield cast
    planes = new_node("Transpose", cast.outputs, "frames.planes", [None, 3, height, width], real, perm=(0, 3, 1, 2))
    yield planes
    offset = constant(graph, "normalise.mean", mean.astype(np.float32))
    centred = new_node("Sub", [planes.outputs[0], offset], "normalise.centred", [None, 3, height, width], real)
    yield centred
    factor = constant(graph, "normalise.inverse_std", inverse_std.astype(np.float32))
    normal = new_node("Mul", [centred.outputs[0], factor], "normalise", [None, 3, height, width], real)
    yield normal
    below, right = contract.padded_height - height, contract.padded_width - width
    if below or right:
        pads = constant(graph, "padding.pads", np.array([0, 0, 0, 0, 0, 0, below, right], np.int64))
        shape = [None, 3, height + below, width + right]
        yield new_node("Pad", [normal.outputs[0], pads], "padding", shape, real, mode="constant")


def _channels(rgb: tuple[float, float, float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Red, green, blue as `[1,3,1,1]` in the frames' order: blue, green, red."""
    return np.array(rgb[::-1], np.float64).reshape(1, 3, 1, 1)


def _reverse_first_convolutions(graph: ir.Graph, x: ir.Value) -> None:
    for reader in list(x.consumers()):
        if is_split(reader):
            _reverse_first_convolutions(graph, reader.outputs[0])
        elif reader.op_type == "Conv" and reader.attributes["group"].as_int() == 1 and reader.inputs[0] is x:
            set_weights(graph, reader, numpy_of(reader.inputs[1])[:, ::-1])
        else:
            raise InputError(
                f"The network gives its image to {reader.name} ({reader.op_type}); export turns red-green-blue into "
                "blue-green-red inside the first convolution, so begin with a convolution of one group."
            )
