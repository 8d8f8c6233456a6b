"""One frame of a world: collect what is in view, order it far to near, paint it."""

import math
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from training.streets.camera import NEAR, Camera, Floats, fixed_from_pixels
from training.streets.classes import VOID
from training.streets.dice import Dice
from training.streets.frontage import paint_plot, paint_railing
from training.streets.furniture import paint_bollard, paint_lamp, paint_sign, paint_signal, paint_wires
from training.streets.greenery import paint_tree
from training.streets.ground import paint_ground, paint_mark, paint_sky, texture_ground
from training.streets.optics import develop
from training.streets.painter import Bytes, Painter
from training.streets.people import paint_bicycle, paint_motorcycle, paint_person
from training.streets.vehicles import footprint, paint_vehicle
from training.streets.world import CHUNK, Thing, World

__all__ = ["render"]

_MARKS = {"patch": 0, "cover": 1, "arrow": 2, "gap": 3, "zebra": 4}
_PLOTS = ("building", "house", "wall", "fence", "park")
_SHADOWS = {"lamp": (6.0, 0.12), "signal": (3.4, 0.13), "sign": (2.6, 0.1), "catenary": (7.0, 0.17)}

_Job = tuple[float, Callable[[], None]]


def camera_at(world: World, time: float, size: tuple[int, int]) -> Camera:
    """The camera of a world at a time in seconds; it sways and the street bends as it goes."""
    height, width = size
    focal = world.focal * max(width, 1.2 * height)
    s = world.ego_s(time)
    bend = 0.0035 * math.sin(s / 140 + 6 * world.bend) * abs(world.bend)
    bounce = 0.0025 * math.sin(2.1 * time) + 0.0012 * math.sin(7.3 * time + 1)
    return Camera(
        height=height,
        width=width,
        focal=focal,
        horizon=0.46 * height + focal * (world.pitch + bounce),
        lat=world.ego_lat + 0.15 * math.sin(0.5 * time),
        up=world.camera_up,
        s=s,
        curve=bend,
        yaw=0.012 * math.sin(0.4 * time + 2),
    )


def render(world: World, time: float, size: tuple[int, int], dice: Dice, motion: float = 0.0) -> tuple[Bytes, Bytes]:
    """Image uint8 BGR `[H,W,3]` and labels uint8 `[H,W]` of `world` at `time`; `dice` drives the sensor."""
    camera = camera_at(world, time, size)
    light = replace(world.light, sun=world.light.sun * (0.68 + 0.32 * math.sin(0.21 * time + 5 * world.bend)))
    p = Painter(camera, light, np.zeros((*size, 4), np.uint8))
    first = math.floor((camera.s - 20) / CHUNK)
    things = [t for k in range(first, first + 5) for t in world.chunk(k)]
    moving = _moving(world, time, camera, things)
    paint_sky(p, world, time)
    paint_ground(p, world.profile, camera.s)
    for thing in sorted((t for t in things if t.kind in _MARKS), key=lambda t: _MARKS[t.kind]):
        if thing.s + max(thing.size, 5.0) > camera.s + NEAR:
            paint_mark(p, thing, world.profile)
    texture_ground(p, _shadows(p, things, moving))
    jobs = [job for thing in things if (job := _job(p, thing, time)) is not None]
    jobs += [(_order(camera, t.lat, t.s, _reach(t)), _mover(p, t, time)) for t in moving]
    if world.profile.median:
        jobs.append((28.0, lambda: paint_wires(p, camera.s)))
    for _, paint in sorted(jobs, key=lambda job: -job[0]):
        paint()
    if world.bonnet:
        _paint_bonnet(p, world)
    image = np.asarray(cv2.cvtColor(p.canvas, cv2.COLOR_BGRA2BGR), np.uint8)
    labels = np.asarray(cv2.extractChannel(p.canvas, 3), np.uint8)
    developed = develop(image, camera, dice, _exposure(world, time), light.night, motion)
    return developed, labels


def _exposure(world: World, time: float) -> float:
    """Gain of the camera: slow drift, and every 47 s a dip as under a bridge."""
    dip = math.exp(-(((time + 40 * world.bend) % 47.0 - 25.0) ** 2) / 5.0)
    return 1.05 + 0.10 * math.sin(0.11 * time + 9 * world.bend) + 0.06 * math.sin(0.53 * time) - 0.4 * dip


