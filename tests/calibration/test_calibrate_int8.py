"""`splitmerge calibrate` to int8, on the shipped network with small frames: from images to engines that run."""

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

pytest.importorskip("onnx_ir", reason="pip install 'splitmerge[export]'")
pytest.importorskip("torch", reason="pip install 'splitmerge[export]'")

from trained import SIZE, half_values, models_of, rescaled_package, trained_package

from calibration.quantise_count import count_int8
from calibration.ranges import METHODS
from calibration.recipes import Quantiser, Recipe
from calibration.score import Budget, Scorer
from calibration.tensorrt_cache import read_tensorrt_cache
from splitmerge.cli import main
from splitmerge.commands import calibrate as command
from splitmerge.errors import InputError, PackageError
from splitmerge.package import Package
from training.data import open_dataset
from training.streets import Drive

FEW = ["--precision", "int8", "--images", "2", "--score-images", "1"]
LOOSE = ["--max-iou-drop", "100", "--max-thin-drop", "100", "--max-boundary-drop", "100", "--min-agreement", "1"]
HOPELESS = ["--method", "percentile-60", "--min-agreement", "99.99"]


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return trained_package(tmp_path / "package")


def calibrate(package: Package, *more: str) -> int:
    return main(["calibrate", "--package", str(package.folder), *FEW, *more])


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("splitmerge: ")]
    assert len(errors) == 1
    return errors[0]


