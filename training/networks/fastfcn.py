"""FastFCN and the dilated networks that it replaces, on ResNet-50 and -101 (FastFCN paper, section 3).

FastFCN leaves the ResNet strided and rebuilds what a dilated one would compute at output stride 8 from its last three
stages, by joint pyramid upsampling (JPU). Either way one of three heads follows: EncNet's context encoding, ASPP, or
PSPNet's pyramid pooling. The ResNet is torchvision's ("the standard backbones", section 4.1), with a 7x7 stem.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from training.networks.base import Network, cross_entropy, pad_to_stride, resize
from training.networks.deeplab import ASPP
from training.networks.encoding import EncodingHead, presence_loss
from training.networks.layers import adaptive_average, conv_block
from training.networks.resnet import ResNet
from training.reduction import STRIDE, Atrous, Reduction, Strided

__all__ = ["JPU", "NETWORKS", "ASPPHead", "ContextNet", "EncNet", "PyramidHead"]

_OUTPUT_STRIDE = 8
_PRESENCE_WEIGHT = 0.2


class JPU(nn.Module):
    """Joint pyramid upsampling (section 3.3.3, Fig. 4): stages at strides 8, 16 and 32 to `4 * channels` at stride 8.

    The head's first convolution is Fig. 4c's last block, so that a head has the same input as on a dilated ResNet: 2048
    channels at width 64.
    """

    def __init__(self, stages: list[int], channels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(conv_block(inputs, channels, 3) for inputs in stages)
        joined = channels * len(stages)
        self.dilations = nn.ModuleList(_separable(joined, channels, rate) for rate in (1, 2, 4, 8))

    def forward(self, stages: list[Tensor]) -> Tensor:
        maps = [block(stage) for block, stage in zip(self.stages, stages, strict=True)]
        joined = torch.cat([maps[0], *(resize(x, maps[0]) for x in maps[1:])], dim=1)
        return torch.cat([convolution(joined) for convolution in self.dilations], dim=1)


class PyramidHead(nn.Module):
    """PSPNet's: means over 1x1, 2x2, 3x3 and 6x6 cells, upsampled and joined with the features."""

    bins = (1, 2, 3, 6)

    def __init__(self, inputs: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(conv_block(inputs, inputs // len(self.bins)) for _ in self.bins)
        self.fuse = conv_block(inputs + inputs // len(self.bins) * len(self.bins), channels, 3)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = [level(adaptive_average(x, bins, bins)) for bins, level in zip(self.bins, self.levels, strict=True)]
        out: Tensor = self.classifier(self.fuse(torch.cat([x, *(resize(mean, x) for mean in means)], dim=1)))
        return out


class ASPPHead(nn.Module):
    """DeepLabv3's at output stride 8: rates 12, 24 and 36."""

    def __init__(self, inputs: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.aspp = ASPP(inputs, channels // 2, (12, 24, 36))
        self.classifier = nn.Conv2d(channels // 2, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.aspp(x))
        return out


class ContextNet(ResNet):
    """A head on a ResNet: dilated to output stride 8, or strided with joint pyramid upsampling; logits upsampled.

    `head` makes the head from (input channels, its own channels: 512 at width 64, classes).
    """

    def __init__(
        self, depth: int, head: Callable[[int, int, int], nn.Module], fast: bool, num_classes: int, width: int
    ) -> None:
        super().__init__(depth, num_classes, width, STRIDE if fast else _OUTPUT_STRIDE)
        self.reduction: Reduction = Strided() if fast else Atrous(_OUTPUT_STRIDE)
        self.jpu = JPU(self.stage_channels[1:], 8 * width) if fast else None
        self.head = head(self.stage_channels[-1], 8 * width, num_classes)

    def padded_logits(self, x: Tensor) -> Tensor:
        return resize(self.head(self.context(x)), x)

    def context(self, x: Tensor) -> Tensor:
        """The head's input, at stride 8."""
        stages = self.features(x, self.reduction)
        return stages[-1] if self.jpu is None else self.jpu(stages[1:])


class EncNet(ContextNet):
    """With EncNet's head, which also learns which classes an image has (SE loss, weight 0.2)."""

    def __init__(self, depth: int, fast: bool, num_classes: int, width: int) -> None:
        super().__init__(depth, EncodingHead, fast, num_classes, width)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        assert isinstance(self.head, EncodingHead)
        padded = pad_to_stride(images, self.stride)
        scores, presence = self.head.scores_and_presence(self.context(padded))
        height, width = images.shape[-2:]
        pixels = cross_entropy(resize(scores, padded)[:, :, :height, :width], labels)
        return pixels + _PRESENCE_WEIGHT * presence_loss(presence, labels)


def _separable(inputs: int, outputs: int, rate: int) -> nn.Sequential:
    """Depthwise 3x3 with batch norm, then a pointwise block."""
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=rate, dilation=rate, groups=inputs, bias=False)
    return nn.Sequential(depthwise, nn.BatchNorm2d(inputs), *conv_block(inputs, outputs))


NETWORKS = {
    f"{'fastfcn-' if fast else ''}encnet-{depth}": Network(partial(EncNet, depth, fast))
    for fast in (True, False)
    for depth in (50, 101)
}
NETWORKS |= {
    name.format(depth): Network(partial(ContextNet, depth, head, fast))
    for name, head, fast in (
        ("fastfcn-aspp-{}", ASPPHead, True),
        ("fastfcn-psp-{}", PyramidHead, True),
        ("aspp-{}", ASPPHead, False),
        ("pspnet-{}", PyramidHead, False),
    )
    for depth in (50, 101)
}
