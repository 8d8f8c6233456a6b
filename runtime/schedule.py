"""In which order split batches run, and which of them run together.

The order is that of Bayer's dither matrix: each further batch fills the largest gap that is left, so that whatever part
of the order has been run is spread evenly over the frame. For windows of a power of two the first 4^i batches are a
regular grid.
"""

from splitmerge.errors import InputError

__all__ = ["DEFAULT_CONTEXTS", "DENSITIES", "ORDERS", "bayer_order", "chunks", "split_batch_order"]

ORDERS = ("bayer", "index")
DENSITIES = {"1": 1, "1/4": 4, "1/16": 16}
"""Shares of the pixels that can be computed alone, by name: one split batch in so many."""
DEFAULT_CONTEXTS = 2  # measured, see runtime.executor


def split_batch_order(order: str, rows: int, columns: int) -> list[int]:
    """Indices `k * columns + l` of all split batches of a `rows` x `columns` window, in the order named."""
    if order not in ORDERS:
        raise InputError(f"There is no order {order!r} of split batches: choose one of {', '.join(ORDERS)}.")
    if order == "index":
        return list(range(rows * columns))
    return [row * columns + column for row, column in bayer_order(rows, columns)]


def bayer_order(rows: int, columns: int) -> list[tuple[int, int]]:
    """All pixels (k,l) of a window, in bit-reversed order from the middle, where one batch alone represents it best.

    Windows that are no square of a power of two take the next larger square's order without what lies outside.
    """
    bits = max(rows - 1, columns - 1).bit_length()
    middle = 1 << bits >> 1
    order = [(row ^ middle, column ^ middle) for row, column in (_pixel(t, bits) for t in range(1 << 2 * bits))]
    return [(row, column) for row, column in order if row < rows and column < columns]


def chunks(order: list[int], size: int) -> list[range]:
    """Runs of `size` neighbouring indices (the last may be shorter), by the first of their members in `order`.

    Neighbours, because a run must be one piece of the stem's output. Only runs of one keep the order exactly.
    """
    if size < 1:
        raise InputError(f"A chunk of {size} split batches cannot be run: choose 1 or more.")
    runs = dict.fromkeys(index // size for index in order)
    return [range(run * size, min((run + 1) * size, len(order))) for run in runs]


def _pixel(t: int, bits: int) -> tuple[int, int]:
    """The t-th pixel of a 2^bits square: t's lowest pair of bits decides the highest bits of row and column."""
    row = column = 0
    for i in range(bits):
        pair = t >> 2 * i & 3
        column_bit = (pair ^ pair >> 1) & 1  # 0 -> (0,0), 1 -> (1,1), 2 -> (0,1), 3 -> (1,0): the diagonal first
        row_bit = pair & 1
        row = row << 1 | row_bit
        column = column << 1 | column_bit
    return row, column
