"""The overlay: the source with its labels blended over it, as a video that grows and can be continued."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.drawing import Overlay, legend
from runtime.gops import Clock, GopVideo
from runtime.growing import NotContinuable
from runtime.video_writer import OpenCVVideo, check_ending, encoder_for, open_video
from splitmerge.errors import InputError
from splitmerge.files import hidden, sync_folder
from splitmerge.labels import LabelClass, palette_bgr

if TYPE_CHECKING:
    from runtime.frames import SourceFrame
    from runtime.sinks import Result

__all__ = ["GrowingOverlay", "OverlayPicture"]


class OverlayPicture:
    """Draws overlays of one size, (height, width), with a legend below where wanted.

    Video codecs halve the colours' resolution, so that an odd height or width gains one black row or column. Frames of
    another size are resized. `canvas_size` is what comes out.
    """

    def __init__(
        self, size: tuple[int, int], classes: tuple[LabelClass, ...], alpha: float = 0.55, with_legend: bool = False
    ) -> None:
        if not 0 <= alpha <= 1:
            raise InputError(f"An overlay's alpha of {alpha:g} cannot be: choose 0 (frame only) to 1 (labels only).")
        self._size = height, width = size
        self._overlay = Overlay(height, width, palette_bgr(classes), alpha)
        strip = legend(classes, width, max(8, height // 60), (235, 235, 235), (24, 24, 24)) if with_legend else None
        below = 0 if strip is None else strip.shape[0]
        self._canvas = np.zeros(((height + below + 1) // 2 * 2, (width + 1) // 2 * 2, 3), np.uint8)
        self.canvas_size = (self._canvas.shape[0], self._canvas.shape[1])
        if strip is not None:
            self._canvas[height : height + below, :width] = strip

    def of(self, frame: "SourceFrame", labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture uint8 [H,W,3] BGR of a frame and its labels, good until the next call."""
        height, width = self._size
        self._overlay.draw(*_at_size(frame.frame_bgr, labels, self._size), self._canvas[:height, :width])
        return self._canvas


class GrowingOverlay:
    """A video of overlays at `place`. One that OpenCV writes is not `resumable`.

    To be continued it is written anew, beginning with the packets of the old one, which lies at `_earlier` until the
    new one has as many frames.
    """

    def __init__(self, place: Path, picture: OverlayPicture, fps: float) -> None:
        check_ending(place)
        self.place, self.path = place, hidden(place)
        self.resumable = encoder_for(place) is not None
        self._earlier = place.with_name(f".{place.stem}.earlier{place.suffix}")
        self._picture, self._fps, self._kept = picture, fps, 0
        self._video: GopVideo | OpenCVVideo | None = None
        self._taken_from: Path | None = None

    @property
    def clock(self) -> Clock:
        """The times of its frames."""
        return self._video.clock if isinstance(self._video, GopVideo) else Clock(self._fps)

    @property
    def safe(self) -> int:
        """The first so many frames would survive a killed process."""
        return max(self._kept, self._video.safe) if self._video else 0

    def begin(self) -> None:
        """Begin anew."""
        self._earlier.unlink(missing_ok=True)
        self._video = open_video(self.path, self.place, self._picture.canvas_size, self._fps)

    def reopen(self, clock: Clock) -> None:
        """Go on after as many frames as the clock has counted. Raises InputError where an earlier run left fewer."""
        if not clock.frames:
            self.begin()
            return
        if not self._earlier.exists():
            old = self.path if self.path.exists() else self.place
            if not old.exists():
                raise NotContinuable(f"{self.place} of the interrupted run is gone: leave out --resume to begin anew.")
            self._taken_from = old
            old.replace(self._earlier)
        self._video = open_video(self.path, self.place, self._picture.canvas_size, self._fps)
        assert isinstance(self._video, GopVideo)
        self._video.copy(self._earlier, clock)
        self._kept = clock.frames

    def give_back(self) -> None:
        """Undo `reopen`, also one that failed half-way: what an earlier run left lies where it lay."""
        if self._video is not None or self._taken_from is not None:
            self._drop()
            self.path.unlink(missing_ok=True)
        if self._taken_from is not None and self._earlier.exists():
            self._earlier.replace(self._taken_from)
        self._taken_from = None

    def write(self, result: "Result") -> None:
        """Add a frame."""
        self.draw(result.frame, result.labels)
        self._forget_earlier()

    def draw(self, frame: "SourceFrame", labels: NDArray[np.uint8]) -> None:
        """Add a frame with its labels uint8 [H,W]. What an earlier run left stays, to be given back."""
        assert self._video is not None
        self._video.write(self._picture.of(frame, labels), frame.time_s)

    def sync(self) -> None:
        """Have what was written on the disk itself."""
        if self._video is not None:
            self._video.sync()

    def close(self, frames: int) -> int:
        """End with the first `frames`; gives how many there are: whole groups where the disk has no room."""
        video, self._video = self._video, None
        if video is None:
            return 0
        if video.frames == frames:
            with suppress(InputError, OSError):
                video.finish()
                self._kept = 0
                return frames
        left = video.drop()
        if left < self._kept:  # there was no room for what the earlier run had
            self._earlier.replace(self.path)
            left = self._kept
        return left

    def publish(self) -> None:
        """Take the place of what is at `place`."""
        self.path.replace(self.place)
        sync_folder(self.place.parent)
        self._earlier.unlink(missing_ok=True)

    def discard(self) -> None:
        """Leave nothing."""
        self._drop()
        self.path.unlink(missing_ok=True)
        self._earlier.unlink(missing_ok=True)

    def _drop(self) -> None:
        video, self._video, self._kept = self._video, None, 0
        if video is not None:
            video.drop()

    def _forget_earlier(self) -> None:
        if self._kept and self._video and self._video.safe >= self._kept:
            self._video.sync()
            self._kept = 0
            self._earlier.unlink(missing_ok=True)


def _at_size(
    frame_bgr: NDArray[np.uint8], labels: NDArray[np.uint8], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Frame and labels at a size (height, width): a live source may change its own."""
    if frame_bgr.shape[:2] == size:
        return frame_bgr, labels
    resized = cv2.resize(frame_bgr, size[::-1], interpolation=cv2.INTER_AREA)
    nearest = cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, np.uint8), np.asarray(nearest, np.uint8)
