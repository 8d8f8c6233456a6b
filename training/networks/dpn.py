"""The dual path network DPN-68 without its head (Chen et al. 2017): a residual and a dense path side by side.

A unit's result has two parts: what is added to the residual path, and maps that are appended to the dense one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.densenet import scaled
from training.recompute import Recomputing

__all__ = ["DualPathFeatures"]

_UNITS = (3, 4, 12, 3)
_DENSE = (16, 32, 32, 64)
"""Units per stage, and maps that a unit appends."""
_STEM, _RESIDUAL, _GROUPS, _PER_GROUP = 10, 64, 32, 4
"""Maps of the stem, of the first stage's residual path, groups of its 3x3 convolutions, and maps in a group."""


class _NormConv(nn.Module):
    """Batch norm, ReLU, convolution."""

    def __init__(self, inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.relu(self.bn(x)))
        return out


class _Unit(Recomputing):
    """1x1, grouped 3x3 and 1x1 convolution. The first of a stage also projects its input onto both paths."""

    segments = frozenset({"unit"})

    def __init__(
        self, inputs: int, inner: int, groups: int, residual: int, dense: int, stride: int, projects: bool
    ) -> None:
        super().__init__()
        self.residual = residual
        self.c1x1_w = _NormConv(inputs, residual + 2 * dense, stride=stride) if projects else None
        self.c1x1_a = _NormConv(inputs, inner)
        self.c3x3_b = _NormConv(inner, inner, 3, stride, groups)
        self.c1x1_c = _NormConv(inner, residual + dense)

    def forward(self, x: Tensor) -> Tensor:
        return self.segment("unit", self._both_paths, x)

    def _both_paths(self, x: Tensor) -> Tensor:
        before = x if self.c1x1_w is None else self.c1x1_w(x)
        new = self.c1x1_c(self.c3x3_b(self.c1x1_a(x)))
        (residual, dense), (added, appended) = (t.tensor_split((self.residual,), 1) for t in (before, new))
        return torch.cat([residual + added, dense, appended], 1)


class DualPathFeatures(nn.Module):
    """The convolutional part. `width` scales all channels; 64 is the paper's. `channels` are those of its stages."""

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = scaled(_STEM, width)
        self.conv1 = nn.Conv2d(3, channels, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.channels: list[int] = []
        groups = scaled(_GROUPS, width)
        for stage, (count, dense) in enumerate(zip(_UNITS, (scaled(n, width) for n in _DENSE), strict=True)):
            residual, inner = scaled(_RESIDUAL, width) << stage, (_PER_GROUP * groups) << stage
            units = nn.Sequential()
            for index in range(count):
                stride = 2 if stage and not index else 1
                units.append(_Unit(channels, inner, groups, residual, dense, stride, not index))
                channels = channels + dense if index else residual + 3 * dense
            self.add_module(f"conv{stage + 2}", units)
            self.channels.append(channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The stages' maps for normalised images `[N,3,H,W]`, at strides 4 to 32."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        stages = []
        for number in range(2, 6):
            x = self.get_submodule(f"conv{number}")(x)
            stages.append(x)
        return stages
