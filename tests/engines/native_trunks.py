"""Trunks made up for tests, and what PyTorch computes for them in float64: dilated convolutions of all pixels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from engines.host import HostBuffer
from engines.native.engine import NativeContext, NativeEngine
from engines.native.jit import lanes_here
from engines.native.plan import write_plan
from engines.native.trunk import Convolution, Pair, Trunk

Floats = NDArray[np.float32]


class Made:
    """A trunk that is drawn step by step: each convolution reads the value before, unless it is told otherwise."""

    def __init__(self, channels: int, size: Pair, seed: int = 0) -> None:
        self.channels, self.size = {"features": channels}, size
        self.random = np.random.default_rng(seed)
        self.steps: list[Convolution] = []
        self.last = "features"

    def add(
        self, out: int, taps: int = 3, step: Pair = (1, 1), relu: bool = True, added: str | None = None, of: str = ""
    ) -> str:
        source, result = of or self.last, f"value{len(self.steps)}"
        into = self.channels[source]
        weights = self.random.standard_normal((out, into, taps, taps)) * (1.4 / (into * taps * taps) ** 0.5)
        bias = self.random.standard_normal(out) * 0.3
        arrays = (array.astype(np.float32) for array in (weights, bias))
        self.steps.append(Convolution(source, result, *arrays, step, added, relu))
        self.channels[result] = out
        self.last = result
        return result

    @property
    def trunk(self) -> Trunk:
        channels, (height, width) = self.channels["features"], self.size
        return Trunk("features", channels, height, width, tuple(self.steps), self.last, "labels")

    def features(self, count: int = 1) -> Floats:
        shape = count, self.channels["features"], *self.size
        return self.random.standard_normal(shape).astype(np.float32)


def exact_logits(trunk: Trunk, features: Floats) -> NDArray[np.float64]:
    """Logits [n,classes,height,width]."""
    values = {trunk.input: torch.tensor(features, dtype=torch.float64)}
    for one in trunk.steps:
        weights, bias = (torch.tensor(array, dtype=torch.float64) for array in (one.weights, one.bias))
        side = weights.shape[-1] // 2
        padding = [step * side for step in one.step]
        dilation = one.step if side else 1
        value = functional.conv2d(values[one.source], weights, bias, padding=padding, dilation=dilation)
        if one.added is not None:
            value = value + values[one.added]
        values[one.result] = value.relu() if one.relu else value
    logits: NDArray[np.float64] = values[trunk.logits].numpy()
    return logits


def engine_of(trunk: Trunk, folder: Path, lanes: int | None = None) -> NativeEngine:
    plan, weights = folder / "trunk.native", folder / "trunk.weights"
    write_plan(trunk, lanes or lanes_here(), plan, weights)
    return NativeEngine(plan.read_bytes(), weights)


def run(context: NativeContext, trunk: Trunk, features: Floats) -> NDArray[np.uint8]:
    labels = np.full((len(features), trunk.height, trunk.width), 255, np.uint8)
    context.enqueue({trunk.input: HostBuffer(features)}, {trunk.output: HostBuffer(labels)})
    return labels


def logits_of(context: NativeContext, trunk: Trunk) -> Floats:
    """What the last split batch's labels were taken from: [classes,height,width]."""
    section = context._section
    assert section is not None
    while section._inner is not None:
        section = section._inner
    classes = next(step for step in trunk.steps if step.result == trunk.logits).weights.shape[0]
    pixels = section.maps[trunk.logits][: section.size[0] * section.size[1], :classes]
    return np.moveaxis(pixels.reshape(*section.size, classes), 2, 0)


def altered_json(path: Path, **changed: Any) -> None:
    """Another JSON file in its place."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
