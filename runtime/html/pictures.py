"""Frames and label maps inside the page, and the gallery of a comparison's worst frames."""

import base64
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.drawing import marked
from runtime.examples import Example
from runtime.html.elements import Element, element
from splitmerge.labels import IGNORE, LabelClass, palette_bgr

__all__ = ["gallery", "legend", "picture", "swatch"]

LONGEST_SIDE = 640
"""Pixels of a picture in the page; larger ones are shrunk to it."""
SHARP_BELOW = 400
"""Label maps narrower than this are shown larger than they are: then as squares, not smoothed."""
JPEG_QUALITY = 82

Image = NDArray[np.uint8]


def picture(image_bgr: Image, alt: str, lossless: bool) -> Element:
    """An image element that holds its pixels: PNG where `lossless`, else JPEG."""
    small = _shrunk(image_bgr)
    kind = "png" if lossless else "jpeg"
    options = [] if lossless else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    data = base64.b64encode(cv2.imencode(f".{kind}", small, options)[1].tobytes()).decode()
    height, width = small.shape[:2]
    sharp = "sharp" if lossless and width < SHARP_BELOW else None
    return element("img", src=f"data:image/{kind};base64,{data}", alt=alt, width=width, height=height, class_=sharp)


def gallery(examples: Sequence[Example], classes: tuple[LabelClass, ...]) -> list[Element]:
    """For each example a heading with its numbers, and six pictures."""
    return [_example(example, classes) for example in examples]


def legend(classes: tuple[LabelClass, ...], unscored: bool) -> Element:
    """Colours and names of the classes, and of what has none where that occurs."""
    shown = (*classes, LabelClass("not scored", (0, 0, 0))) if unscored else classes
    items = [element("li", swatch(entry), entry.name) for entry in shown]
    return element("ul", *items, class_="legend", aria_label="Colours of the classes")


def swatch(entry: LabelClass) -> Element:
    """A small square in the class's colour."""
    red, green, blue = map(int, entry.rgb)
    return element("span", class_="swatch", style=f"background: rgb({red}, {green}, {blue})", aria_hidden="true")


def _example(example: Example, classes: tuple[LabelClass, ...]) -> Element:
    colours = palette_bgr(classes)
    about = f"image {example.index}" + (f", {example.name}" if example.name else "")
    differing, wrong, pixels = example.differing, example.wrong, example.truth.size
    scored = example.scored
    notes = (
        f"{differing:,} of {pixels:,} pixels differ between engine and reference "
        f"({100 * differing / pixels:.4f} %); the engine is wrong on {wrong:,} of {scored:,} scored pixels "
        f"({100 * wrong / max(1, scored):.2f} %), the reference on {example.reference_wrong:,}."
    )
    cells = [
        ("frame", picture(example.image_bgr, f"Frame of {about}", lossless=False)),
        ("ground truth", picture(colours[example.truth], f"Ground truth of {about}", lossless=True)),
        ("reference (PyTorch)", picture(colours[example.reference], f"Labels of the reference, {about}", True)),
        ("engine", picture(colours[example.engine], f"Labels of the engine, {about}", lossless=True)),
        (
            "difference, engine from reference",
            picture(
                marked(example.image_bgr, example.reference != example.engine),
                f"In red: the {differing:,} pixels of {about} where engine and reference differ",
                lossless=False,
            ),
        ),
        (
            "errors of the engine",
            picture(
                marked(example.image_bgr, (example.engine != example.truth) & (example.truth != IGNORE), grown=False),
                f"In red: the {wrong:,} pixels of {about} where the engine is wrong",
                lossless=False,
            ),
        ),
    ]
    figures = [element("figure", image, element("figcaption", title)) for title, image in cells]
    return element(
        "article",
        element("h4", about[:1].upper() + about[1:]),
        element("p", notes),
        element("div", *figures, class_="pictures"),
        class_="example",
    )


def _shrunk(image: Image) -> Image:
    height, width = image.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
