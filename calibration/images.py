"""What `--data` may be when ranges are collected: frames uint8 [H,W,3] blue-green-red at the package's size, in order.

    streets, drive:7     a rendered set by name; `streets` is its training split here, for what a network is calibrated
                         on should not be what it is scored on; of a drive one frame a second
    KIND:DIR, FOLDER     the training images of a data set (`training.data`)
    FOLDER               the images in it, or in its images/; labels are not needed
    FILE                 one image, or a video

From a folder or a video that has more, `count` images are taken at equal distances. Frames of another size are resized
as running does. NumPy and OpenCV only.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from splitmerge.errors import InputError
from training.data import IMAGE_SUFFIXES, image_files, is_rendered, open_dataset, read_image

__all__ = ["DEFAULT_IMAGES", "Contrasting", "DataHash", "Images", "data_hash", "open_images"]

DEFAULT_IMAGES = 64
"""Half of the thresholds are then within 1 % of what twice as many images give, and all within 8 %; but for minmax,
which follows the single largest value. The shipped SMP-18 at 256x512, streets:train; change against the thresholds of
128 images, median / worst of 29 tensors in %:

    images       minmax     entropy         mse  percentile-99.9  percentile-99.99  percentile-99.999
         1  27.9 / 44.6  7.9 / 28.8  6.2 / 29.0       2.7 / 20.7        5.1 / 25.7         6.7 / 30.7
         4  17.9 / 32.9  3.4 / 16.6  3.4 / 16.0        1.9 / 7.8        3.3 / 13.8         3.7 / 15.6
        16   4.6 / 20.5  2.4 / 16.1  2.0 / 11.3       1.4 / 12.0        2.2 / 13.5         2.2 / 11.4
        32   3.6 / 17.9  1.3 / 12.5  1.1 / 10.5        1.4 / 9.1        1.1 / 10.6         1.3 / 10.7
        64   1.9 / 17.9   0.8 / 7.4   0.5 / 5.5        0.2 / 2.3         0.3 / 4.0          0.5 / 6.2
"""

Frame = NDArray[np.uint8]
_T = TypeVar("_T")


class Images(Protocol):
    """Frames to iterate as often as one likes, the same ones every time.

    `len` is how many there are; of a video that ends before it said it would, fewer come.
    """

    @property
    def name(self) -> str:
        """What the user called them."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Frame]: ...


def open_images(data: str, size: tuple[int, int], count: int = DEFAULT_IMAGES) -> Images:
    """Open up to `count` images of `data` for frames of `size` (height, width) in pixels.

    Raises InputError for data that is none of the above, is empty or cannot be read; a single image's when it is read.
    """
    if count < 1:
        raise InputError(f"{count} images are not enough to calibrate with: ask for 1 or more.")
    path = Path(data)
    if is_rendered(data):
        return _Rendered(data, size, count)
    files = image_files(data)
    if files is not None:
        return _Files(data, _some(files, count), size)
    if path.is_dir():
        folder = path / "images" if (path / "images").is_dir() else path
        return _Files(data, _some(_images_in(folder), count), size)
    if not path.is_file():
        raise InputError(
            f"There is no data {data!r} to calibrate with: name a folder of images, an image, a video, or one of the "
            "rendered sets `streets` and `drive`."
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _Files(data, [path], size)
    return _Video(data, _frame_count(path), size, count)


class DataHash:
    """SHA-256 of frames as they come: of their sizes and pixels, in order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.images = 0

    def update(self, frame: Frame) -> None:
        self._digest.update(repr(frame.shape).encode())
        self._digest.update(np.ascontiguousarray(frame).data)
        self.images += 1

    @property
    def sha256(self) -> str:
        """Of the frames so far, in hexadecimal."""
        return self._digest.hexdigest()


def data_hash(images: Iterable[Frame]) -> DataHash:
    """Read all images once for their hash and number."""
    digest = DataHash()
    for frame in images:
        digest.update(frame)
    return digest


@dataclass(frozen=True)
class Contrasting:
    """The frames of `images`; InputError behind the last where each was of one colour: nothing is seen on such."""

    images: Images

    def __iter__(self) -> Iterator[Frame]:
        seen = False
        for frame in self.images:
            seen = seen or bool((frame != frame[0, 0]).any())
            yield frame
        if not seen:
            raise InputError(
                f"{self.images.name} has only images of one colour ({len(self.images)} of them), and a network shows "
                "nothing of its range on those: give images of what it will see."
            )


class _Rendered:
    def __init__(self, name: str, size: tuple[int, int], count: int) -> None:
        self.name = name
        known = "streets:train" if name == "streets" else name
        self._dataset = open_dataset(known, size, count, fps=1.0)

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Frame]:
        return (self._dataset[index][0] for index in range(len(self)))


@dataclass(frozen=True)
class _Files:
    name: str
    paths: list[Path]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Frame]:
        return (_resized(read_image(path), self.size) for path in self.paths)


@dataclass(frozen=True)
class _Video:
    """Frames at equal distances. Seeking lands on key frames or not, as the container likes, so all are decoded."""

    name: str
    frames: int
    size: tuple[int, int]
    count: int

    def __len__(self) -> int:
        return min(self.count, self.frames)

    def __iter__(self) -> Iterator[Frame]:
        capture = _opened(Path(self.name))
        wanted = set(_some(list(range(self.frames)), self.count))
        try:
            for index in range(max(wanted) + 1):
                if not capture.grab():
                    return
                if index in wanted:
                    ok, frame = capture.retrieve()
                    if ok:
                        yield _resized(np.asarray(frame, np.uint8), self.size)
        finally:
            capture.release()


def _some(things: list[_T], count: int) -> list[_T]:
    """`count` of the things at equal distances, each the middle of its part; all where there are no more."""
    if len(things) <= count:
        return things
    return [things[(2 * index + 1) * len(things) // (2 * count)] for index in range(count)]


def _images_in(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not paths:
        raise InputError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}) to calibrate with: put some there.")
    return paths


def _frame_count(path: Path) -> int:
    """How many frames a video says that it has, or has where it does not say; at least one that can be decoded."""
    capture = _opened(path)
    try:
        if not capture.grab():
            raise InputError(f"{path} has no frame that can be decoded: copy or encode the video again.")
        promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if promised > 0:
            return promised
        frames = 1
        while capture.grab():
            frames += 1
        return frames
    finally:
        capture.release()


def _opened(path: Path) -> cv2.VideoCapture:
    # What OpenCV and FFmpeg would write on stderr is said again in our own error. FFmpeg's level is read once, when the
    # process first opens a video; a user's own setting wins.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise InputError(
            f"{path} is neither an image nor a video that can be opened ({path.stat().st_size} bytes): name a folder "
            f"of images, an image ({', '.join(IMAGE_SUFFIXES)}) or a video that is whole."
        )
    return capture


def _resized(frame_bgr: Frame, size: tuple[int, int]) -> Frame:
    """As a stream's frames are: averaged where it shrinks, linear where it grows, stretched to another aspect."""
    height, width = frame_bgr.shape[:2]
    if (height, width) == size:
        return frame_bgr
    smooth = cv2.INTER_AREA if size[0] * size[1] < height * width else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame_bgr, size[::-1], interpolation=smooth), np.uint8)
