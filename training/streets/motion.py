"""Where everything that moves is at a given time, and what of it the camera can see."""

import math

from training.streets.camera import NEAR, Camera
from training.streets.vehicles import footprint
from training.streets.world import PLOTS, VEHICLES, Thing, World

__all__ = ["moving_things", "visible"]


def visible(camera: Camera, thing: Thing) -> bool:
    """Whether to paint it at all; a vehicle beside us may begin behind the camera."""
    if thing.kind in PLOTS or thing.kind == "railing":
        return thing.s + thing.size > camera.s + NEAR
    back = 0.5 * footprint(thing.kind)[0] if thing.kind in VEHICLES else 0.6
    beside = back > 1 and abs(thing.lat - camera.lat) > 2.0
    ahead = thing.s - camera.s + (back if beside else -back)
    return 0.8 < ahead < 115 and camera.sees(thing.lat, max(thing.s, camera.s + ahead), back + 1.5 + _spread(thing))


def _spread(thing: Thing) -> float:
    """How far arms and crowns reach sideways, metres."""
    if thing.kind == "catenary":
        return 12.0
    return {"lamp": 3.0, "signal": 4.0, "tree": 4.0}.get(thing.kind, 0.0)


def moving_things(world: World, time: float, camera: Camera, things: list[Thing]) -> list[Thing]:
    """Everything that moves, as it stands at `time`."""
    found: list[Thing] = []
    s0 = camera.s - 6
    for stream in world.streams:
        yaw = 0.0 if stream.speed >= 0 else math.pi
        near = {"walker": 62.0, "cyclist": 75.0}.get(stream.kind, 115.0)
        for s, looks in stream.members(time, s0, camera.s + near):
            lat = stream.lat
            if stream.kind == "vehicle":
                kind = world.kind_of(looks[6])
                kind = "moto-rider" if kind == "motorcycle" else kind
                found.append(Thing(kind, lat + 0.5 * (looks[7] - 0.5), s, 0.0, looks, yaw))
            elif stream.kind == "tram":
                for n in range(3):
                    end = (1 if n == (0 if yaw == 0 else 2) else 0) | (2 if n == (2 if yaw == 0 else 0) else 0)
                    found.append(Thing("tram", lat, s + 9.6 * n, end, looks, yaw))
            elif stream.kind == "cyclist":
                found.append(Thing("cyclist", lat + 0.4 * (looks[7] - 0.5), s, 0.0, looks, yaw))
            elif stream.speed == 0:
                found.append(Thing("person", lat, s, 0.0, looks, 6.28 * looks[8]))
            else:
                found.append(Thing("person", lat + 0.8 * (looks[7] - 0.5), s, 1.0, looks, yaw))
    for n in range(4):
        looks = world.streams[0].looks[n + 20]
        s = 40 + world.speed * time + world.lead_gap + 5 * looks[0] + 21.0 * n + 1.5 * math.sin(0.2 * time + n)
        kind = world.kind_of(looks[6])
        s += {"bus": 4.5, "truck": 3.0}.get(kind, 0.0)
        kind = "moto-rider" if kind == "motorcycle" else kind
        if looks[9] < 0.7:
            found.append(Thing(kind, world.ego_lat + 0.3 * (looks[7] - 0.5), s, 0.0, looks, 0.0))
    for thing in things:
        if thing.kind in ("crosser", "crossrider"):
            crossing = _crossing(world, thing, time)
            found += [crossing] if crossing else []
    return [thing for thing in found if visible(camera, thing)]


def _crossing(world: World, thing: Thing, time: float) -> Thing | None:
    """Someone who crosses the street well before the camera arrives; waits on the kerb until then."""
    looks = thing.looks
    arrival = (thing.s - 40.0) / world.speed
    half = world.profile.kerb + 0.8
    speed = 1.3 if thing.kind == "crosser" else 4.0
    start = arrival - 1.6 - 2 * half / speed - 4.0 * looks[0]
    walked = speed * (time - start)
    direction = 1 if looks[1] < 0.5 else -1
    done = min(max(walked, 0.0), 2 * half)
    lat = direction * (done - half)
    if thing.kind == "crossrider":
        if walked <= 0 or walked >= 2 * half:
            return None
        return Thing("cyclist", lat, thing.s, 0.0, looks, direction * math.pi / 2)
    return Thing("person", lat, thing.s, float(0 < walked < 2 * half), looks, direction * math.pi / 2)
