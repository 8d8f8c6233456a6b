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
from engines.machine import find_gpus
from engines.plan import description_refusal
from engines.sidecar import read_sidecar
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


@pytest.mark.parametrize("capability", ["7.5", "8.6", "8.9", "12.0"])
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
        assert found["build"]["convolution_types"].keys() == convolutions_of(package, engine.part)
        assert json.loads(json.dumps(engine.build["layers"])) == found["build"]["layers"]
        assert len(found["build"]["layers"]) >= convolutions
        assert found["machine"]["capability"] == capability
        assert description_refusal(engine.path, read_sidecar(engine.path)) is None


def convolutions_of(package: Package, part: str) -> set[str]:
    """What the ONNX file itself says."""
    graph = onnx.load(package.folder / f"{part}.onnx").graph
    return {node.name for node in graph.node if node.op_type == "Conv"}


def test_the_sidecar_says_how_it_was_built(package: Package) -> None:
    options = GpuOptions("8.9", min_batches=2, opt_batches=3, max_batches=5, optimization_level=1)
    (engine,) = build_engines(package, RTX, options=options, parts=["trunk"])
    build = details(engine.path)["build"]
    features = {"min": [2, 4, 12, 18], "opt": [3, 4, 12, 18], "max": [5, 4, 12, 18]}
    assert build["profiles"] == {"features": features}
    assert build["optimization_level"] == 1
    assert [(tensor["name"], tensor["dtype"], tensor["shape"]) for tensor in build["io"]] == [
        ("features", "FLOAT", [-1, 4, 12, 18]),
        ("labels", "UINT8", [-1, 12, 18]),
    ]
    assert build["timing_cache_sha256"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (GpuOptions("8.9", hardware_compatibility="ampere-plus"), "ampere-plus compatible: give .* none"),
        (GpuOptions("8.9", hardware_compatibility="same-compute-capability"), "same-compute-capability compatible"),
        (GpuOptions("8.9", version_compatible=True), "leave out --version-compatible"),
        (GpuOptions("8.9", optimization_level=9), "has no optimisation level 9: give --optimization-level 0 to 5"),
        (GpuOptions("8.9", timing_cache=Path("t.cache")), "measures nothing .* leave out --timing-cache t.cache"),
        (GpuOptions("8.9", hardware_compatibility="all"), "is none of none, ampere-plus, same-compute-capability"),
        (GpuOptions("8.9", precision_constraints="none"), "is none of obey, prefer"),
    ],
)
def test_what_tensorrt_rtx_cannot_do_is_refused(package: Package, options: GpuOptions, words: str) -> None:
    before = sorted(package.engines_folder.rglob("*"))
    with pytest.raises((EngineError, InputError), match=words) as caught:
        build_engines(package, RTX, options=options)
    assert "\n" not in str(caught.value)
    assert sorted(package.engines_folder.rglob("*")) == before


@pytest.mark.parametrize(
    "options", [GpuOptions(optimization_level=5), GpuOptions(device=1), GpuOptions(version_compatible=True)]
)
def test_a_cpu_takes_no_options_of_gpus(package: Package, options: GpuOptions) -> None:
    with pytest.raises(InputError, match="onnxruntime runs on the CPU: leave it out"):
        build_engines(package, "onnxruntime", options=options)


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
