"""A profile of a natively compiled trunk: what each convolution takes, of one context, which has one thread."""

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.profiling.trace import Operator
from engines.host import HostBuffer
from engines.native.engine import NativeEngine
from engines.native.plan import Step
from engines.native.section import LABELS, Call
from engines.sidecar import weights_beside

__all__ = ["ProfiledNative"]


class ProfiledNative:
    """A trunk whose calls are timed. Runs and tells its operators as `trace.Profiled` does."""

    def __init__(self, engine: Path) -> None:
        self._engine = NativeEngine(engine.read_bytes(), weights_beside(engine))
        self._context = self._engine.create_context()
        self._context.observe(self._timed)
        self._run: dict[str, float] = {}
        self._calls: dict[str, int] = {}
        self._batches = 0
        self._runs: list[dict[str, float]] = []
        self.inputs = [tensor.name for tensor in self._engine.inputs]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name."""
        (features,), (output,) = feeds.values(), self._engine.outputs
        labels = np.empty((len(features), *features.shape[2:]), np.uint8)
        self._run, self._calls, self._batches = {}, {}, len(features)
        self._context.enqueue({self.inputs[0]: HostBuffer(features)}, {output.name: HostBuffer(labels)})
        self._runs.append(self._run)
        return {output.name: labels}

    def operators(self, stage: str, frames: int, per_frame: int) -> list[Operator]:
        """As `trace.operators_of` gives them. Operations are those of the products, in which filtering has fewer than
        the convolution as it is written; bytes are the maps and weights, once."""
        plan, counted = self._engine.plan, self._runs[-frames * per_frame :]

        def operator(name: str, kind: str, operations: int, numbers: int, more: int = 0) -> Operator:
            """`numbers` and `more` bytes of a run of one split batch are moved."""
            ms = 1e3 * median(run[name] for run in counted)
            each = per_frame * self._batches
            moved = (4 * numbers + more) * each
            return Operator(stage, name, kind, self._calls[name] * per_frame, ms * per_frame, operations * each, moved)

        pixels, operators = plan.height * plan.width, []
        for step in plan.steps:
            pairs = step.into * step.out
            operations = 2 * pairs * step.products(plan.height, plan.width)
            maps = step.into + step.out * (1 if step.added is None else 2)
            operators.append(operator(step.result, _kind(step), operations, pixels * maps + step.points * pairs))
        logits = next(step.out for step in plan.steps if step.result == plan.logits)
        return [*operators, operator(LABELS, "labels", pixels * plan.classes, pixels * logits, pixels)]

    def _timed(self, name: str, call: Call) -> Call:
        def timed() -> None:
            start = time.perf_counter()
            call()
            self._run[name] = self._run.get(name, 0.0) + time.perf_counter() - start
            self._calls[name] = self._calls.get(name, 0) + 1

        return timed


def _kind(step: Step) -> str:
    return f"3x3 as F({step.tile[0]}x{step.tile[1]})" if step.tile else "1x1"
