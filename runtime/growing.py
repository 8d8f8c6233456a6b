"""Outputs that grow a frame at a time under a hidden name, `.NAME.partial.END`, and can be cut back and continued.

What an output is at any time: `path` is where it grows and `place` where it belongs. `publish` moves it there, `reopen`
takes it back and `give_back` undoes that. A killed process leaves it at `path`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from splitmerge.errors import InputError
from splitmerge.files import hidden, sync_folder, writable_folder

if TYPE_CHECKING:
    from runtime.sinks import Result

__all__ = ["Growing", "GrowingRecords", "NotContinuable", "Taken", "unwritable"]


class NotContinuable(InputError):
    """What an earlier run left is less than it was to be, so that nothing can go on with it."""


class Growing(Protocol):
    """One output of a run."""

    place: Path

    def begin(self) -> None:
        """Begin anew, over what an earlier run left at the hidden name."""

    def found(self) -> int:
        """How many frames an earlier run left, wherever they are. Nothing is moved."""

    def reopen(self, frames: int) -> None:
        """Take back what was found, and go on after its first `frames`."""

    def give_back(self) -> None:
        """Undo `reopen`, also one that failed half-way: what an earlier run left lies where it lay."""

    def write(self, result: "Result") -> None:
        """Add a frame."""

    def sync(self) -> None:
        """Have what was written on the disk itself."""

    def close(self, frames: int) -> int:
        """End with the first `frames`. Gives how many there are: fewer where the disk has no room for the rest."""

    def publish(self) -> None:
        """Take the place of what is at `place`. To be called when closed."""

    def discard(self) -> None:
        """Leave nothing at the hidden name."""


class Taken:
    """Something at `place` or at the hidden `path`, that is taken from the one to the other and given back."""

    def __init__(self, place: Path, path: Path) -> None:
        self._place, self._path, self._taken = place, path, False

    @property
    def where(self) -> Path:
        """Where it is now: a killed run's is at the hidden name and newer than what is at the place."""
        return self._path if self._path.exists() else self._place

    def take(self) -> None:
        """Have it at the hidden name."""
        if not self._path.exists() and self._place.exists():
            self._taken = True
            self._place.replace(self._path)

    def give_back(self) -> None:
        """Have it where it was before `take`."""
        if self._taken and self._path.exists():
            self._path.replace(self._place)
        self._taken = False


class GrowingRecords:
    """A file of one line a frame. `line` makes it, without its end."""

    def __init__(self, place: Path, line: Callable[["Result"], str]) -> None:
        self.place, self.path, self._line = place, hidden(place), line
        self._fd: int | None = None
        self._earlier = Taken(place, self.path)

    def begin(self) -> None:
        self._open(os.O_TRUNC)

    def found(self) -> int:
        if not self._earlier.where.exists():
            return 0
        with self._earlier.where.open("rb") as file:
            return sum(line.endswith(b"\n") for line in file)

    def reopen(self, frames: int) -> None:
        self._earlier.take()
        self._open(0)
        self._cut(frames)

    def give_back(self) -> None:
        self._let_go()
        self._earlier.give_back()

    def write(self, result: "Result") -> None:
        self._write((self._line(result) + "\n").encode())

    def sync(self) -> None:
        if self._fd is not None:
            os.fsync(self._fd)

    def close(self, frames: int) -> int:
        if self._fd is None:
            return 0
        frames = self._cut(frames)
        self.sync()
        self._let_go()
        return frames

    def publish(self) -> None:
        self.path.replace(self.place)
        sync_folder(self.place.parent)

    def discard(self) -> None:
        self._let_go()
        self.path.unlink(missing_ok=True)

    def _let_go(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _open(self, how: int) -> None:
        writable_folder(self.place.parent)
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | how, 0o666)
        except OSError as error:
            raise unwritable(self.place, error) from None

    def _write(self, data: bytes) -> None:
        # Without a buffer: what did not fit would be tried again when the file is closed.
        assert self._fd is not None
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise unwritable(self.place, error) from None

    def _cut(self, lines: int) -> int:
        """Leave the first lines, at most so many; gives how many they are."""
        assert self._fd is not None
        found = end = 0
        with self.path.open("rb") as file:
            for line in file:
                if found == lines or not line.endswith(b"\n"):
                    break
                found, end = found + 1, end + len(line)
        os.ftruncate(self._fd, end)
        os.lseek(self._fd, 0, os.SEEK_END)
        return found


def unwritable(path: Path, error: OSError) -> InputError:
    """The sentence for an output that the disk does not take."""
    return InputError(f"{path} cannot be written ({error.strerror or error}): make room on its disk.")
