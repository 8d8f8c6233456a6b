"""TensorRT-RTX takes the graphs that export and calibration write, for GPUs that are not here."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from engines.build import BuiltEngine, build_engines
from engines.compiler import GpuOptions
from splitmerge.labels import CITYSCAPES
from splitmerge.package import Package

pytest.importorskip("tensorrt_rtx", reason="pip install 'splitmerge[rtx]'")
pytest.importorskip("onnx_ir", reason="pip install 'splitmerge[export]'")
torch = pytest.importorskip("torch", reason="pip install 'splitmerge[export]'")

CONVOLUTIONS = {"stem": 1, "trunk": 20, "model": 21}
TYPES = {"fp32": "Float", "fp16": "Half"}


def exported(folder: Path, name: str, size: tuple[int, int], **rewriting: Any) -> Package:
    """A package of a network of width 4 with random weights, whose batch norms are not the identity."""
    from export.graphs import Rewriting
    from export.package import export_package
    from training.checkpoint import save_checkpoint
    from training.models import create_model

    torch.manual_seed(3)
    model = create_model(name, 7, 4).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    checkpoint = folder / "network.safetensors"
    save_checkpoint(checkpoint, model, name, CITYSCAPES[:7])
    return export_package(checkpoint, size, folder / "package", rewriting=Rewriting(**rewriting))


@pytest.fixture(scope="module", params=[(40, 90), (64, 96)], ids=["padded", "unpadded"])
def smp18(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """With fp16 graphs beside the float32 ones."""
    import onnx

    from calibration.half import half_graph
    from calibration.package import add_precision

    package = exported(tmp_path_factory.mktemp("smp18"), "smp18", request.param)
    graphs = {part: onnx.load(package.path(graph)) for part, graph in package.parts("fp32").items()}
    return add_precision(package, "fp16", {part: half_graph(model) for part, model in graphs.items()})


def operators(package: Package, part: str) -> set[str]:
    import onnx

    return {node.op_type for node in onnx.load(package.path(package.parts("fp32")[part])).graph.node}


def sidecar(engine: BuiltEngine) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(engine.path.with_suffix(".json").read_text())
    return value


def built(package: Package, options: GpuOptions, parts: list[str], precision: str = "fp32") -> list[BuiltEngine]:
    return build_engines(package, "tensorrt-rtx", precision, options, parts)


def types_in_file(path: Path) -> dict[str, str]:
    """In which type each convolution of an ONNX file computes, by the file itself: that of its weights."""
    import onnx

    graph = onnx.load(path).graph
    weights = {weight.name: weight.data_type for weight in graph.initializer}
    words = {onnx.TensorProto.FLOAT: "Float", onnx.TensorProto.FLOAT16: "Half"}
    return {node.name: words[weights[node.input[1]]] for node in graph.node if node.op_type == "Conv"}


@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize("capability", ["7.5", "8.6", "8.9", "12.0"])
def test_every_part_builds_in_the_types_of_its_graph(smp18: Package, capability: str, precision: str) -> None:
    padded = smp18.manifest.input.size == (40, 90)
    assert ({"Pad", "Slice"} <= operators(smp18, "model")) == padded
    for engine in built(smp18, GpuOptions(capability), list(CONVOLUTIONS), precision):
        found = sidecar(engine)
        assert found["build"]["convolutions"] == {TYPES[precision]: CONVOLUTIONS[engine.part]}
        in_file = types_in_file(smp18.path(smp18.parts(precision)[engine.part]))
        types = found["build"]["convolution_types"]
        assert {name: one["asked"] for name, one in types.items()} == in_file
        assert {name: one["found"] for name, one in types.items()} == in_file
        assert found["machine"]["capability"] == capability
        assert engine.size > 0


def test_float16_plans_are_smaller(smp18: Package) -> None:
    sizes = {precision: built(smp18, GpuOptions("8.9"), ["trunk"], precision)[0].build for precision in TYPES}
    assert sizes["fp16"]["activation_bytes"] < sizes["fp32"]["activation_bytes"]


@pytest.mark.parametrize("keep", ["layer1.0.conv1", "layer2.0.conv2", "layer3.0.downsample.0", "classifier"])
@pytest.mark.parametrize("capability", ["7.5", "8.9"])
def test_a_layer_that_is_kept_in_float32_is_float32_in_the_plan(
    smp18: Package, tmp_path: Path, capability: str, keep: str
) -> None:
    engine = mixed(smp18, tmp_path, keep, capability)
    assert sidecar(engine)["build"]["convolutions"] == {"Half": 19, "Float": 1}
    assert sidecar(engine)["build"]["convolution_types"][keep] == {"asked": "Float", "found": "Float"}


def mixed(package: Package, folder: Path, keep: str, capability: str) -> BuiltEngine:
    import onnx

    from calibration.half import half_graph
    from calibration.package import add_precision

    copy = shutil.copytree(package.folder, folder / "package", ignore=shutil.ignore_patterns("engines"))
    graph = half_graph(onnx.load(package.path(package.parts("fp32")["trunk"])), [keep])
    (engine,) = built(
        add_precision(Package.open(copy), "fp16", {"trunk": graph}), GpuOptions(capability), ["trunk"], "fp16"
    )
    return engine


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (GpuOptions("8.9"), ["stem", "model"]),
        (GpuOptions("8.9", min_batches=4, opt_batches=4, max_batches=4), ["stem", "trunk", "model"]),
    ],
    ids=["any number of split batches", "four split batches"],
)
@pytest.mark.parametrize("precision", TYPES)
def test_the_same_build_gives_the_same_plan(
    smp18: Package, options: GpuOptions, parts: list[str], precision: str
) -> None:
    found = [
        {engine.part: engine.path.read_bytes() for engine in built(smp18, options, parts, precision)} for _ in range(3)
    ]
    assert found[0] == found[1] == found[2]


def test_trunks_for_any_number_of_batches_differ_in_nothing_that_counts(smp18: Package) -> None:
    """TensorRT-RTX numbers the values that it computes free sizes with anew in each build, so not byte for byte."""
    found = []
    for _ in range(3):
        (engine,) = built(smp18, GpuOptions("8.9"), ["trunk"])
        facts = sidecar(engine)
        del facts["engine_sha256"], facts["build"]["seconds"]
        found.append((engine.size, facts))
    assert found[0] == found[1] == found[2]


def test_bilinear_upsampling_builds(tmp_path: Path) -> None:
    package = exported(tmp_path, "fcn8s-18", (40, 90))
    assert "Resize" in operators(package, "model")
    (engine,) = built(package, GpuOptions("8.9"), ["model"])
    assert sidecar(engine)["build"]["convolutions"] == {"Float": 23}


@pytest.mark.parametrize("name", ["dilatedfcn8-18", "fcn32s-18", pytest.param("deeplabv3-50", marks=pytest.mark.slow)])
def test_rewritten_networks_build(name: str, tmp_path: Path) -> None:
    """Split, merge and mask of a dilated network whose features no rate divides; others at output stride 1, cut."""
    dilated = name == "dilatedfcn8-18"
    rewriting: dict[str, Any] = {"form": "split"} if dilated else {"output_stride": 1}
    package = exported(tmp_path, name, (70, 100), **rewriting)
    if dilated:
        assert {"Pad", "Slice", "Transpose", "Where"} <= operators(package, "model")
    for engine in built(package, GpuOptions("8.9"), ["model"] if dilated else ["stem", "trunk"]):
        in_file = types_in_file(package.path(package.parts("fp32")[engine.part]))
        types = sidecar(engine)["build"]["convolution_types"]
        assert {name: one["found"] for name, one in types.items()} == in_file and engine.size > 0
