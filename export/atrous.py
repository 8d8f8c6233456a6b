"""What PyTorch computes where a network's output stride is lowered: the reference for `export.output_stride`.

The network's own code runs, and its convolutions, poolings and upsamplings are computed à trous: at full density, with
growing dilation, without a split anywhere. The network sees the sizes that it had, so that it asks for the same.

At output stride 1 the network runs once before that, as it is, and what is no map of the image in that run (a mean over
all pixels and what is computed from it) is what the network gets to see in the second one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from export.graphs import Rewriting
from splitmerge.errors import InputError
from training.networks.base import SegmentationNet, pad_to_stride

__all__ = ["AtOutputStride", "as_rewritten"]


def as_rewritten(network: SegmentationNet, rewriting: Rewriting) -> nn.Module:
    """What a rewritten graph is held against: the network, at the output stride that was asked for."""
    return AtOutputStride(network, rewriting.output_stride) if rewriting.output_stride else network


class AtOutputStride(nn.Module):
    """`network` at a lower output stride, called as the network is."""

    def __init__(self, network: SegmentationNet, output_stride: int) -> None:
        super().__init__()
        self.network, self.output_stride = network, output_stride

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        padded = pad_to_stride(x, self.network.stride)
        context = _Context(padded)
        if self.output_stride == 1:
            with context:
                self.network.padded_logits(padded)
        with _Atrous(padded.shape[-1], self.output_stride, context.values):
            logits = self.network.padded_logits(padded)
        return logits[:, :, :height, :width]


class _Context(TorchFunctionMode):
    """Notes what functions of PyTorch return where that is a tensor and no map of the image, None for other calls."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self._size = image.shape[-2:]
        self.values: list[Tensor | None] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.values.append(out if isinstance(out, Tensor) and not self._is_map(out.shape) else None)
        return out

    def _is_map(self, shape: torch.Size) -> bool:
        """Whether it is smaller than the image by a power of two, and more than one number."""
        if len(shape) < 2 or shape[-2:] == (1, 1) or 0 in shape:
            return False
        stride = self._size[0] // shape[-2]
        return stride.bit_count() == 1 and (shape[-2] * stride, shape[-1] * stride) == self._size


