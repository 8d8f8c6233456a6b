"""Interlaced video, which OpenCV's FFmpeg decodes and then cannot convert: what it hands out is memory as it was."""

from contextlib import suppress
from pathlib import Path

from splitmerge.errors import InputError

__all__ = ["REMEDY", "refuse_interlaced"]

REMEDY = "give it whole lines first, as with `ffmpeg -i IN -vf yadif OUT`"


def refuse_interlaced(path: Path) -> None:
    """Raises InputError where the first frame is made of two fields. Takes PyAV; without it nothing can be known."""
    try:
        import av
    except ImportError:
        return
    # What PyAV cannot open, OpenCV may, or it has said so in its own words.
    with suppress(av.error.FFmpegError, IndexError, StopIteration), av.open(str(path)) as container:
        if next(container.decode(video=0)).interlaced_frame:
            raise InputError(f"{path} is interlaced, and OpenCV cannot convert such frames: {REMEDY}.")
