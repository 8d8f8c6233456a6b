"""Throughput of several GPUs of unequal speed against the ideal, on emulated ones; copies and computing as a picture.

    python -m benchmarks.emulated_gpus --json build/emulated.json --picture build/timeline.png

The devices are tests/emulator's: an execution takes a set time by sleeping, one at a time on each device, copies run
beside it. So this measures the schedule and its cost in Python, and no GPU. The ideal is all devices at work all the
time: the sum of their speeds. The labels of every row are compared with those of one context on the CPU.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from engines.build import build_engines
from engines.load import load_engine, open_device
from runtime.executor import Executor
from runtime.ordered import in_order
from runtime.shards import FrameShards
from splitmerge.files import check_outputs, new_file, write_json
from splitmerge.options import positive_integer
from splitmerge.package import Package

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
# the tests' own stand-ins, which have no types of their own
from emulator import EmulatedDevice, Emulator
from small_package import make_package

SPEEDS = (1.0, 1.0, 0.5)
STEM_MS, BATCH_MS = 1.0, 20.0
"""What stem and one split batch take on a device of speed 1. (SMP-18's stem is under a thousandth of its work.)"""
COPY_GIB_S = 0.002
"""Slow enough for the copies of a small network to be seen beside its computing, as a large one's are."""

COLOURS = {"stem": (60, 160, 60), "trunk": (200, 140, 60), "h2d": (60, 60, 220), "d2h": (60, 170, 240)}


@dataclass(frozen=True)
class Row:
    """One way to use the devices. `of_ideal` is the share of frames a second that the speeds allow for; `equal` whether
    all labels were those of one context.
    """

    shard: str
    devices: int
    contexts: int
    in_flight: int
    frames: int
    frames_per_s: float
    of_ideal: float
    equal: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=positive_integer, default=60, help="frames of each row")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="PNG of what ran when, of the middle frames")
    arguments = parser.parse_args()
    check_outputs([arguments.json, arguments.picture])
    with tempfile.TemporaryDirectory() as folder:
        package = make_package(Path(folder) / "package")
        build_engines(package, "onnxruntime")
        with Emulator([EmulatedDevice()]):
            build_engines(package, "tensorrt")
        rows = []
        print(
            f"{'shared out':<16}{'devices':>8}{'contexts':>9}{'in flight':>10}{'frames/s':>10}{'of ideal':>10}  labels"
        )
        for shard, devices, contexts, in_flight in PLAN:
            row, picture = measure(package, shard, devices, contexts, in_flight, arguments.frames)
            rows.append(asdict(row))
            print(
                f"{row.shard:<16}{row.devices:>8}{row.contexts:>9}{row.in_flight:>10}{row.frames_per_s:>10.2f}"
                f"{row.of_ideal:>10.1%}  {'equal' if row.equal else 'DIFFERENT'}",
                flush=True,
            )
            if arguments.picture and (shard, devices, in_flight) == ("split-batches", 3, 2):
                with new_file(arguments.picture) as temporary:
                    cv2.imwrite(str(temporary), picture)
        memory = context_memory(package)
        for batches, held, most in memory:
            print(f"a context for {batches} split batches holds {held / 1024:.1f} of its plan's {most / 1024:.1f} KiB")
    if arguments.json:
        facts = {"speeds": SPEEDS, "stem_ms": STEM_MS, "batch_ms": BATCH_MS, "rows": rows, "context_bytes": memory}
        write_json(arguments.json, {"machine": machine(), **facts})
    return 0 if all(row["equal"] for row in rows) else 1


PLAN = [
    ("split-batches", 1, 1, 1),
    ("split-batches", 1, 2, 1),
    ("split-batches", 3, 1, 1),
    ("split-batches", 3, 2, 1),
    ("split-batches", 3, 1, 2),
    ("split-batches", 3, 2, 2),
    ("frames", 3, 2, 1),
    ("frames", 3, 1, 2),
]


