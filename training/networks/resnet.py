"""ResNet-18/34/50/101 without its head (He et al. 2015), with torchvision's parameter names and initialisation.

The blocks say where resolution is reduced; a `Reduction` says how. As in torchvision, a bottleneck reduces in its 3x3
convolution.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.base import SegmentationNet
from training.recompute import Recomputing
from training.reduction import Reduction

__all__ = ["DEPTHS", "ResNet"]


class BasicBlock(Recomputing):
    """Two 3x3 convolutions (ResNet-18 and -34)."""

    expansion = 1
    segments = frozenset({"unit"})

    def __init__(self, inputs: int, channels: int, level: int, reduces: bool) -> None:
        super().__init__()
        self.level, self.reduces = level, reduces
        self.conv1 = _conv3x3(inputs, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(inputs, channels, reduces)

    def forward(self, x: Tensor, reduction: Reduction) -> Tensor:
        return self.segment("unit", lambda x: self._block(x, reduction), x)

    def _block(self, x: Tensor, reduction: Reduction) -> Tensor:
        if self.reduces:
            out = F.relu(reduction.reducing_conv(self.conv1, self.bn1, x, self.level))
        else:
            out = F.relu(self.bn1(reduction.conv(self.conv1, x, self.level)))
        out = self.bn2(reduction.conv(self.conv2, out, self.level))
        return F.relu(out + _shortcut_of(self, x, reduction))


class Bottleneck(Recomputing):
    """1x1, 3x3 and 1x1 convolution (ResNet-50 and -101)."""

    expansion = 4
    segments = frozenset({"unit"})

    def __init__(self, inputs: int, channels: int, level: int, reduces: bool) -> None:
        super().__init__()
        self.level, self.reduces = level, reduces
        outputs = channels * self.expansion
        self.conv1 = _conv1x1(inputs, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = _conv1x1(channels, outputs)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, reduces)

    def forward(self, x: Tensor, reduction: Reduction) -> Tensor:
        return self.segment("unit", lambda x: self._block(x, reduction), x)

    def _block(self, x: Tensor, reduction: Reduction) -> Tensor:
        before = self.level - 1 if self.reduces else self.level
        out = F.relu(self.bn1(reduction.conv(self.conv1, x, before)))
        if self.reduces:
            out = F.relu(reduction.reducing_conv(self.conv2, self.bn2, out, self.level))
        else:
            out = F.relu(self.bn2(reduction.conv(self.conv2, out, self.level)))
        out = self.bn3(reduction.conv(self.conv3, out, self.level))
        return F.relu(out + _shortcut_of(self, x, reduction))


DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(SegmentationNet):
    """The convolutional part. `width` is the channels of the first stage: 64 in the paper, fewer for small versions."""

    backbone_names = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")

    def __init__(self, depth: int, num_classes: int, width: int, stride: int) -> None:
        super().__init__(num_classes, width, stride)
        block, counts = DEPTHS[depth]
        self.conv1 = nn.Conv2d(3, width, 7, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stage_channels = [width * 2**i * block.expansion for i in range(4)]
        inputs = width
        for stage, count in enumerate(counts):
            blocks = []
            for i in range(count):
                blocks.append(block(inputs, width * 2**stage, level=2 + stage, reduces=stage > 0 and i == 0))
                inputs = self.stage_channels[stage]
            setattr(self, f"layer{stage + 1}", nn.ModuleList(blocks))
        self.initialise()

    def initialise(self) -> None:
        """He initialisation of the convolutions, as torchvision's."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor, reduction: Reduction, stages: int = 4) -> list[Tensor]:
        """Outputs of layer1 to layer4, or of the first `stages` of them, for normalised images `[N,3,H,W]`."""
        x = F.relu(reduction.reducing_conv(self.conv1, self.bn1, x, 1))
        x = reduction.pool(x, 2)
        outputs = []
        for blocks in (self.layer1, self.layer2, self.layer3, self.layer4)[:stages]:
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x, reduction)
            outputs.append(x)
        return outputs


def _conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def _conv1x1(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=False)


def _shortcut(inputs: int, outputs: int, reduces: bool) -> nn.Sequential | None:
    if not reduces and inputs == outputs:
        return None
    return nn.Sequential(_conv1x1(inputs, outputs), nn.BatchNorm2d(outputs))


def _shortcut_of(block: BasicBlock | Bottleneck, x: Tensor, reduction: Reduction) -> Tensor:
    if block.downsample is None:
        return x
    conv, norm = block.downsample
    assert isinstance(conv, nn.Conv2d)
    if block.reduces:
        return reduction.reducing_conv(conv, norm, x, block.level)
    out: Tensor = norm(reduction.conv(conv, x, block.level))
    return out
