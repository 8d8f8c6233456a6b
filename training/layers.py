"""Split, merge, shrink and expand pooling (Split-Merge Pooling paper, section 3; Fig. 1 and 2).

All four work on tensors `[N,C,H,W]` of any type and take a window `(rows, columns)`, or one number for both. They have
no weights. Split batch (k,l) of image n is batch `n * rows * columns + k * columns + l` and holds the pixels
`[k::rows, l::columns]`; k counts rows and l columns.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "ExpandPool",
    "MergePool",
    "ShrinkPool",
    "SplitPool",
    "conv_shrink",
    "expand_pool",
    "merge_pool",
    "shrink_pool",
    "split_pool",
]

Window = int | tuple[int, int]
Offset = tuple[int, int]


def _pair(window: Window) -> tuple[int, int]:
    rows, columns = (window, window) if isinstance(window, int) else window
    if rows < 1 or columns < 1:
        raise ValueError(f"A pooling window must be at least 1x1, not {rows}x{columns}.")
    return rows, columns


def split_pool(x: Tensor, window: Window = 2) -> Tensor:
    """Move every pixel of each window to a batch of its own: `[N,C,H,W] -> [N*r*c,C,H/r,W/c]` (Eq. 1).

    Raises ValueError where the window does not divide the size.
    """
    rows, columns = _pair(window)
    _check_divisible(x, rows, columns)
    if torch.compiler.is_exporting():
        split: Tensor = _split_operator(x, rows, columns)
        return split
    return _split(x, rows, columns)


def merge_pool(x: Tensor, window: Window = 2) -> Tensor:
    """Undo `split_pool`, bit for bit: `[N*r*c,C,h,w] -> [N,C,h*r,w*c]` (Eq. 2).

    Raises ValueError where the number of batches is no multiple of the window's pixels.
    """
    rows, columns = _pair(window)
    if torch.compiler.is_exporting():
        merged: Tensor = _merge_operator(x, rows, columns)
        return merged
    if x.shape[0] % (rows * columns):
        raise ValueError(
            f"merge_pool of a {rows}x{columns} window got {x.shape[0]} batches, no multiple of {rows * columns}."
        )
    return _merge(x, rows, columns)


def shrink_pool(x: Tensor, offset: Offset, window: Window = 2) -> Tensor:
    """Keep the pixel at `offset` (row, column) of each window: `[N,C,H,W] -> [N,C,H/r,W/c]` (section 3.2).

    It is split pooling that returns one split batch only. Raises ValueError where the window does not divide the size
    or the offset lies outside the window.
    """
    rows, columns = _pair(window)
    _check_divisible(x, rows, columns)
    row, column = _check_offset(offset, rows, columns)
    return x[:, :, row::rows, column::columns]


def expand_pool(x: Tensor, offset: Offset, window: Window = 2) -> Tensor:
    """Put each pixel back at `offset` of its window, zeros elsewhere: `[N,C,h,w] -> [N,C,h*r,w*c]` (section 3.2).

    Only the pixels put back receive a gradient. Raises ValueError where the offset lies outside the window.
    """
    rows, columns = _pair(window)
    row, column = _check_offset(offset, rows, columns)
    n, c, h, w = x.shape
    sparse = x.new_zeros((n, c, h * rows, w * columns))
    sparse[:, :, row::rows, column::columns] = x
    return sparse


def conv_shrink(conv: nn.Conv2d, x: Tensor, offset: Offset, window: Window = 2) -> Tensor:
    """`shrink_pool(conv(x), offset)` for a stride-1 reading of `conv`, at the cost of the strided convolution.

    The pixels that shrinking keeps are those of a convolution whose stride is the window and whose zero padding is
    moved by the offset: `p - o` before and `p + o - (window - 1)` after, for kernels `2p + 1`. Negative padding crops.
    Whatever stride `conv` itself has is ignored.
    """
    rows, columns = _pair(window)
    _check_divisible(x, rows, columns)
    row, column = _check_offset(offset, rows, columns)
    pad_y, pad_x = _half_kernel(conv)
    if (row, column) == (0, 0):  # torch's own symmetric padding only adds rows that the last stride never reaches
        return F.conv2d(x, conv.weight, conv.bias, (rows, columns), (pad_y, pad_x))
    moved = (
        pad_x - column,
        pad_x + column - (columns - 1),
        pad_y - row,
        pad_y + row - (rows - 1),
    )
    return F.conv2d(F.pad(x, moved), conv.weight, conv.bias, (rows, columns))


class SplitPool(nn.Module):
    """`split_pool` as a module."""

    def __init__(self, window: Window = 2) -> None:
        super().__init__()
        self.window = _pair(window)

    def forward(self, x: Tensor) -> Tensor:
        return split_pool(x, self.window)


class MergePool(nn.Module):
    """`merge_pool` as a module."""

    def __init__(self, window: Window = 2) -> None:
        super().__init__()
        self.window = _pair(window)

    def forward(self, x: Tensor) -> Tensor:
        return merge_pool(x, self.window)


class ShrinkPool(nn.Module):
    """`shrink_pool` as a module that draws a new offset in every forward pass.

    Give the same `torch.Generator` (on the CPU) to all modules of a network and seed it for repeatable training.
    `offset` holds the last one drawn, for the `ExpandPool` that makes the pair.
    """

    def __init__(self, window: Window = 2, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.window = _pair(window)
        self.generator = generator
        self.offset: Offset = (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        self.offset = draw_offset(self.window, self.generator)
        return shrink_pool(x, self.offset, self.window)


class ExpandPool(nn.Module):
    """`expand_pool` at the offset that its partner `ShrinkPool` drew in this forward pass."""

    def __init__(self, shrink: ShrinkPool) -> None:
        super().__init__()
        self._partner = (shrink,)  # in a tuple, so that the partner is not registered as a submodule twice

    def forward(self, x: Tensor) -> Tensor:
        (shrink,) = self._partner
        return expand_pool(x, shrink.offset, shrink.window)


def draw_offset(window: Window, generator: torch.Generator | None = None) -> Offset:
    """Draw a pixel (row, column) of the window, all alike likely."""
    rows, columns = _pair(window)
    index = int(torch.randint(rows * columns, (), generator=generator))
    return divmod(index, columns)


def _split(x: Tensor, rows: int, columns: int) -> Tensor:
    n, c, height, width = x.shape
    windows = x.reshape(n, c, height // rows, rows, width // columns, columns)  # [N,C,h,r,w,c]
    return windows.permute(0, 3, 5, 1, 2, 4).reshape(n * rows * columns, c, height // rows, width // columns)


def _merge(x: Tensor, rows: int, columns: int) -> Tensor:
    n, c, h, w = x.shape
    windows = x.reshape(n // (rows * columns), rows, columns, c, h, w)
    return windows.permute(0, 3, 4, 1, 5, 2).reshape(n // (rows * columns), c, h * rows, w * columns)


# While a network is being exported the two appear as one operator each, so that the exporter sees what they are
# instead of the reshapes and transposes they are made of.


@torch.library.custom_op("splitmerge::split_pool", mutates_args=())
def _split_operator(x: Tensor, rows: int, columns: int) -> Tensor:
    return _split(x, rows, columns).clone()


@torch.library.custom_op("splitmerge::merge_pool", mutates_args=())
def _merge_operator(x: Tensor, rows: int, columns: int) -> Tensor:
    return _merge(x, rows, columns).clone()


@_split_operator.register_fake
def _(x: Tensor, rows: int, columns: int) -> Tensor:
    n, c, height, width = x.shape
    return x.new_empty((n * rows * columns, c, height // rows, width // columns))


@_merge_operator.register_fake
def _(x: Tensor, rows: int, columns: int) -> Tensor:
    n, c, h, w = x.shape
    return x.new_empty((n // (rows * columns), c, h * rows, w * columns))


def _check_divisible(x: Tensor, rows: int, columns: int) -> None:
    height, width = x.shape[-2:]
    if height % rows or width % columns:
        to = (-(-height // rows) * rows, -(-width // columns) * columns)
        raise ValueError(
            f"Pooling with a {rows}x{columns} window got height {height} and width {width}, which it does not divide: "
            f"pad to {to[0]}x{to[1]}."
        )


def _check_offset(offset: Offset, rows: int, columns: int) -> Offset:
    row, column = offset
    if not (0 <= row < rows and 0 <= column < columns):
        raise ValueError(f"The offset {offset} lies outside the {rows}x{columns} window.")
    return row, column


def _half_kernel(conv: nn.Conv2d) -> tuple[int, int]:
    height, width = conv.kernel_size
    expected = (height // 2, width // 2)
    if conv.padding != expected or height % 2 == 0 or width % 2 == 0 or conv.groups != 1 or conv.dilation != (1, 1):
        raise ValueError(
            f"conv_shrink needs an odd kernel with 'same' zero padding, one group and no dilation; got {conv}."
        )
    return expected
