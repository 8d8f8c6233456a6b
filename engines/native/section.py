"""A trunk's steps bound to memory: tables of pixels, maps that are used again and again, and calls of kernels.

Where maps are large, what follows a split is a section of its own, which goes through the split's batches one by one:
each is copied into a small map, and its labels are put back where its pixels are.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from engines.native.jit import Kernels
from engines.native.kernels import Tile, vectors_at_once
from engines.native.memory import aligned, points_apart, rooms_for
from engines.native.plan import Plan, Step
from engines.native.tiles import tables
from engines.native.trunk import Pair

__all__ = ["LABELS", "Call", "Section", "Shared"]

Floats = NDArray[np.float32]
Pixels = NDArray[np.int32]
Call = Callable[[], None]

LABELS = "largest logit"
"""What the call that takes labels from logits is named."""

MAP_BYTES = 16_000_000
"""What the largest map of a section may take, where splits are left to make sections of. A few of them are alive at
once in every context, so this bounds memory; the innermost section of a frame of 1024x2048 is then as large as the
trunk of 128x256, and as fast (58 s a frame of width 64, 64 times 0.87 are 56)."""

BLOCK = 64
"""Tiles at a time: a block's points should stay in the cache, and weights are read once for each block. From 16 to 96
made a few per cent (AMD EPYC, Zen 4, 16 to 512 channels); 64 are all of a frame of 128x256, cut at the second split."""

_BESIDE = 2
"""Pixels beside a map's own: what lies outside, zero, and where tiles write what is beyond it."""

_ZERO, _WASTE = 0, 1


@dataclass
class Shared:
    """What all steps of a context use: kernels, weights, and room for a block of tiles' points."""

    kernels: Kernels
    weights: Floats
    before: Floats
    behind: Floats
    zeros: Floats

    @classmethod
    def of(cls, plan: Plan, kernels: Kernels, weights: Floats) -> "Shared":
        steps = [step for step in plan.steps if step.tile]
        before, behind = (
            max((_points_size(step, channels) for step in steps), default=0) for channels in ("into", "out")
        )
        zeros = aligned(max(step.out for step in plan.steps))
        zeros[:] = 0
        return cls(kernels, weights, aligned(before), aligned(behind), zeros)


