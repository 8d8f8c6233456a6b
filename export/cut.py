"""Cut a graph in two at a split level: the stem makes split batches, the trunk turns any of them into labels.

The level counts the splits passed. The stem ends with the splits that reach it; the trunk begins there and leaves out
the merges that would lead back above it, so that every split batch comes out by itself.
"""

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from export.layouts import Layout, grid, layouts_of
from export.nodes import is_merge, is_split, sizes
from splitmerge.errors import InputError
from splitmerge.package import Cut

__all__ = ["FEATURES", "Parts", "cut_at", "split_levels"]

FEATURES = "features"


@dataclass(frozen=True)
class Parts:
    """The halves of a graph. The stem's outputs and the trunk's inputs have the same names, in the same order."""

    stem: ir.Model
    trunk: ir.Model
    cut: Cut


def split_levels(model: ir.Model) -> int:
    """How many splits the longest path through the graph passes."""
    return max(map(len, layouts_of(model.graph).values()), default=0)


def cut_at(model: ir.Model, level: int) -> Parts:
    """Cut a graph whose poolings are still nodes, one for each split of the network, behind `level` splits.

    The graph stays as it is. Raises InputError where it has fewer splits or cannot be cut there.
    """
    levels = split_levels(model)
    if not 1 <= level <= levels:
        raise InputError(
            f"There is no split level {level} to cut at: the network has levels 1 to {levels}, and 0 leaves it whole."
        )
    model = model.clone()
    layouts = layouts_of(model.graph)
    last = _last_splits(model.graph, layouts, level)
    boundary = [node.outputs[0] for node in model.graph if node.outputs[0] in last]
    crossing = {layouts[value] for value in boundary}
    if len(crossing) > 1:
        raise InputError(f"The network's branches are split by different windows up to level {level}: cut elsewhere.")
    rows, columns = grid(crossing.pop())
    stem = _extracted(model, list(model.graph.inputs), boundary, level)
    _end_below(model, layouts, level)
    trunk = _extracted(model, boundary, list(model.graph.outputs), level)
    _name_features(stem, trunk)
    return Parts(stem, trunk, Cut(level, rows, columns))


def _last_splits(graph: ir.Graph, layouts: dict[ir.Value, Layout], level: int) -> set[ir.Value]:
    """What the splits to that level make that no other one comes behind on the way to the end."""
    found: set[ir.Value] = set()
    seen: set[ir.Value] = set()
    ahead = list(graph.outputs)
    while ahead:
        value = ahead.pop()
        node = value.producer()
        if node is None or value in seen:
            continue
        seen.add(value)
        if is_split(node) and len(layouts[value]) == level:
            found.add(value)
        else:
            ahead += [one for one in node.inputs if one is not None]
    return found


def _extracted(model: ir.Model, inputs: list[ir.Value], outputs: list[ir.Value], level: int) -> ir.Model:
    try:
        graph = ir.convenience.extract(model.graph, inputs, outputs)
    except ValueError:
        raise InputError(
            f"The network cannot be cut at level {level}, because a connection leads around the splits of that level: "
            "choose a lower level."
        ) from None
    part = ir.Model(graph, ir_version=model.ir_version)
    common.RemoveUnusedNodesPass()(part)
    return part


def _end_below(model: ir.Model, layouts: dict[ir.Value, Layout], level: int) -> None:
    """Take out the merges that lead above the level. Only the ends of a graph, nothing but merges, can be."""
    graph = model.graph
    for node in list(graph):
        output = node.outputs[0]
        if not is_merge(node) or len(layouts[output]) >= level:
            continue
        if not all(is_merge(reader) for reader in output.consumers()):
            raise InputError(f"The network cannot be cut at level {level}: it goes on behind {node.name}.")
        value = node.inputs[0]
        assert value is not None
        output.replace_all_uses_with(value, replace_graph_outputs=True)
        graph.remove(node, safe=True)


def _name_features(stem: ir.Model, trunk: ir.Model) -> None:
    outputs, inputs = stem.graph.outputs, trunk.graph.inputs
    for index, (output, value) in enumerate(zip(outputs, inputs, strict=True)):
        name = FEATURES if len(outputs) == 1 else f"{FEATURES}.{index}"
        output.name = value.name = name
        producer = output.producer()
        assert producer is not None
        producer.name = name  # a pooling's last reshape is named after it
        value.shape = ir.Shape(["n", *sizes(value)[1:]])
