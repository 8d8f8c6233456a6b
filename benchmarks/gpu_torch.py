"""What PyTorch itself takes: the alternative that a user has without any engine.

The network is cut where the package's graphs are: the stem gives all split batches, the trunk takes them one by one, so
that "streamed" means the same as with an engine. Frames come from and labels go to page-locked host memory.
"""

import copy
import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.gpu_rows import RESIDENT, Made, Way
from training.checkpoint import IMAGENET_MEAN, IMAGENET_STD
from training.layers import merge_pool
from training.networks.base import pad_to_stride
from training.networks.smp import SMPResNet
from training.reduction import LEVELS, SplitMerge

__all__ = ["torch_ways"]

_CUT = 2
_EVERY_PIXEL = SplitMerge()
_OTHERS = ("whole", "dilated", "whole there")
"""Pieces that are no baseline: their group has a streamed one."""


@dataclass(frozen=True)
class _Kind:
    """How PyTorch is run."""

    name: str
    half: bool = False
    compiled: bool = False
    tf32: bool = True
    baseline: bool = False


KINDS = (
    _Kind("PyTorch eager fp32, TF32 off", tf32=False),
    _Kind("PyTorch eager fp32", baseline=True),
    _Kind("PyTorch autocast fp16, channels last", half=True),
    _Kind("PyTorch autocast fp16, channels last, compiled", half=True, compiled=True),
)


def torch_ways(model: SMPResNet, frame: NDArray[np.uint8], work: dict[str, int]) -> Iterator[Way]:
    """PyTorch's rows for a network (evaluation mode, CPU) and a frame uint8 [H,W,3]."""
    pieces: dict[str, tuple[str, str, int | None]] = {
        "stem": ("stem", "", work.get("stem")),
        "batch": ("one split batch", "", work.get("trunk")),
        "streamed": ("whole frame", ", streamed", work.get("model")),
        "whole": ("whole frame", ", in one go", work.get("model")),
        "dilated": ("whole frame", ", dilated, in one go", work.get("model")),
        "streamed there": (RESIDENT, ", streamed", work.get("model")),
        "whole there": (RESIDENT, ", in one go", work.get("model")),
    }
    for piece, (group, ending, multiply_adds) in pieces.items():
        for kind in KINDS:

            def make(stack: ExitStack, kind: _Kind = kind, piece: str = piece) -> Made:
                return _make(stack, model, frame, kind, piece)

            yield Way(group, kind.name + ending, make, multiply_adds, None, kind.baseline and piece not in _OTHERS)


def _make(stack: ExitStack, model: SMPResNet, frame: NDArray[np.uint8], kind: _Kind, piece: str) -> Made:
    stack.callback(_forget)
    torch.cuda.reset_peak_memory_stats()
    stack.enter_context(_tf32(kind.tf32))
    parts = _Parts(model, kind)
    host = torch.from_numpy(frame[None].copy()).pin_memory()
    # PyTorch gives events no types.
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    labels = torch.empty(frame.shape[:2], dtype=torch.uint8).pin_memory()
    work = _piece(parts, piece, host, labels)

    def run() -> NDArray[np.uint8] | None:
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=kind.half):
            begin.record()
            work()
            end.record()
            torch.cuda.synchronize()
        return labels.numpy().copy() if piece in ("streamed", "whole", "dilated") else None

    return Made(run, lambda: float(begin.elapsed_time(end)), torch.cuda.max_memory_allocated)


def _piece(parts: "_Parts", piece: str, host: Tensor, labels: Tensor) -> Callable[[], object]:
    """What a run does. Stem and split batch have their inputs on the GPU, as an engine's rows do."""
    if piece == "streamed":
        return lambda: labels.copy_(parts.streamed(host.cuda(non_blocking=True)), non_blocking=True)
    if piece == "whole":
        return lambda: labels.copy_(parts.whole(host.cuda(non_blocking=True)), non_blocking=True)
    if piece == "dilated":
        return lambda: labels.copy_(parts.dilated(host.cuda(non_blocking=True)), non_blocking=True)
    on_gpu = host.cuda()
    if piece == "streamed there":
        return lambda: parts.streamed(on_gpu)
    if piece == "whole there":
        return lambda: parts.whole(on_gpu)
    if piece == "stem":
        return lambda: parts.stem(on_gpu)
    with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=parts.half):
        features = parts.stem(on_gpu)
    return lambda: parts.trunk(features[3:4])


class _Parts:
    """The network on the GPU, cut. Frames are uint8 [1,H,W,3], labels uint8."""

    def __init__(self, model: SMPResNet, kind: _Kind, device: str = "cuda") -> None:
        self.half, self._format = kind.half, torch.channels_last if kind.half else torch.contiguous_format
        self._model: SMPResNet = copy.deepcopy(model).to(device)
        # PyTorch's own types leave this form of `to` out.
        self._model.to(memory_format=self._format)  # type: ignore[call-overload]
        self._mean, self._std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        self.stem: Callable[[Tensor], Tensor] = torch.compile(self._stem) if kind.compiled else self._stem
        self.trunk: Callable[[Tensor], Tensor] = torch.compile(self._trunk) if kind.compiled else self._trunk
        self.dilated: Callable[[Tensor], Tensor] = torch.compile(self._dilated) if kind.compiled else self._dilated
        self.whole: Callable[[Tensor], Tensor] = torch.compile(self._whole) if kind.compiled else self._whole

    def streamed(self, frame: Tensor) -> Tensor:
        """Labels [H,W], one split batch after the other."""
        features = self.stem(frame)
        labels = torch.cat([self.trunk(features[i : i + 1]) for i in range(features.shape[0])])
        return _merged(labels, _CUT)[0, 0, : frame.shape[1], : frame.shape[2]]

    def _whole(self, frame: Tensor) -> Tensor:
        logits: Tensor = self._model(self._normalised(frame))
        return logits[0].argmax(0).to(torch.uint8)

    def _dilated(self, frame: Tensor) -> Tensor:
        """The same labels by dilated convolutions on the unsplit frame."""
        logits: Tensor = self._model.dilated_logits(self._normalised(frame))
        return logits[0].argmax(0).to(torch.uint8)

    def _stem(self, frame: Tensor) -> Tensor:
        """Features [16,C,h,w]."""
        model, x = self._model, pad_to_stride(self._normalised(frame), self._model.stride)
        x = F.relu(_EVERY_PIXEL.reducing_conv(model.conv1, model.bn1, x, 1))
        return _EVERY_PIXEL.pool(x, _CUT).contiguous(memory_format=self._format)

    def _trunk(self, x: Tensor) -> Tensor:
        """Labels [N,1,h,w] of features [N,C,h,w]."""
        for blocks in (self._model.layer1, self._model.layer2, self._model.layer3, self._model.layer4):
            for block in blocks:  # type: ignore[union-attr]  # a stage is a Sequential, which attribute access hides
                x = block(x, _EVERY_PIXEL)
        labels = self._model.classifier(x).argmax(1, keepdim=True).to(torch.uint8)
        return _merged(labels, LEVELS - _CUT)

    def _normalised(self, frame: Tensor) -> Tensor:
        x = frame.flip(-1).permute(0, 3, 1, 2).float() / 255
        return ((x - self._mean) / self._std).contiguous(memory_format=self._format)


def _merged(labels: Tensor, levels: int) -> Tensor:
    for _ in range(levels):
        labels = merge_pool(labels)
    return labels


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _forget() -> None:
    torch._dynamo.reset()
    gc.collect()
    torch.cuda.empty_cache()
