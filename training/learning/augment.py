"""What a step sees: random images, rescaled, cropped, flipped and coloured. NumPy and OpenCV only.

Every draw comes from the seed, the step's number and a crop's place in the batch alone. So a resumed training sees what
an uninterrupted one does, and networks trained with one seed see the same crops (SMP paper, section 4.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from splitmerge.errors import InputError
from splitmerge.labels import IGNORE, LabelClass
from training.data import Dataset
from training.datasets.reading import Image
from training.datasets.samples import Picked
from training.learning.config import TrainConfig

__all__ = ["Crops", "check_fits", "crops_of_step", "with_hard_images"]

_MEAN_PIXEL_BGR = (104, 116, 124)
"""ImageNet's mean (0.406, 0.456, 0.485) in units of 0..255: about zero when normalised."""
_GRAY_OF_BGR = np.array([0.114, 0.587, 0.299], np.float32)


@dataclass(frozen=True)
class Crops:
    """Crops uint8 `[N,h,w,3]`, blue-green-red, their labels uint8 `[N,h,w]`, and the images that they are of."""

    images_bgr: Image
    labels: Image
    indices: tuple[int, ...]


def crops_of_step(config: TrainConfig, images: Dataset, step: int, part: slice = slice(None)) -> Crops:
    """The crops of a step, or a part of them. Raises InputError for an image that is too small for the crop."""
    random = np.random.default_rng([config.draws, step])
    indices = random.integers(len(images), size=config.batch).tolist()
    wanted = range(config.batch)[part]
    crops, labels = [], []
    for place, index in enumerate(indices):
        if config.recipe.one_stream:  # what comes before is drawn, too, wanted or not
            own = random
        elif place in wanted:
            own = np.random.default_rng([config.draws, step, place])
        else:
            continue
        crop, label = _crop(config, images, index, own)
        if place in wanted:
            crops.append(crop)
            labels.append(label)
    return Crops(np.stack(crops), np.stack(labels), tuple(indices[part]))


def check_fits(config: TrainConfig, index: int, labels: Image) -> None:
    """Raises InputError for an image that is smaller than the crop, where images keep their size."""
    height, width = labels.shape
    if config.recipe.scale is None and (height < config.crop[0] or width < config.crop[1]):
        raise InputError(
            f"Image {index} of {config.data} is {height}x{width} and the crop is {config.crop[0]}x{config.crop[1]}: "
            "choose a smaller --crop or a larger --size."
        )


def with_hard_images(images: Dataset, classes: Sequence[LabelClass], hard: Sequence[str]) -> Dataset:
    """The data set with every image that holds one of the `hard` classes a second time (DeepLabv3 paper, section 4.3).

    Reads every label once. Raises InputError for a class that the data set has not.
    """
    if not hard:
        return images
    ids = {entry.name: index for index, entry in enumerate(classes)}
    for name in hard:
        if name not in ids:
            raise InputError(f"There is no class {name!r} to count twice: choose from {', '.join(ids)}.")
    wanted = [ids[name] for name in hard]
    again = [index for index in range(len(images)) if np.isin(images[index][1], wanted).any()]
    return Picked(images, [*range(len(images)), *again])


def _crop(config: TrainConfig, images: Dataset, index: int, random: np.random.Generator) -> tuple[Image, Image]:
    """Image [h,w,3] and labels [h,w] of the crop's size."""
    image, labels = images[index]
    check_fits(config, index, labels)
    (height, width), scale = config.crop, config.recipe.scale
    if scale is not None:  # a window of the image that has the crop's size when it is rescaled
        factor = float(random.uniform(*scale))
        height, width = max(1, round(height / factor)), max(1, round(width / factor))
    top, left = _start(labels.shape[0], height, random), _start(labels.shape[1], width, random)
    flipped = np.s_[:, :: -1 if random.random() < 0.5 else 1]
    image, labels = _window(image, labels, top, left, height, width)
    if (height, width) != config.crop:
        image, labels = _resized(image, labels, *config.crop)
    if config.recipe.colour:
        image = _coloured(image, config.recipe.colour, random)
    return image[flipped], labels[flipped]


def _start(size: int, window: int, random: np.random.Generator) -> int:
    """Where a window begins: inside the image, or around it where it is larger."""
    return int(random.integers(min(0, size - window), max(0, size - window) + 1))


def _window(image: Image, labels: Image, top: int, left: int, height: int, width: int) -> tuple[Image, Image]:
    """Cut a window out; outside the image it is the mean pixel, ignored."""
    rows, columns = slice(max(0, top), top + height), slice(max(0, left), left + width)
    image, labels = image[rows, columns], labels[rows, columns]
    above, before = max(0, -top), max(0, -left)
    below, after = height - above - labels.shape[0], width - before - labels.shape[1]
    if not any((above, below, before, after)):
        return image, labels
    border = (above, below, before, after, cv2.BORDER_CONSTANT)
    image = np.asarray(cv2.copyMakeBorder(image, *border, value=_MEAN_PIXEL_BGR), np.uint8)
    return image, np.asarray(cv2.copyMakeBorder(labels, *border, value=(IGNORE,)), np.uint8)


def _resized(image: Image, labels: Image, height: int, width: int) -> tuple[Image, Image]:
    smooth = cv2.INTER_AREA if height < labels.shape[0] else cv2.INTER_LINEAR
    resized = cv2.resize(image, (width, height), interpolation=smooth)
    nearest = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, np.uint8), np.asarray(nearest, np.uint8)


def _coloured(image: Image, most: float, random: np.random.Generator) -> Image:
    """Brightness, contrast and saturation, each changed by a factor from 1 - most to 1 + most."""
    brightness, contrast, saturation = random.uniform(1 - most, 1 + most, 3).astype(np.float32)
    pixels = image.astype(np.float32) * brightness
    mean = float((pixels @ _GRAY_OF_BGR).mean())
    pixels = mean + (pixels - mean) * contrast
    gray = (pixels @ _GRAY_OF_BGR)[..., None]
    return np.asarray((gray + (pixels - gray) * saturation).round().clip(0, 255), np.uint8)
