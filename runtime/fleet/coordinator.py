"""Give the tasks of a board to a crew until there are none left."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tqdm import tqdm

from runtime.fleet.board import Board
from runtime.fleet.crew import Crew, Event
from runtime.fleet.job import Task
from runtime.fleet.store import Store
from splitmerge.errors import EngineError, InputError

__all__ = ["run_fleet"]

STARTS = 3
"""How often in a row a worker may be lost before it is ready; after that its place stays empty."""


def run_fleet(
    store: Store,
    board: Board,
    begin: Callable[[], Crew],
    videos: int,
    progress: bool = False,
    stall_s: float = 1800.0,
    clock: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Do all tasks of the board; gives what is to be told about workers.

    `begin` makes a crew, where there is a task. A worker that has a task and of which nothing is heard for `stall_s`
    seconds of `clock` is ended and counts as lost; of planning and joining nothing is heard in between. Raises
    InputError where a worker of the first crew cannot work on its machine, EngineError where no worker is left.
    Whatever ends this, what is half-written goes.
    """
    if not board.look():
        return []
    crew = begin()
    with tqdm(total=board.segments, unit="segment", disable=None if progress else True) as bar:
        run = _Run(store, board, crew, bar, videos, stall_s, clock)
        try:
            with crew:
                run.until_done()
        finally:
            for video in board.begun:
                store.sweep(video)
        return run.notes


@dataclass
class _Run:
    store: Store
    board: Board
    crew: Crew
    bar: "tqdm[None]"
    videos: int
    stall_s: float
    clock: Callable[[], float]
    free: set[int] = field(default_factory=set)
    at_work: dict[int, Task] = field(default_factory=dict)
    heard: dict[int, tuple[float, str | None]] = field(default_factory=dict)  # of those at work: when what was new
    hung: set[int] = field(default_factory=set)
    lost: Counter[int] = field(default_factory=Counter)
    known: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def until_done(self) -> None:
        while self.at_work or self.board.look():
            while self.free and self.board.look():
                worker = min(self.free)
                self.free.remove(worker)
                self.at_work[worker] = self.board.take()
                self.heard[worker] = self.clock(), self.store.heard(self.at_work[worker])
                self.crew.give(worker, self.at_work[worker])
            self.show()
            if event := self.crew.wait(1.0):
                self.handle(event)
            self.watch()
        self.show()

    def watch(self) -> None:
        """End workers that hang. It is changes that are looked for: the clocks of machines may differ."""
        for worker, task in self.at_work.items():
            since, before = self.heard[worker]
            now = self.store.heard(task)
            if now != before:
                self.heard[worker] = self.clock(), now
            elif self.clock() - since > self.stall_s and worker not in self.hung:
                self.hung.add(worker)
                self.crew.kill(worker)

    def handle(self, event: Event) -> None:
        worker, task = event.worker, self.at_work.pop(event.worker, None)
        if event.kind == "refused":
            if worker not in self.known:
                raise InputError(event.words)
            self.drop(event)
        elif event.kind == "lost":
            if worker in self.hung:
                self.hung.remove(worker)
                event = replace(event, words=f"nothing was heard of it for {self.stall_s:g} s, and it was ended")
            self.free.discard(worker)
            self.lost[worker] += 1
            if task:
                self.board.failed(task, event.words)
            if self.lost[worker] < STARTS:
                self.notes.append(f"worker {worker} was lost and replaced: {event.words}")
                self.crew.replace(worker)
            else:
                self.drop(event)
        else:
            self.known.add(worker)
            self.free.add(worker)
            self.lost[worker] = 0
            if task and event.outcome is not None:
                self.board.done(task, event.outcome)

    def drop(self, event: Event) -> None:
        self.gone.add(event.worker)
        self.notes.append(f"worker {event.worker} is out: {event.words}")
        if len(self.gone) == self.crew.workers:
            raise EngineError(f"No worker is left ({event.words}): what is done is kept, the same command goes on.")

    def show(self) -> None:
        self.bar.total, self.bar.n = self.board.segments, self.board.segments_done
        self.bar.set_description(f"{len(self.board.rows)}/{self.videos} videos", refresh=False)
        self.bar.refresh()
