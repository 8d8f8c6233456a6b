"""Senders of live video on loopback: MJPEG over HTTP as cameras speak it, and ffmpeg."""

import http.server
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager

import cv2
import pytest
from clips import numbered_frame


def mjpeg_part(image):
    data = cv2.imencode(".jpg", image)[1].tobytes()
    return b"--part\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data) + data + b"\r\n"


def numbered_parts(numbers, seconds=0.02):
    """Parts with the numbers in their pixels, evenly in time."""
    for number in numbers:
        yield mjpeg_part(numbered_frame(number % 256))
        time.sleep(seconds)


class Camera:
    """An HTTP server; `connections` has one iterable of bytes for each connection to come, the last serves the rest.

    `url` holds a password. `requests` counts the connections; closing cuts all of them off.
    """

    def __init__(self, *connections):
        camera, self.requests, self.closed = self, 0, threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                number, camera.requests = camera.requests, camera.requests + 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
                self.end_headers()
                try:
                    for part in connections[min(number, len(connections) - 1)]():
                        if camera.closed.is_set():
                            return
                        self.wfile.write(part)
                except OSError:
                    pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://admin:s3cret@127.0.0.1:{self._server.server_address[1]}/video?pwd=s3cret"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ffmpeg_path():
    return pytest.importorskip("imageio_ffmpeg", reason="needs imageio-ffmpeg, which carries ffmpeg").get_ffmpeg_exe()


@contextmanager
def ffmpeg(*arguments, **how):
    """An ffmpeg process, killed at the end even where it is paused."""
    process = subprocess.Popen([ffmpeg_path(), "-v", "error", "-nostdin", *map(str, arguments)], **how)
    try:
        yield process
    finally:
        process.kill()
        process.send_signal(signal.SIGCONT)
        process.wait()


def wait_for(condition, seconds=30):
    """Until `condition()` holds; a failure after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to this"
        time.sleep(0.01)
