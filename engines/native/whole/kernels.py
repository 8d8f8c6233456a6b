"""What a whole network is computed by, beside products and minimal filtering (`engines.native.kernels`).

Maps are float32 `[pixels,channels]`, channels a multiple of the vector's lanes, pixels a `step` apart: a map may be
some channels of a wider one. Which pixels are read is in tables, none of which leads outside.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir

from engines.native.code import FLOAT, INT, INT32, POINTER, Code
from engines.native.kernels import rows_at_once

__all__ = ["between", "direct", "frames", "largest", "resample", "scale"]

_BYTE = ir.IntType(8)


def direct(module: Any, lanes: int, vectors: int, added: bool) -> Any:
    """A convolution, run by run: `depth` numbers from a pixel on, times as many rows of weights, summed in registers.

    result = max(sum of runs + bias (+ added), low); `added` may be the result itself, to go on with a sum.
    """
    parameters = {
        "image": POINTER,
        "image_step": INT,
        "reads": POINTER,  # int32 [rows,runs]: the first pixel of each run
        "writes": POINTER,  # int32 [rows]: pixels of `result`
        "rows": INT,
        "runs": INT,
        "starts": POINTER,  # int64 [runs]: the first of a run's weights in each panel
        "depth": INT,
        "weights": POINTER,  # [panels,panel_step]
        "panel_step": INT,
        "panels": INT,
        "bias": POINTER,
        "low": FLOAT,
        "result": POINTER,
        "result_step": INT,
    } | ({"added": POINTER, "added_step": INT} if added else {})
    code = Code(module, f"direct{vectors}{'_added' if added else ''}", parameters, lanes, ("result", "added"))
    b, width = code.b, vectors * lanes
    low = code.splat(code.low)
    with code.loop(0, code.panels) as panel:
        column = b.mul(panel.index, code.whole(width))
        weights = code.at(code.weights, b.mul(panel.index, code.panel_step))
        bias = [code.load(code.at(code.bias, b.add(column, code.whole(lanes * v)))) for v in range(vectors)]
        start: Any = 0
        for count in rows_at_once(lanes, vectors):
            with code.loop(start, b.sub(code.rows, code.whole(count - 1)), count) as row:
                numbers = [b.add(row.index, code.whole(one)) for one in range(count)]
                places = [b.mul(number, code.runs) for number in numbers]
                with code.loop(0, code.runs, 1, bias * count) as run:
                    pixels = [_number(code, code.reads, b.add(place, run.index)) for place in places]
                    lefts = [code.at(code.image, b.mul(pixel, code.image_step)) for pixel in pixels]
                    right = code.at(weights, b.load(code.at(code.starts, run.index, INT), typ=INT))
                    with code.loop(0, code.depth, 1, run.carried) as deep:
                        here = code.at(right, b.mul(deep.index, code.whole(width)))
                        factors = [code.load(code.at(here, lanes * v)) for v in range(vectors)]
                        for one, left in enumerate(lefts):
                            factor = code.splat(b.load(code.at(left, deep.index), typ=FLOAT, align=4))
                            sums = deep.carried[one * vectors : (one + 1) * vectors]
                            deep.carry += [code.fma(factor, f, s) for f, s in zip(factors, sums, strict=True)]
                    run.carry = deep.carried
                for one, number in enumerate(numbers):
                    pixel = _number(code, code.writes, number)
                    for v in range(vectors):
                        at = b.add(column, code.whole(lanes * v))
                        _finish(code, pixel, at, run.carried[one * vectors + v], low, added)
            start = row.index
    b.ret_void()
    return code.function


def resample(module: Any, lanes: int, added: bool) -> Any:
    """result = max(sum of pixels times factors (+ added), low): means, and what lies between pixels."""
    return _gathering(module, lanes, added, "resample", {"factors": POINTER}, 0.0, _times_factor)


def largest(module: Any, lanes: int) -> Any:
    """result = the largest of some pixels, channel by channel."""
    return _gathering(module, lanes, False, "largest", {}, float("-inf"), _larger)


def _gathering(
    module: Any,
    lanes: int,
    added: bool,
    name: str,
    more: dict[str, Any],
    first: float,
    taken: Callable[[Code, Any, Any, Any], Any],
) -> Any:
    parameters = {
        "image": POINTER,
        "image_step": INT,
        "reads": POINTER,  # int32 [rows,taps]
        **more,  # float32 [rows,taps]
        "rows": INT,
        "taps": INT,
        "channels": INT,
        "low": FLOAT,
        "result": POINTER,
        "result_step": INT,
    } | ({"added": POINTER, "added_step": INT} if added else {})
    code = Code(module, f"{name}{'_added' if added else ''}", parameters, lanes)
    b, low = code.b, code.splat(code.low)
    with code.loop(0, code.rows) as row:
        place = b.mul(row.index, code.taps)
        with code.loop(0, code.channels, lanes) as channel:
            with code.loop(0, code.taps, 1, [code.floats(first)]) as tap:
                at = b.add(place, tap.index)
                pixel = _number(code, code.reads, at)
                value = code.load(code.at(code.image, b.add(b.mul(pixel, code.image_step), channel.index)))
                tap.carry = [taken(code, value, at, tap.carried[0])]
            _finish(code, row.index, channel.index, tap.carried[0], low, added)
    b.ret_void()
    return code.function


def _times_factor(code: Code, value: Any, at: Any, total: Any) -> Any:
    return code.fma(value, code.splat(code.b.load(code.at(code.factors, at), typ=FLOAT, align=4)), total)


def _larger(code: Code, value: Any, _: Any, most: Any) -> Any:
    """NaN stays: where neither is larger, the new one is taken."""
    return code.b.select(code.b.fcmp_unordered("<=", value, most), _kept(code, value, most), value)


def _kept(code: Code, value: Any, most: Any) -> Any:
    """The one of two that is NaN, else the second."""
    return code.b.select(code.b.fcmp_unordered("uno", value, value), value, most)


def scale(module: Any, lanes: int) -> Any:
    """result = max(image * factors + offsets, low), channel by channel."""
    parameters = {
        "image": POINTER,
        "image_step": INT,
        "rows": INT,
        "channels": INT,
        "factors": POINTER,
        "offsets": POINTER,
        "low": FLOAT,
        "result": POINTER,
        "result_step": INT,
    }
    code = Code(module, "scale", parameters, lanes)
    b, low = code.b, code.splat(code.low)
    with code.loop(0, code.rows) as row:
        source = code.at(code.image, b.mul(row.index, code.image_step))
        with code.loop(0, code.channels, lanes) as channel:
            factor, offset = (code.load(code.at(one, channel.index)) for one in (code.factors, code.offsets))
            value = code.fma(code.load(code.at(source, channel.index)), factor, offset)
            _finish(code, row.index, channel.index, value, low, added=False)
    b.ret_void()
    return code.function


def frames(module: Any, lanes: int) -> Any:
    """result [rows,columns,channels] = (uint8 frames - mean) * factors, rows `row_step` pixels apart. No channels fill
    up vectors here."""
    parameters = {"frames": POINTER, "rows": INT, "columns": INT, "channels": INT}
    parameters |= {"mean": POINTER, "factors": POINTER, "result": POINTER, "row_step": INT}
    code = Code(module, "frames", parameters, lanes)
    b = code.b
    with code.loop(0, code.rows) as row, code.loop(0, code.columns) as column:
        first = b.mul(b.add(b.mul(row.index, code.columns), column.index), code.channels)
        into = b.mul(b.add(b.mul(row.index, code.row_step), column.index), code.channels)
        with code.loop(0, code.channels) as channel:
            value = b.load(code.at(code.frames, b.add(first, channel.index), _BYTE), typ=_BYTE)
            mean, factor = (b.load(code.at(one, channel.index), typ=FLOAT) for one in (code.mean, code.factors))
            value = b.fmul(b.fsub(b.uitofp(value, FLOAT), mean), factor)
            b.store(value, code.at(code.result, b.add(into, channel.index)))
    b.ret_void()
    return code.function


def between(module: Any, lanes: int) -> Any:
    """uint8 [rows,across]: which channel of logits resampled along height and width is largest, the first of equals.

    The rows between are made one at a time, in `half_way` [width,channels].
    """
    parameters = {
        "logits": POINTER,  # [height,width,channels], pixels `step` apart
        "step": INT,
        "width": INT,
        "channels": INT,
        "absent": POINTER,  # float32 [channels]: 0, and -inf for those that fill up vectors
        "down_reads": POINTER,  # int32 [rows,down_taps]: rows of `logits`
        "down_factors": POINTER,
        "down_taps": INT,
        "rows": INT,
        "across_reads": POINTER,  # int32 [across,across_taps]: columns
        "across_factors": POINTER,
        "across_taps": INT,
        "across": INT,
        "half_way": POINTER,
        "labels": POINTER,
    }
    code = Code(module, "between", parameters, lanes)
    b = code.b
    line = b.mul(code.width, code.step)
    with code.loop(0, code.rows) as row:
        place = b.mul(row.index, code.down_taps)
        with code.loop(0, code.width) as column, code.loop(0, code.channels, lanes) as channel:
            at = b.add(b.mul(column.index, code.step), channel.index)
            with code.loop(0, code.down_taps, 1, [code.floats(0)]) as tap:
                number = b.add(place, tap.index)
                source = b.mul(_number(code, code.down_reads, number), line)
                factor = code.splat(b.load(code.at(code.down_factors, number), typ=FLOAT))
                tap.carry = [code.fma(code.load(code.at(code.logits, b.add(source, at))), factor, tap.carried[0])]
            code.store(tap.carried[0], code.at(code.half_way, b.add(b.mul(column.index, code.channels), channel.index)))
        labels = code.at(code.labels, b.mul(row.index, code.across), _BYTE)
        with code.loop(0, code.across) as column:
            label = _largest_channel(code, b.mul(column.index, code.across_taps))
            b.store(b.trunc(label, _BYTE), code.at(labels, column.index, _BYTE))
    b.ret_void()
    return code.function


def _largest_channel(code: Code, place: Any) -> Any:
    """The channel, int32, that is largest at a pixel between those of `half_way`; 0 where all are NaN."""
    b, lanes = code.b, code.lanes
    numbers = ir.VectorType(INT32, lanes)
    each = ir.Constant(numbers, list(range(lanes)))
    before = [code.floats(float("-inf")), ir.Constant(numbers, [0] * lanes), each]
    with code.loop(0, code.channels, lanes, before) as channel:
        best, chosen, here = channel.carried
        with code.loop(0, code.across_taps, 1, [code.load(code.at(code.absent, channel.index))]) as tap:
            number = b.add(place, tap.index)
            column = b.mul(_number(code, code.across_reads, number), code.channels)
            factor = code.splat(b.load(code.at(code.across_factors, number), typ=FLOAT))
            value = code.load(code.at(code.half_way, b.add(column, channel.index)))
            tap.carry = [code.fma(value, factor, tap.carried[0])]
        larger = b.fcmp_ordered(">", tap.carried[0], best)
        following = b.add(here, ir.Constant(numbers, [lanes] * lanes))
        channel.carry = [b.select(larger, tap.carried[0], best), b.select(larger, here, chosen), following]
    best, chosen, _ = channel.carried
    most = code.splat(_reduced(code, "fmax", best, FLOAT))
    none = ir.Constant(numbers, [2**31 - 1] * lanes)
    first = _reduced(code, "umin", b.select(b.fcmp_ordered("==", best, most), chosen, none), INT32)
    return b.select(b.icmp_signed("==", first, ir.Constant(INT32, 2**31 - 1)), ir.Constant(INT32, 0), first)


def _finish(code: Code, pixel: Any, channel: Any, value: Any, low: Any, added: bool) -> None:
    b = code.b
    if added:
        value = b.fadd(value, code.load(code.at(code.added, b.add(b.mul(pixel, code.added_step), channel))))
    code.store(code.at_least(value, low), code.at(code.result, b.add(b.mul(pixel, code.result_step), channel)))


def _number(code: Code, table: Any, index: Any) -> Any:
    """An int32 of a table."""
    return code.b.sext(code.b.load(code.at(table, index, INT32), typ=INT32), INT)


def _reduced(code: Code, operation: str, value: Any, kind: Any) -> Any:
    letter = "f32" if kind == FLOAT else "i32"
    name = f"llvm.vector.reduce.{operation}.v{code.lanes}{letter}"
    module = code.function.module
    function = module.globals.get(name) or ir.Function(module, ir.FunctionType(kind, [value.type]), name)
    return code.b.call(function, [value])
