"""3x3 convolutions of tiled tensors as matrix products, a band of rows at a time.

Of a band of rows and one more above and below, a matrix makes the tiles' points along the height, another one along
the width; at each of their points the channels are multiplied by a matrix of their own; two more matrices
give the band's rows back. Bias, the shortcut of a residual block and ReLU follow while the band is in the cache. The
points are about twice as many as the pixels, so that they should never be in main memory: ONNX's Scan goes from band to
band and from group to group, its inputs and outputs being views of the tensors that it scans.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.cpu.emitter import Emitter
from export.cpu.tiling import TILE, Tiling
from export.cpu.winograd import Side, filters, side_of

__all__ = ["Convolution", "bands_of", "convolve", "pointwise"]

CACHE_BYTES = 1_500_000
"""What the points of a band may take, if that is more than one row of tiles. Measured with 16 to 512 channels on an
AMD EPYC (Zen 4, 1 MiB of second-level cache a core): bands of one row of tiles and of two were equally fast, of four
and more slower; from 1.5 to 3 MB made no difference, 0.6 MB was a fifth slower with 16 channels."""

ROW_BY_ROW = 100_000_000
"""Multiply-adds of a band whose points do not fit the cache, from which on they are made, multiplied and used a row at
a time. With half as many, what Scan itself takes for each row is as much as the cache saves (AMD EPYC, Zen 4)."""

TALLEST = 4
"""Rows of a tile. Tiles of 8 x 8 take a sixth fewer products than of 4 x 8 and lose five times as much (`POINTS`)."""

_FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True)
class Convolution:
    """`weights` [out,in,3,3] (or 1x1), `bias` [out] or None, and whether ReLU follows, after the shortcut's sum."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    relu: bool = False


def convolve(
    emit: Emitter, value: ir.Value, tiling: Tiling, convolution: Convolution, shortcut: ir.Value | None
) -> ir.Value:
    """A convolution with padding 1 of a tiled value; `shortcut`, of the result's size, is added to it."""
    channels = convolution.weights.shape[0]
    bands, rows = bands_of(tiling)
    steps, halo = tiling.groups * bands, bands * tiling.strips > 1
    sides = side_of(rows, TALLEST, halo), _columns(tiling)
    shape = [tiling.run, tiling.channels or 1, -1]
    around = [_neighbours(emit, value, tiling, rows, above) for above in (True, False)] if halo else []
    if steps == 1:
        whole = emit.reshape(value, rows, *shape)
        above_and_below = [emit.reshape(row, 1, *shape) for row in around]
        added = None if shortcut is None else emit.reshape(shortcut, rows, tiling.run, channels, -1)
        out = _band(emit, _surrounded(emit, whole, above_and_below), tiling, convolution, sides, added)
        return emit.reshape(out, 1, rows, tiling.run, channels, -1)
    feeds = [emit.reshape(value, steps, rows, *shape), *around]
    shapes = [[rows, *shape], *([1, *shape] for _ in around)]
    if shortcut is not None:
        feeds.append(emit.reshape(shortcut, steps, rows, tiling.run, channels, -1))
        shapes.append([rows, tiling.run, channels, -1])
    body = _body(f"{emit.name}.band", shapes, tiling, convolution, sides, shortcut is not None)
    out = emit("Scan", *feeds, body=body, num_scan_inputs=len(feeds))
    return emit.reshape(out, tiling.groups, tiling.rows, tiling.run, channels, -1)


def pointwise(emit: Emitter, value: ir.Value, convolution: Convolution) -> ir.Value:
    """A 1x1 convolution of a tiled value."""
    out = emit("MatMul", emit.floats(convolution.weights[:, :, 0, 0]), value)
    if convolution.bias is not None:
        out = emit("Add", out, emit.floats(convolution.bias.reshape(-1, 1)))
    return emit("Relu", out) if convolution.relu else out


