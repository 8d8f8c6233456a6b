"""Which split batches every value holds, and proof that their order is free.

The layout of a value is the stack of windows that were split and not yet merged, the first split first. PyTorch numbers
the batches of a split after those before it, so that after two splits image n's batch (k1,l1),(k2,l2) comes at
((n, k1, l1), k2, l2). A graph may use any other order, as long as no operator between the first split and the last
merge mixes batches. The order used here is the pixels': batch (n, K, L) with K = k1 + rows1 * k2 the full row offset
in the frame and L the column offset. Then consecutive splits are one split, consecutive merges are one merge, and
either needs no more than eight dimensions, which is TensorRT's limit, after any number of splits.
"""

from collections.abc import Callable, Mapping
from math import prod

import onnx_ir as ir

from export.nodes import Window, is_constant, is_mask, is_merge, is_split, numpy_of, sizes, window_of
from splitmerge.errors import InputError

__all__ = ["POINTWISE", "Layout", "check_merged", "grid", "layouts_of", "number_poolings"]

Layout = tuple[Window, ...]

# one operator a line would take a page
# fmt: off
POINTWISE = frozenset({
    "Abs", "Cast", "Ceil", "Celu", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign",
    "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu",
})
"""Operators that treat every number by itself and read one tensor (Clip's limits are constants)."""

_PER_IMAGE = frozenset({
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "GlobalAveragePool", "GlobalMaxPool",
    "GroupNormalization", "InstanceNormalization", "LRN", "LpPool", "MaxPool",
})
_BROADCASTING = frozenset({
    "Add", "Div", "Max", "Mean", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum", "Where",
})
# fmt: on


def grid(layout: Layout) -> Window:
    """(rows, columns) of split batches that a layout parts an image into."""
    return prod(rows for rows, _ in layout), prod(columns for _, columns in layout)


def layouts_of(graph: ir.Graph) -> dict[ir.Value, Layout]:
    """The layout of every computed value.

    Raises InputError where split batches are mixed, or merged in another order than they were split.
    """
    layouts: dict[ir.Value, Layout] = dict.fromkeys(graph.inputs, ())
    for node in graph:
        layout = _layout_after(node, layouts)
        for output in node.outputs:
            layouts[output] = layout
    return layouts


def check_merged(graph: ir.Graph) -> None:
    """Raise InputError where a whole network returns values that are still split."""
    layouts = layouts_of(graph)
    for output in graph.outputs:
        if layouts.get(output):
            raise InputError(
                f"The network's output {output.name} is still split {_text(layouts[output])}: merge it before it is "
                "returned."
            )


def number_poolings(graph: ir.Graph) -> None:
    """Note on every pooling the grid on its unsplit side, which fixes the order of its batches; on masks, theirs."""
    layouts = layouts_of(graph)
    for node in graph:
        if is_split(node) or is_merge(node) or is_mask(node):
            unsplit = node.outputs[0] if is_merge(node) else node.inputs[0]
            assert unsplit is not None
            node.attributes.add(ir.AttrInt64s("grid", grid(layouts[unsplit])))


def _layout_after(node: ir.Node, layouts: Mapping[ir.Value, Layout]) -> Layout:
    found = {layouts[v] for v in node.inputs if v is not None and v in layouts}
    if len(found) > 1:
        raise InputError(
            f"{node.name} ({node.op_type}) combines values that are split differently, "
            f"{' and '.join(sorted(map(_text, found)))}: split or merge them alike first."
        )
    layout = found.pop() if found else ()
    if is_split(node):
        return (*layout, window_of(node))
    if is_merge(node):
        return _merged(node, layout)
    if layout and not _keeps_batches(node, layouts):
        raise InputError(
            f"{node.name} ({node.op_type}) stands between a split and its merge, and it is not known to leave the "
            "batches apart: move it in front of the first split or behind the last merge."
        )
    return layout


def _merged(node: ir.Node, layout: Layout) -> Layout:
    if not layout or layout[-1] != window_of(node):
        last = _text(layout[-1:]) if layout else "nothing"
        raise InputError(
            f"{node.name} merges {_text((window_of(node),))} where {last} was split last: undo the splits one by one, "
            "the last one first."
        )
    return layout[:-1]


def _keeps_batches(node: ir.Node, layouts: Mapping[ir.Value, Layout]) -> bool:
    """Whether batch b of the output depends on batch b of the inputs alone, in the same way for every b."""
    if node.domain:
        return is_mask(node)
    if node.op_type in POINTWISE | _PER_IMAGE:
        return all(v is None or is_constant(v) for v in node.inputs[1:])
    if node.op_type in _BROADCASTING:
        return _broadcasts_apart(node, layouts)
    rule = _RULES.get(node.op_type)
    return rule is not None and rule(node)


def _broadcasts_apart(node: ir.Node, layouts: Mapping[ir.Value, Layout]) -> bool:
    values = [v for v in node.inputs if v is not None]
    rank = max(len(sizes(v)) for v in values)
    for value in values:
        size = sizes(value)
        if value in layouts:
            if len(size) != rank:
                return False
        elif not is_constant(value) or (len(size) == rank and size[0] != 1):
            return False
    return True


def _other_axis(node: ir.Node, default: int) -> bool:
    """Whether the node's `axis` is not the batch."""
    attribute = node.attributes.get("axis")
    axis = attribute.as_int() if attribute else default
    value = node.inputs[0]
    assert value is not None
    return axis % len(sizes(value)) != 0


def _transpose_keeps(node: ir.Node) -> bool:
    attribute = node.attributes.get("perm")
    return attribute is not None and attribute.as_ints()[0] == 0


def _pad_keeps(node: ir.Node) -> bool:
    pads = numpy_of(node.inputs[1])
    return len(node.inputs) < 4 and not pads[0] and not pads[len(pads) // 2]


def _slice_keeps(node: ir.Node) -> bool:
    value = node.inputs[0]
    assert value is not None
    return len(node.inputs) > 3 and all(axis % len(sizes(value)) for axis in numpy_of(node.inputs[3]).tolist())


def _resize_keeps(node: ir.Node) -> bool:
    if "axes" in node.attributes:
        return 0 not in node.attributes["axes"].as_ints()
    return len(node.inputs) == 3 and float(numpy_of(node.inputs[2])[0]) == 1.0


def _gather_keeps(node: ir.Node) -> bool:
    indices = node.inputs[1]
    return _other_axis(node, 0) and indices is not None and is_constant(indices)


_RULES: Mapping[str, Callable[[ir.Node], bool]] = {
    "ArgMax": lambda node: _other_axis(node, 0),
    "Concat": lambda node: _other_axis(node, 0),
    "Gather": _gather_keeps,
    "LogSoftmax": lambda node: _other_axis(node, -1),
    "Pad": _pad_keeps,
    "Resize": _resize_keeps,
    "Slice": _slice_keeps,
    "Softmax": lambda node: _other_axis(node, -1),
    "Transpose": _transpose_keeps,
}


def _text(layout: Layout) -> str:
    return " then ".join(f"{rows}x{columns}" for rows, columns in layout) or "not at all"
