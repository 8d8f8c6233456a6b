"""A layer that was made fragile on purpose is found, taken back, and mended by equalisation; scores are kept."""

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

pytest.importorskip("onnx_ir", reason="pip install 'splitmerge[export]'")
pytest.importorskip("torch", reason="pip install 'splitmerge[export]'")

from trained import models_of, trained_package, with_weights

from calibration.cache import made_from
from calibration.cached import RangesSource
from calibration.images import data_hash, open_images
from calibration.package import add_precision
from calibration.quantise_count import count_int8
from calibration.recipes import Quantiser, Recipe
from calibration.score import Budget, Measured, Scorer
from calibration.score_log import ScoreLog
from calibration.scored_images import scored_images
from calibration.search import order_of_return, search
from calibration.sensitivity import draw_sensitivity, sensitivity
from engines.build import GpuOptions, build_engines
from splitmerge.package import Package

FRAGILE = "layer3.0.conv2"
OUTLIER = 300.0


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The shipped network, but one channel is 300 times as large, and read with weights 300 times as small."""
    package = trained_package(tmp_path_factory.mktemp("fragile") / "package")

    def scaled(model: onnx.ModelProto) -> onnx.ModelProto:
        (maker,) = (node for node in model.graph.node if node.name == "layer3.0.conv1")
        (reader,) = (node for node in model.graph.node if node.name == FRAGILE)

        def larger(array: np.ndarray) -> np.ndarray:
            array[channel] *= OUTLIER
            return array

        def smaller(array: np.ndarray) -> np.ndarray:
            array[:, channel] /= OUTLIER
            return array

        weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        channel = int(np.argmax(np.abs(weights[reader.input[1]]).max(axis=(0, 2, 3))))
        for name in maker.input[1:]:
            model = with_weights(model, name, larger)
        return with_weights(model, reader.input[1], smaller)

    models = models_of(package)
    changed = {part: scaled(model) if part != "stem" else model for part, model in models.items()}
    return add_precision(package, "fp32", changed)


@pytest.fixture(scope="module")
def quantiser(fragile: Package) -> Quantiser:
    images = open_images("streets", fragile.manifest.input.size, 3)
    made = made_from(fragile, "streets", data_hash(images))
    source = RangesSource(fragile, images, made, fragile.folder / "cache.json", False, lambda _: None, False)
    return Quantiser(models_of(fragile), source.ranges(), source.equalised)


@pytest.fixture(scope="module")
def scorer(fragile: Package) -> Scorer:
    return Scorer(fragile, models_of(fragile), scored_images("streets", (64, 128), 19, set(), 3, 2), False)


@pytest.fixture(scope="module")
def alone(quantiser: Quantiser, scorer: Scorer) -> dict[str, Measured]:
    def measure(left_out: frozenset[str]) -> Measured:
        return scorer.measure(quantiser.graphs(Recipe("minmax", left_out=left_out), "fp32"), 2)

    return sensitivity(quantiser.layers, measure, lambda name, measured: None)


def test_the_fragile_layer_costs_most(alone: dict[str, Measured]) -> None:
    by_labels = sorted(alone, key=lambda name: alone[name].agreement)
    assert by_labels[0] == FRAGILE
    assert 1 - alone[FRAGILE].agreement > 3 * (1 - alone[by_labels[1]].agreement)
    assert alone[FRAGILE].miou_drop == max(measured.miou_drop for measured in alone.values()) > 0
    assert alone[FRAGILE].boundary_drop == max(measured.boundary_drop for measured in alone.values())


def test_the_search_takes_it_back(quantiser: Quantiser, scorer: Scorer, alone: dict[str, Measured]) -> None:
    def measure(left_out: frozenset[str]) -> Measured:
        return scorer.measure(quantiser.graphs(Recipe("minmax", left_out=left_out), "fp32"), 2)

    without = measure(frozenset({FRAGILE}))
    budget = Budget(None, None, None, without.agreement)
    assert not budget.is_met(measure(frozenset()))
    found = search([FRAGILE], quantiser.work, sum(quantiser.work.values()), budget, measure)
    assert found.met and found.left_out == {FRAGILE}
    assert FRAGILE in order_of_return(alone, quantiser.work, budget)[:10]  # of 21; small layers cost more per work


def test_equalising_mends_it(quantiser: Quantiser, scorer: Scorer) -> None:
    plain = scorer.measure(quantiser.graphs(Recipe("minmax"), "fp32"))
    equalised = scorer.measure(quantiser.graphs(Recipe("minmax", equalised=True), "fp32"))
    assert 1 - equalised.agreement < 0.6 * (1 - plain.agreement)
    corrected = quantiser.graphs(Recipe("minmax", corrected=True), "fp32")
    assert scorer.measure(corrected).agreement > 0.5


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


def test_a_mixed_precision_builds_as_it_is_written(quantiser: Quantiser, fragile: Package, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'splitmerge[rtx]'")
    shutil.copytree(fragile.folder, tmp_path / "package")
    graphs = quantiser.graphs(Recipe("mse", left_out=frozenset({"conv1", FRAGILE})), "fp16")
    package = add_precision(Package.open(tmp_path / "package"), "int8", graphs)
    stem, trunk = build_engines(package, "tensorrt-rtx", "int8", GpuOptions("8.9"))
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
