"""DenseNet-121, -161 and -169 without their heads (Huang et al. 2017), with torchvision's parameter names.

A unit reads the concatenation of all maps before it in its block and adds `growth` maps of its own. The maps are kept
apart and put together by each unit anew, so that with `training.recompute` only they stay in memory.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.recompute import Recomputing
from training.reduction import Reduction

__all__ = ["DEPTHS", "DenseFeatures", "scaled"]


class Depth(NamedTuple):
    """Maps that a unit adds, units per block, and maps of the stem."""

    growth: int
    units: tuple[int, int, int, int]
    stem: int


DEPTHS = {
    121: Depth(32, (6, 12, 24, 16), 64),
    161: Depth(48, (6, 12, 36, 24), 96),
    169: Depth(32, (6, 12, 32, 32), 64),
}

_BOTTLENECK = 4  # maps between a unit's two convolutions, in units of its growth


def scaled(channels: int, width: int) -> int:
    """Channels of a network of `width`, where the paper's, of width 64, has `channels`."""
    return max(1, round(channels * width / 64))


class DenseUnit(Recomputing):
    """Batch norm, ReLU, 1x1, batch norm, ReLU, 3x3 convolution.

    A lean unit has no 1x1 convolution where its input is no wider than what that would make of it.
    """

    segments = frozenset({"cat-1x1", "3x3", "unit"})

    def __init__(self, inputs: int, growth: int, lean: bool) -> None:
        super().__init__()
        self.narrow = lean and inputs <= _BOTTLENECK * growth
        if not self.narrow:
            self.norm1 = nn.BatchNorm2d(inputs)
            self.conv1 = nn.Conv2d(inputs, _BOTTLENECK * growth, 1, bias=False)
            inputs = _BOTTLENECK * growth
        self.norm2 = nn.BatchNorm2d(inputs)
        self.conv2 = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, maps: list[Tensor], reduction: Reduction, level: int) -> Tensor:
        def unit(*maps: Tensor) -> Tensor:
            return second(self.segment("cat-1x1", self._first, *maps))

        def second(x: Tensor) -> Tensor:
            return self.segment("3x3", lambda x: reduction.conv(self.conv2, F.relu(self.norm2(x)), level), x)

        return self.segment("unit", unit, *maps)

    def _first(self, *maps: Tensor) -> Tensor:
        x = torch.cat(maps, 1)
        if self.narrow:
            return x
        out: Tensor = self.conv1(F.relu(self.norm1(x)))
        return out


class DenseBlock(Recomputing):
    """Units `denselayer1`, `denselayer2`, ... of one block."""

    segments = frozenset({"block"})

    def __init__(self, inputs: int, count: int, growth: int, lean: bool) -> None:
        super().__init__()
        for index in range(count):
            self.add_module(f"denselayer{index + 1}", DenseUnit(inputs + index * growth, growth, lean))

    def forward(self, x: Tensor, reduction: Reduction, level: int, part: slice = slice(None)) -> Tensor:
        """The input and what the units, or a part of them, add to it."""
        units = list(self.children())[part]

        def block(x: Tensor) -> Tensor:
            maps = [x]
            for unit in units:
                maps.append(unit(maps, reduction, level))
            return torch.cat(maps, 1)

        return self.segment("block", block, x)


class Transition(Recomputing):
    """Batch norm, ReLU and a 1x1 convolution to half the maps; then pooling, which has no weights."""

    segments = frozenset({"rest"})

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, inputs // 2, 1, bias=False)

    def forward(self, x: Tensor, reduction: Reduction, level: int) -> Tensor:
        return self.segment("rest", lambda x: reduction.mean_pool(self.conv(F.relu(self.norm(x))), level), x)


class DenseFeatures(Recomputing):
    """The convolutional part: torchvision's `features`.

    `width` scales every number of channels; 64 is the paper's. `split_blocks` are pooled between their two halves (LDN
    paper, section 3.1). `stem_stride` is that of the first convolution, 1 or 2. `lean` leaves out 1x1 convolutions that
    would narrow nothing; `last_norm` ends with `norm5` and a ReLU, as torchvision's classifier does.

    `channels` are the maps of each stage: of every block, and before it of its first half where it is split.
    """

    segments = frozenset({"rest"})

    def __init__(
        self,
        depth: int,
        width: int,
        split_blocks: frozenset[int] = frozenset(),
        stem_stride: int = 2,
        lean: bool = False,
        last_norm: bool = False,
    ) -> None:
        super().__init__()
        growth, counts, channels = DEPTHS[depth]
        growth, channels = scaled(growth, width), scaled(channels, width)
        self.stem_stride, self.split_blocks = stem_stride, split_blocks
        self.conv0 = nn.Conv2d(3, channels, 7, padding=3, bias=False)
        self.norm0 = nn.BatchNorm2d(channels)
        self.channels: list[int] = []
        for number, count in enumerate(counts, 1):
            self.add_module(f"denseblock{number}", DenseBlock(channels, count, growth, lean))
            if number in split_blocks:
                self.channels.append(channels + count // 2 * growth)
            channels += count * growth
            self.channels.append(channels)
            if number < len(counts):
                self.add_module(f"transition{number}", Transition(channels))
                channels //= 2
        self.norm5 = nn.BatchNorm2d(channels) if last_norm else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor, reduction: Reduction) -> list[Tensor]:
        """The stages' maps for normalised images `[N,3,H,W]`, the deepest last."""
        x, level = self.segment("rest", lambda x: self._stem(x, reduction), x), self.stem_stride
        stages = []
        for number in range(1, 5):
            block = self.get_submodule(f"denseblock{number}")
            if number in self.split_blocks:
                half = len(list(block.children())) // 2
                stages.append(block(x, reduction, level, slice(half)))
                x, level = reduction.mean_pool(stages[-1], level + 1), level + 1
                stages.append(block(x, reduction, level, slice(half, None)))
            else:
                stages.append(block(x, reduction, level))
            if number < 4:
                level += 1
                x = self.get_submodule(f"transition{number}")(stages[-1], reduction, level)
        if self.norm5 is not None:
            stages[-1] = F.relu(self.norm5(stages[-1]))
        return stages

    def _stem(self, x: Tensor, reduction: Reduction) -> Tensor:
        if self.stem_stride == 1:
            return reduction.pool(F.relu(self.norm0(reduction.conv(self.conv0, x, 0))), 1)
        return reduction.pool(F.relu(reduction.reducing_conv(self.conv0, self.norm0, x, 1)), 2)
