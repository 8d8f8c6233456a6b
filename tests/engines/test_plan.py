"""A plan's header, and every reason why a plan is not for a GPU or a version, before TensorRT sees it."""

import platform
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from plans import HEADERS, RTX_3060, RTX_4090, VERSIONS, machine_facts
from small_package import make_package

from engines.build import build_engines
from engines.compiler import GpuOptions
from engines.machine import Gpu
from engines.plan import PlanHeader, description_refusal, plan_refusal, read_header
from engines.sidecar import Sidecar
from splitmerge.errors import EngineError

VERSION = VERSIONS["tensorrt"]
TENSORRT, REAL_RTX = HEADERS["tensorrt"], HEADERS["tensorrt-rtx"]


def sidecar(version: str = VERSION, backend: str = "tensorrt", **machine: Any) -> Sidecar:
    """What is written beside a plan that was built on an RTX 4090 here, with changes."""
    return Sidecar(
        backend=backend,
        version=version,
        part="trunk",
        precision="fp16",
        engine_sha256="0" * 64,
        graph_sha256="1" * 64,
        preprocessing_sha256="2" * 64,
        machine={**machine_facts(RTX_4090), **machine},
    )


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "trunk.plan"
    path.write_bytes(TENSORRT + bytes(100))
    return path


def refused(plan: Path, described: Sidecar, gpu: Gpu = RTX_4090, version: str = VERSION) -> str:
    reason = plan_refusal(plan, described, gpu, version)
    assert reason is not None, "the plan was not refused"
    return reason


def accepted(plan: Path, described: Sidecar, gpu: Gpu = RTX_4090, version: str = VERSION) -> bool:
    return plan_refusal(plan, described, gpu, version) is None


def test_headers(plan: Path) -> None:
    assert read_header(plan) == PlanHeader("tensorrt", (10, 16, 1, 11))
    plan.write_bytes(REAL_RTX)
    assert read_header(plan) == PlanHeader("tensorrt-rtx", (1, 7, 1, 116))
    plan.write_bytes(
        TENSORRT[:4] + b"\1" + TENSORRT[5:]
    )  # trtexec, too, reads no version from a layout it does not know
    assert read_header(plan) == PlanHeader("tensorrt", None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cut off after 0 bytes"),
        (TENSORRT[:27], "cut off after 27 bytes"),
        (b"\x08\x09\x12\x00" + bytes(60), "starts with b'.*plans start with b'ftrt'"),
    ],
)
def test_files_without_a_header(plan: Path, content: bytes, words: str) -> None:
    plan.write_bytes(content)
    with pytest.raises(EngineError, match=words) as caught:
        read_header(plan)
    assert str(plan) in str(caught.value)
    assert re.search(words, refused(plan, sidecar()))


def test_a_missing_file_is_said(plan: Path) -> None:
    plan.unlink()
    assert "cannot be read (No such file" in refused(plan, sidecar())
    with pytest.raises(EngineError, match="cannot be read"):
        read_header(plan)


def test_a_plan_that_tensorrt_rtx_builds_here(tmp_path: Path) -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason="pip install 'splitmerge[rtx]'")
    package = make_package(tmp_path / "p")
    for built in build_engines(package, "tensorrt-rtx", options=GpuOptions("8.9")):
        header = read_header(built.path)
        assert header.backend == "tensorrt-rtx"
        assert header.version == tuple(int(number) % 256 for number in rtx.__version__.split("."))
        described = sidecar(rtx.__version__, "tensorrt-rtx", gpu=None, multiprocessors=None, driver=None)
        assert accepted(built.path, described, RTX_4090, rtx.__version__)
        reason = refused(built.path, described, RTX_3060, rtx.__version__)
        assert "built ahead of time for compute capability 8.9" in reason
        assert "NVIDIA GeForce RTX 3060 (8.6, 28 multiprocessors)" in reason


def test_the_plan_of_this_gpu_and_version_is_accepted(plan: Path) -> None:
    assert accepted(plan, sidecar())
    assert accepted(plan, sidecar(), replace(RTX_4090, name="NVIDIA RTX 6000 Ada", multiprocessors=142))


def test_another_gpu_is_named_with_both_sides(plan: Path) -> None:
    reason = refused(plan, sidecar(), RTX_3060)
    assert "built on NVIDIA GeForce RTX 4090 (compute capability 8.9, 128 multiprocessors)" in reason
    assert "this GPU is NVIDIA GeForce RTX 3060 (8.6, 28 multiprocessors)" in reason


def test_fewer_multiprocessors_than_built_on(plan: Path) -> None:
    smaller = replace(RTX_4090, name="NVIDIA GeForce RTX 4060", multiprocessors=24)
    reason = refused(plan, sidecar(), smaller)
    assert "128 multiprocessors" in reason and "RTX 4060 (8.9, 24 multiprocessors)" in reason
    assert accepted(plan, sidecar(multiprocessors=24), smaller)
    assert accepted(plan, sidecar(gpu=None, multiprocessors=None), smaller)
    assert accepted(plan, sidecar(hardware_compatibility="same-compute-capability"), smaller)
    assert accepted(plan, sidecar(hardware_compatibility="ampere-plus"), smaller)


