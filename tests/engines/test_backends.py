"""What `auto` means, for every combination of what may be here. Machines are made up: nothing is imported."""

import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from plans import H200, HEADERS, RTX_3060, RTX_4090, VERSIONS, put_engines
from small_package import make_package

from engines import backends
from engines.backends import choose_backend, choose_backend_to_run, find_backends
from engines.machine import Gpu
from splitmerge.errors import EngineError, InputError
from splitmerge.package import Package

MODULES = {name.replace("-", "_"): version for name, version in VERSIONS.items()}
Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Make up a machine: `machine("tensorrt", "pycuda", gpus=[...])`."""

    def make(*modules: str, gpus: list[Gpu] | None = None) -> None:
        def version(distribution: str) -> str:
            name = distribution.replace("-cu13", "").replace("-", "_")
            if name not in modules:
                raise importlib.metadata.PackageNotFoundError(distribution)
            return MODULES[name]

        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in modules or None)
        monkeypatch.setattr(importlib.metadata, "version", version)
        monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace(__version__=MODULES[name]))
        answer = (gpus or [], [] if gpus else ["no NVIDIA driver is installed"])
        monkeypatch.setattr(backends, "ask_driver", lambda: answer)
        monkeypatch.setattr(backends, "find_gpus", lambda: answer[0])

    return make


ALL = ("onnxruntime", "tensorrt", "tensorrt_rtx", "pycuda")


@pytest.mark.parametrize(
    ("modules", "gpus", "expected", "why"),
    [
        (ALL, [RTX_4090], "tensorrt", "a GPU and all that it needs are here"),
        (ALL, [H200], "tensorrt", "a GPU"),
        (("onnxruntime", "tensorrt_rtx", "pycuda"), [RTX_4090], "tensorrt-rtx", "tensorrt: not installed"),
        (
            ("onnxruntime", "tensorrt_rtx", "pycuda"),
            [H200],
            "onnxruntime",
            "tensorrt-rtx: does not support NVIDIA H200 (9.0)",
        ),
        (("onnxruntime", "tensorrt"), [RTX_4090], "onnxruntime", "tensorrt: pycuda is not installed"),
        (ALL, [], "onnxruntime", "tensorrt: no NVIDIA driver is installed; tensorrt-rtx: no NVIDIA driver"),
        (("onnxruntime",), [RTX_4090], "onnxruntime", "tensorrt: not installed; tensorrt-rtx: not installed"),
        (("tensorrt", "pycuda"), [RTX_4090], "tensorrt", "a GPU"),
    ],
)
def test_auto_for_building(machine: Machine, modules: tuple[str], gpus: list[Gpu], expected: str, why: str) -> None:
    machine(*modules, gpus=gpus)
    chosen, reason = choose_backend("auto")
    assert chosen == expected
    assert why in reason


@pytest.mark.parametrize(
    ("capability", "runs"),
    [
        ("7.0", False),
        ("7.5", True),
        ("8.0", True),
        ("8.6", True),
        ("8.7", True),
        ("8.9", True),
        ("9.0", False),
        ("10.0", False),
        ("10.3", False),
        ("11.0", False),
        ("12.0", True),
        ("12.1", True),
    ],
)
def test_gpus_of_tensorrt_rtx(machine: Machine, capability: str, runs: bool) -> None:
    machine(*ALL, gpus=[Gpu("GPU", capability, 1, "13.0", 0, 1)])
    assert find_backends()["tensorrt-rtx"].runs == runs
    assert find_backends()["tensorrt"].runs


def test_what_builds_without_a_gpu(machine: Machine) -> None:
    machine(*ALL)
    found = find_backends()
    assert {name: backend.builds for name, backend in found.items()} == {
        "onnxruntime": True,
        "tensorrt": False,  # its builder needs the GPU
        "tensorrt-rtx": True,
    }
    assert {name: backend.runs for name, backend in found.items()} == {
        "onnxruntime": True,
        "tensorrt": False,
        "tensorrt-rtx": False,
    }


def test_how_to_install_tensorrt_depends_on_the_driver(machine: Machine) -> None:
    machine("onnxruntime", gpus=[H200])
    assert find_backends()["tensorrt"].install == "pip install tensorrt-cu12"
    machine("onnxruntime", gpus=[RTX_4090])
    assert find_backends()["tensorrt"].install == "pip install tensorrt-cu13"


def test_a_backend_that_is_asked_for(machine: Machine) -> None:
    machine("onnxruntime")
    assert choose_backend("onnxruntime") == ("onnxruntime", "asked for")
    with pytest.raises(EngineError, match="tensorrt is not installed: pip install"):
        choose_backend("tensorrt")
    with pytest.raises(InputError, match="choose auto or one of onnxruntime, tensorrt, tensorrt-rtx"):
        choose_backend("openvino")


def test_nothing_that_runs(machine: Machine) -> None:
    machine("tensorrt")
    with pytest.raises(EngineError, match="No backend that runs engines is installed: pip install onnxruntime"):
        choose_backend("auto")


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return make_package(tmp_path / "p")


class TestAutoForRunning:
    def test_the_best_backend_with_an_engine(self, machine: Machine, package: Package) -> None:
        machine(*ALL, gpus=[RTX_4090])
        put_engines(package, "onnxruntime")
        chosen, why = choose_backend_to_run(package, "auto", "fp32")
        assert chosen == "onnxruntime"
        assert why == "tensorrt: no fp32 engine in the package; tensorrt-rtx: no fp32 engine in the package"
        put_engines(package, "tensorrt-rtx", "8.9")
        assert choose_backend_to_run(package, "auto", "fp32")[0] == "tensorrt-rtx"
        put_engines(package, "tensorrt", "8.9")
        assert choose_backend_to_run(package, "auto", "fp32") == ("tensorrt", "a GPU and all that it needs are here")

    def test_another_gpus_engine_is_no_reason(self, machine: Machine, package: Package) -> None:
        machine(*ALL, gpus=[RTX_4090])
        put_engines(package, "onnxruntime")
        put_engines(package, "tensorrt", "8.6")
        chosen, why = choose_backend_to_run(package, "auto", "fp32")
        assert chosen == "onnxruntime"
        assert "tensorrt-sm86-fp32/stem.plan cannot be used, it was built ahead of time for compute capability" in why

    def test_a_hardware_compatible_engine_lies_in_another_folder(self, machine: Machine, package: Package) -> None:
        machine(*ALL, gpus=[RTX_4090])
        put_engines(package, "onnxruntime")
        put_engines(package, "tensorrt", "8.6", hardware_compatibility="ampere-plus")
        assert choose_backend_to_run(package, "auto", "fp32")[0] == "tensorrt"

    def test_an_engine_is_needed_on_every_device(self, machine: Machine, package: Package) -> None:
        machine(*ALL, gpus=[RTX_4090, RTX_3060])
        put_engines(package, "onnxruntime")
        put_engines(package, "tensorrt", "8.9")
        assert choose_backend_to_run(package, "auto", "fp32")[0] == "tensorrt"
        with pytest.raises(EngineError, match=r"names GPUs.*this GPU is NVIDIA GeForce RTX 3060.*splitmerge build"):
            choose_backend_to_run(package, "auto", "fp32", devices=(1,))
        with pytest.raises(EngineError, match=r"this GPU is NVIDIA GeForce RTX 3060.*splitmerge build"):
            choose_backend_to_run(package, "auto", "fp32", devices=(0, 1))
        put_engines(package, "tensorrt", "8.6")
        assert choose_backend_to_run(package, "auto", "fp32", devices=(0, 1))[0] == "tensorrt"
        with pytest.raises(EngineError, match=r"--devices 2 names GPUs.*tensorrt: no GPU 2 here"):
            choose_backend_to_run(package, "auto", "fp32", devices=(2,))

    def test_a_damaged_engine_is_not_passed_over(self, machine: Machine, package: Package) -> None:
        machine(*ALL, gpus=[RTX_4090])
        put_engines(package, "onnxruntime")
        folder = put_engines(package, "tensorrt", "8.9")
        (folder / "trunk.plan").write_bytes(HEADERS["tensorrt"] + b"more")
        with pytest.raises(EngineError, match=r"trunk.plan cannot be used, the file was altered.*splitmerge build"):
            choose_backend_to_run(package, "auto", "fp32")
        (folder / "trunk.json").unlink()
        with pytest.raises(EngineError, match="tensorrt-sm89-fp32 has no trunk"):
            choose_backend_to_run(package, "auto", "fp32")
        assert choose_backend_to_run(package, "onnxruntime", "fp32")[0] == "onnxruntime"

    def test_without_engines_it_is_what_building_takes(self, machine: Machine, package: Package) -> None:
        machine(*ALL, gpus=[RTX_4090])
        assert choose_backend_to_run(package, "auto", "fp32") == choose_backend("auto")

    def test_without_the_backend_its_engine_is_no_reason(self, machine: Machine, package: Package) -> None:
        machine("onnxruntime", "tensorrt", gpus=[RTX_4090])
        put_engines(package, "onnxruntime")
        put_engines(package, "tensorrt", "8.9")
        chosen, why = choose_backend_to_run(package, "auto", "fp32")
        assert chosen == "onnxruntime" and "tensorrt: pycuda is not installed" in why

    def test_what_is_asked_for_is_taken(self, machine: Machine, package: Package) -> None:
        machine(*ALL, gpus=[RTX_4090])
        assert choose_backend_to_run(package, "onnxruntime", "fp32") == ("onnxruntime", "asked for")
        with pytest.raises(InputError, match="There is no backend"):
            choose_backend_to_run(package, "openvino", "fp32")
