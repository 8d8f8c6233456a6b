"""Small data sets in the official folder layouts, with palettes that Pillow writes."""

import json
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

SIZE = (24, 40)
VISTAS = json.loads((Path(__file__).parent / "vistas_classes.json").read_text())
"""Name and colour of Vistas 1.2's 66 classes in the order of its config.json."""

CITYSCAPES_COLOURS = {7: (128, 64, 128), 17: (153, 153, 153), 18: (153, 153, 153), 26: (0, 0, 142), 34: (0, 0, 142)}


class Form(NamedTuple):
    """Paths of image and label in a split (`{n}` is the sample's number), and the values that labels may hold."""

    image: str
    label: str
    values: tuple[int, ...]
    splits: dict[str, str] = {"train": "train", "val": "val"}  # noqa: RUF012
    palette: bool = False
    lists: str | None = None


FORMS = {
    "cityscapes": Form(
        "leftImg8bit/{split}/ulm/ulm_{n:06d}_000019_leftImg8bit.png",
        "gtFine/{split}/ulm/ulm_{n:06d}_000019_gtFine_labelIds.png",
        tuple(range(34)),
    ),
    "cityscapes-coarse": Form(
        "leftImg8bit/{split}/ulm/ulm_{n:06d}_000019_leftImg8bit.png",
        "gtCoarse/{split}/ulm/ulm_{n:06d}_000019_gtCoarse_labelIds.png",
        tuple(range(34)),
        {"train": "train", "val": "val", "train_extra": "train_extra"},
    ),
    "gta5": Form("images/{n:05d}.png", "labels/{n:05d}.png", tuple(range(35)), {"all": ""}, True),
    "camvid": Form("{split}/0001TP_{n:06d}.png", "{split}annot/0001TP_{n:06d}.png", tuple(range(12))),
    "voc": Form(
        "JPEGImages/2007_{n:06d}.jpg",
        "SegmentationClass/2007_{n:06d}.png",
        (*range(21), 255),
        palette=True,
        lists="ImageSets/Segmentation",
    ),
    "pascal-context": Form(
        "JPEGImages/2008_{n:06d}.jpg",
        "SegmentationClassContext/2008_{n:06d}.png",
        tuple(range(60)),
        lists="ImageSets/SegmentationContext",
    ),
    "ade20k": Form(
        "images/{split}/ADE_{n:08d}.jpg",
        "annotations/{split}/ADE_{n:08d}.png",
        tuple(range(151)),
        {"train": "training", "val": "validation"},
    ),
    "kitti": Form(
        "training/image_2/{n:06d}_10.png", "training/semantic/{n:06d}_10.png", tuple(range(34)), {"train": ""}
    ),
    "vistas": Form(
        "{split}/images/key{n}.jpg",
        "{split}/labels/key{n}.png",
        tuple(range(66)),
        {"train": "training", "val": "validation"},
        True,
    ),
}


def write_set(kind: str, root: Path, count: int = 3, size: tuple[int, int] = SIZE) -> dict[str, list[np.ndarray]]:
    """Write `count` samples a split into `root`; give the values that its labels hold, by split."""
    form, number, values = FORMS[kind], 0, {}
    random = np.random.default_rng(0)
    for split, folder in form.splits.items():
        values[split] = []
        for _ in range(count):
            number += 1
            raw = _values(random, form.values, size)
            write_image(root / form.image.format(split=folder, n=number), random, size)
            write_label(root / form.label.format(split=folder, n=number), raw, form.palette)
            values[split].append(raw)
            if form.lists:
                _append(root / form.lists / f"{split}.txt", Path(form.image.format(split=folder, n=number)).stem)
    if kind == "vistas":
        entries = [{"name": name, "color": colour} for name, colour in VISTAS]
        (root / "config.json").write_text(json.dumps({"labels": entries, "version": "1.1"}))
    return values


def write_image(path: Path, random: np.random.Generator, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), random.integers(0, 256, (*size, 3), dtype=np.uint8))


def write_label(path: Path, values: np.ndarray, palette: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not palette:
        assert cv2.imwrite(str(path), values)
        return
    image = Image.fromarray(values, "P")
    # Several indices of one colour, as in Cityscapes' palette, so that colours would not do.
    image.putpalette([value for index in range(256) for value in CITYSCAPES_COLOURS.get(index, (index % 7, 0, 9))])
    image.save(path)


def _values(random: np.random.Generator, values: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """Every value at least once, in places by chance."""
    raw = random.choice(np.array(values, np.uint8), size).ravel()
    raw[random.permutation(raw.size)[: len(values)]] = values
    return raw.reshape(size)


def _append(path: Path, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(f"{name}\n")