def test_ampere_plus_is_for_8_0_and_later(plan: Path) -> None:
    portable = sidecar(hardware_compatibility="ampere-plus", capability="8.6")
    for capability in ("8.0", "8.6", "8.9", "9.0", "10.0", "12.0"):
        assert accepted(plan, portable, replace(RTX_3060, capability=capability))
    reason = refused(plan, portable, Gpu("Tesla T4", "7.5", 40, "13.0", 0, 16 << 30))
    assert "for GPUs of compute capability 8.0 and later" in reason and "Tesla T4 (7.5, 40" in reason


def test_same_compute_capability_is_for_no_other(plan: Path) -> None:
    reason = refused(plan, sidecar(hardware_compatibility="same-compute-capability"), RTX_3060)
    assert "for GPUs of the same compute capability" in reason and "RTX 3060 (8.6, 28" in reason


@pytest.mark.parametrize("version", ["10.16.1.12", "10.3.0", "11.0.0.114", "unknown version"])
def test_another_version(plan: Path, version: str) -> None:
    reason = refused(plan, sidecar(), version=version)
    assert reason == f"it was built with TensorRT {VERSION} and {version} is installed"


def test_version_compatible_plans_run_on_later_versions_of_the_same_major_number(plan: Path) -> None:
    compatible = sidecar(version_compatible=True)
    assert accepted(plan, compatible, version=VERSION)
    assert accepted(plan, compatible, version="10.17.0.1")
    for version in ("10.3.0", "10.9.0.34", "11.0.0.114", "unknown version"):
        assert "later ones of the same major number" in refused(plan, compatible, version=version)
    assert "RTX 3060" in refused(plan, compatible, RTX_3060)  # that is about versions, not about GPUs


@pytest.mark.parametrize("changes", [{"os": "Windows"}, {"architecture": "abacus"}])
def test_another_system(plan: Path, changes: dict[str, str]) -> None:
    reason = refused(plan, sidecar(**changes))
    assert next(iter(changes.values())) in reason and f"this is {platform.system()} {platform.machine()}" in reason


def test_an_older_driver(plan: Path) -> None:
    reason = refused(plan, sidecar(), replace(RTX_4090, driver="12.8"))
    assert "driver for CUDA 13.0" in reason and "is for CUDA 12.8, which is older" in reason
    assert accepted(plan, sidecar(driver="13.1"))
    assert accepted(plan, sidecar(driver="12.8"))
    assert accepted(plan, sidecar(driver=None))
    assert accepted(plan, sidecar(driver="9.2"))  # numbers, not letters


def test_the_files_backend_must_be_the_sidecars(plan: Path) -> None:
    assert "a plan of TensorRT and its description says TensorRT-RTX" in refused(
        plan, sidecar("1.7.1.116", "tensorrt-rtx"), version="1.7.1.116"
    )
    plan.write_bytes(REAL_RTX)
    assert "a plan of TensorRT-RTX and its description says TensorRT" in refused(plan, sidecar())
    assert "an engine for onnxruntime, not a plan" in refused(plan, sidecar(backend="onnxruntime"))


def test_the_files_version_must_be_the_sidecars(plan: Path) -> None:
    reason = refused(plan, sidecar("10.3.0"), version="10.3.0")
    assert reason == "the file was built with TensorRT 10.16.1.11 and its description says 10.3.0"
    assert accepted(plan, sidecar("10.16.1"), version="10.16.1")  # a sidecar may leave out the build's number
    assert refused(plan, sidecar("newest")) == "its description has no version but 'newest'"
    plan.write_bytes(TENSORRT[:27] + bytes([300 % 256]))
    assert accepted(plan, sidecar("10.16.1.300"), version="10.16.1.300")


MACHINE_KEYS = tuple(sidecar().machine)


@pytest.mark.parametrize("key", MACHINE_KEYS)
def test_a_sidecar_that_leaves_something_out(plan: Path, key: str) -> None:
    whole = sidecar()
    lacking = replace(whole, machine={name: value for name, value in whole.machine.items() if name != key})
    assert refused(plan, lacking) == f"its description names no {key.replace('_', ' ')}"
    assert description_refusal(plan, lacking) == refused(plan, lacking)


_NO_TEXT: list[Any] = ["", None, 8.9, True, [], ["Linux"], {}]
_NO_PAIR: list[Any] = ["", "8", "8.9\n", "8.9.1", "-8.9", "sm89", 8.9, True, [], {}]
WRONG: dict[str, list[Any]] = {
    "os": _NO_TEXT,
    "architecture": _NO_TEXT,
    "gpu": [value for value in _NO_TEXT if value is not None],
    "capability": [*_NO_PAIR, None],
    "multiprocessors": [0, -1, 28.0, "28", True, [], {}],
    "driver": _NO_PAIR,
    "hardware_compatibility": ["", "all", None, True, 1, [], {}],
    "version_compatible": ["", "true", None, 0, 1, [], {}],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_sidecar_with_something_of_another_type(plan: Path, key: str, value: Any) -> None:
    assert WRONG.keys() == set(MACHINE_KEYS)
    assert refused(plan, sidecar(**{key: value})) == f"its description says {value!r} for {key.replace('_', ' ')}"
