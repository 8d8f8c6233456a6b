"""Dilated convolutions as split batches and back: random graphs, FastFCN's equation, and networks that have them."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from export_samples import MEAN, STD, network, noise, normalised, ort
from hypothesis import given, settings
from onnx.reference import ReferenceEvaluator
from random_graphs import Builder, channels_of, graphs
from rewriting_checks import check_there_and_back, inputs_of, poolings, rates, run
from test_poolings import traced

from export.dilated_form import dilate_split
from export.graphs import contract_for, graphs_from_whole, whole_from_network
from export.nodes import sizes
from export.split_form import split_dilated
from training.layers import merge_pool, split_pool


@settings(deadline=None, max_examples=100)
@given(graphs())
def test_random_graphs_there_and_back(model: ir.Model) -> None:
    check_there_and_back(model)


@pytest.mark.slow
@settings(deadline=None, max_examples=2000)
@given(graphs(operators=12))
def test_many_random_graphs_there_and_back(model: ir.Model) -> None:
    check_there_and_back(model)


def stack(size: tuple[int, int], rates: list[tuple[int, int]]) -> ir.Model:
    """3x3 convolutions with a bias, one behind the other, at the size of the image."""
    build = Builder(2, *size)
    value = build.x
    for rate in rates:
        value = build.conv(value, 2, (3, 3), rate, pads=[*rate, *rate])
    return build.model([value])


@pytest.mark.parametrize("layers", [1, 3])
def test_fastfcn_equation_2(layers: int) -> None:
    """C_d^n is M C_r^n S (FastFCN, Eq. 2): one split, n regular convolutions, one merge; the same in PyTorch."""
    dilated = stack((8, 12), [(2, 2)] * layers)
    split = dilated.clone()
    split_dilated(split)
    assert [node.op_type for node in split.graph] == ["SplitPool", *["Conv"] * layers, "MergePool"]
    assert rates(split) == [(1, 1)] * layers
    inputs = inputs_of(dilated)
    (expected,) = run(dilated, inputs).values()
    (found,) = run(split, inputs).values()
    np.testing.assert_array_equal(found, expected)
    x = split_pool(torch.from_numpy(inputs["x"]))
    for node in dilated.graph:
        weight, bias = (torch.from_numpy(v.const_value.numpy()) for v in node.inputs[1:] if v and v.const_value)
        if node.op_type == "Conv":
            x = torch.nn.functional.conv2d(x, weight, bias, padding=1)
    np.testing.assert_array_equal(merge_pool(x).numpy(), expected)


@pytest.mark.parametrize("size", [(8, 12), (9, 11)])
def test_a_rate_that_grows_splits_what_is_split(size: tuple[int, int]) -> None:
    model = stack(size, [(2, 2), (2, 2), (4, 4), (4, 4), (2, 2)])
    check_there_and_back(model)
    split_dilated(model)
    two = (2, 2)
    assert poolings(model) == [
        ("SplitPool", two), ("SplitPool", two), ("MergePool", two), ("MergePool", two)
    ]  # fmt: skip


def test_rates_with_a_common_part_share_its_split() -> None:
    """As ASPP's 6, 12 and 18; its merges are shared, too, behind the concatenation and the projection."""
    build = Builder(2, 36, 36)
    branches = [build.conv(build.x, 4, (3, 3), (rate, rate), pads=[rate] * 4) for rate in (6, 12, 18)]
    joined = build.node("Concat", branches, max(map(build.bounds.__getitem__, branches)), axis=1)
    model = build.model([build.conv(joined, 1, (1, 1), (1, 1))])
    assert channels_of(joined) == 12
    check_there_and_back(model)
    split_dilated(model)
    assert sorted(poolings(model)) == [
        ("MergePool", (2, 2)), ("MergePool", (3, 3)), ("MergePool", (6, 6)),
        ("SplitPool", (2, 2)), ("SplitPool", (3, 3)), ("SplitPool", (6, 6)),
    ]  # fmt: skip


