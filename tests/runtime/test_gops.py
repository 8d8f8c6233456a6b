"""Videos that grow by groups: cut back and continued they are what they would have been, byte for byte."""

import errno
import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import SIZE, names, numbered_frame
from judge import decoded

from runtime.gops import GopVideo, group_length
from runtime.growing_overlay import GrowingOverlay, OverlayPicture
from runtime.sources import SourceFrame
from runtime.video_writer import encoder_for
from splitmerge.errors import InputError
from splitmerge.labels import CITYSCAPES

pytestmark = pytest.mark.skipif(encoder_for(Path("a.mp4")) is None, reason="PyAV is missing: pip install av")
SUFFIXES = [".mp4", ".mov", ".mkv", ".webm"]
TIMES = 3 + np.cumsum([0.0, *[0.1, 0.04, 0.3] * 15])  # a variable rate that begins at 3 s
FPS = 10


def _video(path):
    return GopVideo(path, path, SIZE, FPS, encoder_for(path))


def _frame(number):
    """A numbered frame with some noise, so that what is coded depends on the frames before."""
    noise = np.random.default_rng(number).integers(0, 30, (*SIZE, 3), dtype=np.uint8)
    return numbered_frame(number) + noise


def _write(video, first, last):
    for number in range(first, last):
        video.write(_frame(number), TIMES[number])


def _whole(path, frames=None):
    video = _video(path)
    _write(video, 0, frames or len(TIMES))
    video.finish()
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("how", ["finished", "killed"])
@pytest.mark.parametrize(("stop", "kept"), [(37, 20), (40, 30), (46, 30)])
def test_a_continued_video_has_the_bytes_of_an_uninterrupted_one(tmp_path, suffix, how, stop, kept):
    begun = _video(tmp_path / f"begun{suffix}")
    clocks = {}
    for number in range(stop):
        clocks[number] = replace(begun.clock)
        _write(begun, number, number + 1)
    assert begun.safe in (kept, kept - FPS)
    kept = begun.safe if how == "killed" else kept
    if how == "finished":
        begun.finish()
    else:
        begun._file.close()  # the file is as it is now
    continued = _video(tmp_path / f"out{suffix}")
    continued.copy(tmp_path / f"begun{suffix}", clocks[kept])
    assert continued.frames == kept
    _write(continued, kept, len(TIMES))
    continued.finish()
    whole = _whole(tmp_path / f"whole{suffix}")
    assert (tmp_path / f"out{suffix}").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_safe_plays_and_is_cut_back_to(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    video = _video(path)
    seen = set()
    for number in range(46):
        video.write(_frame(number), TIMES[number])
        if video.safe not in seen:
            copy = tmp_path / f"copy{suffix}"
            copy.write_bytes(path.read_bytes())
            if video.safe:
                judged = decoded(copy)
                assert (judged.numbers, judged.errors) == (list(range(len(judged.numbers))), "")
                assert len(judged.numbers) >= video.safe  # a scene that changes begins a piece of its own
            seen.add(video.safe)
    assert sorted(seen) == [0, 10, 20, 30]  # the group that was begun last is still in the encoder
    assert video.drop() == 30
    judged = decoded(path)
    assert (judged.numbers, judged.errors) == (list(range(30)), "")
    np.testing.assert_allclose(judged.times, TIMES[:30] - 3, atol=0.0006 if suffix in (".mkv", ".webm") else 2e-5)


@pytest.mark.parametrize("more", [0, 1, 9, 25])
def test_an_overlay_that_dies_while_it_catches_up_is_still_all_there(tmp_path, more):
    """What is continued is written anew; until that has as much, the old file stays, also through a second death."""
    picture = OverlayPicture(SIZE, CITYSCAPES)

    def opened(clock=None):
        overlay = GrowingOverlay(tmp_path / "out.mp4", picture, FPS)
        overlay.reopen(clock) if clock else overlay.begin()
        return overlay

    def write(overlay, first, last):
        for number in range(first, last):
            overlay.draw(SourceFrame(number, number / FPS, _frame(number)), np.full(SIZE, number % 19, np.uint8))

    dying = opened()
    write(dying, 0, 20)
    clock = replace(dying.clock)
    write(dying, 20, 45)
    assert dying.safe == 30
    for _ in range(2):
        dying = opened(replace(clock))
        write(dying, 20, 20 + more)
        assert dying.safe >= 20
    last = opened(replace(clock))
    write(last, 20, 45)
    assert last.close(45) == 45
    last.publish()
    assert decoded(tmp_path / "out.mp4").errors == ""
    assert len(decoded(tmp_path / "out.mp4").pixels) == 45
    assert names(tmp_path) == ["out.mp4"]


class _Disk(io.BufferedWriter):
    """A file on a disk that has room for so many bytes of it."""

    room = None

    def write(self, data):
        if _Disk.room is not None and self.tell() + len(data) > _Disk.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_an_end_that_does_not_fit_leaves_the_safe_frames(tmp_path, monkeypatch, suffix):
    """Wherever in the last group, the index or the header's change the disk is full."""
    monkeypatch.setattr(_Disk, "room", None)
    monkeypatch.setattr(Path, "open", lambda path, mode: _Disk(io.FileIO(path, mode[:1])))

    def written():
        _Disk.room = None
        video = _video(tmp_path / f"out{suffix}")
        _write(video, 0, 38)
        return video, (tmp_path / f"out{suffix}").stat().st_size

    video, begun = written()
    video.finish()
    whole = (tmp_path / f"out{suffix}").stat().st_size
    for room in [*np.linspace(begun, whole, 6, endpoint=False, dtype=int), whole - 200, whole - 1]:
        video, _ = written()
        _Disk.room = room
        with pytest.raises(InputError, match="No space left on device"):
            video.finish()
        safe = video.drop()
        assert safe in (20, 30)
        judged = decoded(tmp_path / f"out{suffix}")
        assert (judged.numbers, judged.errors) == (list(range(safe)), "")


def test_bits_do_not_depend_on_the_number_of_processors(tmp_path):
    """x264 codes differently with another number of threads, and by default it counts the processors."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this needs two processors and a system that can be told to use one")
    size = (512, 256)  # of small pictures x264 takes one thread in any case

    def coded(path):
        video = GopVideo(path, path, size, FPS, encoder_for(path))
        for number in range(12):
            video.write(np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8))
        video.finish()
        return path.read_bytes()

    many = coded(tmp_path / "many.mp4")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        one = coded(tmp_path / "one.mp4")
    finally:
        os.sched_setaffinity(0, before)
    assert one == many


def test_a_video_with_too_few_frames_is_no_beginning(tmp_path):
    _whole(tmp_path / "short.mp4", 15)
    (tmp_path / "text.mp4").write_text("no video")
    for name, frames in [("short.mp4", 15), ("text.mp4", 0)]:
        video = _video(tmp_path / "out.mp4")
        with pytest.raises(InputError, match=rf"out.mp4 was to have 20 frames and {frames} can be read"):
            video.copy(tmp_path / name, replace(video.clock, frames=20))
        video.drop()


def test_groups_are_a_second_long():
    assert [group_length(fps) for fps in (0.2, 10, 29.97, 25)] == [1, 10, 30, 25]
