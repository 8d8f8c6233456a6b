"""Workers behind one small interface, wherever they run."""

from dataclasses import dataclass
from typing import Any, Protocol

from runtime.fleet.job import Task

__all__ = ["Crew", "Event"]


@dataclass(frozen=True)
class Event:
    """What a worker has to tell.

    `ready`: it can be given a task. `done`: the task's `outcome` is there, and it can be given the next. `lost`: it is
    gone, with the task that it was at, and why in `words`. `refused`: it cannot work on its machine, for the reason in
    `words`, and is gone, too.
    """

    worker: int
    kind: str
    outcome: dict[str, Any] | None = None
    words: str = ""


class Crew(Protocol):
    """`workers` of them, by number from 0. Leaving the block ends them at once, whatever they are at."""

    @property
    def workers(self) -> int: ...

    def __enter__(self) -> "Crew": ...

    def __exit__(self, *_: object) -> None: ...

    def give(self, worker: int, task: Task) -> None:
        """Let a worker that is free begin a task."""

    def kill(self, worker: int) -> None:
        """End a worker that hangs. It is told as lost once it has ended."""

    def replace(self, worker: int) -> None:
        """Begin a new worker in place of one that is lost. It tells when it is ready."""

    def wait(self, seconds: float) -> Event | None:
        """The next event; None where there is none in this time."""