def test_what_is_no_number_beyond_the_image_stays_there() -> None:
    """1/0 * 0 below and on the right of a padded image; a mask that multiplied would let it in."""
    build = Builder(1, 5, 5)
    five, none = (build.constant(np.full((1, 1, 1), number, np.float32)) for number in (5, 0))
    positive = build.node("Add", [build.x, five], 7)
    maximum = build.node("MaxPool", [positive], 7, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    nothing = build.node("Mul", [build.node("Reciprocal", [maximum], 1), none], 0)
    value = build.node("Add", [maximum, nothing], 7)
    model = build.model([build.conv(value, 1, (3, 3), (2, 2), pads=[2, 2, 2, 2])])
    check_there_and_back(model)
    split_dilated(model)
    order = [node.op_type for node in model.graph]
    assert order.index("SplitPool") < order.index("Reciprocal") < order.index("Mask") < order.index("Conv")


@pytest.mark.parametrize("size", [(7, 9), (7, 10), (8, 8)])
def test_a_pointwise_convolution_that_pads_reads_zeros_beyond_the_image(size: tuple[int, int]) -> None:
    build = Builder(2, *size)
    value = build.conv(build.x, 2, (3, 3), (2, 2), pads=[2, 2, 2, 2])
    value = build.conv(value, 2, (1, 1), (1, 1), pads=[2, 2, 2, 2])
    model = build.model([build.conv(value, 2, (3, 3), (2, 2), pads=[2, 2, 2, 2])])
    check_there_and_back(model)
    split_dilated(model)
    assert [kind for kind, _ in poolings(model)] == ["SplitPool", "MergePool"]


@pytest.mark.parametrize("window", [(2, 2), (4, 4), (1, 5)])
@pytest.mark.parametrize("pooling", ["MaxPool", "AveragePool", "AveragePool, count_include_pad = 1"])
def test_poolings_whose_padding_would_outgrow_their_kernel_stay_split(pooling: str, window: tuple[int, int]) -> None:
    """ONNX Runtime takes paddings below the kernel's size, which dilation does not change."""
    kind, *count = pooling.split(",")
    attributes = ", ".join(["kernel_shape = [3, 3]", "pads = [1, 1, 1, 1]", *count])
    height, width = 3 * window[0], 4 * window[1]
    model = traced(
        f"g (float[N,2,{height},{width}] x) => (float[N,2,{height},{width}] y) "
        f"<float[M,2,3,4] s, float[M,2,3,4] p, float[M,2,3,4] q> "
        f"{{ s = splitmerge.SplitPool <window = [{window[0]}, {window[1]}]> (x) p = {kind} <{attributes}> (s) "
        f"q = Neg (p) y = splitmerge.MergePool <window = [{window[0]}, {window[1]}]> (q) }}"
    )
    x = np.random.default_rng(0).normal(size=(2, 2, height, width)).astype(np.float32)
    (expected,) = run(model, {"x": x}).values()
    dilate_split(model)
    (found,) = run(model, {"x": x}).values()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    stays = max(window) > 2
    assert [kind for kind, _ in poolings(model)] == ["SplitPool", "MergePool"] * stays


def test_rows_are_picked_behind_an_operator_that_stays_split() -> None:
    """The sizes that count are those of split batches, though the operator in front hands on whole images."""
    model = traced(
        """
        g (float[N,2,16,16] x) => (float[N,2,4,4] y)
        <int64[1] starts = {-3}, int64[1] ends = {-1}, int64[1] axes = {2}, int64[2] last = {-1, 0},
         float[M,2,8,8] s, float[M,2,4,4] p, float[M,2,2,4] rows, float[M,2,2,2] columns>
        {
            s = splitmerge.SplitPool <window = [2, 2]> (x)
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (s)
            rows = Slice (p, starts, ends, axes)
            columns = Gather <axis = 3> (rows, last)
            y = splitmerge.MergePool <window = [2, 2]> (columns)
        }
        """
    )
    x = np.random.default_rng(0).normal(size=(2, 2, 16, 16)).astype(np.float32)
    expected = np.empty((2, 2, 4, 4), np.float32)
    for row, column in np.ndindex(2, 2):
        batch = x[:, :, row::2, column::2].reshape(2, 2, 4, 2, 4, 2).max((3, 5))
        expected[:, :, row::2, column::2] = batch[:, :, 1:3][..., [-1, 0]]
    np.testing.assert_array_equal(run(model, {"x": x})["y"], expected)
    dilate_split(model)
    assert [node.op_type for node in model.graph] == ["SplitPool", "MaxPool", "MergePool", "Slice", "Gather"]
    np.testing.assert_array_equal(run(model, {"x": x})["y"], expected)


def test_operators_that_stay_split_one_behind_the_other() -> None:
    steps = "s = splitmerge.SplitPool <window = [2, 2]> (x) "
    steps += "p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (s) q = Relu (p) "
    steps += "r = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (q) y = splitmerge.MergePool <window = [2, 2]> (r)"
    shapes = "float[M,1,8,8] s, float[M,1,4,4] p, float[M,1,4,4] q, float[M,1,2,2] r"
    model = traced(f"g (float[N,1,16,16] x) => (float[N,1,4,4] y) <{shapes}> {{ {steps} }}")
    x = np.random.default_rng(0).normal(size=(1, 1, 16, 16)).astype(np.float32)
    (expected,) = run(model, {"x": x}).values()
    dilate_split(model)
    assert [sizes(node.outputs[0])[2:] for node in model.graph] == [
        (8, 8),
        (4, 4),
        (8, 8),
        (8, 8),
        (4, 4),
        (2, 2),
        (4, 4),
    ]
    np.testing.assert_array_equal(run(model, {"x": x})["y"], expected)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4)])
