"""What a trunk is computed by, in LLVM's language: products of matrices, and minimal filtering around them.

Maps are float32 `[pixels + 2, channels]`, channels a multiple of the vector's lanes. The pixel behind the last is zero
and stands for all that lies outside; the one after it takes what is computed of tiles that reach beyond the map. Which
pixels a tile reads and writes is in tables, so that a kernel knows no height, width or split.
"""

from typing import Any

import llvmlite.ir as ir

from engines.native.code import FLOAT, INT, INT32, POINTER, Code
from engines.native.filtering import by_pairs_of_columns, by_pairs_of_rows
from export.cpu.winograd import minimal_filtering

__all__ = ["LINE", "Tile", "convolution", "labels", "pointwise", "products", "rows_at_once", "vectors_at_once"]

Tile = tuple[int, int]
"""Rows and columns of outputs that are computed together."""

LINE = 16
"""float32 numbers in a line of the cache."""

_NOTHING = ir.Constant(FLOAT, float("-inf"))

_PRODUCT = {
    "left": POINTER,  # [rows,depth], rows `left_step` apart
    "left_step": INT,
    "right": POINTER,  # [panels,depth,width of a panel]
    "result": POINTER,  # [rows,panels * width of a panel], rows `result_step` apart
    "result_step": INT,
    "rows": INT,
    "depth": INT,
    "panels": INT,
    "bias": POINTER,
    "low": FLOAT,  # the least that a result may be: 0 for ReLU
}
_ADDED = {"added": POINTER, "added_step": INT}


def rows_at_once(lanes: int, vectors: int) -> tuple[int, ...]:
    """Rows of a product whose sums are kept in registers, the most first; with panels of so many vectors."""
    if lanes == 8:  # AVX2 has half as many registers
        return {2: (6, 4, 2, 1), 1: (12, 8, 4, 2, 1)}[vectors]
    return {4: (6, 4, 2, 1), 2: (12, 8, 4, 2, 1), 1: (16, 8, 4, 2, 1)}[vectors]


def vectors_at_once(lanes: int, channels: int) -> int:
    """Vectors in a panel of the right matrix, for so many columns."""
    most = 2 if lanes == 8 else 4
    return next(vectors for vectors in (4, 2, 1) if vectors <= most and channels % (vectors * lanes) == 0)


def products(module: Any, lanes: int, vectors: int, added: bool) -> Any:
    """result = max(left right + bias (+ added), low): sums stay in registers while they are made."""
    name = f"products{vectors}{'_added' if added else ''}"
    if name in module.globals:
        return module.globals[name]
    parameters = {**_PRODUCT, **_ADDED} if added else _PRODUCT
    code = Code(module, name, parameters, lanes)
    b, width = code.b, vectors * lanes
    low, size = code.splat(code.low), b.mul(code.depth, code.whole(width))
    with code.loop(0, code.panels) as panel:
        right = code.at(code.right, b.mul(panel.index, size))
        column = b.mul(panel.index, code.whole(width))
        bias = [code.load(code.at(code.bias, b.add(column, code.whole(lanes * v)))) for v in range(vectors)]
        start: Any = 0
        for count in rows_at_once(lanes, vectors):
            with code.loop(start, b.sub(code.rows, code.whole(count - 1)), count) as row:
                numbers = [b.add(row.index, code.whole(one)) for one in range(count)]
                lefts = [code.at(code.left, b.mul(number, code.left_step)) for number in numbers]
                with code.loop(0, code.depth, 1, bias * count) as deep:
                    here = code.at(right, b.mul(deep.index, code.whole(width)))
                    factors = [code.load(code.at(here, lanes * v)) for v in range(vectors)]
                    done = b.add(b.mul(b.udiv(row.index, code.whole(count)), code.depth), deep.index)
                    code.prefetch(code.at(right, b.add(size, b.mul(done, code.whole(LINE)))))  # of the next panel
                    for one, left in enumerate(lefts):
                        factor = code.splat(b.load(code.at(left, deep.index), typ=FLOAT, align=4))
                        sums = deep.carried[one * vectors : (one + 1) * vectors]
                        deep.carry += [code.fma(factor, f, s) for f, s in zip(factors, sums, strict=True)]
                for one, number in enumerate(numbers):
                    for v in range(vectors):
                        value, here = deep.carried[one * vectors + v], b.add(column, code.whole(lanes * v))
                        if added:
                            at = b.add(b.mul(number, code.added_step), here)
                            value = b.fadd(value, code.load(code.at(code.added, at)))
                        at = b.add(b.mul(number, code.result_step), here)
                        code.store(code.at_least(value, low), code.at(code.result, at))
            start = row.index
    b.ret_void()
    return code.function


