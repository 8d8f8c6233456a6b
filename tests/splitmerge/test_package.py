"""A package is itself, whole, and of a format this version knows; or it is refused in words."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from splitmerge.errors import PackageError
from splitmerge.files import sha256_of
from splitmerge.labels import CITYSCAPES
from splitmerge.package import FORMAT, Cut, Graph, InputContract, Manifest, Package, TensorInfo


def graph(folder: Path, name: str) -> Graph:
    (folder / name).write_bytes(name.encode())
    info = TensorInfo("frames", "uint8", (None, 64, 96, 3))
    return Graph(name, sha256_of(folder / name), (info,), (TensorInfo("labels", "uint8", (None, 64, 96)),))


@pytest.fixture
def package(tmp_path: Path) -> Package:
    (tmp_path / "reference.safetensors").write_bytes(b"weights")
    manifest = Manifest(
        model="smp18",
        model_width=16,
        classes=CITYSCAPES,
        input=InputContract(60, 90, 64, 96, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        cut=Cut(2, 4, 4),
        graphs={"fp32": {part: graph(tmp_path, f"{part}.onnx") for part in ("model", "stem", "trunk")}},
        reference_sha256=sha256_of(tmp_path / "reference.safetensors"),
        versions={"splitmerge": "0.1.0"},
        verification={"model": {"agreement": 1.0}},
    )
    return Package.write_manifest(tmp_path, manifest)


def test_round_trip(package: Package) -> None:
    opened = Package.open(package.folder)
    assert opened.manifest == package.manifest
    assert opened.manifest.cut is not None and opened.manifest.cut.batches == 16
    assert opened.path(opened.parts("fp32")["stem"]) == package.folder / "stem.onnx"
    assert opened.manifest.preprocessing_sha256 == package.manifest.preprocessing_sha256
    moved = replace(package.manifest, input=replace(package.manifest.input, mean=(0.5, 0.5, 0.5)))
    assert moved.preprocessing_sha256 != package.manifest.preprocessing_sha256


def test_a_deployed_package_may_lack_the_reference(package: Package) -> None:
    package.reference_path.unlink()
    Package.open(package.folder)


def test_an_unknown_precision(package: Package) -> None:
    with pytest.raises(PackageError, match=r"no int8 graphs \(it has: fp32\)"):
        package.parts("int8")


def edit(package: Package, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    path = package.folder / "manifest.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: (p.folder / "trunk.onnx").write_bytes(b"another"), r"trunk\.onnx is not the file"),
        (lambda p: (p.folder / "trunk.onnx").unlink(), r"trunk\.onnx is missing"),
        (lambda p: p.reference_path.write_bytes(b"other"), r"reference\.safetensors is not the file"),
        (lambda p: (p.folder / "manifest.json").unlink(), "is no package"),
        (lambda p: (p.folder / "manifest.json").write_text("{"), "cannot be read as JSON"),
        (lambda p: (p.folder / "manifest.json").write_text("[]"), "names no format"),
        (lambda p: edit(p, lambda v: v.update(format=FORMAT + 1)), "update splitmerge"),
        (lambda p: edit(p, lambda v: v["input"].update(height=61)), "seal is broken"),
        (lambda p: edit(p, lambda v: v["classes"].reverse()), "seal is broken"),
    ],
)
def test_what_is_not_itself_is_refused(package: Package, damage: Callable[[Package], object], words: str) -> None:
    damage(package)
    with pytest.raises(PackageError, match=words):
        Package.open(package.folder)


@pytest.mark.parametrize("file", ["../secret.onnx", "/etc/passwd", "a/b.onnx", ".", "..", ""])
def test_a_manifest_cannot_point_outside_its_folder(package: Package, file: str) -> None:
    parts = package.manifest.graphs["fp32"]
    graphs = {"fp32": {**parts, "model": replace(parts["model"], file=file)}}
    Package.write_manifest(package.folder, replace(package.manifest, graphs=graphs))
    with pytest.raises(PackageError, match="lacks or misstates"):
        Package.open(package.folder)


@pytest.mark.parametrize("key", ["input", "classes", "graphs", "cut", "model"])
def test_a_sealed_manifest_of_another_shape(package: Package, key: str) -> None:
    path = package.folder / "manifest.json"
    for value in ([1], {"a": 1}, "text", 1):
        manifest = json.loads(path.read_text())
        del manifest["seal"]
        if key == "model":
            del manifest["model"]
        else:
            manifest[key] = value
        canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        manifest["seal"] = hashlib.sha256(canonical).hexdigest()
        (package.folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(PackageError, match="lacks or misstates"):
            Package.open(package.folder)
        Package.write_manifest(package.folder, package.manifest)
