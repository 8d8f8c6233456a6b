"""`splitmerge run` as a process of its own, killed at random moments and gone on with; and told to stop by signals.

FFmpeg's own program judges the videos; what a finished run has to be is what an uninterrupted one made.
"""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clips import SIZE, names, write_clip
from judge import decoded
from small_package import make_package
from test_resume import contents, records

from runtime.video_writer import encoder_for
from splitmerge.cli import main

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="these are POSIX signals"),
    pytest.mark.skipif(encoder_for(Path("a.mp4")) is None, reason="PyAV is missing: pip install av"),
]

SLOWED = """
import sys, time
import runtime.run_outputs
import splitmerge.commands.run as run
from splitmerge.cli import main
runtime.run_outputs.COMMIT_S = float(sys.argv.pop(1))
seconds, real = float(sys.argv.pop(1)), run.open_executor
def slowed(package, arguments):
    executor = real(package, arguments)
    measure = executor.measure
    def after_a_while(*given):
        time.sleep(seconds)
        return measure(*given)
    executor.measure = after_a_while
    return executor
run.open_executor = slowed
sys.exit(main())
"""


class Recording:
    """A clip, what an uninterrupted run makes of it, and runs in processes of their own that write into `out`."""

    def __init__(self, folder, frames, suffix):
        make_package(folder / "package", SIZE)
        assert main(["build", "--package", str(folder / "package"), "--backend", "onnxruntime"]) == 0
        self.clip = write_clip(folder / "in.mp4", frames)
        self.package, self.suffix, self.frames = folder / "package", suffix, frames
        self.out, self.whole = folder / "out", folder / "whole"
        assert main(["run", *self._arguments(self.whole)]) == 0
        self.pixels = decoded(self.whole / f"o{suffix}").pixels
        self.records, self.masks = records(self.whole / "frames.jsonl"), contents(self.whole / "masks")
        assert len(self.pixels) == len(self.records) == len(self.masks) == frames

    def _arguments(self, out):
        return [
            *(str(self.clip), "--package", str(self.package), "--overlay", f"{out}/o{self.suffix}"),
            *("--masks", f"{out}/masks", "--records", f"{out}/frames.jsonl", "--json", f"{out}/run.json"),
        ]

    def start(self, *more, commit_s=0.03, seconds=0.01):
        command = [sys.executable, "-c", SLOWED, str(commit_s), str(seconds), "run", *self._arguments(self.out), *more]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def check_left(self):
        """After a kill the files that grow hold what the state says, and the video plays. Gives how many count."""
        state = self.out / f".o{self.suffix}.run.json"
        mark = json.loads(state.read_text())["mark"] if state.exists() else {"frames": 0, "overlay_frames": 0}
        if not mark["frames"]:
            return 0
        lines = _growing(self.out, "frames.jsonl").read_text().splitlines()
        assert len(lines) >= mark["frames"]
        masks = contents(_growing(self.out, "masks"))
        for index in range(mark["frames"]):
            assert masks[f"{index:06d}.png"] == self.masks[f"{index:06d}.png"]
        video = _growing(self.out, f"o{self.suffix}")
        if mark["overlay_frames"]:
            judged = decoded(video)
            assert judged.errors == "" and len(judged.pixels) >= mark["overlay_frames"]
            assert judged.pixels == self.pixels[: len(judged.pixels)]
        return mark["frames"]

    def check_finished(self):
        assert contents(self.out) == contents(self.whole)
        assert names(self.out) == ["frames.jsonl", "masks", f"o{self.suffix}", "run.json"]


def _growing(out, name):
    """Where an output is that a killed run left: as it was before, hidden, or at its place."""
    stem, suffix = Path(name).stem, Path(name).suffix
    places = [out / f".{stem}.earlier{suffix}", out / f".{stem}.partial{suffix}", out / name]
    return next(place for place in places if place.exists())


def _kill_at_random(recording, kills, seed):
    """Kill runs at random moments, a few while they open. Gives how many frames counted after each."""
    rng, counted = random.Random(seed), []
    for _ in range(kills):
        process = recording.start("--resume")
        try:
            if rng.random() < 0.2:
                time.sleep(rng.uniform(0.2, 1.5))
            else:
                _wait_for_growth(recording.out, process)
                time.sleep(rng.uniform(0, 0.35))
        finally:
            process.kill()
            said = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), said
        counted.append(recording.check_left() if process.returncode else recording.frames)
    return counted


def _wait_for_growth(out, process):
    """Until this process has written a frame."""
    masks, until = out / ".masks.partial", time.monotonic() + 60
    before = len(list(masks.glob("*.png"))) if masks.exists() else 0
    while process.poll() is None and (len(list(masks.glob("*.png"))) if masks.exists() else 0) <= before:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("kills", "frames", "suffix"),
    [
        (5, 250, ".mp4"),
        pytest.param(50, 900, ".mp4", marks=pytest.mark.slow),
        pytest.param(20, 400, ".webm", marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_and_gone_on_with_it_ends_as_an_uninterrupted_run(tmp_path, kills, frames, suffix):
    recording = Recording(tmp_path, frames, suffix)
    counted = _kill_at_random(recording, kills, seed=kills)
    print(f"frames after each of {kills} kills: {counted}")
    assert counted == sorted(counted), "nothing that counted once is lost again"
    assert counted[-1] > 0, "no kill came after the first frame"
    last = recording.start("--resume", seconds=0)
    said = last.communicate(timeout=120)
    assert last.returncode == 0, said
    recording.check_finished()


def _until(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_playable_outputs_of_one_length(tmp_path, number):
    recording = Recording(tmp_path, 120, ".mp4")
    process = recording.start()
    try:
        _until(lambda: len(list(recording.out.glob(".masks.partial/*.png"))) > 30)
        process.send_signal(number)
        said, complained = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number, complained
    summary = json.loads((recording.out / "run.json").read_text())
    done = summary["frames"]
    assert summary["interrupted"] == number.name and 30 < done < 120
    assert f"{recording.clip}: {done} frames in" in said
    (line,) = complained.splitlines()
    assert line.startswith(f"splitmerge: {number.name}: {done} frames are done and kept; go on with: splitmerge run ")
    assert decoded(recording.out / "o.mp4").pixels == recording.pixels[:done] or done % 10
    assert len(decoded(recording.out / "o.mp4").pixels) == len(names(recording.out / "masks")) == done
    assert records(recording.out / "frames.jsonl") == recording.records[:done]
    last = recording.start("--resume", seconds=0)
    assert last.wait(120) == 0
    recording.check_finished()


def test_a_second_signal_ends_at_once_and_loses_nothing(tmp_path):
    recording = Recording(tmp_path, 120, ".mp4")
    process = recording.start(seconds=0.3)
    try:
        _until(lambda: len(list(recording.out.glob(".masks.partial/*.png"))) > 3)
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)  # a signal that comes while the same one waits is lost
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode in (-signal.SIGINT, 130)  # 130 where the first one was done with already
    assert recording.check_left() >= 3
    last = recording.start("--resume", seconds=0)
    assert last.wait(120) == 0
    recording.check_finished()
