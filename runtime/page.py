"""A live page of a run on localhost, and its numbers for Prometheus, by Python's own HTTP server.

    /                          page.html, which needs nothing from elsewhere and polls the two below
    /sources.json              what runtime.monitor.Monitor.status says of each source, in a list
    /overlay.jpg?source=NAME   a source's newest frame with its labels over it (of the first without a name); 204
                               before the first frame
    /status.json?source=NAME   one source's status alone, likewise
    /metrics                   Prometheus' text format

There is nothing else to be had: paths are looked up in that table, never in a folder. Answers are made on the viewer's
thread; one that hangs is cut off after SILENCE_S, and more than MOST_VIEWERS at a time are turned away.
"""

import errno
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, urlsplit

from runtime.metrics_endpoint import CONTENT_TYPE_LATEST, Metrics
from runtime.monitor import Monitor
from runtime.sinks import Result, Sink
from splitmerge.errors import InputError
from splitmerge.labels import LabelClass

__all__ = ["LivePage", "address_from_text", "live_page"]

LOCALHOST = "127.0.0.1"
SILENCE_S = 10.0
MOST_VIEWERS = 32

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:"
    ),
    "X-Content-Type-Options": "nosniff",
}

Answer = Callable[[Monitor], tuple[str, bytes | None]]
"""Gives a content type and the content for the source that was asked about, None where there is none yet."""


@dataclass(frozen=True)
class LivePage:
    """A page that is being served: feed `sinks`, one for each source by its name, with results, look at `url`."""

    sinks: Mapping[str, Sink]
    url: str
    monitors: Mapping[str, Monitor]

    @property
    def sink(self) -> Sink:
        """The only source's."""
        (sink,) = self.sinks.values()
        return sink

    def end(self, source: str, failed: bool = False) -> None:
        """Show that no more frames will come of a source."""
        self.monitors[source].state = "failed" if failed else "ended"


def address_from_text(text: str) -> tuple[str, int]:
    """`8080` to (127.0.0.1, 8080), `0.0.0.0:8080` and `[::]:8080` to that host. Port 0 takes one that is free.

    Raises InputError for anything else.
    """
    match = re.fullmatch(r"(?:(?P<host>\[[0-9a-fA-F:.]+\]|[\w.-]+):)?(?P<port>[0-9]{1,5})", text)
    if not match or int(match["port"]) > 65535:
        raise InputError(f"--page {text} is no address: give PORT or HOST:PORT, such as 8080 or 0.0.0.0:8080.")
    return (match["host"] or LOCALHOST).strip("[]"), int(match["port"])


@contextmanager
def live_page(
    address: str, classes: tuple[LabelClass, ...], alpha: float = 0.55, sources: Sequence[str] = ("source",)
) -> Iterator[LivePage]:
    """Serve the page at `address`, [HOST:]PORT, until the block ends; the port is free again then. `sources` are their
    names, each different and fit to be shown.

    Raises InputError where nothing can listen there.
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"An overlay's alpha of {alpha:g} cannot be: choose 0 (frame only) to 1 (labels only).")
    host, port = address_from_text(address)
    monitors = {source: Monitor(classes, alpha, source) for source in sources}
    metrics = Metrics(monitors)
    html = files("runtime").joinpath("page.html").read_bytes()
    answers: dict[str, Answer] = {
        "/": lambda _: ("text/html; charset=utf-8", html),
        "/sources.json": lambda _: _json([monitor.status() for monitor in monitors.values()]),
        "/status.json": lambda monitor: _json(monitor.status()),
        "/overlay.jpg": lambda monitor: ("image/jpeg", monitor.jpeg()),
        "/metrics": lambda _: (CONTENT_TYPE_LATEST, metrics.text()),
    }

    def sink(source: str) -> Sink:
        def take(result: Result) -> None:
            monitors[source].take(result)
            metrics.take(source, result)

        return take

    sinks = {source: sink(source) for source in sources}
    server = _listening(host, port, answers, monitors)
    shown = f"[{host}]" if ":" in host else host
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="page", daemon=True)
    thread.start()
    try:
        yield LivePage(sinks, f"http://{shown}:{server.server_address[1]}/", monitors)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _json(value: object) -> tuple[str, bytes]:
    return "application/json", json.dumps(value).encode()


def _listening(host: str, port: int, answers: dict[str, Answer], monitors: Mapping[str, Monitor]) -> "_Server":
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return _Server(family, (str(place[0]), port), answers, monitors, _names_of(host))
    except (OSError, UnicodeError) as error:  # UnicodeError is of a name that cannot be a host's
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise InputError(f"Port {port} of {host} is in use: name another with --page.") from None
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise InputError(
            f"The page cannot listen on port {port} of {host} ({reason}): name another with --page."
        ) from None


def _names_of(host: str) -> frozenset[str] | None:
    """What a browser may call the server: on localhost its names only, so that no web page elsewhere can have its own
    name resolve to this machine and read along; None, anything, where others are to look on.
    """
    try:
        local = ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return frozenset({"localhost", "127.0.0.1", "::1", host}) if local else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a viewer that hangs does not hold up the end of the run
    allow_reuse_address = os.name != "nt"  # there it would let two programs share a port

    def __init__(
        self,
        family: int,
        address: tuple[str, int],
        answers: dict[str, Answer],
        monitors: Mapping[str, Monitor],
        names: frozenset[str] | None,
    ) -> None:
        self.address_family = family
        self.answers, self.monitors, self.names = answers, monitors, names
        self._places = threading.BoundedSemaphore(MOST_VIEWERS)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own looks up this machine's name, which can take seconds where a resolver is away.
        socket_address = self.server_address
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(self.allow_reuse_address))
        self.socket.bind(socket_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):  # a viewer that went away is no error
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = SILENCE_S
    server_version, sys_version = "splitmerge", ""

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        answer, monitor = self.server.answers.get(asked.path), self._monitor(asked.query)
        if not self._is_called_by_name():
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"This page is for the machine that it runs on.\n")
        elif answer is None or monitor is None:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"There is no such page.\n")
        else:
            kind, content = answer(monitor)
            self._send(HTTPStatus.NO_CONTENT if content is None else HTTPStatus.OK, kind, content or b"")

    do_HEAD = do_GET

    def _monitor(self, query: str) -> Monitor | None:
        """Of the source that was asked about, the first where none was; None where there is no such source."""
        first = next(iter(self.server.monitors))
        return self.server.monitors.get(parse_qs(query).get("source", [first])[0])

    def _is_called_by_name(self) -> bool:
        try:
            called = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        except ValueError:
            return False
        return self.server.names is None or called in self.server.names

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: stderr is the run's."""
