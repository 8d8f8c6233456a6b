"""Winograd's matrices in exact arithmetic, tilings against their definition in loops, convolutions against PyTorch."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod

import numpy as np
import onnx_ir as ir
import pytest
import torch
from export_samples import ort
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx_ir.passes import common
from torch.nn.functional import conv2d

from export.cpu import convolution, tiling
from export.cpu.convolution import TALLEST, Convolution, bands_of, convolve, pointwise
from export.cpu.emitter import Emitter
from export.cpu.tiling import Tiling, run_of, tiling_of
from export.cpu.winograd import POINTS, Side, exact_filtering, filters, minimal_filtering, side_of
from export.nodes import Window, sizes

Array = NDArray[np.generic]
windows = st.tuples(st.integers(1, 3), st.sampled_from([1, 2, 3, 4, 8]))


@pytest.mark.parametrize("m", sorted(POINTS))
def test_minimal_filtering_is_exact(m: int) -> None:
    """For every output, input and weight, in rational numbers; what is computed with are the doubles next to them."""
    forward, middle, backward = exact = exact_filtering(m)
    assert len(forward) == m and len(middle) == len(backward) == m + 2
    for output, taken, tap in np.ndindex(m, m + 2, 3):
        summed = sum(forward[output][p] * middle[p][tap] * backward[p][taken] for p in range(m + 2))
        assert summed == (taken == output + tap)
    for rows, matrix in zip(exact, minimal_filtering(m), strict=True):
        assert matrix.tolist() == [[float(value) for value in row] for row in rows]


@pytest.mark.parametrize("halo", [False, True])
@pytest.mark.parametrize("m", sorted(POINTS))
def test_a_side_is_a_correlation(m: int, halo: bool) -> None:
    random = np.random.default_rng(0)
    for size in range(1, 21):
        side = Side(size, m, halo)
        weights, x = random.normal(size=3), random.normal(size=size + 2 * halo)
        padded = x if halo else np.pad(x, 1)
        at_points = np.tile(minimal_filtering(m)[1] @ weights, side.tiles)
        found = side.outputs @ (at_points * (side.inputs @ x))
        np.testing.assert_allclose(found, np.convolve(padded, weights[::-1], "valid"), atol=1e-12)
        assert side.points == side.inputs.shape[0] == (m + 2) * -(-size // m)


def test_a_side_takes_fewest_products() -> None:
    assert [side_of(size, 4).m for size in range(1, 13)] == [2, 2, 4, 4, 2, 2, 4, 4, 4, 4, 4, 4]
    assert [side_of(size, 4).points for size in (1, 2, 3, 4, 5, 6, 8, 9, 10)] == [4, 4, 6, 6, 12, 12, 12, 18, 18]
    assert [side_of(size, 8).m for size in range(1, 10)] == [2, 2, 4, 4, 8, 8, 8, 8, 4]
    assert [side_of(size, 8).points for size in (4, 5, 8, 9, 16, 20)] == [6, 10, 10, 18, 20, 30]


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (2, 4), (4, 2), (4, 4), (4, 8)])
def test_filters_in_two_dimensions(rows: int, columns: int) -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=(3, 5, 3, 3)).astype(np.float32)
    x = random.normal(size=(5, rows + 2, columns + 2))
    down, across = minimal_filtering(rows), minimal_filtering(columns)
    at_points = filters(weights, rows, columns)
    assert at_points.shape == (rows + 2, columns + 2, 3, 5) and at_points.dtype == np.float64
    products = np.einsum("ijoc,cij->oij", at_points, down[2] @ x @ across[2].T)
    expected = np.zeros((3, rows, columns))
    for out, row, column in np.ndindex(3, rows, columns):
        expected[out, row, column] = np.sum(weights[out] * x[:, row : row + 3, column : column + 3])
    np.testing.assert_allclose(down[0] @ products @ across[0].T, expected, atol=1e-12)


@pytest.mark.parametrize(("size", "lost"), [((4, 4), 2e-6), ((4, 8), 9e-6)])
def test_what_rounding_loses(size: tuple[int, int], lost: float) -> None:
    """Of the deviation of what 256 channels give, root mean square; the usual points 1 and 2 lose 2.6e-6 in 4 x 4."""
    random = np.random.default_rng(0)
    x = np.maximum(random.normal(size=(64, 256, *size)), 0).astype(np.float32)
    weights = (random.normal(size=(32, 256, 3, 3)) / 48).astype(np.float32)
    tiled = tiling_of(256, *size, ())
    emit, value = Emitter("rounded"), input_like(x)
    out = convolve(emit, tiled.enter(emit, value), tiled, Convolution(weights, None), None)
    (found,) = run(emit, [tiled.with_channels(32).leave(emit, out)], (value, x))
    expected = conv2d(torch.from_numpy(x).double(), torch.from_numpy(weights).double(), padding=1).numpy()
    assert expected.std() > 0.5
    assert np.sqrt(np.mean((found - expected) ** 2)) < lost * expected.std()


def run(emit: Emitter, outs: list[ir.Value], *given: tuple[ir.Value, Array]) -> list[Array]:
    inputs = [value for value, _ in given]
    graph = ir.Graph(
        inputs, outs, nodes=emit.nodes, initializers=emit.constants, opset_imports={"": 19}, name="emitted"
    )
    model = ir.Model(graph, ir_version=10)
    common.ShapeInferencePass(strict_mode=True)(model)
    return list(ort(model, {value.name or "": array for value, array in given}).values())


def input_like(x: Array, name: str = "x") -> ir.Value:
    return ir.val(name, ir.DataType.from_numpy(x.dtype), ["N", *x.shape[1:]])


def order_of(tiled: Tiling, by_split: Sequence[Window]) -> tuple[int, int]:
    """Group and place of the split batch at these offsets, the first split's first; the last is the highest digit."""
    group = place = 0
    for (rows, columns), grouped, (row, column) in list(zip(tiled.layout, tiled.grouped, by_split, strict=True))[::-1]:
        if grouped:
            group = (group * rows + row) * columns + column
        else:
            place = (place * rows + row) * columns + column
    return group, place


