"""Where Q and DQ stand in exported graphs, what they compute, and what is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("torch", reason="pip install 'splitmerge[export]'")
pytest.importorskip("onnx_ir", reason="pip install 'splitmerge[export]'")

import onnx_ir as ir
import quantise_samples as samples
from quantise_samples import HALVES, PADDED, UNPADDED, frames, largest, part, run

from calibration.placement import convolutions, quantised_graph, quantised_tensors
from calibration.quantise_count import count_int8, multiply_adds
from export.graphs import contract_for, graphs_from_network
from splitmerge.errors import InputError
from training.checkpoint import load_checkpoint
from training.data import open_dataset

CHECKPOINT = Path(__file__).parents[2] / "training" / "checkpoints" / "smp18-streets.safetensors"
GRAPHS = {
    "smp18 model": ("smp18", "model", PADDED, 2),
    "smp18 stem": ("smp18", "stem", PADDED, 2),
    "smp18 trunk": ("smp18", "trunk", PADDED, 2),
    "smp50 model": ("smp50", "model", UNPADDED, 3),
    "smp50 stem": ("smp50", "stem", UNPADDED, 3),
    "smp50 trunk": ("smp50", "trunk", UNPADDED, 3),
    "fcn8s-18 model": ("fcn8s-18", "model", PADDED, 2),
}
Q, DQ = "QuantizeLinear", "DequantizeLinear"


class Read:
    """A graph's nodes by what they compute, its constants, and each tensor's readers and type."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.by_output = {name: node for node in self.nodes for name in node.output}
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}

    def of(self, *kinds: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type in kinds]

    def readers(self, name: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if name in node.input]


def ones(model: onnx.ModelProto) -> dict[str, float]:
    return dict.fromkeys(quantised_tensors(model), 1.0)


@pytest.fixture(params=GRAPHS, scope="module")
def model(request: pytest.FixtureRequest) -> onnx.ModelProto:
    name, which, size, cut = GRAPHS[request.param]
    return part(name, which, size, cut)


@pytest.mark.parametrize("rest", ["fp16", "fp32"])
def test_every_convolution_reads_int8_and_every_rule_holds(model: onnx.ModelProto, rest: str) -> None:
    quantised = quantised_graph(model, ones(model), rest=rest)
    onnx.checker.check_model(quantised, full_check=True)
    assert quantised.opset_import[0].version >= 19
    graph = Read(quantised)
    number = np.float16 if rest == "fp16" else np.float32
    names = [node.name for node in graph.nodes]
    assert len(set(names)) == len(names)
    for conv in graph.of("Conv"):
        pixels, weights = (graph.by_output[name] for name in conv.input[:2])
        assert pixels.op_type == weights.op_type == DQ
        assert graph.types[pixels.input[0]] == TensorProto.INT8
        stored, scales = (graph.constants[name] for name in weights.input)
        assert stored.dtype == np.int8
        assert np.abs(stored.astype(int)).reshape(len(stored), -1).max(axis=1).tolist() == [127] * len(stored)
        assert scales.shape == (len(stored),)
        assert [(a.name, a.i) for a in weights.attribute] == [("axis", 0)]
        assert graph.constants[conv.input[2]].dtype == number
        for reader in graph.readers(conv.output[0]):  # its ReLU, sum or the like; Q only in a shortcut
            assert reader.op_type != Q or ".downsample." in conv.name
    quantisers = graph.of(Q)
    assert len({node.input[0] for node in quantisers}) == len(quantisers)
    for node in [*quantisers, *(n for n in graph.of(DQ) if n.input[0] not in graph.constants)]:
        scale, zero = (graph.constants[name] for name in node.input[1:])
        assert (scale.shape, scale.dtype) == ((), number)  # of one dimension it would be no scalar to TensorRT
        assert (zero.shape, zero.dtype, zero) == ((), np.int8, 0)
    assert sum(a.nbytes for a in graph.constants.values()) < 0.6 * sum(a.nbytes for a in Read(model).constants.values())
    assert count_int8(quantised) == 1
    assert count_int8(model) == 0


