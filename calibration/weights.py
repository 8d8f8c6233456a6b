"""Weights as int8: scales of output channels, and two ways to lose less by rounding them.

Scales are numbers that float16 holds, rounded up, so that a graph whose rest is float16 has the very int8 weights and
scales of one whose rest is float32, nothing clips, and a channel of tiny weights keeps a scale above zero.
"""

from collections.abc import Collection, Mapping

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray
from onnx_ir.passes import common

from calibration.quantise_uses import chosen, is_move, keeps_channels, root, source_of
from export.nodes import is_constant, numpy_of, only_reader
from export.simplify import set_weights
from splitmerge.errors import InputError

__all__ = ["LEVELS", "corrected_biases", "equalised", "quantised_weight", "scales_for", "weight_scales"]

LEVELS = 127
"""int8 from -127 to 127: symmetric, -128 stays unused."""

Array = NDArray[np.float32]


def scales_for(thresholds: ArrayLike) -> Array:
    """What one step of int8 stands for where `thresholds` shall just fit: float32 of any shape, exact in float16.

    A threshold of 0 gives the smallest positive float16; infinity stands for what float16 cannot hold.
    """
    wanted = np.asarray(thresholds, np.float64) / LEVELS
    with np.errstate(over="ignore"):
        near = wanted.astype(np.float16)
        up = np.where(near < wanted, np.nextafter(near, np.float16(np.inf)), near)
    return np.maximum(up, np.finfo(np.float16).smallest_subnormal).astype(np.float32)


def weight_scales(weight: NDArray[np.generic]) -> Array:
    """A scale float32 `[outputs]` for each output channel of weights `[outputs,inputs,kh,kw]`."""
    return scales_for(np.abs(weight).reshape(len(weight), -1).max(axis=1, initial=0))


def quantised_weight(weight: NDArray[np.generic], scales: Array) -> NDArray[np.int8]:
    """Weights `[outputs,inputs,kh,kw]` in steps of their channel's scale, rounded to nearest even."""
    steps = np.rint(np.asarray(weight, np.float64) / scales[:, None, None, None])
    return np.clip(steps, -LEVELS, LEVELS).astype(np.int8)


def corrected_biases(
    model: onnx.ModelProto, means: Mapping[str, NDArray[np.generic]], layers: Collection[str] | None = None
) -> onnx.ModelProto:
    """A copy of a float32 graph whose biases make up for the mean error of int8 weights (Nagel et al. 2019, 4.2).

    Rounding W to W' moves the mean of an output channel by (W' - W) mean(x). `means` has mean(x), float `[inputs]`, of
    the convolutions' inputs under the names of `quantised_tensors`. Zeros that a convolution pads with are not
    counted. Quantise the result: its weights are unchanged. Raises InputError for means that are missing or misshapen.
    """
    copy = ir.from_proto(model)
    common.ShapeInferencePass()(copy)
    for layer in chosen(copy.graph, layers):
        if not keeps_channels(source_of(layer)):
            continue
        weight = numpy_of(layer.inputs[1]).astype(np.float64)
        scales = weight_scales(weight)
        error = weight - quantised_weight(weight, scales) * scales.astype(np.float64)[:, None, None, None]
        shift = np.einsum("oihw,oi->o", error, _means(layer, weight.shape, means))
        bias = _bias_of(layer)
        set_weights(copy.graph, layer, weight, shift if bias is None else bias + shift)
    return ir.to_proto(copy)


def equalised(model: onnx.ModelProto, ranges: Mapping[str, NDArray[np.generic]] | None = None) -> onnx.ModelProto:
    """A copy of a float32 graph that computes the same with channels of more equal range (Nagel et al. 2019, 4.1).

    Where nothing but ReLU, split and merge stand between two convolutions, channel i of the first is divided by s and
    the second's weights for it are multiplied by s: s = sqrt(r1 / r2), rounded to a power of two. So the result is the
    same bit for bit, as long as no number leaves float32's range. r2 is the largest weight that reads the channel; r1
    the largest that makes it, or where `ranges` has the second's input (under its name of `quantised_tensors`, float
    `[channels]`) the channel's largest activation, which is what counts for int8 with a scale per output channel.
    Thresholds must be found anew on the result.
    """
    copy = ir.from_proto(model)
    common.ShapeInferencePass()(copy)
    for second in chosen(copy.graph, None):
        first = _feeding(second)
        if first is None or _groups(first) > 1 or _groups(second) > 1:
            continue
        maker, reader = numpy_of(first.inputs[1]), numpy_of(second.inputs[1])
        made = np.abs(maker).max(axis=(1, 2, 3))
        if ranges is not None:
            made = np.asarray(ranges.get(root(source_of(second)).name or "", made))
        power = _powers(made, np.abs(reader).max(axis=(0, 2, 3)))
        bias = _bias_of(first)
        bias = None if bias is None else np.ldexp(bias, -power)
        set_weights(copy.graph, first, np.ldexp(maker, -power[:, None, None, None]), bias)
        set_weights(copy.graph, second, np.ldexp(reader, power[None, :, None, None]))
    return ir.to_proto(copy)


def _means(layer: ir.Node, shape: tuple[int, ...], means: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float64]:
    """Mean inputs `[outputs,inputs of a group]`, as the weights of a grouped convolution see them."""
    name = root(source_of(layer)).name or ""
    outputs, inputs = shape[:2]
    groups = _groups(layer)
    mean = np.asarray(means[name], np.float64) if name in means else None
    if mean is None or mean.shape != (groups * inputs,) or not np.isfinite(mean).all():
        given = "none" if mean is None else f"shape {mean.shape}, or NaN"
        raise InputError(
            f"Correcting the bias of {layer.name} needs the {groups * inputs} channel means of {name} and got {given}: "
            "calibrate again on this graph."
        )
    return mean.reshape(groups, inputs)[np.arange(outputs) // (outputs // groups)]


def _feeding(second: ir.Node) -> ir.Node | None:
    """The convolution whose output `second` alone reads, with ReLU, split and merge between them at most."""
    value = source_of(second)
    if not keeps_channels(value):
        return None
    while only_reader(value) is not None and (node := value.producer()) is not None:
        if node.op_type == "Conv":
            return node if is_constant(source_of(node, 1)) else None
        if not is_move(node) and node.op_type != "Relu":
            return None
        value = source_of(node)
    return None


def _powers(made: NDArray[np.float32], read: NDArray[np.float32]) -> NDArray[np.int32]:
    """The whole number nearest to log2 of sqrt(made / read); 0 for channels that nothing makes or reads."""
    alive = (made > 0) & (read > 0) & np.isfinite(made)
    ratio = np.where(alive, made, 1) / np.where(alive, read, 1)
    return np.rint(np.log2(ratio.astype(np.float64)) / 2).astype(np.int32)


def _bias_of(layer: ir.Node) -> NDArray[np.generic] | None:
    return numpy_of(layer.inputs[2]) if len(layer.inputs) > 2 and layer.inputs[2] is not None else None


def _groups(layer: ir.Node) -> int:
    return layer.attributes.get_int("group", 1)
