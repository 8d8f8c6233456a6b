"""What is read of a plan's layers: from the log of a build, and from an engine inspector's JSON."""

import json

import pytest

from engines.layer_dump import Layer, layers_from_inspector, layers_from_log, types_of_convolutions
from engines.layer_types import check_types
from splitmerge.errors import EngineError

DUMP = (
    "Layers:\n"
    "Name: pad, LayerType: kgen, Inputs: [ { Name: frames, Dimensions: [1,8,8,3], Datatype: UInt8 }], Outputs: [ { "
    "Name: x, Dimensions: [1,4,8,8], Datatype: Int8 }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: conv_a]\n"
    "Name: conv_a, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [-1,4,8,8], Datatype: Int8 }], "
    "Constants: [ { Name: b, Dimensions: [1,4,1,1], Datatype: Float }, { Name: w, Dimensions: [4,4,3,3], Strides: "
    "[36,9,3,1], Datatype: Int8 }], Outputs: [ { Name: y, Dimensions: [-1,4,8,8], "
    "Datatype: Float }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: conv_a][ONNX Layer: relu]\n"
    "Name: wait, LayerType: wait, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata: \n"
    "Name: join, LayerType: kgen, Inputs: [ { Name: y, Dimensions: [-1,4], Datatype: Half }, { Datatype: Float }], "
    "Outputs: [], TacticName: , StreamId: 0, Metadata: [ONNX Layer: conv_a]\n"
    "Name: sum, LayerType: runtime_fusion, Inputs: [ { Name: r, Dimensions: [4,8,8,8], Datatype: Half }, { Name: y, "
    "Dimensions: [4,8,8,8], Datatype: Float }], Constants: [ { Name: w, Dimensions: [8,8,3,3], Datatype: Float }], "
    "Outputs: [], TacticName: , StreamId: 0, Metadata: [ONNX Layer: conv_b]\x1f[ONNX Layer: add]\n"
)


def test_the_layer_dump_is_read() -> None:
    layers = layers_from_log(["something else", DUMP])
    assert layers == [
        Layer("pad", "kgen", ("UInt8",), ("Int8",), ("conv_a",)),
        Layer("conv_a", "correlation", ("Int8",), ("Float",), ("conv_a", "relu"), "Int8"),
        Layer("wait", "wait", (), (), ()),
        Layer("join", "kgen", ("Half", "Float"), (), ("conv_a",)),
        Layer("sum", "runtime_fusion", ("Half", "Float"), (), ("conv_b", "add"), "Float"),
    ]


def test_a_convolutions_type_is_that_of_the_layer_that_computes_it() -> None:
    """Others that pad, requantise or add name it, too, and a residual may come before the pixels."""
    found = types_of_convolutions(layers_from_log([DUMP]), ["conv_a", "conv_b", "conv_c"])
    assert found == {"conv_a": "Int8", "conv_b": "Float", "conv_c": "unknown"}
    assert types_of_convolutions(reversed(layers_from_log([DUMP])), ["conv_a"]) == {"conv_a": "Int8"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("Float", "Float"),
        ("Half", "Half"),
        ("Int8", "Int8"),
        ("Row major linear FP32", "Float"),
        ("Channel major FP16 format where channel % 8 == 0", "Half"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "Int8"),
        ("Row major linear UInt8 format", "UInt8"),
        ("something new", "unknown"),
    ],
)
def test_the_inspectors_words_for_types(words: str, expected: str) -> None:
    tensor = {"Name": "x", "Dimensions": [1, 3, 8, 8], "Format/Datatype": words}
    (layer,) = layers_from_inspector(json.dumps({"Layers": [{"Name": "n", "Inputs": [tensor]}]}))
    assert layer.inputs == (expected,)


def test_an_inspectors_layers() -> None:
    x = {"Name": "x", "Location": "Device", "Dimensions": [1, 16, 8, 8], "Format/Datatype": "Half"}
    layers = [
        "a layer of which only the name is told",
        {"Name": "Reformatting CopyNode for Input Tensor 0 to conv1", "LayerType": "Reformat", "Inputs": [x]},
        {
            "Name": "conv1 + relu1",
            "LayerType": "CaskConvolution",
            "Inputs": [x],
            "Outputs": [x],
            "ParameterType": "Convolution",
            "Weights": {"Type": "Half", "Count": 2304},
            "Bias": {"Type": "Float", "Count": 16},
            "Metadata": "[ONNX Layer: conv1]\x1f[ONNX Layer: relu1]",
        },
        {"Name": "conv2 + relu2", "LayerType": "CaskConvolution", "Inputs": [x], "Outputs": [x]},
    ]
    found = layers_from_inspector(json.dumps({"Layers": layers, "Bindings": ["x"]}))
    assert [layer.kind for layer in found] == ["Reformat", "CaskConvolution", "CaskConvolution"]
    assert found[1] == Layer("conv1 + relu1", "CaskConvolution", ("Half",), ("Half",), ("conv1", "relu1"), "Half")
    assert types_of_convolutions(found, ["conv1", "conv2"]) == {"conv1": "Half", "conv2": "Half"}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"Layers": []}', '{"Layers": ["a", "b"]}', "null"])
def test_an_inspector_that_tells_nothing(text: str) -> None:
    assert layers_from_inspector(text) == []


def test_what_came_out_as_asked_passes_also_where_it_is_mixed() -> None:
    asked = {"a": "Half", "b": "Float", "c": "Int8"}
    assert check_types("trunk.onnx", "int8", asked, dict(asked)) == []


def test_what_came_out_otherwise_is_named() -> None:
    asked = dict.fromkeys("abcdef", "Half")
    found = asked | dict.fromkeys("abcd", "Float")
    with pytest.raises(EngineError) as caught:
        check_types("trunk.onnx", "fp16", asked, found)
    text = str(caught.value)
    assert "Of the 6 convolutions of trunk.onnx the plan computes 4 in another type" in text
    assert "4 Float instead of Half (a, b, c and 1 more)" in text and "\n" not in text
    assert check_types("trunk.onnx", "fp16", asked, found, "prefer") == ["4 Float instead of Half (a, b, c and 1 more)"]


def test_a_convolution_that_no_layer_names_is_told_of() -> None:
    (note,) = check_types("trunk.onnx", "fp16", {"a": "Half", "b": "Half"}, {"a": "Half", "b": "unknown"})
    assert note == "1 in a type that the plan does not tell (b)"


@pytest.mark.parametrize(
    ("precision", "types", "words"),
    [
        ("fp16", ["Float", "Float"], "is called fp16 and its convolutions are 2 Float"),
        ("int8", ["Half", "Float"], "is called int8"),
        ("fp32", ["Float", "Half"], "is called fp32"),
    ],
)
def test_a_graph_of_another_precision_than_its_name(precision: str, types: list[str], words: str) -> None:
    asked = dict(zip("ab", types, strict=True))
    with pytest.raises(EngineError, match=words):
        check_types("trunk.onnx", precision, asked, asked)
