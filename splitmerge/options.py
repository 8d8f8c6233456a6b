"""Types of command-line options that several verbs share."""

import argparse
import math
import re

__all__ = ["height_and_width", "positive_integer", "positive_number", "scales", "whole_number"]

_SMALLEST, _LARGEST = 0.1, 4.0


def height_and_width(text: str) -> tuple[int, int]:
    """`512x1024` to (512, 1024)."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or not int(match[1]) or not int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give HEIGHTxWIDTH in pixels, as 512x1024")
    return int(match[1]), int(match[2])


def positive_integer(text: str) -> int:
    """`3` to 3; nothing below 1."""
    if not _is_whole(text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive whole number: give 1 or more")
    return int(text)


def whole_number(text: str) -> int:
    """`3` to 3; nothing below 0."""
    if not _is_whole(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on: give 0 or more")
    return int(text)


def positive_number(text: str) -> float:
    """`12.5` to 12.5; nothing that is 0, negative, infinite or no number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number: give one above 0, such as 12.5")
    return value


def scales(text: str) -> tuple[float, ...]:
    """`0.5,1` to (0.5, 1.0): times an image's size."""
    found = tuple(map(positive_number, text.split(",")))
    if not all(_SMALLEST <= scale <= _LARGEST for scale in found):
        raise argparse.ArgumentTypeError(f"{text!r} goes beyond {_SMALLEST:g} to {_LARGEST:g} times the frame's size")
    return found


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,18}", text) is not None
