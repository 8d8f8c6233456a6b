"""What the verb refuses: exit code 2, one line that says why, and nothing left on the disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from export_samples import network
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from splitmerge.cli import main
from splitmerge.labels import CITYSCAPES
from training.checkpoint import save_checkpoint

Header = dict[str, Any]
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "best.safetensors"
    save_checkpoint(path, network("smp18"), "smp18", CITYSCAPES[:7])
    return path


def export(checkpoint: Path, folder: Path, size: str = "40x64", *more: str) -> int:
    return main(["export", "--checkpoint", str(checkpoint), f"--size={size}", "--package", str(folder), *more])


def edited(checkpoint: Path, path: Path, edit: Callable[[Header, Tensors], object]) -> Path:
    """A copy of a checkpoint whose header and tensors have gone through `edit`."""
    with safe_open(checkpoint, framework="pt") as file:
        header = json.loads(file.metadata()["splitmerge"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    edit(header, tensors)
    save_file(tensors, path, {"splitmerge": json.dumps(header)})
    return path


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == "" and line.startswith("splitmerge: ")
    return line


def nan(header: Header, tensors: Tensors) -> None:
    tensors["layer2.0.conv1.weight"][0, 0, 0, 0] = torch.nan


def infinite_norm(header: Header, tensors: Tensors) -> None:
    tensors["bn1.running_var"][0] = torch.inf


def other_architecture(header: Header, tensors: Tensors) -> None:
    header["model"] = "smp50"


def unknown_architecture(header: Header, tensors: Tensors) -> None:
    header["model"] = "resnet18"


def more_classes(header: Header, tensors: Tensors) -> None:
    header["classes"].append({"name": "bear", "rgb": [1, 2, 3]})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (nan, "NaN or infinite values in layer2.0.conv1.weight"),
        (infinite_norm, "NaN or infinite values in bn1.running_var"),
        (other_architecture, "does not hold a smp50"),
        (unknown_architecture, "no model named 'resnet18'"),
        (more_classes, "does not hold a smp18 of width 4 and 8 classes"),
    ],
)
def test_checkpoints_of_no_use(
    checkpoint: Path,
    tmp_path: Path,
    edit: Callable[[Header, Tensors], object],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = edited(checkpoint, tmp_path / "bad.safetensors", edit)
    assert export(bad, tmp_path / "made" / "package", "40x64", "--json", str(tmp_path / "also" / "e.json")) == 2
    line = error_line(capsys)
    assert message in line and "bad.safetensors" in line
    assert list(tmp_path.iterdir()) == [bad]


def test_missing_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(tmp_path / "none.safetensors", tmp_path / "made" / "package") == 2
    assert "There is no checkpoint" in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", ["31x64", "64x31", "16x16"])
def test_frames_smaller_than_a_window(
    checkpoint: Path, tmp_path: Path, size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(checkpoint, tmp_path / "made" / "package", size) == 2
    assert f"{size} are smaller than the 32x32" in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", ["40", "40x", "-4x64", "0x64", "40x64x3"])
def test_sizes_that_are_none(checkpoint: Path, tmp_path: Path, size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        export(checkpoint, tmp_path / "package", size)
    assert caught.value.code == 2
    assert f"argument --size: {size!r} is no size" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file/package", "Cannot write"),
        ("file/made/package", "Cannot write"),
        ("file", "is a file where a package is a folder"),
        ("/proc/splitmerge/package", "Cannot write"),
        ("n" * 300, "Cannot write"),
    ],
)
def test_folders_that_cannot_be_written(
    checkpoint: Path, tmp_path: Path, place: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert export(checkpoint, tmp_path / place) == 2
    assert message in error_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_json_that_cannot_be_written(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert export(checkpoint, tmp_path / "made" / "package", "40x64", "--json", str(tmp_path / "file" / "e.json")) == 2
    assert "Cannot write into" in error_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
