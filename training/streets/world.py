"""An endless street, made of chunks that depend on nothing but the world's key and their number."""

import math
from dataclasses import dataclass

from training.streets.dice import Dice, looks_table
from training.streets.light import Light, light_from_dice

__all__ = ["CHUNK", "PLOTS", "VEHICLES", "Profile", "Stream", "Thing", "World"]

CHUNK = 36.0  # metres of street in one chunk
PLOTS = ("building", "house", "wall", "fence", "park")
VEHICLES = ("car", "truck", "bus", "tram")


@dataclass(frozen=True, slots=True)
class Thing:
    """Something at rest. `size` is its length along the street (plots) or free for its painter."""

    kind: str
    lat: float
    s: float
    size: float
    looks: tuple[float, ...]
    yaw: float = 0.0


@dataclass(frozen=True, slots=True)
class Profile:
    """The street's cross-section, metres from the centre line outwards, the same on both sides."""

    median: float  # half width of the tram tracks, or 0
    grass_tracks: bool
    lanes: int
    lane: float
    bike: float  # width of the cycle lane, or 0
    parking: float  # width of the parking lane, or 0
    verge: float  # grass between kerb and pavement, or 0
    walk: float
    tree_every: float  # metres, or 0

    @property
    def driving(self) -> float:
        return self.median + self.lanes * self.lane

    @property
    def kerb(self) -> float:
        return self.driving + self.bike + self.parking

    @property
    def front(self) -> float:
        """Where the plots begin."""
        return self.kerb + self.verge + self.walk


@dataclass(frozen=True, slots=True)
class Stream:
    """Things that move along the street in step, `spacing` metres apart."""

    kind: str
    lat: float
    speed: float  # m/s along the street
    spacing: float
    offset: float
    share: float  # how many of the places are taken
    looks: list[tuple[float, ...]]

    def members(self, time: float, s0: float, s1: float) -> list[tuple[float, tuple[float, ...]]]:
        """(s, looks) of those between `s0` and `s1`."""
        shift = self.offset + self.speed * time
        found = []
        for n in range(math.floor((s0 - shift) / self.spacing), math.ceil((s1 - shift) / self.spacing)):
            looks = self.looks[n % len(self.looks)]
            if looks[9] < self.share:
                found.append((shift + (n + 0.35 * looks[0]) * self.spacing, looks))
        return found


class World:
    """One street: profile, weather, streams of traffic; `chunk(k)` gives what stands along it."""

    def __init__(self, *key: int) -> None:
        self._key = key
        self._chunks: dict[int, list[Thing]] = {}
        dice = Dice(*key, 1)
        self.profile = _profile(dice)
        self.light: Light = light_from_dice(dice)
        self.skyline = dice.looks()
        self.bonnet = dice.chance(0.25)
        self.right_hand_lane = dice.chance(0.6)
        self.speed = dice.between(7.0, 12.0)
        self.bend = dice.between(-1.0, 1.0)
        self.camera_up = dice.between(1.2, 1.75)
        self.focal = dice.between(0.68, 0.92)
        self.pitch = dice.between(-0.04, 0.05)
        weights = [0.42, 0.20, 0.16, 0.22]  # car, truck, bus, motorcycle
        tilt = [w * dice.between(0.4, 1.8) for w in weights]
        self.traffic = [w / sum(tilt) for w in tilt]
        self.parked_share = dice.between(0.15, 0.9)
        self.sign_share = dice.between(0.4, 1.0)
        self.pole_every = dice.between(17.0, 30.0)
        self.people = dice.between(0.35, 1.0)
        self.districts = dice.looks()
        self.lead_gap = dice.between(9.0, 16.0)
        self.streams = self._streams(dice)

    @property
    def ego_lat(self) -> float:
        """The middle of the lane that the camera drives in."""
        lane = self.profile.lanes - 1 if self.right_hand_lane else 0
        return self.profile.median + (lane + 0.5) * self.profile.lane

    def ego_s(self, time: float) -> float:
        """Metres driven."""
        return 40.0 + self.speed * time + 1.5 * math.sin(0.35 * time)

    def kind_of(self, u: float) -> str:
        """A vehicle from a uniform number."""
        for kind, weight in zip(("car", "truck", "bus", "motorcycle"), self.traffic, strict=True):
            u -= weight
            if u < 0:
                return kind
        return "car"

    def chunk(self, k: int) -> list[Thing]:
        """The things at rest between `k * CHUNK` and the next chunk (made once)."""
        if k not in self._chunks:
            from training.streets.planner import plan_chunk  # the planner needs World's types

            if len(self._chunks) > 64:
                self._chunks.clear()
            self._chunks[k] = plan_chunk(self, Dice(*self._key, 2, k + 1_000_000), k)
        return self._chunks[k]

    def _streams(self, dice: Dice) -> list[Stream]:
        p = self.profile
        streams: list[Stream] = []
        tables = looks_table(32 * 14, *self._key, 3)  # there are at most 13 streams

        def add(kind: str, lat: float, speed: float, spacing: float, share: float) -> None:
            table = tables[32 * len(streams) : 32 * len(streams) + 32]
            offset = dice.unit() * spacing
            streams.append(Stream(kind, lat, speed, spacing, offset, share, table))

        own = p.lanes - 1 if self.right_hand_lane else 0
        for lane in range(p.lanes):
            at = p.median + (lane + 0.5) * p.lane
            add("vehicle", -at, -dice.between(6, 12), dice.between(15, 24), dice.between(0.5, 0.95))
            if lane != own:
                speed = self.speed + dice.between(-2.5, 2.0)
                add("vehicle", at, speed, dice.between(15, 26), dice.between(0.5, 0.95))
        if p.median:
            share = dice.between(0.6, 1.0)
            add("tram", -1.55, -dice.between(6, 10), dice.between(46, 70), share)
            add("tram", 1.55, self.speed * dice.between(0.8, 1.15), dice.between(46, 75), share)
        edge = p.driving + (p.bike / 2 if p.bike else 0.45)
        for side in (-1.0, 1.0):
            share = dice.between(0.35, 0.95)
            add("cyclist", side * edge, side * dice.between(4, 6), dice.between(9, 20), share)
            middle = p.kerb + p.verge + 0.5 * p.walk
            for k, speed in ((-0.28, 1.25), (0.05, -1.15), (0.3, 0.0)):
                share = self.people * dice.between(0.4, 0.9)
                add("walker", side * (middle + k * p.walk), speed, dice.between(4, 9), share)
        return streams


def _profile(dice: Dice) -> Profile:
    tram = dice.chance(0.4)
    lanes = 1 if tram or dice.chance(0.45) else 2
    return Profile(
        median=dice.between(3.0, 3.4) if tram else 0.0,
        grass_tracks=dice.chance(0.4),
        lanes=lanes,
        lane=dice.between(3.1, 3.6),
        bike=1.6 if dice.chance(0.35) else 0.0,
        parking=2.2 if dice.chance(0.6) else 0.0,
        verge=dice.between(1.2, 2.6) if dice.chance(0.4) else 0.0,
        walk=dice.between(2.2, 4.6),
        tree_every=dice.between(7.0, 13.0) if dice.chance(0.6) else 0.0,
    )
