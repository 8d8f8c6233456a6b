"""The float16 form of graphs, held against PyTorch doing the same operators one by one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from small_package import make_package

torch = pytest.importorskip("torch", reason="pip install 'splitmerge[export]'")
pytest.importorskip("onnx_ir", reason="pip install 'splitmerge[export]'")

from calibration.half import half_graph  # noqa: E402
from export.package import export_package  # noqa: E402
from splitmerge.errors import InputError  # noqa: E402
from splitmerge.package import Package  # noqa: E402
from training.data import open_dataset  # noqa: E402

CHECKPOINT = Path(__file__).parents[2] / "training" / "checkpoints" / "smp18-streets.safetensors"
FLOAT, HALF, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return export_package(CHECKPOINT, (64, 128), tmp_path_factory.mktemp("shipped") / "package")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("small") / "package")


def loaded(package: Package, part: str) -> onnx.ModelProto:
    return onnx.load(package.path(package.parts("fp32")[part]))


def types(values: object) -> dict[str, int]:
    return {value.name: value.type.tensor_type.elem_type for value in values}  # type: ignore[attr-defined]


def run(model: onnx.ModelProto, feeds: dict[str, NDArray[np.generic]], *more: str) -> list[NDArray[np.generic]]:
    """The graph's outputs in ONNX Runtime, and further values by name."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in more)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: list[NDArray[np.generic]] = session.run(None, feeds)
    return outputs


