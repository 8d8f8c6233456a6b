"""Where the pixels of a frame and of its label map are written again on their way from the decoder to the files.

Each place is a function of this project; while `counted` lasts, each call adds the bytes of pixels that it writes.
What is made new is no copy and is not here: the decoder's frame, the labels that the trunk computes, the overlay's
mixture of the two, PNG and video packets. Between the stages nothing is copied: channels hand on references. What is
counted is a package with a cut on ONNX Runtime.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any
from unittest.mock import patch

import numpy as np

from runtime.gops import GopVideo
from runtime.video_writer import OpenCVVideo

__all__ = ["PLACES", "Copied", "counted", "per_frame"]


@dataclass(frozen=True)
class Copied:
    """`frames` is bytes written in one place for each frame, as a share of the source frame's own bytes."""

    where: str
    why: str
    frames: float


@dataclass(frozen=True)
class _Place:
    """`target` is the function; `size` the bytes that a call wrote, of its result and its arguments."""

    where: str
    why: str
    target: str
    size: Callable[..., int]


def _if_new(result: Any, given: Any, *_: Any) -> int:
    return 0 if result is given else int(result.nbytes)


def _labels_if_new(result: Any, given: Any) -> int:
    return 0 if result is given else int(result.labels.nbytes)


PLACES = (
    _Place(
        "frame resized to the engine's size",
        "only where it has another; the network takes one size",
        "runtime.stages.resized",
        _if_new,
    ),
    _Place(
        "frame into the stem's input",
        "buffers are bound to the engine once; on a GPU this is the upload's page-locked memory",
        "engines.onnxruntime_engine.OnnxRuntimeContext.write",
        lambda _, self, buffer, array: int(array.nbytes),
    ),
    _Place(
        "split batches into the label map",
        "they interleave, so that no output of the trunk can be a part of it",
        "runtime.partial.Mosaic.place",
        lambda _, self, index, labels: int(labels.nbytes),
    ),
    _Place(
        "label map to the caller",
        "with a deadline the map stays for the source's next frame, and the padding is cut off",
        "runtime.partial.Mosaic.picture",
        lambda result, *_: int(result.nbytes),
    ),
    _Place(
        "labels resized to the source's size",
        "only where it is another than the engine's",
        "runtime.stages.at_source_size",
        _labels_if_new,
    ),
)


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Bytes by place, while it lasts. Overlay frames handed to the video file count as "overlay to the encoder"."""
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        for place in PLACES:
            stack.enter_context(_watched(place, counts))
        stack.enter_context(_watched_video(counts))
        yield counts


def per_frame(counts: Counter[str], frames: int, frame_bytes: int) -> list[Copied]:
    """The counts of so many frames of a source whose frames have so many bytes."""
    why = {place.where: place.why for place in PLACES} | VIDEO
    return [Copied(where, words, counts[where] / frames / frame_bytes) for where, words in why.items()]


VIDEO = {
    "overlay to the encoder": "FFmpeg takes frames in memory of its own (OpenCV's fallback converts in place)",
    "overlay to YUV": "half the bytes: what H.264 and VP9 encode",
}


@contextmanager
def _watched(place: _Place, counts: Counter[str]) -> Iterator[None]:
    owner, _, name = place.target.rpartition(".")
    real = getattr(resolve_name(owner), name)

    def function(*arguments: Any, **named: Any) -> Any:
        result = real(*arguments, **named)
        counts[place.where] += place.size(result, *arguments, *named.values())
        return result

    with patch(place.target, function):
        yield


@contextmanager
def _watched_video(counts: Counter[str]) -> Iterator[None]:
    def watched(real: Callable[..., None]) -> Callable[..., None]:
        def write(self: Any, frame_bgr: np.ndarray[Any, np.dtype[np.uint8]], *more: Any) -> None:
            counts["overlay to the encoder"] += frame_bgr.nbytes
            counts["overlay to YUV"] += frame_bgr.nbytes // 2
            real(self, frame_bgr, *more)

        return write

    with ExitStack() as stack:
        for writer in (GopVideo, OpenCVVideo):
            stack.enter_context(patch.object(writer, "write", watched(writer.write)))
        yield
