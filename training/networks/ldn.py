"""Ladder-DenseNets and what their paper compares them with (LDN paper, Tables 1, 2, 5 and 9).

Names say, as the paper's d->u do, how far a network reduces the resolution and how far its ladder restores it.

The pyramid's channels are not the text's. Section 3.2 says d/2, d/8 and d/4 of the backbone's d; that is 512, 128 and
256 on DenseNet-121. On the others its own counts tell otherwise: 512 and 128 everywhere, and a result of 256 or 512, as
listed below. They were chosen to agree with the counts (`tests/training/test_ladder_figures.py` has both), as were the
residual steps and what else the text leaves open, so the counts show that they are consistent and no more.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from training.networks.base import Network
from training.networks.densenet import DenseFeatures
from training.networks.dpn import DualPathFeatures
from training.networks.ladder import Design, Head, Ladder
from training.networks.options import one_word, yes_or_no
from training.networks.resnet import ResNet
from training.reduction import Atrous, Reduction, Strided

__all__ = ["NETWORKS", "LadderDPN", "LadderDenseNet", "LadderResNet"]


class LadderDenseNet(Ladder):
    """On a DenseNet, strided, split (`split_blocks`, see `DenseFeatures`), or dilated below an output stride.

    `lean` is the form that the paper's counts are of and that cannot take torchvision's weights: units whose input is
    no wider than their 1x1 convolution's output are without it.
    """

    backbone_names = ("features",)
    backbone_leaves_out = ("features.norm5.",)

    def __init__(
        self,
        depth: int,
        stride: int,
        design: Design,
        split_blocks: frozenset[int],
        stem_stride: int,
        reduction: Reduction,
        num_classes: int,
        width: int,
        lean: bool = False,
        **changes: Any,
    ) -> None:
        super().__init__(num_classes, width, stride)
        self.reduction = reduction
        self.features = DenseFeatures(depth, width, split_blocks, stem_stride, lean)
        self.head = Head(self.features.channels, num_classes, width, replace(design, **changes))

    def stages(self, x: Tensor) -> list[Tensor]:
        stages: list[Tensor] = self.features(x, self.reduction)
        return stages


class LadderResNet(ResNet, Ladder):
    """On a ResNet, 32->4 (the paper's LRN)."""

    def __init__(self, depth: int, design: Design, num_classes: int, width: int, **changes: Any) -> None:
        super().__init__(depth, num_classes, width, 32)
        self.head = Head(self.stage_channels, num_classes, width, replace(design, **changes))

    def stages(self, x: Tensor) -> list[Tensor]:
        return self.features(x, Strided())


class LadderDPN(Ladder):
    """On DPN-68, 32->4."""

    def __init__(self, design: Design, num_classes: int, width: int, **changes: Any) -> None:
        super().__init__(num_classes, width, 32)
        self.features = DualPathFeatures(width)
        self.head = Head(self.features.channels, num_classes, width, replace(design, **changes))

    def stages(self, x: Tensor) -> list[Tensor]:
        stages: list[Tensor] = self.features(x)
        return stages


_RESNET = Design(steps=(256, 128, 128), context=512, residual=True)


def _densenet(depth: int, stride: int, design: Design, splits: tuple[int, ...] = (), stem: int = 2) -> Network:
    reduction: Reduction = Strided()
    return _network(LadderDenseNet, depth, stride, design, frozenset(splits), stem, reduction)


def _dilated(stride: int, design: Design) -> Network:
    return _network(LadderDenseNet, 121, stride, design, frozenset(), 2, Atrous(stride))


def _network(kind: type[Ladder], *arguments: Any) -> Network:
    own = {"lean": yes_or_no} if kind is LadderDenseNet else {}
    return Network(partial(kind, *arguments), options={**_OPTIONS, **own})


_OPTIONS = {"spp": one_word("square", "psp", "none"), "separable": yes_or_no, "auxiliary": yes_or_no}
NETWORKS: dict[str, Network] = {}
for _depth, _context in ((121, 256), (161, 256), (169, 512)):
    _short, _long = Design((256, 128, 128), _context), Design((256, 256, 128, 128), _context)
    NETWORKS |= {
        f"ldn{_depth}-128-4": _densenet(
            _depth, 128, Design((256, 256, 256, 128, 128), _context, grids=(4, 2, 1)), (3, 4)
        ),
        f"ldn{_depth}-64-4": _densenet(_depth, 64, _long, (3,)),
        f"ldn{_depth}-32-4": _densenet(_depth, 32, _short),
        f"ldn{_depth}-32-2": _densenet(_depth, 32, _long, (1,), stem=1),
        f"ldn{_depth}-16-2": _densenet(_depth, 16, _short, stem=1),
    }
NETWORKS |= {
    "dn121-32": _densenet(121, 32, Design((), 512)),
    "ddn121-8": _dilated(8, Design((), 512)),
    "lddn121-8-4": _dilated(8, Design((128,), 512, residual=True)),
    "lddn121-16-4": _dilated(16, Design((128, 128), 512, residual=True)),
    "dpn68-32-4": _network(LadderDPN, Design((256, 128, 128), residual=True)),
}
NETWORKS |= {f"lrn{depth}-32-4": _network(LadderResNet, depth, _RESNET) for depth in (18, 50, 101)}
