"""One frame of a world: collect what is in view, order it far to near, paint it."""

import math
from dataclasses import replace

import cv2
import numpy as np

from training.streets.camera import NEAR, Camera, fixed_from_pixels
from training.streets.classes import VOID
from training.streets.dice import Dice
from training.streets.frontage import paint_plot, paint_railing
from training.streets.furniture import paint_bollard, paint_lamp, paint_sign, paint_signal, paint_wires
from training.streets.greenery import paint_tree
from training.streets.ground import paint_ground, paint_mark, paint_sky, texture_ground
from training.streets.motion import moving_things, visible
from training.streets.optics import develop
from training.streets.order import painting_order
from training.streets.painter import Bytes, Painter
from training.streets.people import paint_bicycle, paint_motorcycle, paint_person
from training.streets.shadows import shadow_mask
from training.streets.vehicles import paint_vehicle
from training.streets.world import CHUNK, PLOTS, VEHICLES, Thing, World

__all__ = ["render"]

_MOVED = ("crosser", "crossrider")  # `moving_things` says where they are
_SMALL = {"motorcycle", "moto-rider", "stand", "cyclist", "person", "lamp", "catenary", "signal", "sign", "bollard"}
_LEAST_SCALE = 6.0  # pixels a metre, below which small things are left out, as people who annotate leave them out
_MARKS = {"patch": 0, "cover": 1, "arrow": 2, "gap": 3, "zebra": 4}


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
    moving = moving_things(world, time, camera, things)
    paint_sky(p, world, time)
    paint_ground(p, world.profile, camera.s)
    for thing in sorted((t for t in things if t.kind in _MARKS), key=lambda t: _MARKS[t.kind]):
        if thing.s + max(thing.size, 5.0) > camera.s + NEAR:
            paint_mark(p, thing, world.profile)
    texture_ground(p, shadow_mask(p, things, moving))
    seen = [t for t in things if t.kind not in _MARKS and t.kind not in _MOVED and visible(camera, t)]
    if world.profile.median:
        seen.append(Thing("wires", camera.lat, camera.s + 28, 0.0, ()))
    for thing in painting_order(camera, seen + moving):
        if thing.kind not in _SMALL or camera.focal >= _LEAST_SCALE * (thing.s - camera.s):
            _paint(p, thing, time)
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


def _paint(p: Painter, thing: Thing, time: float) -> None:
    """Paint anything that stands up from the ground."""
    lat, s, yaw, looks, kind = thing.lat, thing.s, thing.yaw, thing.looks, thing.kind
    if kind in PLOTS:
        paint_plot(p, thing)
    elif kind in VEHICLES:
        paint_vehicle(p, kind, lat, s, yaw, looks, int(thing.size) if kind == "tram" else 3)
    elif kind in ("motorcycle", "moto-rider"):
        paint_motorcycle(p, lat, s, yaw, looks, kind == "moto-rider")
    elif kind in ("stand", "cyclist"):
        paint_bicycle(p, lat, s, yaw, looks, 5.0 * time + 9 * looks[0], kind == "cyclist")
    elif kind == "person":
        paint_person(p, lat, s, yaw, looks, 7.5 * time + 30 * looks[0] if thing.size else 0.0)
    elif kind in ("lamp", "catenary"):
        paint_lamp(p, thing)
    elif kind == "signal":
        paint_signal(p, thing, time)
    elif kind == "sign":
        paint_sign(p, thing)
    elif kind == "bollard":
        paint_bollard(p, thing)
    elif kind == "tree":
        paint_tree(p, lat, s, thing.size, looks)
    elif kind == "railing":
        paint_railing(p, thing)
    elif kind == "wires":
        paint_wires(p, p.camera.s)


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