def measure(
    package: Package, shard: str, devices: int, contexts: int, in_flight: int, frames: int
) -> tuple[Row, NDArray[np.uint8]]:
    """Segment `frames` frames, three different ones in turn, as `splitmerge run` does."""
    images = np.random.default_rng(0).integers(0, 256, (3, *package.manifest.input.size, 3), np.uint8)
    with Executor(package, backend="onnxruntime") as one:
        expected = [one.segment(image) for image in images]
    cards = [EmulatedDevice(f"speed {speed:g}", speed=speed, copy_gib_s=COPY_GIB_S) for speed in SPEEDS[:devices]]
    with Emulator(cards, work=_work) as emulator:
        segmenter = _open(package, shard, devices, contexts, in_flight)
        with segmenter:
            began = emulator.timeline.now()
            start = time.perf_counter()
            turns = [images[i % 3] for i in range(frames)]
            results = list(in_order(segmenter.segment, turns, segmenter.parallel))
            seconds = time.perf_counter() - start
        spans = [span for span in emulator.timeline.spans if span.start >= began]
    equal = all(np.array_equal(labels, expected[i % 3]) for i, labels in enumerate(results))
    ideal = sum(SPEEDS[:devices]) / (16 * BATCH_MS / 1e3)
    row = Row(shard, devices, contexts, in_flight, frames, frames / seconds, frames / seconds / ideal, equal)
    return row, draw(spans, devices)


def context_memory(package: Package) -> list[tuple[int, int, int]]:
    """For 1 to 4 split batches: bytes that a context of the trunk holds, and the most that its plan says."""
    rows = []
    with Emulator([EmulatedDevice()]):
        for batches in range(1, 5):
            device = open_device("tensorrt")
            engine = load_engine(package, "trunk", "tensorrt", device=device)
            with device.thread():
                (features,), (labels,) = engine.inputs, engine.outputs
                buffers = [
                    device.empty((batches, *(d or 1 for d in end.shape[1:])), np.dtype(end.dtype))
                    for end in (features, labels)
                ]
                context: Any = engine.create_context()
                context.write(buffers[0], np.zeros(buffers[0].shape, buffers[0].dtype))
                context.prepare({features.name: buffers[0]}, {labels.name: buffers[1]})
                rows.append((batches, context.memory_bytes, engine.context_bytes or 0))
            context.close()
            engine.close()
            device.close()
    return rows


def _work(name: str, entries: int) -> float:
    """Seconds on a device of speed 1."""
    return STEM_MS / 1e3 if "stem" in name else BATCH_MS / 1e3 * entries


def _open(package: Package, shard: str, devices: int, contexts: int, in_flight: int) -> Any:
    def executor(numbers: Sequence[int]) -> Executor:
        return Executor(package, contexts=contexts, backend="tensorrt", devices=numbers, in_flight=in_flight)

    if shard == "frames":
        return FrameShards([executor([device]) for device in range(devices)])
    return executor(range(devices))


def draw(spans: Sequence[Any], devices: int, width: int = 1400) -> NDArray[np.uint8]:
    """What ran when, uint8 [H,W,3] BGR: a row for each device and kind, over about two frames from the middle."""
    middle = (min(span.start for span in spans) + max(span.end for span in spans)) / 2
    seconds = 2 * 16 * BATCH_MS / 1e3 / sum(SPEEDS[:devices])
    begin = middle - seconds / 2
    kinds, height, left = ("h2d", "compute", "d2h"), 26, 150
    image = np.full((60 + devices * (len(kinds) * height + 14), width, 3), 255, np.uint8)
    scale = (width - left - 20) / seconds
    for device in range(devices):
        for line, kind in enumerate(kinds):
            top = 40 + device * (len(kinds) * height + 14) + line * height
            _text(image, f"cuda:{device} {kind}", (8, top + 16))
            for span in spans:
                if (span.device, span.kind) != (device, kind) or span.end < begin or span.start > begin + seconds:
                    continue
                ends = [left + int(max(0.0, min(t - begin, seconds)) * scale) for t in (span.start, span.end)]
                name = ("stem" if "stem" in span.label else "trunk") if kind == "compute" else kind
                right = max(ends[1] - 1, ends[0] + 2)
                cv2.rectangle(image, (ends[0], top + 2), (right, top + height - 4), COLOURS[name], -1)
    for tick in range(0, int(seconds * 1e3) + 1, 20):
        x = left + int(tick / 1e3 * scale)
        cv2.line(image, (x, 30), (x, image.shape[0] - 12), (225, 225, 225), 1)
        _text(image, f"{tick} ms", (x - 14, 22))
    return image


def _text(image: NDArray[np.uint8], text: str, place: tuple[int, int]) -> None:
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)


if __name__ == "__main__":
    sys.exit(main())
