"""Scores on a small Cityscapes tree against cityscapesScripts' own evaluation, and its data sets through all stages."""

import argparse
import json

import cv2
import numpy as np
import pytest
from mini_sets import SIZE, write_image, write_label, write_set

from splitmerge.cli import main
from training.data import open_dataset
from training.datasets.cityscapes import CATEGORIES, CATEGORY_OF
from training.metrics import category_iou, confusion_matrix, iou, mean_iou

official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")


def test_every_class_and_category_scores_what_cityscapesscripts_says(tmp_path):
    """On files, as the benchmark is evaluated: predictions as label ids, ground truth with ignored regions."""
    from cityscapesscripts.helpers.labels import trainId2label

    write_set("cityscapes", tmp_path, 4)
    id_of = np.array([trainId2label[i].id for i in range(19)], np.uint8)
    random = np.random.default_rng(3)
    dataset = open_dataset(f"cityscapes:{tmp_path}", SIZE)
    truths = sorted(tmp_path.glob("gtFine/val/*/*_labelIds.png"))
    arguments = argparse.Namespace(evalInstLevelScore=False, evalPixelAccuracy=False)
    confusion, counted = np.zeros((19, 19), np.int64), official.generateMatrix(arguments)
    for index, truth in enumerate(truths):
        labels = dataset[index][1]
        # half right, and class 18 never predicted nor, in the end, known: it has an IoU of 0 or of NaN
        prediction = np.where(random.random(SIZE) < 0.5, labels % 19, random.integers(0, 18, SIZE)).astype(np.uint8)
        confusion += confusion_matrix(prediction, labels, 19)
        name = str(tmp_path / f"{index}.png")
        cv2.imwrite(name, id_of[prediction])
        official.evaluatePair(name, str(truth), counted, {}, {}, arguments)
    classes = [official.getIouScoreForLabel(int(value), counted, arguments) for value in id_of]
    categories = [official.getIouScoreForCategory(name, counted, arguments) for name in CATEGORIES]
    assert len(set(classes)) > 15 and len(set(categories)) == 7
    np.testing.assert_allclose(iou(confusion), classes, rtol=0, atol=1e-9)
    np.testing.assert_allclose(category_iou(confusion, CATEGORY_OF), categories, rtol=0, atol=1e-9)
    assert mean_iou(confusion) == pytest.approx(np.nanmean(classes), abs=1e-9)


def test_a_category_that_never_occurs_has_no_score():
    confusion = np.zeros((19, 19), np.int64)
    confusion[0, 1] = confusion[1, 0] = 5  # road for sidewalk and the other way round: both are flat
    assert np.isnan(category_iou(confusion, CATEGORY_OF)).tolist() == [False] + [True] * 6
    assert category_iou(confusion, CATEGORY_OF)[0] == 1 and iou(confusion)[0] == 0


def _five_classes(root):
    random = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        for index in range(count):
            write_image(root / split / f"images/{index}.png", random, (64, 96))
            coarse = random.integers(0, 5, (2, 3), dtype=np.uint8).repeat(32, 0).repeat(32, 1)
            write_label(root / split / f"labels/{index}.png", coarse * 10, False)
    items = "".join(f"  - {{name: kind {i}, colour: [{50 * i}, 9, 9], values: [{10 * i}]}}\n" for i in range(5))
    (root / "classes.yaml").write_text(f"classes:\n{items}")
    return str(root), [f"kind {i}" for i in range(5)]


def _cityscapes(root):
    write_set("cityscapes", root, 3, (64, 96))
    from splitmerge.labels import CITYSCAPES

    return f"cityscapes:{root}", [entry.name for entry in CITYSCAPES]


@pytest.mark.parametrize("make", [_five_classes, _cityscapes])
def test_two_steps_of_training_to_a_compared_engine(tmp_path, make, capsys):
    data, names = make(tmp_path / "data")
    run, package, report = tmp_path / "run", str(tmp_path / "package"), tmp_path / "compare.json"
    training = ["train", "--model", "smp18", "--width", "4", "--data", data, "--crop", "64x64", "--batch", "2"]
    assert main([*training, "--steps", "2", "--validate-every", "2", "--out", str(run)]) == 0
    assert f"{len(names)} classes" in capsys.readouterr().out
    checkpoint = str(run / "best.safetensors")
    assert main(["export", "--checkpoint", checkpoint, "--size", "64x96", "--package", package]) == 0
    assert main(["build", "--package", package, "--backend", "onnxruntime"]) == 0
    assert main(["compare", "--package", package, "--data", data, "--json", str(report)]) == 0
    manifest = json.loads((tmp_path / "package/manifest.json").read_text())
    assert [entry["name"] for entry in manifest["classes"]] == names
    found = json.loads(report.read_text())
    assert list(found["engine"]["iou"]) == names and found["pixel_agreement"] > 0.999
    assert found["images"] == (2 if make is _five_classes else 3)
    few = ["--images", "2", "--min-agreement", "90"]  # nothing is learnt yet, and near ties are many
    assert main(["calibrate", "--package", package, "--precision", "fp16", "--data", data, *few]) == 0
    other = tmp_path / "other"
    write_set("camvid", other)
    assert main(["compare", "--package", package, "--data", f"camvid:{other}"]) == 2
    assert f"has 11 classes, and {package} has {len(names)}" in capsys.readouterr().err


def test_ranges_come_from_training_images_and_scores_from_validation(tmp_path):
    from calibration.images import open_images
    from calibration.scored_images import fingerprint, scored_images

    write_set("cityscapes", tmp_path)
    name = f"cityscapes:{tmp_path}"
    frames = list(open_images(name, SIZE, 2))
    training = open_dataset(f"{name}:train", SIZE)
    assert len(frames) == 2
    for frame in frames:
        assert any(np.array_equal(frame, training[index][0]) for index in range(3))
    scored = scored_images(name, SIZE, 19, {fingerprint(frame) for frame in frames}, 2, 3)
    assert scored.held_out and len(scored.truths) == 3
    np.testing.assert_array_equal(scored.truths[0], open_dataset(name, SIZE)[0][1])


def test_a_resumed_training_keeps_its_classes(tmp_path, capsys):
    data, _ = _five_classes(tmp_path / "data")
    training = ["train", "--model", "fcn32s-18", "--width", "4", "--data", data, "--crop", "64x64", "--batch", "1"]
    training += ["--validate-every", "1", "--out", str(tmp_path / "run")]
    assert main([*training, "--steps", "1"]) == 0
    every = [*training[:-4], "--validate-every", "epoch", "--steps", "6", "--out", str(tmp_path / "epochs")]
    assert main(every) == 0  # three images a split, one a step
    rows = (tmp_path / "epochs/log.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["3", "6"]
    path = tmp_path / "data/classes.yaml"
    path.write_text(path.read_text().replace("kind 4", "sky"))
    capsys.readouterr()
    assert main([*training, "--steps", "1"]) == 2
    assert "holds a training with the classes kind 0, kind 1, kind 2, kind 3, kind 4" in capsys.readouterr().err
