"""Fully convolutional networks on ResNets: the SMP paper's baselines (section 4.1), and dilated ones (FastFCN, 3.1)."""

from functools import partial

from torch import Tensor, nn

from training.networks.base import Network, resize
from training.networks.resnet import DEPTHS, ResNet
from training.reduction import STRIDE, Atrous, Strided

__all__ = ["NETWORKS", "DilatedFCN", "FCN8s", "FCN32s"]


class FCN32s(ResNet):
    """A 1x1 classifier in place of the ResNet's pooling and fully connected layer: stride 32, bilinear upsampling."""

    def __init__(self, depth: int, num_classes: int, width: int) -> None:
        super().__init__(depth, num_classes, width, STRIDE)
        self.classifier = nn.Conv2d(self.stage_channels[-1], num_classes, 1)

    def padded_logits(self, x: Tensor) -> Tensor:
        return resize(self.classifier(self.features(x, Strided())[-1]), x)


class FCN8s(FCN32s):
    """FCN32s with two more 1x1 classifiers on layer2 and layer3; the three are added at stride 8."""

    def __init__(self, depth: int, num_classes: int, width: int) -> None:
        super().__init__(depth, num_classes, width)
        self.classifier_layer2 = nn.Conv2d(self.stage_channels[1], num_classes, 1)
        self.classifier_layer3 = nn.Conv2d(self.stage_channels[2], num_classes, 1)

    def padded_logits(self, x: Tensor) -> Tensor:
        _, stride8, stride16, stride32 = self.features(x, Strided())
        scores = self.classifier_layer2(stride8)
        scores = scores + resize(self.classifier_layer3(stride16), scores)
        scores = scores + resize(self.classifier(stride32), scores)
        return resize(scores, x)


class DilatedFCN(ResNet):
    """FCN32s's weights, dilated in place of the reductions below an output stride of 8 or 16."""

    def __init__(self, depth: int, output_stride: int, num_classes: int, width: int) -> None:
        super().__init__(depth, num_classes, width, output_stride)
        self.classifier = nn.Conv2d(self.stage_channels[-1], num_classes, 1)

    def padded_logits(self, x: Tensor) -> Tensor:
        return resize(self.classifier(self.features(x, Atrous(self.stride))[-1]), x)


NETWORKS = {f"fcn32s-{depth}": Network(partial(FCN32s, depth)) for depth in DEPTHS}
NETWORKS |= {f"fcn8s-{depth}": Network(partial(FCN8s, depth)) for depth in DEPTHS}
NETWORKS |= {
    f"dilatedfcn{stride}-{depth}": Network(partial(DilatedFCN, depth, stride)) for stride in (8, 16) for depth in DEPTHS
}
