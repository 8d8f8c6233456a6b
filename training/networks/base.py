"""What all networks share: the contract that training, export and comparing rely on, and how a family lists its own."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitmerge.labels import IGNORE
from training.networks.options import Options

__all__ = ["Network", "SegmentationNet", "Settings", "cross_entropy", "pad_to_stride", "resize"]


class SegmentationNet(nn.Module):
    """`model(x)` takes normalised float `[N,3,H,W]` of any size and gives logits `[N,classes,H,W]`.

    Inside, zeros are added below and on the right up to a multiple of `stride`, and the logits are cropped back. A
    network computes `padded_logits`, which is what export traces; a training that wants more than cross entropy on the
    logits has a `loss` of its own. `width` is the channels of the first stage.
    """

    backbone_names: tuple[str, ...] = ()
    """The modules that are a torchvision classifier's, under its names."""
    backbone_leaves_out: tuple[str, ...] = ()
    """The modules of that classifier, besides its last layer, that the network has no use for."""

    def __init__(self, num_classes: int, width: int, stride: int) -> None:
        super().__init__()
        self.num_classes, self.width, self.stride = num_classes, width, stride

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        logits = self.padded_logits(pad_to_stride(x, self.stride))
        return logits[:, :, :height, :width] if logits.shape[-2:] != (height, width) else logits

    def padded_logits(self, x: Tensor) -> Tensor:
        """Logits at the size of `x`, whose height and width are multiples of the stride."""
        raise NotImplementedError

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The scalar to minimise, for normalised images `[N,3,H,W]` and int64 labels `[N,H,W]`."""
        return cross_entropy(self(images), labels)


@dataclass(frozen=True)
class Settings:
    """How a network is trained where the user does not say: peak learning rate and decay of the weights (AdamW)."""

    lr: float = 2e-3
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class Network:
    """An entry of a family's `NETWORKS`.

    `build` makes it from (number of classes, width) and the keywords that `options` reads, see
    `training.networks.options`; `settings` say how to train it.
    """

    build: Callable[..., SegmentationNet]
    settings: Settings = Settings()
    options: Options = field(default_factory=dict)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the pixels that are not ignored: logits `[N,classes,H,W]` against int64 labels `[N,H,W]`."""
    counted = (labels != IGNORE).sum().clamp(min=1)  # a crop may hold none at all
    if logits.device.type == "cpu" and logits.is_contiguous(memory_format=torch.channels_last):
        # As rows: a softmax of maps would copy them first. CUDA sums rows in one block of threads, maps in many.
        logits, labels = logits.permute(0, 2, 3, 1).flatten(0, 2), labels.flatten()
    return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum") / counted


def pad_to_stride(x: Tensor, stride: int) -> Tensor:
    """Add zeros below and on the right of `[N,C,H,W]` up to multiples of `stride`."""
    height, width = x.shape[-2:]
    below, right = -height % stride, -width % stride
    return F.pad(x, (0, right, 0, below)) if below or right else x


def resize(x: Tensor, like: Tensor) -> Tensor:
    """`x` at the height and width of `like`, bilinear."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
