"""A profile of a natively compiled network: what each step takes, of one context with all threads."""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

from numpy.typing import NDArray

from benchmarks.profiling.trace import Operator
from engines.native.whole.context import FRAMES, LABELS
from engines.native.whole.cost import Windows, products
from engines.native.whole.engine import NetworkEngine
from engines.native.whole.plan import PlannedStep
from engines.sidecar import weights_beside

__all__ = ["ProfiledNetwork"]


class ProfiledNetwork:
    """A network whose steps are timed. Runs and tells its operators as `trace.Profiled` does."""

    def __init__(self, engine: Path, threads: int) -> None:
        self._engine = NetworkEngine(engine.read_bytes(), weights_beside(engine), threads)
        self._bound = self._engine.create_context().bound
        self._runs: list[dict[str, float]] = []
        self.inputs = [tensor.name for tensor in self._engine.inputs]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name."""
        ((frame,),) = feeds.values()
        self._bound.frame[:] = frame
        self._runs.append(self._bound.run_timed())
        (output,) = self._engine.outputs
        return {output.name: self._bound.labels[None].copy()}

    def operators(self, stage: str, frames: int, per_frame: int) -> list[Operator]:
        """As `trace.operators_of` gives them. Operations are those of the products, in which filtering has fewer than
        the convolution as it is written; bytes are the maps and weights, once."""
        plan, counted = self._engine.plan, self._runs[-frames * per_frame :]

        def operator(name: str, kind: str, operations: int, moved: int) -> Operator:
            ms = 1e3 * median(run[name] for run in counted)
            return Operator(stage, name, kind, per_frame, ms * per_frame, operations * per_frame, moved * per_frame)

        bytes_in, pixels = self._bound.frame.size, self._bound.labels.size
        logits = plan.maps[plan.logits.map]
        steps = [operator(step.name, _kind(step), *self._counts(step)) for step in plan.steps]
        moved = 4 * logits.height * logits.width * plan.logits.channels + pixels
        return [
            operator(FRAMES, FRAMES, 2 * bytes_in, 5 * bytes_in),
            *steps,
            operator(LABELS, "labels", pixels * plan.classes, moved),
        ]

    def _counts(self, step: PlannedStep) -> tuple[int, int]:
        """Operations, and bytes."""
        source, result = (self._engine.plan.maps[view.map] for view in (step.source, step.result))
        read = source.height * source.width * step.source.channels
        written = result.height * result.width * step.result.channels
        numbers = read + written * (1 if step.added is None else 2)
        if step.kind == "convolution":
            pairs = step.source.channels * step.result.channels
            made = products(Windows.of(step), source, result, step.tile)
            points = prod(side + 2 for side in step.tile) if step.tile else prod(step.taps)
            return 2 * pairs * made, 4 * (numbers + points * pairs)
        taps = {"scale": 1, "largest": prod(step.taps), "resample": 4}[step.kind]
        return 2 * written * taps, 4 * numbers


def _kind(step: PlannedStep) -> str:
    if step.kind != "convolution":
        return step.kind
    taps = "x".join(str(side) for side in step.taps)
    return f"{taps} as F({step.tile[0]}x{step.tile[1]})" if step.tile else taps