def pointwise(module: Any, lanes: int, vectors: int, added: bool) -> Any:
    """A 1x1 convolution of a whole map, `rows` pixels, and the zero behind them."""
    product = products(module, lanes, vectors, added)
    parameters = {**_PRODUCT, **_ADDED} if added else _PRODUCT
    code = Code(module, f"pointwise{vectors}{'_added' if added else ''}", parameters, lanes)
    code.b.call(product, code.function.args)
    columns = code.b.mul(code.panels, code.whole(vectors * lanes))
    _clear(code, code.at(code.result, code.b.mul(code.rows, code.result_step)), columns)
    code.b.ret_void()
    return code.function


def convolution(module: Any, lanes: int, tile: Tile, vectors: int, added: bool) -> Any:
    """A 3x3 convolution, `block` tiles at a time: their points, a product at each of them, and the outputs."""
    points, outputs = (tile[0] + 2) * (tile[1] + 2), tile[0] * tile[1]
    parameters = {
        "image": POINTER,  # [pixels,depth], pixels `image_step` apart
        "image_step": INT,
        "reads": POINTER,  # int32 [tiles,points]: pixels of `image`
        "writes": POINTER,  # int32 [tiles,outputs]: pixels of `result`
        "tiles": INT,
        "block": INT,
        "depth": INT,
        "panels": INT,
        "weights": POINTER,  # [points,panels,depth,width of a panel]
        "bias": POINTER,
        "zeros": POINTER,
        "before": POINTER,  # [points,block,depth], points `before_step` apart
        "before_step": INT,
        "behind": POINTER,  # [points,block,channels], `behind_step` apart
        "behind_step": INT,
        "pixels": INT,
        "result": POINTER,  # [pixels + 1,channels], pixels `result_step` apart
        "result_step": INT,
        "low": FLOAT,
    } | (_ADDED if added else {})
    name = f"{tile[0]}x{tile[1]}"
    product = products(module, lanes, vectors, False)
    to_points = _to_points(module, lanes, tile)
    from_points = _from_points(module, lanes, tile, added)
    code = Code(module, f"convolution{name}_{vectors}{'_added' if added else ''}", parameters, lanes)
    b = code.b
    channels = b.mul(code.panels, code.whole(vectors * lanes))
    size = b.mul(channels, code.depth)
    with code.loop(0, code.tiles, code.block) as first:
        left = b.sub(code.tiles, first.index)
        count = b.select(b.icmp_signed("<", left, code.block), left, code.block)
        reads = code.at(code.reads, b.mul(first.index, code.whole(points)), INT32)
        b.call(to_points, [code.image, code.image_step, reads, count, code.depth, code.before, code.before_step])
        with code.loop(0, code.whole(points)) as point:
            before, behind = (
                code.at(buffer, b.mul(point.index, step))
                for buffer, step in ((code.before, code.before_step), (code.behind, code.behind_step))
            )
            weights = code.at(code.weights, b.mul(point.index, size))
            b.call(
                product,
                [before, code.depth, weights, behind, channels, count, code.depth, code.panels, code.zeros, _NOTHING],
            )
        writes = code.at(code.writes, b.mul(first.index, code.whole(outputs)), INT32)
        more = [code.added, code.added_step] if added else []
        into = [code.result, code.result_step, code.low, *more]
        b.call(from_points, [code.behind, code.behind_step, writes, count, channels, code.bias, *into])
    _clear(code, code.at(code.result, b.mul(code.pixels, code.result_step)), channels)
    b.ret_void()
    return code.function


def labels(module: Any, lanes: int) -> Any:
    """uint8 [pixels]: which of the first `classes` channels is largest, the first of equals."""
    parameters = {"logits": POINTER, "pixels": INT, "channels": INT, "classes": INT, "result": POINTER}
    code = Code(module, "labels", parameters, lanes)
    b = code.b
    with code.loop(0, code.pixels) as pixel:
        logits = code.at(code.logits, b.mul(pixel.index, code.channels))
        first = b.load(logits, typ=FLOAT, align=4)
        with code.loop(1, code.classes, 1, [first, code.whole(0)]) as one:
            best, label = one.carried
            value = b.load(code.at(logits, one.index), typ=FLOAT, align=4)
            larger = b.fcmp_ordered(">", value, best)
            one.carry = [b.select(larger, value, best), b.select(larger, one.index, label)]
        byte = ir.IntType(8)
        b.store(b.trunc(one.carried[1], byte), code.at(code.result, pixel.index, byte))
    b.ret_void()
    return code.function


