"""Scores and predictions on a small Cityscapes tree, held against cityscapesScripts' own evaluator."""

import copy
import json
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mini_sets import write_image, write_set
from networks import with_statistics

import training.scoring.evaluation
from splitmerge.cli import main
from splitmerge.errors import InputError
from splitmerge.labels import CITYSCAPES
from training.checkpoint import load_checkpoint, save_checkpoint
from training.datasets.cityscapes import AVERAGE_PIXELS, CATEGORIES
from training.evaluate import normalise
from training.models import create_model
from training.scoring.evaluation import labels_at_scales
from training.scoring.images import images_to_score
from training.scoring.instances import InstanceCounts, InstanceMap
from training.scoring.scores import Scores
from training.scoring.submission import Submission

SIZE = (45, 70)
WITH_INSTANCES = range(24, 34)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("checkpoint") / "smp18.safetensors"
    model = create_model("smp18", 19, 4)
    with_statistics(model)
    save_checkpoint(path, model, "smp18", CITYSCAPES)
    return path


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images a split; each class of instances has up to three of unequal sizes, and pixels in none (a group)."""
    root = tmp_path_factory.mktemp("cityscapes")
    write_set("cityscapes", root, 3, SIZE)
    random = np.random.default_rng(5)
    for path in root.glob("gtFine/*/*/*_labelIds.png"):
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        number = random.choice(4, ids.shape, p=(0.1, 0.5, 0.3, 0.1))
        of_instances = np.isin(ids, WITH_INSTANCES) & (number > 0)
        instances = np.where(of_instances, ids.astype(np.uint16) * 1000 + number - 1, ids).astype(np.uint16)
        cv2.imwrite(str(path).replace("labelIds", "instanceIds"), instances)
    for number in range(2):
        write_image(root / f"leftImg8bit/test/bonn/bonn_{number:06d}_000019_leftImg8bit.png", random, SIZE)
    return root


KITTI_PIXELS = {
    "truck": 1801.103394,
    "person": 1234.262573,
    "train": 18448.460938,
    "bicycle": 1244.79126,
    "motorcycle": 695.617676,
    "bus": 2761.151611,
    "caravan": 1017.777771,
    "rider": 1318.393921,
    "trailer": 14457.615234,
    "car": 3669.255859,
}
"""Of an average instance, in the evaluation script of KITTI's development kit, which computes as Cityscapes' does."""


def official_scores(
    submission: Path, root: Path, monkeypatch: pytest.MonkeyPatch, pixels: dict[str, float] | None = None
) -> dict[str, Any]:
    """What cityscapesScripts finds for the predictions that its own search takes out of a folder."""
    official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    monkeypatch.setattr(official.np, "in1d", np.isin, raising=False)  # its name in NumPy 1
    monkeypatch.setenv("CITYSCAPES_RESULTS", str(submission))
    settings = copy.copy(official.args)
    settings.quiet, settings.JSONOutput, settings.predictionPath, settings.predictionWalk = True, False, None, None
    settings.avgClassSize = pixels or settings.avgClassSize
    truths = sorted(map(str, root.glob("gtFine/val/*/*_labelIds.png")))
    predictions = [official.getPrediction(settings, truth) for truth in truths]
    assert len(set(predictions)) == 3
    return official.evaluateImgLists(predictions, truths, settings)


def same_as_official(found: dict[str, Any], official: dict[str, Any]) -> None:
    names = [entry.name for entry in CITYSCAPES]
    for ours, theirs, wanted in (
        ("iou", "classScores", names),
        ("iiou", "classInstScores", names),
        ("category_iou", "categoryScores", CATEGORIES),
        ("category_iiou", "categoryInstScores", CATEGORIES),
    ):
        assert list(found[ours]) == list(wanted)
        expected = [official[theirs][name] for name in wanted]
        values = [np.nan if found[ours][name] is None else found[ours][name] for name in wanted]
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9, err_msg=ours)
    means = ("Classes", "InstClasses", "Categories", "InstCategories")
    for ours, theirs in zip(("iou", "iiou", "category_iou", "category_iiou"), means, strict=True):
        assert found["miou" if ours == "iou" else f"mean_{ours}"] == pytest.approx(
            official[f"averageScore{theirs}"], abs=1e-9
        )


def test_scores_are_cityscapesscripts_own(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions half right, so that every class and category scores something of its own."""
    random, scores, submission = np.random.default_rng(3), Scores(CITYSCAPES), Submission(tmp_path, {})
    for image in images_to_score(f"cityscapes:{tree}", SIZE, None, 19):
        _, labels, instances = image.read()
        assert labels is not None and instances is not None and image.file is not None
        guess = random.integers(0, 18, labels.shape)
        prediction = np.where(random.random(labels.shape) < 0.5, labels % 19, guess).astype(np.uint8)
        scores.add(prediction, labels, instances)
        submission.write(image.file, prediction)
    found, official = scores.to_json(), official_scores(tmp_path, tree, monkeypatch)
    same_as_official(found, official)
    given = [value for value in found["iiou"].values() if value is not None]
    assert len(set(given)) == 8 and sum(value is not None for value in found["category_iiou"].values()) == 2
    assert abs(found["mean_iiou"] - found["miou"]) > 1e-3


