"""Split-Merge Pooling networks (SMP paper, sections 3 and 4.1)."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from splitmerge.errors import InputError
from training.layers import Offset, expand_pool
from training.networks.base import Network, SegmentationNet, cross_entropy, pad_to_stride
from training.networks.densenet import DenseFeatures
from training.networks.options import integers
from training.networks.resnet import DEPTHS, ResNet
from training.reduction import LEVELS, STRIDE, WINDOWS, Dilated, Reduction, SplitMerge, strides_of

__all__ = ["NETWORKS", "SMP", "SMPDenseNet", "SMPResNet", "Sampled"]


class Sampled(NamedTuple):
    """Logits `[N,classes,h,w]` of the pixels `[row::stride, column::stride]` of the padded input."""

    logits: Tensor
    offset: Offset
    stride: int


class SMP(SegmentationNet):
    """Split-Merge Pooling on a backbone with five levels: every pixel of the input has a logit of its own.

    In evaluation all pixels are computed. In training one pixel of each window of `training_stride` squared is, at
    offsets drawn in every forward pass from `generator`; `model(x)` then gives the sparse result of expand pooling and
    `model.sample(x)` the same logits without the zeros. A training stride of 32 shrinks at all five levels (the paper's
    form, at the strided network's cost); 16 splits at the last one instead, for four times the pixels to learn from.

    A backbone goes before it among a class's bases, or is its `features`: `features(x, reduction)` gives the stages in
    the batches and sizes that `reduction` leaves them in, the last of which the `classifier` reads. `stage_channels`
    are the channels of the stages.

    `windows` are those of the five poolings, square: with (2, 2, 2, 2, 3) the last takes 3x3 pixels apart.
    """

    windows: tuple[int, ...] = WINDOWS
    generator: torch.Generator | None = None
    training_stride: int = STRIDE
    classifier: nn.Module
    stage_channels: list[int]
    features: Callable[..., list[Tensor]]

    def padded_logits(self, x: Tensor) -> Tensor:
        if self.training:
            logits, offset, stride = self.sample(x)
            return expand_pool(logits, offset, stride)
        every_pixel = SplitMerge(windows=self.windows)
        return every_pixel.merge(self.logits(x, every_pixel))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy of the sampled pixels alone.

        The same as expand pooling followed by a loss that leaves the zeros out, without making them. `images` are
        `[N,3,H,W]` with H and W multiples of the stride.
        """
        logits, (row, column), stride = self.sample(images)
        return cross_entropy(logits, labels[:, row::stride, column::stride])

    def sample(self, x: Tensor, reduction: SplitMerge | None = None) -> Sampled:
        """Logits of a regular grid of pixels, drawn from `generator` where no `reduction` chooses it.

        `x` is `[N,3,H,W]` with H and W multiples of the stride.
        """
        reduction = reduction or SplitMerge.sampled(self.generator, self.training_stride, self.windows)
        row, column, stride = reduction.grid
        return Sampled(reduction.merge(self.logits(x, reduction)), (row, column), stride)

    def dilated_logits(self, x: Tensor) -> Tensor:
        """The same network as dilated convolutions at full resolution: the oracle that split-merge must equal."""
        height, width = x.shape[-2:]
        return self.logits(pad_to_stride(x, self.stride), Dilated(self.windows))[:, :, :height, :width]

    def logits(self, x: Tensor, reduction: Reduction) -> Tensor:
        """Logits in the batches and size that `reduction` leaves them in."""
        out: Tensor = self.classifier(self.features(x, reduction)[-1])
        return out


class SMPResNet(ResNet, SMP):
    """SMP-18, -34, -50 and -101: a ResNet with a 1x1 classifier in place of its pooling and fully connected layer."""

    def __init__(self, depth: int, num_classes: int, width: int, windows: tuple[int, ...] = WINDOWS) -> None:
        super().__init__(depth, num_classes, width, _stride_of(windows))
        self.windows, self.training_stride = windows, self.stride
        self.classifier = nn.Conv2d(self.stage_channels[-1], num_classes, 1)


class SMPDenseNet(SMP):
    """A DenseNet whose five reductions are pooled apart: two of the stem, and the transitions' average poolings."""

    backbone_names = ("features",)

    def __init__(self, depth: int, num_classes: int, width: int, windows: tuple[int, ...] = WINDOWS) -> None:
        super().__init__(num_classes, width, _stride_of(windows))
        self.windows, self.training_stride = windows, self.stride
        self.features = DenseFeatures(depth, width, last_norm=True)
        self.stage_channels = self.features.channels
        self.classifier = nn.Conv2d(self.stage_channels[-1], num_classes, 1)


def _stride_of(windows: tuple[int, ...]) -> int:
    if len(windows) != LEVELS or not all(1 <= window <= 8 for window in windows):
        raise InputError(f"Windows of {windows} cannot be: give {LEVELS}, each from 1 to 8, as 2.2.2.2.3.")
    return strides_of(windows)[-1]


_OPTIONS = {"windows": integers}
NETWORKS = {f"smp{depth}": Network(partial(SMPResNet, depth), options=_OPTIONS) for depth in DEPTHS}
NETWORKS |= {"smp-dn121": Network(partial(SMPDenseNet, 121), options=_OPTIONS)}
