"""Memory for a network's maps, which share it where one is read for the last time before the other is made."""

from engines.native.kernels import LINE
from engines.native.memory import aligned, rooms_for
from engines.native.whole.network import Floats
from engines.native.whole.plan import NetworkPlan

__all__ = ["maps_of"]


def maps_of(plan: NetworkPlan) -> list[Floats]:
    """A map for each of the plan's, `[pixels * channels]`. Before its first pixel are zeros, which stand for what lies
    outside, and behind its last there is room for another one, where tiles write what is beyond the map."""
    spans = _spans(plan)
    zeros = max(one.channels for one in plan.maps)
    zeros += -zeros % LINE
    needed = [(one.height * one.width + 1) * one.channels for one in plan.maps]
    in_order = sorted(spans, key=lambda number: spans[number][0])
    rooms, of_each = rooms_for((*spans[number], needed[number]) for number in in_order)
    placed = dict(zip(in_order, of_each, strict=True))
    memory = [aligned(zeros + size) for size in rooms]
    for one in memory:
        one[:] = 0
    unused = aligned(0)
    return [
        memory[placed[number]][zeros : zeros + size] if number in placed else unused
        for number, size in enumerate(needed)
    ]


def _spans(plan: NetworkPlan) -> dict[int, tuple[int, int]]:
    """The first and the last step that has to do with a map; the frames are there before all, the logits to the end. A
    frame's map that is larger than the frame is nobody else's: it stays zero there."""
    frames = plan.maps[plan.first.map]
    spans = {plan.first.map: (-1, -1)}
    for index, step in enumerate(plan.steps):
        for view in (step.source, step.result, *([] if step.added is None else [step.added])):
            begin, _ = spans.get(view.map, (index, index))
            spans[view.map] = begin, index
    if (frames.height, frames.width) != (plan.height, plan.width):
        spans[plan.first.map] = -1, len(plan.steps)
    begin, _ = spans.get(plan.logits.map, (0, 0))
    return spans | {plan.logits.map: (begin, len(plan.steps))}
