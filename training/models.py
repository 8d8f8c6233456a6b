"""The networks by name: Split-Merge Pooling (SMP) networks and their FCN baselines (SMP paper, section 4.1)."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitmerge.errors import CheckpointError, InputError
from training.layers import Offset, expand_pool
from training.reduction import STRIDE, Dilated, Reduction, SplitMerge, Strided
from training.resnet import DEPTHS, ResNet

__all__ = ["SMP", "FCN8s", "FCN32s", "Sampled", "SegmentationNet", "create_model", "list_models", "load_backbone"]


class Sampled(NamedTuple):
    """Logits `[N,classes,h,w]` of the pixels `[row::stride, column::stride]` of the padded input."""

    logits: Tensor
    offset: Offset
    stride: int


class SegmentationNet(ResNet):
    """A ResNet with a 1x1 classifier in place of its average pooling and fully connected layer.

    `model(x)` takes normalised float `[N,3,H,W]` of any size and gives logits `[N,classes,H,W]`. Inside, zeros are
    added below and on the right up to a multiple of 32, and the logits are cropped back.
    """

    stride = STRIDE

    def __init__(self, depth: int, num_classes: int, width: int) -> None:
        super().__init__(depth, width)
        self.num_classes, self.width = num_classes, width
        self.classifier = nn.Conv2d(self.stage_channels[-1], num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        logits = self.padded_logits(pad_to_stride(x, self.stride))
        return logits[:, :, :height, :width] if logits.shape[-2:] != (height, width) else logits

    def padded_logits(self, x: Tensor) -> Tensor:
        """Logits at the size of `x`, whose height and width are multiples of 32."""
        raise NotImplementedError


class SMP(SegmentationNet):
    """Split-Merge Pooling network: every pixel of the input has a logit of its own.

    In evaluation all pixels are computed. In training one pixel of each window of `training_stride` squared is, at
    offsets drawn in every forward pass from `generator`; `model(x)` then gives the sparse result of expand pooling and
    `model.sample(x)` the same logits without the zeros. A training stride of 32 shrinks at all five levels (the paper's
    form, at the strided network's cost); 16 splits at the last one instead, for four times the pixels to learn from.
    """

    generator: torch.Generator | None = None
    training_stride: int = STRIDE

    def padded_logits(self, x: Tensor) -> Tensor:
        if self.training:
            logits, offset, stride = self.sample(x)
            return expand_pool(logits, offset, stride)
        every_pixel = SplitMerge()
        return every_pixel.merge(self.logits(x, every_pixel))

    def sample(self, x: Tensor, reduction: SplitMerge | None = None) -> Sampled:
        """Logits of a regular grid of pixels, drawn from `generator` where no `reduction` chooses it.

        `x` is `[N,3,H,W]` with H and W multiples of 32.
        """
        reduction = reduction or SplitMerge.sampled(self.generator, self.training_stride)
        row, column, stride = reduction.grid
        return Sampled(reduction.merge(self.logits(x, reduction)), (row, column), stride)

    def dilated_logits(self, x: Tensor) -> Tensor:
        """The same network as dilated convolutions at full resolution: the oracle that split-merge must equal."""
        height, width = x.shape[-2:]
        return self.logits(pad_to_stride(x, self.stride), Dilated())[:, :, :height, :width]

    def logits(self, x: Tensor, reduction: Reduction) -> Tensor:
        """Logits in the batches and size that `reduction` leaves them in."""
        out: Tensor = self.classifier(self.features(x, reduction)[-1])
        return out


class FCN32s(SegmentationNet):
    """The baseline: stride 32, bilinear upsampling."""

    def padded_logits(self, x: Tensor) -> Tensor:
        return _resize(self.classifier(self.features(x, Strided())[-1]), x)


class FCN8s(SegmentationNet):
    """FCN32s with two more 1x1 classifiers on layer2 and layer3; the three are added at stride 8."""

    def __init__(self, depth: int, num_classes: int, width: int) -> None:
        super().__init__(depth, num_classes, width)
        self.classifier_layer2 = nn.Conv2d(self.stage_channels[1], num_classes, 1)
        self.classifier_layer3 = nn.Conv2d(self.stage_channels[2], num_classes, 1)

    def padded_logits(self, x: Tensor) -> Tensor:
        _, stride8, stride16, stride32 = self.features(x, Strided())
        scores = self.classifier_layer2(stride8)
        scores = scores + _resize(self.classifier_layer3(stride16), scores)
        scores = scores + _resize(self.classifier(stride32), scores)
        return _resize(scores, x)


_FAMILIES: dict[str, type[SegmentationNet]] = {"smp": SMP, "fcn32s-": FCN32s, "fcn8s-": FCN8s}
_MODELS = {f"{family}{depth}": (kind, depth) for family, kind in _FAMILIES.items() for depth in DEPTHS}


def list_models() -> list[str]:
    """Names that `create_model` knows."""
    return list(_MODELS)


def create_model(name: str, num_classes: int = 19, width: int = 64) -> SegmentationNet:
    """A network with fresh weights; `width` is the channels of the first stage (64 in the papers).

    Raises InputError for a name, number of classes or width that cannot be.
    """
    if name not in _MODELS:
        raise InputError(f"There is no model named {name!r}: choose one of {', '.join(_MODELS)}.")
    if not 2 <= num_classes <= 255:
        raise InputError(f"A model of {num_classes} classes cannot be: labels are uint8, so choose 2 to 255 classes.")
    if width < 1:
        raise InputError(f"A model of width {width} cannot be: choose 1 channel or more (64 is the papers').")
    kind, depth = _MODELS[name]
    return kind(depth, num_classes, width)


def load_backbone(model: SegmentationNet, state: Mapping[str, Tensor]) -> None:
    """Load a torchvision ResNet's state dict (its fully connected layer is left out) under the classifier.

    Raises CheckpointError where names or shapes are another network's.
    """
    own = {name: value.shape for name, value in model.state_dict().items() if not name.startswith("classifier")}
    given = {name: value.shape for name, value in state.items() if not name.startswith("fc.")}
    wrong = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"The backbone's state dict does not fit: {len(wrong)} tensors differ, the first is {name} "
            f"({_shape(given.get(name))} given, {_shape(own.get(name))} expected); use the ResNet of the same depth "
            "and width."
        )
    model.load_state_dict({name: value for name, value in state.items() if name in own}, strict=False)


def pad_to_stride(x: Tensor, stride: int) -> Tensor:
    """Add zeros below and on the right of `[N,C,H,W]` up to multiples of `stride`."""
    height, width = x.shape[-2:]
    below, right = -height % stride, -width % stride
    return F.pad(x, (0, right, 0, below)) if below or right else x


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _shape(shape: torch.Size | None) -> str:
    return "none" if shape is None else "x".join(map(str, shape)) or "scalar"
