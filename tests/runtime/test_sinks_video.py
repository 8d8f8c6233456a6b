"""Video files judged by FFmpeg's own program, another build than the one that wrote them."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import SIZE, Threshold, names, number_of, numbered_frame, write_clip, write_package

import splitmerge.commands.run
from runtime.video_writer import encoder_for, fallback_note, video_file
from splitmerge.cli import main
from splitmerge.errors import InputError

ROOT = Path(__file__).parents[2]
needs_av = pytest.mark.skipif(encoder_for(Path("a.mp4")) is None, reason="PyAV is missing: pip install av")
CODECS = {".mp4": "h264", ".m4v": "h264", ".mov": "h264", ".mkv": "h264", ".webm": "vp9"}


def _ffmpeg(*arguments):
    """Run FFmpeg's program; give what it wrote and what it said."""
    imageio = pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is missing: pip install imageio-ffmpeg")
    command = [imageio.get_ffmpeg_exe(), "-hide_banner", *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.stdout, done.stderr.decode(errors="replace")


def _judged(path):
    """Codec, pixel format, numbers and times in seconds of the frames, as FFmpeg decodes them."""
    said = _ffmpeg("-i", str(path))[1]
    codec, pixels = re.search(r"Video: (\w+).*?, (\w+)\(", said).groups()
    height, width = map(int, re.search(r", (\d+)x(\d+)", said).groups()[::-1])
    raw, errors = _ffmpeg("-v", "error", "-i", str(path), *_EACH, "-f", "rawvideo", *_BGR, "-")
    frames = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
    table = _ffmpeg("-v", "error", "-i", str(path), *_EACH, "-f", "framemd5", "-")[0]
    unit = _ratio(re.search(rb"#tb 0: (\d+)/(\d+)", table).groups())
    lines = [line for line in table.decode().splitlines() if not line.startswith("#")]
    times = [int(line.split(",")[2]) * unit for line in lines]
    return codec, pixels, [number_of(frame) for frame in frames], times, errors


_BGR = ("-pix_fmt", "bgr24")
_EACH = ("-fps_mode", "passthrough", "-copyts", "-enc_time_base", "1:90000")


def _ratio(parts):
    return int(parts[0]) / int(parts[1])


@needs_av
@pytest.mark.parametrize("suffix", CODECS)
def test_a_browser_would_play_it_and_frames_keep_their_times(tmp_path, suffix):
    times = np.cumsum([7.0, *[0.04, 0.1, 0.033, 0.5] * 10])  # a variable rate that begins at 7 s
    path = tmp_path / f"out{suffix}"
    with video_file(path, SIZE, 10) as write:
        for index, time_s in enumerate(times):
            write(numbered_frame(index), time_s)
    codec, pixels, numbers, shown, errors = _judged(path)
    assert (codec, pixels, errors) == (CODECS[suffix], "yuv420p", "")
    assert numbers == list(range(len(times)))
    tick = 0.0005 if suffix in (".mkv", ".webm") else 1 / 90000
    np.testing.assert_allclose(shown, times - 7, atol=1.01 * tick)


@needs_av
def test_times_that_stand_still_are_moved_on(tmp_path):
    with video_file(tmp_path / "out.mp4", SIZE, 10) as write:
        for index, time_s in enumerate([0.0, 1.0, 1.0, 0.5, 2.0]):
            write(numbered_frame(index), time_s)
    _, _, numbers, shown, _ = _judged(tmp_path / "out.mp4")
    assert numbers == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(shown, [0, 1, 1, 1, 2], atol=1e-4)
    assert (np.diff(shown) > 0).all()


@needs_av
def test_colours_come_back_as_they_went_in(tmp_path):
    """The matrix is said in the file: read wrongly, green would be off by about 20."""
    frame_bgr = np.zeros((*SIZE, 3), np.uint8)
    frame_bgr[:] = (60, 200, 30)
    with video_file(tmp_path / "out.mp4", SIZE, 10) as write:
        write(frame_bgr)
    said = _ffmpeg("-i", str(tmp_path / "out.mp4"))[1]
    assert "smpte170m" in said
    raw = _ffmpeg("-v", "error", "-i", str(tmp_path / "out.mp4"), "-f", "rawvideo", *_BGR, "-")[0]
    np.testing.assert_allclose(np.frombuffer(raw, np.uint8).reshape(-1, 3).mean(axis=0), (60, 200, 30), atol=4)


_WRITER = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = ["tests/runtime"]
from clips import SIZE, numbered_frame
from runtime.video_writer import video_file
with video_file(Path(sys.argv[1]), SIZE, 10) as write:
    for index in range(100):
        write(numbered_frame(index))
    {end}
"""


def _write_elsewhere(path, end):
    command = [sys.executable, "-c", _WRITER.format(end=end), str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@needs_av
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_a_killed_process_leaves_a_file_that_plays(tmp_path, suffix):
    done = _write_elsewhere(tmp_path / f"out{suffix}", "os.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert ".partial" in left.name
    _, _, numbers, shown, _ = _judged(left)
    assert len(numbers) >= 65 and numbers == list(range(len(numbers)))
    np.testing.assert_allclose(shown, np.arange(len(numbers)) / 10, atol=0.001)


@needs_av
def test_a_disk_that_takes_no_more_is_one_sentence(tmp_path):
    """The system's own limit on a file's size, which ends a write as a full disk does."""
    resource = pytest.importorskip("resource", reason="limits on a file's size are POSIX")
    assert resource
    script = _WRITER.format(end="pass").replace(
        "with video", "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\nwith video"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out.mp4")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert "out.mp4 cannot be written (File too large): make room on its disk." in last
    assert last.startswith("splitmerge.errors.InputError: ")
    assert not names(tmp_path)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi"])
def test_a_video_without_frames_is_a_file(tmp_path, suffix):
    if suffix != ".avi" and encoder_for(Path("a.mp4")) is None:
        pytest.skip("PyAV is missing: pip install av")
    with video_file(tmp_path / f"out{suffix}", SIZE, 10):
        pass
    assert names(tmp_path) == [f"out{suffix}"]


@needs_av
def test_a_frame_of_another_size_is_refused(tmp_path):
    with (
        pytest.raises(InputError, match="begun with frames of 64x128 and got one of 8x8"),
        video_file(tmp_path / "out.mp4", SIZE, 10) as write,
    ):
        write(numbered_frame(0))
        write(np.zeros((8, 8, 3), np.uint8))
    assert not names(tmp_path)


@needs_av
def test_an_encoder_that_does_not_open_is_an_error(tmp_path):
    with (
        pytest.raises(InputError, match=r"out\.mp4 cannot be encoded.*65x128"),
        video_file(tmp_path / "out.mp4", (65, 128), 10),
    ):
        pass
    assert not names(tmp_path)


@pytest.fixture
def no_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)  # importing it fails then


@needs_av
def test_with_pyav_there_is_nothing_to_say():
    assert all(fallback_note(Path(f"a{suffix}")) is None for suffix in (*CODECS, ".avi", ".gif"))


def test_without_pyav_opencv_writes_what_it_can_and_one_line_says_so(tmp_path, no_pyav):
    path = tmp_path / "out.mp4"
    assert "which browsers do not play" in fallback_note(path) and "pip install av" in fallback_note(path)
    assert fallback_note(tmp_path / "out.avi") is None
    with video_file(path, SIZE, 10) as write:
        for index in range(3):
            write(numbered_frame(index), index * 1.5)
    capture = cv2.VideoCapture(str(path))
    assert [number_of(capture.read()[1]) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match=r"\.webm needs PyAV"), video_file(tmp_path / "out.webm", SIZE, 10):
        pass


def test_a_run_without_pyav_says_so_in_a_line(tmp_path, no_pyav, monkeypatch, capfd):
    monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda package, arguments: Threshold())
    write_package(tmp_path / "package")
    clip, video = write_clip(tmp_path / "in.mp4", 3), tmp_path / "o.mp4"
    assert main(["run", str(clip), "--package", str(tmp_path / "package"), "--overlay", str(video)]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    assert len([line for line in said.out.splitlines() if line.startswith(f"{video} will be MPEG-4 part 2")]) == 1
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == 3


@pytest.mark.parametrize("name", ["out.gif", "out"])
def test_a_video_needs_an_ending_with_a_codec(tmp_path, name):
    with pytest.raises(InputError, match=r"end its name in \.mp4"), video_file(tmp_path / name, SIZE, 10):
        pass
    assert not names(tmp_path)


def test_an_opencv_codec_that_does_not_open_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2.VideoWriter, "isOpened", lambda self: False)
    with (
        pytest.raises(InputError, match=r"out\.avi cannot be encoded.*64x128"),
        video_file(tmp_path / "out.avi", SIZE, 10),
    ):
        pass
    assert not names(tmp_path)


def test_an_opencv_video_that_did_not_become_whole_is_an_error(tmp_path, no_pyav):
    # As on a full disk: OpenCV's encoder takes every frame and says nothing.
    with (
        pytest.raises(InputError, match="whole video of 3 frames"),
        video_file(tmp_path / "out.mp4", SIZE, 10) as write,
    ):
        for index in range(3):
            write(numbered_frame(index) if index == 0 else np.zeros((8, 8, 3), np.uint8))
    assert not names(tmp_path)
