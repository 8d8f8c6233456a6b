"""Plans of graphs with quantised convolutions, and of graphs that are not what they are called: real builds."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from small_package import make_package

from calibration.half import half_graph
from calibration.package import add_precision
from engines.build import build_engines
from engines.compiler import GpuOptions
from engines.layer_types import asked_types
from splitmerge.cli import main
from splitmerge.errors import EngineError
from splitmerge.package import Package

pytest.importorskip("tensorrt_rtx", reason="pip install 'splitmerge[rtx]'")
RTX = "tensorrt-rtx"


def quantised(model: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """Quantise and dequantise pixels and weights of the named convolutions, symmetrically."""
    model.opset_import[0].version = 19  # scales may be float16 from there on
    graph = model.graph
    weights = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == "Conv" and node.name in names:
            array = weights[node.input[1]]
            scale = (np.abs(array).max(axis=(1, 2, 3)) / 127).astype(array.dtype)
            for index, value, axis in ((0, np.array(0.05, array.dtype), None), (1, scale, 0)):
                name = f"{node.name}.{index}"
                zero = np.zeros(value.shape, np.int8)
                graph.initializer.extend(
                    [numpy_helper.from_array(value, f"{name}.s"), numpy_helper.from_array(zero, f"{name}.z")]
                )
                source, along = node.input[index], {} if axis is None else {"axis": axis}
                for kind, given, made in (("Quantize", source, f"{name}.q"), ("Dequantize", f"{name}.q", f"{name}.dq")):
                    inputs = [given, f"{name}.s", f"{name}.z"]
                    nodes.append(helper.make_node(f"{kind}Linear", inputs, [made], name=made, **along))
                node.input[index] = f"{name}.dq"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def convolutions(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in model.graph.node if node.op_type == "Conv"]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """With int8 graphs whose classifier stays in float16."""
    package = make_package(tmp_path_factory.mktemp("package") / "small", size=(64, 128), channels=8)
    halves = {part: half_graph(onnx.load(package.path(graph))) for part, graph in package.parts("fp32").items()}
    int8 = {part: quantised(model, set(convolutions(model)[:3])) for part, model in halves.items()}
    return add_precision(package, "int8", int8)


@pytest.mark.parametrize("capability", ["8.6", "8.9", "12.0"])
def test_quantised_convolutions_are_int8_and_the_others_what_their_graph_says(
    package: Package, capability: str
) -> None:
    stem, trunk, model = build_engines(package, RTX, "int8", GpuOptions(capability), ["stem", "trunk", "model"])
    assert stem.build["convolutions"] == {"Int8": 1}
    assert trunk.build["convolutions"] == {"Int8": 3, "Half": 1}
    assert model.build["convolutions"] == {"Int8": 3, "Half": 2}


def test_where_int8_becomes_float_the_build_fails(package: Package) -> None:
    with pytest.raises(
        EngineError, match=r"3 Half instead of Int8 \(conv_0, .*--precision-constraints prefer"
    ) as caught:
        build_engines(package, RTX, "int8", GpuOptions("7.5"), ["trunk"])
    assert "\n" not in str(caught.value)
    assert not [path for path in package.engines_folder.glob("*") if "sm75" in path.name]


def test_unless_it_is_allowed(package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--package",
        str(package.folder),
        "--backend",
        RTX,
        "--compute-capability",
        "7.5",
        "--precision",
        "int8",
    ]
    assert main(["build", *arguments, "--precision-constraints", "prefer"]) == 0
    assert "4 convolutions Half" in (out := capsys.readouterr().out)
    assert "3 Half instead of Int8" in out


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_float32_graphs_under_another_name_are_refused(tmp_path: Path, precision: str) -> None:
    package = make_package(tmp_path / "p")
    graphs = {part: onnx.load(package.path(graph)) for part, graph in package.parts("fp32").items()}
    package = add_precision(package, precision, graphs)
    with pytest.raises(EngineError, match=f"is called {precision} and its convolutions are 4 Float"):
        build_engines(package, RTX, precision, GpuOptions("8.9"))
    assert not list(package.engines_folder.iterdir())


def test_a_plan_that_came_out_float32_is_a_failed_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where TensorRT took the graph for float16 and built it in float32."""
    package = make_package(tmp_path / "p")
    graphs = {part: onnx.load(package.path(graph)) for part, graph in package.parts("fp32").items()}
    package = add_precision(package, "fp16", graphs)
    monkeypatch.setattr(
        "engines.tensorrt_builder.asked_types",
        lambda trt, network: dict.fromkeys(asked_types(trt, network), "Half"),
    )
    with pytest.raises(EngineError, match=r"Of the 1 convolutions of stem.*, 1 Float instead of Half \(conv_"):
        build_engines(package, RTX, "fp16", GpuOptions("8.9"))
    assert not list(package.engines_folder.iterdir())