def test_from_images_to_engines_that_run(package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "calibrate.json"
    assert calibrate(package, *LOOSE, "--json", str(record)) == 0
    out = capsys.readouterr().out
    assert all(f"\n{method} " in out for method in METHODS)
    assert "images of streets, validation split; ground truth" in out
    added = Package.open(package.folder)
    facts = added.manifest.verification["int8"]
    assert [row["recipe"] for row in facts["sweep"]][: len(METHODS)] == list(METHODS)
    assert len(facts["sweep"]) == len(METHODS) + 2
    assert facts["labelled"] and facts["written"] and not facts["left_out"]
    written = json.loads(record.read_text())
    assert written["sweep"] == facts["sweep"] and written["int8"] == facts["int8"]
    assert facts["int8"]["agreement"] > 0.97
    graphs = models_of(added, "int8")
    assert set(graphs) == {"model", "stem", "trunk"}
    assert {part: count_int8(model) for part, model in graphs.items()} == dict.fromkeys(graphs, 1.0)
    assert added.parts("fp32") == package.parts("fp32")
    assert not (package.folder / "calibration-scores.json").exists()
    # Engines of it run and score.
    folder = str(package.folder)
    assert main(["build", "--package", folder, "--precision", "int8", "--backend", "onnxruntime"]) == 0
    compared = tmp_path / "compare.json"
    arguments = ["--package", folder, "--precision", "int8", "--backend", "onnxruntime"]
    assert main(["compare", *arguments, "--images", "2", "--max-iou-drop", "20", "--json", str(compared)]) == 0
    assert json.loads(compared.read_text())["pixel_agreement"] > 0.97
    assert json.loads(compared.read_text())["precision"] == "int8"
    clip = make_clip(tmp_path / "clip.mp4", 2)
    assert main(["run", str(clip), *arguments, "--records", str(tmp_path / "frames.jsonl")]) == 0
    assert len((tmp_path / "frames.jsonl").read_text().splitlines()) == 2
    assert main(["inspect", folder]) == 0
    assert "int8 trunk" in capsys.readouterr().out


def test_what_float16_cannot_hold_is_float32_and_int8_stays_int8(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = rescaled_package(tmp_path / "package", 2.0**13)
    assert calibrate(package, *LOOSE, "--method", "minmax") == 0
    assert "in float32, because float16 does not hold it: " in capsys.readouterr().out
    added = Package.open(package.folder)
    facts, models = added.manifest.verification["int8"], models_of(added, "int8")
    assert {"conv1", "classifier"} <= set(facts["kept_float32"])
    assert {part: count_int8(model) for part, model in models.items()} == dict.fromkeys(models, 1.0)
    assert facts["int8"]["agreement"] > 0.97
    frames = open_dataset("streets", SIZE, 1)[0][0][None]
    values = half_values(models["model"], {"frames": frames})
    assert values and all(np.isfinite(value).all() for value in values.values())
    every_convolution_is_int8_in_tensorrt_rtx(added, tmp_path)


def every_convolution_is_int8_in_tensorrt_rtx(package: Package, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'splitmerge[rtx]'")
    record = tmp_path / "build.json"
    target = ["--backend", "tensorrt-rtx", "--compute-capability", "8.9", "--precision", "int8"]
    assert main(["build", "--package", str(package.folder), *target, "--json", str(record)]) == 0
    engines = {engine["part"]: engine for engine in json.loads(record.read_text())["engines"]}
    found = {
        part: [types["found"] for types in engine["build"]["convolution_types"].values()]
        for part, engine in engines.items()
    }
    assert found == {"stem": ["Int8"], "trunk": ["Int8"] * 20}


def test_graphs_that_contradict_each_other_are_not_written(
    package: Package, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graphs = Quantiser.graphs

    def crossed(self: Quantiser, recipe: Recipe, *more: Any, **options: Any) -> dict[str, onnx.ModelProto]:
        made = graphs(self, recipe, *more, **options)
        if "model" in made:
            made["model"] = graphs(self, Recipe("minmax"), *more, **options)["model"]
        return made

    monkeypatch.setattr(Quantiser, "graphs", crossed)
    manifest = (package.folder / "manifest.json").read_bytes()
    assert calibrate(package, *LOOSE, "--method", "percentile-60") == 1
    assert "The int8 graphs model and stem + trunk agree on" in sentence(capsys)
    assert (package.folder / "manifest.json").read_bytes() == manifest


def test_options_reach_the_budget(package: Package) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    given = ["--max-iou-drop", "1", "--max-thin-drop", "2", "--max-boundary-drop", "3", "--min-agreement", "40"]
    arguments = parser.parse_args(["--package", "p", *given, "--search-stride", "4", "--thin", "sky", "--rest", "fp32"])
    options = command._options(arguments, package, True)
    assert options.budget == Budget(miou_drop=1, thin_drop=2, boundary_drop=3, agreement=0.4)
    assert (options.search_stride, options.thin, options.rest, options.force) == (4, ("sky",), "fp32", False)
    assert command._options(arguments, package, False).budget == Budget(None, None, None, 0.4)
    arguments = parser.parse_args(["--package", "p"])
    budget = command._options(arguments, package, True).budget
    assert budget == Budget(0.1, 0.3, 0.3, 0.995)  # the project's goal
    arguments.thin = ["tree"]
    with pytest.raises(InputError, match="--thin names 'tree', and the package's classes are road, sidewalk"):
        command._options(arguments, package, True)


def test_the_cache_is_reused_and_refused(package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = tmp_path / "ranges.json"
    arguments = [*LOOSE, "--method", "mse", "--calibration-cache", str(cache)]
    assert calibrate(package, *arguments) == 0
    assert "-> " in capsys.readouterr().out
    before = cache.read_bytes()
    assert calibrate(package, *arguments, "--rest", "fp32") == 0
    assert "made from the same graphs and images" in capsys.readouterr().out
    assert cache.read_bytes() == before
    types = {t.data_type for t in models_of(Package.open(package.folder), "int8")["trunk"].graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in types
    assert calibrate(package, *arguments, "--data", "drive") == 2
    assert "it was made from other images (streets) than those of drive" in sentence(capsys)
    assert cache.read_bytes() == before
    # The package's own is not refused but made anew.
    assert calibrate(package, *LOOSE, "--method", "mse") == 0
    assert calibrate(package, *LOOSE, "--method", "mse", "--data", "drive") == 0
    assert "ranges are collected anew: " in capsys.readouterr().out


def test_what_cannot_meet_the_budget(package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "cost.png"
    manifest = (package.folder / "manifest.json").read_bytes()
    cache = tmp_path / "tensorrt.cache"
    assert calibrate(package, *HOPELESS, "--picture", str(picture), "--tensorrt-cache", str(cache)) == 1
    assert not cache.exists()
    captured = capsys.readouterr()
    assert "with at least 90% of the multiply-adds in int8, meets the budget (the nearest: " in captured.err
    assert "of the labels are float32's (99.990% asked for)" in captured.err
    assert captured.err.count("splitmerge: ") == 1
    steps = [line for line in captured.out.splitlines() if " back to float: " in line]
    assert 5 < len(steps) < 21
    assert cv2.imread(str(picture)) is not None
    assert (package.folder / "manifest.json").read_bytes() == manifest
    with pytest.raises(PackageError, match="no int8 graphs"):
        Package.open(package.folder).parts("int8")
    # What was scored is there yet, and taken as it is.
    assert calibrate(package, *HOPELESS, "--force") == 0
    assert "scores are there from a calibration that was interrupted or wrote nothing" in capsys.readouterr().out
    facts = Package.open(package.folder).manifest.verification["int8"]
    assert facts["written"] and facts["exceeded"] and facts["search"][0]["action"] == "all int8"
    assert len(facts["sensitivity"]) == 21


def test_an_interrupted_calibration_goes_on(
    package: Package, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, calls = Scorer.measure, []

    def stopping(*arguments: object) -> object:
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(arguments)
        return whole(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Scorer, "measure", stopping)
    assert calibrate(package, *LOOSE) == 130
    monkeypatch.setattr(Scorer, "measure", lambda *a: (calls.append(a), whole(*a))[1])
    assert calibrate(package, *LOOSE) == 0
    assert "4 scores are there from a calibration that was interrupted" in capsys.readouterr().out
    assert len(calls) == len(METHODS) + 2 + 1  # all methods, two changes of weights, the best on all pixels: once each


def make_clip(path: Path, frames: int) -> Path:
    height, width = SIZE
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (width, height))
    drive = Drive(1, SIZE)
    for index in range(frames):
        writer.write(drive.frame(4 * index)[0])
    writer.release()
    return path


def test_a_video_has_no_truth(package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = str(make_clip(tmp_path / "clip.mp4", 6))
    fixed = ["--data", clip, "--method", "percentile-99.995"]
    assert calibrate(package, *fixed, "--min-agreement", "97") == 0
    out = capsys.readouterr().out
    assert f"1 images of {clip}; no ground truth: float32's labels are taken for it" in out
    facts = Package.open(package.folder).manifest.verification["int8"]
    assert not facts["labelled"] and facts["method"] == "percentile-99.995"
    assert facts["float32"]["miou"] == 100 and facts["budget"]["miou_drop"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "no such folder"], "There is no data 'no such folder'"),
        (["--data", "EMPTY"], "holds no images"),
        (["--method", "best"], "There is no calibration method 'best'"),
        (["--json", "EMPTY"], "is a folder and a file was to be written"),
        (["--picture", "cost.txt"], "cost.txt does not end as a picture that can be written does"),
        (["--convergence", "conv.foo"], "conv.foo does not end as a picture"),
        (["--tensorrt-version", "11.0.0"], "TensorRT 11.0.0 reads no calibration cache"),
        (["--data", "BLACK"], "has only images of one colour (1 of them)"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((64, 128, 3), np.uint8))
    places = {"EMPTY": str(tmp_path / "empty"), "BLACK": str(tmp_path / "black.png")}
    before = {path: path.read_bytes() for path in package.folder.iterdir()}
    assert calibrate(package, *(places.get(a, a) for a in arguments)) == 2
    assert words in sentence(capsys)
    assert {path: path.read_bytes() for path in package.folder.iterdir()} == before


def test_options_that_are_no_points() -> None:
    for wrong in ("-1", "nan", "many"):
        with pytest.raises(SystemExit) as stopped:
            main(["calibrate", "--package", "p", "--max-iou-drop", wrong])
        assert stopped.value.code == 2


def test_an_image_with_other_numbers_is_refused(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    assert calibrate(package, "--data", str(tmp_path / "a.png")) == 2
    assert "is not an image that can be decoded" in sentence(capsys)
    cv2.imwrite(str(tmp_path / "a.png"), Drive(1, (70, 120)).frame(0)[0])
    assert calibrate(package, "--data", str(tmp_path / "a.png"), "--method", "minmax", "--min-agreement", "50") == 0
    assert "which the ranges come from, too: there were no others" in capsys.readouterr().out


def test_ranges_for_tensorrt_10_and_how_they_settle(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, plot = tmp_path / "tensorrt.cache", tmp_path / "settle.png"
    wanted = ["--method", "percentile-99.9", "--tensorrt-cache", str(cache), "--tensorrt-version", "10.13.2"]
    assert calibrate(package, *LOOSE, *wanted, "--thin", "train") == 0
    assert "none of the thin classes train has 1,000 pixels" in capsys.readouterr().out
    version, scales = read_tensorrt_cache(cache)
    ranges = json.loads((package.folder / "calibration-cache.json").read_text())
    assert version == "101302" and len(scales) > 20
    for name, tensor in ranges["tensors"].items():
        assert scales[name] == np.float32(tensor["thresholds"]["percentile-99.9"] / 127)
        assert tensor["thresholds"]["percentile-99.9"] <= tensor["thresholds"]["minmax"]
    before = Package.open(package.folder).manifest
    capsys.readouterr()
    assert main(["calibrate", "--package", str(package.folder), "--images", "3", "--convergence", str(plot)]) == 0
    assert "Change of thresholds against those after 3 images" in capsys.readouterr().out
    assert cv2.imread(str(plot)).std() > 10
    assert Package.open(package.folder).manifest == before