class Section:
    """Steps on maps of `height` x `width` pixels. `given` are the values that come from outside, with their channels.

    `run` computes labels uint8 [height,width] from the maps in `maps` that `given` names.
    """

    def __init__(self, plan: Plan, steps: Sequence[Step], size: Pair, given: dict[str, int], shared: Shared) -> None:
        self.size, self._shared = size, shared
        self.labels = np.empty(size, np.uint8)
        here, self._grid, inner = _parted(steps, size)
        channels = given | {step.result: step.out for step in here}
        self._handed = {name: channels[name] for name in _read(inner, plan.logits) if name in channels} if inner else {}
        last = {name: len(here) for name in (self._handed if inner else (plan.logits,))}
        self.maps = _maps(here, given, last, size[0] * size[1] + _BESIDE)
        self._tables: dict[tuple[Pair, Tile], tuple[Pixels, Pixels]] = {}
        self._calls = [(step.result, self._bound(step, plan.lanes)) for step in here]
        self._inner: Section | None = None
        if inner:
            rows, columns = self._grid
            self._inner = Section(plan, inner, (size[0] // rows, size[1] // columns), self._handed, shared)
        else:
            logits = self.maps[plan.logits]
            pixels = size[0] * size[1]
            addresses = logits.ctypes.data, pixels, logits.shape[1], plan.classes, self.labels.ctypes.data
            self._calls.append((LABELS, partial(shared.kernels["labels"], *addresses)))

    def run(self) -> None:
        for _, call in self._calls:
            call()
        if self._inner is None:
            return
        (height, width), (rows, columns) = self.size, self._grid
        for row, column in product(range(rows), range(columns)):
            for name, channels in self._handed.items():
                pixels = self.maps[name][:-_BESIDE].reshape(height, width, channels)
                self._inner.fill(name, pixels[row::rows, column::columns])
            self._inner.run()
            self.labels[row::rows, column::columns] = self._inner.labels

    def observe(self, wrapped: Callable[[str, Call], Call]) -> None:
        """Make other calls of all calls, by the values that they compute (LABELS is the last of them)."""
        self._calls = [(name, wrapped(name, call)) for name, call in self._calls]
        if self._inner is not None:
            self._inner.observe(wrapped)

    def fill(self, name: str, pixels: Floats) -> None:
        """Give a value [height,width,channels] from outside; channels that fill up vectors are zero."""
        one, channels = self.maps[name], pixels.shape[2]
        inside = one[:-_BESIDE].reshape(*self.size, -1)
        inside[:, :, :channels] = pixels
        inside[:, :, channels:] = 0
        one[-_BESIDE + _ZERO] = 0

    def _bound(self, step: Step, lanes: int) -> Call:
        """The call that computes a step. What it is given by address is this section's or shared, and lives on."""
        shared, pixels = self._shared, self.size[0] * self.size[1]
        panels = step.out // (vectors_at_once(lanes, step.out) * lanes)
        source, result = self.maps[step.source].ctypes.data, self.maps[step.result].ctypes.data
        weights, bias = (shared.weights[place:].ctypes.data for place in (step.weights, step.bias))
        low = 0.0 if step.relu else float("-inf")
        added = [] if step.added is None else [self.maps[step.added].ctypes.data, step.out]
        function = shared.kernels[step.kernel(lanes).name]
        if step.tile is None:
            sizes = step.out, pixels, step.into, panels
            return partial(function, source, step.into, weights, result, *sizes, bias, low, *added)
        if (step.step, step.tile) not in self._tables:
            self._tables[step.step, step.tile] = tables(
                self.size, step.step, step.tile, pixels + _ZERO, pixels + _WASTE
            )
        reads, writes = self._tables[step.step, step.tile]
        return partial(
            function,
            source,
            step.into,
            reads.ctypes.data,
            writes.ctypes.data,
            len(reads),
            BLOCK,
            step.into,
            panels,
            weights,
            bias,
            shared.zeros.ctypes.data,
            shared.before.ctypes.data,
            points_apart(BLOCK, step.into),
            shared.behind.ctypes.data,
            points_apart(BLOCK, step.out),
            pixels,
            result,
            step.out,
            low,
            *added,
        )


def _parted(steps: Sequence[Step], size: Pair) -> tuple[Sequence[Step], Pair, list[Step]]:
    """The steps to take on these maps, and those behind a split, with taps as far apart as its batches have them."""
    largest = 4 * size[0] * size[1] * max(step.out for step in steps)
    apart = [step.step for step in steps if step.tile and step.step != (1, 1)]
    if largest <= MAP_BYTES or not apart:
        return steps, (1, 1), []
    rows, columns = grid = apart[0]
    close = [index for index, step in enumerate(steps) if step.tile and (step.step[0] % rows or step.step[1] % columns)]
    first = max(close, default=-1) + 1
    inner = [
        replace(step, step=(step.step[0] // rows, step.step[1] // columns) if step.tile else (1, 1))
        for step in steps[first:]
    ]
    return steps[:first], grid, inner


def _read(steps: Iterable[Step], logits: str) -> list[str]:
    """What the steps, and the labels after them, read."""
    names = (name for step in steps for name in (step.source, step.added) if name is not None)
    return list(dict.fromkeys([*names, logits]))


def _maps(steps: Sequence[Step], given: dict[str, int], last: dict[str, int], pixels: int) -> dict[str, Floats]:
    """A map for each value. Two values share memory where one is read for the last time before the other is made."""
    for index, step in enumerate(steps):
        for name in (step.source, step.added):
            if name is not None:
                last[name] = max(index, last.get(name, 0))
    values = [(-1, name, channels) for name, channels in given.items()]
    values += [(index, step.result, step.out) for index, step in enumerate(steps)]
    rooms, placed = rooms_for((made, last.get(name, made), channels) for made, name, channels in values)
    memory = [aligned(pixels * channels) for channels in rooms]
    return {
        name: memory[room][: pixels * count].reshape(pixels, count)
        for (_, name, count), room in zip(values, placed, strict=True)
    }


def _points_size(step: Step, channels: str) -> int:
    return step.points * points_apart(BLOCK, getattr(step, channels))
