"""A plan that is refused is refused by `load_engine` before TensorRT sees it, in one sentence with the command."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from plans import RTX_3060, RTX_4090, VERSIONS, machine_facts, put_engines
from small_package import make_package

import engines.load
import engines.tensorrt_engine
from engines.cuda import CudaDevice
from engines.machine import Gpu
from engines.sidecar import read_sidecar, write_sidecar
from splitmerge.errors import EngineError
from splitmerge.package import Package


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the plan was handed on before its sidecar was believed")

    package = make_package(tmp_path / "p")
    put_engines(package, "tensorrt", "8.9")
    monkeypatch.setattr(engines.load, "choose_backend", lambda name: (name, "asked for"))
    monkeypatch.setattr(engines.load, "loaded_version", lambda name: VERSIONS[name])
    monkeypatch.setattr(engines.tensorrt_engine, "TensorRTEngine", refuse)
    return package


def load(package: Package, gpu: Gpu = RTX_4090) -> str:
    device = object.__new__(CudaDevice)  # nothing of it is used before the plan is believed
    device.gpu = gpu
    with pytest.raises(EngineError) as caught:
        engines.load.load_engine(package, "trunk", "tensorrt", device=device)
    return str(caught.value)


def tamper(package: Package, **changes: Any) -> Path:
    plan = package.engines_folder / "tensorrt-sm89-fp32" / "trunk.plan"
    write_sidecar(plan, replace(read_sidecar(plan), **changes))
    return plan


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"graph_sha256": "0" * 64}, "it was built from another graph"),
        ({"preprocessing_sha256": "0" * 64}, "another size or normalisation"),
        ({"engine_sha256": "0" * 64}, "the file was altered after it was built"),
        ({"version": "10.3.0"}, "the file was built with TensorRT 10.16.1.11 and its description says 10.3.0"),
        ({"backend": "tensorrt-rtx"}, "it is an engine for tensorrt-rtx, not for tensorrt"),
        ({"machine": {}}, "its description names no os"),
        ({"machine": machine_facts(None, "8.6")}, "ahead of time for compute capability 8.6"),
        ({"machine": machine_facts(replace(RTX_4090, multiprocessors=200))}, "200 multiprocessors"),
    ],
)
def test_one_sentence_with_the_command(package: Package, changes: dict[str, Any], words: str) -> None:
    plan = tamper(package, **changes)
    told = load(package)
    assert told.startswith(f"{plan} cannot be used, ") and words in told
    command = f"splitmerge build --package {package.folder} --backend tensorrt --precision fp32"
    assert told.endswith(f": build it again with `{command}`.")


def test_the_command_names_the_gpu(package: Package) -> None:
    assert "--backend tensorrt --device 1 --precision fp32" in load(package, RTX_3060)


def test_a_plan_that_was_changed(package: Package) -> None:
    plan = tamper(package)
    plan.write_bytes(plan.read_bytes()[:-1])
    assert "the file was altered after it was built" in load(package)