def _to_points(module: Any, lanes: int, tile: Tile) -> Any:
    """before[point,tile,channel]: the pixels of each tile and around it, through the matrices of height and width."""
    name = f"to_points{tile[0]}x{tile[1]}"
    if name in module.globals:
        return module.globals[name]
    down, across = (minimal_filtering(size)[2].tolist() for size in tile)
    rows, columns = len(down), len(across)
    parameters = {"image": POINTER, "image_step": INT, "reads": POINTER, "tiles": INT, "channels": INT}
    parameters |= {"before": POINTER, "step": INT}
    code = Code(module, name, parameters, lanes)
    b = code.b
    pixels, half_way = code.array(POINTER, rows * columns), code.array(code.vector, rows * columns)
    with code.loop(0, code.tiles) as number:
        reads = code.at(code.reads, b.mul(number.index, code.whole(rows * columns)), INT32)
        for one in range(rows * columns):
            pixel = b.sext(b.load(code.at(reads, one, INT32), typ=INT32), INT)
            b.store(code.at(code.image, b.mul(pixel, code.image_step)), code.at(pixels, one, POINTER))
        before = code.at(code.before, b.mul(number.index, code.channels))
        with code.loop(0, code.channels, lanes) as channel:
            for x in range(columns):
                places = [b.load(code.at(pixels, y * columns + x, POINTER), typ=POINTER) for y in range(rows)]
                column = [code.load(code.at(place, channel.index)) for place in places]
                for y, value in enumerate(by_pairs_of_rows(code, down, column)):
                    b.store(value, code.at(half_way, y * columns + x, code.vector))
            for y in range(rows):
                places = [code.at(half_way, y * columns + x, code.vector) for x in range(columns)]
                row = [b.load(place, typ=code.vector) for place in places]
                for x, value in enumerate(by_pairs_of_rows(code, across, row)):
                    point = b.mul(code.whole(y * columns + x), code.step)
                    code.store(value, code.at(before, b.add(point, channel.index)))
    b.ret_void()
    return code.function


def _from_points(module: Any, lanes: int, tile: Tile, added: bool) -> Any:
    """result[pixel,channel] = max(each tile's outputs of behind[point,tile,channel] + bias (+ added), low)."""
    name = f"from_points{tile[0]}x{tile[1]}{'_added' if added else ''}"
    if name in module.globals:
        return module.globals[name]
    down, across = (minimal_filtering(size)[0].tolist() for size in tile)
    rows, columns = len(down[0]), len(across[0])
    parameters = {
        "behind": POINTER,
        "step": INT,
        "writes": POINTER,
        "tiles": INT,
        "channels": INT,
        "bias": POINTER,
        "result": POINTER,
        "result_step": INT,
        "low": FLOAT,
    } | (_ADDED if added else {})
    code = Code(module, name, parameters, lanes)
    b = code.b
    low = code.splat(code.low)
    pixels, half_way = code.array(INT, tile[0] * tile[1]), code.array(code.vector, tile[0] * columns)
    with code.loop(0, code.tiles) as number:
        writes = code.at(code.writes, b.mul(number.index, code.whole(tile[0] * tile[1])), INT32)
        for one in range(tile[0] * tile[1]):
            pixel = b.sext(b.load(code.at(writes, one, INT32), typ=INT32), INT)
            b.store(pixel, code.at(pixels, one, INT))
        behind = code.at(code.behind, b.mul(number.index, code.channels))
        with code.loop(0, code.channels, lanes) as channel:
            for x in range(columns):
                points = [b.mul(code.whole(y * columns + x), code.step) for y in range(rows)]
                column = [code.load(code.at(behind, b.add(point, channel.index))) for point in points]
                for y, value in enumerate(by_pairs_of_columns(code, down, column)):
                    b.store(value, code.at(half_way, y * columns + x, code.vector))
            bias = code.load(code.at(code.bias, channel.index))
            for y in range(tile[0]):
                row = [b.load(code.at(half_way, y * columns + x, code.vector), typ=code.vector) for x in range(columns)]
                for x, value in enumerate(by_pairs_of_columns(code, across, row)):
                    pixel = b.load(code.at(pixels, y * tile[1] + x, INT), typ=INT)
                    value = b.fadd(value, bias)
                    if added:
                        at = b.add(b.mul(pixel, code.added_step), channel.index)
                        value = b.fadd(value, code.load(code.at(code.added, at)))
                    at = b.add(b.mul(pixel, code.result_step), channel.index)
                    code.store(code.at_least(value, low), code.at(code.result, at))
    b.ret_void()
    return code.function


def _clear(code: Code, pixel: Any, channels: Any) -> None:
    with code.loop(0, channels, code.lanes) as channel:
        code.store(code.floats(0), code.at(pixel, channel.index))
