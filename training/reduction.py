"""What a network does at the five places where a ResNet halves its resolution.

The weights are the same in all four forms, so one network can be read as any of them:

    Strided      stride-2 convolutions and max pooling: the original ResNet, and the FCN baselines
    Atrous       strided down to an output stride, dilated after that: DilatedFCN and DeepLabv3
    SplitMerge   every pixel kept (split) or one pixel per window kept (shrink), level by level
    Dilated      stride 1 and growing dilation: the independent form that split-merge must equal (FastFCN, Eq. 2)

A level counts the reductions passed so far: 0 at the image, 5 at the classifier of a ResNet.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.layers import Offset, conv_shrink, draw_offset, merge_pool, shrink_pool, split_pool

__all__ = [
    "LEVELS",
    "STRIDE",
    "WINDOWS",
    "Atrous",
    "Dilated",
    "Reduction",
    "SplitMerge",
    "Strided",
    "dilated_conv",
    "strides_of",
]

LEVELS = 5
WINDOWS = (2,) * LEVELS
STRIDE = 2**LEVELS


class Reduction(Protocol):
    """How resolution is reduced, and how convolutions act after that. All tensors are `[N,C,H,W]`."""

    def conv(self, conv: nn.Conv2d, x: Tensor, level: int) -> Tensor:
        """Apply a convolution that keeps the resolution, at `level`."""

    def reducing_conv(self, conv: nn.Conv2d, norm: nn.Module, x: Tensor, level: int) -> Tensor:
        """Apply convolution and batch norm, going from `level - 1` to `level`."""

    def pool(self, x: Tensor, level: int) -> Tensor:
        """Reduce without a convolution, where the original takes the maximum, going from `level - 1` to `level`."""

    def mean_pool(self, x: Tensor, level: int) -> Tensor:
        """Reduce without a convolution, where the original takes the mean, going from `level - 1` to `level`."""


class Strided:
    """The original: stride-2 convolutions, max pooling 3x3 with stride 2, and average pooling 2x2."""

    def conv(self, conv: nn.Conv2d, x: Tensor, level: int) -> Tensor:
        return _stride_one(conv, x)

    def reducing_conv(self, conv: nn.Conv2d, norm: nn.Module, x: Tensor, level: int) -> Tensor:
        out: Tensor = norm(F.conv2d(x, conv.weight, conv.bias, 2, conv.padding))
        return out

    def pool(self, x: Tensor, level: int) -> Tensor:
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)

    def mean_pool(self, x: Tensor, level: int) -> Tensor:
        return F.avg_pool2d(x, 2)


@dataclass(frozen=True)
class Atrous:
    """Strided until the resolution is `output_stride` times lower, then dilated in place of every further reduction.

    A power of two from 4 on, where max pooling has been passed. Computes at more pixels what the strided network
    computes (FastFCN Eq. 2 and 3): a convolution that would reduce is not dilated yet by its own level.
    """

    output_stride: int

    def rate(self, level: int) -> int:
        """The dilation at a level."""
        return max(1, (1 << level) // self.output_stride)

    def conv(self, conv: nn.Conv2d, x: Tensor, level: int) -> Tensor:
        return dilated_conv(conv, x, self.rate(level))

    def reducing_conv(self, conv: nn.Conv2d, norm: nn.Module, x: Tensor, level: int) -> Tensor:
        if 1 << level <= self.output_stride:
            return Strided().reducing_conv(conv, norm, x, level)
        out: Tensor = norm(self.conv(conv, x, level - 1))
        return out

    def pool(self, x: Tensor, level: int) -> Tensor:
        return Strided().pool(x, level)

    def mean_pool(self, x: Tensor, level: int) -> Tensor:
        return x if 1 << level > self.output_stride else Strided().mean_pool(x, level)


@dataclass(frozen=True)
class SplitMerge:
    """Split pooling, or shrink pooling at the levels that have an offset (SMP paper, Fig. 3).

    `offsets[i]` belongs to level i + 1: None splits it, a (row, column) shrinks it to that pixel. Shrinking the first
    levels and splitting the rest computes a regular grid of pixels of the frame. Shrinking comes before the batch norm,
    which in training therefore sees the sampled pixels alone, as the strided network's does; in evaluation a batch norm
    is the same affine map for every pixel and the order makes no difference.

    `windows` are the levels' poolings: w takes w x w pixels apart, where the original halves the resolution.
    """

    offsets: Sequence[Offset | None] = (None,) * LEVELS
    windows: Sequence[int] = WINDOWS

    @classmethod
    def sampled(
        cls, generator: torch.Generator | None, stride: int = STRIDE, windows: Sequence[int] = WINDOWS
    ) -> "SplitMerge":
        """Shrink the first levels, whose strides make `stride`, at offsets drawn anew (the training form); split the
        others. Raises ValueError where no levels make that stride."""
        shrunken = _levels_of(stride, windows)
        drawn = (draw_offset(window, generator) for window in windows[:shrunken])
        return cls((*drawn, *[None] * (LEVELS - shrunken)), windows)

    @classmethod
    def at(cls, row: int, column: int, stride: int, windows: Sequence[int] = WINDOWS) -> "SplitMerge":
        """Compute the pixels `[row::stride, column::stride]`. Raises ValueError where no levels make that stride."""
        shrunken = _levels_of(stride, windows)
        offsets: list[Offset | None] = []
        for window in windows[:shrunken]:  # level 1 owns the lowest digit of a pixel's row and column
            offsets.append((row % window, column % window))
            row, column = row // window, column // window
        return cls((*offsets, *[None] * (LEVELS - shrunken)), windows)

    @property
    def grid(self) -> tuple[int, int, int]:
        """(row, column, stride) of the pixels `[row::stride, column::stride]` that are computed.

        Raises ValueError where a shrunken level follows a split one: those pixels form no regular grid.
        """
        shrunken = [offset for offset in self.offsets if offset is not None]
        if list(self.offsets[: len(shrunken)]) != shrunken:
            raise ValueError(f"Only the first levels can be shrunken to a regular grid, not {self.offsets}.")
        strides = strides_of(self.windows)
        row = sum(offset[0] * stride for offset, stride in zip(shrunken, strides, strict=False))
        column = sum(offset[1] * stride for offset, stride in zip(shrunken, strides, strict=False))
        return row, column, strides[len(shrunken)]

    def conv(self, conv: nn.Conv2d, x: Tensor, level: int) -> Tensor:
        return _stride_one(conv, x)

    def reducing_conv(self, conv: nn.Conv2d, norm: nn.Module, x: Tensor, level: int) -> Tensor:
        offset, window = self.offsets[level - 1], self.windows[level - 1]
        if offset is None:
            return split_pool(norm(_stride_one(conv, x)), window)
        out: Tensor = norm(conv_shrink(conv, x, offset, window))
        return out

    def pool(self, x: Tensor, level: int) -> Tensor:
        offset, window = self.offsets[level - 1], self.windows[level - 1]
        return split_pool(x, window) if offset is None else shrink_pool(x, offset, window)

    def mean_pool(self, x: Tensor, level: int) -> Tensor:
        return self.pool(x, level)

    def merge(self, x: Tensor) -> Tensor:
        """Undo all splits, the last one first."""
        for offset, window in zip(reversed(self.offsets), reversed(self.windows), strict=True):
            if offset is None:
                x = merge_pool(x, window)
        return x


@dataclass(frozen=True)
class Dilated:
    """Full resolution throughout: a convolution at level L has dilation 2**L, or what other windows multiply to."""

    windows: Sequence[int] = WINDOWS

    def conv(self, conv: nn.Conv2d, x: Tensor, level: int) -> Tensor:
        return dilated_conv(conv, x, strides_of(self.windows)[level])

    def reducing_conv(self, conv: nn.Conv2d, norm: nn.Module, x: Tensor, level: int) -> Tensor:
        out: Tensor = norm(self.conv(conv, x, level - 1))
        return out

    def pool(self, x: Tensor, level: int) -> Tensor:
        return x

    def mean_pool(self, x: Tensor, level: int) -> Tensor:
        return x


def strides_of(windows: Sequence[int]) -> list[int]:
    """How far apart pixels lie after 0, 1, 2, ... levels of these windows."""
    return [math.prod(windows[:level]) for level in range(len(windows) + 1)]


def dilated_conv(conv: nn.Conv2d, x: Tensor, rate: int) -> Tensor:
    """Apply a convolution with stride 1 and dilation `rate`, zero-padded to the same size, whatever its own are."""
    padding = tuple(rate * (size // 2) for size in conv.kernel_size)
    return F.conv2d(x, conv.weight, conv.bias, 1, padding, rate)


def _levels_of(stride: int, windows: Sequence[int]) -> int:
    """How many levels make a stride."""
    strides = strides_of(windows)
    if stride not in strides:
        *some, last = map(str, dict.fromkeys(strides))
        choices = f"{', '.join(some)} or {last}" if some else last
        raise ValueError(f"A grid of stride {stride} cannot be sampled: choose {choices}.")
    return strides.index(stride)


def _stride_one(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.weight, conv.bias, 1, conv.padding)
