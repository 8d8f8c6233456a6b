"""Debian's Chromium without a screen, and a small server that a page of a test can report to."""

import functools
import http.server
import json
import queue
import shutil
import subprocess
import threading
from contextlib import contextmanager

import pytest

OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"),
    *("--autoplay-policy=no-user-gesture-required", "--window-size=900,700"),
)


def chromium():
    return shutil.which("chromium") or pytest.skip("needs chromium: apt-get install chromium")


def screenshot(url, path, wait_ms=3000):
    """What the page looks like after a while (of the browser's own clock)."""
    options = [*OPTIONS, f"--virtual-time-budget={wait_ms}", f"--screenshot={path}", url]
    subprocess.run([chromium(), *options], capture_output=True, check=True, timeout=120)
    return path


@contextmanager
def served(folder):
    """The folder on localhost: its address, and a queue of what its pages post, from JSON."""
    reports = queue.Queue()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", reports
        server.shutdown()


@contextmanager
def browsing(url, profile):
    """A browser that has the page open."""
    process = subprocess.Popen(
        [chromium(), *OPTIONS, f"--user-data-dir={profile}", url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)
