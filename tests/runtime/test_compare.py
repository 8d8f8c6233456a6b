"""Comparing: its numbers against counting by hand, its gate's exit codes, and a real package end to end."""

import json
import math

import cv2
import numpy as np
import pytest
from clips import write_package

import splitmerge.commands.compare
from runtime.compare import compare
from runtime.report import picture, table
from splitmerge.cli import main
from splitmerge.errors import InputError
from splitmerge.files import sha256_of
from splitmerge.labels import CITYSCAPES, LabelClass
from splitmerge.package import Package

THREE = (LabelClass("road", (128, 64, 128)), LabelClass("pole", (153, 153, 153)), LabelClass("sky", (70, 130, 180)))
SIZE = (64, 128)


class Listed:
    """A data set and two segmenters in one: everything is drawn beforehand, in blobs."""

    def __init__(self, count=4, classes=3, size=(24, 36), wrong=0.1):
        rng = np.random.default_rng(1)

        def blobs():
            return cv2.resize(rng.integers(0, classes, (6, 9), dtype=np.uint8), size[::-1], interpolation=0)

        self.truth = [np.where(rng.random(size) < 0.05, np.uint8(255), blobs()) for _ in range(count)]
        self.images = [np.full((*size, 3), index, np.uint8) for index in range(count)]
        self.reference, self.engine = ([self._spoil(rng, t, wrong, classes) for t in self.truth] for _ in range(2))

    @staticmethod
    def _spoil(rng, truth, wrong, classes):
        noise = rng.integers(0, classes, truth.shape, dtype=np.uint8)
        return np.where((rng.random(truth.shape) < wrong) | (truth == 255), noise, truth)

    def __len__(self):
        return len(self.truth)

    def __getitem__(self, index):
        return self.images[index], self.truth[index]

    def as_segmenter(self, kind):
        class Segmenter:
            def segment(segmenter, frame_bgr):
                return getattr(self, kind)[frame_bgr[0, 0, 0]]

        return Segmenter()

    def compare(self, classes=THREE, **how):
        return compare(self.as_segmenter("reference"), self.as_segmenter("engine"), self, classes, **how)


def _naive_iou(predictions, truths, label):
    pixels = [(p, t) for a, b in zip(predictions, truths, strict=True) for p, t in zip(a.flat, b.flat, strict=True)]
    both = sum(p == t == label for p, t in pixels if t != 255)
    either = sum(label in (p, t) for p, t in pixels if t != 255)
    return both / either


def test_numbers_are_those_of_counting_by_hand():
    data = Listed()
    found = data.compare().to_json()
    for side in ("reference", "engine"):
        expected = [_naive_iou(getattr(data, side), data.truth, label) for label in range(3)]
        assert list(found[side]["iou"]) == ["road", "pole", "sky"]
        assert list(found[side]["iou"].values()) == pytest.approx(expected, abs=1e-12)
        assert found[side]["miou"] == pytest.approx(np.mean(expected), abs=1e-12)
    equal = sum(int((a == b).sum()) for a, b in zip(data.reference, data.engine, strict=True))
    assert found["pixel_agreement"] == pytest.approx(equal / (4 * 24 * 36))
    assert found["pixels"] - found["pixels_differing"] == equal
    assert found["images"] == 4
    assert found["miou_drop_points"] == pytest.approx(100 * (found["reference"]["miou"] - found["engine"]["miou"]))
    assert 0 < found["boundary_iou"]["engine"] < 1
    assert json.loads(json.dumps(found)) == found


def test_a_class_that_never_occurs_has_no_number():
    result = Listed().compare((*THREE, LabelClass("bus", (0, 60, 100))))
    assert result.to_json()["engine"]["iou"]["bus"] is None
    assert "bus" in table(result) and "nan" not in table(result)


def test_one_stray_pixel_of_an_absent_class_does_not_decide_the_gate():
    data = Listed()
    data.engine = [labels.copy() for labels in data.reference]
    data.engine[0][tuple(np.argwhere(data.truth[0] != 255)[0])] = 3
    result = data.compare((*THREE, LabelClass("bus", (0, 60, 100))))
    assert 100 * (result.reference.miou - result.engine.miou) > 10
    assert result.drop_points < 0.2


def test_labels_that_are_all_ignored_cannot_be_scored():
    data = Listed(1)
    data.truth[0][:] = 255
    with pytest.raises(InputError, match="None of the data set's pixels"):
        data.compare()


def test_examples_are_spread_and_the_picture_shows_them():
    result = Listed(9).compare(examples=3)
    assert [example.index for example in result.examples] == [0, 4, 8]
    image = picture(result.examples, THREE, 72)
    assert image.dtype == np.uint8 and image.shape[1] == 8 + 5 * 80
    for entry in THREE:
        assert (image == entry.rgb[::-1]).all(axis=2).any(), f"{entry.name} is not to be seen"


def test_the_table_marks_thin_classes():
    lines = table(Listed().compare()).splitlines()
    assert lines[3].startswith("pole  (thin)")
    assert any(line.startswith("mIoU, thin classes") for line in lines)
    assert any(line.startswith("pixel agreement") for line in lines)


