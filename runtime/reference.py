"""The PyTorch reference behind the executor's interface: frames uint8 BGR in, labels uint8 out.

With `runtime.scales` the only module of `runtime` that uses PyTorch, and only once a reference is opened.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from splitmerge.errors import InputError, PackageError
from splitmerge.package import Package

if TYPE_CHECKING:
    from torch import Tensor

    from training.checkpoint import Checkpoint
    from training.networks.base import SegmentationNet

__all__ = ["Reference", "logits_of", "uint8_from_labels"]

LARGEST_TENSOR = 1 << 24
"""Elements of the network's widest feature map (64 MiB). PyTorch holds about seven of that size at once.

Smaller frames go through in one go. With SMP-18 of 16 channels at 256x512 that took 2.1 to 2.3 s of processor time and
16 grids 1.5 to 1.6 s, but 4 to 17 s where PyTorch's waiting threads spin and other work shares the cores (one go: 2.4
to 3.2 s): many small steps wait often.
"""


class Reference:
    """A package's checkpoint in PyTorch: evaluation mode, float32, CPU.

    A Split-Merge Pooling network whose feature maps would be larger than LARGEST_TENSOR is computed grid by grid: its
    first levels are shrunk to one offset after the other, and the grids' labels interleave. That is the same network,
    pixel for pixel (shrinking is splitting that gives one split batch, and split batches never meet before the merge);
    float32 sums may run in another order. SMP-18 of 64 channels at 1024x2048 so takes 64 grids and 0.4 GiB, where one
    go takes tens of GiB.

    `own` names the user's own network, where it is one (`training.own`).

    Raises InputError where the package has no checkpoint any more or PyTorch is not installed.
    """

    def __init__(self, package: Package, own: str | None = None) -> None:
        if not package.reference_path.exists():
            raise InputError(
                f"{package.folder} has no {package.reference_path.name} to compare with (a deployed package may leave "
                "it out): put the checkpoint back, or compare where the package was exported."
            )
        self.checkpoint = _load(package, own)
        if self.checkpoint.classes != package.manifest.classes:
            raise PackageError(f"{package.reference_path} has other classes than the package: export it again.")

    def segment(self, frame_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Labels uint8 [H,W] of a frame uint8 [H,W,3]."""
        import torch

        with torch.inference_mode():
            return _labels(self.checkpoint.model, self.normalised(frame_bgr))

    def normalised(self, frame_bgr: NDArray[np.uint8]) -> "Tensor":
        """The network's input `[1,3,H,W]` for a frame uint8 [H,W,3]."""
        import torch

        # Written out here rather than shared with training or export: a mistake in how those prepare frames shall show.
        rgb = torch.from_numpy(np.ascontiguousarray(frame_bgr[:, :, ::-1])).permute(2, 0, 1)[None].float() / 255
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (self.checkpoint.mean, self.checkpoint.std))
        return (rgb - mean) / std


def logits_of(model: "SegmentationNet", x: "Tensor") -> "Tensor":
    """Logits `[1,classes,H,W]` of a normalised frame `[1,3,H,W]`."""
    import torch

    levels = _levels_to_shrink(model, x)
    if not levels:
        out: Tensor = model(x)
        return out
    logits = torch.empty(1, model.num_classes, *x.shape[-2:])
    for row, column, stride, grid in _grids(model, x, levels):
        part = logits[:, :, row::stride, column::stride]
        part.copy_(grid[:, :, : part.shape[2], : part.shape[3]])
    return logits


def uint8_from_labels(labels: "Tensor") -> NDArray[np.uint8]:
    """Labels of any integer type as a uint8 array."""
    return labels.numpy().astype(np.uint8)


def _labels(model: "SegmentationNet", x: "Tensor") -> NDArray[np.uint8]:
    """Labels uint8 [H,W] of a normalised frame `[1,3,H,W]`, without keeping the logits of all pixels where many."""
    levels = _levels_to_shrink(model, x)
    if not levels:
        return uint8_from_labels(model(x)[0].argmax(0))
    labels = np.empty(x.shape[-2:], np.uint8)
    for row, column, stride, grid in _grids(model, x, levels):
        part = labels[row::stride, column::stride]
        part[:] = uint8_from_labels(grid[0].argmax(0))[: part.shape[0], : part.shape[1]]
    return labels


def _grids(model: "SegmentationNet", x: "Tensor", levels: int) -> Iterator[tuple[int, int, int, "Tensor"]]:
    """(row, column, stride) and the logits `[1,classes,h,w]` of the pixels `[row::stride, column::stride]`, padded."""
    from training.networks.base import pad_to_stride
    from training.networks.smp import SMP
    from training.reduction import SplitMerge, strides_of

    assert isinstance(model, SMP)
    padded, stride = pad_to_stride(x, model.stride), strides_of(model.windows)[levels]
    for row, column in np.ndindex(stride, stride):
        reduction = SplitMerge.at(row, column, stride, model.windows)
        yield row, column, stride, model.sample(padded, reduction).logits


def _levels_to_shrink(model: "SegmentationNet", x: "Tensor") -> int:
    """How many levels of a Split-Merge Pooling network to shrink so that its widest feature map fits LARGEST_TENSOR."""
    from training.networks.smp import SMP
    from training.reduction import LEVELS, strides_of

    if not isinstance(model, SMP):
        return 0
    elements, strides = x.shape[-2] * x.shape[-1] * model.stage_channels[-1], strides_of(model.windows)
    fits = (level for level, stride in enumerate(strides) if elements // stride**2 <= LARGEST_TENSOR)
    return next(fits, LEVELS)


def _load(package: Package, own: str | None) -> "Checkpoint":
    try:
        from training.checkpoint import load_checkpoint
    except ImportError as error:
        raise InputError(
            f"Comparing needs PyTorch, and {error.name} is not installed: pip install '.[train]' in the "
            "checkout, or compare on the machine where the package was made."
        ) from None
    return load_checkpoint(package.reference_path, own)
