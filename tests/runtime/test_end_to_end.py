"""The verbs one after the other on a small network: export, build, render, run, compare."""

import json

import cv2
import numpy as np
import pytest
from clips import names

from splitmerge.cli import main

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A random SMP-18 of width 4 for frames of 64x96, exported and built."""
    from splitmerge.labels import CITYSCAPES
    from training.checkpoint import save_checkpoint
    from training.models import create_model

    folder = tmp_path_factory.mktemp("end-to-end")
    torch.manual_seed(0)
    save_checkpoint(folder / "a.safetensors", create_model("smp18", 19, 4), "smp18", CITYSCAPES)
    arguments = ["--checkpoint", str(folder / "a.safetensors"), "--size", "64x96", "--package", str(folder / "p")]
    assert main(["export", *arguments]) == 0
    assert main(["build", "--package", str(folder / "p"), "--backend", "onnxruntime"]) == 0
    return str(folder / "p")


def test_a_drive_is_segmented_as_pytorch_does(tmp_path, package):
    from pathlib import Path

    from runtime.reference import Reference
    from splitmerge.package import Package

    clip = str(tmp_path / "drive.mp4")
    assert main(["data", "render", "drive", "--frames", "4", "--size", "64x96", "--out", clip]) == 0
    outputs = [
        "--masks",
        f"{tmp_path}/masks",
        "--records",
        f"{tmp_path}/frames.jsonl",
        "--overlay",
        f"{tmp_path}/o.mp4",
    ]
    assert main(["run", clip, "--package", package, "--contexts", "2", "--chunk", "3", *outputs]) == 0
    assert names(tmp_path) == ["drive.mp4", "frames.jsonl", "masks", "o.mp4"]
    reference, capture = Reference(Package.open(Path(package))), cv2.VideoCapture(clip)
    for index in range(4):
        found = cv2.imread(f"{tmp_path}/masks/{index:06d}.png", cv2.IMREAD_UNCHANGED)
        expected = reference.segment(np.asarray(capture.read()[1]))
        assert (found == expected).mean() > 0.999
    records = [json.loads(line) for line in (tmp_path / "frames.jsonl").read_text().splitlines()]
    assert [record["split_batches"] for record in records] == [16] * 4
    assert all(record["compute_ms"] >= record["trunk_ms"] > 0 for record in records)


def test_the_engine_scores_what_pytorch_scores(tmp_path, package):
    arguments = ["--package", package, "--data", "drive:7", "--images", "3", "--json", f"{tmp_path}/c.json"]
    assert main(["compare", *arguments, "--contexts", "2"]) == 0
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["pixel_agreement"] > 0.999
    assert found["engine"]["miou"] == pytest.approx(found["reference"]["miou"], abs=1e-3)
    assert found["boundary_iou"]["engine"] == pytest.approx(found["boundary_iou"]["reference"], abs=1e-3)
