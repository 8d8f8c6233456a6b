"""What stands along a chunk of street: plots, street furniture, parked vehicles, marks on the ground."""

import math

from training.streets.dice import Dice
from training.streets.world import CHUNK, PLOTS, Thing, World

__all__ = ["plan_chunk"]

# District: shares of the plots building, house, wall, fence, park.
_DISTRICTS: tuple[tuple[float, float, float, float, float], ...] = (
    (0.78, 0.02, 0.08, 0.06, 0.06),
    (0.55, 0.15, 0.14, 0.10, 0.06),
    (0.14, 0.42, 0.18, 0.18, 0.08),
    (0.08, 0.20, 0.20, 0.22, 0.30),
    (0.34, 0.00, 0.36, 0.26, 0.04),
)


def plan_chunk(world: World, dice: Dice, k: int) -> list[Thing]:
    """Everything at rest in chunk `k`."""
    things: list[Thing] = []
    start = k * CHUNK
    crossing = start + 15.0 if (k * 7 + int(world.districts[9] * 10)) % 3 == 0 else None
    for side in (-1, 1):
        _plan_plots(world, dice, things, k, side, crossing)
        _plan_furniture(world, dice, things, start, side, crossing)
        _plan_parking(world, dice, things, start, side, crossing)
    _plan_ground(world, dice, things, start)
    if crossing is not None:
        _plan_crossing(world, dice, things, crossing)
    return things


