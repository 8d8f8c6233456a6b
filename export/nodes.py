"""Small tools on onnx-ir graphs, and split and merge pooling as nodes.

While a graph is being rewritten a pooling is one node of the private domain `splitmerge`:

    SplitPool(x)   attributes `window` (rows, columns) and, once numbered, `grid`
    MergePool(x)   the same
    Mask(x)        zeros beyond an image, see `export.borders`

`grid` is the (rows, columns) of split batches that the image is already parted into on the pooling's unsplit side.
`export.lower` replaces all of them; no finished graph holds one.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from splitmerge.errors import InputError

__all__ = [
    "DOMAIN",
    "MASK",
    "MERGE",
    "SPLIT",
    "Window",
    "constant",
    "drops_channels",
    "grid_of",
    "insert_after_value",
    "is_constant",
    "is_mask",
    "is_merge",
    "is_split",
    "new_node",
    "numpy_of",
    "only_reader",
    "size_of",
    "sizes",
    "take_over",
    "unused_name",
    "window_of",
]

DOMAIN = "splitmerge"
SPLIT, MERGE, MASK = "SplitPool", "MergePool", "Mask"

Window = tuple[int, int]
"""(rows, columns) of a pooling window or of a grid of split batches."""


def is_split(node: ir.Node | None) -> bool:
    return node is not None and node.domain == DOMAIN and node.op_type == SPLIT


def is_merge(node: ir.Node | None) -> bool:
    return node is not None and node.domain == DOMAIN and node.op_type == MERGE


def is_mask(node: ir.Node | None) -> bool:
    return node is not None and node.domain == DOMAIN and node.op_type == MASK


def window_of(node: ir.Node) -> Window:
    """The window of a pooling."""
    rows, columns = node.attributes["window"].as_ints()
    return rows, columns


def grid_of(node: ir.Node) -> Window:
    """The grid on the unsplit side of a pooling that has been numbered."""
    rows, columns = node.attributes["grid"].as_ints()
    return rows, columns


def is_constant(value: ir.Value) -> bool:
    """Whether the value is a weight or another constant of the graph."""
    return value.const_value is not None


def numpy_of(value: ir.Value | None) -> NDArray[np.generic]:
    """The contents of a constant. Raises InputError where the value is computed instead."""
    if value is None or value.const_value is None:
        raise InputError(
            f"The network computes {value.name if value else 'a missing input'} from its input where export needs a "
            "constant: make it a weight or a fixed number."
        )
    return value.const_value.numpy()


def constant(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Add a constant to the graph."""
    value = ir.val(name, const_value=ir.tensor(np.ascontiguousarray(array), name=name))
    graph.register_initializer(value)
    return value


def sizes(value: ir.Value) -> tuple[int | None, ...]:
    """The shape of a value, None for a free dimension. Raises InputError where even its rank is unknown."""
    if value.shape is None:
        raise InputError(f"The shape of {value.name} is unknown: export needs fixed heights, widths and channels.")
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def size_of(value: ir.Value) -> Window:
    """Height and width, the last two dimensions. Raises InputError where they are not fixed."""
    shape = sizes(value)
    if len(shape) < 2 or shape[-2] is None or shape[-1] is None:
        raise InputError(f"The shape of {value.name} is {shape}: export needs a fixed height and width.")
    return shape[-2], shape[-1]


def unused_name(graph: ir.Graph, name: str) -> str:
    """The name, numbered where a node of the graph or its output has it already."""
    taken = {name for node in graph for name in (node.name, *(output.name for output in node.outputs))}
    numbered = (f"{name}_{count}" for count in range(1, len(taken) + 1))
    return next(one for one in (name, *numbered) if one not in taken)


def new_node(
    op_type: str,
    inputs: Sequence[ir.Value | None],
    name: str,
    shape: Sequence[int | str | None],
    dtype: ir.DataType,
    domain: str = "",
    **attributes: int | float | str | Sequence[int] | Sequence[float],
) -> ir.Node:
    """A node with one output, which has the node's name."""
    output = ir.val(name, dtype, shape)
    return ir.node(op_type, inputs, attributes, domain=domain, outputs=[output], name=name)


def insert_after_value(graph: ir.Graph, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Put nodes where `value` has just been computed: behind its producer, or first for an input of the graph."""
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, nodes)
    elif len(graph) == 0:
        graph.extend(nodes)
    else:
        graph.insert_before(graph[0], nodes)


def drops_channels(node: ir.Node) -> bool:
    """Whether an ArgMax goes over the channels of `[N,C,H,W]` and gives `[N,H,W]`."""
    return node.attributes.get_int("axis", 0) == 1 and node.attributes.get_int("keepdims", 1) == 0


def take_over(value: ir.Value, instead: ir.Value) -> None:
    """Let everybody read `instead`, under the name, type and shape of `value`, whose node nobody needs any more."""
    assert value.dtype is not None
    instead.dtype, instead.shape = value.dtype, value.shape
    name, value.name = value.name, f"{value.name}.before"
    instead.name = name
    value.replace_all_uses_with(instead, replace_graph_outputs=True)


def only_reader(value: ir.Value) -> ir.Node | None:
    """The node that reads a value, where it is the only one and the graph does not return the value."""
    readers = value.consumers()
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None
