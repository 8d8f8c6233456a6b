"""Scores of graphs against ones counted class by class; which images are scored."""

import weakref
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from small_package import make_package

pytest.importorskip("onnx_ir", reason="pip install 'splitmerge[export]'")

from calibration import score
from calibration.agreement import Labeller
from calibration.images import open_images
from calibration.score import Scorer
from calibration.scored_images import STREETS_SEED, ScoredImages, fingerprint, scored_images
from splitmerge.errors import InputError
from splitmerge.labels import CITYSCAPES, THIN_CLASSES
from splitmerge.package import Package
from training.data import open_dataset
from training.streets import Streets

Labels = NDArray[np.uint8]
NAMES = [entry.name for entry in CITYSCAPES]


def models(package: Package) -> dict[str, onnx.ModelProto]:
    return {part: onnx.load(package.path(graph)) for part, graph in package.parts("fp32").items()}


def disturbed(package: Package) -> dict[str, onnx.ModelProto]:
    """The last convolution's weights are a little off."""
    found = models(package)
    for model in found.values():
        for weight in model.graph.initializer:
            if len(weight.dims) == 4 and weight.dims[0] == len(CITYSCAPES):
                array = numpy_helper.to_array(weight)
                noise = np.random.default_rng(1).normal(0, 0.2 * array.std(), array.shape)
                weight.CopyFrom(numpy_helper.from_array((array + noise).astype(np.float32), weight.name))
    return found


def images_of(count: int = 3, truth: bool = True) -> ScoredImages:
    random = np.random.default_rng(3)
    frames = tuple(random.integers(0, 256, (count, 45, 70, 3), np.uint8))
    truths = tuple(random.integers(0, 19, (count, 45, 70), np.uint8)) if truth else ()
    for labels in truths:
        labels[:4] = 255
    return ScoredImages("noise", frames, truths, True, "0")


def iou_of(found: list[Labels], truths: list[Labels]) -> NDArray[np.float64]:
    scores = []
    for index in range(19):
        either = both = 0
        for labels, truth in zip(found, truths, strict=True):
            counted = truth != 255
            a, b = (labels == index) & counted, truth == index
            either, both = either + int((a | b).sum()), both + int((a & b).sum())
        scores.append(both / either if either else np.nan)
    return 100 * np.array(scores)


@pytest.mark.parametrize("window", [(4, 4), (2, 4), (2, 2)])
def test_some_split_batches_give_some_of_the_rows_and_columns(tmp_path: Path, window: tuple[int, int]) -> None:
    package = make_package(tmp_path / "package", window=window)
    label = Labeller(models(package), package.manifest.cut)
    frame = images_of().frames[0]
    for stride in (2, 4) if window == (4, 4) else (2,):
        assert np.array_equal(label(frame, stride), label(frame)[::stride, ::stride])
    scorer = Scorer(package, models(package), images_of(), False)
    assert scorer.stride(4) == min(window) and scorer.stride(3) == 2


@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int, truth: bool) -> None:
    monkeypatch.setattr(score, "LEAST_PIXELS", 1)
    package, images = make_package(tmp_path / "package"), images_of(truth=truth)
    scorer = Scorer(package, models(package), images, False)
    if stride == 2:
        scorer.float32()  # all pixels are there already
    measured = scorer.measure(disturbed(package), stride)
    whole = make_package(tmp_path / "whole", cut=False)
    one, other = Labeller(models(whole), None), Labeller(disturbed(whole), None)
    s = slice(None, None, stride)
    full, off = ([label(frame)[s, s] for frame in images.frames] for label in (one, other))
    truths = [labels[s, s] for labels in images.truths] or full
    reference, candidate = iou_of(full, truths), iou_of(off, truths)
    drops = reference - candidate
    assert measured.miou == pytest.approx(np.nanmean(candidate))
    assert measured.miou_drop == pytest.approx(np.nanmean(drops))
    thin = {name: drops[NAMES.index(name)] for name in THIN_CLASSES if not np.isnan(drops[NAMES.index(name)])}
    if truth:
        assert measured.thin_drop == pytest.approx(max(thin.values()))
        assert measured.worst_thin == max(thin, key=lambda name: thin[name])
    assert measured.agreement == np.mean(np.array(full) == np.array(off)) < 1
    itself = scorer.measure(models(package), stride)
    assert itself == scorer.float32(stride) and itself.agreement == 1 and itself.miou_drop == 0
    assert itself.miou == pytest.approx(np.nanmean(reference))
    assert truth or itself.miou == 100


