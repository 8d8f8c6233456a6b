"""Ctrl-C and SIGTERM as exceptions, so that both unwind the stack and partial files are seen to."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["EXIT_CODES", "Terminated", "second_ends_at_once", "termination_raised"]

EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}
"""What a shell gives for a process that a signal ended: 128 and the signal's number."""


class Terminated(SystemExit):
    """SIGTERM came."""


@contextmanager
def termination_raised() -> Iterator[None]:
    """Raise Terminated where SIGTERM comes inside the block. A second one ends the process at once."""

    def raise_it(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated(EXIT_CODES["SIGTERM"])

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = signal.signal(signal.SIGTERM, raise_it)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextmanager
def second_ends_at_once() -> Iterator[None]:
    """Inside the block the first Ctrl-C or SIGTERM is an exception and the next one, of either, ends the process."""

    def raise_it(number: int, frame: FrameType | None) -> None:
        for each in ours:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(EXIT_CODES["SIGTERM"])

    # A shell's background job ignores Ctrl-C, and is left to.
    ours = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(each, raise_it) for each in ours]
    try:
        yield
    finally:
        for each, handler in zip(ours, before, strict=True):
            signal.signal(each, handler or signal.SIG_DFL)