def _as_kitti(tree: Path, root: Path) -> None:
    """The validation images in KITTI's layout, with its form of instance ids: numbers from 1, for buildings, too."""
    for index, path in enumerate(sorted(tree.glob("gtFine/val/*/*_labelIds.png"))):
        name = str(path)
        image = cv2.imread(name.replace("gtFine_labelIds", "leftImg8bit").replace("gtFine", "leftImg8bit"))
        ids = cv2.imread(name, cv2.IMREAD_UNCHANGED)
        instances = cv2.imread(name.replace("labelIds", "instanceIds"), cv2.IMREAD_UNCHANGED)
        number = np.where(instances > 1000, instances % 1000 + 1, 3 * (ids < min(WITH_INSTANCES)))
        combined = (ids.astype(np.uint16) * 256 + number).astype(np.uint16)
        for folder, values in (("image_2", image), ("semantic", ids), ("instance", combined)):
            write_png(root / "training" / folder / f"{index:06d}_10.png", values)


def write_png(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), values)


def test_kittis_instances_weigh_what_its_kit_says(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _as_kitti(tree, tmp_path / "kitti")
    random, scores, submission = np.random.default_rng(3), Scores(CITYSCAPES), Submission(tmp_path / "out", {})
    images = images_to_score(f"kitti:{tmp_path / 'kitti'}:train", SIZE, None, 19)
    twins = images_to_score(f"cityscapes:{tree}", SIZE, None, 19)
    for image, twin in zip(images, twins, strict=True):
        _, labels, instances = image.read()
        assert labels is not None and twin.file is not None
        guess = random.integers(0, 18, labels.shape)
        prediction = np.where(random.random(labels.shape) < 0.5, labels % 19, guess).astype(np.uint8)
        scores.add(prediction, labels, instances)
        submission.write(twin.file, prediction)
    official = official_scores(tmp_path / "out", tree, monkeypatch, KITTI_PIXELS)
    same_as_official(scores.to_json(), official)
    cityscapes = official_scores(tmp_path / "out", tree, monkeypatch)
    assert abs(official["averageScoreInstClasses"] - cityscapes["averageScoreInstClasses"]) > 1e-4


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda values: (values >> 8).astype(np.uint8), "has no label id at all"),
        (lambda values: ((values >> 8) * 1000 + (values & 255)).astype(np.uint16), "has the label id"),
    ],
)
def test_kittis_instances_in_another_form(
    spoil: Any, words: str, tree: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _as_kitti(tree, tmp_path / "kitti")
    path = tmp_path / "kitti/training/instance/000001_10.png"
    write_png(path, spoil(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))
    given = ["--checkpoint", str(checkpoint), "--data", f"kitti:{tmp_path / 'kitti'}:train"]
    assert main(["evaluate", *given]) == 2
    assert f"000001_10.png {words}" in capsys.readouterr().err


def test_images_without_instances_take_nothing_from_those_with(tree: Path) -> None:
    scores, alone = Scores(CITYSCAPES), Scores(CITYSCAPES)
    for image in images_to_score(f"cityscapes:{tree}", SIZE, None, 19):
        _, labels, instances = image.read()
        assert labels is not None and instances is not None
        prediction = np.where(labels < 19, labels, 0).astype(np.uint8)
        alone.add(prediction, labels, instances)
        scores.add(prediction, labels, instances)
        scores.add(np.full_like(labels, 13), labels)
    assert scores.to_json()["iiou"] == alone.to_json()["iiou"]
    assert scores.to_json()["iou"] != alone.to_json()["iou"]


def test_the_command_scores_what_it_submits(
    tree: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, record = tmp_path / "submission", tmp_path / "scores.json"
    arguments = ["evaluate", "--checkpoint", str(checkpoint), "--data", f"cityscapes:{tree}", "--device", "cpu"]
    assert main([*arguments, "--submission", str(out), "--json", str(record)]) == 0
    found = json.loads(record.read_text())
    same_as_official(found, official_scores(out, tree, monkeypatch))
    assert found["images"] == 3 and 0 < found["miou"] < 1 and found["mean_boundary_iou"] > 0
    said = capsys.readouterr().out
    assert "predictions of 3 images" in said
    (mean,) = (line.split()[4:] for line in said.splitlines() if line.startswith("mean of the classes"))
    assert mean == [f"{100 * found[name]:.2f}" for name in ("miou", "mean_iiou", "mean_boundary_iou")]


def test_the_test_split_without_labels(
    tree: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where nothing but its images was unpacked; the label ids are those of the classes predicted."""
    from cityscapesscripts.helpers.labels import trainId2label

    (tmp_path / "only").mkdir()
    (tmp_path / "only/leftImg8bit").symlink_to(tree / "leftImg8bit")
    data, out = f"cityscapes:{tmp_path / 'only'}:test", tmp_path / "out"
    arguments = ["evaluate", "--checkpoint", str(checkpoint), "--data", data]
    assert main(arguments) == 2
    assert "has no labels to score against" in capsys.readouterr().err
    assert main([*arguments, "--submission", str(out), "--flip"]) == 0
    assert sorted(path.name for path in out.glob("*.png")) == [f"bonn_{n:06d}_000019_labelIds.png" for n in range(2)]
    loaded = load_checkpoint(checkpoint)
    for path in out.glob("*.png"):
        image = cv2.imread(str(tree / f"leftImg8bit/test/bonn/{path.name.replace('labelIds', 'leftImg8bit')}"))
        train_ids = labels_at_scales(loaded, np.asarray(image, np.uint8), flip=True)
        expected = np.vectorize(lambda value: trainId2label[value].id)(train_ids)
        written = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert written.dtype == np.uint8 and len(np.unique(written)) > 3
        np.testing.assert_array_equal(written, expected)


def test_scales_and_flip_are_averaged(checkpoint: Path, tree: Path) -> None:
    """Written out: softmax of each pass at the image's size, the mean, the largest."""
    loaded = load_checkpoint(checkpoint)
    image = images_to_score(f"cityscapes:{tree}", SIZE, 1, 19)[0].read().image_bgr
    x, passes = normalise(torch.from_numpy(image)[None], loaded.mean, loaded.std), []
    with torch.inference_mode():
        for scale in (0.5, 1.25):
            size = [round(side * scale) for side in SIZE]
            scaled = torch.nn.functional.interpolate(x, size, mode="bilinear")
            for turned in (scaled, scaled.flip(3)):
                logits = torch.nn.functional.interpolate(loaded.model(turned), SIZE, mode="bilinear")
                passes.append((logits if turned is scaled else logits.flip(3)).softmax(1)[0].numpy())
    mean = np.mean(passes, axis=0)
    two = np.sort(mean, axis=0)[-2:]
    clear = two[1] - two[0] > 1e-5
    labels = labels_at_scales(loaded, image, (0.5, 1.25), flip=True)
    np.testing.assert_array_equal(labels[clear], mean.argmax(0)[clear])
    assert clear.mean() > 0.9 and (labels != labels_at_scales(loaded, image)).any()


def test_an_interrupted_call_goes_on(
    tree: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, record = tmp_path / "out", tmp_path / "scores.json"
    arguments = ["evaluate", "--checkpoint", str(checkpoint), "--data", f"cityscapes:{tree}", "--json", str(record)]
    assert main(arguments) == 0
    whole, predict, calls = json.loads(record.read_text()), training.scoring.evaluation.predict, []
    record.unlink()

    def pressed(*what: Any) -> Any:
        calls.append(what)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return predict(*what)

    monkeypatch.setattr(training.scoring.evaluation, "predict", pressed)
    assert main([*arguments, "--submission", str(out)]) == 130
    assert len(list(out.glob("*.png"))) == 1 and not record.exists()
    assert main([*arguments, "--submission", str(out)]) == 0
    assert len(calls) == 4 and json.loads(record.read_text()) == whole
    capsys.readouterr()
    assert main([*arguments, "--submission", str(out), "--flip"]) == 2
    assert "predictions of another checkpoint, or made in another way" in capsys.readouterr().err


def test_other_data_sets_have_what_they_have(checkpoint: Path, tmp_path: Path) -> None:
    record = tmp_path / "scores.json"
    drawn = ["evaluate", "--checkpoint", str(checkpoint), "--images", "2", "--size", "64x96", "--json", str(record)]
    assert main(drawn) == 0
    found = json.loads(record.read_text())
    assert "iiou" not in found and found["category_iou"].keys() == set(CATEGORIES) and found["images"] == 2
    model = create_model("fcn32s-18", 11, 4)
    from training.datasets.camvid import CAMVID

    save_checkpoint(tmp_path / "camvid.safetensors", model, "fcn32s-18", CAMVID.classes)
    write_set("camvid", tmp_path / "camvid")
    camvid = [
        "evaluate",
        "--checkpoint",
        str(tmp_path / "camvid.safetensors"),
        "--data",
        f"camvid:{tmp_path / 'camvid'}",
    ]
    assert main([*camvid, "--json", str(record)]) == 0
    assert not [name for name in json.loads(record.read_text()) if "category" in name]
    assert main([*camvid, "--submission", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_instances_that_cannot_be() -> None:
    counts, labels = InstanceCounts(), np.zeros((2, 2), np.uint8)
    for ids, words in (
        (np.zeros((2, 3), np.uint16), r"a\.png is 2x3 and its image 2x2"),
        (np.full((2, 2), 7001, np.uint16), r"instance 7001 of road, which has no instances"),
        (np.full((2, 2), 55000, np.uint16), r"instance 55000 of no label"),
    ):
        with pytest.raises(InputError, match=words):
            counts.add(labels, InstanceMap(ids, AVERAGE_PIXELS, "a.png"))


def _without_an_instance_file(tree: Path) -> None:
    next(iter(sorted(tree.glob("gtFine/val/*/*_instanceIds.png")))).unlink()


def _without_a_label(tree: Path) -> None:
    next(iter(tree.glob("gtFine/val/*/*_labelIds.png"))).unlink()


def _empty(tree: Path) -> None:
    for path in tree.glob("leftImg8bit/val/*/*"):
        path.unlink()


def _all_void(tree: Path) -> None:
    for path in tree.glob("gtFine/val/*/*_labelIds.png"):
        cv2.imwrite(str(path), np.zeros(SIZE, np.uint8))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_without_an_instance_file, "though other images have their instances"),
        (_without_a_label, "has no label: expected"),
        (_empty, "holds no images"),
        (_all_void, "None of the data set's pixels has a class"),
    ],
)
def test_data_that_cannot_be_used(spoil: Any, words: str, checkpoint: Path, tree: Path, tmp_path: Path, capsys) -> None:
    import shutil

    shutil.copytree(tree, tmp_path / "tree")
    spoil(tmp_path / "tree")
    record = tmp_path / "scores.json"
    data = ["--data", f"cityscapes:{tmp_path / 'tree'}", "--json", str(record)]
    assert main(["evaluate", "--checkpoint", str(checkpoint), *data]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("splitmerge: ") and words in said[-1] and not record.exists()


def test_checkpoints_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--checkpoint", str(tmp_path / "none.safetensors")]) == 2
    assert "There is no checkpoint" in capsys.readouterr().err
    model = create_model("fcn32s-18", 19, 4)
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    save_checkpoint(tmp_path / "nan.safetensors", model, "fcn32s-18", CITYSCAPES)
    assert main(["evaluate", "--checkpoint", str(tmp_path / "nan.safetensors")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "NaN or infinite values in classifier.weight" in line


def test_a_folder_of_other_pngs_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.random.default_rng(0))
    with pytest.raises(InputError, match="holds PNGs already"):
        Submission(tmp_path, {})
