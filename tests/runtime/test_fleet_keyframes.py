"""Where videos are cut: FFmpeg encodes, ffprobe tells the key frames, a whole decode tells the frames."""

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import runtime.fleet.segment as segment_module
from runtime.fleet.keyframes import Packets, Segment, Untrusted, packets_of, segments_of
from runtime.fleet.segment import SegmentSource
from runtime.sources import VideoSource

pytest.importorskip("av", reason="needs PyAV: pip install av")

FRAMES, EVERY = 100, 12  # frames, and from one key frame to the next
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-sc_threshold", "0")
UNEVEN = ("-vf", "setpts='N/25/TB+0.013*mod(N,3)/TB'", "-fps_mode", "vfr")
VP9 = ("-c:v", "libvpx-vp9", "-b:v", "300k", "-cpu-used", "8")

CUT = {
    "b-frames.mp4": (*X264, "-bf", "3"),
    "b-frames.mkv": (*X264, "-bf", "3"),
    "b-frames.ts": (*X264, "-bf", "3"),  # no index to seek by, and time does not begin at 0
    "uneven.mp4": (*UNEVEN, *X264, "-bf", "3"),
    "uneven.mkv": (*UNEVEN, *X264, "-bf", "3"),
    "colours.mp4": (*X264, "-pix_fmt", "yuv444p"),
    "sound.mp4": ("-f", "lavfi", "-i", "sine=d=4", *X264, "-bf", "3", "-c:a", "aac"),
    "h265.mp4": ("-c:v", "libx265", "-x265-params", "log-level=error:open-gop=0:scenecut=0", "-preset", "ultrafast"),
    "mpeg4.mp4": ("-c:v", "mpeg4", "-bf", "0"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-bf", "0"),
    "vp8-hidden.webm": ("-c:v", "libvpx", "-b:v", "300k", "-auto-alt-ref", "1", "-lag-in-frames", "8"),
    "vp9.webm": (*VP9, "-deadline", "realtime"),
    "vp9-hidden.webm": (*VP9, "-deadline", "good", "-auto-alt-ref", "1", "-lag-in-frames", "12"),
    "mjpeg.avi": ("-c:v", "mjpeg"),
    "mjpeg.mov": ("-c:v", "mjpeg"),
}
WHOLE = {
    "open.mp4": ((*X264, "-bf", "3", "-x264-params", "open-gop=1"), "does not reset the decoder"),
    "refreshing.ts": ((*X264, "-bf", "0", "-x264-params", "intra-refresh=1"), "does not reset the decoder"),
    "refreshing.mkv": ((*X264, "-bf", "0", "-x264-params", "intra-refresh=1"), "does not reset the decoder"),
    "open-h265.mp4": (
        ("-c:v", "libx265", "-x265-params", "log-level=error:open-gop=1", "-preset", "ultrafast"),
        "shown before it",
    ),
    "mpeg4-b.mp4": (("-c:v", "mpeg4", "-bf", "2"), "shown before it"),
    "mpeg2.ts": (("-c:v", "mpeg2video", "-bf", "2"), "mpeg2video"),
}


@pytest.fixture(scope="module")
def encode(tmp_path_factory):
    """A function that encodes a clip by FFmpeg's own program, once for each name."""
    imageio = pytest.importorskip("imageio_ffmpeg", reason="needs imageio-ffmpeg, which carries ffmpeg")
    folder = tmp_path_factory.mktemp("clips")

    def made(name, options):
        if not (folder / name).exists():
            source = ("-f", "lavfi", "-i", f"testsrc2=s=96x64:r=25:d={FRAMES / 25:g}")
            command = [
                imageio.get_ffmpeg_exe(),
                "-v",
                "error",
                "-y",
                *source,
                *options,
                "-g",
                str(EVERY),
                folder / name,
            ]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return folder / name

    return made


def _facts(frames):
    return [(f.index, f.time_s, f.frame_bgr.shape, hashlib.sha256(f.frame_bgr).hexdigest()) for f in frames]


def _in_segments(path, segments):
    whole = VideoSource(path)
    whole.close()
    return [fact for each in segments for fact in _facts(SegmentSource(path, each, whole.size, whole.fps))]


@pytest.mark.parametrize("name", CUT)
def test_segments_give_the_frames_of_the_whole(name, encode):
    path = encode(name, CUT[name])
    segments = segments_of(packets_of(path), 0.9)
    assert len(segments) >= 4 and sum(segment.count for segment in segments) == FRAMES
    assert _in_segments(path, segments) == _facts(VideoSource(path))


@pytest.mark.parametrize("name", CUT)
def test_segments_begin_at_what_ffprobe_calls_key_frames(name, encode):
    if (ffprobe := shutil.which("ffprobe")) is None:
        pytest.skip("ffprobe is missing: install ffmpeg")
    path = encode(name, CUT[name])
    entries = ("-show_entries", "frame=key_frame,pts", "-of", "json")
    said = subprocess.run(
        [ffprobe, "-v", "error", "-select_streams", "v:0", *entries, path], capture_output=True, check=True
    )
    keys = {i: frame["pts"] for i, frame in enumerate(json.loads(said.stdout)["frames"]) if frame["key_frame"]}
    finest = segments_of(packets_of(path), 1e-9)
    assert {segment.first: segment.key_pts for segment in finest} == keys


@pytest.mark.parametrize("name", WHOLE)
def test_key_frames_that_are_no_beginning_are_not_trusted(name, encode):
    options, words = WHOLE[name]
    with pytest.raises(Untrusted, match=words):
        segments_of(packets_of(encode(name, options)), 0.9)


@pytest.mark.parametrize("degrees", [90, 180])
def test_a_turned_video(degrees, encode, tmp_path):
    imageio = pytest.importorskip("imageio_ffmpeg", reason="needs imageio-ffmpeg, which carries ffmpeg")
    straight, turned = encode("b-frames.mp4", CUT["b-frames.mp4"]), tmp_path / "turned.mp4"
    turn = ("-display_rotation", str(degrees), "-i", straight, "-c", "copy", turned)
    subprocess.run([imageio.get_ffmpeg_exe(), "-v", "error", *turn], check=True)
    whole = _facts(VideoSource(turned))
    assert whole != _facts(VideoSource(straight))
    assert _in_segments(turned, segments_of(packets_of(turned), 0.9)) == whole


def test_a_video_that_was_cut_without_encoding_has_hidden_packets(encode, tmp_path):
    imageio = pytest.importorskip("imageio_ffmpeg", reason="needs imageio-ffmpeg, which carries ffmpeg")
    source, trimmed = encode("b-frames.mp4", CUT["b-frames.mp4"]), tmp_path / "trimmed.mp4"
    subprocess.run(
        [imageio.get_ffmpeg_exe(), "-v", "error", "-ss", "1.2", "-i", source, "-c", "copy", trimmed], check=True
    )
    with pytest.raises(Untrusted, match="hidden"):
        packets_of(trimmed)


def test_a_wrong_cut_is_noticed_when_it_is_decoded(encode):
    """The plan says where a segment's frames are. One that is told something else must not give its frames for them."""
    path = encode("b-frames.mp4", CUT["b-frames.mp4"])
    packets = packets_of(path)
    first, second = segments_of(packets, 0.9)[:2]
    wrong = [
        replace(first, count=first.count + 1),
        replace(first, count=first.count - 1),
        replace(second, key_pts=second.key_pts + 1),
        # from the middle of a group of pictures on: its frames need those before it
        Segment(first.first + 6, first.count - 6, 0.0, packets.pts[6], first.end_pts),
    ]
    whole = VideoSource(path)
    whole.close()
    for segment in wrong:
        with pytest.raises(Untrusted):
            list(SegmentSource(path, segment, whole.size, whole.fps))
    with pytest.raises(Untrusted, match="size"):
        SegmentSource(path, first, (whole.size[1], whole.size[0]), whole.fps)


def test_frames_that_are_decoded_out_of_their_places_are_noticed(encode, monkeypatch):
    path = encode("uneven.mp4", CUT["uneven.mp4"])
    (first, *_), copied = segments_of(packets_of(path), 0.9), segment_module._copied
    whole = VideoSource(path)
    whole.close()

    def shifted(*arguments):
        times = copied(*arguments)
        return [*times[:5], times[5] + 0.005, *times[6:]]

    monkeypatch.setattr(segment_module, "_copied", shifted)
    with pytest.raises(Untrusted, match="frame 5 is decoded out of its place"):
        list(SegmentSource(path, first, whole.size, whole.fps))


def test_packets_that_cannot_be_cut():
    def cut(pts, keys, start=0):
        return [(each.first, each.count, each.start_s) for each in segments_of(Packets(pts, keys, start, 0.5), 1.0)]

    assert cut((0, 1, 2, 3, 4), (0, 1, 2, 4)) == [(0, 2, 0.0), (2, 2, 1.0), (4, 1, 2.0)]
    assert cut((10, 12, 11, 13, 15, 14), (0, 3), start=10) == [(0, 3, 0.0), (3, 3, 1.5)]
    for pts, keys, start, words in [
        ((0, 1, 2), (), 0, "begin with a key frame"),
        ((0, 1, 2), (1,), 0, "begin with a key frame"),
        ((0, 1, 1), (0,), 0, "same time stamp"),
        ((0, 1, 3, 2, 4), (0, 2), 0, "shown before it"),
        ((0, 4, 3, 5), (0, 2), 0, "shown before it"),  # what comes before it is shown after it
        ((0, 1), (0,), 1, "before its beginning"),
    ]:
        with pytest.raises(Untrusted, match=words):
            cut(pts, keys, start)


def test_a_file_without_packets(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(Untrusted, match="cannot be read"):
        packets_of(tmp_path / "a.mp4")
