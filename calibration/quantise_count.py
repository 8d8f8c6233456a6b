"""How much of a graph's work is done in int8."""

from math import prod

import onnx

__all__ = ["count_int8", "multiply_adds"]


def multiply_adds(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-adds of each convolution, by name, for one frame; of a trunk for one split batch."""
    shapes = _shapes(model)
    return {
        node.name: prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
        for node in model.graph.node
        if node.op_type == "Conv"
    }


def count_int8(model: onnx.ModelProto) -> float:
    """The share of the convolutions' multiply-adds, 0..1, whose two sides are dequantised from int8."""
    work = multiply_adds(model)
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    done = sum(
        work[node.name]
        for node in model.graph.node
        if node.op_type == "Conv" and dequantised.issuperset(node.input[:2])
    )
    return done / max(1, sum(work.values()))


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor where the inputs' free dimension is 1."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    graph = fixed.graph
    graph.ClearField("value_info")
    for value in graph.input:
        for size in value.type.tensor_type.shape.dim:
            if not size.HasField("dim_value"):
                size.dim_value = 1
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True).graph
    shapes = {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    return shapes | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
