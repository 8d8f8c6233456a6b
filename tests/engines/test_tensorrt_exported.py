"""TensorRT-RTX takes the graphs that export writes, for GPUs that are not here."""

import json
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


def exported(folder: Path, name: str, size: tuple[int, int]) -> Package:
    """A package of a network of width 4 with random weights, whose batch norms are not the identity."""
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
    return export_package(checkpoint, size, folder / "package")


@pytest.fixture(scope="module", params=[(40, 90), (64, 96)], ids=["padded", "unpadded"])
def smp18(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Package:
    return exported(tmp_path_factory.mktemp("smp18"), "smp18", request.param)


def operators(package: Package, part: str) -> set[str]:
    import onnx

    return {node.op_type for node in onnx.load(package.path(package.parts("fp32")[part])).graph.node}


def sidecar(engine: BuiltEngine) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(engine.path.with_suffix(".json").read_text())
    return value


def built(package: Package, options: GpuOptions, parts: list[str]) -> list[BuiltEngine]:
    return build_engines(package, "tensorrt-rtx", options=options, parts=parts)


@pytest.mark.parametrize("capability", ["8.6", "8.9", "12.0"])
def test_every_part_builds_as_float(smp18: Package, capability: str) -> None:
    padded = smp18.manifest.input.size == (40, 90)
    assert ({"Pad", "Slice"} <= operators(smp18, "model")) == padded
    for engine in built(smp18, GpuOptions(capability), list(CONVOLUTIONS)):
        found = sidecar(engine)
        assert found["build"]["convolutions"] == {"Float": CONVOLUTIONS[engine.part]}
        assert found["machine"]["capability"] == capability
        assert engine.size > 0


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (GpuOptions("8.9"), ["stem", "model"]),
        (GpuOptions("8.9", min_batches=4, opt_batches=4, max_batches=4), ["stem", "trunk", "model"]),
    ],
    ids=["any number of split batches", "four split batches"],
)
def test_the_same_build_gives_the_same_plan(smp18: Package, options: GpuOptions, parts: list[str]) -> None:
    plans = [{engine.part: engine.path.read_bytes() for engine in built(smp18, options, parts)} for _ in range(3)]
    assert plans[0] == plans[1] == plans[2]


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