def test_automatic_padding(auto_pad: str, kernel: tuple[int, int]) -> None:
    """Against ONNX's reference implementation: ONNX Runtime knows no automatic padding of dilated convolutions."""
    build = Builder(2, 7, 10)
    model = build.model([build.conv(build.x, 2, kernel, (3, 2), auto_pad=auto_pad)])
    inputs = inputs_of(model)
    (expected,) = ReferenceEvaluator(ir.to_proto(model)).run(None, inputs)  # type: ignore[misc]
    for rewrite in (split_dilated, dilate_split):
        rewrite(model)
        np.testing.assert_array_equal(run(model, inputs)["y0"], expected)


SIZE = (70, 100)
"""Which no stride divides, and whose features no rate divides."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("dilatedfcn8-18", marks=pytest.mark.slow),
        "deeplabv3-50,output_stride=8",
        pytest.param("fastfcn-aspp-50", marks=pytest.mark.slow),
    ],
)
def test_dilated_networks_in_split_form(name: str) -> None:
    """Against PyTorch, which runs them dilated."""
    model = network(name)
    contract = contract_for(SIZE, model.stride, MEAN, STD)
    whole = whole_from_network(model, contract, logits=True)
    dilated = set(rates(whole)) - {(1, 1)}
    split_dilated(whole)
    assert dilated and not set(rates(whole)) - {(1, 1)}
    frames = noise(2, *SIZE)
    found = ort(graphs_from_whole(whole, contract, 0).parts["model"], {"frames": frames})
    with torch.no_grad():
        expected = model(normalised(frames)).numpy()
    np.testing.assert_allclose(found["logits"], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_dilated_stage_runs_in_split_layout() -> None:
    """Of dilatedfcn8-18 at sizes that fit: into rate 2 and rate 4 with the main branch and the shortcut, out once."""
    model = network("dilatedfcn8-18")
    contract = contract_for((64, 96), model.stride, MEAN, STD)
    whole = whole_from_network(model, contract)
    split_dilated(whole)
    assert poolings(whole) == [("SplitPool", (2, 2))] * 4 + [("MergePool", (4, 4))]


def test_split_networks_in_dilated_form() -> None:
    """SMP-18 without a pooling is the network that `training.reduction.Dilated` makes of the same weights."""
    model = network("smp18")
    contract = contract_for((45, 70), model.stride, MEAN, STD)
    whole = whole_from_network(model, contract, logits=True)
    dilate_split(whole)
    assert not poolings(whole)
    assert {rate for rate in rates(whole) if rate != (1, 1)} == {(2**level,) * 2 for level in range(2, 6)}
    frames = noise(2, 45, 70)
    found = ort(graphs_from_whole(whole, contract, 0).parts["model"], {"frames": frames})
    with torch.no_grad():
        expected = model.dilated_logits(normalised(frames)).numpy()  # type: ignore[operator]
    np.testing.assert_allclose(found["logits"], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
