"""Join what was computed in pieces of one video: overlay videos, records and label maps, in the video's order.

    join_videos([first, second], out)                    packets are copied, nothing is encoded again
    join_records([first, second], [0, 250], out)         250: the frame of the video that `second` begins with
    join_masks([first, second], [0, 250], out)

A frame's number in a piece counts from the piece's first frame, so `starts` says where each begins; pieces that carry
the video's own numbers take zeros. The results are whole or absent, as all outputs are.
"""

import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.gops import CONTAINERS, TICK, muxer_options
from splitmerge.errors import InputError
from splitmerge.files import new_file, new_folder

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.error import FFmpegError
    from av.video.stream import VideoStream

__all__ = ["join_masks", "join_records", "join_videos"]

_Kind = tuple[str, int, int, bytes | None]


def join_videos(parts: Sequence[Path], out: Path, starts_s: Sequence[float] | None = None) -> int:
    """Write the frames of `parts`, videos of `runtime.video_writer`, one after the other; gives how many they are.

    `starts_s` is the time in seconds in the whole at which each part's own time 0 lies; without it a part follows where
    the one before ends. Needs PyAV. Raises InputError where a part cannot be read or is of another size or codec than
    the first, and where times do not grow.
    """
    try:
        import av
        from av.error import FFmpegError
    except ImportError:
        raise InputError(f"{out} cannot be joined without PyAV: pip install av.") from None
    if out.suffix.lower() not in CONTAINERS:
        raise InputError(f"{out} cannot be joined: end its name in {', '.join(CONTAINERS)}.")
    starts = [None] * len(parts) if starts_s is None else [round(start / TICK) for start in starts_s]
    _check(parts, starts, out)
    with new_file(out) as temporary:
        try:
            container = av.open(str(temporary), "w", CONTAINERS[out.suffix.lower()], options=muxer_options(out))
        except FFmpegError as error:
            raise _unjoinable(out, error) from None
        joined = _Joined(container, out)
        try:
            for part, start in zip(parts, starts, strict=True):
                joined.append(part, start)
        except BaseException:
            with suppress(FFmpegError):
                container.close()
            raise
        try:
            container.close()
        except FFmpegError as error:
            raise _unjoinable(out, error) from None
        if not joined.frames:
            raise InputError(f"{out} would have no frame: name videos that have some.")
    return joined.frames


class _Joined:
    """A video that grows by other videos' packets. `end` is where the last of them ends, in ticks."""

    def __init__(self, container: "OutputContainer", out: Path) -> None:
        self.frames, self.end = 0, 0
        self._container, self._out, self._last = container, out, -1
        self._stream: VideoStream | None = None
        self._first: tuple[Path, _Kind] | None = None

    def append(self, part: Path, start: int | None) -> None:
        import av
        from av.error import FFmpegError

        try:
            with av.open(str(part)) as container:
                self._append(container, part, self.end if start is None else start)
        except FFmpegError as error:
            raise _unjoinable(part, error) from None

    def _append(self, container: "InputContainer", part: Path, start: int) -> None:
        if not container.streams.video:
            raise InputError(f"{part} has no video to be joined: name another.")
        given = container.streams.video[0]
        stream = self._stream_like(given, part)
        usual = round(1 / (given.average_rate or Fraction(25)) / TICK)
        for packet in container.demux(given):
            if not packet.size or packet.pts is None or packet.time_base is None:
                continue  # the end
            time = start + round(packet.pts * packet.time_base / TICK)
            duration = round((packet.duration or 0) * packet.time_base / TICK) or usual
            if time <= self._last:
                raise InputError(f"{part} begins before the video before it ends: give starts that grow.")
            packet.time_base, packet.pts, packet.dts, packet.duration = TICK, time, time, duration
            packet.stream = stream
            self._container.mux(packet)
            self._last, self.end, self.frames = time, time + duration, self.frames + 1

    def _stream_like(self, given: "VideoStream", part: Path) -> "VideoStream":
        context = given.codec_context
        kind = context.name, context.height, context.width, context.extradata
        if self._stream is None or self._first is None:
            self._stream = self._container.add_stream_from_template(given, opaque=True)
            self._stream.time_base = TICK
            self._first = part, kind
        elif kind != self._first[1]:
            raise InputError(
                f"{part} ({_words(kind)}) cannot follow {self._first[0]} ({_words(self._first[1])}): join videos that "
                "were made with the same options."
            )
        return self._stream


def join_records(parts: Sequence[Path], starts: Sequence[int], out: Path) -> int:
    """Write the lines of `parts`, files of one JSON object a frame, with `starts` added to their "frame"; gives their
    number. Raises InputError where a line is none, and where the frames of two parts overlap.
    """
    _check(parts, starts, out)
    last, frames = -1, 0
    with new_file(out) as temporary, temporary.open("w") as file:
        for part, start in zip(parts, starts, strict=True):
            for line in _lines(part):
                record = _record(line, part)
                record["frame"] += start
                if record["frame"] <= last:
                    raise InputError(f"{part} has frame {record['frame']} after frame {last}: give starts that grow.")
                last, frames = record["frame"], frames + 1
                file.write(json.dumps(record) + "\n")
    return frames


def join_masks(parts: Sequence[Path], starts: Sequence[int], out: Path) -> int:
    """Gather the label maps of `parts`, folders of 000000.png, ..., with `starts` added to their numbers.

    Gives how many. Files are linked where the disk can, and copied where not. Raises InputError where a folder holds
    anything else, and where the frames of two parts overlap.
    """
    _check(parts, starts, out)
    frames = 0
    with new_folder(out) as temporary:
        for part, start in zip(parts, starts, strict=True):
            for path in _masks(part):
                target = temporary / f"{int(path.stem) + start:06d}.png"
                if target.exists():
                    raise InputError(f"{path} would be a second {target.name} in {out}: give starts that grow.")
                _link_or_copy(path, target)
                frames += 1
    return frames


def _check(parts: Sequence[Path], starts: Sequence[object], out: Path) -> None:
    if not parts or len(parts) != len(starts):
        raise InputError(f"{out} cannot be joined of {len(parts)} parts and {len(starts)} starts: give one for each.")
    for part in parts:
        if not part.exists():
            raise InputError(f"There is no {part} to be joined.")
        if part.resolve() == out.resolve():
            raise InputError(f"{out} is one of its own parts: name another output.")


def _lines(part: Path) -> list[str]:
    try:
        return part.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{part} cannot be read as records ({error}).") from None


def _record(line: str, part: Path) -> dict[str, int]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("frame"), int):
        raise InputError(f"{part} has the line {line[:60]!r}, which is no frame's record: make it again.")
    return record


def _masks(part: Path) -> list[Path]:
    paths = sorted(part.iterdir()) if part.is_dir() else []
    for path in paths:
        if not re.fullmatch(r"\d{6,}\.png", path.name):
            raise InputError(f"{path} is no label map: name folders that `--masks` made.")
    return paths


def _link_or_copy(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(path, target)


def _words(kind: _Kind) -> str:
    return f"{kind[0]} {kind[1]}x{kind[2]}"


def _unjoinable(path: Path, error: "FFmpegError") -> InputError:
    return InputError(f"{path} cannot be joined ({error.strerror or error}): make it again, or make room on its disk.")
