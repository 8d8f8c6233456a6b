"""Cut a graph in two at a split level: the stem makes split batches, the trunk turns any of them into labels.

The level counts the splits passed. The stem ends with the splits that reach it; the trunk begins there and leaves out
the merges that would lead back above it, so that every split batch comes out by itself.
"""

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from export.layouts import Layout, grid, layouts_of
from export.nodes import Window, is_mask, is_merge, is_split, sizes
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
    last, behind = _behind_last_splits(model.graph, layouts, level)
    boundary = [node.outputs[0] for node in model.graph if node.outputs[0] in last]
    crossing = {layouts[value] for value in boundary}
    if len(crossing) > 1:
        raise InputError(f"The network's branches are split by different windows up to level {level}: cut elsewhere.")
    rows, columns = grid(crossing.pop())
    stem = _extracted(model, list(model.graph.inputs), boundary, level)
    _end_below(model, layouts, level, behind)
    _share_masks(model, behind, (rows, columns))
    trunk = _extracted(model, boundary, list(model.graph.outputs), level)
    _name_features(stem, trunk)
    return Parts(stem, trunk, Cut(level, rows, columns))


def _behind_last_splits(
    graph: ir.Graph, layouts: dict[ir.Value, Layout], level: int
) -> tuple[set[ir.Value], set[ir.Value]]:
    """The results of the splits to that level behind which there is no other one, and all that is computed behind them.

    Splits in front of those belong to the stem, as do their merges: it may compute something on split batches, too.
    """
    last: set[ir.Value] = set()
    behind: set[ir.Value] = set()
    ahead = list(graph.outputs)
    while ahead:
        value = ahead.pop()
        node = value.producer()
        if node is None or value in behind:
            continue
        if is_split(node) and len(layouts[value]) == level:
            last.add(value)
        else:
            behind.add(value)
            ahead += [one for one in node.inputs if one is not None]
    return last, behind


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


def _end_below(model: ir.Model, layouts: dict[ir.Value, Layout], level: int, behind: set[ir.Value]) -> None:
    """Take out the merges that lead above the level. Only the ends of a graph, nothing but merges, can be.

    `behind` is what the trunk computes.
    """
    graph = model.graph
    for node in list(graph):
        output = node.outputs[0]
        if not is_merge(node) or len(layouts[output]) >= level or output not in behind:
            continue
        if not all(is_merge(reader) for reader in output.consumers()):
            raise InputError(f"The network cannot be cut at level {level}: it goes on behind {node.name}.")
        value = node.inputs[0]
        assert value is not None
        output.replace_all_uses_with(value, replace_graph_outputs=True)
        graph.remove(node, safe=True)


def _share_masks(model: ir.Model, behind: set[ir.Value], window: Window) -> None:
    """Let the trunk's masks count pixels of one split batch, of which all must have as many."""
    for node in model.graph:
        if is_mask(node) and node.outputs[0] in behind:
            size = node.attributes["size"].as_ints()
            assert not any(n % step for n, step in zip(size, window, strict=True))  # else a crop had followed the merge
            node.attributes.add(ir.AttrInt64s("size", [n // step for n, step in zip(size, window, strict=True)]))


def _name_features(stem: ir.Model, trunk: ir.Model) -> None:
    outputs, inputs = stem.graph.outputs, trunk.graph.inputs
    for index, (output, value) in enumerate(zip(outputs, inputs, strict=True)):
        name = FEATURES if len(outputs) == 1 else f"{FEATURES}.{index}"
        output.name = value.name = name
        producer = output.producer()
        assert producer is not None
        producer.name = name  # a pooling's last reshape is named after it
        value.shape = ir.Shape(["n", *sizes(value)[1:]])
