"""A folder of images and masks with a classes.yaml: values, colours, names; and what it may not say."""

import cv2
import numpy as np
import pytest
from PIL import Image

from splitmerge.errors import InputError
from splitmerge.labels import LabelClass
from training.data import classes_of, image_files, open_dataset, training_sets
from training.datasets.folder import read_description

SIZE = (12, 20)
VALUES = np.random.default_rng(0).choice(np.array([0, 3, 24, 25, 200], np.uint8), SIZE)

BY_VALUE = """
classes:
  - {name: road, colour: [128, 64, 128], values: [3]}
  - {name: person, color: "#dc143c", values: [24, 25]}
ignore: [0, 200]
"""
BY_COLOUR = """
classes:
  - {name: road, colour: [128, 64, 128]}
  - {name: person, colour: [220, 20, 60], colours: [[1, 2, 3], "#040506"]}
masks: colours
ignore: [[0, 0, 0]]
"""


def _folder(root, text, mask=VALUES, count=2, images="images", labels="labels"):
    for part in (images, labels):
        (root / part).mkdir(parents=True)
    for index in range(count):
        image = np.random.default_rng(index).integers(0, 256, (*mask.shape[:2], 3), dtype=np.uint8)
        cv2.imwrite(str(root / images / f"{index}.png"), image)
        Image.fromarray(mask).save(root / labels / f"{index}.png")
    if text:
        (root / "classes.yaml").write_text(text)
    return str(root)


def test_pixel_values_and_names_and_colours(tmp_path):
    name = _folder(tmp_path, BY_VALUE)
    assert classes_of(name) == (LabelClass("road", (128, 64, 128)), LabelClass("person", (220, 20, 60)))
    found = open_dataset(name, SIZE, num_classes=2)[0][1]
    expected = np.select([VALUES == 3, (VALUES == 24) | (VALUES == 25)], [0, 1], 255)
    np.testing.assert_array_equal(found, expected)
    assert [path.name for path in image_files(name)] == ["0.png", "1.png"]


def test_colours(tmp_path):
    colours = np.array([[128, 64, 128], [1, 2, 3], [4, 5, 6], [0, 0, 0]], np.uint8)
    index = np.random.default_rng(1).integers(0, 4, SIZE)
    name = _folder(tmp_path, BY_COLOUR, colours[index])
    found = open_dataset(name, SIZE, num_classes=2)[0][1]
    np.testing.assert_array_equal(found, np.array([0, 1, 1, 255], np.uint8)[index])
    cv2.imwrite(str(tmp_path / "labels/0.png"), np.full((*SIZE, 3), 77, np.uint8))
    with pytest.raises(InputError, match=r"has the colour \(77, 77, 77\), red-green-blue, on one of 240 pixels"):
        open_dataset(name, SIZE, num_classes=2)[0]


def test_names_alone_count_from_0_and_palettes_are_read(tmp_path):
    name = _folder(tmp_path, "classes: [a, b, c]", np.random.default_rng(0).integers(0, 3, SIZE, dtype=np.uint8))
    values = cv2.imread(str(tmp_path / "labels/0.png"), cv2.IMREAD_UNCHANGED)
    values[0, 0] = 255
    image = Image.fromarray(values, "P")
    image.putpalette([9] * 768)
    image.save(tmp_path / "labels/0.png")
    np.testing.assert_array_equal(open_dataset(name, SIZE, num_classes=3)[0][1], values)
    assert len({entry.rgb for entry in classes_of(name)}) == 3  # colours of their own


def test_splits_and_folders_of_other_names(tmp_path):
    text = BY_VALUE + "images: rgb\nlabels: masks\n"
    for split in ("train", "val"):
        _folder(tmp_path / split, "", images="rgb", labels="masks", count=2 if split == "train" else 1)
    (tmp_path / "classes.yaml").write_text(text)
    train, val = training_sets(str(tmp_path), SIZE, 0, 0, tmp_path, 2)
    assert (len(train), len(val)) == (2, 1)
    for name, count in ((f"{tmp_path}", 1), (f"{tmp_path}:train", 2), (f"{tmp_path}/train", 2)):
        assert len(open_dataset(name, SIZE, num_classes=2)) == count
        assert len(classes_of(name)) == 2
    (tmp_path / "val/masks/0.png").unlink()
    with pytest.raises(InputError, match=r"has no label: expected .*val/masks/0\.png"):
        open_dataset(str(tmp_path), SIZE, num_classes=2)


def test_a_value_that_no_class_has(tmp_path):
    name = _folder(tmp_path, BY_VALUE.replace(", 200]", "]"))
    with pytest.raises(InputError, match=r"labels/0\.png holds value 200, which .*classes\.yaml does not have"):
        open_dataset(name, SIZE, num_classes=2)[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is None, and `key: value` was expected"),
        ("classes: [", "cannot be read as YAML"),
        ("!!python/object/apply:os.system ['true']", "cannot be read as YAML"),
        ("classes: {a: b}", "has no list `classes`"),
        ("classes: []", "has no list `classes` of 1 to 254"),
        ("classes: [a, a]", "names the class a twice"),
        ("classes: [a, 3]", "class 1 is 3"),
        ("classes: [{colour: [1, 2, 3]}]", "a class 0 without a name"),
        ("classes: [{name: a, colour: [1, 2]}]", r"has the colour \[1, 2\]"),
        ("classes: [{name: a, colour: red}]", "has the colour 'red'"),
        ("classes: [{name: a, values: [256]}]", "has the pixel value 256"),
        ("classes: [{name: a, values: 3}]", "which is no list"),
        ("classes: [{name: a, values: [3]}, b]", "gives values to some classes and not to b"),
        ("classes: [{name: a, values: [3]}, {name: b, values: [3]}]", "gives 3 to a and to b"),
        ("classes: [a]\nignore: [0]", "gives 0 to a and to ignore"),
        ("classes: [a]\nmasks: pictures", "says masks: 'pictures'"),
        ("classes: [a]\nmasks: colours", "says masks: colours and gives a none"),
        ("classes: [a]\nimages: 3", "has images: 3"),
        ("classes: [a]\nclases: [b]", "has the key 'clases', which means nothing"),
        ("classes: [{name: a, rgb: [1, 2, 3]}]", "class 0 has the key 'rgb'"),
    ],
)
def test_what_it_may_not_say(tmp_path, text, words):
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_description(path)


def test_without_pyyaml_the_extra_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(InputError, match=r'takes PyYAML to be read: pip install "\.\[data\]"'):
        classes_of(_folder(tmp_path, BY_VALUE))