def test_splits_and_max_pooling_move_int8(model: onnx.ModelProto) -> None:
    graph = Read(quantised_graph(model, ones(model)))
    moves = [node for node in graph.of("Reshape", "Transpose") if ".split" in node.name] + graph.of("MaxPool")
    assert len(moves) >= (model.graph.name != "stem")
    assert {graph.types[node.output[0]] for node in moves} <= {TensorProto.INT8}
    features = [value for value in model.graph.output if value.name.startswith("features")]
    assert {graph.types[value.name] for value in features} <= {TensorProto.FLOAT16}


def test_of_a_sum_only_the_shortcut_is_int8(model: onnx.ModelProto) -> None:
    graph = Read(quantised_graph(model, ones(model)))
    sums = [node for node in graph.of("Add") if node.name.startswith("layer")]
    for node in sums:
        kinds = sorted(graph.by_output[name].op_type for name in node.input)
        assert kinds == ["Conv", DQ]
        (main,) = (name for name in node.input if graph.by_output[name].op_type == "Conv")
        assert main.endswith((".conv2", ".conv3"))
    for node in graph.of("Add"):
        if node not in sums:
            assert all(graph.by_output[name].op_type != DQ for name in node.input)


@pytest.mark.parametrize(("name", "size"), [("smp18", PADDED), ("smp50", UNPADDED), ("fcn8s-18", PADDED)])
def test_it_computes_what_the_oracle_does(name: str, size: tuple[int, int]) -> None:
    model = samples.headed(part(name, "model", size, 3 if name == "smp50" else 2))
    feeds = {"frames": frames(size)}
    thresholds = largest(model, feeds)
    expected = samples.oracle(model, thresholds, feeds)
    plain = run(model, feeds)
    for rest, share in (("fp32", 0.2), ("fp16", 1.5)):  # float16 rounds values to other steps of int8
        found = run(quantised_graph(model, thresholds, rest=rest), feeds)
        for value, right in zip(model.graph.output, expected, strict=True):
            assert rms(found[value.name] - right) <= share * rms(plain[value.name] - right)


def rms(x: NDArray[np.generic]) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def test_no_layers_is_the_float_graph() -> None:
    model = part("smp18", "model", PADDED)
    feeds = {"frames": frames(PADDED)}
    quantised = quantised_graph(model, {}, layers=(), rest="fp32")
    assert not Read(quantised).of(Q, DQ)
    assert (
        run(quantised, feeds, ["classifier"])["classifier"] == run(model, feeds, ["classifier"])["classifier"]
    ).all()


@pytest.mark.parametrize("rest", ["fp16", "fp32"])
def test_one_layer_alone(rest: str) -> None:
    model = part("smp50", "model", UNPADDED, 3)
    for layer in ("conv1", "layer1.0.downsample.0", "layer2.0.conv3", "classifier"):
        needed = quantised_tensors(model, [layer])
        graph = Read(quantised_graph(model, dict.fromkeys(needed, 1.0), [layer], rest))
        kinds = {node.name: graph.by_output.get(node.input[0]) for node in graph.of("Conv")}
        assert [name for name, before in kinds.items() if before is not None and before.op_type == DQ] == [layer]
        dequantised = [node for node in graph.of(DQ) if node.input[0] in graph.constants]
        assert len(dequantised) == 1


def test_a_float_reader_of_a_split_keeps_it_float() -> None:
    """conv1 and the shortcut's convolution both read the first split; one of them stays float."""
    model = part("smp50", "model", UNPADDED, 3)
    others = [name for name in convolutions(model) if name != "layer1.0.conv1"]
    graph = Read(quantised_graph(model, ones(model), others, "fp32"))
    (conv,) = (node for node in graph.of("Conv") if node.name == "layer1.0.conv1")
    split = conv.input[0]
    assert graph.types[split] == TensorProto.FLOAT
    assert sorted(node.op_type for node in graph.readers(split)) == ["Conv", Q]