def _order(camera: Camera, lat: float, s: float, reach: float) -> float:
    """Painting order, far first: depth of the far end, and sideways things before nearer lanes."""
    return s + reach - camera.s + 0.7 * abs(lat - camera.lat)


def _reach(thing: Thing) -> float:
    if thing.kind in ("car", "truck", "bus", "tram"):
        return 0.5 * footprint(thing.kind)[0] * abs(math.cos(thing.yaw)) + 0.9
    return 0.3


def _job(p: Painter, thing: Thing, time: float) -> _Job | None:
    """How and when to paint something at rest."""
    camera, kind = p.camera, thing.kind
    if kind in _MARKS:
        return None
    if kind in _PLOTS:
        return _order(camera, thing.lat, thing.s, thing.size), lambda: paint_plot(p, thing)
    if kind == "railing":
        return _order(camera, thing.lat, thing.s, 0.5 * thing.size), lambda: paint_railing(p, thing)
    if kind in ("crosser", "crossrider"):
        return None
    if thing.s < camera.s + 1.4 or thing.s > camera.s + 110 or not camera.sees(thing.lat, thing.s, 7.0):
        return None
    order = _order(camera, thing.lat, thing.s, _reach(thing))
    if kind in ("lamp", "catenary"):
        return order, lambda: paint_lamp(p, thing)
    if kind == "signal":
        return order, lambda: paint_signal(p, thing, time)
    if kind == "sign":
        return order, lambda: paint_sign(p, thing)
    if kind == "bollard":
        return order, lambda: paint_bollard(p, thing)
    if kind == "tree":
        return order, lambda: paint_tree(p, thing.lat, thing.s, thing.size, thing.looks)
    return order, _mover(p, thing, time)


def _mover(p: Painter, thing: Thing, time: float) -> Callable[[], None]:
    """How to paint a vehicle or a person, moving or not."""
    lat, s, yaw, looks, kind = thing.lat, thing.s, thing.yaw, thing.looks, thing.kind
    if kind in ("car", "truck", "bus"):
        return lambda: paint_vehicle(p, kind, lat, s, yaw, looks)
    if kind == "tram":
        return lambda: paint_vehicle(p, kind, lat, s, yaw, looks, int(thing.size))
    if kind in ("motorcycle", "moto-rider"):
        return lambda: paint_motorcycle(p, lat, s, yaw, looks, kind == "moto-rider")
    if kind in ("stand", "cyclist"):
        return lambda: paint_bicycle(p, lat, s, yaw, looks, 5.0 * time + 9 * looks[0], kind == "cyclist")
    phase = 0.0 if thing.size == 0 else 7.5 * time + 30 * looks[0]
    return lambda: paint_person(p, lat, s, yaw, looks, phase)


def _moving(world: World, time: float, camera: Camera, things: list[Thing]) -> list[Thing]:
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
    kept = []
    for thing in found:
        back = {"tram": 4.7, "bus": 5.8, "truck": 4.1, "car": 2.4}.get(thing.kind, 0.6)
        beside = back > 1 and abs(thing.lat - camera.lat) > 2.0  # its flank may start behind the camera
        ahead = thing.s - camera.s + (back if beside else -0.8 * back)
        if ahead > 0.8 and camera.sees(thing.lat, max(thing.s, camera.s + ahead), back + 1.5):
            kept.append(thing)
    return kept


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