# From here on with PyTorch: a small network's checkpoint is the reference.


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A package whose reference is a random SMP-18 of width 4."""
    torch = pytest.importorskip("torch")
    from training.checkpoint import save_checkpoint
    from training.models import create_model

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("compare") / "package"
    manifest = write_package(folder, SIZE).manifest
    save_checkpoint(folder / "reference.safetensors", create_model("smp18", 19, 4), "smp18", CITYSCAPES)
    sealed = {**manifest.__dict__, "reference_sha256": sha256_of(folder / "reference.safetensors")}
    return Package.write_manifest(folder, type(manifest)(**sealed))


@pytest.fixture
def engine(network, monkeypatch):
    """An engine that gives the reference's labels, but for what a test changes in them."""
    from runtime.reference import Reference

    class Engine(Reference):
        facts = {"backend": "onnxruntime", "precision": "fp32"}  # noqa: RUF012

        def change(self, labels):
            return labels

        def segment(self, frame_bgr):
            return self.change(super().segment(frame_bgr).copy())

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    engine = Engine(network)
    monkeypatch.setattr(splitmerge.commands.compare, "open_executor", lambda package, arguments: engine)
    return engine


def test_reference_is_the_checkpoint_on_rgb_frames(network):
    import torch

    from runtime.reference import Reference
    from training.checkpoint import load_checkpoint

    frame_bgr = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    checkpoint = load_checkpoint(network.reference_path)
    x = np.zeros((1, 3, *SIZE), np.float32)
    for channel in range(3):
        values = frame_bgr[:, :, 2 - channel].astype(np.float32) / 255
        x[0, channel] = (values - checkpoint.mean[channel]) / checkpoint.std[channel]
    with torch.inference_mode():
        expected = checkpoint.model(torch.from_numpy(x)).argmax(1)[0].numpy()
    assert (Reference(network).segment(frame_bgr) == expected).mean() > 0.999


