"""`export --target cpu` and what the other verbs make of such a package."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from export_samples import network, noise

from calibration.half import half_graph
from calibration.package import add_precision
from engines.build import build_engines
from engines.sidecar import engine_folder, read_sidecar
from export import graphs
from export.cpu import form, stem
from runtime.executor import Executor
from splitmerge.cli import main
from splitmerge.labels import CITYSCAPES
from splitmerge.package import Package
from training.checkpoint import save_checkpoint

SIZE = (40, 70)


def exported(folder: Path, always: bool) -> Package:
    checkpoint = folder / "network.safetensors"
    save_checkpoint(checkpoint, network("smp18", width=4), "smp18", CITYSCAPES[:7])
    command = ["export", "--checkpoint", str(checkpoint), "--size", "x".join(map(str, SIZE)), "--target", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        if always:
            patch.setattr(form, "gains", lambda *_: True)
            patch.setattr(stem, "MAP_BYTES", 0)
        assert main([*command, "--package", str(folder / "package"), "--json", str(folder / "e.json")]) == 0
    return Package.open(folder / "package")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return exported(tmp_path_factory.mktemp("cpu"), always=True)


def operators(package: Package, file: str) -> set[str]:
    return {node.op_type for node in onnx.load(package.folder / file).graph.node}


def test_the_package_has_both_forms(package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    graph = package.manifest.cpu["trunk"]
    plain = package.parts("fp32")["trunk"]
    assert graph.file == "trunk-cpu.onnx" and list(package.manifest.cpu) == ["stem", "trunk"]
    assert (graph.inputs, graph.outputs) == (plain.inputs, plain.outputs)
    assert "Conv" not in operators(package, "trunk-cpu.onnx") and "Conv" in operators(package, "trunk.onnx")
    report = package.manifest.verification["cpu"]
    assert report["against"] == "PyTorch in float64" and report["comparison"]["wrong_labels"] == 0
    assert 0 < report["float64_error"] < 1e-5 and 0 < report["plain_float64_error"] < 1e-5
    assert json.loads((package.folder.parent / "e.json").read_text())["verification"]["cpu"] == report
    assert main(["inspect", str(package.folder)]) == 0
    said = capsys.readouterr().out
    assert "for CPUs: the stem and trunk, held against PyTorch in float64; logits off by" in said


def test_where_nothing_gains_there_is_no_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = exported(tmp_path, always=False)
    assert package.manifest.cpu == {} and not list(package.folder.glob("*-cpu.onnx"))
    assert package.manifest.verification["cpu"] is None
    assert "for CPUs: no form of its own" in capsys.readouterr().out


def test_weights_that_no_file_holds_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "network.safetensors"
    save_checkpoint(checkpoint, network("smp18", width=4), "smp18", CITYSCAPES[:7])
    monkeypatch.setattr(form, "gains", lambda *_: True)
    most = 4 * sum(parameter.numel() for parameter in network("smp18", width=4).parameters())
    monkeypatch.setattr(graphs, "MOST_BYTES", 2 * most)  # the plain graphs fit
    given = ["--checkpoint", str(checkpoint), "--size", "40x70", "--package", str(tmp_path / "package")]
    assert main(["export", *given, "--target", "cpu"]) == 2
    assert "GB of weights and a file of ONNX holds" in capsys.readouterr().err
    assert not (tmp_path / "package").exists()


def test_all_forms_segment_alike_for_any_chunk(package: Package) -> None:
    frame = noise(1, *SIZE)[0]
    found = []
    ways = [("plain", 1, 1), ("cpu", 1, 1), ("cpu", 2, 3), ("cpu", 1, 16), ("native", 2, 3)]
    for built_as, contexts, chunk in ways:
        build_engines(package, form=built_as)
        with Executor(package, contexts=contexts, chunk=chunk) as executor:
            found.append(executor.segment(frame))
    for labels in found[1:]:
        np.testing.assert_array_equal(labels, found[0])


def test_other_precisions_and_backends_take_the_plain_graphs(package: Package) -> None:
    """Calibrating keeps the form for CPUs of fp32 as it is, and asking for it elsewhere is refused."""
    graphs = {part: onnx.load(package.path(graph)) for part, graph in package.parts("fp32").items()}
    added = add_precision(package, "fp16", {part: half_graph(model) for part, model in graphs.items()})
    assert Package.open(package.folder).manifest.cpu == added.manifest.cpu == package.manifest.cpu
    with pytest.raises(ValueError, match="The form cpu is of fp32 engines for CPUs, not of fp16 ones for onnxruntime"):
        build_engines(added, "onnxruntime", "fp16", form="cpu")
    build_engines(added, "onnxruntime", "fp16")
    sidecar = read_sidecar(engine_folder(added, "onnxruntime", "fp16") / "trunk.onnx")
    assert sidecar.graph_sha256 == added.parts("fp16")["trunk"].sha256


def test_plans_for_gpus_are_built_from_the_plain_graphs(package: Package) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'splitmerge[rtx]'")
    from engines.compiler import GpuOptions

    with pytest.raises(ValueError, match="The form cpu is of fp32 engines for CPUs, not of fp32 ones for tensorrt-rtx"):
        build_engines(package, "tensorrt-rtx", options=GpuOptions("8.6"), parts=["trunk"], form="cpu")
    build_engines(package, "tensorrt-rtx", options=GpuOptions("8.6"), parts=["trunk"])
    sidecar = read_sidecar(engine_folder(package, "tensorrt-rtx", "fp32", "8.6") / "trunk.plan")
    assert sidecar.graph_sha256 == package.parts("fp32")["trunk"].sha256
