"""What a network makes of the whole image, computed beside the rest of it and as it was.

The image-level features of DeepLabv3 (section 3.3), EncNet's encoding and squeeze-and-excitation turn a map into a
vector of the image. Such a vector needs every pixel of its map. Where an output stride is lowered to 1, a map's pixels
are those of all split batches, which would have to be computed before the first of them could go on. So the operators
above such a vector are copied, and the copies are computed at the strides that they were trained at, from a map that
is as much smaller than the split batches together as there are split batches. Weights are shared, not copied.
"""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from export.geometry import geometry_of
from export.nodes import unused_name

__all__ = ["compute_context_apart"]


def compute_context_apart(graph: ir.Graph, strides: Mapping[ir.Value, int | None]) -> None:
    """Let whatever is no map of the image read copies of the operators above it; `strides` has None for what is none.

    Maps at stride 1 that come from no other ones stay shared. The copies are not in `strides`.
    """
    nodes = list(graph)
    reduced = _behind_reductions(nodes, strides)
    context = [node for node in nodes if _is_context(node, strides)]
    needed = _above([value for node in context for value in node.inputs], reduced)
    copies: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        if node.outputs[0] in needed:
            copy = _copied(graph, node, copies)
            graph.insert_before(node, copy)
            copies |= zip(node.outputs, copy.outputs, strict=True)
    for node in context:
        for index, value in enumerate(node.inputs):
            if value in copies:
                node.replace_input_with(index, copies[value])


def _is_context(node: ir.Node, strides: Mapping[ir.Value, int | None]) -> bool:
    """Whether a node makes of a map what is none; not by sliding a kernel, of which a single pixel may be left."""
    from_map = any(value is not None and strides.get(value) for value in node.inputs)
    return from_map and strides[node.outputs[0]] is None and geometry_of(node) is None


def _behind_reductions(nodes: Sequence[ir.Node], strides: Mapping[ir.Value, int | None]) -> set[ir.Value]:
    """The maps that will have other pixels: reduced ones, and what is computed from them."""
    found: set[ir.Value] = set()
    for node in nodes:
        for value in node.outputs:
            stride = strides[value]
            if stride is not None and (stride > 1 or any(one in found for one in node.inputs)):
                found.add(value)
    return found


def _above(values: Sequence[ir.Value | None], reduced: set[ir.Value]) -> set[ir.Value]:
    """Those of `reduced` that the values are computed from."""
    found: set[ir.Value] = set()
    ahead = list(values)
    while ahead:
        value = ahead.pop()
        if value is not None and value in reduced and value not in found:
            found.add(value)
            producer = value.producer()
            ahead += producer.inputs if producer else ()
    return found


def _copied(graph: ir.Graph, node: ir.Node, copies: Mapping[ir.Value, ir.Value]) -> ir.Node:
    """The node once more, on the copies of what it reads, as `NAME.context`."""
    name = unused_name(graph, f"{node.name}.context")
    inputs = [copies.get(value, value) if value is not None else None for value in node.inputs]
    outputs = [
        ir.val(name if index == 0 else f"{name}:{index}", value.dtype, value.shape)
        for index, value in enumerate(node.outputs)
    ]
    return ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()), outputs=outputs, name=name)
