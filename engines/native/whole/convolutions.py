"""A convolution's records: of minimal filtering, and directly."""

from collections.abc import Iterator

import numpy as np

from engines.native.jit import Kernel
from engines.native.kernels import vectors_at_once
from engines.native.memory import points_apart
from engines.native.section import BLOCK
from engines.native.tiles import tables
from engines.native.whole.binding import NO_LOW, ROWS, Binding, WholeKernel, low
from engines.native.whole.plan import NetworkPlan, PlannedStep
from engines.native.whole.program import Record
from engines.native.whole.runs import groups

__all__ = ["direct", "points_before", "points_behind", "tiled"]

_OUTSIDE = -1
"""The pixel before a map's first, which is zero (`maps`)."""
_PANEL_BYTES = 400_000
"""Weights of a panel that are multiplied in one go: they should stay in the second-level cache, 1 MiB here."""
_LEFT_BYTES = 400_000
"""The same of the numbers that they are multiplied by, which all panels read."""


def direct(bound: Binding, step: PlannedStep) -> list[list[Record]]:
    """Groups of pixels, each with as many of its runs at a time as the cache holds weights of."""
    plan, source, result = bound.plan, bound.size(step.source), bound.size(step.result)
    into, width = step.source.channels, vectors_at_once(plan.lanes, step.result.channels) * plan.lanes
    sizes = (source.height, source.width), (result.height, result.width)
    stages: list[list[Record]] = []
    for group in groups(*sizes, step.taps, step.stride, step.rate, step.before, source.channels == into):
        depth, runs, writes = group.taps * into, len(group.first_taps), bound.keep(group.writes)
        most = max(1, _PANEL_BYTES // (4 * depth * width))
        for number, first in enumerate(range(0, max(1, runs), most)):
            count = min(most, runs - first)
            begins, ends = first == 0, first + most >= runs
            added = step.added if begins else step.result
            starts = bound.keep(np.array(group.first_taps[first : first + count], np.int64) * into * width)
            reads = bound.keep(group.reads[:, first : first + count])
            if number == len(stages):
                stages.append([])
            stages[number] += [
                (
                    WholeKernel("direct", width // plan.lanes, added is not None).name,
                    [
                        bound.address(step.source),
                        source.channels,
                        reads + 4 * a * count,
                        writes + 4 * a,
                        b - a,
                        count,
                        starts,
                        depth,
                        bound.weights_at(step.weights),
                        step.taps[0] * step.taps[1] * into * width,
                        step.result.channels // width,
                        bound.weights_at(step.more) if begins else bound.zeros.ctypes.data,
                        low(step) if ends else NO_LOW,
                        bound.address(step.result),
                        result.channels,
                        *bound.added(added),
                    ],
                )
                for share in bound.shares(len(group.writes))
                for a, b in _blocks(*share, 4 * count * depth)
            ]
    return stages


def tiled(bound: Binding, step: PlannedStep) -> list[Record]:
    """Minimal filtering, some of the tiles at a time."""
    assert step.tile is not None
    plan, source, result = bound.plan, bound.size(step.source), bound.size(step.result)
    pixels = result.height * result.width
    reads, writes = tables((source.height, source.width), step.rate, step.tile, _OUTSIDE, pixels)
    points, outputs = reads.shape[1], writes.shape[1]
    vectors = vectors_at_once(plan.lanes, step.result.channels)
    kernel = Kernel(step.tile, vectors, step.added is not None)
    reads_at, writes_at = bound.keep(reads), bound.keep(writes)
    return [
        (
            kernel.name,
            [
                bound.address(step.source),
                source.channels,
                reads_at + 4 * a * points,
                writes_at + 4 * a * outputs,
                b - a,
                BLOCK,
                step.source.channels,
                step.result.channels // (vectors * plan.lanes),
                bound.weights_at(step.weights),
                bound.weights_at(step.more),
                bound.zeros.ctypes.data,
                0,
                points_apart(BLOCK, step.source.channels),
                4 * points_before(plan),
                points_apart(BLOCK, step.result.channels),
                pixels,
                bound.address(step.result),
                result.channels,
                low(step),
                *bound.added(step.added),
            ],
        )
        for a, b in bound.shares(len(reads), BLOCK)
    ]


def points_before(plan: NetworkPlan) -> int:
    """Numbers that a block of tiles' points take before the products."""
    return max((_points(step) * points_apart(BLOCK, step.source.channels) for step in plan.steps), default=0)


def points_behind(plan: NetworkPlan) -> int:
    """The same behind the products."""
    return max((_points(step) * points_apart(BLOCK, step.result.channels) for step in plan.steps), default=0)


def _points(step: PlannedStep) -> int:
    return (step.tile[0] + 2) * (step.tile[1] + 2) if step.tile else 0


def _blocks(start: int, stop: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Rows, as many at a time as the cache holds."""
    most = max(ROWS, _LEFT_BYTES // max(1, row_bytes) // ROWS * ROWS)
    for first in range(start, stop, most):
        yield first, min(stop, first + most)
