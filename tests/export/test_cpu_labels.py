"""Labels of upsampled logits in the form for CPUs, against ONNX's own reference implementation of what it replaces."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from cpu_graphs import Graph
from export_samples import MEAN, STD, network, noise, normalised, ort
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes import common

from export.cpu.labels import label_bands, rows_between
from export.ends import LABELS
from export.graphs import Rewriting, contract_for, graphs_from_network
from export.nodes import size_of, sizes

LINEAR = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}


def upsampled(build: Graph, value: ir.Value, factors: tuple[float, float], **attributes: Any) -> ir.Value:
    height, width = size_of(value)
    shape = (None, sizes(value)[1], int(height * factors[0]), int(width * factors[1]))
    scales = build.constant(np.array([1, 1, *factors], np.float32))
    nothing: Any = None
    return build.node("Resize", [value, nothing, scales], shape, **{**LINEAR, **attributes})


def graph(
    size: tuple[int, int] = (5, 6), factors: tuple[float, float] = (8, 8), argmax: Any = None, **resize: Any
) -> ir.Model:
    """Labels from `x`, upsampled logits of 7 classes."""
    build = Graph(7, *size)
    large = upsampled(build, build.x, factors, **resize)
    given = {"axis": 1, "keepdims": 0} | (argmax or {})
    shape: list[int | None] = [None, 7, *size_of(large)]
    if given["keepdims"]:
        shape[given["axis"]] = 1
    else:
        del shape[given["axis"]]
    return build.model(build.node("ArgMax", [large], tuple(shape), ir.DataType.INT64, **given))


def banded(model: ir.Model) -> tuple[ir.Model, int]:
    """Rewritten, and checked as export does."""
    part = model.clone()
    count = label_bands(part)
    for node in part.graph:
        for value in node.outputs:
            if value not in part.graph.outputs:
                value.shape = None
    common.ShapeInferencePass(strict_mode=True)(part)
    common.CheckerPass(full_check=True)(part)
    return part, count


def random(model: ir.Model, batch: int = 2) -> np.ndarray[Any, np.dtype[np.float32]]:
    shape = [size or 1 for size in sizes(model.graph.inputs[0])[1:]]
    return np.random.default_rng(3).normal(size=(batch, *shape)).astype(np.float32)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(2, 9), st.integers(1, 9), st.integers(1, 3))
def test_labels_are_those_of_onnxs_reference(height: int, width: int, down: int, across: int, batch: int) -> None:
    model = graph((height, width), (down, across))
    part, count = banded(model)
    assert count == 1
    x = random(model, batch)
    (expected,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
    found = ort(part, {"x": x})["y0"]
    assert found.dtype == expected.dtype and found.shape == expected.shape
    large = ReferenceEvaluator(ir.to_proto(logits_of(height, width, down, across))).run(None, {"x": x})[0]
    two = np.sort(large, axis=1)[:, -2:]
    decided = two[:, 1] - two[:, 0] > 1e-5
    np.testing.assert_array_equal(found[decided], expected[decided])
    assert decided.mean() > 0.99


def logits_of(height: int, width: int, down: int, across: int) -> ir.Model:
    build = Graph(7, height, width)
    return build.model(upsampled(build, build.x, (down, across)))


@pytest.mark.parametrize(("rows", "factor"), [(1, 2), (4, 8), (3, 5), (2, 32)])
def test_the_matrix_is_linear_upsampling(rows: int, factor: int) -> None:
    """Of rows whose neighbours above and below are other than themselves: PyTorch upsamples all, and these are its
    middle ones."""
    values = np.random.default_rng(0).normal(size=(rows + 2, 3)).astype(np.float32)
    x = torch.from_numpy(values.T.copy())[None]
    large = torch.nn.functional.interpolate(x, scale_factor=factor, mode="linear", align_corners=False)[0].numpy().T
    np.testing.assert_allclose(rows_between(rows, factor) @ values, large[factor:-factor], rtol=0, atol=1e-6)


def test_whoever_else_reads_the_logits_gets_those_that_were_compared() -> None:
    build = Graph(6, 4, 5)
    large = upsampled(build, build.conv(build.x, 6, 1), (4, 2))
    before = build.relu(large)  # stands in front of the argmax
    model = build.model(large, build.argmax(large), before)
    part, count = banded(model)
    assert count == 1
    x = random(model)
    expected, found = ort(model, {"x": x}), ort(part, {"x": x})
    assert list(found) == list(expected)
    np.testing.assert_array_equal(found["y0"].argmax(1), found["y1"])
    np.testing.assert_array_equal(found["y2"], np.maximum(found["y0"], 0))
    np.testing.assert_allclose(found["y0"], expected["y0"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("last", [0, 1])
def test_of_equal_logits_the_same_one_is_taken(last: int) -> None:
    model = graph(argmax={"select_last_index": last})
    part, count = banded(model)
    assert count == 1
    x = np.zeros((1, 7, 5, 6), np.float32)
    x[:, 2] = x[:, 4] = 1
    assert set(ort(part, {"x": x})["y0"].flat) == {4 if last else 2} == set(ort(model, {"x": x})["y0"].flat)


def test_pytorchs_name_for_the_same_centres() -> None:
    """They differ for a single pixel alone."""
    model = graph(coordinate_transformation_mode="pytorch_half_pixel")
    part, count = banded(model)
    x = random(model)
    assert count == 1
    assert (ort(part, {"x": x})["y0"] == ort(model, {"x": x})["y0"]).mean() > 0.999


@pytest.mark.parametrize(
    "model",
    [
        graph(factors=(2.5, 2.5), size=(4, 4)),
        graph(factors=(1, 4)),
        graph(mode="nearest"),
        graph(mode="cubic"),
        graph(coordinate_transformation_mode="align_corners"),
        graph(coordinate_transformation_mode="asymmetric"),
        graph(argmax={"axis": 2}),
        graph(argmax={"keepdims": 1}),
    ],
)
def test_other_upsampling_is_left_alone(model: ir.Model) -> None:
    part, count = banded(model)
    assert count == 0
    assert ir.to_proto(part).graph.node == ir.to_proto(model).graph.node


def test_labels_of_the_input_itself_are_left_alone() -> None:
    build = Graph(3, 4, 4)
    assert banded(build.model(build.argmax(build.x)))[1] == 0


@pytest.mark.parametrize("size", [(64, 96), (70, 100)])
def test_a_dense_network_keeps_its_convolutions_and_has_banded_labels(size: tuple[int, int]) -> None:
    """Padded and cropped, too. Where nothing is split, tiling would lose."""
    model = network("fcn8s-18", width=64)
    graphs = graphs_from_network(model, contract_for(size, model.stride, MEAN, STD), rewriting=Rewriting(target="cpu"))
    plain, kinds = ([node.op_type for node in part.graph] for part in (graphs.parts["model"], graphs.cpu["model"]))
    assert kinds.count("Conv") == plain.count("Conv") and kinds.count("MatMul") == 1
    frames = noise(2, *size)
    found = ort(graphs.cpu["model"], {"frames": frames})[LABELS]
    with torch.no_grad():
        logits = model(normalised(frames)).numpy()
    two = np.sort(logits, axis=1)[:, -2:]
    decided = two[:, 1] - two[:, 0] > 1e-4
    np.testing.assert_array_equal(found[decided], logits.argmax(1)[decided])
    assert found.dtype == np.uint8 and decided.mean() > 0.99


@pytest.mark.parametrize(("width", "tiled"), [(64, True), (16, False)])
def test_a_split_form_in_one_piece_is_tiled_where_there_are_many_channels(width: int, tiled: bool) -> None:
    """On split batches only: with width 64 the last two stages' convolutions, of 256 and 512 channels."""
    model = network("dilatedfcn8-18", width=width)
    contract = contract_for((64, 128), model.stride, MEAN, STD)
    graphs = graphs_from_network(model, contract, rewriting=Rewriting("split", target="cpu"))
    assert list(graphs.cpu) == ["model"]
    plain, made = (
        [sizes(node.inputs[1]) for node in part.graph if node.op_type == "Conv" and node.inputs[1]]
        for part in (graphs.parts["model"], graphs.cpu["model"])
    )
    of_three = [shape[:2] for shape in plain if shape[2:] == (3, 3)]
    gone = {channels for channels in of_three if (*channels, 3, 3) not in made}
    assert gone == ({(256, 256), (512, 256), (512, 512)} if tiled else set())
