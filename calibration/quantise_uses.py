"""Which inputs of which nodes shall be int8, and what a tensor was called before split and merge moved it."""

from collections.abc import Collection
from math import prod

import onnx_ir as ir

from export.nodes import is_constant, only_reader
from splitmerge.errors import InputError

__all__ = ["Use", "chosen", "int8_uses", "is_move", "keeps_channels", "root", "source_of"]

Use = tuple[ir.Node, int]
"""A node and the number of one of its inputs."""

_MOVES = ("Reshape", "Transpose")


def chosen(graph: ir.Graph, layers: Collection[str] | None) -> list[ir.Node]:
    """The convolutions named in `layers`, or all with constant weights, in the graph's order.

    Raises InputError for names that are no such convolutions.
    """
    found = [node for node in graph if node.op_type == "Conv" and not node.domain and is_constant(source_of(node, 1))]
    if layers is None:
        return found
    unknown = sorted(set(layers) - {node.name for node in found})
    if unknown:
        have = ", ".join(str(node.name) for node in found[:4])
        raise InputError(
            f"The graph {graph.name} has no convolution {unknown[0]!r} that could be int8: of its {len(found)} choose "
            f"by names like {have}."
        )
    return [node for node in found if node.name in layers]


def int8_uses(graph: ir.Graph, layers: Collection[ir.Node]) -> list[Use]:
    """What shall read int8 where the convolutions `layers` do: they themselves, and the shortcuts of their sums.

    A shortcut is quantised where a convolution reads the same tensor, or has made it, be that in front of a cut.
    """
    everywhere = chosen(graph, None)
    read = {root(source_of(node)) for node in everywhere}
    depths = _depths(graph)
    uses: list[Use] = []
    for node in graph:
        if node in layers:
            uses.append((node, 0))
        elif node.op_type == "Add" and not node.domain:
            index = _shortcut(node, depths)
            if index is None or source_of(node, 1 - index).producer() not in layers:
                continue
            start = root(source_of(node, index))
            if start in read or start.is_graph_input() or start.producer() in everywhere:
                uses.append((node, index))
    return uses


def source_of(node: ir.Node, index: int = 0) -> ir.Value:
    """An input that the operator cannot do without."""
    value = node.inputs[index]
    assert value is not None, node.name
    return value


def is_move(node: ir.Node | None) -> bool:
    """Whether a node only rearranges what it reads."""
    return node is not None and node.op_type in _MOVES and not node.domain


def root(value: ir.Value) -> ir.Value:
    """The tensor with the same numbers in it, before they were moved."""
    while (node := value.producer()) is not None and is_move(node):
        value = source_of(node)
    return value


def keeps_channels(value: ir.Value) -> bool:
    """Whether axis 1 of a tensor is axis 1 of its root, as split and merge leave it; unknown shapes count as no."""
    axis: int | None = 1
    while axis is not None and (node := value.producer()) is not None and is_move(node):
        axis = _axis_before(node, axis)
        value = source_of(node)
    return axis == 1


def _axis_before(node: ir.Node, axis: int) -> int | None:
    """The axis that became `axis` of the output; None where a reshape breaks it up."""
    if node.op_type == "Transpose":
        return node.attributes["perm"].as_ints()[axis]
    before, after = source_of(node).shape, node.outputs[0].shape
    if before is None or after is None:
        return None
    strides = [_stride(before, index) for index in range(len(before))]
    wanted = _stride(after, axis)
    return strides.index(wanted) if wanted is not None and wanted in strides else None


def _stride(shape: ir.Shape, axis: int) -> tuple[int, int] | None:
    """Extent of an axis and how many numbers apart its entries lie."""
    sizes = [size for size in shape[axis:] if isinstance(size, int)]
    return (sizes[0], prod(sizes[1:])) if len(sizes) == len(shape) - axis else None


def _shortcut(add: ir.Node, depths: dict[ir.Value, int]) -> int | None:
    """Which side of a residual sum is the shortcut: not the convolution, or of two the one with fewer before it."""
    sides = [
        index
        for index, value in enumerate(add.inputs)
        if value is not None
        and (node := value.producer()) is not None
        and node.op_type == "Conv"
        and only_reader(value)
    ]
    if not sides or any(value is None or is_constant(value) for value in add.inputs):
        return None
    deepest = max(sides, key=lambda index: depths[source_of(add, index)])
    return 1 - deepest


def _depths(graph: ir.Graph) -> dict[ir.Value, int]:
    """How many convolutions lie before each value, on the longest way; graphs are sorted."""
    depths: dict[ir.Value, int] = {}
    for node in graph:
        before = max((depths.get(value, 0) for value in node.inputs if value is not None), default=0)
        for value in node.outputs:
            depths[value] = before + (node.op_type == "Conv")
    return depths
