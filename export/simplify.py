"""Rewrites that change no meaning: batch norm into convolutions, resizing and reshaping by constants."""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from export.nodes import constant, is_constant, numpy_of, only_reader, sizes

__all__ = ["fix_reshape_sizes", "fix_resize_sizes", "fold_batch_norm"]


def fold_batch_norm(model: ir.Model) -> None:
    """Multiply every batch norm that directly follows a convolution into its weights, computing in float64.

    y = (conv(x) - mean) * gamma / sqrt(var + eps) + beta is again a convolution with a bias.
    """
    graph = model.graph
    for norm in list(graph):
        conv = norm.inputs[0].producer() if norm.op_type == "BatchNormalization" and norm.inputs[0] else None
        if conv is None or conv.op_type != "Conv" or only_reader(conv.outputs[0]) is not norm:
            continue
        _fold(graph, conv, norm)
        norm.outputs[0].replace_all_uses_with(conv.outputs[0], replace_graph_outputs=True)
        graph.remove(norm, safe=True)
    common.RemoveUnusedNodesPass()(model)


def _fold(graph: ir.Graph, conv: ir.Node, norm: ir.Node) -> None:
    gamma, beta, mean, variance = (numpy_of(value).astype(np.float64) for value in norm.inputs[1:5])
    epsilon = norm.attributes["epsilon"].as_float()
    scale = gamma / np.sqrt(variance + epsilon)
    weight = numpy_of(conv.inputs[1]).astype(np.float64)  # [outputs,inputs,kh,kw]
    has_bias = len(conv.inputs) > 2 and conv.inputs[2] is not None
    bias = numpy_of(conv.inputs[2]).astype(np.float64) if has_bias else np.zeros_like(mean)
    set_weights(graph, conv, weight * scale[:, None, None, None], (bias - mean) * scale + beta)


def set_weights(
    graph: ir.Graph, conv: ir.Node, weight: NDArray[np.generic], bias: NDArray[np.generic] | None = None
) -> None:
    """Give a convolution float32 weights of its own, named after it; others that shared the old ones keep them."""
    conv.resize_inputs(max(len(conv.inputs), 3 if bias is not None else 2))
    for index, kind, array in ((1, "weight", weight), (2, "bias", bias)):
        if array is None:
            continue
        old = conv.inputs[index]
        conv.replace_input_with(index, None)
        if old is not None and old.name and old.name in graph.initializers and not old.uses():
            del graph.initializers[old.name]
        name = f"{conv.name}.{kind}"
        while name in graph.initializers:  # still in use by a convolution that shares it
            name += "_own"
        conv.replace_input_with(index, constant(graph, name, array.astype(np.float32)))


def fix_resize_sizes(model: ir.Model) -> None:
    """Give every resize a constant factor, instead of sizes that PyTorch's exporter computes from the free batch.

    (TensorRT-RTX 1.7 takes no sizes beside a free batch.)
    """
    for node in model.graph:
        if node.op_type == "Resize" and len(node.inputs) == 4 and node.inputs[3] and not is_constant(node.inputs[3]):
            _fix_size(model.graph, node)
    common.RemoveUnusedNodesPass()(model)


def fix_reshape_sizes(model: ir.Model) -> None:
    """Give every reshape whose result has one free size a constant shape, instead of one computed from the batch."""
    for node in model.graph:
        shape_input = node.inputs[1] if node.op_type == "Reshape" else None
        if shape_input is not None and not is_constant(shape_input):
            shape = [-1 if size is None else size for size in sizes(node.outputs[0])]
            if shape.count(-1) == 1:
                node.replace_input_with(1, constant(model.graph, f"{node.name}.shape", np.array(shape, np.int64)))
    common.RemoveUnusedNodesPass()(model)


def _fix_size(graph: ir.Graph, node: ir.Node) -> None:
    value = node.inputs[0]
    assert value is not None
    before, after = sizes(value)[2:], sizes(node.outputs[0])[2:]
    factors = [_factor(small, large) for small, large in zip(before, after, strict=True) if small and large]
    if len(factors) == 2:
        node.resize_inputs(3)
        node.replace_input_with(2, constant(graph, f"{node.name}.scales", np.array([1, 1, *factors], np.float32)))


def _factor(small: int, large: int) -> np.float32:
    """The factor by which ONNX, which rounds down in any precision, makes `large` pixels of `small` ones."""
    factor = np.float32(large / small)
    while small * float(factor) < large:
        factor = np.nextafter(factor, np.float32(np.inf))
    return factor
