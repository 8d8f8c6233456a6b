"""What a name means, and that no credential is left in what is shown of it."""

import pytest

from runtime.addresses import camera_of, masked


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("rtsp://user:pass@cam/stream", "rtsp://***@cam/stream"),
        ("rtsp://user:p@ss@cam:554/1", "rtsp://***@cam:554/1"),
        ("rtsp://user:p/a?ss@cam/1", "rtsp://***"),
        ("http://user:pass@cam/a?pwd=pass", "http://***@cam/a?***"),
        ("http://cam/a?user=u&pwd=p@ss", "http://***"),
        ("HTTPS://u:pass@cam/", "HTTPS://***@cam/"),
        ("udp://127.0.0.1:1234", "udp://127.0.0.1:1234"),
        ("drive@home?.mp4", "drive@home?.mp4"),
    ],
)
def test_masked(name, shown):
    assert masked(name) == shown


def test_cameras():
    assert camera_of("0") == 0
    assert camera_of("/dev/null") == "/dev/null"
    assert camera_of("./0") is None and camera_of("/dev/video-that-is-not") is None and camera_of("a.mp4") is None
