"""ffprobe as a judge of videos: its own decoder, from Debian, of another version than the one under test."""

import json
import shutil
import subprocess

import pytest


def probe(path):
    """The first video stream's facts, and the times in seconds at which its frames are shown (None: unknown)."""
    if shutil.which("ffprobe") is None:
        pytest.skip("needs ffprobe: apt-get install ffmpeg")
    entries = "stream=codec_name,pix_fmt,width,height:frame=best_effort_timestamp_time"
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", entries, "-of", "json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    answer = json.loads(done.stdout)
    times = [frame.get("best_effort_timestamp_time") for frame in answer.get("frames", [])]
    return answer["streams"][0], [None if time is None else float(time) for time in times]
