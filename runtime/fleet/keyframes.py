"""Where a video may be cut: key frames that decode on their own, found by reading packets without decoding them.

A cut is clean where every packet before the key frame is shown before it and every packet from it on is shown no
earlier: then the frames of one side need nothing of the other. Open groups of pictures have frames that follow their
key frame and are shown before it, so a single unclean key frame is reason enough not to cut that video at all.
What calls itself a key frame is believed of codecs where that means a fresh start. In H.264 and H.265 it may also be a
point from which a picture recovers step by step, so there the packet must begin with a picture that resets the decoder.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from splitmerge.errors import InputError

if TYPE_CHECKING:
    from av.video.stream import VideoStream

__all__ = ["Packets", "Segment", "Untrusted", "packets_of", "segments_of"]

RESETS = {"h264": range(5, 6), "hevc": range(16, 22)}
"""NAL unit types of pictures that reset the decoder: IDR (ITU-T H.264, table 7-1), IRAP (ITU-T H.265, table 7-1)."""

SLICES = {"h264": range(1, 6), "hevc": range(32)}
"""NAL unit types of coded pictures in the same tables; others are parameter sets and messages."""

BELIEVED = ("mjpeg", "mpeg4", "vp8", "vp9", *RESETS)
"""Codecs, as FFmpeg calls them, whose segments were proven to decode to the frames of the whole."""


class Untrusted(Exception):
    """Why a video's key frames cannot be trusted. It is not cut then."""


@dataclass(frozen=True)
class Segment:
    """`count` frames in display order from the video's frame `first` on.

    `start_s` is the time of its first frame. Its packets are those from `key_pts` up to, not including, `end_pts`
    (None: up to the end), time stamps in the stream's own unit. The whole of a video that is not cut has neither count
    nor time stamps.
    """

    first: int = 0
    count: int | None = None
    start_s: float = 0.0
    key_pts: int | None = None
    end_pts: int | None = None

    @property
    def name(self) -> str:
        """Its folder's name."""
        return "whole" if self.key_pts is None else f"{self.first:08d}-{self.count}"


@dataclass(frozen=True)
class Packets:
    """A video's packets in the order of decoding: `pts` in units of `tick_s` seconds, of which `start` is the video's
    time 0, and which of them are key frames.
    """

    pts: tuple[int, ...]
    keys: tuple[int, ...]
    start: int
    tick_s: float

    def time_s(self, pts: int) -> float:
        """When a frame is shown: the product of two floats, as OpenCV computes it, and six decimals."""
        return round((pts - self.start) * self.tick_s, 6)


def packets_of(path: Path) -> Packets:
    """Read all packets of a video's first video stream. Raises Untrusted where they tell too little to cut there."""
    import av
    from av.error import FFmpegError

    pts: list[int] = []
    keys: list[int] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path} has no video stream: take it out of the folder.")
            stream = container.streams.video[0]
            if (codec := stream.codec_context.name.removeprefix("lib")) not in BELIEVED:
                raise Untrusted(f"nobody has proven the key frames of {codec}")
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue  # demuxing ends with an empty one
                if packet.pts is None or packet.is_discard or packet.is_corrupt:
                    raise Untrusted("packets are damaged, hidden or without a time stamp")
                if packet.is_keyframe:
                    _check_reset(codec, bytes(packet), stream)
                    keys.append(len(pts))
                pts.append(packet.pts)
            return Packets(tuple(pts), tuple(keys), stream.start_time or 0, float(stream.time_base or 0))
    except FFmpegError as error:
        raise Untrusted(f"its packets cannot be read ({error.strerror or error})") from None


def segments_of(packets: Packets, seconds: float) -> tuple[Segment, ...]:
    """Segments of at least `seconds`, but for the last, each beginning at a key frame.

    Raises Untrusted where the video does not begin with a key frame or one of them is no clean cut.
    """
    pts, total = packets.pts, len(packets.pts)
    if not packets.keys or packets.keys[0] != 0:
        raise Untrusted("it does not begin with a key frame")
    if min(pts) < packets.start:
        raise Untrusted("frames come before its beginning")
    if len(set(pts)) < total:
        raise Untrusted("two packets have the same time stamp")
    least_from, most_before = _extremes(pts)
    cuts = [0]
    for key in packets.keys:
        if least_from[key] < pts[key] or (key and most_before[key] > pts[key]):
            raise Untrusted("frames that follow a key frame are shown before it (open groups of pictures)")
        if (pts[key] - pts[cuts[-1]]) * packets.tick_s >= seconds:
            cuts.append(key)
    ends = [*cuts[1:], total]
    return tuple(
        Segment(first, end - first, packets.time_s(pts[first]), pts[first], pts[end] if end < total else None)
        for first, end in zip(cuts, ends, strict=True)
    )


def _extremes(pts: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """At each packet, the least time stamp from it on and the greatest before it (for the first, its own)."""
    least, most = list(pts), list(pts)
    for i in range(len(pts) - 2, -1, -1):
        least[i] = min(least[i], least[i + 1])
    for i in range(1, len(pts)):
        most[i] = max(most[i - 1], pts[i - 1])
    return least, most


def _check_reset(codec: str, data: bytes, stream: "VideoStream") -> None:
    if codec not in RESETS:
        return
    kind = _first_slice(codec, data, stream.codec_context.extradata or b"")
    if kind not in RESETS[codec]:
        raise Untrusted(f"a key frame does not reset the decoder (its first slice has NAL type {kind})")


def _first_slice(codec: str, data: bytes, header: bytes) -> int | None:
    """The type of a packet's first NAL unit that is part of a picture.

    Units follow start codes, or are preceded by their lengths, of a size that the stream's header gives
    (ISO/IEC 14496-15, avcC and hvcC; those begin with 1, start codes with 0).
    """
    prefixed = header[:1] == b"\1"
    width = (header[4 if codec == "h264" else 21] & 3) + 1 if prefixed else 3
    at = 0 if prefixed else data.find(b"\0\0\1")
    while at >= 0 and at + width < len(data):
        unit = data[at + width]
        kind = unit & 31 if codec == "h264" else unit >> 1 & 63
        if kind in SLICES[codec]:
            return kind
        at = at + width + int.from_bytes(data[at : at + width], "big") if prefixed else data.find(b"\0\0\1", at + 3)
    return None
