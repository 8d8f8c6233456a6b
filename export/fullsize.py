"""Hold the graphs that ship, at the size they ship for, against PyTorch on pixels that it can compute cheaply.

A split-merge network whose first levels are shrunken at an offset, and whose other levels are split, computes the
pixels `[row::stride, column::stride]` of the frame: exactly those of one split batch, at that batch's share of the
memory. So the stem and a few split batches of the trunk can be compared at any size. The whole graph is run where its
tensors are small enough.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.agreement import Agreement, TorchReference, flat_pixels
from export.atrous import as_rewritten
from export.execute import GraphRun, run_batches, run_model
from export.frames import sample_frames
from export.graphs import Graphs
from export.layouts import grid
from export.nodes import sizes
from export.reference import finite_logits, logits_from_torch, normalised
from training.networks.base import SegmentationNet, pad_to_stride
from training.networks.smp import SMP
from training.reduction import SplitMerge, strides_of

__all__ = [
    "MAX_NUMBERS",
    "FullSize",
    "Pixels",
    "compare_full_size",
    "largest_tensor",
    "pixels_to_look_at",
    "sampled_logits",
]

MAX_NUMBERS = 40_000_000
"""In the largest tensor of a graph that is run whole: 160 MB in float32, with about four of them alive at a time."""

_Number = TypeVar("_Number", bound=np.generic)

_DENSER = (
    10  # where an output stride was lowered, PyTorch computes every pixel with dilated convolutions, which is slow
)

_LEVEL = 2  # whose split batches' pixels are looked at in a graph without a cut


@dataclass(frozen=True)
class FullSize:
    """What was run at full size, in words, how it compared, and whether that was the whole graph on every pixel."""

    summary: str
    comparisons: tuple[Agreement, ...]
    every_pixel: bool = False


@dataclass(frozen=True)
class Pixels:
    """The pixels `[row::stride, column::stride]`, which are split batch `row * stride + column` of a cut frame."""

    row: int
    column: int
    stride: int

    @property
    def batch(self) -> int:
        return self.row * self.stride + self.column

    def of(self, dense: NDArray[_Number]) -> NDArray[_Number]:
        return dense[..., self.row :: self.stride, self.column :: self.stride]


def compare_full_size(network: SegmentationNet, graphs: Graphs) -> FullSize:
    """Run what can be run on one frame. Raises VerificationError where ONNX Runtime cannot run it."""
    numbers = largest_tensor(graphs)
    most = MAX_NUMBERS // _DENSER if graphs.rewriting.output_stride else MAX_NUMBERS
    whole = numbers <= most
    in_parts = graphs.cut is not None and isinstance(network, SMP)
    if not whole and not in_parts:
        return FullSize(
            f"not run: the largest tensor has {numbers / 1e6:.0f} million numbers, and graphs with up to "
            f"{most / 1e6:.0f} million are run",
            (),
        )
    frames = sample_frames(1, *graphs.contract.size)
    pixels = _pixels(network, graphs, 2 if whole else 1)
    expected = _expected(network, graphs, frames, pixels)
    reference = TorchReference(flat_pixels(expected), graphs.contract.size)
    rows, ran = [], []
    if in_parts:
        words = _batches(pixels)
        batches = list(run_batches(graphs, frames, [one.batch for one in pixels]))
        rows.append(_compare(reference, f"stem + trunk, full size, {words}", batches))
        ran.append(f"stem + trunk on {words}")
    if whole:
        run = run_model(graphs, frames)
        parts = [GraphRun(one.of(run.labels), one.of(run.logits), {}) for one in pixels]
        words = _places(pixels)
        rows.append(_compare(reference, f"model, full size, {words}", parts))
        ran.append(f"model on {words}")
    every_pixel = whole and not in_parts and pixels[0].stride == 1
    return FullSize("; ".join(ran), tuple(rows), every_pixel)


def largest_tensor(graphs: Graphs) -> int:
    """Numbers in the largest tensor that the whole graph computes for one frame."""
    model = graphs.parts["model"]
    return max(
        prod(size or 1 for size in sizes(node.outputs[0])[1:]) * prod(grid(graphs.layouts[node.name or ""]))
        for node in model.graph
        if node.name in graphs.layouts
    )


def _pixels(network: SegmentationNet, graphs: Graphs, count: int) -> list[Pixels]:
    """All pixels of a baseline. Otherwise the last split batch's row with column 1 (so that rows and columns taken for
    each other show), and those of the first split batch."""
    if not isinstance(network, SMP):
        return [Pixels(0, 0, 1)]
    if graphs.cut:
        return pixels_to_look_at(graphs, count)
    stride = strides_of(network.windows)[_LEVEL]
    return [Pixels(0, 0, stride), Pixels(stride - 1, 1, stride)][-count:]


def pixels_to_look_at(graphs: Graphs, count: int) -> list[Pixels]:
    """The last split batch's row with column 1, and with a `count` of 2 the first one; every pixel without a cut.

    Of split batches that are no square, which only a user's own network has, the first one.
    """
    if graphs.cut is None:
        return [Pixels(0, 0, 1)]
    stride = min(graphs.cut.rows, graphs.cut.columns)
    if stride == 1 or graphs.cut.rows != graphs.cut.columns:
        return [Pixels(0, 0, stride)]
    return [Pixels(0, 0, stride), Pixels(stride - 1, 1, stride)][-count:]


def _expected(
    network: SegmentationNet, graphs: Graphs, frames: NDArray[np.uint8], pixels: list[Pixels]
) -> list[NDArray[np.float32]]:
    """PyTorch's logits `[1,classes,h,w]` of the pixels that lie within the frame."""
    x = normalised(frames, graphs.contract)
    if not isinstance(network, SMP):
        return [one.of(logits_from_torch(as_rewritten(network, graphs.rewriting), x)) for one in pixels]
    padded = pad_to_stride(x, network.stride)
    return [_within(graphs, one, sampled_logits(network, padded, one)) for one in pixels]


def sampled_logits(network: SMP, padded: Tensor, pixels: Pixels) -> NDArray[Any]:
    """The network's logits `[1,classes,h,w]` at these pixels of a padded image, in the network's own precision."""
    reduction = SplitMerge.at(pixels.row, pixels.column, pixels.stride, network.windows)
    with torch.inference_mode():
        logits, offset, stride = network.sample(padded, reduction)
    assert (*offset, stride) == (pixels.row, pixels.column, pixels.stride)
    return finite_logits(logits, "sample")


def _within(graphs: Graphs, pixels: Pixels, logits: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = graphs.contract.size
    rows = len(range(pixels.row, height, pixels.stride))
    columns = len(range(pixels.column, width, pixels.stride))
    return logits[:, :, :rows, :columns]


def _compare(reference: TorchReference, name: str, runs: list[GraphRun]) -> Agreement:
    labels = np.concatenate([run.labels.reshape(1, 1, -1) for run in runs], axis=2)
    return reference.compare(name, labels, flat_pixels([run.logits for run in runs]))


def _batches(pixels: list[Pixels]) -> str:
    numbers = [str(one.batch) for one in pixels]
    return f"split batch{'es' if len(numbers) > 1 else ''} {' and '.join(numbers)}"


def _places(pixels: list[Pixels]) -> str:
    if pixels[0].stride == 1:
        return "every pixel"
    return "pixels " + " and ".join(f"[{one.row}::{one.stride}, {one.column}::{one.stride}]" for one in pixels)
