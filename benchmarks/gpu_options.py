"""The options of the benchmark on a GPU, apart from it so that reading them needs nothing else."""

import argparse
from pathlib import Path

from splitmerge.options import height_and_width, positive_integer, positive_number, whole_number

__all__ = ["ALL", "BACKENDS", "add_arguments"]

ALL = ("torch", "onnxruntime", "tensorrt", "copies")
BACKENDS = {
    "torch": ("torch",),
    "onnxruntime-cuda": ("onnxruntime",),
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt",),
}
"""What `splitmerge bench --backend` measures."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--size", type=height_and_width, default=(512, 1024), metavar="HxW", help="frames")
    add("--width", type=positive_integer, default=64, metavar="N", help="channels of SMP-18's first stage")
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="a trained Split-Merge Pooling network; random weights if absent",
    )
    add("--device", type=whole_number, default=0, metavar="N", help="the GPU, as CUDA numbers them")
    add("--only", nargs="+", choices=ALL, default=list(ALL), metavar="PART", help=f"some of {', '.join(ALL)}")
    add("--seconds", type=positive_number, default=3, help="how long each row is repeated at most, after 3 runs")
    add("--json", type=Path, metavar="FILE", help="results; benchmarks/results/GPU.json if absent")
