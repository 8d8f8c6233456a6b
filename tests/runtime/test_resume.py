"""Runs that are ended early and gone on with: what they leave, and that it ends as an uninterrupted run does."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import SIZE, Threshold, names, number_of, numbered_frame, write_clip, write_package
from judge import decoded, ffmpeg
from senders import Camera, numbered_parts

import runtime.run_outputs
import splitmerge.commands.run
from runtime.run_state import fingerprint
from runtime.sources import silence_decoder
from runtime.video_writer import encoder_for, video_file
from splitmerge.cli import main
from splitmerge.errors import EngineError

silence_decoder()
pytestmark = pytest.mark.skipif(encoder_for(Path("a.mp4")) is None, reason="PyAV is missing: pip install av")
MEASURED = ("latency_ms", "compute_ms", "stem_ms", "trunk_ms")
FRAMES = 47


class Noisy(Threshold):
    """Labels that differ from frame to frame, so that a frame in another's place is noticed."""

    def segment(self, frame_bgr):
        labels = super().segment(frame_bgr)
        labels[:8, : 2 * number_of(frame_bgr) + 2] = 13
        return labels


class Runs:
    """`splitmerge run` of one source with one package, with an engine that may fail."""

    def __init__(self, folder, source, monkeypatch, capfd):
        write_package(folder / "package")
        self.folder, self.source, self.capfd, self.package = folder, source, capfd, folder / "package"
        self.engine = Noisy()
        monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda package, arguments: self.engine)

    def outputs(self, name, suffix=".mp4"):
        out = self.folder / name
        return [
            *("--overlay", f"{out}/o{suffix}", "--masks", f"{out}/masks", "--colour-masks", f"{out}/colours"),
            *("--records", f"{out}/frames.jsonl", "--legend"),
        ]

    def run(self, *arguments, fail_at=None, error=None):
        self.engine = Noisy(fail_at, error or KeyboardInterrupt())
        self.capfd.readouterr()
        code = main(["run", str(self.source), "--package", str(self.package), *map(str, arguments)])
        self.said = self.capfd.readouterr()
        return code


@pytest.fixture
def runs(tmp_path, monkeypatch, capfd):
    return Runs(tmp_path, write_clip(tmp_path / "in.mp4", FRAMES), monkeypatch, capfd)


def records(path):
    """The lines, times left out that are measured."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]


def contents(folder):
    """What a folder's outputs hold, to be compared: bytes, and of records all but the measured times."""
    files = {path: path for path in sorted(folder.rglob("*")) if path.is_file() and not path.match(".*")}
    return {
        str(path.relative_to(folder)): records(path) if path.suffix == ".jsonl" else path.read_bytes()
        for path in files
        if path.suffix != ".json"
    }


def check_consistent(out, frames, suffix=".mp4"):
    """All outputs have the first `frames`, and the overlay plays."""
    judged = decoded(out / f"o{suffix}")
    assert (judged.errors, len(judged.pixels)) == ("", frames)
    assert [line["frame"] for line in records(out / "frames.jsonl")] == list(range(frames))
    for folder in ("masks", "colours"):
        assert names(out / folder) == [f"{index:06d}.png" for index in range(frames)]


@pytest.mark.parametrize("commit_s", [0, 1000])
@pytest.mark.parametrize(
    ("stops", "suffix"), [([3], ".mp4"), ([10], ".webm"), ([29], ".mkv"), ([46], ".mov"), ([12, 1, 9], ".mp4")]
)
def test_a_run_that_is_interrupted_and_resumed_ends_as_an_uninterrupted_one(runs, monkeypatch, stops, suffix, commit_s):
    monkeypatch.setattr(runtime.run_outputs, "COMMIT_S", commit_s)
    out, outputs, done = runs.folder / "out", runs.outputs("out", suffix), 0
    assert runs.run(*runs.outputs("whole", suffix)) == 0
    for stop in stops:
        assert runs.run(*outputs, "--resume", "--json", out / "run.json", fail_at=stop) == 130
        assert json.loads((out / "run.json").read_text())["frames_before"] == done
        done += stop
        (line,) = runs.said.err.splitlines()
        assert line.startswith(f"splitmerge: SIGINT: {done} frames are done and kept; go on with: splitmerge run ")
        assert line.endswith("--resume --json " + str(out / "run.json")) and line.count("--resume") == 1
        summary = json.loads((out / "run.json").read_text())
        assert (summary["interrupted"], summary["frames"]) == ("SIGINT", stop)
        check_consistent(out, done, suffix)
    assert runs.run(*outputs, "--resume") == 0
    assert len(runs.engine.sizes) == FRAMES - done, "no frame is computed twice"
    assert f"after {done} frames of an earlier run" in runs.said.out
    assert contents(out) == contents(runs.folder / "whole")
    assert names(out) == ["colours", "frames.jsonl", "masks", f"o{suffix}", "run.json"]


