"""The layout in which convolutions are matrix products: batches innermost, and beside them the tiles of a row.

A tensor `[N,C,H,W]` is kept as `[H, run, C, tiles * N]`: the pixel of row h and column t * run + j of batch n is at
`[h, j, :, t * N + n]`. Each of a row's `tiles` has `run` columns. So what a small matrix does to rows is one product of
matrices over the first axis, what it does to the columns of a tile one over the second, and what weights do to channels
one over the third, without a copy and with long rows of numbers to do it to.

Split batches are numbered with the last split's row and column offset first and the graph's own batches last:
((k_s, l_s), ..., (k_1, l_1), n). Nothing between the first split and the last merge can tell (`export.layouts`). Where
such a value is handed to an operator outside, its batches take the pixels' order again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import onnx_ir as ir

from export.cpu.emitter import Emitter
from export.layouts import Layout
from export.nodes import Window

__all__ = ["TILE", "Tiling", "run_of", "tiling_of"]

TILE = 4
"""Columns of a tile where the width divides into them; else a row is one tile."""


def run_of(width: int) -> int:
    """Columns of each tile of a row."""
    return TILE if width % TILE == 0 else width


@dataclass(frozen=True)
class Tiling:
    """How a value is kept. `channels` is None for label maps; `layout` has the splits it went through."""

    channels: int | None
    height: int
    run: int
    tiles: int
    layout: Layout = ()

    @property
    def batches(self) -> int:
        """Split batches for each batch of the graph."""
        return prod(rows * columns for rows, columns in self.layout)

    @property
    def inner(self) -> list[int]:
        """The channels, or nothing."""
        return [] if self.channels is None else [self.channels]

    def with_channels(self, channels: int | None) -> "Tiling":
        return replace(self, channels=channels)

    def enter(self, emit: Emitter, value: ir.Value) -> ir.Value:
        """From `[N,C,H,W]` (or `[N,H,W]`)."""
        offsets = self._offsets()
        apart = emit.reshape(value, -1, *offsets, *self.inner, self.height, self.tiles, self.run)
        axes = self._axes()
        turned = emit("Transpose", apart, perm=[axes[name] for name in self._tiled_order()])
        return emit.reshape(turned, self.height, self.run, *self.inner, -1)

    def leave(self, emit: Emitter, value: ir.Value) -> ir.Value:
        """To `[N,C,H,W]` (or `[N,H,W]`)."""
        tiled = self._tiled_order()
        sizes = {"n": -1, "h": self.height, "run": self.run, "tiles": self.tiles, "c": self.channels or 1}
        sizes |= {f"k{i}": rows for i, (rows, _) in enumerate(self.layout)}
        sizes |= {f"l{i}": columns for i, (_, columns) in enumerate(self.layout)}
        apart = emit.reshape(value, *(sizes[name] for name in tiled))
        turned = emit("Transpose", apart, perm=[tiled.index(name) for name in self._axes()])
        return emit.reshape(turned, -1, *self.inner, self.height, self.tiles * self.run)

    def can_split(self, window: Window) -> bool:
        """Whether `split` knows how."""
        (rows, columns), width = window, self.run * self.tiles
        if self.height % rows or self.run % columns or width % columns:
            return False
        return run_of(width // columns) % (self.run // columns) == 0

    def split(self, emit: Emitter, value: ir.Value, window: Window) -> tuple[ir.Value, "Tiling"]:
        """Split pooling, as one transposition.

        Column t * run + j, with j = i * columns + l, becomes column t * (run / columns) + i of split batch l; a new
        tile is made of `joined` old ones.
        """
        rows, columns = window
        short, run = self.run // columns, run_of(self.run * self.tiles // columns)
        joined = run // short
        after = Tiling(self.channels, self.height // rows, run, self.tiles // joined, (*self.layout, window))
        channel = len(self.inner)
        apart = emit.reshape(
            value, after.height, rows, short, columns, *self.inner, after.tiles, joined, -1
        )  # h, k, i, l, c, t, joined, n
        tile = 4 + channel
        order = [0, tile + 1, 2, *([4] if channel else []), tile, 1, 3, tile + 2]
        return emit.reshape(emit("Transpose", apart, perm=order), after.height, run, *self.inner, -1), after

    def _offsets(self) -> list[int]:
        """Sizes of the offsets' axes in the pixels' order: the last split's row is the highest digit of a row."""
        rows = [rows for rows, _ in reversed(self.layout)]
        return rows + [columns for _, columns in reversed(self.layout)]

    def _axes(self) -> dict[str, int]:
        """Place of each axis in `[N,C,H,W]`, taken apart."""
        levels = range(len(self.layout) - 1, -1, -1)
        names = ["n", *(f"k{i}" for i in levels), *(f"l{i}" for i in levels)]
        names += ["c"] if self.channels is not None else []
        return {name: place for place, name in enumerate([*names, "h", "tiles", "run"])}

    def _tiled_order(self) -> Sequence[str]:
        levels = range(len(self.layout) - 1, -1, -1)
        offsets = [name for i in levels for name in (f"k{i}", f"l{i}")]
        return ["h", "run", *(["c"] if self.channels is not None else []), "tiles", *offsets, "n"]


def tiling_of(channels: int | None, height: int, width: int, layout: Layout) -> Tiling:
    """The tiling of a value of this size."""
    run = run_of(width)
    return Tiling(channels, height, run, width // run, layout)
