"""Data sets by name: folders read back exactly, rendered ones repeat, and errors name the file."""

import cv2
import numpy as np
import pytest

from splitmerge.errors import InputError
from training.data import open_dataset, training_sets

SIZE = (40, 60)


def _write(folder, count=3, size=SIZE, label_size=None, classes=19):
    rng = np.random.default_rng(0)
    samples = []
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        labels = rng.integers(0, classes, label_size or size, dtype=np.uint8)
        labels[0, 0] = 255
        cv2.imwrite(str(folder / f"images/{index:02d}.png"), image)
        cv2.imwrite(str(folder / f"labels/{index:02d}.png"), labels)
        samples.append((image, labels))
    return samples


def test_a_folder_reads_back_exactly(tmp_path):
    samples = _write(tmp_path)
    dataset = open_dataset(str(tmp_path), SIZE)
    assert len(dataset) == 3
    for index, (image, labels) in enumerate(samples):
        np.testing.assert_array_equal(dataset[index][0], image)
        np.testing.assert_array_equal(dataset[index][1], labels)
    assert len(list(dataset)) == 3
    assert len(open_dataset(str(tmp_path), SIZE, length=2)) == 2


def test_another_size_is_resized_without_new_labels(tmp_path):
    _, labels = _write(tmp_path, 1)[0]
    image, resized = open_dataset(str(tmp_path), (80, 120))[0]
    assert image.shape == (80, 120, 3)
    np.testing.assert_array_equal(resized, labels.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("name", ["streets", "streets:train", "drive", "drive:3"])
def test_rendered_sets_repeat_themselves(name):
    once, again = (open_dataset(name, (64, 128), 2) for _ in range(2))
    assert len(once) == 2 == len(list(once))
    for index in range(2):
        image, labels = once[index]
        assert (image.shape, labels.shape) == ((64, 128, 3), (64, 128))
        assert image.dtype == labels.dtype == np.uint8
        assert set(np.unique(labels)) <= {*range(19), 255}
        np.testing.assert_array_equal(image, again[index][0])
        np.testing.assert_array_equal(labels, again[index][1])


def test_validation_and_training_streets_and_seeds_differ():
    first = [open_dataset(name, (64, 128), 1)[0][0] for name in ("streets", "streets:train", "drive:1", "drive:2")]
    for i, image in enumerate(first):
        assert not any(np.array_equal(image, other) for other in first[i + 1 :])


def test_training_sets_of_a_folder(tmp_path):
    samples = _write(tmp_path / "one", 11)
    images, validation = training_sets(str(tmp_path / "one"), SIZE, 0, 0, tmp_path)
    assert (len(images), len(validation)) == (9, 2)
    np.testing.assert_array_equal(validation[1][0], samples[10][0])
    np.testing.assert_array_equal(images[0][0], samples[1][0])
    _write(tmp_path / "two/train", 3)
    _write(tmp_path / "two/val", 2)
    assert [len(part) for part in training_sets(str(tmp_path / "two"), SIZE, 0, 0, tmp_path)] == [3, 2]
    with pytest.raises(InputError, match="holds one image"):
        _write(tmp_path / "single", 1)
        training_sets(str(tmp_path / "single"), SIZE, 0, 0, tmp_path)
    with pytest.raises(InputError, match="no data set 'nowhere'"):
        training_sets("nowhere", SIZE, 0, 0, tmp_path)


def test_training_sets_of_streets_are_cached(tmp_path):
    for _ in range(2):
        images, validation = training_sets("streets", (32, 64), 2, 1, tmp_path)
        assert (len(images), len(validation)) == (2, 1)
    np.testing.assert_array_equal(validation[0][0], open_dataset("streets", (32, 64), 1)[0][0])


def _no_labels_folder(folder):
    (folder / "images").mkdir()


def _no_images(folder):
    _write(folder, 0)


def _missing_label(folder):
    _write(folder)
    (folder / "labels/01.png").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_no_labels_folder, "has no folder labels/"),
        (_no_images, "images holds no images"),
        (_missing_label, r"images/01\.png has no label: expected .*labels/01\.png"),
    ],
)
def test_folders_that_do_not_pair(tmp_path, spoil, words):
    spoil(tmp_path)
    with pytest.raises(InputError, match=words):
        open_dataset(str(tmp_path), SIZE)


def _sizes(folder):
    _write(folder, label_size=(40, 61))


def _not_an_image(folder):
    _write(folder)
    (folder / "images/00.png").write_text("not an image")


def _empty_image(folder):
    _write(folder)
    (folder / "labels/00.png").write_bytes(b"")


def _foreign_ids(folder):
    _write(folder, classes=34)


def _colours(folder):
    _write(folder)
    cv2.imwrite(str(folder / "labels/00.png"), np.zeros((*SIZE, 3), np.uint8))


def _deep(folder):
    _write(folder)
    cv2.imwrite(str(folder / "labels/00.png"), np.zeros(SIZE, np.uint16))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_sizes, r"labels/00\.png is 40x61 and its image .*images/00\.png is 40x60"),
        (_not_an_image, r"images/00\.png is not an image that can be decoded"),
        (_empty_image, r"labels/00\.png is not an image that can be decoded \(0 bytes\)"),
        (_foreign_ids, r"labels/00\.png holds label 33: labels of 19 classes are 0 to 18"),
        (_colours, r"labels/00\.png has 3 channel\(s\) of uint8"),
        (_deep, r"labels/00\.png has 1 channel\(s\) of uint16"),
    ],
)
def test_samples_that_cannot_be_used(tmp_path, spoil, words):
    spoil(tmp_path)
    with pytest.raises(InputError, match=words):
        open_dataset(str(tmp_path), SIZE)[0]


@pytest.mark.parametrize("name", ["nowhere", "streets:test", "drive:fast"])
def test_unknown_names_are_answered_with_the_known_ones(name):
    with pytest.raises(InputError, match="`streets`, `streets:train`, `drive`"):
        open_dataset(name, SIZE)


def test_sizes_and_lengths_that_cannot_be():
    with pytest.raises(InputError, match="16x64 are too small"):
        open_dataset("drive", (16, 64))
    with pytest.raises(InputError, match="0 images"):
        open_dataset("drive", SIZE, 0)
