"""Networks made up for tests, and what PyTorch computes for them in float64."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from engines.host import HostBuffer
from engines.native.jit import lanes_here
from engines.native.trunk import Pair
from engines.native.whole.engine import NetworkContext, NetworkEngine
from engines.native.whole.network import Convolution, Floats, Largest, Network, Resampling, Scale, Size, Step
from engines.native.whole.plan import write_network_plan

Bytes = NDArray[np.uint8]


class MadeNetwork:
    """A network that is drawn step by step: each step reads the value before, unless it is told otherwise."""

    def __init__(self, size: Pair, seed: int = 0, padded: Pair = (0, 0)) -> None:
        """`padded` is the size of the first map, where it is larger than frames."""
        self.size = size
        self.random = np.random.default_rng(seed)
        self.sizes = {"first": Size(3, max(size[0], padded[0]), max(size[1], padded[1]))}
        self.joined: dict[str, tuple[str, ...]] = {}
        self.steps: list[Step] = []
        self.last = "first"

    def convolve(
        self,
        out: int,
        taps: Pair = (3, 3),
        stride: Pair = (1, 1),
        rate: Pair = (1, 1),
        before: Pair | None = None,
        behind: Pair | None = None,
        relu: bool = True,
        added: str | None = None,
        of: str = "",
    ) -> str:
        """With as much padding as keeps a map's size, unless it is given."""
        source = self.sizes[of or self.last]
        before = before or (rate[0] * (taps[0] // 2), rate[1] * (taps[1] // 2))
        behind = behind or before
        sides = [
            (length + before[side] + behind[side] - rate[side] * (taps[side] - 1) - 1) // stride[side] + 1
            for side, length in enumerate((source.height, source.width))
        ]
        weights = self.random.standard_normal((out, source.channels, *taps)) * (
            1.4 / (source.channels * taps[0] * taps[1]) ** 0.5
        )
        bias = self.random.standard_normal(out) * 0.3
        arrays = weights.astype(np.float32), bias.astype(np.float32)
        step = Convolution(of or self.last, self._name(), *arrays, stride, rate, before, added, relu)
        return self._add(step, Size(out, *sides))

    def resample(self, rows: int, columns: int, relu: bool = False, added: str | None = None, of: str = "") -> str:
        """By matrices with a few numbers in each row."""
        source = self.sizes[of or self.last]
        down, across = (
            self.random.standard_normal(shape) * (self.random.random(shape) < 0.4)
            for shape in ((rows, source.height), (columns, source.width))
        )
        matrices = down.astype(np.float32), across.astype(np.float32)
        step = Resampling(of or self.last, self._name(), *matrices, added, relu)
        return self._add(step, Size(source.channels, rows, columns))

    def largest(self, taps: Pair, stride: Pair, before: Pair = (0, 0), of: str = "") -> str:
        source = self.sizes[of or self.last]
        rows, columns = (
            (length + 2 * before[side] - taps[side]) // stride[side] + 1
            for side, length in enumerate((source.height, source.width))
        )
        return self._add(
            Largest(of or self.last, self._name(), taps, stride, before), Size(source.channels, rows, columns)
        )

    def scale(self, relu: bool = True, of: str = "") -> str:
        size = self.sizes[of or self.last]
        factors, offsets = self.random.standard_normal((2, size.channels)).astype(np.float32)
        return self._add(Scale(of or self.last, self._name(), factors, offsets, relu=relu), size)

    def join(self, *values: str) -> str:
        first = self.sizes[values[0]]
        name = f"joined{len(self.joined)}"
        self.joined[name] = values
        self.sizes[name] = Size(sum(self.sizes[one].channels for one in values), first.height, first.width)
        self.last = name
        return name

    @property
    def network(self) -> Network:
        """The last value is the logits, resampled to the frame's size."""
        logits = self.sizes[self.last]
        down, across = (
            self.random.random(shape).astype(np.float32)
            for shape in ((self.size[0], logits.height), (self.size[1], logits.width))
        )
        mean, factors = np.array([[120.5, 110, 100], [0.02, 0.0175, 0.017]], np.float32)
        ends = self.last, down, across, "labels"
        return Network("frames", "first", mean, factors, self.sizes, self.joined, tuple(self.steps), *ends)

    def frames(self, count: int = 1) -> Bytes:
        return self.random.integers(0, 256, (count, *self.size, 3), np.uint8)

    def _name(self) -> str:
        return f"value{len(self.steps)}"

    def _add(self, step: Step, size: Size) -> str:
        self.steps.append(step)
        self.sizes[step.result] = size
        self.last = step.result
        return step.result


def exact_values(network: Network, frame: Bytes) -> dict[str, torch.Tensor]:
    """All values [channels,height,width] of a frame, and `labels`' logits at all its pixels as "upsampled"."""
    mean, factors = (torch.tensor(one, dtype=torch.float64)[:, None, None] for one in (network.mean, network.factors))
    first = (torch.tensor(frame, dtype=torch.float64).permute(2, 0, 1) - mean) * factors
    size = network.sizes[network.first]
    values = {network.first: functional.pad(first, [0, size.width - first.shape[2], 0, size.height - first.shape[1]])}

    def value(name: str) -> torch.Tensor:
        if name not in values:
            values[name] = torch.cat([value(part) for part in network.joined[name]])
        return values[name]

    for step in network.steps:
        made = _exact(step, value(step.source), network.sizes[step.result])
        made = made if step.added is None else made + value(step.added)
        values[step.result] = made.relu() if step.relu else made
    return values | {"upsampled": _resampled(value(network.logits), network.down, network.across)}


def _exact(step: Step, source: torch.Tensor, size: Size) -> torch.Tensor:
    if isinstance(step, Resampling):
        return _resampled(source, step.down, step.across)
    if isinstance(step, Scale):
        factors, offsets = (
            torch.tensor(one, dtype=torch.float64)[:, None, None] for one in (step.factors, step.offsets)
        )
        return source * factors + offsets
    taps = step.taps if isinstance(step, Largest) else step.weights.shape[2:]
    rate = (1, 1) if isinstance(step, Largest) else step.rate
    pads: list[int] = []
    for side in (1, 0):  # as much behind as the result's size asks for
        length, count = source.shape[1 + side], (size.height, size.width)[side]
        needed = (count - 1) * step.stride[side] + rate[side] * (taps[side] - 1) + 1
        pads += [step.before[side], needed - step.before[side] - length]
    outside = float("-inf") if isinstance(step, Largest) else 0.0
    padded = functional.pad(source[None], pads, value=outside)
    if isinstance(step, Largest):
        return functional.max_pool2d(padded, step.taps, step.stride)[0]
    weights, bias = (torch.tensor(one, dtype=torch.float64) for one in (step.weights, step.bias))
    return functional.conv2d(padded, weights, bias, step.stride, dilation=step.rate)[0]


def _resampled(source: torch.Tensor, down: Floats, across: Floats) -> torch.Tensor:
    matrices = (torch.tensor(one, dtype=torch.float64) for one in (down, across))
    return torch.einsum("yh,xw,chw->cyx", *matrices, source)


def network_engine(network: Network, folder: Path, lanes: int | None = None, threads: int = 2) -> NetworkEngine:
    plan, weights = folder / "model.native", folder / "model.weights"
    write_network_plan(network, lanes or lanes_here(), plan, weights)
    return NetworkEngine(plan.read_bytes(), weights, threads)


def labels_of(context: NetworkContext, frames: Bytes) -> Bytes:
    labels = np.full(frames.shape[:3], 255, np.uint8)
    context.enqueue({"frames": HostBuffer(frames)}, {"labels": HostBuffer(labels)})
    return labels


def check_network(context: NetworkContext, network: Network, frames: Bytes, lost: float = 2e-5) -> None:
    """The labels of each frame are those of float64, but where rounding decides."""
    for frame in frames:
        (labels,) = labels_of(context, frame[None])
        logits = exact_values(network, frame)["upsampled"].numpy()
        chosen = np.take_along_axis(logits, labels[None].astype(np.int64), axis=0)[0]
        assert (logits.max(0) - chosen).max() <= 2 * lost * np.abs(logits).max()
        assert (labels == logits.argmax(0)).mean() > 0.99


def values_of(context: NetworkContext, network: Network, names: Sequence[str]) -> dict[str, Floats]:
    """What a run left in maps, [channels,height,width]; of those that nothing else was written to since."""
    views = {step.name: step.result for step in context._plan.steps}
    found = {}
    for name in names:
        view, size = views[name], network.sizes[name]
        pixels = context.bound.maps[view.map][: -context._plan.maps[view.map].channels]
        of_view = pixels.reshape(size.height, size.width, -1)[:, :, view.first : view.first + view.channels]
        found[name] = of_view[:, :, : size.channels].transpose(2, 0, 1).copy()
    return found
