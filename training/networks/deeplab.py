"""DeepLabv3 on ResNet-50 and -101 (DeepLabv3 paper, section 3).

Two designs: atrous spatial pyramid pooling (ASPP) behind layer4 (section 3.3, Fig. 5), and further copies of layer4 in
cascade (section 3.2, Fig. 3b), which are called `layer5` to `layer7` here and block5 to block7 in the paper.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitmerge.errors import InputError
from training.networks.base import Network, resize
from training.networks.layers import conv_block
from training.networks.options import integers, one_of
from training.networks.resnet import Bottleneck, ResNet
from training.reduction import Atrous, dilated_conv

__all__ = ["ASPP", "NETWORKS", "DeepLabv3", "DeepLabv3Cascade"]

_LEVEL = 5  # of layer4, whose resolution is 2**5 times lower in a ResNet


class ASPP(nn.Module):
    """Five branches, concatenated and projected: 1x1, three dilated 3x3, and the image's mean (Fig. 5)."""

    def __init__(self, inputs: int, channels: int, rates: Sequence[int]) -> None:
        super().__init__()
        convolutions = [conv_block(inputs, channels), *(conv_block(inputs, channels, 3, rate) for rate in rates)]
        self.branches = nn.ModuleList(convolutions)
        self.image = conv_block(inputs, channels)
        self.project = conv_block(channels * (len(convolutions) + 1), channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] < 2:
            raise InputError(
                "A network with image pooling cannot learn from one crop at a time, because batch norm then sees a "
                "single number per channel: choose --batch 2 or more."
            )
        image = resize(self.image(x.mean((2, 3), keepdim=True)), x)
        out: Tensor = self.project(torch.cat([*(branch(x) for branch in self.branches), image], dim=1))
        return out


class _DeepLab(ResNet):
    """Strided or dilated down to layer3, multi-grid from layer4 on; logits at `output_stride`, upsampled (4.1).

    The convolutions 3x3 of a block at level L have the rates `multi_grid` times 2**L / output_stride, the first
    included: (2, 4, 8) in layer4 at output stride 16 (section 3.2.1). At 32, layer4 begins with ResNet's own stride-2
    convolution.
    """

    def __init__(
        self, depth: int, num_classes: int, width: int, output_stride: int, multi_grid: Sequence[int], copies: int
    ) -> None:
        super().__init__(depth, num_classes, width, output_stride)
        if len(multi_grid) != 3 or min(multi_grid) < 1:
            raise InputError(f"A multi-grid of {tuple(multi_grid)} cannot be: give three rates of 1 or more.")
        self.atrous, self.multi_grid = Atrous(output_stride), tuple(multi_grid)
        channels, self.last_layers = self.stage_channels[-1], ["layer4"]
        for number in range(5, 5 + copies):
            units = [Bottleneck(channels, channels // Bottleneck.expansion, number + 1, False) for _ in range(3)]
            setattr(self, f"layer{number}", nn.ModuleList(units))
            self.last_layers.append(f"layer{number}")
        self.initialise()

    def padded_logits(self, x: Tensor) -> Tensor:
        return resize(self.scores(self.last_features(x)), x)

    def scores(self, features: Tensor) -> Tensor:
        """Logits at the output stride."""
        raise NotImplementedError

    def last_features(self, x: Tensor) -> Tensor:
        """The output of layer4, or of its last copy."""
        x = self.features(x, self.atrous, stages=3)[-1]
        for level, name in enumerate(self.last_layers, _LEVEL):
            rate = self.atrous.rate(level)
            for unit, factor in zip(getattr(self, name), self.multi_grid, strict=True):
                x = _unit(unit, x, rate * factor, 2 if unit.reduces and rate == 1 else 1)
        return x


class DeepLabv3(_DeepLab):
    """With ASPP: 256 channels at width 64, rates 6, 12 and 18 at output stride 16, doubled at 8 and halved at 32."""

    def __init__(
        self,
        depth: int,
        num_classes: int,
        width: int,
        output_stride: int = 16,
        multi_grid: Sequence[int] = (1, 2, 4),
    ) -> None:
        super().__init__(depth, num_classes, width, output_stride, multi_grid, 0)
        self.aspp = ASPP(self.stage_channels[-1], 4 * width, [rate * 16 // output_stride for rate in (6, 12, 18)])
        self.classifier = nn.Conv2d(4 * width, num_classes, 1)

    def scores(self, features: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.aspp(features))
        return out


class DeepLabv3Cascade(_DeepLab):
    """With `copies` of layer4 in cascade: 3 is the paper's block7, whose best multi-grid is (1, 2, 1) (Table 3)."""

    def __init__(
        self,
        depth: int,
        copies: int,
        num_classes: int,
        width: int,
        output_stride: int = 16,
        multi_grid: Sequence[int] = (1, 2, 1),
    ) -> None:
        super().__init__(depth, num_classes, width, output_stride, multi_grid, copies)
        self.classifier = nn.Conv2d(self.stage_channels[-1], num_classes, 1)

    def scores(self, features: Tensor) -> Tensor:
        out: Tensor = self.classifier(features)
        return out


def _unit(block: Bottleneck, x: Tensor, rate: int, stride: int) -> Tensor:
    """A bottleneck whose 3x3 convolution has this dilation, or this stride."""
    out = F.relu(block.bn1(block.conv1(x)))
    if stride > 1:
        out = F.conv2d(out, block.conv2.weight, None, stride, block.conv2.padding)
    else:
        out = dilated_conv(block.conv2, out, rate)
    out = block.bn3(block.conv3(F.relu(block.bn2(out))))
    if block.downsample is None:
        return F.relu(out + x)
    conv, norm = block.downsample
    assert isinstance(conv, nn.Conv2d)
    return F.relu(out + norm(F.conv2d(x, conv.weight, None, stride)))


_OPTIONS = {"output_stride": one_of(8, 16, 32), "multi_grid": integers}
NETWORKS = {f"deeplabv3-{depth}": Network(partial(DeepLabv3, depth), options=_OPTIONS) for depth in (50, 101)}
NETWORKS |= {
    f"deeplabv3-block{4 + copies}-{depth}": Network(partial(DeepLabv3Cascade, depth, copies), options=_OPTIONS)
    for copies in (1, 2, 3)
    for depth in (50, 101)
}
