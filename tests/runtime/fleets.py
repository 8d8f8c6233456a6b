"""A folder of videos for fleets, `splitmerge fleet` as a process that can be killed, and what results must equal."""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import pytest
from judge import decoded
from small_package import make_package

from engines.build import build_engines
from splitmerge.cli import main
from splitmerge.files import sha256_of

ROOT = Path(__file__).parents[2]
SIZE = (128, 224)
SECONDS = ("latency_ms", "compute_ms", "stem_ms", "trunk_ms")


def make_fleet(folder: Path, videos=("a.mp4", "deep/b.mp4"), frames=60, size=SIZE):
    """A package, videos of 10 frames a second with a key frame at every twelfth; gives the command's words."""
    build_engines(make_package(folder / "package", size), "onnxruntime")
    for number, name in enumerate(videos):
        path = folder / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(number)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, size[::-1])
        assert writer.isOpened()
        for _ in range(frames):
            coarse = random.integers(0, 256, (8, 14, 3), np.uint8)
            writer.write(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC))
        writer.release()
    return [
        *("fleet", f"{folder}/videos", "--package", f"{folder}/package", "--out", f"{folder}/out"),
        *("--overlay", "--masks", "--records", "--segment-s", "2"),
    ]


def report(folder: Path):
    return json.loads((folder / "out/fleet.json").read_text())


class Results(NamedTuple):
    """A video's results: its records, label maps as files, and the overlay's frame times and pictures."""

    records: list
    masks: dict
    times: list
    pictures: list

    @classmethod
    def of(cls, target: Path):
        """Those at TARGET.jsonl, TARGET-masks/ and TARGET.mp4."""
        masks = {path.name: path.read_bytes() for path in sorted(Path(f"{target}-masks").iterdir())}
        overlay = Path(f"{target}.mp4")
        return cls(_records(f"{target}.jsonl"), masks, decoded(overlay).times, _pictures(overlay))


_of_runs: dict[tuple[str, str], Results] = {}


def _of_run(video: Path, package: Path):
    """What `splitmerge run` makes of a video; of the same one once only, for these tests have the same ones often."""
    key = sha256_of(video), sha256_of(package / "manifest.json")
    if key not in _of_runs:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "whole")
            outputs = ("--overlay", f"{out}.mp4", "--masks", f"{out}-masks", "--records", f"{out}.jsonl")
            assert main(["run", str(video), "--package", str(package), *outputs]) == 0
            _of_runs[key] = Results.of(out)
    return _of_runs[key]


def check_equals_run(folder: Path, video):
    """The fleet's results of a video are those of `splitmerge run` on it, but for what was measured."""
    ours = Results.of(folder / "out" / Path(video).with_suffix(""))
    theirs = _of_run(folder / "videos" / video, folder / "package")
    assert ours.records == theirs.records
    assert list(ours.masks) == list(theirs.masks) and ours.masks == theirs.masks
    assert ours.times == theirs.times
    # Encoded in pieces, so that key frames lie elsewhere and pixels differ, though less than from frame to frame.
    same = [np.abs(one - other).mean() for one, other in zip(ours.pictures, theirs.pictures, strict=True)]
    next_one = [np.abs(one - other).mean() for one, other in itertools.pairwise(theirs.pictures)]
    assert max(same) < min(next_one)


def check_nothing_half_written(folder: Path):
    assert not [path for path in (folder / "out").rglob("*") if "partial" in path.name]


def finished_segments(folder: Path):
    """Segments that are whole but not joined yet."""
    return sorted(path for path in (folder / "out/.work").glob("*/*") if path.is_dir() and path.name[0] != ".")


def inodes(segments):
    """The inode of each label map. Those that are linked into their places keep it; computed again they get another."""
    return {path.name: path.stat().st_ino for folder in segments for path in folder.glob("masks/*.png")}


def begun_segments(folder: Path, name="*"):
    """Folders of segments that a worker is at and has written label maps of."""
    maps = (folder / "out/.work").glob(f"*/.{name}.*.partial/.masks.*/*.png")
    return list(dict.fromkeys(path.parent.parent for path in maps))


def wait_until(what, seconds=120.0):
    """Wait for something to be so, and give it. A machine may be slow; one that hangs fails here."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)
    return found


def children(pid):
    """The processes that a process has begun and that still run."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("needs Linux's /proc to find the workers")
    return [int(child) for each in Path(f"/proc/{pid}/task").glob("*/children") for child in each.read_text().split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def running(command):
    """The command line as a process of its own, which is killed at the block's end where it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "splitmerge", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


def _records(path):
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in SECONDS} for line in lines]


def _pictures(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24").astype(np.int16) for frame in container.decode(video=0)]
