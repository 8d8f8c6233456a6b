"""A layer that was made fragile on purpose is found, taken back, and mended by equalisation; scores are kept."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

pytest.importorskip("onnx_ir", reason="pip install 'splitmerge[export]'")
pytest.importorskip("torch", reason="pip install 'splitmerge[export]'")

from trained import FRAGILE, SIZE, fragile_package, models_of

from calibration.cache import made_from
from calibration.cached import RangesSource
from calibration.images import data_hash, open_images
from calibration.package import add_precision
from calibration.quantise_count import count_int8
from calibration.recipes import Quantiser, Recipe
from calibration.score import Measured, Scorer
from calibration.score_log import ScoreLog
from calibration.scored_images import scored_images
from calibration.sensitivity import draw_sensitivity
from engines.build import GpuOptions, build_engines
from splitmerge.cli import main
from splitmerge.package import Package

IMAGES, SCORED = 3, 2
BUDGET = ["--max-iou-drop", "5", "--max-thin-drop", "100", "--max-boundary-drop", "6", "--min-agreement", "98.3"]


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return fragile_package(tmp_path_factory.mktemp("fragile") / "package")


@pytest.fixture(scope="module")
def calibrated(fragile: Package, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """By the verb, which has to take layers back; its scores and sensitivities are what most tests here look at."""
    folder = tmp_path_factory.mktemp("calibrated") / "package"
    shutil.copytree(fragile.folder, folder)
    few = ["--images", str(IMAGES), "--score-images", str(SCORED)]
    assert main(["calibrate", "--package", str(folder), "--method", "minmax", *few, "--sensitivity", *BUDGET]) == 0
    return Package.open(folder)


@pytest.fixture(scope="module")
def facts(calibrated: Package) -> dict[str, Any]:
    return calibrated.manifest.verification["int8"]


@pytest.fixture(scope="module")
def quantiser(fragile: Package) -> Quantiser:
    images = open_images("streets", fragile.manifest.input.size, 3)
    made = made_from(fragile, "streets", data_hash(images))
    source = RangesSource(fragile, images, made, fragile.folder / "cache.json", False, lambda _: None, False)
    return Quantiser(models_of(fragile), source.ranges(), source.equalised)


@pytest.fixture(scope="module")
def scorer(fragile: Package) -> Scorer:
    return Scorer(fragile, models_of(fragile), scored_images("streets", SIZE, 19, set(), IMAGES, SCORED), False)


@pytest.fixture(scope="module")
def alone(facts: dict[str, Any]) -> dict[str, Measured]:
    return {name: Measured(**numbers) for name, numbers in facts["sensitivity"].items()}


def test_the_fragile_layer_costs_most(alone: dict[str, Measured]) -> None:
    by_labels = sorted(alone, key=lambda name: alone[name].agreement)
    assert by_labels[0] == FRAGILE
    assert 1 - alone[FRAGILE].agreement > 3 * (1 - alone[by_labels[1]].agreement)
    assert alone[FRAGILE].miou_drop == max(measured.miou_drop for measured in alone.values()) > 0
    assert alone[FRAGILE].boundary_drop == max(measured.boundary_drop for measured in alone.values())


def test_the_verb_takes_layers_back_until_the_budget_is_met(
    calibrated: Package, facts: dict[str, Any], scorer: Scorer
) -> None:
    left = set(facts["left_out"])
    assert FRAGILE in left and facts["written"] and not facts["exceeded"]
    assert facts["search"][0]["action"] == "all int8" and not facts["search"][0]["met"]
    assert facts["search"][0]["measured"]["miou_drop"] > 5
    # What is believed is the score of the graphs that were written, on all pixels, here measured once more.
    graphs = models_of(calibrated, "int8")
    measured = scorer.measure({part: graphs[part] for part in ("stem", "trunk")})
    assert Measured(**facts["int8"]) == measured
    assert measured.miou_drop <= 5 and measured.boundary_drop <= 6 and measured.agreement >= 0.983
    (step,) = (step for step in facts["search"] if step["met"] and set(step["left_out"]) == left)
    assert Measured(**step["measured"]) == measured
    assert facts["int8_share_of_multiply_adds"] == pytest.approx(count_int8(graphs["model"])) == step["share"]
    floats = {name for name in left for node in graphs["trunk"].graph.node if node.name == name}
    dequantised = {
        name for node in graphs["trunk"].graph.node if node.op_type == "DequantizeLinear" for name in node.output
    }
    for node in graphs["trunk"].graph.node:
        if node.op_type == "Conv":
            assert (node.input[1] in dequantised) == (node.name not in floats)


def test_equalising_mends_it(quantiser: Quantiser, scorer: Scorer) -> None:
    plain = scorer.measure(quantiser.graphs(Recipe("minmax"), "fp32"))
    equalised = scorer.measure(quantiser.graphs(Recipe("minmax", equalised=True), "fp32"))
    # 61 % of the labels without; 98.83 with, and 98.85 without the outlier
    assert plain.agreement < 0.75 and equalised.agreement > 0.98
    assert plain.miou_drop > 10 > 1 > equalised.miou_drop


def test_correcting_biases_brings_means_back(quantiser: Quantiser, fragile: Package) -> None:
    """Of what a convolution gives in int8, against the float network on the images that gave the ranges."""
    layer, images = "layer1.0.conv2", open_images("streets", fragile.manifest.input.size, IMAGES)
    others = frozenset(quantiser.layers) - {layer}

    def means(graph: onnx.ModelProto) -> np.ndarray:
        graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(layer))
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        return np.mean([session.run([layer], {"frames": f[None]})[0].mean((0, 2, 3), np.float64) for f in images], 0)

    exact = means(models_of(fragile)["model"])
    plain, corrected = (
        np.abs(means(quantiser.graphs(Recipe("minmax", fixed, left_out=others), "fp32", True)["model"]) - exact).sum()
        for fixed in (False, True)
    )
    assert corrected < 0.7 * plain


@pytest.mark.parametrize("rest", ["fp16", "fp32"])
def test_graphs_of_recipes(quantiser: Quantiser, rest: str) -> None:
    left = frozenset({"layer1.0.conv1", FRAGILE})
    graphs = quantiser.graphs(Recipe("mse", left_out=left), rest, whole=True)
    assert set(graphs) == {"stem", "trunk", "model"}
    assert count_int8(graphs["model"]) == pytest.approx(quantiser.share(left))
    assert 0.9 < quantiser.share(left) < 1 == quantiser.share(())
    (end,) = graphs["stem"].graph.output
    (start,) = graphs["trunk"].graph.input
    assert end.type.tensor_type.elem_type == start.type.tensor_type.elem_type
    every = quantiser.graphs(Recipe("mse"), rest)
    assert set(every) == {"stem", "trunk"}
    int8 = onnx.TensorProto.INT8
    assert every["stem"].graph.output[0].type.tensor_type.elem_type == int8
    # with its first convolution in float the trunk reads its features as float
    assert start.type.tensor_type.elem_type != int8


@pytest.mark.parametrize(
    "capability", [pytest.param("8.6", marks=pytest.mark.slow), "8.9", pytest.param("12.0", marks=pytest.mark.slow)]
)
def test_a_mixed_precision_builds_as_it_is_written(
    quantiser: Quantiser, fragile: Package, tmp_path: Path, capability: str
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'splitmerge[rtx]'")
    shutil.copytree(fragile.folder, tmp_path / "package")
    graphs = quantiser.graphs(Recipe("mse", left_out=frozenset({"conv1", FRAGILE})), "fp16")
    package = add_precision(Package.open(tmp_path / "package"), "int8", graphs)
    stem, trunk = build_engines(package, "tensorrt-rtx", "int8", GpuOptions(capability))
    found = {
        name: types["found"] for engine in (stem, trunk) for name, types in engine.build["convolution_types"].items()
    }
    assert found == dict.fromkeys(quantiser.layers, "Int8") | {"conv1": "Half", FRAGILE: "Half"}


def test_a_picture(alone: dict[str, Measured], tmp_path: Path) -> None:
    draw_sensitivity(alone, tmp_path / "cost.png")
    picture = cv2.imread(str(tmp_path / "cost.png"))
    assert picture is not None and picture.shape[0] > 21 * 20
    changed = {name: replace(m, agreement=1.0) for name, m in alone.items()}
    draw_sensitivity(changed, tmp_path / "other.png")
    assert not np.array_equal(picture, cv2.imread(str(tmp_path / "other.png")))


def test_scores_are_kept_and_dropped_with_their_key(tmp_path: Path, alone: dict[str, Measured]) -> None:
    path, (first, second) = tmp_path / "scores.json", list(alone.values())[:2]

    def never() -> Measured:
        raise AssertionError("measured again")

    log = ScoreLog(path, {"graphs": {"model": "a"}})
    assert log.measured(Recipe("mse"), 1, "fp32", lambda: first) == first
    assert log.measured(Recipe("mse"), 1, "fp32", never) == first
    again = ScoreLog(path, {"graphs": {"model": "a"}})
    assert again.resumed == 1 and again.measured(Recipe("mse"), 1, "fp32", never) == first
    others = [
        (Recipe("mse"), 2, "fp32"),
        (Recipe("mse"), 1, "fp16"),
        (Recipe("mse", left_out=frozenset("a")), 1, "fp32"),
    ]
    for recipe, stride, rest in [*others, (Recipe("mse", corrected=True), 1, "fp32")]:
        assert again.measured(recipe, stride, rest, lambda: second) == second
    assert ScoreLog(path, {"graphs": {"model": "b"}}).resumed == 0
    path.write_text("{")
    assert ScoreLog(path, {}).resumed == 0
    again.remove()
    assert not path.exists()
