"""One segment of a video as a source of frames: those of the whole video, with their numbers and times there.

The segment's packets are copied as they are into a file of their own, which the very decoder of `splitmerge run` reads.
Whatever shows that its frames are not those that the packets promised, by number or by time, raises Untrusted.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.fleet.keyframes import Packets, Segment, Untrusted
from runtime.frames import Events, SourceFrame
from runtime.sources import VideoSource
from splitmerge.errors import InputError

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["SegmentSource"]

PART = "part.mkv"
"""Matroska takes every codec that is cut, and the rotation."""

TOLERANCE_S = 0.002
"""Matroska counts in milliseconds: a time in the part is up to one off from each side."""


class SegmentSource:
    """A `runtime.frames.Source` of the segment's frames. `size` (height, width) and `fps` are the whole video's.

    Raises InputError where the video cannot be read, Untrusted where the part does not decode to what was promised.
    """

    def __init__(self, path: Path, segment: Segment, size: tuple[int, int], fps: float) -> None:
        assert segment.count is not None
        self.name, self.size, self.fps = str(path), size, fps
        self.paths: tuple[Path, ...] = (path,)
        self.frame_count: int | None = segment.count
        self.missing_frames, self.live, self.events = 0, False, Events()
        self._first = segment.first
        with tempfile.TemporaryDirectory(prefix="splitmerge-") as folder:
            part = Path(folder) / PART
            self._times = _copied(path, segment, part)
            if len(self._times) != segment.count:
                raise Untrusted(f"frame {segment.first} is followed by {len(self._times)} packets, not {segment.count}")
            try:
                self._part = VideoSource(part)  # which keeps the file open after it was removed
            except InputError as error:
                raise Untrusted(f"frame {segment.first} cannot be decoded on its own ({error})") from None
        if self._part.size != size:
            self.close()
            raise Untrusted(f"its frames change their size at frame {segment.first}")

    def __iter__(self) -> Iterator[SourceFrame]:
        count, offset = 0, None
        for frame in self._part:
            if count == len(self._times):
                raise Untrusted(f"more than {count} frames come from as many packets at frame {self._first}")
            time_s = self._times[count]
            offset = time_s - frame.time_s if offset is None else offset
            if abs(frame.time_s + offset - time_s) > TOLERANCE_S:
                raise Untrusted(f"frame {self._first + count} is decoded out of its place")
            yield replace(frame, index=self._first + count, time_s=time_s)
            count += 1
        if count < len(self._times):
            raise Untrusted(f"{count} of {len(self._times)} frames can be decoded from frame {self._first} on")

    def close(self) -> None:
        self._part.close()


def _copied(path: Path, segment: Segment, part: Path) -> list[float]:
    """Copy the segment's packets; give their times in seconds after the stream's start, in display order."""
    import av
    from av.error import FFmpegError

    try:
        for seek in (True, False):  # in a container without an index, seeking may arrive behind the key frame
            with av.open(str(path)) as container, av.open(str(part), "w", "matroska") as copy:
                stream = container.streams.video[0]
                target = copy.add_stream_from_template(stream)
                stamps = []
                for packet in _packets(container, stream, segment, seek):
                    stamps.append(packet.pts or 0)
                    packet.stream = target
                    copy.mux(packet)
                start, tick_s = stream.start_time or 0, float(stream.time_base or 0)
            if stamps:
                break
    except FFmpegError as error:
        raise Untrusted(f"its packets cannot be copied ({error.strerror or error})") from None
    return [Packets((), (), start, tick_s).time_s(stamp) for stamp in sorted(stamps)]


def _packets(
    container: "InputContainer", stream: "VideoStream", segment: Segment, seek: bool
) -> "Iterator[Packet[VideoStream]]":
    """The segment's packets; none where its key frame is not met."""
    assert segment.key_pts is not None
    if seek:
        container.seek(segment.key_pts, stream=stream)
    begun = False
    for packet in container.demux(stream):
        if packet.pts is None or (begun and packet.pts == segment.end_pts):
            return
        begun = begun or packet.pts == segment.key_pts
        if begun:
            yield packet
        elif packet.is_keyframe and packet.pts > segment.key_pts:
            return
