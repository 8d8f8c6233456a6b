"""A TCP proxy that can spoil what it carries: a network between a source and its viewer."""

import contextlib
import os
import socket
import socketserver
import threading
import time

CHUNK = 4096


class Mangler:
    """Carries connections on `port` on to `target`, another port of this machine.

    While `garbage` is set, every tenth piece that comes from the target is replaced by random bytes; while `slowness`
    is more than 0, it waits that many seconds before each piece.
    """

    def __init__(self, target):
        self.target, self.garbage, self.slowness = target, False, 0.0
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                try:
                    with socket.create_connection(("127.0.0.1", proxy.target), timeout=20) as there:
                        there.settimeout(None)
                        back = threading.Thread(target=_carry, args=(self.request, there), daemon=True)
                        back.start()
                        _carry(there, self.request, proxy._spoiled)
                        back.join()
                except OSError:
                    pass

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.port = self._server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def _spoiled(self, number, piece):
        time.sleep(self.slowness)
        return os.urandom(len(piece)) if self.garbage and number % 10 == 9 else piece


def _carry(source, sink, change=lambda number, piece: piece):
    """Until either end closes; then both directions are."""
    number = 0
    try:
        while piece := source.recv(CHUNK):
            sink.sendall(change(number, piece))
            number += 1
    except OSError:
        pass
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
