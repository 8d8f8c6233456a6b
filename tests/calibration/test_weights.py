"""Scales of int8, corrected biases and equalised layers, each against what it is defined by."""

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

pytest.importorskip("torch", reason="pip install 'splitmerge[export]'")
pytest.importorskip("onnx_ir", reason="pip install 'splitmerge[export]'")

from quantise_samples import HALVES, PADDED, UNPADDED, frames, part, run

from calibration.placement import quantised_graph, quantised_tensors
from calibration.weights import (
    corrected_biases,
    equalised,
    quantised_weight,
    scales_for,
    weight_scales,
)
from splitmerge.errors import InputError


def constants(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def chain(groups: int = 1, size: int = 3) -> onnx.ModelProto:
    """x [n,8,h,w] -> conv a -> ReLU -> conv b, with channels whose sizes differ by thousands."""
    rng = np.random.default_rng(1)
    spread = np.geomspace(0.01, 30, 8)[:, None, None, None]
    weights = {
        "a.weight": rng.normal(size=(8, 8 // groups, size, size)) * spread,
        "a.bias": rng.normal(size=8) * spread[:, 0, 0, 0],
        "b.weight": rng.normal(size=(5, 8, 1, 1)),
        "b.bias": rng.normal(size=5),
    }
    nodes = [
        helper.make_node("Conv", ["x", "a.weight", "a.bias"], ["a"], name="a", group=groups),
        helper.make_node("Relu", ["a"], ["relu"], name="relu"),
        helper.make_node("Conv", ["relu", "b.weight", "b.bias"], ["b"], name="b"),
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", 1, ["n", 8, 12, 12])],
        [helper.make_tensor_value_info("b", 1, None)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


def inputs() -> dict[str, NDArray[np.float32]]:
    return {"x": np.random.default_rng(2).gamma(1, size=(4, 8, 12, 12)).astype(np.float32)}


def test_scales_are_the_next_float16() -> None:
    thresholds = np.concatenate([[0, 1e-12, 1, 127, 127.0001, 65504 * 127], np.geomspace(1e-7, 1e6, 500)])
    scales = scales_for(thresholds)
    assert scales.dtype == np.float32
    assert (scales == HALVES[np.searchsorted(HALVES, thresholds / 127)]).all()
    assert np.isinf(scales_for(9e6))
    assert scales_for(1.0).shape == ()


def test_weights_lose_at_most_half_a_step() -> None:
    weight = np.random.default_rng(0).normal(size=(6, 4, 3, 3)) * np.geomspace(1e-6, 1e3, 6)[:, None, None, None]
    weight[2] = 0
    scales = weight_scales(weight)
    steps = quantised_weight(weight, scales)
    assert steps.dtype == np.int8
    assert np.abs(steps.astype(int)).max() <= 127
    assert not steps[2].any()
    assert (np.abs(weight - steps * scales[:, None, None, None]) <= 0.5001 * scales[:, None, None, None]).all()


@pytest.mark.parametrize("groups", [1, 4])
def test_a_corrected_bias_takes_the_mean_error_of_the_weights_away(groups: int) -> None:
    """Without padding the output's mean is linear in the inputs' means, so a constant input shows it exactly."""
    model, feeds = chain(groups, size=1), inputs()
    means = {name: values.mean(axis=(0, 2, 3)) for name, values in run(model, feeds, ["relu"]).items()}
    corrected = corrected_biases(model, means)
    before, after = constants(model), constants(corrected)
    assert (before["a.weight"] == after["a.weight"]).all()

    def off(graph: onnx.ModelProto) -> float:
        """How far the mean of `a` is off when the weights alone are int8."""
        weight = after["a.weight"]
        scales = weight_scales(weight)
        rounded = helper.make_graph(graph.graph.node, "rounded", graph.graph.input, graph.graph.output)
        held = constants(graph) | {
            "a.weight": (quantised_weight(weight, scales) * scales[:, None, None, None]).astype(np.float32)
        }
        rounded.initializer.extend(numpy_helper.from_array(value, name) for name, value in held.items())
        found = run(helper.make_model(rounded, opset_imports=graph.opset_import, ir_version=10), feeds, ["a"])["a"]
        error = found.mean(axis=(0, 2, 3)) - run(model, feeds, ["a"])["a"].mean(axis=(0, 2, 3))
        return float(np.abs(error / np.geomspace(0.01, 30, 8)).max())

    assert off(corrected) < 1e-3 * off(model)
    assert off(model) > 1e-4


def test_only_the_layers_asked_for_are_corrected_and_means_must_fit() -> None:
    model = chain()
    corrected = constants(corrected_biases(model, {"relu": np.ones(8)}, ["b"]))
    assert (corrected["a.bias"] == constants(model)["a.bias"]).all()
    assert (corrected["b.bias"] != constants(model)["b.bias"]).any()
    for means in ({}, {"relu": np.ones(7)}, {"relu": np.full(8, np.nan)}):
        with pytest.raises(InputError, match="the bias of b needs the 8 channel means of relu"):
            corrected_biases(model, means, ["b"])


def test_correcting_goes_through_splits() -> None:
    """Means are given under the name before the split, as thresholds are."""
    model = part("smp18", "trunk", PADDED)
    shapes = {name: value.shape[1] for name, value in constants(model).items() if name.endswith(".weight")}
    means = {name: np.zeros(shapes["layer2.0.conv2.weight"]) for name in quantised_tensors(model)}
    unmoved = constants(corrected_biases(model, means, ["layer2.0.conv2"]))
    assert (unmoved["layer2.0.conv2.bias"] == constants(model)["layer2.0.conv2.bias"]).all()
    means["layer2.0.relu"] += 1
    moved = constants(corrected_biases(model, means, ["layer2.0.conv2"]))
    assert (moved["layer2.0.conv2.bias"] != constants(model)["layer2.0.conv2.bias"]).any()


@pytest.mark.parametrize("by_activations", [False, True])
def test_an_equalised_chain_computes_the_same_bit_for_bit(by_activations: bool) -> None:
    model, feeds = chain(), inputs()
    found = run(model, feeds, ["relu"])
    ranges = {"relu": found["relu"].max(axis=(0, 2, 3))} if by_activations else None
    equal = equalised(model, ranges)
    after = run(equal, feeds, ["relu"])
    assert (after["b"] == found["b"]).all()
    spread = [values["relu"].max(axis=(0, 2, 3)) for values in (found, after)]
    assert spread[1].max() / spread[1].min() < 0.1 * spread[0].max() / spread[0].min()
    read = constants(equal)
    made = spread[1] if by_activations else np.abs(read["a.weight"]).max(axis=(1, 2, 3))
    ratio = made / np.abs(read["b.weight"]).max(axis=(0, 2, 3))
    assert (ratio >= 0.5).all()
    assert (ratio <= 2).all()  # a power of two is at most a factor of sqrt(2) off, on both sides


def test_equalising_lessens_the_error_of_int8() -> None:
    model, feeds = chain(), inputs()
    found = run(model, feeds, ["relu"])
    equal = equalised(model, {"relu": found["relu"].max(axis=(0, 2, 3))})
    errors = []
    for graph in (model, equal):
        held = run(graph, feeds, ["relu"])
        int8 = quantised_graph(graph, {name: float(held[name].max()) for name in ("x", "relu")}, ["b"], "fp32")
        errors.append(np.square(run(int8, feeds)["b"] - found["b"]).mean())
    assert errors[1] < errors[0]


@pytest.mark.parametrize(("name", "size", "pairs"), [("smp18", PADDED, 8), ("smp50", UNPADDED, 32)])
def test_equalised_networks_give_the_same_logits(name: str, size: tuple[int, int], pairs: int) -> None:
    """Every block's inner convolutions are equalised, through its split, and nothing else is."""
    model = part(name, "model", size, 2 if name == "smp18" else 3)
    equal = equalised(model)
    before, after = constants(model), constants(equal)
    changed = {key for key, value in before.items() if (value != after[key]).any()}
    firsts = {key for key in changed if key.endswith(".bias")}
    assert firsts <= {key for key in before if ".conv1.bias" in key or ".conv2.bias" in key}
    assert 0.7 * pairs <= len(firsts) <= pairs
    feeds = {"frames": frames(size)}
    assert (run(equal, feeds, ["classifier"])["classifier"] == run(model, feeds, ["classifier"])["classifier"]).all()


def test_equalising_stops_where_a_reshape_mixes_channels() -> None:
    """Reshape, transpose, reshape of a channel shuffle looks like a split."""
    model = chain()
    relu = model.graph.node[1].output[0]
    shuffle = [
        helper.make_node("Reshape", [relu, "apart"], ["s1"], name="s1"),
        helper.make_node("Transpose", ["s1"], ["s2"], name="s2", perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["s2", "together"], ["s3"], name="s3"),
    ]
    for node in reversed(shuffle):
        model.graph.node.insert(2, node)
    model.graph.node[-1].input[0] = "s3"
    shapes = {"apart": [-1, 2, 4, 10, 10], "together": [-1, 8, 10, 10]}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(s, np.int64), n) for n, s in shapes.items())
    after = constants(equalised(model))
    assert all((after[name] == value).all() for name, value in constants(model).items())