@pytest.mark.parametrize("option", ["--overlay", "--masks", "--records"])
def test_each_output_alone(runs, option):
    ending = {"--overlay": "o.mp4", "--masks": "masks", "--records": "frames.jsonl"}[option]
    assert runs.run(option, runs.folder / "whole" / ending) == 0
    assert runs.run(option, runs.folder / "out" / ending, fail_at=13) == 130
    assert runs.run(option, runs.folder / "out" / ending, "--resume") == 0
    assert len(runs.engine.sizes) == FRAMES - 13
    assert contents(runs.folder / "out") == contents(runs.folder / "whole")
    assert names(runs.folder / "out") == [ending]


def test_an_engine_that_fails_leaves_what_was_done(runs):
    out = runs.folder / "out"
    assert runs.run(*runs.outputs("out"), fail_at=23, error=EngineError("The engine failed.")) == 2
    (line,) = runs.said.err.splitlines()
    assert line.startswith("splitmerge: The engine failed; 23 frames are done and kept; go on with: splitmerge run ")
    check_consistent(out, 23)
    assert runs.run(*runs.outputs("whole")) == runs.run(*runs.outputs("out"), "--resume") == 0
    assert contents(out) == contents(runs.folder / "whole")


def _variable_rate(path):
    """A video whose frames are unevenly spaced."""
    times = np.cumsum([0, *[0.04, 0.1, 0.033, 0.5] * 10])
    with video_file(path, SIZE, 10) as write:
        for index, time_s in enumerate(times):
            write(numbered_frame(index), time_s)
    return path


def _without_index(path):
    """An MPEG transport stream: no index, no number of frames, and key frames far apart."""
    clip = write_clip(path.with_suffix(".mp4"), FRAMES)
    said = ffmpeg("-v", "error", "-i", str(clip), "-c:v", "mpeg2video", "-g", "30", "-bf", "2", "-y", str(path))[1]
    assert path.exists(), said
    clip.unlink()
    return path


def _images(path):
    path.mkdir()
    for index in range(21):
        cv2.imwrite(str(path / f"{index:03d}.png"), numbered_frame(index))
    return path


