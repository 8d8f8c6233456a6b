"""Clips that carry their frame numbers in their pixels, and stand-ins for a package and its engine."""

import hashlib
import json
import time
from pathlib import Path

import cv2
import numpy as np

from runtime.executor import FrameStats
from splitmerge.labels import CITYSCAPES
from splitmerge.package import Cut, Graph, InputContract, Manifest, Package

SIZE = (64, 128)
BITS = 8


def numbered_frame(index, size=SIZE):
    """A gray frame with the bits of `index` as black and white columns, which survive lossy codecs."""
    height, width = size
    bits = [(index >> bit) & 1 for bit in range(BITS)]
    columns = np.repeat(np.array(bits, np.uint8) * 200 + 25, -(-width // BITS))[:width]
    return np.repeat(np.repeat(columns[None, :, None], height, 0), 3, 2)


def number_of(gray):
    """The number in a frame [H,W] or [H,W,3], or in a label map of ids 0 and 1."""
    gray = gray if gray.ndim == 2 else gray[:, :, 1]
    width = gray.shape[1]
    pitch = -(-width // BITS)
    threshold = 0.5 if gray.max() <= 1 else 125
    middles = [min(width - 1, bit * pitch + pitch // 2) for bit in range(BITS)]
    return sum(int(gray[gray.shape[0] // 2, x] > threshold) << bit for bit, x in enumerate(middles))


def names(folder: Path):
    """The names of what lies in a folder, hidden ones too, but for what a run that came to its end says of itself."""
    return sorted(path.name for path in folder.iterdir() if not _is_note_of_the_end(path))


def _is_note_of_the_end(path):
    return path.match(".*.run.json") and json.loads(path.read_text()).get("finished")


def write_clip(path: Path, frames=20, size=SIZE, fps=10.0):
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size[::-1])
    assert writer.isOpened()
    for index in range(frames):
        writer.write(numbered_frame(index, size))
    writer.release()
    return path


def write_cut_clip(path: Path, keep=0.6, **how):
    """A clip whose file ends in the middle, as after a broken copy."""
    whole = write_clip(path.with_stem("whole"), **how)
    path.write_bytes(whole.read_bytes()[: int(keep * whole.stat().st_size)])
    whole.unlink()
    return path


class Threshold:
    """A segmenter whose labels are 1 where a frame is bright. Remembers the sizes it was given."""

    def __init__(self, fail_at=None, error=None, seconds=0.0):
        self.fail_at, self.error, self.seconds = fail_at, error, seconds
        self.sizes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    parallel = 1
    facts = {"backend": "onnxruntime", "precision": "fp32", "contexts": 2, "chunk": 1, "devices": [0]}  # noqa: RUF012

    def measure(self, frame_bgr, until=None, source=None, newer=None):
        return self.segment(frame_bgr), FrameStats(0.25, 0.5, 16)

    def segment(self, frame_bgr):
        if len(self.sizes) == self.fail_at:
            raise self.error
        self.sizes.append(frame_bgr.shape[:2])
        time.sleep(self.seconds)
        return (frame_bgr[:, :, 1] > 125).astype(np.uint8)


def write_package(folder: Path, size=SIZE):
    """A package that passes its checks and holds no graph that could run."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"no graph")
    graph = Graph("model.onnx", hashlib.sha256(b"no graph").hexdigest(), (), ())
    contract = InputContract(*size, *size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    manifest = Manifest(
        model="smp18",
        model_width=4,
        classes=CITYSCAPES,
        input=contract,
        cut=Cut(2, 4, 4),
        graphs={"fp32": {"model": graph}},
        reference_sha256="",
        versions={},
    )
    return Package.write_manifest(folder, manifest)


def records_in(path):
    """The JSON objects of a file of records, a line each."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def masks_in(folder):
    """The label maps of a folder, uint8 [H,W], in the order of their names."""
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.iterdir())]
