"""`benchmarks.deadline` on a tiny package: what its rows and its picture show, not how fast it was."""

import json
from pathlib import Path

import cv2
import pytest
from small_package import make_package

from benchmarks.deadline import HEIGHT, MARGIN, WIDTH, Row, draw, main
from engines.build import build_engines


def test_iou_against_milliseconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build_engines(make_package(tmp_path / "package", (64, 96)), "onnxruntime")
    out, picture = tmp_path / "out.json", tmp_path / "out.png"
    files = ["--json", str(out), "--picture", str(picture)]
    monkeypatch.setattr(
        "sys.argv", ["deadline", "--package", str(tmp_path / "package"), "--images", "2", "--steps", "3", *files]
    )
    assert main() == 0
    rows = json.loads(out.read_text())["rows"]
    deadlines = [row["deadline_ms"] for row in rows]
    assert deadlines == [0.001, *sorted(deadlines[1:-1]), 0.0] and len(rows) == 4
    assert rows[0]["split_batches"] == 1, "one is computed, however short the time"
    assert rows[-1]["split_batches"] == 16, "all of them without a deadline"
    assert all(0 <= row[score] <= 1 for row in rows for score in ("miou", "thin"))
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(rows)
    assert cv2.imread(str(picture)).shape == (HEIGHT, WIDTH, 3)


def test_the_curve_is_where_the_scores_are() -> None:
    """mIoU is drawn in blue: where the second of three rows lies, it rises with that row's score."""
    heights = []
    for score in (0.5, 0.9):
        image = draw([Row(0.001, 1, 10, 0.3, 0.1), Row(20, 8, 30, score, 0.2), Row(0, 16, 60, 0.95, 0.3)])
        blue = (image == (180, 110, 30)).all(2)
        heights.append(int(blue[:, MARGIN + int(30 / 63 * (WIDTH - 2 * MARGIN))].argmax()))
    assert 0 < heights[1] < heights[0] - 50


def test_a_package_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["deadline", "--package", str(tmp_path)])
    assert main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("deadline: ") and "is no package" in line
