"""What a lower output stride does to a trained network: mIoU and time a frame at each, without training again.

    python -m benchmarks.output_stride --checkpoint fcn32s.safetensors --size 256x512 --json build/strides.json

Exports the checkpoint at its own output stride and at each one asked for, and scores the packages on `streets`, run as
`splitmerge run` would. Stride 1 is cut, and streamed split batch by split batch.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.machine import machine
from engines.backends import choose_backend
from engines.build import build_engines
from export.graphs import Rewriting
from export.package import export_package
from runtime.executor import Executor
from splitmerge.errors import SplitmergeError
from splitmerge.files import check_outputs, write_json
from splitmerge.labels import THIN_CLASSES
from splitmerge.options import height_and_width, positive_integer
from splitmerge.package import Package
from training.data import open_dataset
from training.metrics import confusion_matrix, iou


@dataclass(frozen=True)
class Row:
    """One output stride, None for the network's own. Scores in 0..1, the median of the milliseconds a frame."""

    output_stride: int | None
    split_batches: int
    frame_ms: float
    miou: float
    thin: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="FILE", help="a network that upsamples its logits")
    add("--size", type=height_and_width, required=True, metavar="HxW", help="height and width of the frames")
    add("--strides", type=positive_integer, nargs="+", default=[16, 8, 4, 2, 1], metavar="N")
    add("--images", type=positive_integer, default=40, help="images of streets")
    add("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    arguments = parser.parse_args()
    try:
        check_outputs([arguments.json])
        rows = []
        for stride in (None, *arguments.strides):
            rows.append(measure(arguments.checkpoint, arguments.size, stride, arguments.images))
            print(_line(rows[-1]), flush=True)
    except SplitmergeError as error:
        print(f"output_stride: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.json:
        write_json(arguments.json, {"machine": machine(), "images": arguments.images, "rows": list(map(asdict, rows))})
    return 0


def measure(checkpoint: Path, size: tuple[int, int], stride: int | None, images: int) -> Row:
    """Export, build and score at one output stride."""
    with tempfile.TemporaryDirectory() as folder:
        package = export_package(checkpoint, size, Path(folder) / "package", rewriting=Rewriting(output_stride=stride))
        backend, _ = choose_backend("auto")
        build_engines(package, backend)
        with Executor(package, backend=backend) as executor:
            return _row(executor, package, stride, images)


def _row(executor: Executor, package: Package, stride: int | None, images: int) -> Row:
    classes, cut = package.manifest.classes, package.manifest.cut
    total, taken = np.zeros((len(classes), len(classes)), np.int64), []
    streets = open_dataset("streets", package.manifest.input.size, images, seed=1)
    for image, truth in (streets[index] for index in range(len(streets))):
        start = time.perf_counter()
        labels = executor.segment(image)
        taken.append((time.perf_counter() - start) * 1e3)
        total += confusion_matrix(labels, truth, len(classes))
    scores = iou(total)
    thin = [entry.name in THIN_CLASSES for entry in classes]
    median = round(float(np.median(taken[1:] or taken)), 1)  # the first is to warm up
    mean, thin_mean = float(np.nanmean(scores)), float(np.nanmean(scores[thin]))
    return Row(stride, cut.batches if cut else 1, median, mean, thin_mean)


def _line(row: Row) -> str:
    stride = row.output_stride or "own"
    return f"| {stride} | {row.split_batches} | {row.frame_ms:.0f} | {100 * row.miou:.1f} | {100 * row.thin:.1f} |"


if __name__ == "__main__":
    sys.exit(main())
