"""The layout in which convolutions are matrix products: batches innermost, and beside them the tiles of a row.

A tensor `[N,C,H,W]` is kept as `[groups,rows,run,C,strips * tiles * batches]`: the pixel of row s * rows + i and column
t * run + j of batch b in group g is at `[g,i,j,:,(s * tiles + t) * batches + b]`. Each of the height's `strips` has
`rows` rows, each of a row's `tiles` has `run` columns. So what a small matrix does to rows is one product of matrices,
what it does to the columns of a tile another one, and what weights do to channels a third, without a copy and with long
rows of numbers to do it to.

A split makes more batches of fewer tiles. They become batches as long as rows stay short enough for the cache, and else
groups, which are computed one after the other. The order is that of the splits, the last one first, and the graph's own
batches last: groups ((k_s,l_s), ...), batches (..., (k_1,l_1), n). Nothing between the first split and the last merge
can tell (`export.layouts`). Where such a value is handed to an operator outside, its batches take the pixels' order
again.
"""

from dataclasses import dataclass, replace
from math import prod

import onnx_ir as ir

from export.cpu.emitter import Emitter
from export.layouts import Layout
from export.nodes import Window

__all__ = ["TILE", "Tiling", "run_of", "tiling_of"]

TILE = 8
"""Columns of a tile where the width divides into them, else half as many. Any other row, or a shorter one, is one tile:
larger matrices, but no neighbours to fetch."""

LONGEST = 128
"""Numbers in the innermost rows up to which split batches join them. From 32 to 128 it took as long with 64 channels or
fewer; with 128, rows of 32 took a tenth longer, and of 256 a quarter, since a band's points left the cache (AMD EPYC,
Zen 4)."""

SHORTEST = 64
"""Numbers in the innermost rows up to which strips join them, where tiles and split batches are few. With 32 or 128 it
took as long (AMD EPYC, Zen 4)."""

LOWEST = 4
"""Rows that a strip has at least, so that those above and below it are not too many. 4 are as many as a tile has; with
8, half of what strips gain at 128x256 with 64 channels was lost."""


