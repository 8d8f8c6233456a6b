"""Weather and time of day: what colour a painted surface has at a distance."""

import math
from dataclasses import dataclass

from training.streets.dice import Dice

__all__ = ["Colour", "Light", "light_from_dice", "tone"]

Colour = tuple[float, float, float]  # blue, green, red in 0..255

# name: weight, ambient, sun, cast (b,g,r), haze colour, visibility m, sky top, sky low, cloud cover, night
_WEATHERS: tuple[tuple[float, float, float, Colour, Colour, float, Colour, Colour, float, float], ...] = (
    (3, 0.66, 0.50, (0.97, 1.0, 1.03), (222, 208, 192), 420, (205, 138, 72), (238, 214, 184), 0.45, 0),
    (2, 0.58, 0.62, (0.86, 0.98, 1.10), (205, 206, 212), 330, (196, 142, 92), (206, 214, 232), 0.35, 0),
    (3, 0.86, 0.10, (1.03, 1.0, 0.97), (208, 205, 200), 260, (190, 184, 176), (222, 219, 214), 0.9, 0),
    (1, 0.80, 0.04, (1.04, 1.0, 0.97), (206, 204, 200), 75, (196, 194, 190), (210, 208, 204), 0.2, 0),
    (1, 0.50, 0.30, (0.90, 0.92, 1.12), (150, 160, 210), 260, (150, 96, 70), (130, 170, 238), 0.6, 0.35),
    (0.7, 0.34, 0.03, (1.18, 0.98, 0.86), (74, 58, 48), 230, (48, 30, 20), (92, 70, 58), 0.3, 1.0),
)


@dataclass(frozen=True, slots=True)
class Light:
    """One moment's light. `sun_*` point from the ground to the sun."""

    ambient: float
    sun: float
    sun_lat: float
    sun_up: float
    sun_s: float
    cast: Colour
    haze: Colour
    visibility: float
    sky_top: Colour
    sky_low: Colour
    cloud: float
    night: float

    def paint(self, base: Colour, z: float, shade: float = 1.0) -> Colour:
        """`base` under this light, `shade` of it reaching the surface, through `z` metres of haze."""
        clear = math.exp(-z / self.visibility)
        b, g, r = self.haze
        fog, lit = 1.0 - clear, clear * shade
        return (
            base[0] * self.cast[0] * lit + b * fog,
            base[1] * self.cast[1] * lit + g * fog,
            base[2] * self.cast[2] * lit + r * fog,
        )

    def glow(self, base: Colour, z: float) -> Colour:
        """A lamp: haze dims it, darkness does not."""
        clear = math.exp(-0.6 * z / self.visibility)
        b, g, r = self.haze
        fog = 1.0 - clear
        return (base[0] * clear + b * fog, base[1] * clear + g * fog, base[2] * clear + r * fog)

    def facing(self, lat: float, up: float, s: float) -> float:
        """Share of light on a surface with that unit normal."""
        lambert = lat * self.sun_lat + up * self.sun_up + s * self.sun_s
        return self.ambient * (0.88 + 0.12 * up) + self.sun * max(0.0, lambert)


def light_from_dice(dice: Dice) -> Light:
    """Draw the weather."""
    total = sum(w[0] for w in _WEATHERS)
    left = dice.unit() * total
    weather = _WEATHERS[-1]
    for weather in _WEATHERS:
        left -= weather[0]
        if left < 0:
            break
    _, ambient, sun, cast, haze, visibility, top, low, cloud, night = weather
    azimuth = dice.between(-math.pi, math.pi)
    height = dice.between(0.35, 0.95)
    flat = math.sqrt(1 - height * height)
    warm = dice.between(-0.05, 0.05)
    tint = (cast[0] - warm, cast[1] * dice.between(0.97, 1.03), cast[2] + warm)
    deep = dice.between(0.82, 1.12)
    return Light(
        ambient=ambient * dice.between(0.92, 1.06),
        sun=sun * dice.between(0.75, 1.15),
        sun_lat=flat * math.sin(azimuth),
        sun_up=height,
        sun_s=flat * math.cos(azimuth),
        cast=tint,
        haze=haze,
        visibility=visibility * dice.between(0.75, 1.5),
        sky_top=(top[0] * deep, top[1] * deep, top[2] * deep),
        sky_low=low,
        cloud=min(1.0, cloud * dice.between(0.5, 1.5)),
        night=night,
    )


def tone(colour: Colour, gain: float) -> Colour:
    """A lighter or darker colour."""
    return (colour[0] * gain, colour[1] * gain, colour[2] * gain)
