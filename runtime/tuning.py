"""How many contexts are worth having: measured, because more of them help on some GPUs and slow others down."""

from collections.abc import Callable
from dataclasses import dataclass

from runtime.executor import Executor
from runtime.timing import in_turn, noise_frame
from splitmerge.errors import EngineError

__all__ = ["Tuned", "tune_contexts"]

_GAIN = 0.97
"""A further context must take a frame to this share of the time it took before: less is noise."""
_FRAMES = 5


@dataclass(frozen=True)
class Tuned:
    """An executor with the number of contexts that was fastest, and how long a frame took with each number tried.

    `stopped` says why no more were tried.
    """

    executor: Executor
    milliseconds: dict[int, float]
    stopped: str

    def __str__(self) -> str:
        tried = ", ".join(f"{contexts}: {ms:.1f} ms" for contexts, ms in self.milliseconds.items())
        return f"{self.executor.contexts} (a frame with {tried}; {self.stopped})"


def tune_contexts(make: Callable[[int], Executor], frames: int = _FRAMES) -> Tuned:
    """Try 1, 2, 3, ... contexts on a noise frame while they fit and each is faster than the one before.

    `make` gives an executor with that many contexts per device. Raises EngineError where not even one can be had.
    """
    milliseconds: dict[int, float] = {}
    executor = make(1)
    while True:
        now = executor.contexts
        try:
            milliseconds[now] = _measure(executor, frames)
        finally:
            executor.close()  # before the next one: both might not fit
        if now > 1 and milliseconds[now] > _GAIN * milliseconds[now - 1]:
            return Tuned(make(now - 1), milliseconds, f"{now} are no faster")
        try:
            executor = make(now + 1)
        except EngineError as error:
            return Tuned(make(now), milliseconds, f"{now + 1} cannot be had: {error}")
        if executor.contexts == now:
            return Tuned(executor, milliseconds, "there are no more split batches to share out")


def _measure(executor: Executor, frames: int) -> float:
    """Median milliseconds of a frame, after one that is not counted."""
    return in_turn({"": executor.segment}, noise_frame(executor.package), frames)[""]
