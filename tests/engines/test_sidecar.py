"""An engine that is not for this package, machine or version is refused before its file is opened."""

import json
from pathlib import Path

import pytest
from small_package import make_package

import engines.load
from engines.build import build_engines
from engines.load import load_engine
from splitmerge.errors import EngineError
from splitmerge.package import Package


@pytest.fixture(autouse=True)
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the engine was opened before its sidecar was believed")

    monkeypatch.setattr(engines.load, "OnnxRuntimeEngine", refuse)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    package = make_package(tmp_path / "p")
    build_engines(package)
    return package


def sidecar(package: Package) -> Path:
    return package.engines_folder / "onnxruntime-fp32" / "trunk.json"


def tamper(package: Package, **changes: object) -> None:
    path = sidecar(package)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


MACHINE = {"architecture": "x86_64", "cpu_features": "avx"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine_sha256": "0" * 64}, "was altered after it was built"),
        ({"graph_sha256": "0" * 64}, "built from another graph"),
        ({"preprocessing_sha256": "0" * 64}, "another size or normalisation"),
        ({"version": "1.0.0"}, "built with ONNX Runtime 1.0.0 and"),
        ({"machine": {**MACHINE, "architecture": "abacus"}}, r"another architecture \(abacus\)"),
        ({"machine": {}}, "another architecture"),
        ({"part": "stem"}, "it is a fp32 stem and a fp32 trunk is expected"),
        ({"precision": "int8"}, "it is a int8 trunk"),
        ({"backend": "tensorrt"}, "an engine for tensorrt, not for onnxruntime"),
        ({"format": 99}, "format 99"),
    ],
)
def test_each_field_is_checked(package: Package, changes: dict[str, object], words: str) -> None:
    tamper(package, **changes)
    with pytest.raises(EngineError, match=words) as caught:
        load_engine(package, "trunk")
    assert f"splitmerge build --package {package.folder} --backend onnxruntime --precision fp32" in str(caught.value)


def test_vector_units_are_checked(package: Package) -> None:
    machine = json.loads(sidecar(package).read_text())["machine"]
    tamper(package, machine={**machine, "cpu_features": "avx"})
    with pytest.raises(EngineError, match="another cpu features"):
        load_engine(package, "trunk")


def test_an_altered_or_missing_engine_is_refused(package: Package) -> None:
    engine = sidecar(package).with_suffix(".onnx")
    engine.write_bytes(engine.read_bytes() + b"x")
    with pytest.raises(EngineError, match="was altered after it was built"):
        load_engine(package, "trunk")
    engine.unlink()
    with pytest.raises(EngineError, match="the file is missing"):
        load_engine(package, "trunk")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"backend": 1}', "null"])
def test_a_sidecar_that_is_none_is_refused(package: Package, text: str) -> None:
    sidecar(package).write_text(text)
    with pytest.raises(EngineError, match="does not describe an engine"):
        load_engine(package, "trunk")


def test_a_package_exported_again_refuses_its_old_engines(package: Package, tmp_path: Path) -> None:
    other = make_package(tmp_path / "other", seed=1)
    package.engines_folder.rename(other.engines_folder)
    with pytest.raises(EngineError, match="built from another graph"):
        load_engine(other, "trunk")
