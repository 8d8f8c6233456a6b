"""Locks on a run's outputs, so that no two runs write the same."""

import os
from collections.abc import Iterable
from pathlib import Path

from runtime.growing import unwritable
from splitmerge.errors import InputError
from splitmerge.files import writable_folder

__all__ = ["OutputLocks"]


class OutputLocks:
    """Holds `.NAME.run.lock` beside each of the places until `close`; the system frees them if the process dies.

    They are taken in one order, whatever that of the places, so that of two runs with several places in common one
    gets all. Raises InputError where another run has one.
    """

    def __init__(self, places: Iterable[Path]) -> None:
        self._held: list[tuple[Path, int]] = []
        try:
            for place in sorted(places):
                self._take(place)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others run here."""
        while self._held:
            path, fd = self._held.pop()
            path.unlink(missing_ok=True)  # before it is free: afterwards it may be another run's
            os.close(fd)

    def _take(self, place: Path) -> None:
        try:
            import fcntl
        except ImportError:  # Windows, where a file that is being written cannot be replaced anyway
            return
        path = place.with_name(f".{place.name}.run.lock")
        writable_folder(path.parent)
        while True:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise unwritable(path, error) from None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                raise InputError(f"Another run is writing {place}: wait for it, or name other outputs.") from None
            if _is_at(fd, path):
                self._held.append((path, fd))
                return
            os.close(fd)  # its holder has removed it meanwhile, and the next one would make another


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
