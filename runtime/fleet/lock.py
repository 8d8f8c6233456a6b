"""One coordinator for an output folder: a lock file that names the process, and that the system frees when it dies."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from splitmerge.errors import InputError

__all__ = ["locked"]


@contextmanager
def locked(path: Path) -> Iterator[str | None]:
    """Hold the lock file. Gives a sentence where a process died holding it, else None.

    Raises InputError where another process holds it. A process of another machine is believed to be alive as long as
    its name is in the file, because shared storage need not pass locks between machines.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _taken(path, _holder(file.read())) from None
        host, before = socket.gethostname(), _holder(file.read())
        if before and before[0] != host:
            raise _taken(path, before)
        _write(file.fileno(), json.dumps({"host": host, "pid": os.getpid()}))
        try:
            yield f"process {before[1]} died while it worked here: going on after it" if before else None
        finally:
            _write(file.fileno(), "")


def _holder(text: str) -> tuple[str, int] | None:
    try:
        value = json.loads(text)
        return str(value["host"]), int(value["pid"])
    except (ValueError, KeyError, TypeError):
        return None


def _write(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)
    os.fsync(descriptor)


def _taken(path: Path, holder: tuple[str, int] | None) -> InputError:
    who = f"process {holder[1]} on {holder[0]}" if holder else "another process"
    return InputError(
        f"{path.parent.parent} is being worked on by {who}: wait for it, or delete {path} if that is no longer running."
    )
