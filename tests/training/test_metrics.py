"""IoU against cityscapesScripts' own evaluation, boundary IoU against explicit distances, and cases done by hand."""

import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitmerge.errors import InputError
from training.metrics import (
    boundary_counts,
    boundary_distance,
    boundary_iou,
    confusion_matrix,
    iou,
    mean_iou,
)


def _random_pair(seed, classes=19, size=(37, 53), ignored=0.1, wrong=0.3):
    """Blobs rather than noise, so that there are insides and boundaries."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (5, 7), dtype=np.uint8)
    target = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_NEAREST)
    noise = rng.integers(0, classes, size, dtype=np.uint8)
    prediction = np.where(rng.random(size) < wrong, noise, np.roll(target, 1, axis=1))
    target = np.where(rng.random(size) < ignored, np.uint8(255), target)
    return prediction, target


def test_by_hand():
    target = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
    prediction = np.array([[0, 1, 1], [1, 0, 2]], np.uint8)
    confusion = confusion_matrix(prediction, target, 4)
    assert confusion.dtype == np.int64
    assert confusion.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(iou(confusion), [1 / 3, 2 / 3, 0.0, np.nan])
    assert mean_iou(confusion) == pytest.approx(1 / 3)


def test_a_perfect_and_an_empty_result():
    labels = np.array([[0, 3], [3, 255]], np.uint8)
    np.testing.assert_array_equal(iou(confusion_matrix(labels, labels, 5)), [1, np.nan, np.nan, 1, np.nan])
    empty = confusion_matrix(labels, np.full((2, 2), 255, np.uint8), 5)
    assert empty.sum() == 0
    assert np.isnan(iou(empty)).all()
    assert np.isnan(mean_iou(empty))


@pytest.mark.parametrize("seed", range(3))
def test_iou_equals_cityscapes_own_evaluation(seed, tmp_path: Path):
    official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    from cityscapesscripts.helpers.labels import trainId2label

    id_from_train_id = np.array([trainId2label[i].id for i in range(19)] + [0] * 237, np.uint8)
    arguments = argparse.Namespace(evalInstLevelScore=False, evalPixelAccuracy=False)
    official_confusion = official.generateMatrix(arguments)
    confusion = np.zeros((19, 19), np.int64)
    for image in range(3):
        prediction, target = _random_pair(10 * seed + image)
        confusion += confusion_matrix(prediction, target, 19)
        names = [str(tmp_path / f"{kind}{image}.png") for kind in ("prediction", "target")]
        for name, labels in zip(names, (prediction, target), strict=True):
            assert cv2.imwrite(name, id_from_train_id[labels])
        official.evaluatePair(*names, official_confusion, {}, {}, arguments)
    expected = [
        official.getIouScoreForLabel(int(id_from_train_id[i]), official_confusion, arguments) for i in range(19)
    ]
    np.testing.assert_allclose(iou(confusion), expected, rtol=0, atol=1e-9)
    assert mean_iou(confusion) == pytest.approx(np.nanmean(expected), abs=1e-9)


def _band_by_distance(mask, d):
    """Pixels of the mask whose chessboard distance to a pixel outside it, or outside the image, is at most d."""
    height, width = mask.shape
    outside = [(y, x) for y in range(-1, height + 1) for x in range(-1, width + 1)]
    outside = [(y, x) for y, x in outside if not (0 <= y < height and 0 <= x < width) or not mask[y, x]]
    outside = np.array(outside)
    band = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        band[y, x] = np.abs(outside - (y, x)).max(axis=1).min() <= d
    return band


@pytest.mark.parametrize(("seed", "d", "ignored"), [(0, 1, 0), (1, 2, 0), (2, 2, 0.05), (3, 4, 0.01), (4, 99, 0)])
def test_boundary_iou_equals_explicit_distances(seed, d, ignored):
    prediction, target = _random_pair(seed, classes=4, size=(30, 41), ignored=ignored, wrong=0.02)
    expected = np.zeros((2, 5), np.int64)
    for label in range(5):
        valid = target != 255
        truth_band = _band_by_distance((target == label) & valid, d)
        band = _band_by_distance((prediction == label) & valid, d)
        expected[:, label] = (truth_band & band).sum(), (truth_band | band).sum()
    counts = boundary_counts(prediction, target, 5, distance=d)
    np.testing.assert_array_equal(counts, expected)
    assert np.isnan(boundary_iou(counts)[4])


def test_boundary_iou_by_hand():
    # A 6x6 square in a 12x12 frame, predicted one column to the right; d = 1, so the square's band is its outer ring.
    target = np.zeros((12, 12), np.uint8)
    target[3:9, 3:9] = 1
    prediction = np.roll(target, 1, axis=1)
    common, either = boundary_counts(prediction, target, 2, distance=1)[:, 1]
    assert (common, either) == (5 + 5, 20 + 20 - 10)  # the rings share their top and bottom rows but for one pixel
    assert boundary_iou(boundary_counts(target, target, 2))[1] == 1.0


def test_boundary_distance_is_the_papers():
    assert boundary_distance(1024, 2048) == 11
    assert boundary_distance(64, 64) == 1


def test_boundary_iou_does_not_see_what_is_predicted_on_ignored_pixels():
    prediction, target = _random_pair(5, classes=3, wrong=0.0)
    scrambled = np.where(target == 255, np.uint8(2), prediction)
    np.testing.assert_array_equal(boundary_counts(prediction, target, 3), boundary_counts(scrambled, target, 3))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 20))
def test_counts_add_up(seed, classes):
    prediction, target = _random_pair(seed, classes)
    confusion = confusion_matrix(prediction, target, classes)
    assert confusion.sum() == np.count_nonzero(target != 255)
    np.testing.assert_array_equal(confusion.sum(axis=1), np.bincount(target[target != 255], minlength=classes))
    common, either = boundary_counts(prediction, target, classes)
    assert (common <= np.diagonal(confusion)).all()
    assert (common <= either).all()


@pytest.mark.parametrize("count", [confusion_matrix, boundary_counts])
def test_ids_outside_the_classes_are_refused(count):
    good, bad = np.zeros((4, 4), np.uint8), np.full((4, 4), 7, np.uint8)
    with pytest.raises(InputError, match=r"target holds label 7.*0 to 4"):
        count(good, bad, 5)
    with pytest.raises(InputError, match=r"prediction holds label 7"):
        count(bad, good, 5)
    with pytest.raises(InputError, match=r"prediction holds label 255"):
        count(np.full((4, 4), 255, np.uint8), good, 5)
    with pytest.raises(InputError, match=r"\(4, 4\) and \(4, 5\)"):
        count(good, np.zeros((4, 5), np.uint8), 5)
