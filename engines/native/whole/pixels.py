"""Records of steps that take pixels as they are: frames, scales, resampling, the largest of some, and labels."""

import numpy as np
from numpy.typing import NDArray

from engines.native.whole.binding import Binding, WholeKernel, low
from engines.native.whole.network import Floats, Size
from engines.native.whole.plan import PlannedStep
from engines.native.whole.program import Record
from engines.native.whole.sides import windows

__all__ = ["gathered", "labelled", "read_frames", "scaled"]


def read_frames(bound: Binding) -> list[Record]:
    """The frame as numbers."""
    rows, columns, channels = bound.frame.shape
    row_step = bound.size(bound.plan.first).width
    mean, factors = (bound.weights_at(bound.plan.mean + offset) for offset in (0, channels))
    frame, first = bound.frame.ctypes.data, bound.plan.first
    return [
        (
            "frames",
            [
                frame + a * columns * channels,
                b - a,
                columns,
                channels,
                mean,
                factors,
                bound.address(first, a * row_step),
                row_step,
            ],
        )
        for a, b in bound.shares(rows, 1)
    ]


def scaled(bound: Binding, step: PlannedStep) -> list[Record]:
    """Each channel times a factor, and an offset."""
    source, result = bound.size(step.source), bound.size(step.result)
    factors, offsets = bound.weights_at(step.weights), bound.weights_at(step.more)
    return [
        (
            "scale",
            [
                bound.address(step.source, a),
                source.channels,
                b - a,
                step.source.channels,
                factors,
                offsets,
                low(step),
                bound.address(step.result, a),
                result.channels,
            ],
        )
        for a, b in bound.shares(result.height * result.width)
    ]


def gathered(bound: Binding, step: PlannedStep) -> list[Record]:
    """Resampling, and the largest of some pixels."""
    source, result = bound.size(step.source), bound.size(step.result)
    factors: Floats | None = None
    if step.kind == "largest":
        reads = _windows(step, source, result)
    else:
        down = bound.taken(step.weights, result.height, source.height)
        across = bound.taken(step.more, result.width, source.width)
        reads = (down[0][:, None, :, None] * source.width + across[0][None, :, None, :]).astype(np.int32)
        factors = down[1][:, None, :, None] * across[1][None, :, None, :]
    pixels = result.height * result.width
    taps = reads.size // pixels
    reads_at = bound.keep(reads)
    factors_at = [] if factors is None else [bound.keep(factors)]
    return [
        (
            WholeKernel(step.kind, added=step.added is not None).name,
            [
                bound.address(step.source),
                source.channels,
                *(table + 4 * a * taps for table in (reads_at, *factors_at)),
                b - a,
                taps,
                step.source.channels,
                low(step),
                bound.address(step.result, a),
                result.channels,
                *bound.added(step.added, a),
            ],
        )
        for a, b in bound.shares(pixels)
    ]


def labelled(bound: Binding) -> list[Record]:
    """Labels from what lies between the logits' pixels, some rows at a time."""
    plan, view, logits = bound.plan, bound.plan.logits, bound.size(bound.plan.logits)
    absent = np.zeros(view.channels, np.float32)
    absent[plan.classes :] = -np.inf
    absent_at = bound.keep(absent)
    down, across = (
        bound.taken(plan.down, plan.height, logits.height),
        bound.taken(plan.across, plan.width, logits.width),
    )
    taps = down[0].shape[1], across[0].shape[1]
    down_at, across_at = ([bound.keep(table) for table in side] for side in (down, across))
    return [
        (
            "between",
            [
                bound.address(view),
                logits.channels,
                logits.width,
                view.channels,
                absent_at,
                *(table + 4 * a * taps[0] for table in down_at),
                taps[0],
                b - a,
                *across_at,
                taps[1],
                plan.width,
                0,
                bound.labels.ctypes.data + a * plan.width,
            ],
        )
        for a, b in bound.shares(plan.height, 1)
    ]


def _windows(step: PlannedStep, source: Size, result: Size) -> NDArray[np.int32]:
    """Which pixels each result is the largest of, [rows,columns,taps]: of those outside one inside, once more."""

    def side(length: int, count: int, index: int) -> NDArray[np.int64]:
        found = windows(length, count, step.taps[index], step.stride[index], step.before[index])
        inside = [next(one for one in window if one is not None) for window in found]
        return np.array(
            [[other if one is None else one for one in row] for other, row in zip(inside, found, strict=True)]
        )

    down, across = side(source.height, result.height, 0), side(source.width, result.width, 1)
    return (down[:, None, :, None] * source.width + across[None, :, None, :]).astype(np.int32)
