"""From a checkpoint file to a package folder, and the verb that does it."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export_samples import MEAN, STD, check_labels, network, noise, normalised

from export.package import export_package
from splitmerge.cli import main
from splitmerge.errors import InputError
from splitmerge.labels import CITYSCAPES
from splitmerge.package import Cut, InputContract, Package
from training.checkpoint import save_checkpoint

SIZE = (40, 64)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "best.safetensors"
    save_checkpoint(path, network("smp18"), "smp18", CITYSCAPES[:7], mean=MEAN, std=STD)
    return path


@pytest.fixture(scope="module")
def package(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    return export_package(checkpoint, SIZE, tmp_path_factory.mktemp("package") / "smp18", logits=True)


def test_package_is_whole(package: Package, checkpoint: Path) -> None:
    assert Package.open(package.folder) == package
    files = {path.name for path in package.folder.iterdir()}
    assert files == {"manifest.json", "model.onnx", "stem.onnx", "trunk.onnx", "reference.safetensors"}
    assert package.reference_path.read_bytes() == checkpoint.read_bytes()
    for graph in package.parts("fp32").values():
        onnx.checker.check_model(str(package.path(graph)), full_check=True)


def test_manifest(package: Package) -> None:
    manifest = package.manifest
    assert manifest.input == InputContract(40, 64, 64, 64, MEAN, STD)
    assert manifest.cut == Cut(2, 4, 4)
    assert (manifest.model, manifest.model_width, manifest.classes) == ("smp18", 4, CITYSCAPES[:7])
    assert {"torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "splitmerge"} == set(manifest.versions)
    parts = package.parts("fp32")
    ends = {
        part: {info.name: (info.dtype, info.shape) for info in (*graph.inputs, *graph.outputs)}
        for part, graph in parts.items()
    }
    frames, features = ("uint8", (None, 40, 64, 3)), ("float32", (None, 4, 16, 16))
    assert ends == {
        "model": {"frames": frames, "labels": ("uint8", (None, 40, 64)), "logits": ("float32", (None, 7, 40, 64))},
        "stem": {"frames": frames, "features": features},
        "trunk": {
            "features": features,
            "labels": ("uint8", (None, 16, 16)),
            "logits": ("float32", (None, 7, 16, 16)),
        },
    }
    assert [row["compared"] for row in manifest.verification["comparisons"]][1:] == ["model", "stem + trunk"]


def test_files_compute_what_the_checkpoint_computes(package: Package) -> None:
    frames = noise(1, *SIZE)
    path = package.path(package.parts("fp32")["model"])
    labels, logits = onnxruntime.InferenceSession(str(path)).run(["labels", "logits"], {"frames": frames})
    with torch.no_grad():
        expected = network("smp18")(normalised(frames)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    check_labels(labels, expected)


def test_verb_replaces_a_package_and_says_what_it_wrote(
    checkpoint: Path, package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "deployed"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    (folder / "left-over.plan").write_text("from the package before")
    report = tmp_path / "export.json"
    options = ["--checkpoint", str(checkpoint), "--size", "40x64", "--package", str(folder), "--json", str(report)]
    assert main(["export", *options, "--cut", "0"]) == 0
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "model.onnx", "reference.safetensors"}
    assert Package.open(folder).manifest.cut is None
    printed = capsys.readouterr().out
    assert "model.onnx" in printed and "21 Conv" in printed and "verified against PyTorch" in printed
    written = json.loads(report.read_text())
    assert written["graphs"]["model"]["operators"]["Conv"] == 21
    assert written["verification"] == Package.open(folder).manifest.verification


def verb(checkpoint: Path, folder: Path, size: str = "40x64", *more: str) -> int:
    return main(["export", "--checkpoint", str(checkpoint), "--size", size, "--package", str(folder), *more])


def test_a_folder_of_something_else_is_left_alone(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is no package"):
        export_package(checkpoint, SIZE, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_level_that_is_not_there_writes_nothing(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb(checkpoint, tmp_path / "new", "40x64", "--cut", "6") == 2
    assert "levels 1 to 5" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