def _shadows(p: Painter, things: list[Thing], moving: list[Thing]) -> Bytes:
    """Where the ground is dark: under vehicles and people, and cast away from the sun. uint8 `[H,W]`."""
    camera, light = p.camera, p.light
    mask = np.zeros(p.canvas.shape[:2], np.uint8)
    slope = 1 / max(light.sun_up, 0.3)
    cast_lat, cast_s = -light.sun_lat * slope, -light.sun_s * slope
    casts: list[Floats] = []
    strong = light.sun > 0.2
    for t in things:
        if t.kind == "building" and strong and t.s + t.size > camera.s + NEAR:
            high = 8.0 + 13 * t.looks[0] * t.looks[0]
            reach = cast_lat * high * (1 if t.lat < 0 else -1)
            if reach > 1:
                far = t.lat + cast_lat * high
                drift = cast_s * high
                casts.append(
                    np.array(
                        [
                            (t.lat, 0, t.s),
                            (t.lat, 0, t.s + t.size),
                            (far, 0, t.s + t.size + drift),
                            (far, 0, t.s + drift),
                        ]
                    )
                )
        elif t.kind in _SHADOWS and strong and camera.s + 2 < t.s < camera.s + 45:
            high, wide = _SHADOWS[t.kind]
            casts.append(_strip(t.lat, t.s, cast_lat * high, cast_s * high, wide))
        elif t.kind == "tree" and camera.s + 2 < t.s < camera.s + 60:
            ring = np.arange(12) * (2 * np.pi / 12)
            r = 0.32 * t.size * (1 + 0.15 * np.sin(5 * ring + 9 * t.looks[0]))
            lat, s = t.lat + cast_lat * 0.6 * t.size * strong, t.s + cast_s * 0.6 * t.size * strong
            casts.append(np.stack([lat + r * np.cos(ring), 0 * ring, s + r * np.sin(ring)], axis=1))
    for quad in casts:
        if quad[:, 2].max() > camera.s + NEAR:
            cv2.fillPoly(mask, [camera.fixed(quad)], (150,), cv2.LINE_8, 4)
    for t in [*moving, *things]:
        if not camera.s + 1 < t.s < camera.s + 70:
            continue
        if t.kind in ("car", "truck", "bus", "tram"):
            long, wide = footprint(t.kind)
            along, across = (0.5 * long, 0.56 * wide) if abs(math.cos(t.yaw)) > 0.5 else (0.56 * wide, 0.5 * long)
            x0, x1 = t.lat - across + min(0, 0.8 * cast_lat * strong), t.lat + across + max(0, 0.8 * cast_lat * strong)
            z0, z1 = t.s - along - 0.25 + min(0, 0.7 * cast_s * strong), t.s + along + max(0, 0.7 * cast_s * strong)
            quad = np.array([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)])
            cv2.fillPoly(mask, [camera.fixed(quad)], (225,), cv2.LINE_8, 4)
        elif t.kind in ("person", "cyclist", "moto-rider", "motorcycle", "stand"):
            reach = 1.5 if strong else 0.3
            quad = _strip(t.lat, t.s, cast_lat * reach, cast_s * reach, 0.4)
            cv2.fillPoly(mask, [camera.fixed(quad)], (170,), cv2.LINE_8, 4)
    return np.asarray(cv2.blur(mask, (3, 3)), np.uint8)


def _strip(lat: float, s: float, d_lat: float, d_s: float, wide: float) -> Floats:
    """A strip on the ground from a foot point in a direction."""
    length = math.hypot(d_lat, d_s) or 1.0
    n_lat, n_s = -d_s / length * wide / 2, d_lat / length * wide / 2
    return np.array(
        [(lat + n_lat, 0, s + n_s), (lat + d_lat + n_lat, 0, s + d_s + n_s),
         (lat + d_lat - n_lat, 0, s + d_s - n_s), (lat - n_lat, 0, s - n_s)]
    )  # fmt: skip


def _paint_bonnet(p: Painter, world: World) -> None:
    """Our own bonnet along the bottom edge, which has no class."""
    height, width = p.canvas.shape[:2]
    u = np.linspace(-0.02, 1.02, 24)
    rise = 0.035 + 0.05 * world.skyline[4]
    base = 30 + 110 * world.skyline[5]
    for inset, gain in ((0.0, 1.0), (0.012, 0.8)):
        v = 1 + inset - rise * (1 - (2 * u - 1) ** 4 * 0.7)
        edge = np.stack([u * width, v * height], axis=1)
        outline = np.concatenate([edge, [(1.02 * width, 1.1 * height), (-0.02 * width, 1.1 * height)]])
        tone = base * gain * (1 - 0.6 * world.light.night)
        p.fill(fixed_from_pixels(outline), (tone, tone, tone), VOID)
