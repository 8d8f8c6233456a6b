"""Rows of docs/faults.md that no other test has: each fault is a real one, and what is promised is asserted."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import SIZE, Threshold, names, number_of, write_clip, write_package
from probing import probe
from senders import ffmpeg_path
from servers import make_streams
from test_resume import contents

import splitmerge.commands.run
from runtime import connection
from runtime.live import Limits, LiveSource
from runtime.pipeline import run_pipeline
from runtime.sources import VideoSource, silence_decoder
from splitmerge.cli import main

ROOT = Path(__file__).parents[2]

silence_decoder()


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    return make_streams(tmp_path_factory.mktemp("streams"))


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Runs a source with every output into out/; gives the exit code, the lines on stderr and the records."""
    monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda *_: Threshold())
    write_package(tmp_path / "package")

    def go(source, out=None):
        out = out or tmp_path / "out"
        outputs = ["--overlay", f"{out}/o.mp4", "--records", f"{out}/r.jsonl", "--masks", f"{out}/masks"]
        code = main(["run", str(source), "--package", str(tmp_path / "package"), *outputs])
        records = (out / "r.jsonl").read_text().splitlines() if (out / "r.jsonl").exists() else []
        return code, capfd.readouterr().err.splitlines(), [json.loads(line) for line in records]

    return go


@pytest.mark.parametrize("name", ["film.jpg.mp4", "film.ts", "film"])
def test_a_wrong_extension_does_not_matter_to_a_video(tmp_path, run, name):
    code, said, records = run(write_clip(tmp_path / "a.avi", 12).rename(tmp_path / name))
    assert (code, said, len(records)) == (0, [], 12)


def test_a_video_that_is_called_an_image_is_refused_by_name(tmp_path, run):
    code, said, _ = run(write_clip(tmp_path / "a.mp4").rename(tmp_path / "a.png"))
    assert code == 2 and len(said) == 1 and "a.png" in said[0]
    assert "out" not in names(tmp_path)


def test_a_codec_that_nobody_knows_is_refused_by_name(tmp_path, run):
    clip = write_clip(tmp_path / "a.avi")
    clip.write_bytes(clip.read_bytes().replace(b"MJPG", b"ZZZZ"))
    code, said, _ = run(clip)
    assert code == 2 and len(said) == 1
    assert re.search(r"a\.avi (has no frame that can be decoded|is not a video that can be opened)", said[0])
    assert "out" not in names(tmp_path)


