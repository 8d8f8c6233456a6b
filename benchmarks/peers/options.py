"""The options of the comparison, apart from it so that reading them needs no PyTorch."""

import argparse
from pathlib import Path

from benchmarks.peers.contestants import DEFAULTS, PEERS
from benchmarks.peers.packages import FORMS
from splitmerge.options import height_and_width, positive_integer, positive_number

__all__ = ["NETWORKS", "add_arguments"]

NETWORKS = ("smp18", "smp34", "fcn8s-18", "deeplabv3-50", "ldn121-64-4")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options, for this script and for `splitmerge bench`."""
    add = parser.add_argument
    add("--networks", nargs="+", default=list(NETWORKS), metavar="NAME", help="see `splitmerge models`")
    add("--widths", nargs="+", type=positive_integer, default=[16], metavar="N", help="first stage's channels")
    sizes = [(128, 256), (256, 512)]
    add("--sizes", nargs="+", type=height_and_width, default=sizes, metavar="HxW", help="frames")
    add("--peers", nargs="*", choices=(*PEERS, *DEFAULTS), default=list(PEERS), help="whom to compare with")
    add("--forms", nargs="+", choices=FORMS, default=list(FORMS), help="forms of this project that take part")
    add("--rounds", type=positive_integer, default=5, help="frames of each, after one to warm up")
    add("--limit-gib", type=positive_number, default=20, help="leave out what needs more memory")
    add("--limit-s", type=positive_number, default=30, help="leave out what takes more seconds a frame")
    add("--json", type=Path, metavar="FILE", help="write rows, versions and machine as JSON")
    add("--picture", type=Path, metavar="FILE", help="PNG of time and of memory against size")
    add("--markdown", type=Path, metavar="FILE", help="write the table of medians as Markdown")