@pytest.mark.parametrize(("name", "size", "level"), [("smp18", PADDED, 2), ("smp50", UNPADDED, 3)])
def test_features_may_be_int8_on_both_sides_of_the_cut(name: str, size: tuple[int, int], level: int) -> None:
    """Stem and trunk then compute what the whole graph does, bit for bit."""
    model, stem, trunk = (part(name, which, size, level) for which in ("model", "stem", "trunk"))
    cut = samples.graphs(name, size, level).cut
    assert cut is not None
    feeds = {"frames": frames(size)}
    ends = [value.name for value in trunk.graph.input]
    thresholds = largest(model, feeds) | largest(stem, feeds)
    whole = run(quantised_graph(model, thresholds, rest="fp32"), feeds)["labels"][0]
    stem8, trunk8 = (quantised_graph(half, thresholds, rest="fp32", features=ends) for half in (stem, trunk))
    made = run(stem8, feeds)
    assert {made[end].dtype for end in ends} == {np.dtype(np.int8)}
    labels = run(trunk8, {end: made[end] for end in ends})["labels"]
    merged = np.empty((labels.shape[1] * cut.rows, labels.shape[2] * cut.columns), np.uint8)
    for index, batch in enumerate(labels):
        row, column = divmod(index, cut.columns)
        merged[row :: cut.rows, column :: cut.columns] = batch
    assert (merged[: size[0], : size[1]] == whole).all()


def test_int8_features_are_dequantised_for_a_float_trunk() -> None:
    trunk = part("smp18", "trunk", PADDED)
    half = Read(quantised_graph(trunk, {"features": 1.0}, layers=[], features=["features"]))
    assert half.types["features"] == TensorProto.INT8
    assert [node.op_type for node in half.readers("features")] == [DQ]
    assert not half.of(Q)


def test_unknown_operators_shared_and_computed_weights_pass() -> None:
    """x -> conv a -> HardSwish -> conv b (a's weights) -> conv c (weights from the input)"""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=(3, 3, 1, 1)).astype(np.float32), "w"),
        numpy_helper.from_array(np.array([3, 3, 1, 1], np.int64), "shape"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="a"),
        helper.make_node("HardSwish", ["a"], ["s"], name="s"),
        helper.make_node("Conv", ["s", "w"], ["b"], name="b"),
        helper.make_node("Reshape", ["v", "shape"], ["u"], name="u"),
        helper.make_node("Conv", ["b", "u"], ["c"], name="c"),
    ]
    inputs = [helper.make_tensor_value_info(*value) for value in (("x", 1, ["n", 3, 4, 4]), ("v", 1, [9]))]
    graph = helper.make_graph(nodes, "small", inputs, [helper.make_tensor_value_info("c", 1, ["n", 3, 4, 4])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    feeds = {"x": rng.normal(size=(2, 3, 4, 4)).astype(np.float32), "v": rng.normal(size=9).astype(np.float32)}
    assert convolutions(model) == ["a", "b"]
    everything = quantised_graph(model, largest(model, feeds), rest="fp32")
    assert list(Read(everything).constants).count("w.int8") == 1
    assert "w" not in Read(everything).constants
    assert count_int8(everything) == pytest.approx(2 / 3)
    one = quantised_graph(model, largest(model, feeds), ["a"], rest="fp32")
    assert {"w", "w.int8"} <= set(Read(one).constants)
    expected, found = run(model, feeds)["c"], run(everything, feeds)["c"]
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_multiply_adds_are_counted_as_by_hand() -> None:
    """Kernel, inputs, outputs and pixels; the trunk's second split batches are four times as many and a quarter as
    large, so that splitting costs nothing and dilating nothing either."""
    size, pixels = PADDED, 64 * 96
    stem, trunk, model = (multiply_adds(part("smp18", which, size)) for which in ("stem", "trunk", "model"))
    assert stem == {"conv1": 7 * 7 * 3 * 4 * pixels}
    assert trunk["layer1.0.conv1"] * 16 == model["layer1.0.conv1"] == 3 * 3 * 4 * 4 * pixels
    assert trunk["layer4.1.conv2"] * 16 == model["layer4.1.conv2"] == 3 * 3 * 32 * 32 * pixels
    assert trunk["classifier"] * 16 == model["classifier"] == 32 * 7 * pixels
    quantised = quantised_graph(part("smp18", "trunk", size), {"features": 1.0}, ["layer1.0.conv1"])
    assert count_int8(quantised) == trunk["layer1.0.conv1"] / sum(trunk.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"padding": float("nan")}, "The threshold of padding is nan"),
        ({"padding": float("inf")}, "The threshold of padding is inf"),
        ({"padding": -1.0}, "The threshold of padding is -1"),
        ({"padding": 1e9}, "The threshold of padding is 1e\\+09"),
        ({"padding": 0.0}, "padding was zero in all images"),
        ({"padding": None}, "no threshold for padding"),
    ],
)
def test_thresholds_that_cannot_be_are_refused(change: dict[str, float | None], words: str) -> None:
    model = part("smp18", "stem", PADDED)
    thresholds = {name: value for name, value in (ones(model) | change).items() if value is not None}
    with pytest.raises(InputError, match=words):
        quantised_graph(model, thresholds)


