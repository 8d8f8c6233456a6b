"""Memory that kernels are given: aligned, and shared by values that are not needed at the same time."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from engines.native.kernels import LINE

__all__ = ["aligned", "points_apart", "rooms_for"]


def aligned(count: int) -> NDArray[np.float32]:
    """`count` float32 numbers that begin on a line of the cache."""
    room = np.empty(count + LINE, np.float32)
    start = -room.ctypes.data // 4 % LINE
    return room[start : start + count]


def points_apart(block: int, channels: int) -> int:
    """Numbers from one point's to the next, of `block` tiles. A line more than they are, or all points would lie in the
    same few places of the cache."""
    return block * channels + LINE


def rooms_for(values: Iterable[tuple[int, int, int]]) -> tuple[list[int], list[int]]:
    """Rooms for values, each given as the step that makes it, the last that reads it, and its size; in order of the
    first. Two share a room where one is read for the last time before the other is made.

    Gives the rooms' sizes, and the number of each value's room.
    """
    rooms: list[int] = []
    busy_until: list[int] = []
    placed = []
    for made, last, size in values:
        free = [room for room, end in enumerate(busy_until) if end < made]
        if free:
            room = min(free, key=lambda one: (max(0, size - rooms[one]), rooms[one]))
        else:
            room = len(rooms)
            rooms.append(0)
            busy_until.append(0)
        rooms[room] = max(rooms[room], size)
        busy_until[room] = last
        placed.append(room)
    return rooms, placed
