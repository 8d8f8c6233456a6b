"""Ladder-style upsampling (LDN paper, section 3.3, Fig. 3), for any backbone that shows its stages."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitmerge.errors import InputError
from splitmerge.labels import IGNORE
from training.networks.auxiliary import AUXILIARY_WEIGHT, soft_cross_entropy, soft_targets
from training.networks.base import SegmentationNet, cross_entropy, pad_to_stride, resize
from training.networks.densenet import scaled
from training.networks.pyramid import NormConv, Plain, Pyramid
from training.recompute import Recomputing

__all__ = ["Design", "Head", "Ladder"]


@dataclass(frozen=True)
class Design:
    """Of a head, in channels at width 64.

    `steps` are the channels after each step of the ladder, the deepest first, `context` those of the pyramid's result.
    `residual` steps add the upsampled maps once more after blending. Section 3.3 has no residual step; without its
    shortcut the ladder on ResNet-18 lies 1.3 % below the published parameters. `spp` is the pyramid: `square` cells,
    `psp` (PSPNet's grids and twice the channels) or `none`; `grids` its rows. With `separable` the ladder's 3x3
    convolutions are depthwise separable, and `auxiliary` says whether the training also has losses on coarse maps.
    """

    steps: tuple[int, ...]
    context: int = 256
    residual: bool = False
    spp: str = "square"
    grids: tuple[int, ...] = (8, 4, 2, 1)
    separable: bool = False
    auxiliary: bool = True


_BETWEEN, _LEVEL, _NARROW = 512, 128, 128
"""Channels of the pyramid's projection, of its grids, and before a 3x3 convolution of the ladder.

The first two are section 3.2's d/2 and d/8 for DenseNet-121 alone; see `training.networks.ldn`.
"""


class Step(Recomputing):
    """Transition up: upsampled maps plus a projection of finer ones, narrowed, and blended by a 3x3 convolution."""

    segments = frozenset({"rest"})

    def __init__(self, inputs: int, finer: int, outputs: int, width: int, residual: bool, separable: bool) -> None:
        super().__init__()
        narrow = scaled(_NARROW, width)
        narrows = inputs > narrow and not separable
        self.skip = NormConv(finer, inputs)
        self.narrow = NormConv(inputs, narrow) if narrows else nn.Identity()
        self.blend = NormConv(narrow if narrows else inputs, outputs, 3, separable=separable)
        self.residual = residual
        self.shortcut = NormConv(inputs, outputs) if residual and inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, finer: Tensor) -> Tensor:
        return self.segment("rest", self._blended, x, finer)

    def _blended(self, x: Tensor, finer: Tensor) -> Tensor:
        skip = self.skip(finer)
        x = resize(x, skip)
        blended: Tensor = self.blend(self.narrow(x + skip))
        return blended + self.shortcut(x) if self.residual else blended


class Head(nn.Module):
    """Pyramid, ladder and classifier. `stages` are the channels of the backbone's stages, the deepest last."""

    def __init__(self, stages: Sequence[int], num_classes: int, width: int, design: Design) -> None:
        super().__init__()
        wide = 2 if design.spp == "psp" else 1
        between, level, channels = (scaled(n, width) for n in (_BETWEEN, wide * _LEVEL, wide * design.context))
        if design.spp == "none":
            self.pyramid: nn.Module = Plain(stages[-1], between, channels)
        elif design.spp == "psp":
            self.pyramid = Pyramid(stages[-1], between, level, channels, (6, 3, 2, 1), square_cells=False)
        else:
            self.pyramid = Pyramid(stages[-1], between, level, channels, design.grids)
        self.steps = nn.ModuleList()
        coarse = []
        for finer, outputs in zip(reversed(stages[: len(design.steps)]), design.steps, strict=True):
            coarse.append(channels)
            step = Step(channels, finer, scaled(outputs, width), width, design.residual, design.separable)
            self.steps.append(step)
            channels = scaled(outputs, width)
        self.classifier = NormConv(channels, num_classes, bias=True)
        grids = len(self.pyramid.rows) if isinstance(self.pyramid, Pyramid) else 0
        heads = [level] * grids + coarse if design.auxiliary else []
        self.auxiliary = nn.ModuleList(NormConv(inputs, num_classes, bias=True) for inputs in heads)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Logits at the resolution of the last step."""
        return self.all_logits(stages)[0]

    def all_logits(self, stages: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Logits, and in training those of the pyramid's grids and of the maps before each step of the ladder."""
        x, coarse = self.pyramid(stages[-1])
        for step, finer in zip(self.steps, reversed(stages[: len(self.steps)]), strict=True):
            coarse.append(x)
            x = step(x, finer)
        heads = zip(self.auxiliary, coarse, strict=True) if self.training and len(self.auxiliary) else ()
        return self.classifier(x), [head(maps) for head, maps in heads]


class Ladder(SegmentationNet):
    """A backbone with a ladder. One goes before it among a class's bases, or has `stages` written for it."""

    head: Head

    def stages(self, x: Tensor) -> list[Tensor]:
        """The backbone's maps by growing depth, for `x` whose height and width are multiples of the stride."""
        raise NotImplementedError

    def padded_logits(self, x: Tensor) -> Tensor:
        return resize(self.head(self.stages(x)), x)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """0.6 of the cross entropy and 0.4 of the mean auxiliary one, where there are auxiliary heads (section 5.1).

        Raises InputError for a single crop: the deepest maps and grids may hold one number per channel of it, which
        batch norm cannot learn from.
        """
        if len(images) < 2:
            raise InputError(
                f"{type(self).__name__} cannot learn from one crop at a time, because batch norm then sees a single "
                "number per channel: choose --batch 2 or more."
            )
        x = pad_to_stride(images, self.stride)
        padding = (0, x.shape[-1] - labels.shape[-1], 0, x.shape[-2] - labels.shape[-2])
        labels = F.pad(labels, padding, value=IGNORE)
        logits, coarse = self.head.all_logits(self.stages(x))
        loss = cross_entropy(resize(logits, x), labels)
        if not coarse:
            return loss
        targets = soft_targets(labels, x.shape[-1] // logits.shape[-1], self.num_classes)
        auxiliary = torch.stack([soft_cross_entropy(maps, targets) for maps in coarse]).mean()
        return (1 - AUXILIARY_WEIGHT) * loss + AUXILIARY_WEIGHT * auxiliary