def test_large_frames_are_computed_grid_by_grid(network, monkeypatch):
    import training.grids
    from runtime.reference import Reference

    frame_bgr = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    reference = Reference(network)
    expected, sizes = reference.segment(frame_bgr), []
    monkeypatch.setattr(training.grids, "LARGEST_TENSOR", SIZE[0] * SIZE[1] * 32 // 16)
    sample = reference.checkpoint.model.sample
    monkeypatch.setattr(reference.checkpoint.model, "sample", lambda *how: sizes.append(sample(*how)) or sizes[-1])
    assert (reference.segment(frame_bgr) == expected).mean() > 0.999
    assert [(grid.stride, grid.logits.shape[-2:]) for grid in sizes] == [(4, (SIZE[0] // 4, SIZE[1] // 4))] * 16


def test_an_equal_engine_passes_and_writes_everything(tmp_path, network, engine, capsys):
    arguments = ["compare", "--package", str(network.folder), "--images", "3", "--data", "streets"]
    json_path, picture_path, report_path = (tmp_path / f"compare.{kind}" for kind in ("json", "png", "html"))
    outputs = ["--json", str(json_path), "--picture", str(picture_path), "--report", str(report_path)]
    assert main([*arguments, *outputs]) == 0
    found = json.loads(json_path.read_text())
    assert {"reference", "engine", "pixel_agreement", "boundary_iou", "images", "precision", "backend"} <= found.keys()
    assert found["engine"]["iou"] == found["reference"]["iou"]
    assert list(found["engine"]["iou"]) == [entry.name for entry in CITYSCAPES]
    assert (found["pixel_agreement"], found["images"], found["miou_drop_points"]) == (1.0, 3, 0.0)
    assert (found["precision"], found["backend"]) == ("fp32", "onnxruntime")
    assert cv2.imread(str(picture_path)).shape[1] > 1500
    assert "<strong>Passed.</strong>" in report_path.read_text()
    said = capsys.readouterr().out
    assert "pixel agreement 100.0000 %" in said and "traffic light  (thin)" in said


def test_several_scales_are_scored_beside_the_engine(tmp_path, network, engine, capsys):
    arguments = ["compare", "--package", str(network.folder), "--images", "2", "--json", str(tmp_path / "c.json")]
    assert main([*arguments, "--scales", "0.5,1,1.5", "--flip"]) == 0
    found = json.loads((tmp_path / "c.json").read_text())
    assert (found["scales"], found["flip"], found["miou_drop_points"]) == ([0.5, 1.0, 1.5], True, 0.0)
    assert found["multi_scale"].keys() == found["reference"].keys()
    assert found["multi_scale"]["iou"] != found["reference"]["iou"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["class", "reference", "engine", "points", "multi-scale"]
    (mean,) = (line.split() for line in lines if line.startswith("mIoU "))
    assert mean[-1] == f"{100 * found['multi_scale']['miou']:.2f}"
    assert main([*arguments, "--scales", "1"]) == 0
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["multi_scale"]["iou"] == found["reference"]["iou"]


@pytest.mark.parametrize(("scales", "flip"), [((0.5, 1.0, 1.25), True), ((0.75, 2.0), False), ((1.0,), True)])
def test_several_scales_are_averaged_probabilities(network, scales, flip):
    """DeepLabv3, section 4.2, written out: one pass after the other, softmax, mean."""
    import torch
    import torch.nn.functional as F

    from runtime.reference import Reference
    from runtime.scales import MultiScale

    reference = Reference(network)
    frame_bgr = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    x, passes = reference.normalised(frame_bgr), []
    with torch.inference_mode():
        for scale in scales:
            for mirrored in (False, True) if flip else (False,):
                size = [round(side * scale) for side in SIZE]
                image = F.interpolate(x.flip(3) if mirrored else x, size, mode="bilinear")
                logits = F.interpolate(reference.checkpoint.model(image), SIZE, mode="bilinear")[0]
                passes.append((logits.flip(2) if mirrored else logits).softmax(0).numpy())
    mean = np.mean(passes, axis=0)
    best = np.sort(mean, axis=0)
    clear = best[-1] - best[-2] > 1e-5
    labels = MultiScale(reference, scales, flip).segment(frame_bgr)
    np.testing.assert_array_equal(labels[clear], mean.argmax(0)[clear])
    assert clear.mean() > 0.95
    assert (labels != reference.segment(frame_bgr)).any()


@pytest.mark.parametrize(
    ("scales", "words"), [("0,1", "is no positive number"), ("0.5,9", "goes beyond 0.1 to 4 times")]
)
def test_scales_that_cannot_be(network, capsys, scales, words):
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--package", str(network.folder), "--scales", scales])
    assert stop.value.code == 2 and words in capsys.readouterr().err


def test_a_worse_engine_fails_by_how_much(tmp_path, network, engine, capsys):
    """The ground truth is what the reference says, so the reference scores 100 %."""
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    frame_bgr = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    truth = engine.segment(frame_bgr)
    cv2.imwrite(str(tmp_path / "images/0.png"), frame_bgr)
    cv2.imwrite(str(tmp_path / "labels/0.png"), truth)
    wrong = np.where(np.arange(SIZE[1]) < 9, truth[0, 0], truth).astype(np.uint8)
    engine.change = lambda labels: wrong
    arguments = ["compare", "--package", str(network.folder), "--data", str(tmp_path)]
    assert main([*arguments, "--max-iou-drop", "100", "--json", str(tmp_path / "c.json")]) == 0
    found = json.loads((tmp_path / "c.json").read_text())
    drop = 100 * (1 - np.mean([_naive_iou([wrong], [truth], label) for label in np.unique(truth)]))
    assert found["reference"]["miou"] == 1.0
    assert found["miou_drop_points"] == pytest.approx(drop) and drop > 0.5
    (tmp_path / "c.json").unlink()
    capsys.readouterr()
    outputs = ["--json", str(tmp_path / "c.json"), "--report", str(tmp_path / "c.html")]
    assert main([*arguments, f"--max-iou-drop={drop - 0.25}", *outputs]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"loses {drop:.3f} points" in line and "0.250 more than" in line
    assert (tmp_path / "c.json").exists(), "the scores of a failed gate are written all the same"
    assert "<strong>Failed.</strong>" in (tmp_path / "c.html").read_text()
    assert main([*arguments, f"--max-iou-drop={drop + 0.01}"]) == 0
    assert main(arguments) == 1


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--data", "nowhere"], "no data set 'nowhere'"),
        (["--max-iou-drop", "-1"], "--max-iou-drop -1"),
        (["--max-iou-drop", "nan"], "--max-iou-drop nan"),
        (["--json", "."], "is a folder and a file was to be written there"),
        (["--picture", "."], "is a folder and a file was to be written there"),
        (["--report", "."], "is a folder and a file was to be written there"),
        (["--report", "c.html", "--json", "c.html"], "c.html is named for two outputs"),
    ],
)
def test_bad_input(network, engine, capsys, monkeypatch, extra, words):
    monkeypatch.setattr(type(engine), "segment", lambda *_: pytest.fail("computed before it was refused"))
    assert main(["compare", "--package", str(network.folder), *extra]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_without_a_reference_or_pytorch(tmp_path, network, engine, capsys, monkeypatch):
    write_package(tmp_path / "deployed")
    assert main(["compare", "--package", str(tmp_path / "deployed")]) == 2
    assert "has no reference.safetensors to compare with" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "training.checkpoint", None)
    assert main(["compare", "--package", str(network.folder)]) == 2
    assert "Comparing needs PyTorch" in capsys.readouterr().err


def test_nothing_is_kept_of_an_image(network):
    """Memory does not grow with the data set: counts have the size of the classes, examples their number."""
    result = Listed(12).compare()
    assert result.examples == [] and result.engine.confusion.shape == (3, 3) and result.engine.boundary.shape == (2, 3)
    assert len(result.engine.seconds) == 12 and not math.isnan(result.engine.ms_per_frame)
