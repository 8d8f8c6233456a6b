"""Anybody's folder: images/ with labels/ of the same names, and what the labels mean in a classes.yaml.

    FOLDER/images/NAME.png|jpg|...,  FOLDER/labels/NAME.png       one set; training holds every tenth image out
    FOLDER/train/images/..., FOLDER/val/images/...                or its splits
    FOLDER/classes.yaml                                           optional

Without classes.yaml, labels are 8-bit gray images whose pixels are class ids, 255 to ignore. With it:

    classes:
      - road                                         # a name is enough: its place, from 0 on, is its pixel value
      - {name: car, colour: [0, 0, 142]}             # red, green, blue, or "#00008e": how it is painted
      - {name: person, values: [24, 25]}             # pixel values (palette indices, too); then every class gives them
      - {name: sky, colours: [[70, 130, 180]]}       # with `masks: colours`: the colours that it has in the labels;
                                                     # where it gives none, its `colour`
    masks: values                                    # or colours
    ignore: [0, 255]                                 # values or colours without a class; 255 is one by itself
    images: images                                   # the folders' names, where they are others
    labels: labels
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitmerge.errors import InputError
from splitmerge.labels import CITYSCAPES, IGNORE, LabelClass
from training.datasets.layout import Layout, Listing, bit_colour, files_in, paired
from training.datasets.reading import IMAGE_SUFFIXES, Decode, colour_decoder, gray_decoder, value_decoder

__all__ = ["FILE", "Description", "folder_layout", "is_folder", "read_description"]

FILE = "classes.yaml"
_MOST = 254
_KEYS = {"classes", "masks", "ignore", "images", "labels"}
_CLASS_KEYS = {"name", "colour", "color", "values", "colours", "colors"}

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Description:
    """What a classes.yaml says: `values` or `colours` map what is in a label file to class ids, the other is empty."""

    classes: tuple[LabelClass, ...]
    values: dict[int, int]
    colours: dict[Colour, int]
    images: str = "images"
    labels: str = "labels"

    def decoder(self, name: str) -> Decode:
        """Read label files as described."""
        return colour_decoder(self.colours, name) if self.colours else value_decoder(self.values, name)


def folder_layout(root: Path, num_classes: int) -> tuple[Layout, bool]:
    """The layout of a folder, and whether it says itself what its classes are.

    Without a classes.yaml, in it or above its split, it has `num_classes` classes of no known name.
    """
    path = _description_of(root)
    described = read_description(path) if path else None
    images, labels = (described.images, described.labels) if described else ("images", "labels")
    has_splits = not (root / images).is_dir() and (root / "train").is_dir() and (root / "val").is_dir()

    def list_split(root: Path, split: str) -> Listing:
        folder = root / split if has_splits else root
        for part in (images, labels):
            if not (folder / part).is_dir():
                raise InputError(f"{folder} has no folder {part}/: a data set holds {images}/ and {labels}/.")
        found = files_in(folder / images)
        if not found:
            raise InputError(f"{folder / images} holds no images ({', '.join(IMAGE_SUFFIXES)}): put some there.")
        return paired(found, lambda image: folder / labels / f"{image.stem}.png", files_in(folder / labels))

    decode = described.decoder(str(path)) if described else gray_decoder(num_classes)
    classes = described.classes if described else CITYSCAPES[:num_classes]
    splits = ("train", "val") if has_splits else ("all",)
    layout = Layout(
        "folder",
        str(root),
        classes,
        splits,
        (),
        list_split,
        lambda _: decode,
        training=splits[0],
        validation="val" if has_splits else None,
    )
    return layout, described is not None


def is_folder(root: Path) -> bool:
    """Whether `root` looks like such a folder, or like a split of one."""
    forms = (("images", "labels"), ("train/images", "train/labels", "val/images"))
    return _description_of(root) is not None or any(all((root / part).is_dir() for part in form) for form in forms)


def _description_of(root: Path) -> Path | None:
    """The classes.yaml of a folder, or of the one that it is a split of."""
    places = (root, root.parent) if root.name in ("train", "val", "test") else (root,)
    return next((place / FILE for place in places if (place / FILE).is_file()), None)


def read_description(path: Path) -> Description:
    """Read a classes.yaml. Raises InputError for what it does not say, or says in another form."""
    try:
        import yaml
    except ImportError:
        raise InputError(f'{path} takes PyYAML to be read: pip install ".[data]" in the checkout.') from None
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML ({' '.join(str(error).split())}): correct it.") from None
    return _described(path, _mapping(path, content, "the file", _KEYS))


def _described(path: Path, content: dict[str, Any]) -> Description:
    entries = content.get("classes")
    if not isinstance(entries, list) or not 1 <= len(entries) <= _MOST:
        raise InputError(f"{path} has no list `classes` of 1 to {_MOST} classes: give their names, one an item.")
    masks = content.get("masks", "values")
    if masks not in ("values", "colours", "colors"):
        raise InputError(f"{path} says masks: {masks!r}, which is neither values nor colours: correct it.")
    items = [
        {"name": entry} if isinstance(entry, str) else _mapping(path, entry, f"class {index}", _CLASS_KEYS)
        for index, entry in enumerate(entries)
    ]
    classes = tuple(_label_class(path, index, item) for index, item in enumerate(items))
    names = [entry.name for entry in classes]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"{path} names the class {twice[0]} twice: give every class a name of its own.")
    ignored = _list(path, content.get("ignore", []), "ignore")
    folders = [_folder(path, content, key) for key in ("images", "labels")]
    if masks == "values":
        return Description(classes, _values(path, items, ignored), {}, *folders)
    return Description(classes, {}, _colours(path, items, classes, ignored), *folders)


def _values(path: Path, items: list[dict[str, Any]], ignored: list[Any]) -> dict[int, int]:
    given = ["values" in item for item in items]
    if any(given) and not all(given):
        raise InputError(
            f"{path} gives values to some classes and not to {items[given.index(False)]['name']}: give them to all, or "
            "to none, whose values then are their places."
        )
    ids: dict[int, int] = {}
    for index, item in enumerate(items):
        for value in _list(path, item.get("values", [index]), f"values of {item['name']}"):
            _add(path, ids, _value(path, value), index, items)
    for value in ignored:
        _add(path, ids, _value(path, value), IGNORE, items)
    return {IGNORE: IGNORE} | ids


def _colours(
    path: Path, items: list[dict[str, Any]], classes: tuple[LabelClass, ...], ignored: list[Any]
) -> dict[Colour, int]:
    ids: dict[Colour, int] = {}
    for index, (item, entry) in enumerate(zip(items, classes, strict=True)):
        own = item.get("colours", item.get("colors"))
        if own is None and not {"colour", "color"} & set(item):
            raise InputError(f"{path} says masks: colours and gives {entry.name} none: add its colour or colours.")
        wanted = (
            [entry.rgb] if own is None else [_colour(path, c) for c in _list(path, own, f"colours of {entry.name}")]
        )
        for colour in wanted:
            _add(path, ids, colour, index, items)
    for colour in ignored:
        _add(path, ids, _colour(path, colour), IGNORE, items)
    return ids


def _add(path: Path, ids: dict[Any, int], key: object, label: int, items: list[dict[str, Any]]) -> None:
    if ids.setdefault(key, label) != label:
        words = [("ignore" if which == IGNORE else items[which]["name"]) for which in (ids[key], label)]
        raise InputError(f"{path} gives {key} to {words[0]} and to {words[1]}: it can mean one of them.")


def _label_class(path: Path, index: int, item: dict[str, Any]) -> LabelClass:
    name = item.get("name")
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{path} has a class {index} without a name: give it one.")
    colour = item.get("colour", item.get("color"))
    return LabelClass(name, bit_colour(index + 1) if colour is None else _colour(path, colour))


def _colour(path: Path, given: Any) -> Colour:
    if isinstance(given, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", given):
        return int(given[1:3], 16), int(given[3:5], 16), int(given[5:], 16)
    if isinstance(given, list) and len(given) == 3 and all(type(v) is int and 0 <= v <= 255 for v in given):
        return given[0], given[1], given[2]
    raise InputError(f'{path} has the colour {given!r}: give [red, green, blue] of 0 to 255, or "#rrggbb".')


def _value(path: Path, given: Any) -> int:
    if type(given) is not int or not 0 <= given <= 255:
        raise InputError(f"{path} has the pixel value {given!r}: give whole numbers from 0 to 255.")
    return given


def _list(path: Path, given: Any, what: str) -> list[Any]:
    if not isinstance(given, list):
        raise InputError(f"{path} has {what}: {given!r}, which is no list: write it in [ ].")
    return list(given)


def _folder(path: Path, content: dict[str, Any], key: str) -> str:
    name = content.get(key, key)
    if not isinstance(name, str) or not name:
        raise InputError(f"{path} has {key}: {name!r}: give the name of a folder.")
    return name


def _mapping(path: Path, given: Any, what: str, keys: Iterable[str]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InputError(
            f"{path}: {what} is {given!r}, and `key: value` was expected: see training/datasets/folder.py."
        )
    for key in given:
        if key not in keys:
            raise InputError(f"{path}: {what} has the key {key!r}, which means nothing: use {', '.join(sorted(keys))}.")
    return dict(given)
