"""Pieces joined without encoding: every frame, its time and its pixels as in the pieces, judged by FFmpeg's program."""

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import SIZE, names, numbered_frame, write_clip
from judge import decoded

from runtime.join import join_masks, join_records, join_videos
from runtime.sinks import label_folder
from runtime.video_writer import encoder_for, video_file
from splitmerge.errors import InputError

needs_av = pytest.mark.skipif(encoder_for(Path("a.mp4")) is None, reason="PyAV is missing: pip install av")


def _part(path, numbers, times=None, size=SIZE):
    with video_file(path, size, 10) as write:
        for position, number in enumerate(numbers):
            write(numbered_frame(number, size), None if times is None else times[position])
    return path


@needs_av
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_videos(tmp_path, suffix):
    times = np.cumsum([0, *[0.04, 0.1, 0.033, 0.5] * 10])
    ends = [0, 7, 8, 25, 41]
    parts = [_part(tmp_path / f"{a}{suffix}", range(a, b), times[a:b]) for a, b in itertools.pairwise(ends)]
    out = tmp_path / f"out{suffix}"
    assert join_videos(parts, out, [times[a] for a in ends[:-1]]) == 41
    joined, pieces = decoded(out), [decoded(part) for part in parts]
    assert (joined.codec, joined.errors) == (pieces[0].codec, "")
    assert joined.numbers == list(range(41))
    np.testing.assert_allclose(joined.times, times, atol=0.0011 if suffix in (".mkv", ".webm") else 2 / 90000)
    assert joined.pixels == [pixels for piece in pieces for pixels in piece.pixels]


@needs_av
def test_a_video_follows_where_the_one_before_ends(tmp_path):
    parts = [_part(tmp_path / f"{a}.mp4", range(a, a + 5)) for a in (0, 5)]
    assert join_videos(parts, tmp_path / "out.mp4") == 10
    np.testing.assert_allclose(decoded(tmp_path / "out.mp4").times, np.arange(10) / 10, atol=1e-4)
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 10


@needs_av
def test_videos_that_cannot_be_joined(tmp_path):
    a, b = _part(tmp_path / "a.mp4", range(3)), _part(tmp_path / "b.mp4", range(3))
    wide = _part(tmp_path / "wide.mp4", range(3), size=(64, 256))
    other = write_clip(tmp_path / "other.mp4", 3)
    (tmp_path / "text.mp4").write_text("no video")
    before = names(tmp_path)
    for parts, starts, words in [
        ([a, wide], None, r"wide\.mp4 \(h264 64x256\) cannot follow .*a\.mp4 \(h264 64x128\)"),
        ([a, other], None, r"other\.mp4 \(mpeg4 64x128\) cannot follow"),
        ([a, b], [0, 0.1], "give starts that grow"),
        ([a, b], [0], "2 parts and 1 starts"),
        ([], None, "0 parts"),
        ([a, tmp_path / "c.mp4"], None, r"no .*c\.mp4"),
        ([a, tmp_path / "text.mp4"], None, r"text\.mp4 cannot be joined"),
    ]:
        with pytest.raises(InputError, match=words):
            join_videos(parts, tmp_path / "out.mp4", starts)
    with pytest.raises(InputError, match="one of its own parts"):
        join_videos([a, b], a)
    with pytest.raises(InputError, match=r"end its name in \.mp4"):
        join_videos([a, b], tmp_path / "out.avi")
    assert names(tmp_path) == before


def _records(path, frames):
    path.write_text("".join(json.dumps({"frame": frame, "area": {"road": 1.0}}) + "\n" for frame in frames))
    return path


def test_records(tmp_path):
    parts = [_records(tmp_path / "a", range(3)), _records(tmp_path / "b", range(2)), _records(tmp_path / "c", [])]
    assert join_records(parts, [0, 3, 5], tmp_path / "out") == 5
    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert lines == [{"frame": frame, "area": {"road": 1.0}} for frame in range(5)]
    with pytest.raises(InputError, match="frame 2 after frame 2"):
        join_records(parts, [0, 2, 5], tmp_path / "bad")
    (tmp_path / "b").write_text('{"frame": 0}\n{"fra')
    with pytest.raises(InputError, match=r"b has the line '\{\"fra', which is no"):
        join_records(parts, [0, 3, 5], tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_masks(tmp_path):
    for name, numbers in [("a", (0, 1, 2)), ("b", (0, 1))]:
        with label_folder(tmp_path / name) as write:
            for number in numbers:
                write(number, np.full(SIZE, number + 10 * (name == "b"), np.uint8))
    parts = [tmp_path / "a", tmp_path / "b"]
    assert join_masks(parts, [0, 3], tmp_path / "out") == 5
    assert names(tmp_path / "out") == [f"{number:06d}.png" for number in range(5)]
    read = [cv2.imread(str(tmp_path / f"out/{number:06d}.png"), cv2.IMREAD_UNCHANGED)[0, 0] for number in range(5)]
    assert read == [0, 1, 2, 10, 11]
    with pytest.raises(InputError, match=r"second 000002\.png"):
        join_masks(parts, [0, 2], tmp_path / "bad")
    (tmp_path / "b/thesis.tex").touch()
    with pytest.raises(InputError, match=r"thesis\.tex is no label map"):
        join_masks(parts, [0, 3], tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