def expected_tiles(x: Array, tiled: Tiling) -> Array:
    """`[g,i,j,c,(s * tiles + t) * batches + b]` of a tensor in the pixels' order, one number at a time."""
    rows, columns = (prod(window[axis] for window in tiled.layout) for axis in (0, 1))
    count, batches = len(x) // (rows * columns), tiled.batches * len(x) // (rows * columns)
    channels = x.reshape(len(x), -1, *x.shape[-2:])
    shape = tiled.groups, tiled.rows, tiled.run, channels.shape[1], tiled.strips * tiled.tiles * batches
    out = np.zeros(shape, x.dtype)
    for offsets in np.ndindex(*(size for window in tiled.layout for size in window)):
        pairs = list(zip(offsets[::2], offsets[1::2], strict=True))
        row = column = 0
        for offset, window in zip(pairs[::-1], tiled.layout[::-1], strict=True):
            row, column = row * window[0] + offset[0], column * window[1] + offset[1]
        group, place = order_of(tiled, pairs)
        for n, h, t, j in np.ndindex(count, tiled.height, tiled.tiles, tiled.run):
            pixel = channels[(n * rows + row) * columns + column, :, h, t * tiled.run + j]
            strip, within = divmod(h, tiled.rows)
            out[group, within, j, :, (strip * tiled.tiles + t) * batches + place * count + n] = pixel
    return out if x.ndim == 4 else out[:, :, :, 0]


