"""Split-Merge Pooling networks computed part by part: memory that is bounded, whatever the image.

The first levels are shrunk to one offset after the other instead of split, and the results interleave. That is the same
network, pixel for pixel: shrinking is splitting that gives one split batch, and split batches never meet before the
merge. float32 sums may run in another order.

No tensor is then larger than the largest of: LARGEST_TENSOR, what the first level leaves (width / 4 elements for a
pixel of the image), the padded image, and the logits where all are asked for. SMP-18 of 64 channels at 1024x2048 takes
64 grids.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from training.networks.base import SegmentationNet, pad_to_stride
from training.networks.smp import SMP
from training.reduction import SplitMerge, strides_of

__all__ = ["LARGEST_TENSOR", "Grid", "grids", "labels_of", "logits_of"]

LARGEST_TENSOR = 1 << 24
"""Elements of the network's widest feature map (64 MiB). PyTorch holds about seven of that size at once.

Smaller images go through in one go. With SMP-18 of 16 channels at 256x512 that took 2.1 to 2.3 s of processor time and
16 grids 1.5 to 1.6 s, but 4 to 17 s where PyTorch's waiting threads spin and other work shares the cores (one go: 2.4
to 3.2 s): many small steps wait often.
"""


class Grid(NamedTuple):
    """Logits `[N,classes,h,w]` of the pixels `[row::stride, column::stride]` of the padded images."""

    row: int
    column: int
    stride: int
    logits: Tensor


def grids(
    model: SMP, images: Tensor, row: int = 0, column: int = 0, stride: int = 1, largest: int | None = None
) -> Iterator[Grid]:
    """The pixels `[row::stride, column::stride]` of normalised images `[N,3,H,W]`, as grids of that stride or more.

    As few as have feature maps of at most `largest` elements (LARGEST_TENSOR where None), or as the windows make.
    Raises ValueError where they do not make that stride.
    """
    padded, step = pad_to_stride(images, model.stride), _step(model, images, stride, largest)
    for first_row in range(row, step, stride):
        for first_column in range(column, step, stride):
            reduction = SplitMerge.at(first_row, first_column, step, model.windows)
            yield Grid(first_row, first_column, step, model.sample(padded, reduction).logits)


def logits_of(model: SegmentationNet, images: Tensor, largest: int | None = None) -> Tensor:
    """Logits `[N,classes,H,W]` of normalised images `[N,3,H,W]`."""
    if not isinstance(model, SMP) or _step(model, images, 1, largest) == 1:
        out: Tensor = model(images)
        return out
    logits = images.new_empty(len(images), model.num_classes, *images.shape[-2:])
    for grid in grids(model, images, largest=largest):
        part = logits[:, :, grid.row :: grid.stride, grid.column :: grid.stride]
        part.copy_(grid.logits[:, :, : part.shape[2], : part.shape[3]])
    return logits


def labels_of(model: SegmentationNet, images: Tensor, stride: int = 1, largest: int | None = None) -> Tensor:
    """Labels uint8 `[N,H,W]` of normalised images `[N,3,H,W]`, without keeping the logits of all pixels where many.

    With a `stride` a Split-Merge Pooling network computes one pixel in the middle of every window of that size, which
    leaves the least distance to the nearest computed one, and every other pixel takes the nearest; other networks have
    no such choice and ignore it. Raises ValueError where the network's windows do not make that stride.
    """
    if not isinstance(model, SMP) or stride == _step(model, images, stride, largest) == 1:
        whole: Tensor = model(images)
        return whole.argmax(1).to(torch.uint8)
    height, width = images.shape[-2:]
    rows, columns = -(-height // model.stride) * model.stride, -(-width // model.stride) * model.stride
    middle = stride // 2
    labels = torch.empty(len(images), rows // stride, columns // stride, dtype=torch.uint8, device=images.device)
    for grid in grids(model, images, middle, middle, stride, largest):
        apart = grid.stride // stride
        labels[:, grid.row // stride :: apart, grid.column // stride :: apart] = grid.logits.argmax(1)
    return labels.repeat_interleave(stride, 1).repeat_interleave(stride, 2)[:, :height, :width]


def _step(model: SMP, images: Tensor, stride: int, largest: int | None) -> int:
    """The least stride from `stride` on whose feature maps fit, or the greatest there is."""
    elements = images.shape[0] * images.shape[2] * images.shape[3] * model.stage_channels[-1]
    strides = strides_of(model.windows)
    possible = [step for step in strides if step >= stride] if stride in strides else [stride]  # `at` refuses that
    most = LARGEST_TENSOR if largest is None else largest
    return next((step for step in possible if elements // step**2 <= most), possible[-1])