def _plan_plots(world: World, dice: Dice, things: list[Thing], k: int, side: int, crossing: float | None) -> None:
    """Plots from the chunk's start to its end; a side street takes 9 m after a crossing."""
    u = world.districts[(2 * (k // 3) + (side > 0)) % 9]
    shares = _DISTRICTS[int((u * 7.31 + 0.37 * (k // 3)) % 1.0 * len(_DISTRICTS))]
    start, end = k * CHUNK, (k + 1) * CHUNK
    spans = [(start, end)]
    if crossing is not None and dice.chance(0.75):
        spans = [(start, crossing), (crossing + 9.0, end)]
        things.append(Thing("gap", side * world.profile.kerb, crossing, 9.0, dice.looks()))
        if dice.chance(0.55):
            kind = dice.pick(("car", "car", "truck", "bus"))
            lat = side * (world.profile.front + dice.between(3.0, 6.0))
            yaw = -side * math.pi / 2
            things.append(Thing(kind, lat, crossing + 6.5, 6.0, dice.looks(), yaw))
    for first, last in spans:
        at = first
        while at < last - 1.0:
            length = dice.between(8.0, 17.0)
            if last - at - length < 7.0:
                length = last - at
            kind = _plot_kind(dice.unit(), shares)
            things.append(Thing(kind, side * world.profile.front, at, length, dice.looks()))
            at += length


def _plot_kind(u: float, shares: tuple[float, ...]) -> str:
    for kind, share in zip(PLOTS, shares, strict=True):
        u -= share
        if u < 0:
            return kind
    return PLOTS[-1]


def _plan_furniture(
    world: World, dice: Dice, things: list[Thing], start: float, side: int, crossing: float | None
) -> None:
    """Lamp posts, signs, trees, railings, bollards, bicycle stands along the kerb."""
    p = world.profile
    lat = side * (p.kerb + 0.45)

    def clear(s: float) -> bool:
        return crossing is None or not crossing - 1.5 < s < crossing + 9.5

    count = max(1, round(CHUNK / world.pole_every))
    for n in range(count):
        s = start + (n + 0.5 + 0.2 * side) * CHUNK / count
        if clear(s):
            kind = "catenary" if p.median and n == 0 and side > 0 else "lamp"
            things.append(Thing(kind, lat, s, 0.0, dice.looks()))
    for _ in range(2):
        if dice.chance(world.sign_share):
            s = start + dice.unit() * CHUNK
            if clear(s):
                things.append(Thing("sign", lat, s, 0.0, dice.looks()))
    if p.tree_every:
        count = int(CHUNK / p.tree_every)
        for n in range(count):
            s = start + (n + 0.15 + 0.2 * dice.unit()) * CHUNK / count
            if clear(s):
                at = side * (p.kerb + (0.5 * p.verge if p.verge else 0.9))
                things.append(Thing("tree", at, s, dice.between(5.0, 10.0), dice.looks()))
    if dice.chance(0.3):
        s, length = start + dice.between(0, 18), dice.between(8, 16)
        if clear(s) and clear(s + length):
            things.append(Thing("railing", side * (p.kerb + 0.3), s, length, dice.looks()))
    if dice.chance(0.25):
        s = start + dice.between(0, 24)
        things += [
            Thing("bollard", side * (p.kerb + 0.35), s + 1.6 * n, 0.0, dice.looks())
            for n in range(int(dice.between(3, 7)))
            if clear(s + 1.6 * n)
        ]
    if dice.chance(0.5):
        s = start + dice.between(1, 30)
        at = side * (p.front - 0.6)
        slant = math.pi / 2 if dice.chance(0.6) else 0.0
        for n in range(int(dice.between(1, 5))):
            yaw = slant + dice.between(-0.25, 0.25)
            if clear(s + 0.8 * n):
                things.append(Thing("stand", at, s + 0.8 * n, 0.0, dice.looks(), yaw))


def _plan_parking(
    world: World, dice: Dice, things: list[Thing], start: float, side: int, crossing: float | None
) -> None:
    p = world.profile
    if not p.parking:
        return
    s = start + 1.0
    while s < start + CHUNK - 4:
        kind, room = "car", 5.6
        u = dice.unit()
        if u < 0.10:
            kind, room = "truck", 9.5
        elif u < 0.16:
            kind, room = "bus", 13.0
        elif u < 0.36:
            kind, room = "motorcycle", 2.0
        middle = s + room / 2
        blocked = crossing is not None and s < crossing + 10 and s + room > crossing - 2
        if dice.chance(world.parked_share) and not blocked and s + room < start + CHUNK + 2:
            lat = side * (p.kerb - p.parking / 2 + 0.05)
            yaw = (0.0 if side > 0 else math.pi) + dice.between(-0.04, 0.04)
            if kind == "motorcycle":
                yaw += dice.between(-1.2, 1.2)
            things.append(Thing(kind, lat, middle, room, dice.looks(), yaw))
        s += room


def _plan_crossing(world: World, dice: Dice, things: list[Thing], s: float) -> None:
    """A zebra with traffic lights before a side street, and those who cross it."""
    p = world.profile
    things.append(Thing("zebra", 0.0, s - 4.0, 3.0, dice.looks()))
    lights = dice.chance(0.7)
    for side in (-1, 1):
        if lights:
            things.append(Thing("signal", side * (p.kerb + 0.4), s - 4.6, side, dice.looks()))
            if dice.chance(0.5):
                things.append(Thing("signal", side * (p.kerb + 0.4), s + 9.8, side, dice.looks()))
        else:
            things.append(Thing("sign", side * (p.kerb + 0.4), s - 4.6, 1.0, dice.looks()))
    for _ in range(int(dice.between(0, 4.5))):
        things.append(Thing("crosser", 0.0, s - 4.0 + dice.between(0.3, 2.7), 0.0, dice.looks()))
    for _ in range(int(dice.between(0, 2.2))):
        things.append(Thing("crossrider", 0.0, s + dice.between(1.0, 7.0), 0.0, dice.looks()))


def _plan_ground(world: World, dice: Dice, things: list[Thing], start: float) -> None:
    """Patches, cracks and covers on the road."""
    p = world.profile
    for _ in range(int(dice.between(1, 5))):
        kind = dice.pick(("patch", "patch", "cover", "arrow"))
        lat = dice.pick((-1, 1)) * dice.between(p.median + 0.7, p.driving - 0.7)
        if kind == "arrow":
            lane = int(dice.unit() * p.lanes)
            lat = p.median + (lane + 0.5) * p.lane
        things.append(Thing(kind, lat, start + dice.unit() * CHUNK, 0.0, dice.looks()))
