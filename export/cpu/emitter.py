"""New nodes for a graph, under names that begin with what they stand for."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["Emitter"]

Attribute = int | float | str | Sequence[int] | Sequence[float] | ir.Graph


class Emitter:
    """Collects nodes and the constants that they read; shapes are inferred when the graph is finished."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[ir.Node] = []
        self.constants: list[ir.Value] = []

    def __call__(self, op_type: str, *inputs: ir.Value | None, **attributes: Attribute) -> ir.Value:
        """The output of a new node."""
        name = f"{self.name}.{op_type.lower()}{len(self.nodes)}"
        output = ir.val(name)
        given = {key: _attribute(key, value) for key, value in attributes.items()}
        self.nodes.append(ir.node(op_type, inputs, given, outputs=[output], name=name))
        return output

    def constant(self, array: NDArray[np.generic]) -> ir.Value:
        """A new constant."""
        name = f"{self.name}.constant{len(self.constants)}"
        value = ir.val(name, const_value=ir.tensor(np.ascontiguousarray(array), name=name))
        self.constants.append(value)
        return value

    def floats(self, array: NDArray[np.floating]) -> ir.Value:
        """A constant in single precision."""
        return self.constant(array.astype(np.float32))

    def reshape(self, value: ir.Value, *shape: int) -> ir.Value:
        return self("Reshape", value, self.constant(np.array(shape, np.int64)))

    def slice(self, value: ir.Value, axis: int, start: int, stop: int, step: int = 1) -> ir.Value:
        """Entries [start, stop) of one axis, every `step`-th."""
        limits = (self.constant(np.array([number], np.int64)) for number in (start, stop, axis, step))
        return self("Slice", value, *limits)

    def pad(self, value: ir.Value, rank: int, axis: int, before: int, after: int) -> ir.Value:
        """Zeros on one axis of a float tensor of `rank` axes."""
        pads = np.zeros(2 * rank, np.int64)
        pads[axis], pads[rank + axis] = before, after
        return self("Pad", value, self.constant(pads), mode="constant")

    def insert_before(self, graph: ir.Graph, node: ir.Node | None) -> None:
        """Put everything into the graph, in front of one of its nodes or at the end."""
        for value in self.constants:
            graph.register_initializer(value)
        if node is None:
            graph.extend(self.nodes)
        else:
            graph.insert_before(node, self.nodes)


def _attribute(name: str, value: Attribute) -> ir.Attr:
    return ir.AttrGraph(name, value) if isinstance(value, ir.Graph) else ir.convenience.convert_attribute(name, value)
