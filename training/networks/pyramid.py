"""What stands between a Ladder-DenseNet's backbone and its ladder: spatial pyramid pooling (LDN paper, 3.2 and 5.6).

Convolutions come after batch norm and ReLU here, as in the DenseNets that they follow.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.base import resize
from training.networks.layers import adaptive_average

__all__ = ["NormConv", "Plain", "Pyramid"]


class NormConv(nn.Module):
    """Batch norm, ReLU, convolution that keeps the resolution; `separable`: depthwise, then 1x1 (Table 9's DWS)."""

    def __init__(self, inputs: int, outputs: int, size: int = 1, bias: bool = False, separable: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.depthwise: nn.Conv2d | None = None
        if separable:
            self.depthwise = nn.Conv2d(inputs, inputs, size, padding=size // 2, groups=inputs, bias=False)
            size = 1
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(x))
        out: Tensor = self.conv(x if self.depthwise is None else self.depthwise(x))
        return out


class Pyramid(nn.Module):
    """Maps, projected, next to their averages over grids of cells, and all of it projected (Fig. 2).

    `rows` are the grids' rows. A grid has as many columns as make its cells square, or as rows where `square_cells` is
    not set (PSPNet's). A grid that is finer than the maps themselves is as fine as they.
    """

    def __init__(
        self, inputs: int, between: int, level: int, outputs: int, rows: Sequence[int], square_cells: bool = True
    ) -> None:
        super().__init__()
        self.rows, self.square_cells = tuple(rows), square_cells
        self.project = NormConv(inputs, between)
        self.levels = nn.ModuleList(NormConv(between, level) for _ in rows)
        self.fuse = NormConv(between + level * len(rows), outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features `[N,outputs,H,W]`, and those of each grid `[N,level,rows,columns]`."""
        x = self.project(x)
        pooled = [
            level(adaptive_average(x, *self._grid(rows, *x.shape[-2:])))
            for rows, level in zip(self.rows, self.levels, strict=True)
        ]
        out: Tensor = self.fuse(torch.cat([x, *(resize(level, x) for level in pooled)], 1))
        return out, pooled

    def _grid(self, rows: int, height: int, width: int) -> tuple[int, int]:
        rows = min(rows, height)
        columns = round(rows * width / height) if self.square_cells else rows
        return rows, max(1, min(columns, width))


class Plain(nn.Module):
    """No pyramid: the projection, then one 3x3 convolution (Table 9's NoSPP)."""

    def __init__(self, inputs: int, between: int, outputs: int) -> None:
        super().__init__()
        self.project = NormConv(inputs, between)
        self.blend = NormConv(between, outputs, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features `[N,outputs,H,W]`; there are no grids."""
        return self.blend(self.project(x)), []
