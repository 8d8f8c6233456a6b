"""A network bound to memory and to threads."""

import time

from engines.native.jit import Kernel, Wanted, compiled
from engines.native.kernels import vectors_at_once
from engines.native.whole.binding import Binding, WholeKernel
from engines.native.whole.convolutions import direct, points_before, points_behind, tiled
from engines.native.whole.network import Floats
from engines.native.whole.pixels import gathered, labelled, read_frames, scaled
from engines.native.whole.plan import NetworkPlan, PlannedStep
from engines.native.whole.program import Packed, Program, Record, Runner

__all__ = ["FRAMES", "LABELS", "BoundNetwork"]

FRAMES, LABELS = "frames", "largest logit"
"""What the first step and the last are named."""


class BoundNetwork:
    """One frame at a time: `frame` uint8 [height,width,channels] in, `run`, `labels` uint8 [height,width] out."""

    def __init__(self, plan: NetworkPlan, weights: Floats, threads: int) -> None:
        self._binding = binding = Binding(plan, weights, threads)
        self.frame, self.labels, self.maps = binding.frame, binding.labels, binding.maps
        half_way = binding.size(plan.logits).width * plan.logits.channels
        scratch = max(points_before(plan) + points_behind(plan), half_way)
        self._steps = [(FRAMES, [read_frames(binding)])]
        self._steps += [(step.name, _bound(binding, step)) for step in plan.steps]
        self._steps += [(LABELS, [labelled(binding)])]
        stages = [stage for _, stages in self._steps for stage in stages]
        self._program = Program(compiled(plan.lanes, _wanted(plan)), stages, threads, scratch)

    def run(self) -> None:
        self._program.run()

    def close(self) -> None:
        """Let the threads end."""
        self._program.close()

    def run_timed(self) -> dict[str, float]:
        """The same; what each step took, seconds by the value that it makes, FRAMES first and LABELS last."""
        taken = dict.fromkeys((name for name, _ in self._steps), 0.0)
        stages = (name for name, stages in self._steps for _ in stages)
        start = time.perf_counter()
        for name, _ in zip(stages, self._program.run_one_by_one(), strict=True):
            end = time.perf_counter()
            taken[name] += end - start
            start = end
        return taken


def _bound(binding: Binding, step: PlannedStep) -> list[list[Record]]:
    """A step's records, in stages that follow each other."""
    match step.kind:
        case "convolution" if step.tile is not None:
            return [tiled(binding, step)]
        case "convolution":
            return direct(binding, step)
        case "scale":
            return [scaled(binding, step)]
        case _:
            return [gathered(binding, step)]


def _wanted(plan: NetworkPlan) -> frozenset[Wanted]:
    wanted: set[Wanted] = {WholeKernel("frames"), WholeKernel("between")}
    for step in plan.steps:
        vectors, added = vectors_at_once(plan.lanes, step.result.channels), step.added is not None
        if step.kind != "convolution":
            wanted.add(WholeKernel(step.kind, added=added))
        elif step.tile is not None:
            wanted.add(Kernel(step.tile, vectors, added))
        else:  # which goes on with sums
            wanted |= {WholeKernel("direct", vectors, also) for also in (added, True)}
    return frozenset([Runner(), *(Packed(kernel) for kernel in wanted)])