@pytest.mark.parametrize(
    ("make", "name"),
    [(_variable_rate, "in.mp4"), (_variable_rate, "in.mkv"), (_without_index, "in.ts"), (_images, "in")],
)
def test_sources_of_other_kinds_are_found_again_frame_by_frame(tmp_path, monkeypatch, capfd, make, name):
    runs = Runs(tmp_path, make(tmp_path / name), monkeypatch, capfd)
    code = runs.run(*runs.outputs("whole"))  # 2 where the container promised more frames than there are
    assert runs.run(*runs.outputs("out"), fail_at=13) == 130
    warned = runs.run(*runs.outputs("out"), "--resume")
    assert (warned, len(runs.engine.sizes)) == (code, len(names(tmp_path / "whole/masks")) - 13)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_another_run_was_is_refused_in_one_sentence(runs, tmp_path):
    outputs = runs.outputs("out")
    assert runs.run(*outputs, fail_at=13) == 130
    before = contents(tmp_path / "out")
    other = write_clip(tmp_path / "other.mp4", FRAMES - 1)
    for change, words in [
        (["--precision", "fp16"], 'another --precision ("fp32", and now "fp16")'),
        (["--density", "1/4"], 'another --density ("1", and now "1/4")'),
        (["--deadline-ms", "5"], "another --deadline-ms (0, and now 5.0)"),
        (["--alpha", "0.5"], "another --alpha (0.55, and now 0.5)"),
        (["--frames", "20"], "another --frames (null, and now 20)"),
    ]:
        assert runs.run(*outputs, *change, "--resume") == 2
        (line,) = runs.said.err.splitlines()
        assert words in line and "leave out --resume to begin anew" in line
    for fewer in (outputs[2:], [*outputs[:2], *outputs[4:]], outputs[:4]):
        assert runs.run(*fewer, "--resume") == 2
        assert "another outputs" in runs.said.err or "another --legend" in runs.said.err
    runs.source = other
    assert runs.run(*outputs, "--resume") == 2
    assert f"another source ({tmp_path}/in.mp4, and now {other})" in runs.said.err
    runs.source = tmp_path / "in.mp4"
    runs.package = write_package(tmp_path / "other", (32, 64)).folder
    assert runs.run(*outputs, "--resume") == 2
    assert f"another package ({tmp_path}/package, and now {tmp_path}/other)" in runs.said.err
    runs.package = tmp_path / "package"
    assert contents(tmp_path / "out") == before and not runs.engine.sizes
    moved = (tmp_path / "in.mp4").rename(tmp_path / "moved.mp4")
    runs.source = moved
    assert runs.run(*outputs, "--resume") == 0, "the same content under another name is the same source"


def test_the_chunk_counts_where_not_every_pixel_is_computed(runs):
    """With a density below 1 the chunks decide which split batches are computed; otherwise they change no label."""
    for density, chunk, code in (("1/4", "2", 2), ("1", "2", 0)):
        outputs = [*runs.outputs(f"out{chunk}{code}"), "--density", density, "--chunk"]
        assert runs.run(*outputs, chunk, fail_at=13) == 130
        assert runs.run(*outputs, "1", "--resume") == code
        assert ("another --chunk (2, and now 1)" in runs.said.err) == (code == 2)


def test_nothing_to_resume_begins_from_the_start_and_the_end_is_said(runs, tmp_path):
    outputs = runs.outputs("out")
    assert runs.run(*outputs, "--resume") == 0
    assert len(runs.engine.sizes) == FRAMES
    before = contents(tmp_path / "out")
    assert runs.run(*outputs, "--resume") == 0
    assert not runs.engine.sizes and "an earlier run did all its frames" in runs.said.out
    assert contents(tmp_path / "out") == before
    (tmp_path / "out/o.mp4").unlink()
    assert runs.run(*outputs, "--resume") == 0, "an output that is gone is made again"
    assert contents(tmp_path / "out") == before


def test_without_resume_a_run_begins_anew_and_says_so(runs, tmp_path):
    outputs = runs.outputs("out")
    assert runs.run(*outputs, fail_at=13) == 130
    assert runs.run(*outputs) == 0
    assert "13 frames of an interrupted run are given up" in runs.said.out
    assert len(runs.engine.sizes) == FRAMES
    assert names(tmp_path / "out") == ["colours", "frames.jsonl", "masks", "o.mp4"]
    assert runs.run(*outputs) == 0
    assert "given up" not in runs.said.out


def test_what_was_tampered_with_is_no_beginning(runs, tmp_path):
    outputs, out = runs.outputs("out"), tmp_path / "out"
    assert runs.run(*outputs, fail_at=33) == 130
    (out / "frames.jsonl").write_text((out / "frames.jsonl").read_text()[:50])
    assert runs.run(*outputs, "--resume") == 2
    assert f"{out}/frames.jsonl has the first 0 of the 33 frames that an interrupted run left" in runs.said.err
    assert runs.run(*outputs, fail_at=33) == 130
    (out / "o.mp4").write_bytes(b"")
    assert runs.run(*outputs, "--resume") == 2
    assert f"{out}/o.mp4 was to have 30 frames and 0 can be read" in runs.said.err


