"""Sources: order, clock and size of what is decoded, and plain words for what cannot be."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
from clips import SIZE, number_of, numbered_frame, write_clip, write_cut_clip

from runtime import sources
from runtime.sources import open_source
from splitmerge.errors import InputError


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".mov"])
@pytest.mark.parametrize("fps", [10.0, 30000 / 1001])
def test_frames_come_in_order_with_their_times(tmp_path, suffix, fps):
    source = open_source(str(write_clip(tmp_path / f"clip{suffix}", fps=fps)))
    assert (source.size, source.frame_count) == (SIZE, 20)
    assert source.fps == pytest.approx(fps, rel=1e-4)
    frames = list(source)
    assert [frame.index for frame in frames] == list(range(20))
    assert [number_of(frame.frame_bgr) for frame in frames] == list(range(20))
    # Matroska's clock ticks in milliseconds.
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(20) / fps, atol=6e-4)
    assert source.missing_frames == 0


def test_times_are_the_containers_where_the_rate_varies(tmp_path):
    av = pytest.importorskip("av")
    ticks = [0, 40, 80, 400, 440, 1000]
    with av.open(str(tmp_path / "varying.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = SIZE
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        for index, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(numbered_frame(index), format="bgr24")
            frame.pts, frame.time_base = tick, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    times = [frame.time_s for frame in open_source(str(tmp_path / "varying.mp4"))]
    np.testing.assert_allclose(times, np.array(ticks) / 1000, atol=1e-3)


def test_frames_are_counted_where_the_container_has_no_clock(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.VideoSource, "_position", lambda self: 0.0)
    times = [frame.time_s for frame in open_source(str(write_clip(tmp_path / "clip.mp4")))]
    np.testing.assert_allclose(times, np.arange(20) / 10)


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_cut_off_file_gives_what_there_is(tmp_path, suffix):
    source = open_source(str(write_cut_clip(tmp_path / f"cut{suffix}", frames=60, fps=10)))
    numbers = [number_of(frame.frame_bgr) for frame in source]
    assert 0 < len(numbers) < 60
    assert numbers == list(range(len(numbers)))
    assert source.missing_frames == source.frame_count - len(numbers)


def test_a_folder_and_a_pattern_of_images(tmp_path):
    for index in range(12):
        cv2.imwrite(str(tmp_path / f"{index:03d}.png"), numbered_frame(index))
    (tmp_path / "notes.txt").write_text("not an image")
    for name in (str(tmp_path), f"{tmp_path}/*.png"):
        source = open_source(name)
        assert source.frame_count == 12
        assert [number_of(frame.frame_bgr) for frame in source] == list(range(12))
    assert [number_of(frame.frame_bgr) for frame in open_source(str(tmp_path / "005.png"))] == [5]


def test_a_video_is_given_back_however_reading_ends(tmp_path):
    clip = str(write_clip(tmp_path / "clip.mp4"))
    for end in ("all", "part", "error", "unread"):
        source = open_source(clip)
        frames = iter(source)
        if end == "all":
            list(frames)
        elif end == "part":
            next(frames)
            frames.close()
        elif end == "error":
            source._decode = None  # what raises in the middle
            with pytest.raises(TypeError):
                list(frames)
        else:
            source.close()
        assert not source._capture.isOpened(), end


def _nothing(tmp_path):
    return tmp_path / "missing.mp4"


def _empty(tmp_path):
    (tmp_path / "empty.mp4").touch()
    return tmp_path / "empty.mp4"


def _text(tmp_path):
    (tmp_path / "text.mp4").write_text("This is no video.\n" * 100)
    return tmp_path / "text.mp4"


def _without_end(tmp_path):
    return write_cut_clip(tmp_path / "cut.mp4")


def _without_frames(tmp_path):
    return write_clip(tmp_path / "none.avi", frames=0)


def _small(tmp_path):
    return write_clip(tmp_path / "small.mp4", size=(16, 64))


def _no_images(tmp_path):
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def _broken_image(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG but no more")
    return tmp_path / "broken.png"


BAD_SOURCES = {
    "does not exist": _nothing,
    "is empty (0 bytes)": _empty,
    "is not a video that can be opened": _text,
    "its end is cut off": _without_end,
    "none.avi": _without_frames,
    "frames of 16x64": _small,
    "has no images": _no_images,
    "is not an image that can be decoded": _broken_image,
}


@pytest.mark.parametrize("words", BAD_SOURCES)
def test_what_cannot_be_used_is_refused_by_name(tmp_path, words):
    path = BAD_SOURCES[words](tmp_path)
    with pytest.raises(InputError) as error:
        open_source(str(path))
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_images_of_two_sizes_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), numbered_frame(0))
    cv2.imwrite(str(tmp_path / "1.png"), numbered_frame(1, (96, 96)))
    with pytest.raises(InputError, match=r"1\.png is 96x96 .* is 64x128"):
        list(open_source(str(tmp_path)))