def test_arguments_that_cannot_be_are_refused() -> None:
    model = part("smp18", "stem", PADDED)
    thresholds = ones(model)
    with pytest.raises(InputError, match="no convolution 'layer9' that could be int8"):
        quantised_graph(model, thresholds, ["layer9"])
    with pytest.raises(InputError, match="cannot be 'bf16': choose one of fp16, fp32"):
        quantised_graph(model, thresholds, rest="bf16")
    with pytest.raises(InputError, match="conv1 cannot be kept in float32 and be int8"):
        quantised_graph(model, thresholds, keep=["conv1"])
    for end in ("labels", "frames"):
        with pytest.raises(InputError, match=f"no float32 input or output '{end}'"):
            quantised_graph(model, thresholds, features=[end])
    with pytest.raises(InputError, match="relu and features are the same numbers and have the thresholds 2 and 3"):
        quantised_graph(model, {**thresholds, "relu": 2.0, "features": 3.0}, features=["features"])
    with pytest.raises(InputError, match="no threshold for relu"):
        quantised_graph(model, {**thresholds, "features": 1.0}, features=["features"])
    with pytest.raises(InputError, match="is quantised already"):
        quantised_graph(quantised_graph(model, thresholds), thresholds)
    old = onnx.ModelProto()
    old.CopyFrom(model)
    old.opset_import[0].version = 17
    with pytest.raises(InputError, match="is of opset 17 and int8 beside float16 needs 19"):
        quantised_graph(old, thresholds)


def test_a_tiny_threshold_keeps_a_scale_above_zero() -> None:
    model = part("smp18", "stem", PADDED)
    graph = Read(quantised_graph(model, {"padding": 1e-9}))
    assert graph.constants["padding.int8.scale.half"] == HALVES[0]


def test_the_shipped_network_keeps_its_labels(tmp_path: Path) -> None:
    """98.7 % of the labels of these small scenes, whose pixels lie near borders; at 256x512 it was 99.66 %."""
    checkpoint = load_checkpoint(CHECKPOINT)
    contract = contract_for((64, 128), checkpoint.model.stride, checkpoint.mean, checkpoint.std)
    model = ir.to_proto(graphs_from_network(checkpoint.model, contract, 0).parts["model"])
    calibrating = np.stack([frame for frame, _ in open_dataset("streets:train", (64, 128), 4)])
    unseen = {"frames": np.stack([frame for frame, _ in open_dataset("streets", (64, 128), 4)])}
    thresholds = largest(model, {"frames": calibrating})
    labels = run(model, unseen)["labels"]
    for rest in ("fp16", "fp32"):
        assert (run(quantised_graph(model, thresholds, rest=rest), unseen)["labels"] == labels).mean() > 0.98