def made(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(0).permutation(prod(shape)).reshape(shape).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_entering_leaving_and_splitting(data: st.DataObject) -> None:
    """Splits one behind the other, some into groups, of maps with and without channels, and free batches."""
    layout = data.draw(st.lists(windows, max_size=3))
    height, width = (data.draw(st.integers(1, 2)) * prod(w[axis] for w in layout) for axis in (0, 1))
    width *= data.draw(st.sampled_from([1, 4, 8]))
    channels, count = data.draw(st.sampled_from([None, 1, 2])), data.draw(st.integers(1, 3))
    x = made((count, *([channels] if channels else []), height, width))
    longest = data.draw(st.sampled_from([1, 8, 64]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiling, "LONGEST", longest)
        patch.setattr(tiling, "SHORTEST", data.draw(st.sampled_from([1, 8, 64])))
        patch.setattr(tiling, "LOWEST", data.draw(st.sampled_from([1, 2])))
        now = tiling_of(channels, height, width, ())
        assert now.rows * now.strips == height
        assert now.run * now.tiles == width and now.run == run_of(width)
        emit, value = Emitter("split"), input_like(x)
        tiles, plain = now.enter(emit, value), x
        outs, expected = [tiles], [expected_tiles(x, now)]
        for window in layout:
            if not now.can_split(window):
                break
            tiles, now = now.split(emit, tiles, window)
            rows, columns = (prod(w[axis] for w in now.layout) for axis in (0, 1))
            plain = np.stack([x[n, ..., i::rows, j::columns] for n, i, j in np.ndindex(count, rows, columns)])
            assert now.run * now.tiles == plain.shape[-1] and now.groups * now.batches == rows * columns
            outs.append(tiles)
            expected.append(expected_tiles(plain, now))
        outs.append(now.leave(emit, tiles))
        again = tiling_of(channels, *plain.shape[-2:], now.layout)
        outs.append(again.enter(emit, outs[-1]))
    for found, right in zip(run(emit, outs, (value, x)), [*expected, plain, expected_tiles(plain, again)], strict=True):
        np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("longest", [8, 1000])
def test_split_and_left_is_sliced(longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "LONGEST", longest)
    x = made((2, 3, 8, 48))
    now = tiling_of(3, 8, 48, ())
    emit, value = Emitter("split"), input_like(x)
    tiles, after = now.split(emit, now.enter(emit, value), (2, 2))
    assert after.groups == (4 if longest == 8 else 1)
    sliced = [x[n, :, i::2, j::2] for n, i, j in np.ndindex(2, 2, 2)]
    (found,) = run(emit, [after.leave(emit, tiles)], (value, x))
    np.testing.assert_array_equal(found, np.stack(sliced))


def test_runs_of_columns() -> None:
    assert [run_of(width) for width in (1, 4, 7, 8, 9, 12, 16, 18, 64)] == [1, 4, 7, 8, 9, 4, 8, 18, 8]
    assert tiling_of(64, 8, 64, ()).batches == 1
    grouped = tiling_of(64, 8, 64, ((2, 2), (4, 4)))
    assert (grouped.groups, grouped.batches, grouped.tiles) == (16, 4, 8)
    assert tiling_of(512, 8, 64, ((2, 2), (4, 4))).groups == 16
    assert [tiling_of(64, 8, width, ((2, 2), (2, 2))).groups for width in (64, 128)] == [1, 4]  # of 128 numbers, of 256


def test_strips_join_where_numbers_are_few() -> None:
    """As many as are still 64 numbers, of 4 rows at least; a split that brings batches merges them."""
    sizes_ = [(32, 64), (16, 64), (32, 8), (64, 512), (6, 64), (36, 64), (12, 8)]
    found = [tiling_of(64, *size, ()) for size in sizes_]
    assert [one.strips for one in found] == [8, 4, 8, 1, 1, 3, 3]
    assert [one.rows for one in found] == [4, 4, 4, 64, 6, 12, 4]
    emit, value = Emitter("split"), ir.val("x", ir.DataType.FLOAT, [1, 8, 8, 64, 64])
    before = Tiling(64, 64, 8, 8, strips=8)
    after = [before.split(emit, value, window)[1] for window in ((2, 1), (1, 2), (2, 2), (4, 4))]
    assert [one.strips for one in after] == [4, 8, 4, 2]
    assert [one.strips * one.tiles * one.batches for one in after] == [64, 64, 64, 64]


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    layout = draw(st.lists(windows, max_size=2))
    height = draw(st.integers(1, 13))
    width = draw(st.one_of(st.integers(1, 9), st.sampled_from([12, 16, 20, 24, 40])))
    grouped = tuple(draw(st.booleans()) for _ in layout)
    run_ = run_of(width)
    strips = draw(st.sampled_from([count for count in range(1, height + 1) if height % count == 0]))
    return Tiling(draw(st.integers(1, 5)), height, run_, width // run_, tuple(layout), grouped, strips)


@settings(deadline=None, max_examples=40)
@given(tilings(), st.integers(1, 4), st.integers(1, 2), st.data())
def test_convolutions(tiled: Tiling, out: int, count: int, data: st.DataObject) -> None:
    """In double precision, so that nothing hides behind what single precision loses, and in single."""
    bias, relu, added = (data.draw(st.booleans()) for _ in range(3))
    limit = data.draw(st.sampled_from([1, 3000, 10_000_000]))
    random = np.random.default_rng(0)
    batches = count * prod(rows * columns for rows, columns in tiled.layout)
    weights = random.normal(size=(out, tiled.channels or 1, 3, 3)).astype(np.float32)
    offset = random.normal(size=out).astype(np.float32) if bias else None
    x = random.normal(size=(batches, tiled.channels or 1, tiled.height, tiled.run * tiled.tiles)).astype(np.float32)
    other = random.normal(size=(batches, out, *x.shape[2:])).astype(np.float32)
    made_of = Convolution(weights, offset, relu)
    double = [torch.from_numpy(array).double() for array in (x, weights, other)]
    expected = conv2d(*double[:2], None if offset is None else torch.from_numpy(offset).double(), padding=1)
    expected = expected + double[2] if added else expected
    expected = (expected.relu() if relu else expected).numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "CACHE_BYTES", limit)
        patch.setattr(convolution, "ROW_BY_ROW", data.draw(st.sampled_from([0, 1_000_000])))
        found = convolved(tiled, made_of, x, other if added else None)
        lost = 1e-4 if tiled.run <= 4 else 1e-4 * np.sqrt(9 * weights.shape[1])  # tiles of 8: of the deviation
        np.testing.assert_allclose(found, expected, rtol=0, atol=lost)
        patch.setattr(convolution, "_FLOAT", ir.DataType.DOUBLE)
        patch.setattr(Emitter, "floats", lambda emit, array: emit.constant(array.astype(np.float64)))
        found = convolved(tiled, made_of, x.astype(np.float64), other.astype(np.float64) if added else None)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("height", [3, 4, 5, 6])
def test_one_or_several_tiles_down_a_band(height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one is computed row of points by row of points, for each has the same weights."""
    monkeypatch.setattr(convolution, "CACHE_BYTES", 1)
    monkeypatch.setattr(convolution, "ROW_BY_ROW", 0)
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 3, height, 16)).astype(np.float32)
    weights = random.normal(size=(2, 3, 3, 3)).astype(np.float32)
    expected = conv2d(torch.from_numpy(x).double(), torch.from_numpy(weights).double(), padding=1).numpy()
    found = convolved(Tiling(3, height, 8, 2), Convolution(weights, None), x, None)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def convolved(tiled: Tiling, made_of: Convolution, x: Array, other: Array | None) -> Array:
    """What the graph gives, which has a Scan where there are several bands or groups."""
    result = tiled.with_channels(len(made_of.weights))
    emit, value = Emitter("convolved"), input_like(x)
    given, shortcut = [(value, x)], None
    entered = tiled.enter(emit, value)
    if other is not None:
        given.append((input_like(other, "other"), other))
        shortcut = result.enter(emit, given[-1][0])
    tiles = convolve(emit, entered, tiled, made_of, shortcut)
    bands, rows = bands_of(tiled)
    down, across = side_of(rows, TALLEST), side_of(tiled.run, 8)
    points = (
        down.points
        * across.points
        * tiled.strips
        * tiled.tiles
        * tiled.batches
        * max(tiled.channels or 1, len(made_of.weights))
    )
    products = points * min(tiled.channels or 1, len(made_of.weights))
    row_by_row = down.tiles == 1 and 4 * points > convolution.CACHE_BYTES and products > convolution.ROW_BY_ROW
    assert scans_of(emit.nodes) == [1] * (tiled.groups * bands > 1) + [1] * row_by_row
    (found,) = run(emit, [result.leave(emit, tiles)], *given)
    return found


def scans_of(nodes: Iterable[ir.Node]) -> list[int]:
    """How many Scans there are in the graph, in the bodies of those, and so on."""
    bodies = [node.attributes["body"].as_graph() for node in nodes if node.op_type == "Scan"]
    return [len(bodies), *scans_of(node for body in bodies for node in body)] if bodies else []


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_pointwise_convolutions(bias: bool, relu: bool) -> None:
    random = np.random.default_rng(0)
    tiled = Tiling(3, 4, 4, 3, ((2, 2),), (True,))
    x, weights = random.normal(size=(8, 3, 4, 12)).astype(np.float32), random.normal(size=(5, 3, 1, 1))
    offset = random.normal(size=5).astype(np.float32) if bias else None
    emit, value = Emitter("pointwise"), input_like(x)
    made_of = Convolution(weights.astype(np.float32), offset, relu)
    out = tiled.with_channels(5).leave(emit, pointwise(emit, tiled.enter(emit, value), made_of))
    expected = np.einsum("oc,nchw->nohw", weights[:, :, 0, 0], x)
    expected = expected if offset is None else expected + offset[:, None, None]
    expected = np.maximum(expected, 0) if relu else expected
    (found,) = run(emit, [out], (value, x))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_bands_divide_the_height_without_more_products(monkeypatch: pytest.MonkeyPatch) -> None:
    for height in range(1, 41):
        tiled = Tiling(64, height, 4, 16)
        for limit in (1, 1_500_000, 10_000_000):
            monkeypatch.setattr(convolution, "CACHE_BYTES", limit)
            bands, rows = bands_of(tiled)
            assert bands * rows == height
            assert bands * side_of(rows, TALLEST).points <= side_of(height, TALLEST).points
        assert bands == 1


def test_the_points_of_a_band_fit_the_cache() -> None:
    """What Scan's body computes for one image, at 512x1024 and 16 to 256 channels: no tensor is larger than points."""
    for channels, height, width, layout in [
        (16, 512, 1024, ()),
        (64, 256, 512, ((2, 2),)),
        (128, 64, 128, ((2, 2), (2, 2))),
        (256, 32, 64, ((2, 2), (2, 2))),
    ]:
        tiled = tiling_of(channels, height, width, layout)
        batches = tiled.groups * tiled.batches
        x = ir.val("x", ir.DataType.FLOAT, [tiled.groups, height, tiled.run, channels, tiled.tiles * tiled.batches])
        weights = np.ones((channels, channels, 3, 3), np.float32)
        emit = Emitter("c")
        out = convolve(emit, x, tiled, Convolution(weights, None), None)
        (scan,) = [node for node in emit.nodes if node.op_type == "Scan"]
        graph = ir.Graph([x], [out], nodes=emit.nodes, initializers=emit.constants, opset_imports={"": 19}, name="g")
        model = ir.Model(graph, ir_version=10)
        common.ShapeInferencePass(strict_mode=True)(model)
        largest = max(
            4
            * prod(size or 1 for size in sizes(value))
            * (1 if None not in sizes(value) else tiled.tiles * tiled.batches)
            for node in scan.attributes["body"].as_graph()
            for value in node.outputs
        )
        row_of_tiles = 4 * 6 * 10 * tiled.tiles * tiled.batches * channels
        assert largest <= max(convolution.CACHE_BYTES, row_of_tiles), (channels, largest)
        assert largest < 4 * batches * channels * height * width


def test_large_products_are_made_a_row_of_points_at_a_time() -> None:
    """Split batches of 512 channels, 4x8: nothing as large as all points is ever there."""
    tiled = Tiling(512, 4, 8, 1, ((8, 8),), (False,))
    emit = Emitter("c")
    x = ir.val("x", ir.DataType.FLOAT, [1, 4, 8, 512, 64])
    out = convolve(emit, x, tiled, Convolution(np.ones((512, 512, 3, 3), np.float32), None), None)
    graph = ir.Graph([x], [out], nodes=emit.nodes, initializers=emit.constants, opset_imports={"": 19}, name="g")
    common.ShapeInferencePass(strict_mode=True)(ir.Model(graph, ir_version=10))
    (scan,) = [node for node in emit.nodes if node.op_type == "Scan"]
    pair = 512 * 64

    def largest(nodes: Iterable[ir.Node]) -> int:
        found = [sizes(value) for node in nodes for value in node.outputs]
        return max(prod(size or 1 for size in shape) * (64 if None in shape else 1) for shape in found)

    assert largest(scan.attributes["body"].as_graph()) == 10 * pair
    assert largest(emit.nodes) == 6 * 8 * pair


def test_columns_are_apart_in_neighbouring_groups() -> None:
    """A number in the last row and column of one split batch reaches no other."""
    tiled = tiling_of(1, 4, 12, ((2, 2),))
    for grouped in ((True,), (False,)):
        now = Tiling(tiled.channels, tiled.height, tiled.run, tiled.tiles, tiled.layout, grouped)
        x = np.zeros((4, 1, 4, 12), np.float32)
        x[1, 0, 3, 11] = x[2, 0, 0, 0] = 1
        emit, value = Emitter("c"), input_like(x)
        ones = np.ones((1, 1, 3, 3), np.float32)
        out = now.leave(emit, convolve(emit, now.enter(emit, value), now, Convolution(ones, None), None))
        expected = np.zeros_like(x)
        expected[1, 0, 2:, 10:] = expected[2, 0, :2, :2] = 1
        (found,) = run(emit, [out], (value, x))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_names_are_used_once() -> None:
    tiled = tiling_of(2, 8, 16, ())
    emit, value = Emitter("c"), input_like(made((1, 2, 8, 16)))
    entered = tiled.enter(emit, value)
    convolve(emit, entered, tiled, Convolution(np.ones((2, 2, 3, 3), np.float32), None), entered)
    names = sorted([node.name or "" for node in emit.nodes] + [value.name or "" for value in emit.constants])
    assert all(one != other for one, other in pairwise(names))