@pytest.mark.parametrize("overlay", [False, True])
def test_what_the_state_does_not_count_is_not_believed(runs, tmp_path, overlay):
    """As after a power cut: names and lengths are on the disk, what belongs there is not."""
    out, outputs = tmp_path / "out", runs.outputs("out")[0 if overlay else 2 : -1 if not overlay else None]
    assert runs.run(*[word.replace("/out/", "/whole/") for word in outputs]) == 0
    assert runs.run(*outputs, fail_at=13) == 130
    with (out / "frames.jsonl").open("ab") as file:
        file.write(bytes(99) + b"\n" + bytes(500))
    for folder in ("masks", "colours"):
        (out / folder / "000013.png").write_bytes(bytes(300))
    assert runs.run(*outputs, "--resume") == 0
    assert contents(out) == contents(tmp_path / "whole")


def test_what_cannot_be_resumed_says_why(runs, tmp_path):
    assert runs.run("--overlay", tmp_path / "o.avi", "--resume") == 2
    assert "o.avi is a video by OpenCV, which cannot go on with one" in runs.said.err
    assert runs.run("--overlay", tmp_path / "o.avi", "--masks", tmp_path / "m", fail_at=13) == 130
    assert runs.said.err == "splitmerge: SIGINT: 13 frames are done and kept.\n"
    assert cv2.VideoCapture(str(tmp_path / "o.avi")).get(cv2.CAP_PROP_FRAME_COUNT) == 13
    assert len(names(tmp_path / "m")) == 13
    assert runs.run("--masks", tmp_path / "m", "--live", "--resume") == 2
    assert "in.mp4 is played live and waits for nobody" in runs.said.err
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_a_camera_is_appended_to(tmp_path, monkeypatch, capfd):
    out = tmp_path / "out"
    with Camera(lambda: numbered_parts(itertools.count())) as camera:
        runs = Runs(tmp_path, camera.url, monkeypatch, capfd)
        assert runs.run(*runs.outputs("out"), "--frames", 60) == 0
        first = records(out / "frames.jsonl")
        mask = out / f"masks/{first[0]['frame']:06d}.png"
        seen = mask.read_bytes()
        assert runs.run(*runs.outputs("out"), "--frames", 60, "--resume", fail_at=30) == 130
        assert runs.said.err.endswith("the same command with --resume goes on.\n")
    both = records(out / "frames.jsonl")
    kept = len(first) // 25 * 25
    assert first[:kept] == both[:kept] and len(both) > kept > 0, "whole groups are kept"
    assert both[kept]["frame"] - both[kept]["dropped_before"] == first[kept - 1]["frame"] + 1
    times = [line["time_s"] for line in both]
    assert all(one < other for one, other in itertools.pairwise(times))
    assert times[kept] == pytest.approx(times[kept - 1] + 1 / 25)
    assert mask.read_bytes() == seen
    assert len(names(out / "masks")) == len(decoded(out / "o.mp4").pixels) == len(both)


