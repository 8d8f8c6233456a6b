"""Real servers of live video on loopback, each a process of its own that can be paused, slowed and killed.

GStreamer's RTSP server from Debian, and ffmpeg from imageio-ffmpeg for RTMP, HTTP, UDP and MJPEG.
"""

import functools
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from clips import SIZE, numbered_frame
from senders import ffmpeg_path, free_port

RATE, GOP, FRAMES = 25, 10, 200
LOGIN = ("admin", "s3cret@home")
PROTOCOLS = ("rtsp", "rtmp", "http", "mjpeg", "udp")


class Server:
    """A server on a port of its own. What ends is started again, as a service manager does; `with` ends it for good.

    `url` holds a password where there is a `login`; `said` is what it printed, once it ended.
    """

    def __init__(self, protocol, streams, login=None, udp=False):
        self.protocol, self.streams, self.login, self.udp = protocol, streams, login, udp
        self.port, self.said = free_port(socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM), ""
        self.starts = 0
        self._closed, self._process, self._lock = threading.Event(), None, threading.Lock()
        self._command()  # skips where something is missing
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    @property
    def url(self):
        if self.protocol == "rtsp":
            password = self.login[-1].replace("@", "%40") if self.login else ""
            user = f"{self.login[-2]}:{password}@" if self.login else ""
            return f"rtsp://{user}127.0.0.1:{self.port}/live"
        scheme, path = {"rtmp": ("rtmp", "/live/a"), "udp": ("udp", "")}.get(self.protocol, ("http", "/live"))
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def _command(self):
        if self.protocol == "rtsp":
            login = ["--login", *self.login] if self.login else []
            streams = [f"live={self.streams / 'clip.mkv'}", f"archive={self.streams / 'archive.mp4'}"]
            server = Path(__file__).with_name("rtsp_server.py")
            return [python_with_gstreamer(), server, str(self.port), *streams, *login, *["--udp"] * self.udp]
        send = [ffmpeg_path(), "-v", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i"]
        if self.protocol == "mjpeg":
            how = ["-c", "copy", "-f", "mpjpeg", "-content_type", "multipart/x-mixed-replace;boundary=ffmpeg"]
            return [*send, self.streams / "clip.avi", *how, "-listen", "1", self.url]
        how = ["-c", "copy", "-f", "flv" if self.protocol == "rtmp" else "mpegts"]
        return [*send, self.streams / "clip.ts", *how, *([] if self.protocol == "udp" else ["-listen", "1"]), self.url]

    def _keep(self):
        while not self._closed.is_set():
            with self._lock:
                self._process = subprocess.Popen(self._command(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                self.starts += 1
            self.said += self._process.communicate()[0].decode()
            self._closed.wait(0.05)

    def __enter__(self):
        self._keeper.start()
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._closed.set()
        self.kill()
        self._keeper.join()

    def signal(self, number):
        with self._lock:
            if self._process and self._process.poll() is None:
                self._process.send_signal(number)

    def pause(self):
        """Its sockets stay open and silent."""
        self.signal(signal.SIGSTOP)

    def go_on(self):
        self.signal(signal.SIGCONT)

    def kill(self):
        self.signal(signal.SIGKILL)

    def slow(self, seconds):
        """Let it run a fifth of the time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.pause()
            time.sleep(0.2)
            self.go_on()
            time.sleep(0.05)


@functools.cache
def python_with_gstreamer():
    """A Python that can run rtsp_server.py, as a path; skips the test where there is none."""
    words = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst; Gst.init(None); "
    words += "import sys; sys.exit(not all(map(Gst.ElementFactory.find, ('matroskademux', 'qtdemux', 'rtph264pay'))))"
    for python in (sys.executable, "/usr/bin/python3"):
        if shutil.which(python) and not subprocess.run([python, "-c", words], capture_output=True).returncode:
            return python
    return pytest.skip(
        "needs GStreamer's RTSP server: apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good"
    )


def make_streams(folder, size=SIZE):
    """200 frames with their numbers in the pixels in the forms that servers want: H.264 with a key frame each 10 as
    clip.ts, clip.mp4 and, 20 times over and without a length, clip.mkv; the
    first 50 of them as archive.mp4; MJPEG as clip.avi.
    """
    raw = b"".join(numbered_frame(i, size).tobytes() for i in range(FRAMES))
    source = ("-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{size[1]}x{size[0]}", "-r", RATE, "-i", "-")
    h264 = ("-c:v", "libx264", "-g", GOP, "-keyint_min", GOP, "-sc_threshold", 0, "-bf", 0, "-pix_fmt", "yuv420p")
    _convert(*source, *h264, folder / "clip.ts", *("-c:v", "mjpeg", "-q:v", 3), folder / "clip.avi", given=raw)
    _convert("-i", folder / "clip.ts", "-c", "copy", folder / "clip.mp4")
    _convert("-i", folder / "clip.ts", "-c", "copy", "-t", 2, folder / "archive.mp4")
    _convert(
        "-stream_loop", 20, "-i", folder / "clip.mp4", "-c", "copy", "-f", "matroska", "-live", 1, folder / "clip.mkv"
    )
    return folder


def _convert(*arguments, given=b""):
    command = [ffmpeg_path(), "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, input=given, check=True, timeout=60)
