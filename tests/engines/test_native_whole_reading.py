"""What is read of a network's graph, against ONNX Runtime, and what is refused in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from native_networks import labels_of, network_engine
from onnx import TensorProto, helper, numpy_helper

from engines.native.whole.reading import read_network
from splitmerge.errors import EngineError

RANDOM = np.random.default_rng(5)
SIZE = (12, 20)
Node = onnx.NodeProto


def constants() -> dict[str, np.ndarray[Any, Any]]:
    def noise(*shape: int) -> np.ndarray[Any, Any]:
        return RANDOM.standard_normal(shape).astype(np.float32)

    return {
        "mean": np.full((1, 3, 1, 1), 120, np.float32),
        "factors": np.full((1, 3, 1, 1), 0.02, np.float32),
        "w8": noise(8, 3, 3, 3) * 0.3,
        "b8": noise(8),
        "w8x8": noise(8, 8, 3, 3) * 0.2,
        "w8x16": noise(8, 16, 1, 1) * 0.3,
        "grouped": noise(8, 4, 3, 3),
        "head": noise(5, 8, 1, 1) * 0.5,
        "weight": noise(8),
        "bias": noise(8),
        "running_mean": noise(8),
        "variance": np.abs(noise(8)) + 0.5,
        "negative": -np.ones(8, np.float32),
        "twice": np.array([1, 1, 2, 2], np.float32),
        "half_more": np.array([1, 1, 1.5, 1.25], np.float32),
        "smaller": np.array([1, 1, 0.5, 0.5], np.float32),
        "channels": np.array([1, 2, 1, 1], np.float32),
        "pads": np.array([0, 0, 0, 0, 0, 0, 3, 2]),
        "pads_before": np.array([0, 0, 1, 0, 0, 0, 3, 2]),
        "one": np.array(1, np.float32),
        "zero": np.array(0, np.float32),
        "hw": np.array([2, 3]),
        "cw": np.array([1, 3]),
        "down": noise(7, SIZE[0]),
        "across": noise(SIZE[1], 9),
        "starts": np.array([0, 0]),
        "starts_1": np.array([1, 0]),
        "ends": np.array([*SIZE]),
        "hw_labels": np.array([1, 2]),
        "hardly": np.array([1, 1, 1.04, 1.04], np.float32),
        "up": noise(SIZE[0], 7),
        "out": noise(9, SIZE[1]),
        "all": np.array([1, 1, *SIZE], np.float32),
    }


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Node:
    """Two spaces between inputs leave one out."""
    return helper.make_node(kind, inputs.split(" "), [output], name=output, **attributes)


def convolution(inputs: str, output: str, **attributes: Any) -> Node:
    return node("Conv", inputs, output, **{"pads": [1, 1, 1, 1], **attributes})


START = (
    node("Cast", "frames", "floats", to=TensorProto.FLOAT),
    node("Transpose", "floats", "planes", perm=[0, 3, 1, 2]),
    node("Sub", "planes mean", "centred"),
    node("Mul", "centred factors", "first"),
)
FIRST = (*START, convolution("first w8 b8", "c1"), node("Relu", "c1", "r1"))


def ends(value: str = "last") -> tuple[Node, ...]:
    return (
        node("Conv", f"{value} head", "logits"),
        node("ArgMax", "logits", "largest", axis=1, keepdims=0),
        node("Cast", "largest", "labels", to=TensorProto.UINT8),
    )


def graph(nodes: tuple[Node, ...], folder: Path, **types: Any) -> Path:
    given = helper.make_tensor_value_info("frames", types.get("given", TensorProto.UINT8), ["N", *SIZE, 3])
    wanted = helper.make_tensor_value_info("labels", types.get("wanted", TensorProto.UINT8), None)
    used = {name for one in nodes for name in one.input}
    arrays = [numpy_helper.from_array(array, name) for name, array in constants().items() if name in used]
    model = helper.make_model(
        helper.make_graph(list(nodes), "g", [given], [wanted], arrays), opset_imports=[helper.make_opsetid("", 18)]
    )
    model.ir_version = 10
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


ACCEPTED: Mapping[str, tuple[Node, ...]] = {
    "taps apart": (*FIRST, convolution("r1 w8x8", "last", dilations=[2, 3], pads=[2, 3, 2, 3]), *ends()),
    "strides": (
        *FIRST, convolution("r1 w8x8", "c2", strides=[2, 2]),
        node("Resize", "c2  twice", "last", mode="linear"), *ends(),
    ),
    "no bias, a sum of a value that is read again": (
        *FIRST, convolution("r1 w8x8", "c2"), node("Add", "r1 c2", "s"), node("Relu", "s", "r2"),
        convolution("r2 w8x8", "c3"), node("Add", "c3 r2", "last"), *ends(),
    ),
    "batch norm": (
        *FIRST, node("BatchNormalization", "r1 weight bias running_mean variance", "n", epsilon=0.01),
        node("Relu", "n", "last"), *ends(),
    ),
    "poolings": (
        *FIRST, node("MaxPool", "r1", "m", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("AveragePool", "m", "a", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
        convolution("a w8x8", "c2"),
        node("Resize", "c2  twice", "last", mode="linear", coordinate_transformation_mode="half_pixel"), *ends(),
    ),
    "the mean of all, and by matrices": (
        *FIRST, node("ReduceMean", "r1 hw", "g", keepdims=1), node("Resize", "g  all", "wide", mode="linear"),
        node("MatMul", "down r1", "d"), node("MatMul", "d across", "a"), node("Relu", "a", "ra"),
        node("MatMul", "up ra", "u"), node("MatMul", "u out", "o"), node("Add", "wide o", "last"), *ends(),
    ),
    "a Resize that changes no size": (*FIRST, node("Resize", "r1  hardly", "last", mode="linear"), *ends()),
    "side by side": (*FIRST, convolution("r1 w8x8", "c2"), node("Concat", "c2 r1", "j", axis=1),
                     node("Conv", "j w8x16", "last"), *ends()),
    "padding and cropping": (
        *START, node("Pad", "first pads zero", "p", mode="constant"), convolution("p w8 b8", "last"),
        node("Conv", "last head", "logits"), node("ArgMax", "logits", "largest", axis=1, keepdims=0),
        node("Cast", "largest", "int", to=TensorProto.INT32), node("Slice", "int starts ends hw_labels", "cropped"),
        node("Cast", "cropped", "labels", to=TensorProto.UINT8),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_labels_are_onnx_runtimes(name: str, tmp_path: Path) -> None:
    path = graph(ACCEPTED[name], tmp_path)
    frames = RANDOM.integers(0, 256, (2, *SIZE, 3), np.uint8)
    (expected,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"frames": frames})
    labels = labels_of(network_engine(read_network(path), tmp_path).create_context(), frames)
    assert (labels == expected).mean() > 0.995 and len(np.unique(expected)) > 2


REFUSED: Mapping[str, tuple[tuple[Node, ...], str]] = {
    "groups": ((*FIRST, convolution("r1 grouped", "last", group=2), *ends()), "is not of height and width and of all"),
    "pads by itself": ((*FIRST, node("Conv", "r1 w8x8", "last", auto_pad="SAME_UPPER"), *ends()), "pads by itself"),
    "weights that are computed": ((*FIRST, node("Identity", "w8x8", "w"), convolution("r1 w", "last"), *ends()),
                                  "w .Identity. is none that is compiled natively"),
    "another node": ((*FIRST, node("Sigmoid", "r1", "last"), *ends()), "last .Sigmoid. is none that is compiled"),
    "nearest": ((*FIRST, node("Resize", "r1  twice", "last", mode="nearest"), *ends()), "is no linear one"),
    "corners": ((*FIRST, node("Resize", "r1  twice", "last", mode="linear",
                              coordinate_transformation_mode="align_corners"), *ends()), "is no linear one"),
    "smaller": ((*FIRST, node("Resize", "r1  smaller", "last", mode="linear"), *ends()), "does not enlarge"),
    "channels": ((*FIRST, node("Resize", "r1  channels", "last", mode="linear"), *ends()), "does not enlarge"),
    "mean of channels": ((*FIRST, node("ReduceMean", "r1 cw", "last"), *ends()), "is none that is compiled natively"),
    "pools with taps apart": ((*FIRST, node("MaxPool", "r1", "last", kernel_shape=[2, 2], dilations=[2, 2]), *ends()),
                              "has taps apart"),
    "pools that count what lies outside": (
        (*FIRST, node("AveragePool", "r1", "last", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1), *ends()),
        "counts what lies outside"),
    "ceiling": ((*FIRST, node("MaxPool", "r1", "last", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), *ends()),
                "pads by itself"),
    "sums of a value with itself": ((*FIRST, node("Add", "r1 r1", "last"), *ends()), "adds values that are not alike"),
    "sums of values that others read": (
        (*FIRST, convolution("r1 w8x8", "c2"), node("Add", "r1 c2", "s"), convolution("c2 w8x8", "c3"),
         node("Add", "c3 s", "last"), *ends()), "s .Add. does not follow a convolution"),
    "ReLU of a value that others read": (
        (*FIRST, convolution("r1 w8x8", "c2"), node("Relu", "c2", "r2"), convolution("c2 w8x8", "c3"),
         node("Add", "c3 r2", "last"), *ends()), "r2 .Relu. does not follow a step of its own"),
    "padding before": ((*START, node("Pad", "first pads_before", "p", mode="constant"), convolution("p w8 b8", "last"),
                        *ends()), "puts something else than zeros behind the frames"),
    "padding with ones": ((*START, node("Pad", "first pads one", "p", mode="constant"), convolution("p w8 b8", "last"),
                           *ends()), "puts something else than zeros behind the frames"),
    "padding by reflection": ((*START, node("Pad", "first pads", "p", mode="reflect"), convolution("p w8 b8", "last"),
                               *ends()), "puts something else than zeros behind the frames"),
    "padding that leaves larger labels": (
        (*START, node("Pad", "first pads", "p", mode="constant"), convolution("p w8 b8", "last"), *ends()),
        "its labels are of 15x22 pixels, not of the frame's"),
    "cropping elsewhere": (
        (*FIRST, *ends("r1")[:-1], node("Slice", "largest starts_1 ends hw_labels", "cropped"),
         node("Cast", "cropped", "labels", to=TensorProto.UINT8)), "cropped .Slice. is none"),
    "the last of equals": (
        (*FIRST, node("Conv", "r1 head", "logits"), node("ArgMax", "logits", "largest", axis=1, keepdims=0,
                                                         select_last_index=1),
         node("Cast", "largest", "labels", to=TensorProto.UINT8)), "largest .ArgMax. is none"),
    "frames in another order": (
        (START[0], node("Transpose", "floats", "planes", perm=[0, 3, 2, 1]), *START[2:], *FIRST[4:], *ends("r1")),
        "planes .Transpose. is none"),
    "frames that are not normalised": (
        (*START[:2], convolution("planes w8 b8", "last"), *ends()), "last .Conv. is none"),
    "attributes that are missing": ((START[0], node("Transpose", "floats", "planes"), *START[2:], *FIRST[4:],
                                     *ends("r1")), "planes .Transpose. is none"),
    "inputs that are missing": (
        (*FIRST, *ends("r1")[:-1], node("Slice", "largest starts ends", "cropped"),
         node("Cast", "cropped", "labels", to=TensorProto.UINT8)), "cropped .Slice. is none"),
    "side by side along the height": (
        (*FIRST, node("Concat", "r1 r1", "last", axis=2), *ends()), "last .Concat. is none"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_compiled_natively_is_told(name: str, tmp_path: Path) -> None:
    nodes, said = REFUSED[name]
    with pytest.raises(EngineError, match=said):
        read_network(graph(nodes, tmp_path))


@pytest.mark.parametrize(
    ("types", "said"),
    [
        ({"given": TensorProto.FLOAT}, "its input frames is not any number of uint8 frames"),
        ({"wanted": TensorProto.INT64}, "its output labels is not the labels of all pixels"),
    ],
)
def test_other_inputs_and_outputs(types: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=said):
        read_network(graph((*FIRST, *ends("r1")), tmp_path, **types))