def test_a_fingerprint_sees_other_content_of_the_same_size(tmp_path):
    data = bytearray(range(256)) * 40_000
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(data)
    seen = {fingerprint([a])}
    for place in (0, len(data) // 2 - 50_000, len(data) - 1):
        changed = bytearray(data)
        changed[place : place + 200_000] = bytes(min(200_000, len(data) - place))
        b.write_bytes(changed)
        seen.add(fingerprint([b]))
    assert len(seen) == 4
    b.write_bytes(data)
    assert fingerprint([b]) == fingerprint([a]) != fingerprint([a, b])
    assert fingerprint([b], names=True) != fingerprint([a], names=True)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(disk)], capture_output=True, check=False
    )
    if sys.platform != "linux" or done.returncode:
        pytest.skip("a small tmpfs cannot be mounted: it takes Linux and root's rights")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def _noise(path, frames=60):
    """A video that no codec makes small; its frames' numbers are in their pixels all the same."""
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, SIZE[::-1])
    for index in range(frames):
        writer.write(numbered_frame(index) // 2 + rng.integers(0, 128, (*SIZE, 3), dtype=np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv"])
@pytest.mark.parametrize("commit_s", [0, 1000])
def test_a_full_disk_keeps_what_is_done_and_is_gone_on_with(tmp_path, monkeypatch, capfd, small_disk, suffix, commit_s):
    monkeypatch.setattr(runtime.run_outputs, "COMMIT_S", commit_s)
    runs = Runs(tmp_path, _noise(tmp_path / "in.avi"), monkeypatch, capfd)
    assert runs.run(*runs.outputs("whole", suffix)) == 0
    out, outputs = small_disk / "out", runs.outputs("disk/out", suffix)
    assert runs.run(*outputs) == 2
    (line,) = runs.said.err.splitlines()
    done = len(records(out / "frames.jsonl"))
    assert "No space left on device" in line and f"; {done} frames are done and kept; go on with: " in line
    assert 0 < done < 60
    check_consistent(out, done, suffix)
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert runs.run(*outputs, "--resume") == 0
    assert contents(out) == contents(tmp_path / "whole")


def test_a_disk_that_is_full_again_while_going_on(tmp_path, monkeypatch, capfd, small_disk):
    """The new overlay does not get as far as the old one: that one stays."""
    runs = Runs(tmp_path, _noise(tmp_path / "in.avi"), monkeypatch, capfd)
    assert runs.run(*runs.outputs("whole")) == 0
    out, outputs = small_disk / "out", runs.outputs("disk/out")
    assert runs.run(*outputs) == 2
    assert runs.run(*outputs, "--resume") == 2
    assert "No space left on device" in runs.said.err
    check_consistent(out, len(records(out / "frames.jsonl")))
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert runs.run(*outputs, "--resume") == 0
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("full", ["o.mp4", "o.webm", "masks", "frames.jsonl"])
def test_one_output_on_a_full_disk_leaves_all_with_the_same_frames(tmp_path, monkeypatch, capfd, small_disk, full):
    runs = Runs(tmp_path, _noise(tmp_path / "in.avi", 250), monkeypatch, capfd)
    overlay = full if full.startswith("o.") else "o.mp4"
    place = {
        name: (small_disk if name == full else tmp_path / "out") / name for name in ("masks", "frames.jsonl", overlay)
    }
    if full == "frames.jsonl":
        (small_disk / "filling").write_bytes(bytes(285 << 10))
    outputs = ["--masks", place["masks"], "--records", place["frames.jsonl"], "--overlay", place[overlay]]
    assert runs.run(*outputs) == 2
    assert f"{full}" in runs.said.err and "No space left on device" in runs.said.err
    done = len(records(place["frames.jsonl"]))
    assert len(names(place["masks"])) == len(decoded(place[overlay]).pixels) == done > 0
    (small_disk / "filling").unlink(missing_ok=True)
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert runs.run(*outputs, "--resume") == 0
    assert len(records(place["frames.jsonl"])) == len(decoded(place[overlay]).pixels) == 250


def test_a_video_that_opencv_cannot_end_leaves_the_other_outputs(tmp_path, monkeypatch, capfd, small_disk):
    """OpenCV says nothing of a full disk before its end, and what it wrote is good for nothing."""
    runs = Runs(tmp_path, _noise(tmp_path / "in.avi", 120), monkeypatch, capfd)
    assert runs.run("--overlay", small_disk / "o.avi", "--masks", tmp_path / "masks") == 2
    assert "o.avi cannot be written to its end" in runs.said.err and "120 frames are done and kept" in runs.said.err
    assert "--resume" not in runs.said.err
    assert (names(small_disk), len(names(tmp_path / "masks"))) == ([], 120)


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(runs, tmp_path, small_disk):
    out = small_disk / "out"
    assert runs.run(*runs.outputs("disk/out"), fail_at=13) == 130
    before = contents(out)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for resume in ([], ["--resume"]):
        assert runs.run(*runs.outputs("disk/out"), *resume) == 2
        assert runs.said.err.startswith(f"splitmerge: Cannot write into {out} (Read-only file system)")
        assert not runs.engine.sizes
    check_consistent(out, 13)
    assert contents(out) == before
    subprocess.run(["mount", "-o", "remount,rw,size=16m", str(small_disk)], check=True)
    assert runs.run(*runs.outputs("whole")) == runs.run(*runs.outputs("disk/out"), "--resume") == 0
    assert contents(out) == contents(tmp_path / "whole")
