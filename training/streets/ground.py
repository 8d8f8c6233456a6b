"""Sky, skyline, road, pavements and everything flat on them, with grain and shadows."""

import cv2
import numpy as np
import numpy.typing as npt

from training.streets.camera import FAR, NEAR, Floats, fixed_from_pixels
from training.streets.classes import BUILDING, ROAD, SIDEWALK, SKY, TERRAIN, VEGETATION
from training.streets.light import Colour
from training.streets.painter import Painter
from training.streets.textures import GROUND_PX_PER_M, GROUND_TILE, cloud_tile, ground_tile
from training.streets.world import Profile, Thing, World

__all__ = ["paint_ground", "paint_mark", "paint_sky", "texture_ground"]

_DEPTHS = np.geomspace(NEAR, FAR * 1.5, 18)
_ASPHALT: Colour = (92, 90, 90)
_WALK: Colour = (158, 160, 164)
_KERB: Colour = (188, 190, 192)
_GRASS: Colour = (62, 138, 108)
_WHITE: Colour = (222, 224, 226)


def paint_sky(p: Painter, world: World, time: float) -> None:
    """Gradient and drifting clouds down to the horizon, then hills and a far skyline standing on it."""
    light, camera = p.light, p.camera
    horizon = int(np.clip(np.ceil(camera.horizon) + 1, 0, camera.height))
    if horizon > 0:  # painted at half size: nothing up there is sharp
        rows, columns = -(-horizon // 2), -(-camera.width // 2)
        t = (np.linspace(0, 1, rows, dtype=np.float32) ** 1.3)[:, None, None]
        sky = np.array(light.sky_top, np.float32) * (1 - t) + np.array(light.sky_low, np.float32) * t
        high = (camera.horizon - 2 * np.arange(rows, dtype=np.float32) + 0.03 * camera.height) / camera.focal
        v = (30.0 / (high + 0.12)).astype(np.float32)[:, None]
        u = (2 * np.arange(columns, dtype=np.float32) - camera.width / 2) / camera.focal
        grid_u = ((u[None, :] * v * 2.2 + (256 * world.skyline[0] + 3.0 * time)) % 512).astype(np.float32)
        grid_v = np.repeat(v % 256, columns, axis=1)
        cover = cv2.remap(cloud_tile(), grid_u, grid_v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        thick = cover.astype(np.float32) - (200 - 150 * light.cloud)
        alpha = np.clip(thick * (1 / 90), 0, 1) * 0.85
        white = 250.0 if light.night < 0.3 else 150.0 - 90 * light.night
        body = white - 0.32 * np.clip(thick - 60, 0, 120)
        sky = sky + alpha[..., None] * (body[..., None] - sky)
        small = np.clip(sky, 0, 255).astype(np.uint8)
        large = cv2.resize(small, (2 * columns, 2 * rows), interpolation=cv2.INTER_LINEAR)
        p.canvas[:horizon, :, :3] = large[:horizon, : camera.width]
    p.canvas[:horizon, :, 3] = SKY
    _paint_skyline(p, world)


def _paint_skyline(p: Painter, world: World) -> None:
    """Hills of wood, then houses and towers in the haze, all far away."""
    camera, light = p.camera, p.light
    looks = world.skyline
    f = camera.focal
    u = np.linspace(-0.02, 1.02, 60) * camera.width
    angle = (u - camera.width / 2) / f + looks[1] * 20 + camera.yaw
    hill = 0.035 + 0.03 * looks[2] + 0.02 * np.sin(angle * 3) + 0.012 * np.sin(angle * 7.3 + 2)
    hill += 0.003 * np.sin(angle * 61)
    foot = camera.horizon + 2.0
    outline = np.concatenate([np.stack([u, camera.horizon - f * hill], 1), [[u[-1], foot], [u[0], foot]]])
    shade = light.facing(0, 0.5, -0.8)
    p.fill(fixed_from_pixels(outline), light.paint((70, 120, 85), light.visibility * 0.9, shade), VEGETATION)
    for k in range(14):
        a = looks[k % 10] * (k + 3) * 1.7 % 1.0
        x = (a * 1.8 - 0.9) + 0.1 * (looks[(k + 3) % 10] - 0.5)
        high = 0.03 + 0.11 * looks[(k * 3 + 1) % 10] * looks[(k + 5) % 10]
        half = 0.012 + 0.02 * looks[(k * 7 + 2) % 10]
        middle = camera.width / 2 + f * (x - camera.yaw)
        tone = 130 + 60 * looks[(k * 3 + 4) % 10]
        colour = light.paint((tone, tone, tone + 8), light.visibility * 0.7, shade)
        p.box(middle - f * half, camera.horizon - f * high, middle + f * half, foot, colour, BUILDING)


def _band(lat0: float, lat1: float, s: float) -> Floats:
    """A strip along the whole street, `[36,3]`."""
    left = np.stack([np.full(18, lat0), np.zeros(18), s + _DEPTHS], axis=1)
    right = np.stack([np.full(18, lat1), np.zeros(18), s + _DEPTHS[::-1]], axis=1)
    return np.concatenate([left, right])


def paint_ground(p: Painter, profile: Profile, s: float) -> None:
    """Flat colours of the street's bands; grain comes with `texture_ground`."""
    camera = p.camera
    top = int(np.clip(np.ceil(camera.horizon) + 1, 0, camera.height))
    p.canvas[top:] = (*_GRASS, TERRAIN)
    front, kerb = profile.front + 0.6, profile.kerb
    p.quad(_band(-front, front, s), _WALK, SIDEWALK)
    if profile.verge:
        for side in (-1, 1):
            p.quad(_band(side * (kerb + 0.3), side * (kerb + 0.3 + profile.verge), s), _GRASS, TERRAIN)
    p.quad(_band(-kerb - 0.22, kerb + 0.22, s), _KERB, SIDEWALK)
    p.quad(_band(-kerb, kerb, s), (80, 79, 80), ROAD)
    p.quad(_band(-kerb + 0.3, kerb - 0.3, s), _ASPHALT, ROAD)
    if profile.bike:
        for side in (-1, 1):
            a, b = side * (profile.driving + 0.1), side * (profile.driving + profile.bike)
            p.quad(_band(a, b, s), (78, 84, 140), ROAD)
    _paint_lines(p, profile, s)
    if profile.median:
        _paint_tracks(p, profile, s)


def _paint_lines(p: Painter, profile: Profile, s: float) -> None:
    """Lane markings: solid along the edges, dashed between lanes."""
    for side in (-1, 1):
        edge = side * profile.driving
        if profile.bike or profile.parking:
            p.quad(_band(edge - 0.07, edge + 0.07, s), _WHITE, ROAD)
        for lane in range(1, profile.lanes):
            _dashes(p, side * (profile.median + lane * profile.lane), s, 0.07, 3.0, 6.0)
    if not profile.median:
        if profile.lanes == 2:
            for at in (-0.18, 0.18):
                p.quad(_band(at - 0.06, at + 0.06, s), _WHITE, ROAD)
        else:
            _dashes(p, 0.0, s, 0.07, 3.0, 9.0)


def _dashes(p: Painter, lat: float, s: float, half: float, dash: float, every: float) -> None:
    starts = np.arange(np.floor(s / every), np.floor(s / every) + 70 // every + 1) * every
    starts = starts[starts + dash > s + NEAR]
    boxes = np.zeros((len(starts), 4, 3))
    boxes[:, :, 0] = lat + np.array([-half, half, half, -half])
    boxes[:, :, 2] = starts[:, None] + np.array([0, 0, dash, dash])
    p.fill_all(p.camera.fixed(boxes), _WHITE, ROAD)


def _paint_tracks(p: Painter, profile: Profile, s: float) -> None:
    """Two tram tracks in the middle, on grass or in paving."""
    m = profile.median
    if profile.grass_tracks:
        p.quad(_band(-m, m, s), _KERB, SIDEWALK)
        p.quad(_band(-m + 0.25, m - 0.25, s), _GRASS, TERRAIN)
    else:
        p.quad(_band(-m, m, s), (112, 114, 118), ROAD)
    label = TERRAIN if profile.grass_tracks else ROAD
    for track in (-1.55, 1.55):
        for rail in (-0.72, 0.72):
            p.quad(_band(track + rail - 0.06, track + rail + 0.06, s), (52, 54, 60), label)


def paint_mark(p: Painter, thing: Thing, profile: Profile) -> None:
    """A patch, cover, arrow, zebra or side street, flat on the ground."""
    lat, s, looks = thing.lat, thing.s, thing.looks
    if thing.kind == "zebra":
        n = int(2 * profile.kerb / 1.0)
        bars = np.zeros((n, 4, 3))
        first = -profile.kerb + 0.3 + np.arange(n)[:, None]
        bars[:, :, 0] = first + np.array([0, 0.5, 0.5, 0])
        bars[:, :, 2] = s + np.array([0, 0, thing.size, thing.size])
        if s - p.camera.s > 0:
            p.quad(_rect(-profile.kerb, profile.kerb, s, s + thing.size), _ASPHALT, ROAD)
            p.fill_all(p.camera.fixed(bars), _WHITE, ROAD)
    elif thing.kind == "gap":
        side = 1 if lat > 0 else -1
        far = lat + side * 60
        p.quad(_rect(lat - side * 0.1, far, s, s + thing.size), _WALK, SIDEWALK)
        p.quad(_rect(lat - side * 0.1, far, s + 1.1, s + thing.size - 1.1), _ASPHALT, ROAD)
    elif thing.kind == "patch":
        tone = 70 + 45 * looks[0]
        area = _rect(lat, lat + 0.6 + 1.5 * looks[1], s, s + 0.8 + 4 * looks[2])
        p.quad(area, (tone, tone, tone), ROAD)
    elif thing.kind == "cover":
        ring = np.arange(12) * (2 * np.pi / 12)
        points = np.stack([lat + 0.35 * np.cos(ring), 0 * ring, s + 0.35 * np.sin(ring)], axis=1)
        p.quad(points, (62, 62, 66), ROAD)
    elif thing.kind == "arrow":
        p.quad(_rect(lat - 0.08, lat + 0.08, s, s + 2.4), _WHITE, ROAD)
        head = np.array([(lat - 0.35, 0, s + 2.3), (lat + 0.35, 0, s + 2.3), (lat, 0, s + 4.0)])
        p.quad(head, _WHITE, ROAD)


def _rect(lat0: float, lat1: float, s0: float, s1: float) -> Floats:
    return np.array([(lat0, 0, s0), (lat1, 0, s0), (lat1, 0, s1), (lat0, 0, s1)], float)


def texture_ground(p: Painter, shadow: npt.NDArray[np.uint8]) -> None:
    """Light the ground row by row: grain by surface, `shadow` (uint8 `[H,W]`, 0 lit..255 dark), haze."""
    camera, light = p.camera, p.light
    top = int(np.clip(np.ceil(camera.horizon) + 1, 0, camera.height))
    rows = camera.height - top
    if rows <= 0:
        return
    z = (camera.focal * camera.up / (np.arange(top, camera.height) - camera.horizon)).astype(np.float32)
    u = (np.arange(camera.width, dtype=np.float32) - np.float32(camera.width / 2)) / np.float32(camera.focal)
    bend = z * (np.float32(camera.yaw) - np.float32(0.5 * camera.curve) * z)
    lat = u[None, :] * z[:, None] + (bend + np.float32(camera.lat))[:, None]
    across = lat * np.float32(GROUND_PX_PER_M / GROUND_TILE)
    across = (across - np.floor(across)) * np.float32(GROUND_TILE)  # ten times faster than %
    along = ((camera.s + z.astype(np.float64)) * GROUND_PX_PER_M % GROUND_TILE).astype(np.float32)
    tile = cv2.remap(
        ground_tile(), across, np.repeat(along[:, None], camera.width, axis=1),
        cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP,
    )  # fmt: skip
    canvas = p.canvas[top:]
    labels = cv2.extractChannel(canvas, 3)
    grain = cv2.extractChannel(tile, 0)
    cv2.copyTo(cv2.extractChannel(tile, 1), (labels == SIDEWALK).view(np.uint8), grain)
    cv2.copyTo(cv2.extractChannel(tile, 2), (labels == TERRAIN).view(np.uint8), grain)
    fade = (1 / (1 + (z / (0.05 * camera.focal)) ** 2) / 128).astype(np.float32)
    gain = 1 + (grain.astype(np.float32) - 128) * fade[:, None]
    lit = light.facing(0, 1, 0)
    dark = max(0.42, 1 - light.ambient * 0.8 / max(lit, 1e-3))
    clear = np.exp(-z / np.float32(light.visibility))
    gain *= (1 - np.float32(dark / 255) * shadow[top:]) * (lit * clear)[:, None]
    far = np.isin(labels[:4], (VEGETATION, BUILDING))  # the skyline's foot just below the horizon keeps its colour
    kept = canvas[:4][far]
    for channel in range(3):
        flat = cv2.extractChannel(canvas, channel).astype(np.float32)
        flat *= gain
        flat *= np.float32(light.cast[channel])
        flat += ((1 - clear) * np.float32(light.haze[channel]))[:, None]
        cv2.insertChannel(np.clip(flat, 0, 255).astype(np.uint8), canvas, channel)
    canvas[:4][far] = kept
