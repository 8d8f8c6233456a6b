"""TensorRT-RTX really parses and builds, for GPUs that are not here."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from small_package import make_package

from engines.build import build_engines
from engines.compiler import GpuOptions
from engines.layer_dump import Layer, convolution_types, layers_from_log
from engines.machine import find_gpus
from engines.tensorrt_builder import TensorRTCompiler
from splitmerge.errors import EngineError, InputError
from splitmerge.package import Graph, Package, TensorInfo

RTX = "tensorrt-rtx"
PARTS = ["stem", "trunk", "model"]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'splitmerge[rtx]'")
    return make_package(tmp_path_factory.mktemp("package") / "small")


def details(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return value


@pytest.mark.parametrize("capability", ["8.6", "8.9", "12.0"])
def test_every_part_builds_as_float(package: Package, capability: str) -> None:
    built = build_engines(package, RTX, "fp32", GpuOptions(capability), PARTS)
    assert [engine.part for engine in built] == PARTS
    for engine, convolutions in zip(built, (1, 4, 5), strict=True):
        assert engine.path.parent.name == f"tensorrt-rtx-sm{capability.replace('.', '')}-fp32"
        assert engine.path.read_bytes()[:4] == b"vtrt"
        found = details(engine.path)
        assert found["build"]["convolutions"] == {"Float": convolutions}
        assert found["build"]["network_flags"] == ["STRONGLY_TYPED"]
        assert "TF32" not in str(found["build"]["flags"])
        assert found["machine"]["capability"] == capability


def test_the_same_build_gives_the_same_plan(package: Package) -> None:
    plans = [build_engines(package, RTX, options=GpuOptions("8.9"), parts=["trunk"])[0] for _ in range(2)]
    first, second = (details(plan.path)["engine_sha256"] for plan in plans)
    assert first == second


def test_the_profile_holds_the_batches_asked_for(package: Package) -> None:
    """A context reserves memory for the most batches, so more of them need more."""

    def activations(most: int) -> int:
        options = GpuOptions("8.9", max_batches=most, workspace_mib=1024)
        (engine,) = build_engines(package, RTX, options=options, parts=["trunk"])
        found = details(engine.path)["build"]
        assert found["options"]["max_batches"] == most
        return found["activation_bytes"]

    assert activations(64) > activations(1)


def test_an_unsupported_gpu_is_refused_in_words(package: Package) -> None:
    with pytest.raises(EngineError, match=r"compute capability 9\.0: choose one of 7\.5, 8\.0, 8\.6, 8\.9, 12\.0"):
        build_engines(package, RTX, options=GpuOptions("9.0"))
    assert not (package.engines_folder / "tensorrt-rtx-sm90-fp32").exists()


@pytest.mark.parametrize("capability", ["89", "sm_89", "../8.9", ""])
def test_what_is_no_compute_capability_is_refused(package: Package, capability: str) -> None:
    with pytest.raises(InputError, match=r"write it as 8\.9"):
        TensorRTCompiler(RTX, GpuOptions(capability))


def test_batches_out_of_order_are_refused() -> None:
    with pytest.raises(InputError, match="rising order"):
        TensorRTCompiler(RTX, GpuOptions("8.9", min_batches=2, opt_batches=1))


@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU here, so nothing is missing")
def test_without_a_gpu_one_must_be_named(package: Package) -> None:
    with pytest.raises(EngineError, match=r"--compute-capability 8\.9"):
        build_engines(package, RTX)


def test_operators_that_cannot_be_are_all_named(package: Package, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("BitShift", ["x", "x"], ["a"], name="shifty", direction="LEFT"),
        helper.make_node("NoSuchThing", ["a"], ["y"], name="unheard"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "bad", ends[:1], ends[1:])
    path = tmp_path / "bad.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    x, y = TensorInfo("x", "float32", (1, 4)), TensorInfo("y", "float32", (1, 4))
    with pytest.raises(EngineError, match=r"node shifty \(BitShift\).*node unheard \(NoSuchThing\)") as caught:
        TensorRTCompiler(RTX, GpuOptions("8.9"))(path, Graph("bad.onnx", "", (x,), (y,)), tmp_path / "bad.plan")
    assert "\n" not in str(caught.value)


def test_shapes_that_do_not_fit_the_graph_are_refused(package: Package, tmp_path: Path) -> None:
    wrong = Graph("trunk.onnx", "", (TensorInfo("features", "float32", (None, 5, 12, 18)),), ())
    with pytest.raises(EngineError, match=r"trunk\.onnx"):
        TensorRTCompiler(RTX, GpuOptions("8.9"))(package.folder / "trunk.onnx", wrong, tmp_path / "trunk.plan")
    assert not (tmp_path / "trunk.plan").exists()


DUMP = (
    "Layers:\n"
    "Name: conv_a, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [-1,4,8,8], Datatype: Int8 }], "
    "Constants: [ { Name: w, Dimensions: [4,4,3,3], Datatype: Half }], Outputs: [ { Name: y, Dimensions: [-1,4,8,8], "
    "Datatype: Float }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: conv_a][ONNX Layer: relu]\n"
    "Name: wait, LayerType: wait, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata: \n"
    "Name: join, LayerType: kgen, Inputs: [ { Name: y, Dimensions: [-1,4], Datatype: Half }, { Datatype: Float }], "
    "Outputs: [], TacticName: , StreamId: 0, Metadata: \n"
)


def test_the_layer_dump_is_read() -> None:
    layers = layers_from_log(["something else", DUMP])
    assert layers == [
        Layer("conv_a", "correlation", ("Int8",), ("Float",), ("conv_a", "relu")),
        Layer("wait", "wait", (), (), ()),
        Layer("join", "kgen", ("Half", "Float"), (), ()),
    ]
    assert convolution_types(layers, ["conv_a", "conv_b"]) == {"Int8": 1, "unknown": 1}
