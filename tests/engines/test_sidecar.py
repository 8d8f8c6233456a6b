"""An engine that is not for this package, machine or version is refused before its file is opened."""

import argparse
import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from small_package import make_package

import engines.load
import splitmerge.commands.build
from engines.build import build_engines
from engines.load import load_engine
from engines.sidecar import build_command, engine_folder, engine_folders, read_sidecar, refusal, write_sidecar
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


def test_altered_or_missing_weights_are_refused(tmp_path: Path) -> None:
    package = make_package(tmp_path / "wide", channels=64)
    build_engines(package)
    weights = sidecar(package).with_suffix(".weights")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(EngineError, match=r"trunk\.weights, which has its weights, was altered after it was built"):
        load_engine(package, "trunk")
    tamper(package, weights_sha256=None)
    with pytest.raises(EngineError, match=r"trunk\.weights, which has its weights, was altered after it was built"):
        load_engine(package, "trunk")
    build_engines(package)
    weights.rename(tmp_path / "elsewhere")
    with pytest.raises(EngineError, match=r"trunk\.weights, which has its weights, is missing"):
        load_engine(package, "trunk")
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineError, match="is a link, which ONNX Runtime may not follow"):
        load_engine(package, "trunk")
    tamper(package, weights_sha256=1)
    with pytest.raises(EngineError, match="its weights_sha256 is no text"):
        load_engine(package, "trunk")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"backend": 1}', "null", '"text"', "1"])
def test_a_sidecar_that_is_none_is_refused(package: Package, text: str) -> None:
    sidecar(package).write_text(text)
    with pytest.raises(EngineError, match="does not describe an engine"):
        load_engine(package, "trunk")


def test_a_package_exported_again_refuses_its_old_engines(package: Package, tmp_path: Path) -> None:
    other = make_package(tmp_path / "other", seed=1)
    package.engines_folder.rename(other.engines_folder)
    with pytest.raises(EngineError, match="built from another graph"):
        load_engine(other, "trunk")


@pytest.mark.parametrize(
    "name", ["backend", "version", "part", "precision", "engine_sha256", "graph_sha256", "preprocessing_sha256"]
)
@pytest.mark.parametrize("value", [None, 1, [], {}])
def test_a_sidecar_with_something_of_another_type(package: Package, name: str, value: object) -> None:
    tamper(package, **{name: value})
    with pytest.raises(EngineError, match=rf"trunk\.json does not describe an engine \(its {name} is no text\)"):
        load_engine(package, "trunk")


@pytest.mark.parametrize("name", ["machine", "build"])
@pytest.mark.parametrize("value", [None, 1, "text", []])
def test_a_sidecar_without_a_machine_or_build(package: Package, name: str, value: object) -> None:
    tamper(package, **{name: value})
    with pytest.raises(EngineError, match=f"it names no {name}"):
        load_engine(package, "trunk")


def test_a_part_that_the_package_does_not_have(package: Package) -> None:
    engine = sidecar(package).with_suffix(".onnx")
    tamper(package, part="branch")
    assert refusal(engine, read_sidecar(engine), package, "branch", "fp32") == "the package has no fp32 branch"


@pytest.mark.parametrize("backend", ["tensorrt-rtx", "onnxruntime", "abacus"])
def test_an_engine_in_another_backends_folder(package: Package, backend: str) -> None:
    """Its own description may be in order, so that nothing else would keep it from the wrong library."""
    tamper(package, backend=backend)
    folder = package.engines_folder / "tensorrt-sm89-fp32"
    (package.engines_folder / "onnxruntime-fp32").rename(folder)
    engine = folder / "trunk.onnx"
    reason = refusal(engine, read_sidecar(engine), package, "trunk", "fp32")
    assert reason == f"it is an engine for {backend}, not for tensorrt"
    write_sidecar(engine, replace(read_sidecar(engine), backend="tensorrt"))
    assert refusal(engine, read_sidecar(engine), package, "trunk", "fp32") is None


def test_folders_of_plans_are_named_by_capability(package: Package) -> None:
    assert engine_folder(package, "onnxruntime", "fp32") == package.engines_folder / "onnxruntime-fp32"
    folder = engine_folder(package, "tensorrt", "fp16", "8.9")
    assert folder == package.engines_folder / "tensorrt-sm89-fp16"
    assert engine_folder(package, "tensorrt-rtx", "int8", "12.0").name == "tensorrt-rtx-sm120-int8"
    for backend in ("tensorrt", "tensorrt-rtx"):
        with pytest.raises(ValueError, match="none was given"):
            engine_folder(package, backend, "fp16")


def test_folders_that_may_hold_an_engine(package: Package) -> None:
    for name in ("tensorrt-sm86-fp16", "tensorrt-sm89-fp16", "tensorrt-sm89-fp32", "tensorrt-rtx-sm89-fp16"):
        (package.engines_folder / name).mkdir()
    (package.engines_folder / ".tensorrt-sm89-fp16.abc.partial").mkdir()

    def names(*asked: str) -> list[str]:
        return [folder.name for folder in engine_folders(package, *asked)]

    assert names("tensorrt", "fp16") == ["tensorrt-sm86-fp16", "tensorrt-sm89-fp16"]
    assert names("tensorrt", "fp16", "8.9") == ["tensorrt-sm89-fp16", "tensorrt-sm86-fp16"]
    assert names("tensorrt", "fp16", "9.0") == ["tensorrt-sm86-fp16", "tensorrt-sm89-fp16"]
    assert names("tensorrt-rtx", "fp16", "8.9") == ["tensorrt-rtx-sm89-fp16"]
    assert names("onnxruntime", "fp32") == ["onnxruntime-fp32"]
    assert names("onnxruntime", "int8") == []


def test_the_command_that_builds_again(package: Package) -> None:
    start = f"splitmerge build --package {package.folder}"
    assert build_command(package, "onnxruntime", "fp32") == f"{start} --backend onnxruntime --precision fp32"
    # TensorRT needs the GPU there and is told its number; TensorRT-RTX does not, and is told its capability
    assert build_command(package, "tensorrt", "fp16", "8.9", 0) == f"{start} --backend tensorrt --precision fp16"
    expected = f"{start} --backend tensorrt --device 1 --precision fp16"
    assert build_command(package, "tensorrt", "fp16", "8.9", 1) == expected
    expected = f"{start} --backend tensorrt-rtx --compute-capability 8.9 --precision fp16"
    assert build_command(package, "tensorrt-rtx", "fp16", "8.9", 1) == expected
    assert build_command(package, "onnxruntime", "fp32", device=1) == build_command(package, "onnxruntime", "fp32")


def test_the_command_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    package = make_package(tmp_path / "my package's")
    words = shlex.split(build_command(package, "onnxruntime", "fp32"))
    assert words[words.index("--package") + 1] == str(package.folder)


def test_the_command_is_one_that_build_takes(package: Package) -> None:
    """Every option that the command may name is one of the verb's."""
    parser = argparse.ArgumentParser()
    splitmerge.commands.build.add_arguments(parser)
    for backend in ("onnxruntime", "tensorrt", "tensorrt-rtx"):
        words = shlex.split(build_command(package, backend, "fp16", "8.9", 1))
        assert words[:2] == ["splitmerge", "build"]
        parser.parse_args(words[2:])