class _Atrous(TorchFunctionMode):
    """A tensor's `_stride` is how many times smaller than the image (of `width` pixels) the network believes it is.

    `context` has what the functions of PyTorch return where that is known already, in the order of their calls.
    """

    def __init__(self, width: int, target: int, context: Sequence[Tensor | None] = ()) -> None:
        super().__init__()
        self._width, self._target, self._context = width, target, iter(context)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = next(self._context, None)
        if func == Tensor.shape.__get__:  # type: ignore[attr-defined]  # a property of C, which the stubs call a field
            *outer, height, width = args[0].shape if args[0].dim() > 1 else (0, *args[0].shape)
            rate = self._rate(_stride(args[0]))
            return torch.Size([*outer, height // rate, width // rate]) if rate > 1 else args[0].shape
        if known is not None:
            return _marked(known, 1)
        own: dict[str, Callable[..., Tensor]] = {
            "conv2d": self._conv2d,
            "max_pool2d": self._max_pool2d,
            "avg_pool2d": self._avg_pool2d,
            "interpolate": self._interpolate,
        }
        if (name := getattr(func, "__name__", "")) in own:
            return own[name](*args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            of_image = out.shape[-2:] == (1, 1)  # a mean, which has no density
            return _marked(out, 1 if of_image else max(map(_stride, _tensors(args)), default=1))
        return out

    def _rate(self, stride: int) -> int:
        """How many times denser a map is than the network believes."""
        return max(1, stride // self._target)

    def _conv2d(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        padded, step, rates = self._prepared(x, weight.shape[2:], stride, padding, dilation, 0.0)
        return self._at(F.conv2d(padded, weight, bias, step, 0, rates, groups), x, stride)

    def _max_pool2d(
        self,
        x: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        kernel, stride = _pair(kernel_size), stride or kernel_size
        padded, step, rates = self._prepared(x, kernel, stride, padding, dilation, -torch.inf, ceil_mode)
        return self._at(F.max_pool2d(padded, kernel, step, 0, rates), x, stride)

    def _avg_pool2d(
        self,
        x: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Tensor:
        kernel, stride = _pair(kernel_size), stride or kernel_size
        cut_short = any(
            (length // self._rate(_stride(x)) - k) % s
            for length, k, s in zip(x.shape[2:], kernel, _pair(stride), strict=True)
        )
        if any(_pair(padding)) or divisor_override or (ceil_mode and cut_short):
            raise InputError(
                f"An average of {kernel[0]}x{kernel[1]} pixels has the padding {padding}, the divisor "
                f"{divisor_override} and {'cells cut short' if ceil_mode else 'whole cells'}, and only averages of "
                "whole cells without padding are known at another output stride: export it without --output-stride."
            )
        padded, step, rates = self._prepared(x, kernel, stride, 0, 1, 0.0)
        channels = x.shape[1]
        mean = torch.full((channels, 1, *kernel), 1 / (kernel[0] * kernel[1]))
        return self._at(F.conv2d(padded, mean, None, step, 0, rates, channels), x, stride)

    def _prepared(
        self, x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, fill: float, ceil_mode: bool = False
    ) -> tuple[Tensor, int, list[int]]:
        """The input padded, the stride that is left and the dilation."""
        believed, rate = _stride(x), self._rate(_stride(x))
        (step, _), after = _pair(stride), self._rate(believed * _pair(stride)[0])
        left, rates, pads = step * rate // after, [], []
        for axis in (0, 1):
            length, pad, d = x.shape[2 + axis], _pair(padding)[axis], _pair(dilation)[axis]
            spread = d * (kernel[axis] - 1)
            room = length // rate + 2 * pad - spread - 1
            cells = room // step + 1
            if ceil_mode and room % step and cells * step < length // rate + pad:  # no cell begins beyond the image
                cells += 1
            made = cells * after
            pads.append((pad * rate, (made - 1) * left + spread * rate + 1 - length - pad * rate))
            rates.append(d * rate)
        return F.pad(x, (*pads[1], *pads[0]), value=fill), left, rates

    def _at(self, out: Tensor, x: Tensor, stride: Any) -> Tensor:
        return _marked(out, _stride(x) * _pair(stride)[0])

    def _interpolate(
        self, x: Tensor, size: Any = None, mode: str = "nearest", align_corners: Any = None, **kwargs: Any
    ) -> Tensor:
        """Bilinear, reading the dense map where the network would have read its own."""
        assert mode == "bilinear" and not align_corners and size is not None
        small, large = _stride(x), self._width // size[1]
        rate = self._rate(large)
        if x.shape[2:] == (1, 1):
            out = x.expand(-1, -1, size[0] * rate, size[1] * rate)
        else:
            rows, columns = (
                self._weights(length, wanted * rate, small, large)
                for length, wanted in zip(x.shape[2:], size, strict=True)
            )
            out = rows @ x @ columns.T
        return _marked(out, large)

    def _weights(self, length: int, made: int, small: int, large: int) -> Tensor:
        """What pixel i of the result takes of each pixel of the map, `[made,length]`."""
        cell, result_cell = small // self._rate(small), large // self._rate(large)
        pixels = torch.arange(made, dtype=torch.float64)
        places = (pixels * result_cell - (small - large) / 2) / cell
        if cell == result_cell == 1:
            places = places.floor()
        if cell == result_cell and bool((places == places.floor()).all()):
            moved = int(-places[0])  # a row that is missing is the first one of its own split batch
            batches = min(moved & -moved, self._rate(small)) if moved else 1
            places = torch.where(places < 0, pixels % batches, places)
        places = places.clamp(0, length - 1)
        low = places.floor().long()
        high, part = (low + 1).clamp(max=length - 1), places - low
        weights = torch.zeros(made, length, dtype=torch.float64)
        weights.scatter_add_(1, low[:, None], (1 - part)[:, None])
        return weights.scatter_add_(1, high[:, None], part[:, None]).float()


def _stride(x: Any) -> int:
    return getattr(x, "_stride", 1)


def _marked(x: Tensor, stride: int) -> Tensor:
    x._stride = stride  # type: ignore[attr-defined]  # a tensor carries it through code that knows nothing of it
    return x


def _tensors(values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, (list, tuple)):
            found += _tensors(value)
        elif isinstance(value, Tensor):
            found.append(value)
    return found


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
