"""Multiply-adds of an exported graph, counted from its convolutions and matrix products."""

from math import prod
from pathlib import Path

import onnx

from splitmerge.package import Package

__all__ = ["multiply_adds", "work_of"]


def work_of(package: Package) -> dict[str, int]:
    """Multiply-adds of one frame through the whole `model`, the `stem`, and one split batch of the `trunk`."""
    return {part: multiply_adds(package.path(graph)) for part, graph in package.parts("fp32").items()}


def multiply_adds(path: Path) -> int:
    """Those of a graph for one entry of its inputs' first axes. Raises ValueError where a size cannot be told."""
    model = onnx.load(path)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    for value in model.graph.output:  # what is said of a free batch contradicts the one that was just fixed
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {v.name: _shape(v) for v in (*inferred.input, *inferred.value_info, *inferred.output)}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    return sum(_of_node(node, shapes) for node in inferred.node)


def _of_node(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type == "Conv":  # a weight is [outputs, inputs / group, rows, columns]
        return _known(node, prod(shapes[node.output[0]])) * prod(shapes[node.input[1]][1:])
    if node.op_type == "MatMul":
        return _known(node, prod(shapes[node.output[0]])) * shapes[node.input[0]][-1]
    if node.op_type in ("Gemm", "ConvTranspose"):
        raise ValueError(f"{node.name} is a {node.op_type}, whose multiply-adds are not counted here.")
    return 0


def _known(node: onnx.NodeProto, size: int) -> int:
    if size <= 0:
        raise ValueError(f"The output of {node.name} ({node.op_type}) has no fixed size.")
    return size


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
