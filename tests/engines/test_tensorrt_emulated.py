"""TensorRT itself, whose builder needs a GPU, as far as an emulator tells: devices, timing caches, the inspector."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from emulator import EmulatedDevice, Emulator
from emulator.fixture import make_emulator  # noqa: F401
from small_package import make_package

from calibration.half import half_graph
from calibration.package import add_precision
from engines.build import BuiltEngine, build_engines
from engines.build_progress import BuildProgress
from engines.compiler import GpuOptions
from engines.machine import find_gpus
from engines.plan import plan_refusal
from engines.sidecar import read_sidecar
from splitmerge.cli import main
from splitmerge.errors import EngineError
from splitmerge.package import Package

TENSORRT = "tensorrt"
TWO = [EmulatedDevice("NVIDIA L4", "8.9", 58), EmulatedDevice("NVIDIA A10", "8.6", 72)]


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return make_package(tmp_path / "small")


@pytest.fixture
def emulator(make_emulator: Callable[..., Emulator]) -> Emulator:  # noqa: F811
    return make_emulator(TWO, version="10.12.0")


def build_of(engine: BuiltEngine) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(engine.path.with_suffix(".json").read_text())
    return value


def described(path: Path) -> dict[str, Any]:
    """What the emulator wrote into a plan: the device that it was built on."""
    data = path.read_bytes()[48 + 32 :]
    value: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return value


def test_each_kind_of_gpu_gets_its_engines(package: Package, emulator: Emulator) -> None:
    assert main(["build", "--package", str(package.folder), "--backend", TENSORRT]) == 0
    gpus = find_gpus()
    for gpu, name in zip(gpus, ("tensorrt-sm89-fp32", "tensorrt-sm86-fp32"), strict=True):
        for part in ("stem", "trunk"):
            path = package.engines_folder / name / f"{part}.plan"
            sidecar = read_sidecar(path)
            assert sidecar.machine["gpu"] == gpu.name == described(path)["device"]
            assert sidecar.machine["capability"] == gpu.capability
            assert sidecar.machine["multiprocessors"] == gpu.multiprocessors
            assert sidecar.machine["driver"] == gpu.driver == sidecar.build["cuda_driver"]
            assert plan_refusal(path, sidecar, gpu, "10.12.0") is None
            assert set(sidecar.build["convolutions"]) == {"Float"}
    stem = package.engines_folder / "tensorrt-sm89-fp32" / "stem.plan"
    assert "NVIDIA A10" in (plan_refusal(stem, read_sidecar(stem), gpus[1], "10.12.0") or "")


def test_one_gpu_alone(package: Package, emulator: Emulator) -> None:
    (engine,) = build_engines(package, TENSORRT, options=GpuOptions(device=1), parts=["trunk"])
    assert described(engine.path)["device"] == "NVIDIA A10"
    assert [folder.name for folder in package.engines_folder.glob("tensorrt-*")] == ["tensorrt-sm86-fp32"]


def test_timings_are_kept_for_each_gpu(package: Package, emulator: Emulator) -> None:
    for device, name in ((0, "tensorrt-10.12.0-sm89-NVIDIA-L4"), (1, "tensorrt-10.12.0-sm86-NVIDIA-A10")):
        stem, trunk = build_engines(package, TENSORRT, options=GpuOptions(device=device))
        written = package.engines_folder / "timing" / f"{name}.cache"
        described_by = json.loads(written.with_name(f"{name}.cache.json").read_text())
        assert build_of(trunk)["build"]["timing_cache_sha256"] == described_by["sha256"]
        assert build_of(stem)["build"]["timing_cache_sha256"] != described_by["sha256"]
        keys = json.loads(written.read_text())["keys"]
        again = build_engines(package, TENSORRT, options=GpuOptions(device=device))
        assert json.loads(written.read_text())["keys"] == keys and len(keys) > 5
        assert build_of(again[0])["build"]["timing_cache_sha256"] == described_by["sha256"]


def test_a_default_cache_that_was_altered_is_begun_anew(package: Package, emulator: Emulator) -> None:
    build_engines(package, TENSORRT, parts=["trunk"])
    (cache,) = package.engines_folder.glob("timing/*.cache")
    good = cache.read_bytes()
    cache.write_bytes(b"garbage")
    (engine,) = build_engines(package, TENSORRT, parts=["trunk"])
    assert "timing cache begun anew (it was altered after it was written)" in engine.notes
    assert cache.read_bytes() == good


def test_a_named_cache_of_another_gpu_is_refused(package: Package, emulator: Emulator, tmp_path: Path) -> None:
    file = tmp_path / "my.cache"
    build_engines(package, TENSORRT, options=GpuOptions(timing_cache=file))
    before = file.read_bytes(), sorted(package.engines_folder.rglob("*"))
    with pytest.raises(EngineError, match=r"my\.cache cannot be used, it was measured with .* NVIDIA L4"):
        build_engines(package, TENSORRT, options=GpuOptions(timing_cache=file, device=1))
    assert (file.read_bytes(), sorted(package.engines_folder.rglob("*"))) == before
    assert not (package.engines_folder / "timing").exists()


def test_the_inspector_is_asked_where_there_is_a_gpu(
    package: Package, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = build_engines(package, TENSORRT, parts=["trunk"])
    monkeypatch.setattr("engines.tensorrt_builder.layers_from_log", lambda messages: [])
    (engine,) = build_engines(package, TENSORRT, parts=["trunk"])
    assert engine.build["convolutions"] == {"Float": 4}
    assert [layer["onnx"] for layer in engine.build["layers"]] == [layer["onnx"] for layer in expected.build["layers"]]
    monkeypatch.undo()
    monkeypatch.setattr("engines.tensorrt_builder.layers_from_inspector", lambda text: [])
    assert build_engines(package, TENSORRT, parts=["trunk"])[0].build["convolutions"] == {"Float": 4}


def test_float16(package: Package, emulator: Emulator) -> None:
    graphs = {part: half_graph(onnx.load(package.path(graph))) for part, graph in package.parts("fp32").items()}
    engines = build_engines(add_precision(package, "fp16", graphs), TENSORRT, "fp16")
    assert [engine.build["convolutions"] for engine in engines] == [{"Half": 1}, {"Half": 4}]
    assert engines[0].path.parent.name == "tensorrt-sm89-fp16"


def test_how_widely_a_plan_is_valid_stands_in_its_sidecar(package: Package, emulator: Emulator) -> None:
    options = GpuOptions(hardware_compatibility="ampere-plus", version_compatible=True)
    (engine,) = build_engines(package, TENSORRT, options=options, parts=["trunk"])
    facts = build_of(engine)
    assert facts["machine"]["hardware_compatibility"] == "ampere-plus"
    assert facts["machine"]["version_compatible"] is True
    assert "VERSION_COMPATIBLE" in facts["build"]["flags"] and "TF32" not in facts["build"]["flags"]
    assert described(engine.path)["hardware_compatibility"] == "AMPERE_PLUS"
    assert plan_refusal(engine.path, read_sidecar(engine.path), find_gpus()[1], "10.13.1") is None


def test_a_version_without_a_level_of_compatibility(
    package: Package, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in TensorRT 10.3."""
    import tensorrt

    class HardwareCompatibilityLevel:
        pass

    HardwareCompatibilityLevel.NONE = HardwareCompatibilityLevel()  # type: ignore[attr-defined]
    HardwareCompatibilityLevel.AMPERE_PLUS = HardwareCompatibilityLevel()  # type: ignore[attr-defined]
    monkeypatch.setattr(tensorrt, "HardwareCompatibilityLevel", HardwareCompatibilityLevel)
    options = GpuOptions(hardware_compatibility="same-compute-capability")
    with pytest.raises(EngineError, match="give --hardware-compatibility ampere-plus, none, and build"):
        build_engines(package, TENSORRT, options=options)


