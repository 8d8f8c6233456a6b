"""The forms that real files come in, against ffmpeg's own decoding of them: turned, odd, gray, deep, late, uneven."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from clips import Threshold, write_package
from probing import probe
from senders import ffmpeg_path

import splitmerge.commands.run
from runtime.sources import open_source, silence_decoder
from splitmerge.cli import main

silence_decoder()

TEST = "testsrc2=size=160x96:rate=10:duration=1"
SOME = f"{TEST},select=not(mod(n\\,3)*mod(n\\,4))"
FORMS = {
    "turned-90.mp4": (TEST, "turn", 90),
    "turned-180.mp4": (TEST, "turn", 180),
    "turned-270.mov": (TEST, "turn", 270),
    "odd.mkv": (f"{TEST},scale=131:71,format=yuv444p", "-c:v", "libx264"),
    "gray.mkv": (TEST, "-pix_fmt", "gray", "-c:v", "ffv1"),
    "gray-h264.mp4": (TEST, "-pix_fmt", "gray", "-c:v", "libx264"),
    "deep-gray.mkv": (TEST, "-pix_fmt", "gray16le", "-c:v", "ffv1"),
    "ten-bits.mp4": (TEST, "-pix_fmt", "yuv420p10le", "-c:v", "libx264"),
    "palette.gif": (TEST,),
    "transparent.webm": (TEST, "-pix_fmt", "yuva420p", "-c:v", "libvpx-vp9"),
    "wide-pixels.mp4": (f"{TEST},setsar=2", "-c:v", "libx264"),
    "late.ts": (TEST, "-c:v", "libx264", "-output_ts_offset", "500"),
    "uneven.mp4": (SOME, "-fps_mode", "vfr", "-c:v", "libx264"),
    "uneven.mkv": (SOME, "-fps_mode", "vfr", "-c:v", "libx264"),
    "uneven.avi": (SOME, "-fps_mode", "passthrough", "-enc_time_base", "1/10", "-c:v", "mjpeg"),
    "reordered.mp4": (TEST, "-c:v", "libx264", "-bf", "3"),
    "edit-list.mp4": (TEST, "-c:v", "libx264", "-bf", "2", "-ss", "0.35"),
}


def _ffmpeg(*arguments):
    command = [ffmpeg_path(), "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, timeout=60, capture_output=True).stdout


def make_form(folder, name):
    source, *how = FORMS[name]
    if how[:1] == ["turn"]:
        _ffmpeg("-f", "lavfi", "-i", source, "-c:v", "libx264", "-pix_fmt", "yuv420p", folder / "straight.mp4")
        _ffmpeg("-display_rotation", how[1], "-i", folder / "straight.mp4", "-c", "copy", folder / name)
    else:
        _ffmpeg("-f", "lavfi", "-i", source, *how, folder / name)
    return folder / name


def decoded(path, size):
    """What ffmpeg itself makes of a video: frames uint8 [N,H,W,3], each once, turned as it is to be seen."""
    raw = _ffmpeg("-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "bgr24", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, *size, 3)


@pytest.mark.parametrize("name", FORMS)
def test_frames_and_times_are_those_that_ffmpeg_sees(tmp_path, name):
    path = make_form(tmp_path, name)
    source = open_source(str(path))
    frames = list(source)
    straight = (71, 131) if name == "odd.mkv" else (96, 160)
    assert source.size == (straight[::-1] if name in ("turned-90.mp4", "turned-270.mov") else straight)
    expected = decoded(path, source.size)
    assert len(frames) == len(expected) and source.missing_frames == 0
    for frame, picture in zip(frames, expected, strict=True):
        assert np.abs(frame.frame_bgr.astype(int) - picture).mean() < 6
        assert np.abs(frame.frame_bgr[::-1, ::-1].astype(int) - picture).mean() > 20, "the comparison can tell"
    _, times = probe(path)
    np.testing.assert_allclose([frame.time_s for frame in frames], np.subtract(times, times[0]), atol=2e-3)


@pytest.mark.parametrize("name", ["turned-90.mp4", "odd.mkv", "wide-pixels.mp4", "late.ts", "gray.mkv"])
def test_overlays_of_such_files(tmp_path, name, monkeypatch):
    monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda *_: Threshold())
    write_package(tmp_path / "package")
    path, overlay = make_form(tmp_path, name), tmp_path / "o.mp4"
    outputs = ["--overlay", str(overlay), "--alpha", "0", "--masks", str(tmp_path / "masks")]
    assert main(["run", str(path), "--package", str(tmp_path / "package"), *outputs]) == 0
    source = open_source(str(path))
    height, width = source.size
    stream, times = probe(overlay)
    assert (stream["height"], stream["width"]) == (height + height % 2, width + width % 2)
    assert times == pytest.approx([i / 10 for i in range(10)], abs=2e-3)
    assert cv2.imread(str(tmp_path / "masks/000003.png"), cv2.IMREAD_UNCHANGED).shape == source.size
    shown = decoded(overlay, (stream["height"], stream["width"]))[:, :height, :width]
    for frame, picture in zip(source, shown, strict=True):
        assert np.abs(frame.frame_bgr.astype(int) - picture).mean() < 12


def test_interlaced_video_is_not_passed_off_as_seen(tmp_path, monkeypatch, capfd):
    """OpenCV's FFmpeg cannot convert it and gives what lies in memory: it is refused, or without PyAV it is told."""
    _ffmpeg("-f", "lavfi", "-i", TEST, "-c:v", "mpeg2video", "-flags", "+ildct+ilme", tmp_path / "a.ts")
    monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda *_: Threshold())
    write_package(tmp_path / "package")
    arguments = ["run", str(tmp_path / "a.ts"), "--package", str(tmp_path / "package")]
    pytest.importorskip("av", reason="needs PyAV: pip install av")
    assert main(arguments) == 2
    assert "a.ts is interlaced, and OpenCV cannot convert such frames: give it whole lines" in capfd.readouterr().err
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(arguments) == 0
    assert "All frames of" in capfd.readouterr().err
