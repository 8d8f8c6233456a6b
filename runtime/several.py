"""Several sources at once: opened side by side, run side by side, each ending or failing on its own."""

import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TypeVar

from runtime.addresses import masked
from runtime.frames import Source
from runtime.live import Limits
from runtime.sources import open_source
from runtime.summary import Summary
from splitmerge.errors import InputError, SplitmergeError
from splitmerge.interrupts import Terminated

__all__ = ["Outcome", "open_sources", "side_by_side", "totals"]

T = TypeVar("T")

_WAIT_S = 0.2  # how late a signal may be noticed


@dataclass(frozen=True)
class Outcome:
    """How one source ended: `source` is its name for people (without credentials), `name` that in outputs.

    One that was `already_done` by an earlier run has no summary; `incomplete` where it had fewer frames than it was
    to have.
    """

    name: str
    source: str
    summary: Summary | None = None
    error: str | None = None
    already_done: bool = False
    incomplete: bool = False

    @classmethod
    def of(cls, name: str, source: str, result: Summary | SplitmergeError) -> "Outcome":
        """`source` as it was given; what is kept of it shows no credentials."""
        if isinstance(result, SplitmergeError):
            return cls(name, masked(source), error=str(result))
        return cls(name, masked(source), result)

    @property
    def failed(self) -> bool:
        """Whether not all was done that was to be."""
        if self.summary is None:
            return self.incomplete or not self.already_done
        return self.summary.incomplete

    @property
    def facts(self) -> dict[str, object]:
        """For JSON."""
        done = {} if self.summary is None else asdict(self.summary)
        facts = {"name": self.name, "source": self.source, "failed": self.failed, "error": self.error}
        return facts | {"already_done": self.already_done} | done


def open_sources(
    given: Mapping[str, str],
    live: bool | None,
    limits: Limits,
    failed: Callable[[str, SplitmergeError], None],
) -> dict[str, Source]:
    """Open the sources of those names, as `runtime.sources.open_source` does one.

    Of several, those that cannot be opened are left out after `failed` was told. Raises InputError where none can.
    """
    if list(given.values()).count("-") > 1:
        raise InputError("Standard input can be read once only: name - once.")
    work = {name: partial(open_source, source, live, limits) for name, source in given.items()}
    if len(work) == 1:
        return {name: open_one() for name, open_one in work.items()}
    opened: dict[str, Source] = {}

    def ended(name: str, result: Source | SplitmergeError) -> None:
        if isinstance(result, SplitmergeError):
            failed(name, result)
        else:
            opened[name] = result

    side_by_side(work, ended)
    if not opened:
        raise InputError(f"None of the {len(given)} sources can be used: see above.")
    return {name: opened[name] for name in given if name in opened}


def side_by_side(
    work: Mapping[str, Callable[[], T]],
    ended: Callable[[str, T | SplitmergeError], None],
    stop: Callable[[str], object] | None = None,
) -> None:
    """Do all of the work at the same time, each in a thread of its name. There, `ended` is told of each that ends and
    of its result, or why it failed, which does not concern the others; of one at a time.

    Ctrl-C and SIGTERM end all: `stop` is called with the signal's name and must make the rest end soon, and `ended` is
    told of them, too. So does any error that is no SplitmergeError; it is raised when they have. Without a `stop`, they
    are left behind, and `ended` is told no more.
    """
    done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    telling, left_behind = threading.Lock(), threading.Event()

    def tell(name: str, result: T | SplitmergeError) -> None:
        with telling:  # not in the calling thread, where a signal could come between the end and the telling
            if not left_behind.is_set():
                ended(name, result)

    def target(name: str) -> None:
        try:
            try:
                result: T | SplitmergeError = work[name]()
            except SplitmergeError as error:
                result = error
            tell(name, result)
            done.put(None)
        except BaseException as error:
            done.put(error)

    threads = [threading.Thread(target=target, args=(name,), name=name, daemon=True) for name in work]
    try:
        for thread in threads:
            thread.start()
        for _ in threads:
            if (failure := _wait_for(done)) is not None:
                raise failure
    except BaseException as error:
        if stop is None:
            left_behind.set()
            raise
        stop("SIGTERM" if isinstance(error, Terminated) else "SIGINT")
        _join(threads)
        if not isinstance(error, KeyboardInterrupt | Terminated):
            raise
        while not done.empty():
            if (failure := done.get()) is not None:
                raise failure from None
    _join(threads)


def _wait_for(done: "queue.SimpleQueue[BaseException | None]") -> BaseException | None:
    """The next of the queue. A signal that comes just before a wait does not end it: none lasts long."""
    while True:
        try:
            return done.get(timeout=_WAIT_S)
        except queue.Empty:
            continue


def _join(threads: Iterable[threading.Thread]) -> None:
    for thread in threads:
        if thread.ident is not None:  # one that never started cannot be waited for
            thread.join()


def totals(outcomes: Iterable[Outcome], seconds: float) -> dict[str, object]:
    """Sums over the sources, for JSON; `failed` names those that failed or were not completed."""
    outcomes = list(outcomes)
    done = [outcome.summary for outcome in outcomes if outcome.summary]
    counted = ("frames", "captured", "dropped", "dropped_by_sinks", "missing_frames", "outages", "reconnects")
    frames = sum(summary.frames for summary in done)
    return {
        "seconds": round(seconds, 3),
        "fps": round(frames / max(seconds, 1e-9), 3),
        **{name: sum(getattr(summary, name) for summary in done) for name in counted},
        "failed": [outcome.name for outcome in outcomes if outcome.failed],
    }
