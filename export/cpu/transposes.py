"""Transposes in several steps, each of which ONNX Runtime does fast.

ONNX Runtime 1.31 moves number by number where the last axis changes, in 4 ns each on an AMD EPYC (Zen 4), but copies
blocks, and moves one axis past others, in about half a nanosecond. So where two or three such steps lead to the same
order they are taken: splitting tiles side by side, entering and leaving the tiled layout take a third of the time.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import onnx_ir as ir

from export.cpu.emitter import Emitter
from export.nodes import is_constant, numpy_of

__all__ = ["in_steps", "nanoseconds", "part_transposes"]

Order = list[int]

_BY_NUMBER, _AT_BEST, _COPIED = 4.2, 0.5, 0.25
"""Nanoseconds for a number: on its own, in a block or in a single axis that moves, and where nothing moves."""
_GAIN = 0.8
"""Steps must take this share of the time of one: what they are estimated by is rough."""


def part_transposes(graph: ir.Graph) -> None:
    """Replace every Transpose of the graph, and of those inside it, that is faster in steps. Its input must come from a
    Reshape, which tells the sizes; one axis may be free, and counts as one number.
    """
    for node in list(ir.traversal.RecursiveGraphIterator(graph)):
        shape = _reshaped(node.inputs[0]) if node.op_type == "Transpose" else None
        if shape is None or 0 in shape:
            continue
        steps = in_steps(shape, list(node.attributes["perm"].as_ints()))
        if len(steps) > 1:
            _take_steps(node, shape, steps)


def in_steps(shape: Sequence[int], perm: Order) -> list[Order]:
    """The orders of the axes to go through, the last one being `perm`; only that one where no others are faster."""
    ways = [[perm]]
    for back in (False, True):
        start, end = (perm, _identity(perm)) if back else (_identity(perm), perm)
        found = _out_and_in(shape, start, end)
        if found:
            ways.append([*found[::-1], perm] if back else [*found, perm])
    direct, *others = ((_time(shape, way), way) for way in ways)
    best = min(others, default=direct)
    return best[1] if best[0] < _GAIN * direct[0] else direct[1]


def nanoseconds(shape: Sequence[int], before: Order, after: Order) -> float:
    """About how long ONNX Runtime takes for a number from one order of the axes to another."""
    sizes, perm = _merged(shape, before, after)
    if perm == _identity(perm):
        return _COPIED
    stays = perm[-1] == len(perm) - 1
    block = abs(sizes[-1]) if stays else 1
    if len(perm) - (perm[0] == 0) - stays == 2:  # one axis moves past one other
        return _AT_BEST
    return max(_AT_BEST, _BY_NUMBER / block)


def _out_and_in(shape: Sequence[int], before: Order, after: Order) -> list[Order]:
    """Two orders on the way. First the last axis and the one before it, in front of which others may take any place,
    stay together as a block; then the last axis moves out to its place; what belongs behind the block moves in.
    """
    axes = [axis for axis in before if shape[axis] != 1]
    if len(axes) < 3:
        return []
    alone = [axis for axis in before if shape[axis] == 1]
    fixed: Order = []  # what is last before and after
    target = [axis for axis in after if shape[axis] != 1]
    while axes and target and axes[-1] == target[-1]:
        fixed.insert(0, axes.pop())
        target.pop()
    if len(axes) < 3:
        return []
    kept, last = axes[-2:]
    behind = target[target.index(kept) + 1 :]
    if last in behind:
        return []
    before_block = target[: target.index(kept) + 1]
    together = [axis for axis in before_block if axis not in (kept, last)]
    return [
        [*alone, *behind, *together, kept, last, *fixed],
        [*alone, *behind, *before_block, *fixed],
    ]


def _time(shape: Sequence[int], way: list[Order]) -> float:
    orders = [_identity(way[0]), *way]
    return sum(nanoseconds(shape, before, after) for before, after in pairwise(orders) if before != after)


def _merged(shape: Sequence[int], before: Order, after: Order) -> tuple[list[int], Order]:
    """Sizes and permutation from one order to the other, axes that stay side by side being one. A free size is -1, or
    the negative product with what it is merged with."""
    axes = [axis for axis in before if shape[axis] != 1]
    target = [axis for axis in after if shape[axis] != 1]
    runs: list[Order] = []
    for axis in target:
        follows = runs and axes.index(axis) == axes.index(runs[-1][-1]) + 1
        runs[-1].append(axis) if follows else runs.append([axis])
    ordered = sorted(runs, key=lambda run: axes.index(run[0]))
    return [prod(shape[axis] for axis in run) for run in ordered], [ordered.index(run) for run in runs]


def _reshaped(value: ir.Value | None) -> list[int] | None:
    """The sizes that a Reshape gives the value, if one does."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Reshape" or node.inputs[1] is None or not is_constant(node.inputs[1]):
        return None
    return [int(size) for size in numpy_of(node.inputs[1])]


def _take_steps(node: ir.Node, shape: list[int], steps: list[Order]) -> None:
    """In place of the node a Reshape and a Transpose of merged axes for each step, and a Reshape to its own shape."""
    graph, value, output = node.graph, node.inputs[0], node.outputs[0]
    assert isinstance(graph, ir.Graph) and value is not None
    emit = Emitter(f"{node.name}.steps")
    for before, after in pairwise([_identity(shape), *steps]):
        sizes, perm = _merged(shape, before, after)
        if perm != _identity(perm):
            value = emit("Transpose", emit.reshape(value, *(max(size, -1) for size in sizes)), perm=perm)
    value = emit.reshape(value, *(shape[axis] for axis in steps[-1]))
    value.type, value.shape = output.type, output.shape
    value.name, output.name = output.name, f"{output.name}.before"
    emit.insert_before(graph, node)
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _identity(of: Sequence[int]) -> Order:
    return list(range(len(of)))