def test_a_gpu_that_is_not_there(package: Package, emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--package", str(package.folder), "--backend", TENSORRT, "--device", "2"]) == 2
    assert "no GPU 2 here to build on: choose --device from 0 (NVIDIA L4), 1 (NVIDIA A10)" in capsys.readouterr().err


def test_what_tensorrt_cannot_build_is_said_in_its_words(package: Package, emulator: Emulator) -> None:
    emulator.fail("build_serialized_network")
    with pytest.raises(EngineError, match=r"tensorrt 10\.12\.0 cannot build .*could not find any implementation"):
        build_engines(package, TENSORRT)
    assert not [path for path in package.engines_folder.rglob("*") if path.suffix == ".plan"]


def test_an_interrupted_build_leaves_nothing(
    package: Package, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = BuildProgress.step_complete

    def interrupted(progress: BuildProgress, phase: str, number: int) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        progress._cancelled.wait(30)
        return step(progress, phase, number)

    monkeypatch.setattr(BuildProgress, "step_complete", interrupted)
    assert main(["build", "--package", str(package.folder), "--backend", TENSORRT, "--device", "1"]) == 130
    assert not list(package.engines_folder.rglob("*"))


def test_a_version_without_a_progress_monitor(
    package: Package, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorrt

    monkeypatch.delattr(tensorrt, "IProgressMonitor")
    (engine,) = build_engines(package, TENSORRT, parts=["stem"])
    assert dataclasses.asdict(engine)["size"] > 0