def run_of(width: int) -> int:
    """Columns of each tile of a row."""
    return next((run for run in (TILE, TILE // 2) if width > TILE and width % run == 0), width)


@dataclass(frozen=True)
class Tiling:
    """How a value is kept. `channels` is None for label maps; `layout` has the splits it went through, `grouped` says
    of each whether its batches are groups.
    """

    channels: int | None
    height: int
    run: int
    tiles: int
    layout: Layout = ()
    grouped: tuple[bool, ...] = ()
    strips: int = 1

    @property
    def rows(self) -> int:
        """Rows of a strip."""
        return self.height // self.strips

    @property
    def groups(self) -> int:
        """Groups of split batches that are computed one after the other."""
        return prod(r * c for (r, c), grouped in zip(self.layout, self.grouped, strict=True) if grouped)

    @property
    def batches(self) -> int:
        """Split batches in a group for each batch of the graph."""
        return prod(r * c for (r, c), grouped in zip(self.layout, self.grouped, strict=True) if not grouped)

    @property
    def inner(self) -> list[int]:
        """The channels, or nothing."""
        return [] if self.channels is None else [self.channels]

    def with_channels(self, channels: int | None) -> "Tiling":
        return replace(self, channels=channels)

    def enter(self, emit: Emitter, value: ir.Value) -> ir.Value:
        """From `[N,C,H,W]` (or `[N,H,W]`)."""
        return self._turned(emit, value, self._plain_order(), self._tiled_order(), self._tiled_shape())

    def leave(self, emit: Emitter, value: ir.Value) -> ir.Value:
        """To `[N,C,H,W]` (or `[N,H,W]`)."""
        shape = [-1, *self.inner, self.height, self.tiles * self.run]
        return self._turned(emit, value, self._tiled_order(), self._plain_order(), shape)

    def can_split(self, window: Window) -> bool:
        """Whether `split` knows how."""
        return self.rows % window[0] == 0 and self.run % window[1] == 0

    def split(self, emit: Emitter, value: ir.Value, window: Window) -> tuple[ir.Value, "Tiling"]:
        """Split pooling, as one transposition.

        Column t * run + j, with j = i * columns + l, becomes column t * (run / columns) + i of split batch l; a new
        tile is made of `joined` old ones. Rows and strips likewise.
        """
        rows, columns = window
        short, run = self.run // columns, run_of(self.run * self.tiles // columns)
        joined = run // short
        tiles = self.tiles // joined
        grouped = tiles * self.batches * rows * columns > LONGEST
        after = Tiling(self.channels, self.height // rows, run, tiles, (*self.layout, window), (*self.grouped, grouped))
        after = after.in_strips(self.strips)
        merged = self.strips // after.strips
        sizes = {"g": self.groups, "h": self.rows // rows, "k": rows, "i": short, "l": columns}
        sizes |= {"s": after.strips, "merged": merged, "t": tiles, "joined": joined, "c": self.channels or 1, "n": -1}
        channel = ["c"] if self.channels is not None else []
        before = ["g", "h", "k", "i", "l", *channel, "s", "merged", "t", "joined", "n"]
        offsets, inner = ["k", "l"], ["merged", "h", "joined", "i", *channel, "s", "t"]
        order = [*offsets, "g", *inner, "n"] if grouped else ["g", *inner, *offsets, "n"]
        apart = emit.reshape(value, *(sizes[axis] for axis in before))
        turned = emit("Transpose", apart, perm=[before.index(axis) for axis in order])
        return emit.reshape(turned, *after._tiled_shape()), after

    def in_strips(self, most: int) -> "Tiling":
        """With as many strips as make rows long enough, `most` or a part of that."""
        strips = max(
            (
                count
                for count in range(1, most + 1)
                if most % count == 0
                and self.height % (count * LOWEST) == 0
                and count * self.tiles * self.batches <= SHORTEST
            ),
            default=1,
        )
        return replace(self, strips=strips)

    def _turned(
        self, emit: Emitter, value: ir.Value, before: list[str], after: list[str], shape: list[int]
    ) -> ir.Value:
        sizes = {
            "n": -1,
            "s": self.strips,
            "h": self.rows,
            "run": self.run,
            "tiles": self.tiles,
            "c": self.channels or 1,
        }
        sizes |= {f"k{i}": rows for i, (rows, _) in enumerate(self.layout)}
        sizes |= {f"l{i}": columns for i, (_, columns) in enumerate(self.layout)}
        apart = emit.reshape(value, *(sizes[axis] for axis in before))
        turned = emit("Transpose", apart, perm=[before.index(axis) for axis in after])
        return emit.reshape(turned, *shape)

    def _tiled_shape(self) -> list[int]:
        return [self.groups, self.rows, self.run, *self.inner, -1]

    def _plain_order(self) -> list[str]:
        """Axes of `[N,C,H,W]`, taken apart: the last split's row is the highest digit of a batch's row."""
        levels = range(len(self.layout) - 1, -1, -1)
        channel = ["c"] if self.channels is not None else []
        return ["n", *(f"k{i}" for i in levels), *(f"l{i}" for i in levels), *channel, "s", "h", "tiles", "run"]

    def _tiled_order(self) -> list[str]:
        levels = range(len(self.layout) - 1, -1, -1)
        channel = ["c"] if self.channels is not None else []
        groups, batches = (
            [axis for i in levels if self.grouped[i] == grouped for axis in (f"k{i}", f"l{i}")]
            for grouped in (True, False)
        )
        return [*groups, "h", "run", *channel, "s", "tiles", *batches, "n"]


def tiling_of(channels: int | None, height: int, width: int, layout: Layout) -> Tiling:
    """The tiling of a value of this size, its split batches grouped as they would be had they been split here."""
    run = run_of(width)
    tiles, batches, grouped = width // run, 1, []
    for rows, columns in layout:
        grouped.append(tiles * batches * rows * columns > LONGEST)
        batches *= 1 if grouped[-1] else rows * columns
    return Tiling(channels, height, run, tiles, layout, tuple(grouped)).in_strips(height)
