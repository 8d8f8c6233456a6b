"""Stills for training and a drive for demonstrations, both indexed and deterministic."""

import math
from collections.abc import Iterator
from typing import Literal

from splitmerge.errors import InputError
from training.streets.dice import Dice
from training.streets.painter import Bytes
from training.streets.render import render
from training.streets.world import World

__all__ = ["RENDERER_VERSION", "Drive", "Streets", "render_still"]

RENDERER_VERSION = 4
"""Goes up whenever the same seed gives other pixels; cached pictures of another version are not used."""

_STILL = 11
_DRIVE = 343  # chosen so that seed 0 is a sunny street with a tram, trees and some of everything
_SPLITS = {"train": 0, "val": 1}


def render_still(seed: int, index: int, size: tuple[int, int] = (256, 512)) -> tuple[Bytes, Bytes]:
    """Picture `index` of stream `seed`: (image uint8 BGR `[H,W,3]`, labels uint8 `[H,W]`).

    Each has a street, weather and traffic of its own. Labels are Cityscapes train ids; 255 marks our own bonnet.
    """
    return _still(seed, 2, index, size)


def _still(seed: int, split: int, index: int, size: tuple[int, int]) -> tuple[Bytes, Bytes]:
    _check(size)
    world = World(_STILL, seed, split, index)
    dice = Dice(_STILL, seed, split, index, 9)
    time = dice.between(0.0, 60.0)
    return render(world, time, size, dice, motion=max(0.0, dice.between(-0.006, 0.006)))


class Streets:
    """A sequence of stills: `len()`, `[i] -> (image_bgr, labels)`. `train` and `val` share no street."""

    def __init__(
        self,
        split: Literal["train", "val"] = "train",
        size: tuple[int, int] = (256, 512),
        length: int = 2000,
        seed: int = 0,
    ) -> None:
        if split not in _SPLITS:
            raise InputError(f"streets has no split {split!r}: choose train or val.")
        if length < 0:
            raise InputError(f"A data set of {length} images cannot be: ask for 0 or more.")
        _check(size)
        self.split, self.size, self.length, self.seed = split, size, length, seed

    @property
    def key(self) -> str:
        """What the pictures depend on, for caches."""
        height, width = self.size
        return f"streets-v{RENDERER_VERSION}-{self.split}-{height}x{width}-n{self.length}-s{self.seed}"

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Bytes, Bytes]:
        if not -self.length <= index < self.length:
            raise IndexError(f"picture {index} of {self.length}")
        return _still(self.seed, _SPLITS[self.split], index % self.length, self.size)

    def __iter__(self) -> Iterator[tuple[Bytes, Bytes]]:
        return (self[index] for index in range(self.length))


class Drive:
    """An endless dashcam drive: `.frame(t) -> (image_bgr, labels)`, any frame in any order."""

    def __init__(self, seed: int = 0, size: tuple[int, int] = (256, 512), fps: float = 20.0) -> None:
        _check(size)
        if not (math.isfinite(fps) and fps > 0):
            raise InputError(f"A drive at {fps} frames per second cannot be: choose a number above 0.")
        self.seed, self.size, self.fps = seed, size, fps
        self._world = World(_DRIVE, seed)

    def frame(self, t_index: int) -> tuple[Bytes, Bytes]:
        """Frame `t_index` (0 or more), `t_index / fps` seconds into the drive."""
        if t_index < 0:
            raise IndexError(f"frame {t_index}; frames count from 0")
        dice = Dice(_DRIVE, self.seed, 9, t_index)
        return render(self._world, t_index / self.fps, self.size, dice, motion=0.006)


def _check(size: tuple[int, int]) -> None:
    if len(size) != 2 or min(size) < 32:
        raise InputError(f"Scenes of {size} cannot be rendered: ask for a height and width of at least 32 pixels each.")
