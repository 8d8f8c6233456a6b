"""Types of command-line options that several verbs share."""

import argparse
import re

__all__ = ["height_and_width"]


def height_and_width(text: str) -> tuple[int, int]:
    """`512x1024` to (512, 1024)."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or not int(match[1]) or not int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give HEIGHTxWIDTH in pixels, as 512x1024")
    return int(match[1]), int(match[2])
