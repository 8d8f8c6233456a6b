"""The pipeline's benchmark on a tiny package: what it says, not how fast it was."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_package import make_package

import benchmarks.pipeline
from benchmarks.pipeline import Round, main
from engines.build import build_engines

SIZE = (64, 96)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    package = make_package(tmp_path_factory.mktemp("package") / "small", SIZE)
    build_engines(package, "onnxruntime")
    return package.folder


def bench(package: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> dict[str, object]:
    monkeypatch.setattr(benchmarks.pipeline, "MOST", 40)
    arguments = ["--package", str(package), "--rounds", "2", "--seconds", "1", "--json", str(folder / "out.json")]
    monkeypatch.setattr("sys.argv", ["pipeline", *arguments, *more])
    assert main() == 0
    facts: dict[str, object] = json.loads((folder / "out.json").read_text())
    return facts


def test_what_it_says(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: object) -> None:
    facts = bench(package, tmp_path, monkeypatch)
    assert len(facts["rounds"]) == 2 and 12 <= facts["frames"] <= 40
    for each in facts["rounds"]:
        assert all(each[name] > 0 for name in ("decode", "compute", "encode", "pipeline", "two_sources"))
    assert facts["of_slowest"] > 0 and facts["two_sources_of_one"] > 0
    copies = {each["where"]: each["frames"] for each in facts["copies"]}
    third = pytest.approx(1 / 3)
    assert copies == {
        "frame resized to the engine's size": 0,
        "frame into the stem's input": 1,
        "split batches into the label map": third,
        "label map to the caller": third,
        "labels resized to the source's size": 0,
        "overlay to the encoder": 1,
        "overlay to YUV": 0.5,
    }


def test_a_source_of_another_size(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"mp4v"), 10, (192, 128))
    for index in range(40):
        writer.write(np.full((128, 192, 3), index, np.uint8))
    writer.release()
    facts = bench(package, tmp_path, monkeypatch, "--source", str(clip))
    copies = {each["where"]: each["frames"] for each in facts["copies"]}
    assert copies["frame resized to the engine's size"] == copies["frame into the stem's input"] == 0.25
    assert copies["labels resized to the source's size"] == pytest.approx(1 / 3)


def test_shares() -> None:
    each = Round(decode=100, compute=20, encode=50, pipeline=19, two_sources=18, peak_mib=None)
    assert (each.slowest, each.of_slowest, each.of_one_source) == ("compute", 0.95, pytest.approx(18 / 19))