def by_hand(model: onnx.ModelProto, feeds: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Every value of the graph, an operator at a time: computed in float64 and rounded to the type of its inputs."""
    values = {weight.name: torch.from_numpy(numpy_helper.to_array(weight).copy()) for weight in model.graph.initializer}
    values |= {name: torch.from_numpy(array) for name, array in feeds.items()}
    casts = {FLOAT: torch.float32, HALF: torch.float16, UINT8: torch.uint8, TensorProto.INT32: torch.int32}

    def convolution(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor, pads: list[int], **a: list[int]) -> torch.Tensor:
        dilation, stride = a.get("dilations", [1, 1]), a.get("strides", [1, 1])
        wide = torch.nn.functional.conv2d(x.double(), w.double(), b.double(), stride, pads[:2], dilation)
        assert x.dtype == w.dtype == b.dtype
        return wide.to(x.dtype)

    operators: dict[str, Callable[..., torch.Tensor]] = {
        "Add": torch.add,
        "Sub": torch.sub,
        "Mul": torch.mul,
        "Relu": torch.relu,
        "Cast": lambda x, to: x.to(casts[to]),
        "Reshape": lambda x, shape, **_: x.reshape(shape.tolist()),
        "Transpose": lambda x, perm: x.permute(perm),
        "ArgMax": lambda x, axis, keepdims=1, **_: x.float().argmax(axis, keepdim=bool(keepdims)),
        "Conv": lambda x, w, b, pads, dilations=(1, 1), strides=(1, 1), **_: convolution(
            x, w, b, pads, dilations=list(dilations), strides=list(strides)
        ),
    }
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        values[node.output[0]] = operators[node.op_type](*(values[name] for name in node.input), **attributes)
    return {name: value.numpy() for name, value in values.items()}


@pytest.mark.parametrize("part", ["stem", "trunk", "model"])
def test_everything_between_the_ends_is_float16(shipped: Package, part: str) -> None:
    half = half_graph(loaded(shipped, part))
    ends = types(half.graph.input) | types(half.graph.output)
    assert (
        ends
        == {
            "stem": {"frames": UINT8, "features": HALF},
            "trunk": {"features": HALF, "labels": UINT8},
            "model": {"frames": UINT8, "labels": UINT8},
        }[part]
    )
    normalising = {"frames.float", "frames.planes", "normalise.centred", "normalise"}
    made = {name for node in half.graph.node for name in node.output}
    floats = {name for name, dtype in types(half.graph.value_info).items() if dtype == FLOAT} & made
    assert floats == (normalising if part != "trunk" else set())
    large = [weight for weight in half.graph.initializer if weight.data_type == FLOAT and len(weight.dims) > 1]
    assert {weight.name for weight in large} <= {"normalise.mean", "normalise.inverse_std"}
    casts = [node.name for node in half.graph.node if node.op_type == "Cast"]
    before = [node.name for node in loaded(shipped, part).graph.node if node.op_type == "Cast"]
    assert casts == ([*before[:1], "normalise.half", *before[1:]] if part != "trunk" else before)


def test_weights_are_rounded_once(shipped: Package) -> None:
    model = loaded(shipped, "trunk")
    full = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    half = {weight.name: numpy_helper.to_array(weight) for weight in half_graph(model).graph.initializer}
    rounded = 0
    for name, array in half.items():
        if array.dtype == np.float16:
            np.testing.assert_array_equal(array, full[name.removesuffix(".half")].astype(np.float16))
            rounded += 1
    assert rounded == 40


def test_the_graph_is_converted_alike_each_time_and_left_alone(shipped: Package) -> None:
    model = loaded(shipped, "model")
    before = model.SerializeToString(deterministic=True)
    first, second = (half_graph(model).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second and len(first) < 0.6 * len(before)
    assert model.SerializeToString(deterministic=True) == before


def test_it_computes_what_each_operator_rounded_by_itself_computes(shipped: Package) -> None:
    half, full = half_graph(loaded(shipped, "model")), loaded(shipped, "model")
    frames = open_dataset("streets", (64, 128), 1)[0][0][None]
    (logits,) = (node.input[0] for node in half.graph.node if node.op_type == "ArgMax")
    labels, found = run(half, {"frames": frames}, logits)
    exact = run(full, {"frames": frames}, logits)[1]
    expected = by_hand(half, {"frames": frames})
    assert found.dtype == expected[logits].dtype == np.float16
    scale = np.abs(exact).max()
    # a float16 has 11 bits; 20 layers of roundings add up to a few of the last
    assert np.abs(found - expected[logits].astype(np.float64)).max() < 4 * 2**-11 * scale
    assert 2**-14 * scale < np.abs(found - exact).max() < 6 * 2**-11 * scale
    assert (labels == expected["labels"]).mean() >= 0.999


def test_the_shipped_network_keeps_its_labels(shipped: Package) -> None:
    full, half = loaded(shipped, "model"), half_graph(loaded(shipped, "model"))
    stem, trunk = half_graph(loaded(shipped, "stem")), half_graph(loaded(shipped, "trunk"))
    images = open_dataset("streets", (64, 128), 4)
    frames = np.stack([images[index][0] for index in range(4)])
    expected, found = run(full, {"frames": frames})[0], run(half, {"frames": frames})[0]
    assert 0.999 <= (found == expected).mean() < 1
    batches = run(trunk, {"features": run(stem, {"frames": frames[:1]})[0]})[0]
    merged = batches.reshape(4, 4, 16, 32).transpose(2, 0, 3, 1).reshape(64, 128)
    assert (merged == found[0]).mean() >= 0.999


@pytest.mark.parametrize("keep", ["layer2.0.conv2", "layer3.0.downsample.0", "classifier"])
def test_a_kept_convolution_is_float32_between_casts(shipped: Package, keep: str) -> None:
    model = loaded(shipped, "trunk")
    half = half_graph(model, [keep])
    values = types(half.graph.value_info)
    weights = {weight.name: weight for weight in half.graph.initializer}
    full = {weight.name: weight for weight in model.graph.initializer}
    for node in half.graph.node:
        if node.op_type == "Conv":
            assert values[node.output[0]] == (FLOAT if node.name == keep else HALF)
            assert {weights[name].data_type for name in node.input[1:]} == {values[node.output[0]]}
        if node.name == keep:
            assert weights[node.input[1]].raw_data == full[node.input[1]].raw_data
    assert types(half.graph.input) == {"features": HALF}
    features = np.random.default_rng(0).normal(size=(2, 16, 16, 32)).astype(np.float16)
    (labels,) = run(half, {"features": features})
    (expected,) = run(model, {"features": features.astype(np.float32)})
    assert (labels == expected).mean() > 0.99


def test_keeping_everything_gives_float32s_labels(shipped: Package) -> None:
    model = loaded(shipped, "model")
    half = half_graph(model, [node.name for node in model.graph.node if node.op_type == "Conv"])
    frames = open_dataset("streets", (64, 128), 1)[0][0][None]
    assert (run(half, {"frames": frames})[0] == run(model, {"frames": frames})[0]).mean() > 0.9995


def test_logits_stay_float32(tmp_path: Path) -> None:
    package = export_package(CHECKPOINT, (32, 64), tmp_path / "package", cut_level=0, logits=True)
    half = half_graph(loaded(package, "model"))
    assert types(half.graph.output) == {"labels": UINT8, "logits": FLOAT}
    frames = np.random.default_rng(0).integers(0, 256, (1, 32, 64, 3), np.uint8)
    found, expected = run(half, {"frames": frames})[1], run(loaded(package, "model"), {"frames": frames})[1]
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


def test_another_writers_graph_with_padding(small: Package) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, 45, 70, 3), np.uint8)
    full = loaded(small, "model")
    half = half_graph(full)
    assert {node.op_type for node in half.graph.node} >= {"Pad", "Slice", "Div"}
    assert (run(half, {"frames": frames})[0] == run(full, {"frames": frames})[0]).mean() > 0.995


@pytest.mark.parametrize("value", [65520.0, -1e6, np.inf, np.nan])
def test_weights_that_float16_cannot_hold_are_refused(small: Package, value: float) -> None:
    model = loaded(small, "trunk")
    (node,) = (node for node in model.graph.node if node.name == "conv_0")
    (weight,) = (weight for weight in model.graph.initializer if weight.name == node.input[1])
    array = numpy_helper.to_array(weight).copy()
    array.flat[0] = value
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    with pytest.raises(InputError, match=f"{weight.name} holds weights .* float16 holds up to 65504"):
        half_graph(model)
    if np.isfinite(value):
        half_graph(model, ["conv_0"])


@pytest.mark.parametrize("name", ["relu_1", "no such", ""])
def test_only_convolutions_can_be_kept(small: Package, name: str) -> None:
    with pytest.raises(InputError, match=f"has no convolution '{name}'"):
        half_graph(loaded(small, "trunk"), [name])
