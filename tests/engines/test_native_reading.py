"""What of a trunk's graph is compiled natively, and what is told of the rest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from small_package import make_package

from engines.native.engine import compile_native
from engines.native.reading import read_trunk
from splitmerge.errors import EngineError
from splitmerge.package import Graph, Package

Alter = Callable[[onnx.GraphProto], Any]


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return make_package(tmp_path / "package")


def node(graph: onnx.GraphProto, kind: str) -> onnx.NodeProto:
    return next(one for one in graph.node if one.op_type == kind)


def set_ints(one: onnx.NodeProto, **values: Any) -> None:
    for name, value in values.items():
        kept = [other for other in one.attribute if other.name != name]
        del one.attribute[:]
        one.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def swap_window(graph: onnx.GraphProto) -> None:
    """The transposition of the first split takes rows for columns."""
    turn = node(graph, "Transpose")
    (perm,) = turn.attribute
    perm.ints[1], perm.ints[2] = perm.ints[2], perm.ints[1]


def replace_kind(graph: onnx.GraphProto, kind: str, other: str) -> None:
    node(graph, kind).op_type = other


def second_output(graph: onnx.GraphProto) -> None:
    graph.output.append(onnx.helper.make_tensor_value_info(graph.node[0].output[0], onnx.TensorProto.FLOAT, None))


def second_input(graph: onnx.GraphProto) -> None:
    graph.input.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, None))


def fixed_batch(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 16


def before(graph: onnx.GraphProto, kind: str, index: int, other: str, inputs: Any = (), **attributes: Any) -> None:
    """Another node on the way into the first of this kind from the `index`th on."""
    reader = [one for one in graph.node if one.op_type == kind][index]
    made = onnx.helper.make_node(other, [reader.input[0], *inputs], ["between"], name="between", **attributes)
    graph.node.insert(list(graph.node).index(reader), made)
    reader.input[0] = "between"


def reshaped(graph: onnx.GraphProto, kind: str, index: int) -> None:
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, 8, 12, 18]), "shape"))
    before(graph, kind, index, "Reshape", ["shape"])


def earlier_output(graph: onnx.GraphProto) -> None:
    """Split batches of labels instead of merged ones."""
    merge = [one for one in graph.node if one.op_type == "Reshape"][-2]
    last = graph.node[-1]
    assert last.op_type == "Cast"
    last.input[0] = merge.input[0]


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (second_output, "gives 2 tensors and not labels alone: export it without --logits"),
        (second_input, "takes 2 tensors, and one is expected: cut the network at level 1 or 2"),
        (fixed_batch, "features is not any number of maps"),
        (earlier_output, "is not the labels of all pixels in their order"),
        (swap_window, "ends a rearrangement that is no split or merge"),
        (lambda graph: replace_kind(graph, "Relu", "Sigmoid"), r"\(Sigmoid\) is none that is compiled natively"),
        (lambda graph: set_ints(node(graph, "ArgMax"), select_last_index=1), r"\(ArgMax\) is none"),
        (lambda graph: graph.node.append(node(graph, "ArgMax")), r"\(ArgMax\) is none"),
        (lambda graph: set_ints(node(graph, "Conv"), dilations=[2, 2]), "is no 1x1 or 3x3 one that keeps"),
        (lambda graph: set_ints(node(graph, "Conv"), auto_pad="SAME_UPPER"), "is no 1x1 or 3x3 one that keeps"),
        (lambda graph: set_ints(node(graph, "Conv"), strides=[2, 2]), "is no 1x1 or 3x3 one that keeps"),
        (lambda graph: set_ints(node(graph, "Conv"), group=2), "is no 1x1 or 3x3 one that keeps"),
        (lambda graph: node(graph, "Conv").ClearField("attribute"), "is no 1x1 or 3x3 one that keeps"),
        (lambda graph: set_ints(node(graph, "Cast"), to=onnx.TensorProto.BOOL), r"\(Cast\) is none"),
        (lambda graph: node(graph, "Transpose").ClearField("attribute"), r"\(Transpose\) is none"),
        (lambda graph: before(graph, "Conv", 2, "Transpose", perm=[0, 1, 3, 2]), r"\(Transpose\) is none"),
        (lambda graph: before(graph, "ArgMax", 0, "Transpose", perm=[0, 1, 3, 2]), r"\(Transpose\) is none"),
        (lambda graph: before(graph, "Transpose", 0, "Identity"), r"\(Identity\) is none"),
        (lambda graph: before(graph, "Reshape", 1, "Transpose", perm=[0, 3, 5, 1, 2, 4]), r"\(Transpose\) is none"),
        (lambda graph: reshaped(graph, "Conv", 2), r"\(Conv\) is none"),
        (lambda graph: reshaped(graph, "ArgMax", 0), r"\(ArgMax\) is none"),
        (lambda graph: reshaped(graph, "Transpose", 0), r"\(Reshape\) is none"),
        (lambda graph: reshaped(graph, "Cast", -1), "is not the labels of all pixels in their order"),
    ],
)
def test_what_is_not_compiled_natively_is_told(alter: Alter, said: str, package: Package, tmp_path: Path) -> None:
    model = onnx.load(package.folder / "trunk.onnx")
    alter(model.graph)
    path = tmp_path / "altered.onnx"
    onnx.save(model, path)
    with pytest.raises(EngineError, match=said):
        compile_native(path, package.parts("fp32")["trunk"], tmp_path / "trunk.native")


def test_a_relu_that_others_read_before_is_told(package: Package, tmp_path: Path) -> None:
    model = onnx.load(package.folder / "trunk.onnx")
    relu = node(model.graph, "Relu")
    later = [one for one in model.graph.node if one.op_type == "Conv"][1]
    assert later.input[0] != relu.input[0]
    second = next(one for one in model.graph.node if one.op_type == "Relu" and one is not relu)
    index = list(model.graph.node).index(second)
    again = onnx.helper.make_node("Relu", [second.output[0]], ["again"], name="again")
    for one in model.graph.node[index + 1 :]:
        for place, name in enumerate(one.input):
            if name == second.output[0]:
                one.input[place] = "again"
    model.graph.node.insert(index + 1, again)
    path = tmp_path / "altered.onnx"
    onnx.save(model, path)
    with pytest.raises(EngineError, match=r"again \(Relu\) does not follow a convolution"):
        read_trunk(path)


GRAPH = Graph("trunk.onnx", "0" * 64, (), ())
Nodes = list[tuple[str, list[str], str]]


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([("Conv", ["x"], "c"), ("Relu", ["c"], "y")], None),
        ([("Conv", ["x"], "c"), ("Add", ["c", "x"], "s"), ("Relu", ["s"], "y")], None),
        ([("Conv", ["x"], "c"), ("Conv", ["x"], "d"), ("Add", ["c", "d"], "y")], None),
        ([("Conv", ["x"], "c"), ("Relu", ["c"], "r"), ("Conv", ["c"], "d"), ("Add", ["d", "r"], "y")], "(Relu)"),
        ([("Conv", ["x"], "c"), ("Relu", ["c"], "r"), ("Relu", ["c"], "y")], "(Relu)"),
        ([("Conv", ["x"], "c"), ("Relu", ["c"], "r"), ("Relu", ["r"], "y")], "(Relu)"),
        ([("Relu", ["x"], "r"), ("Conv", ["r"], "y")], "(Relu)"),
        ([("Conv", ["x"], "c"), ("Relu", ["c"], "r"), ("Add", ["r", "x"], "y")], "(Add)"),
        ([("Conv", ["x"], "c"), ("Add", ["c", "x"], "s"), ("Add", ["s", "x"], "y")], "(Add)"),
        ([("Conv", ["x"], "c"), ("Add", ["c", "x"], "s"), ("Conv", ["c"], "d"), ("Add", ["d", "s"], "y")], "(Add)"),
        ([("Conv", ["x"], "c"), ("Add", ["c", "c"], "y")], "adds values that are not alike"),
        ([("Conv", ["x"], "c"), ("split", ["c"], "p"), ("Add", ["p", "c"], "y")], "adds values that are not alike"),
        ([("Conv", ["x"], "c"), ("split", ["c"], "p"), ("Relu", ["p"], "y")], None),
        (
            [("Conv", ["x"], "c"), ("split", ["c"], "p"), ("Relu", ["p"], "q"), ("split", ["c"], "y")],
            "(Relu)",
        ),
    ],
)
def test_what_may_be_done_with_a_convolution(nodes: Nodes, said: str | None, tmp_path: Path) -> None:
    """Sums and ReLU become part of it where nobody else reads what it was without them."""
    path = tmp_path / "trunk.onnx"
    onnx.save(graph_of(nodes), path)
    if said is None:
        compile_native(path, GRAPH, tmp_path / "trunk.native")
        return
    with pytest.raises(EngineError) as refused:
        compile_native(path, GRAPH, tmp_path / "trunk.native")
    assert said in str(refused.value)


def graph_of(nodes: Nodes) -> onnx.ModelProto:
    """From `x`, four channels of 4x8, to `y`, which labels are taken from; of split batches, merged."""
    helper, random = onnx.helper, np.random.default_rng(0)
    kernel = random.standard_normal((4, 4, 3, 3)).astype(np.float32)
    shapes = {
        "windows": [-1, 4, 2, 2, 4, 2],
        "batches": [-1, 4, 2, 4],
        "merging": [-1, 2, 2, 2, 4],
        "whole": [-1, 4, 8],
    }
    weights = {"kernel": kernel} | {name: np.array(shape) for name, shape in shapes.items()}
    made = []
    for kind, inputs, output in nodes:
        if kind == "split":
            made.append(helper.make_node("Reshape", [*inputs, "windows"], [f"{output}.0"]))
            made.append(helper.make_node("Transpose", [f"{output}.0"], [f"{output}.1"], perm=[0, 3, 5, 1, 2, 4]))
            made.append(helper.make_node("Reshape", [f"{output}.1", "batches"], [output], name=output))
        elif kind == "Conv":
            made.append(helper.make_node("Conv", [*inputs, "kernel"], [output], name=output, pads=[1, 1, 1, 1]))
        else:
            made.append(helper.make_node(kind, inputs, [output], name=output))
    made.append(helper.make_node("ArgMax", ["y"], ["first"], axis=1, keepdims=0))
    last = "first"
    if any(kind == "split" for kind, *_ in nodes):
        made.append(helper.make_node("Reshape", ["first", "merging"], ["m.0"]))
        made.append(helper.make_node("Transpose", ["m.0"], ["m.1"], perm=[0, 3, 1, 4, 2]))
        made.append(helper.make_node("Reshape", ["m.1", "whole"], ["m"]))
        last = "m"
    made.append(helper.make_node("Cast", [last], ["labels"], to=onnx.TensorProto.UINT8))
    ends = [("x", onnx.TensorProto.FLOAT, ["n", 4, 4, 8]), ("labels", onnx.TensorProto.UINT8, ["n", 4, 8])]
    given, wanted = ([helper.make_tensor_value_info(*end)] for end in ends)
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(made, "trunk", given, wanted, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
