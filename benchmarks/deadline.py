"""IoU against the time that a frame is given: `--deadline-ms` and `--density`, on images that each are a new scene.

    python -m benchmarks.deadline --package build/smp18 --json build/deadline.json --picture build/deadline.png

Every image of `streets` is segmented once under each deadline; the row says how many of the split batches were computed
and how long a frame took, stem and filling included. A deadline of 0 is none.
"""

import argparse
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from runtime.executor import Executor
from splitmerge.errors import SplitmergeError
from splitmerge.files import check_outputs, new_file, write_json
from splitmerge.labels import THIN_CLASSES
from splitmerge.options import positive_integer
from splitmerge.package import Package
from training.data import open_dataset
from training.metrics import confusion_matrix, iou

WIDTH, HEIGHT, MARGIN = 900, 520, 70


@dataclass(frozen=True)
class Row:
    """Means over the images: split batches computed, milliseconds a frame; scores in 0..1."""

    deadline_ms: float
    split_batches: float
    frame_ms: float
    miou: float
    thin: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--package", type=Path, required=True, help="folder that `splitmerge export` made, with engines"
    )
    parser.add_argument("--images", type=positive_integer, default=40, help="images of streets")
    parser.add_argument("--steps", type=positive_integer, default=8, help="deadlines to try")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="PNG of IoU against milliseconds")
    arguments = parser.parse_args()
    try:
        check_outputs([arguments.json, arguments.picture])
        rows = measure(Package.open(arguments.package), arguments.images, arguments.steps)
    except SplitmergeError as error:
        print(f"deadline: {error}", file=sys.stderr)
        return error.exit_code
    print(table(rows))
    if arguments.picture:
        with new_file(arguments.picture) as temporary:
            cv2.imwrite(str(temporary), draw(rows))
    if arguments.json:
        write_json(arguments.json, {"machine": machine(), "rows": [asdict(row) for row in rows]})
    return 0


def measure(package: Package, images: int, steps: int) -> list[Row]:
    """A row for each deadline, evenly spread from a single split batch to all of them, the shortest first."""
    with Executor(package, backend="auto") as executor:
        size = package.manifest.input.size
        executor.segment(np.zeros((*size, 3), np.uint8))
        start = time.perf_counter()
        executor.segment(np.full((*size, 3), 255, np.uint8))
        whole_ms = (time.perf_counter() - start) * 1e3
        deadlines = [whole_ms * step / steps for step in range(1, steps)]
        return [_row(executor, package, images, deadline) for deadline in (0.001, *deadlines, 0.0)]


def _row(executor: Executor, package: Package, images: int, deadline_ms: float) -> Row:
    classes = package.manifest.classes
    total = np.zeros((len(classes), len(classes)), np.int64)
    batches, seconds = [], []
    streets = open_dataset("streets", package.manifest.input.size, images, seed=1)
    for image, truth in (streets[index] for index in range(len(streets))):
        start = time.perf_counter()
        labels, stats = executor.measure(image, start + deadline_ms / 1e3 if deadline_ms else None)
        seconds.append(time.perf_counter() - start)
        batches.append(stats.split_batches)
        total += confusion_matrix(labels, truth, len(classes))
    scores = iou(total)
    thin = [entry.name in THIN_CLASSES for entry in classes]
    return Row(
        round(deadline_ms, 3),
        float(np.mean(batches)),
        float(np.mean(seconds) * 1e3),
        float(np.nanmean(scores)),
        float(np.nanmean(scores[thin])),
    )


def table(rows: list[Row]) -> str:
    """A Markdown table, a row for each deadline."""
    lines = ["| deadline ms | split batches | ms a frame | mIoU | mIoU, thin classes |", "|---:|---:|---:|---:|---:|"]
    for row in rows:
        deadline = f"{row.deadline_ms:.0f}" if row.deadline_ms else "none"
        scores = f"{100 * row.miou:.1f} | {100 * row.thin:.1f}"
        lines.append(f"| {deadline} | {row.split_batches:.1f} | {row.frame_ms:.0f} | {scores} |")
    return "\n".join(lines)


def draw(rows: list[Row]) -> NDArray[np.uint8]:
    """IoU against milliseconds a frame, uint8 [H,W,3] BGR: mIoU in blue, thin classes in orange."""
    image = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    longest = 1.05 * max(row.frame_ms for row in rows)
    lowest = np.floor(min(row.thin for row in rows) * 20) / 20
    highest = np.ceil(max(row.miou for row in rows) * 20) / 20

    def place(ms: float, score: float) -> tuple[int, int]:
        x = MARGIN + ms / longest * (WIDTH - 2 * MARGIN)
        return int(x), int(HEIGHT - MARGIN - (score - lowest) / (highest - lowest) * (HEIGHT - 2 * MARGIN))

    for score in np.arange(lowest, highest + 1e-9, 0.05):
        cv2.line(image, place(0, score), place(longest, score), (225, 225, 225), 1)
        _text(image, f"{100 * score:.0f}", (MARGIN - 32, place(0, score)[1] + 5))
    step = float(f"{longest / 6:.0e}")  # one digit
    for ms in np.arange(0, longest, step):
        _text(image, f"{ms:.0f}", (place(ms, lowest)[0] - 12, HEIGHT - MARGIN + 24))
    _text(image, "milliseconds a frame", (WIDTH // 2 - 80, HEIGHT - 18))
    for name, colour in (("miou", (180, 110, 30)), ("thin", (40, 140, 240))):
        points = [place(row.frame_ms, getattr(row, name)) for row in rows]
        cv2.polylines(image, [np.array(points, np.int32)], False, colour, 2, cv2.LINE_AA)
        for row, point in zip(rows, points, strict=True):
            cv2.circle(image, point, 4, colour, -1, cv2.LINE_AA)
            if name == "miou":
                _text(image, f"{row.split_batches:.0f}", (point[0] - 6, point[1] - 10))
        _text(image, {"miou": "mIoU", "thin": "thin classes"}[name], (points[-1][0] - 90, points[-1][1] + 22))
    _text(image, "IoU in %, with the split batches computed", (MARGIN - 30, 30))
    return image


def _text(image: NDArray[np.uint8], text: str, place: tuple[int, int]) -> None:
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (50, 50, 50), 1, cv2.LINE_AA)


if __name__ == "__main__":
    sys.exit(main())
