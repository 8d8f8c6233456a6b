"""Outputs that grow: on the disk before the state counts them, and no more in memory the longer they are.

Whether a folder's names were on the disk is seen by what Linux says of the file descriptors that were synchronised.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from clips import SIZE, names, numbered_frame, write_clip

import runtime.run_outputs
from runtime.executor import FrameStats
from runtime.growing_masks import GrowingMasks
from runtime.kept_labels import KeptLabels
from runtime.run_outputs import RunOutputs
from runtime.run_state import RunState
from runtime.sinks import Result
from runtime.sources import SourceFrame, open_source
from runtime.video_writer import encoder_for
from runtime.wanted import Wanted
from splitmerge.labels import CITYSCAPES

video = pytest.mark.skipif(encoder_for(Path("a.mp4")) is None, reason="PyAV is missing: pip install av")
LABELS = np.zeros(SIZE, np.uint8)


def _results(frames):
    for index in range(frames):
        frame = SourceFrame(index, index / 10, numbered_frame(index))
        yield Result(frame, LABELS, 1.0, 1.0, FrameStats(0.25, 0.5, 16))


@pytest.fixture
def synced(monkeypatch):
    """Of each folder that was synchronised, the names that it had then."""
    seen, fsync = {}, os.fsync
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not say what a file descriptor is of")

    def spy(fd):
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if path.is_dir():
            seen[path] = {each.name for each in path.iterdir()}
        fsync(fd)

    monkeypatch.setattr(os, "fsync", spy)
    return seen


@video
def test_all_names_are_on_the_disk_before_a_run_counts_as_finished(tmp_path, synced, monkeypatch):
    wanted = Wanted(tmp_path / "a/o.mp4", tmp_path / "b/m", tmp_path / "c/c", tmp_path / "d/r.jsonl")
    source, write, known = open_source(str(write_clip(tmp_path / "in.mp4", 12))), RunState.write, []

    def finishing(self, facts, mark, finished=False, **more):
        if finished:
            known.append({str(place): place.name in synced.get(place.parent, ()) for place in wanted.places.values()})
        write(self, facts, mark, finished, **more)

    monkeypatch.setattr(RunState, "write", finishing)
    outputs = RunOutputs(wanted, source, CITYSCAPES, {})
    with outputs.open({}) as sink:
        for result in _results(12):
            sink(result)
        outputs.complete()
    assert known == [{str(place): True for place in wanted.places.values()}]


def test_the_names_of_kept_labels_are_on_the_disk(tmp_path, synced):
    kept = KeptLabels(tmp_path / "o.mp4")
    kept.begin()
    kept.write(7, LABELS)
    kept.sync()
    assert synced[tmp_path / ".o.mp4.labels"] == {"000007.png"}


@video
@pytest.mark.parametrize("name", ["o.mp4", "o.avi"])
def test_a_run_that_cannot_be_resumed_remembers_no_more_for_longer(tmp_path, monkeypatch, name):
    monkeypatch.setattr(runtime.run_outputs, "COMMIT_S", 0)
    source = open_source(str(write_clip(tmp_path / "in.mp4", 3)), live=True)
    outputs = RunOutputs(Wanted(tmp_path / name, tmp_path / "m"), source, CITYSCAPES, {})
    held = []
    with outputs.open({}) as sink:
        for result in _results(120):
            sink(result)
            held.append((len(outputs._files.labels._unsynced), len(outputs._groups._marks)))
    source.close()
    assert max(paths for paths, _ in held) <= 1
    assert max(groups for _, groups in held) <= 3, "one a second"
    assert names(tmp_path) == ["in.mp4", "m", name]


def test_folders_whose_names_end_alike_do_not_share_a_place_for_the_old_one(tmp_path, monkeypatch):
    """While one takes its place, another does; then the first fails and has to put back what was there."""
    one, other = (GrowingMasks(tmp_path / f"m.{name}") for name in ("cam1", "cam2"))
    for masks in (one, other):
        masks.place.mkdir()
        (masks.place / "000000.png").write_bytes(masks.place.name.encode())
        masks.begin()
        masks.write_labels(1, LABELS)
    replace = Path.replace

    def at_the_same_time(self, target):
        if self == one.path and target == one.place:
            other.publish()
            raise OSError("no")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", at_the_same_time)
    with pytest.raises(OSError, match="no"):
        one.publish()
    assert (one.place / "000000.png").read_bytes() == b"m.cam1"
    assert names(other.place) == ["000001.png"]
    shutil.rmtree(one.path)
    assert names(tmp_path) == ["m.cam1", "m.cam2"]
