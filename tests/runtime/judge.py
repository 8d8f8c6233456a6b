"""Videos judged by FFmpeg's own program, another build than the one that wrote them."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from clips import number_of

_EACH = ("-fps_mode", "passthrough", "-copyts", "-enc_time_base", "1:90000")


@dataclass(frozen=True)
class Decoded:
    """Each frame's number (clips.numbered_frame), time in seconds and pixels' hash; what FFmpeg complained of."""

    codec: str
    numbers: list[int]
    times: list[float]
    pixels: list[str]
    errors: str


def ffmpeg(*arguments):
    """Run FFmpeg's program; give what it wrote and what it said."""
    imageio = pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is missing: pip install imageio-ffmpeg")
    done = subprocess.run([imageio.get_ffmpeg_exe(), "-hide_banner", *arguments], capture_output=True, check=False)
    return done.stdout, done.stderr.decode(errors="replace")


def decoded(path: Path) -> Decoded:
    """What FFmpeg makes of a video's frames."""
    said = ffmpeg("-i", str(path))[1]
    width, height = map(int, re.search(r"Video: .*?, (\d+)x(\d+)", said).groups())
    raw, errors = ffmpeg("-v", "error", "-i", str(path), *_EACH, "-f", "rawvideo", "-pix_fmt", "bgr24", "-")
    frames = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
    table = ffmpeg("-v", "error", "-i", str(path), *_EACH, "-f", "framemd5", "-")[0].decode()
    above, below = map(int, re.search(r"#tb 0: (\d+)/(\d+)", table).groups())
    rows = [line.split(",") for line in table.splitlines() if not line.startswith("#")]
    return Decoded(
        codec=re.search(r"Video: (\w+)", said).group(1),
        numbers=[number_of(frame) for frame in frames],
        times=[int(row[2]) * above / below for row in rows],
        pixels=[row[5].strip() for row in rows],
        errors=errors,
    )