@pytest.mark.parametrize("name", ["clip.ts", "clip.mp4", "clip.avi"])
def test_corrupt_packets_cost_frames_and_not_the_run(streams, tmp_path, run, name):
    """Bytes in the middle are turned over: what can be decoded is done, in order and in step in all outputs."""
    data, dice = bytearray((streams / name).read_bytes()), random.Random(3)
    middle = range(len(data) // 4, len(data) * 3 // 4)
    for _ in range(40):
        data[dice.choice(middle)] ^= 0xFF
    (tmp_path / name).write_bytes(data)
    code, said, records = run(tmp_path / name)
    decodable = len(probe(tmp_path / name)[1])
    assert 150 <= decodable <= 200 and abs(len(records) - decodable) <= 2, "ffprobe's decoder gets no further"
    assert [record["frame"] for record in records] == list(range(len(records)))
    assert len(names(tmp_path / "out/masks")) == len(records)
    assert cv2.VideoCapture(str(tmp_path / "out/o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == len(records)
    masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((tmp_path / "out/masks").iterdir())]
    numbers = [number_of(mask) for mask in masks]
    assert numbers[:40] == list(range(40)) and numbers[-1] == 199, "before and after the damage all is well"
    if name != "clip.ts" and len(records) < 200:  # MPEG-TS does not count them
        assert code == 2 and f"promises 200 frames and {len(records)} could be decoded" in said[0]


def test_a_stream_without_a_key_frame_is_refused(streams, tmp_path, run):
    """Of H.264 all but the first picture, which is the only one that can be begun with."""
    long = tmp_path / "long.h264"
    command = ["-y", "-v", "error", "-i", streams / "clip.mp4", "-c:v", "libx264", "-g", 999, "-bf", 0, "-f", "h264"]
    subprocess.run([ffmpeg_path(), *map(str, command), long], check=True)
    units = re.split(rb"(?=\x00\x00\x01)", long.read_bytes())
    units = [unit for unit in units if unit[:3] == b"\0\0\1" and unit[3] & 31 == 1]  # slices that are no key frame's
    assert len(units) > 150
    (tmp_path / "headless.h264").write_bytes(b"".join(units))
    code, said, _ = run(tmp_path / "headless.h264")
    assert code == 2 and len(said) == 1 and "headless.h264" in said[0]
    assert "out" not in names(tmp_path)


def test_an_endless_pipe_ends_with_the_frames_that_were_asked_for(streams, tmp_path):
    write_package(tmp_path / "package")
    script = (
        "import sys; sys.path.insert(0, 'tests/runtime')\n"
        "import splitmerge.commands.run\n"
        "from clips import Threshold\n"
        "splitmerge.commands.run.open_executor = lambda *_: Threshold()\n"
        "from splitmerge.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    endless = [
        ffmpeg_path(),
        "-v",
        "quiet",
        "-nostdin",
        "-stream_loop",
        "-1",
        "-i",
        str(streams / "clip.ts"),
        "-c",
        "copy",
    ]
    arguments = ["run", "-", "--package", str(tmp_path / "package"), "--frames", "250"]
    with subprocess.Popen([*endless, "-f", "mpegts", "-"], stdout=subprocess.PIPE) as sender:
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments, "--records", str(tmp_path / "r.jsonl")],
            cwd=ROOT, stdin=sender.stdout, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        sender.stdout.close()
        sender.wait(30)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 250


@pytest.fixture
def read_only(tmp_path):
    """A folder that nothing can be written into, not even by root."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    if os.geteuid():
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_folder_is_told_before_any_work(tmp_path, run, read_only, monkeypatch):
    segmenter = Threshold()
    monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda *_: segmenter)
    code, said, _ = run(write_clip(tmp_path / "a.mp4"), read_only)
    assert code == 2 and len(said) == 1 and "Cannot write into" in said[0] and str(read_only) in said[0]
    assert segmenter.sizes == [] and names(read_only) == []


class Failing:
    """A decoder that fails from one frame on, in OpenCV's own way."""

    def __init__(self, capture, at):
        self._capture, self._left = capture, at

    def __getattr__(self, name):
        return getattr(self._capture, name)

    def read(self):
        self._left -= 1
        if self._left <= 0:
            cv2.resize(np.zeros((0, 0, 3), np.uint8), (4, 4))  # raises cv2.error
        return self._capture.read()


def test_a_decoder_that_fails_in_a_file_leaves_what_was_before(tmp_path, run, monkeypatch):
    real = VideoSource._begin

    def begin(self, path):
        self._capture = Failing(self._capture, 11)
        real(self, path)

    monkeypatch.setattr(VideoSource, "_begin", begin)
    code, said, records = run(write_clip(tmp_path / "a.mp4", 20))
    assert code == 2 and len(said) == 1 and "promises 20 frames and 10 could be decoded" in said[0]
    assert len(records) == len(names(tmp_path / "out/masks")) == 10


def test_a_decoder_that_fails_in_a_stream_is_opened_again(streams):
    """The same clip is a stream that ends, so that there is a next connection to it."""
    opened = []

    def connect():
        stream = connection.Stream(str(streams / "clip.ts"), "clip", 5.0)
        stream._capture, stream.frame_count = Failing(stream._capture, 31 if not opened else 10**9), None
        opened.append(stream)
        return stream

    results = []
    summary = run_pipeline(
        LiveSource("clip", connect, Limits(5.0, reconnect=1), True), Threshold(), [results.append], SIZE, 40
    )
    assert len(opened) >= 2 and summary.outages >= 1 and summary.reconnects == summary.outages
    assert summary.captured == summary.frames + summary.dropped + summary.dropped_by_sinks


CRASHING = """
import ctypes, resource, sys
sys.path[:0] = ["tests", "tests/runtime"]
import runtime.run_outputs, splitmerge.commands.run
from clips import Threshold
from runtime.sources import VideoSource
from splitmerge.cli import main
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
runtime.run_outputs.COMMIT_S = 0.02
splitmerge.commands.run.open_executor = lambda *_: Threshold(seconds=0.01)
left, decode = int(sys.argv.pop(1)), VideoSource._decode
def crash(source):
    global left
    left -= 1
    return ctypes.string_at(0) if left == 0 else decode(source)
VideoSource._decode = crash
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="this is a POSIX signal")
def test_a_decoder_that_takes_the_process_with_it_is_as_kill_9(tmp_path, run):
    """A real access to address 0 in the thread that decodes; then --resume ends as an uninterrupted run."""
    code, _, whole = run(write_clip(tmp_path / "in.mp4", 90), tmp_path / "whole")
    assert code == 0 and len(whole) == 90

    def resume(crash_at):
        out = tmp_path / "out"
        outputs = ("--overlay", f"{out}/o.mp4", "--masks", f"{out}/masks", "--records", f"{out}/r.jsonl")
        arguments = ["run", f"{tmp_path}/in.mp4", "--package", f"{tmp_path}/package", *outputs, "--resume"]
        command = [sys.executable, "-c", CRASHING, str(crash_at), *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)

    crashed = resume(75)
    assert crashed.returncode == -signal.SIGSEGV, crashed.stderr
    assert all(name.startswith(".") for name in names(tmp_path / "out")), "nothing passes for whole"
    done = resume(0)
    assert done.returncode == 0, done.stderr
    before = re.search(r"after (\d+) frames of an earlier run", done.stdout)
    assert before and 0 < int(before[1]) < 75
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


STARVING = """
import resource, sys
sys.path[:0] = ["tests", "tests/runtime"]
from pathlib import Path
from small_package import make_package
from engines.build import build_engines
from clips import write_clip
from splitmerge.cli import main
import runtime.executor, runtime.pipeline, runtime.report, runtime.sources
folder = Path(sys.argv[1])
build_engines(make_package(folder / "package", size=(1024, 2048)), "onnxruntime")
clip = write_clip(folder / "a.mp4", 5, (256, 512))
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (600 << 20),) * 2)
sys.exit(main(["run", str(clip), "--package", str(folder / "package"), "--records", str(folder / "r.jsonl")]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits on a process's memory are read from /proc: Linux")
def test_an_engine_that_runs_out_of_memory_is_one_sentence(tmp_path):
    """The system's own limit, reached in the network; the machine is none the worse."""
    done = subprocess.run(
        [sys.executable, "-c", STARVING, str(tmp_path)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    ends = "ONNX Runtime could not run the engine: ", "The system has no room for another context"
    assert done.stderr.splitlines()[-1].startswith(tuple(f"splitmerge: {end}" for end in ends))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "package"]