def test_a_thin_class_of_a_few_pixels_is_not_the_worst(tmp_path: Path) -> None:
    package, images = make_package(tmp_path / "package"), images_of()
    measured = Scorer(package, models(package), images, False).measure(disturbed(package))
    assert (measured.worst_thin, measured.thin_drop) == (None, 0.0)  # some 450 pixels each
    assert measured.thin is not None


def test_streets_are_scored_on_other_images_than_compare_scores() -> None:
    images = scored_images("streets", (64, 128), 19, set(), 64, 2)
    frame, truth = Streets("val", (64, 128), 2, STREETS_SEED)[0]
    assert np.array_equal(images.frames[0], frame) and np.array_equal(images.truths[0], truth)
    compared = open_dataset("streets", (64, 128), 2)
    assert not any(np.array_equal(f, compared[i][0]) for f in images.frames for i in range(2))
    assert "ground truth" in images.words and images.held_out


@pytest.mark.parametrize("labelled", [True, False])
def test_a_folder_is_scored_where_it_was_not_calibrated(tmp_path: Path, labelled: bool) -> None:
    (tmp_path / "images").mkdir()
    if labelled:
        (tmp_path / "labels").mkdir()
    for index in range(10):
        frame, truth = Streets("train", (64, 96), 10)[index]
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), frame)
        if labelled:
            cv2.imwrite(str(tmp_path / "labels" / f"{index}.png"), truth)
    used = {fingerprint(frame) for frame in open_images(str(tmp_path), (64, 128), 4)}
    images = scored_images(str(tmp_path), (64, 128), 19, used, 4, 3)
    assert len(images.frames) == 3 and images.held_out
    assert not used & {fingerprint(frame) for frame in images.frames}
    assert len(images.truths) == (3 if labelled else 0)
    assert ("float32's labels are taken for it" in images.words) == (not labelled)
    every = {fingerprint(frame) for frame in open_images(str(tmp_path), (64, 128), 10)}
    again = scored_images(str(tmp_path), (64, 128), 19, every, 10, 3)
    assert not again.held_out and "there were no others" in again.words


def test_a_drive_is_scored_further_on() -> None:
    used = {fingerprint(frame) for frame in open_images("drive:3", (64, 128), 2)}
    images = scored_images("drive:3", (64, 128), 19, used, 2, 2)
    assert images.held_out and len(images.frames) == len(images.truths) == 2


def test_labels_that_are_all_ignored_are_refused(tmp_path: Path) -> None:
    for part, value in (("images", 90), ("labels", 255)):
        (tmp_path / part).mkdir()
        array = np.full((64, 96, 3) if part == "images" else (64, 96), value, np.uint8)
        cv2.imwrite(str(tmp_path / part / "a.png"), array)
    with pytest.raises(InputError, match="None of the pixels"):
        scored_images(str(tmp_path), (64, 96), 19, set(), 1, 1)


def test_only_what_is_scored_is_ever_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = set[int](), []

    class Many:
        def __iter__(self) -> Iterator[Labels]:
            for index in range(60):
                frame = np.full((32, 32, 3), index, np.uint8)
                alive.add(index)
                weakref.finalize(frame, alive.discard, index)
                most.append(len(alive))
                yield frame
                del frame

    monkeypatch.setattr("calibration.scored_images.open_images", lambda *_: Many())
    images = scored_images("somewhere", (32, 32), 19, set(), 57, 3)
    assert [int(frame[0, 0, 0]) for frame in images.frames] == [10, 30, 50]
    assert max(most) <= 6


@pytest.mark.parametrize("thin", [("road", "sky"), ()])
def test_thin_classes_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thin: tuple[str, ...]) -> None:
    monkeypatch.setattr(score, "LEAST_PIXELS", 1)
    package, images = make_package(tmp_path / "package"), images_of()
    measured = Scorer(package, models(package), images, False, thin).measure(disturbed(package))
    assert measured.worst_thin in (thin or (None,)) and (measured.thin is None) == (not thin)
