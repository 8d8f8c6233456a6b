"""The options of `splitmerge bench --profile`."""

import argparse
from pathlib import Path

from splitmerge.options import positive_integer

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--precision", default="fp32", help="the package's graphs: fp32, or fp16 and int8 where it has them")
    add("--chunk", type=positive_integer, default=1, help="split batches that the trunk is given at once")
    add("--frames", type=positive_integer, default=3, help="frames, after one to warm up")
    add("--top", type=positive_integer, default=15, help="operators that are listed one by one")
    add("--json", type=Path, metavar="FILE", help="write stages, operators and machine as JSON")
