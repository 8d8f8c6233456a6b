"""Which thing is painted before which: far ones first, and outer ones before the vehicles that hide them."""

import math

from training.streets.camera import Camera
from training.streets.vehicles import footprint
from training.streets.world import PLOTS, VEHICLES, Thing

__all__ = ["painting_order"]


def painting_order(camera: Camera, things: list[Thing]) -> list[Thing]:
    """`things`, the first to be painted first.

    The order is by depth of the far end, more for what stands to the side. That alone would paint a parked car
    over a bus that passes between it and us, so whatever stands outward of a vehicle and beside it goes before it.
    """
    spans = [_span(thing) for thing in things]
    aside = [thing.lat - camera.lat for thing in things]
    depth = [far - camera.s + 0.7 * abs(a) for (_, far), a in zip(spans, aside, strict=True)]
    hiders = [k for k, t in enumerate(things) if t.kind in VEHICLES and (t.kind != "car" or t.s < camera.s + 40)]
    for k in sorted(hiders, key=lambda k: abs(aside[k])):  # inner ones first, so that pushing back carries on outward
        near, far = spans[k]
        left, reach = aside[k] < 0, abs(aside[k]) + 0.5
        for n, (start, end) in enumerate(spans):
            if start < far and end > near and depth[n] <= depth[k] and (aside[n] < 0) == left and abs(aside[n]) > reach:
                depth[n] = depth[k] + 0.01
    return [things[k] for k in sorted(range(len(things)), key=lambda k: -depth[k])]


def _span(thing: Thing) -> tuple[float, float]:
    """Near and far end along the street, metres."""
    if thing.kind in PLOTS:
        return thing.s, thing.s + thing.size
    if thing.kind == "railing":
        return thing.s, thing.s + 0.5 * thing.size
    if thing.kind in VEHICLES:
        long, wide = footprint(thing.kind)
        cos, sin = abs(math.cos(thing.yaw)), abs(math.sin(thing.yaw))
        half = 0.5 * (long * cos + wide * sin)
        return thing.s - half, thing.s + half
    return thing.s - 0.3, thing.s + 0.3