def bands_of(tiling: Tiling) -> tuple[int, int]:
    """Bands, and rows of each: as many rows as fit the cache, at least one row of tiles.

    Bands are all alike, so their rows divide a strip's. Where that would take more products than the whole strip in
    one go, which has fewer tiles that reach beyond it, there is one band.
    """
    points, height = _row_bytes(tiling, _columns(tiling), tiling.channels or 1), tiling.rows
    whole = side_of(height, TALLEST)
    best = height
    for rows in (rows for rows in range(2, height) if height % rows == 0):
        side = side_of(rows, TALLEST)
        no_more = side.points * (height // rows) <= whole.points
        if no_more and (best == height or side.points * points <= CACHE_BYTES):
            best = rows
    if whole.points * points <= CACHE_BYTES:
        best = height
    return height // best, best


def _columns(tiling: Tiling) -> Side:
    """The sides of one tile. A tile that is a whole row needs no neighbours."""
    return side_of(tiling.run, TILE, halo=tiling.tiles > 1)


def _neighbours(emit: Emitter, value: ir.Value, tiling: Tiling, rows: int, above: bool) -> ir.Value:
    """The row above (or below) each band, `[steps,1,run,C,N]`, which may be another strip's; zeros where none is."""
    bands, groups, shape = tiling.rows // rows, tiling.groups, [tiling.run, tiling.channels or 1]
    start, stop = (rows - 1, tiling.rows - 1) if above else (rows, tiling.rows)
    inner = emit.slice(value, 1, start, stop, rows) if bands > 1 else None
    if tiling.strips == 1:
        assert inner is not None, "one band of one strip has no neighbours"
        row = emit.pad(inner, 5, 1, *((1, 0) if above else (0, 1)))
        return emit.reshape(row, groups * bands, 1, *shape, -1)
    edge = emit.slice(value, 1, tiling.rows - 1, tiling.rows) if above else emit.slice(value, 1, 0, 1)
    apart = emit.reshape(edge, groups, *shape, tiling.strips, -1)
    kept, zeros = ((0, tiling.strips - 1), (1, 0)) if above else ((1, tiling.strips), (0, 1))
    moved = emit.pad(emit.slice(apart, 3, *kept), 5, 3, *zeros)
    row = emit.reshape(moved, groups, 1, *shape, -1)
    if inner is not None:
        row = emit("Concat", *((row, inner) if above else (inner, row)), axis=1)
    return emit.reshape(row, groups * bands, 1, *shape, -1)


def _surrounded(emit: Emitter, rows: ir.Value, around: list[ir.Value]) -> ir.Value:
    """Rows with the one above and the one below, if there are any."""
    return emit("Concat", around[0], rows, around[1], axis=0) if around else rows


def _body(
    name: str,
    shapes: list[list[int]],
    tiling: Tiling,
    convolution: Convolution,
    sides: tuple[Side, Side],
    shortcut: bool,
) -> ir.Graph:
    """What Scan does to each band: its rows, those above and below (of several bands or strips), the shortcut's."""
    emit = Emitter(name)
    inputs = [
        ir.val(f"{name}.input{index}", _FLOAT, [None if size == -1 else size for size in shape])
        for index, shape in enumerate(shapes)
    ]
    rows, *around = inputs[: len(inputs) - shortcut]
    out = _band(emit, _surrounded(emit, rows, around), tiling, convolution, sides, inputs[-1] if shortcut else None)
    out.dtype = _FLOAT
    out.shape = ir.Shape([len(sides[0].outputs), tiling.run, len(convolution.weights), None])
    return ir.Graph(inputs, [out], nodes=emit.nodes, initializers=emit.constants, name=name)


def _band(
    emit: Emitter,
    value: ir.Value,
    tiling: Tiling,
    convolution: Convolution,
    sides: tuple[Side, Side],
    shortcut: ir.Value | None,
) -> ir.Value:
    """The convolution of rows `[rows (+ 2),run,in,N]`, as the sides' inputs ask: `[rows,run,out,N]`."""
    down, across = sides
    (out, into), rows = convolution.weights.shape[:2], len(down.outputs)
    value = emit("MatMul", emit.floats(down.inputs), emit.reshape(value, down.inputs.shape[1], -1))
    value = emit.reshape(value, down.points, tiling.run, into, -1)
    by_point = filters(convolution.weights, down.m, across.m)
    if down.tiles == 1 and _is_large(down.points * _row_bytes(tiling, across, max(into, out)), min(into, out)):
        value = emit("Scan", value, emit.floats(by_point), body=_row(emit, tiling, across, by_point), num_scan_inputs=2)
    else:
        weights = emit.floats(by_point[None, :, None])
        value = _across(emit, value, weights, tiling, across, [down.tiles, down.m + 2])
    value = emit.reshape(value, down.points, -1)
    if shortcut is None:
        value = emit("MatMul", emit.floats(down.outputs), value)
    else:
        value = emit("Gemm", emit.floats(down.outputs), value, emit.reshape(shortcut, rows, -1))
    value = emit.reshape(value, rows, tiling.run, out, -1)
    if convolution.bias is not None:
        value = emit("Add", value, emit.floats(convolution.bias.reshape(-1, 1)))
    return emit("Relu", value) if convolution.relu else value


def _row(emit: Emitter, tiling: Tiling, across: Side, by_point: NDArray[np.float64]) -> ir.Graph:
    """What Scan does to each row of points `[run,in,N]`, with its weights `[points of a tile,out,in]`. A product is the
    last step, for a Reshape would be a copy there: `[1,run,out * N]`."""
    *steps, out, into = by_point.shape[1:]
    row = Emitter(f"{emit.name}.row")
    value = ir.val(f"{row.name}.points", _FLOAT, [tiling.run, into, None])
    weights = ir.val(f"{row.name}.weights", _FLOAT, [*steps, out, into])
    result = _across(row, row.reshape(value, 1, tiling.run, into, -1), weights, tiling, across, [1, 1])
    result.dtype, result.shape = _FLOAT, ir.Shape([1, tiling.run, None])
    return ir.Graph([value, weights], [result], nodes=row.nodes, initializers=row.constants, name=row.name)


def _across(
    emit: Emitter, value: ir.Value, weights: ir.Value, tiling: Tiling, across: Side, down: list[int]
) -> ir.Value:
    """Rows of points `[tiles * points,run,in,N]`, those of each tile `down` the height, through a row's own points and
    the weights at them: `[tiles * points,run,out * N]`."""
    rows, channels = prod(down), tiling.channels or 1
    if tiling.tiles > 1:
        value = _with_neighbours(emit, value, rows, tiling)
    value = emit("MatMul", emit.floats(across.inputs), emit.reshape(value, rows, across.inputs.shape[1], -1))
    value = emit("MatMul", weights, emit.reshape(value, *down, across.tiles, across.m + 2, channels, -1))
    return emit("MatMul", emit.floats(across.outputs), emit.reshape(value, rows, across.points, -1))


def _row_bytes(tiling: Tiling, across: Side, channels: int) -> int:
    """What a row of points takes for one batch of the graph."""
    return 4 * tiling.strips * tiling.tiles * across.points * tiling.batches * channels


def _is_large(point_bytes: int, channels: int) -> bool:
    """Whether the points of a band, with so many channels on the other side of the products, are made row by row."""
    return point_bytes > CACHE_BYTES and point_bytes // 4 * channels > ROW_BY_ROW


def _with_neighbours(emit: Emitter, value: ir.Value, rows: int, tiling: Tiling) -> ir.Value:
    """Each tile of `[rows,run,C,tiles * N]` with the last column of the one before and the first of the one behind."""
    run, channels, tiles = tiling.run, tiling.channels or 1, tiling.tiles
    last, first = (emit.slice(value, 1, column, column + 1) for column in (run - 1, 0))
    sides = []
    for column, kept, zeros in ((last, (0, tiles - 1), (1, 0)), (first, (1, tiles), (0, 1))):
        apart = emit.reshape(column, rows, 1, channels * tiling.strips, tiles, -1)
        moved = emit.pad(emit.slice(apart, 3, *kept), 5, 3, *zeros)
        sides.append(emit.reshape(moved, rows, 1, channels, -1))
    before, behind = sides
    return emit("Concat", before, value, behind, axis=1)
