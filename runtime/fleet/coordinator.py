"""Give the tasks of a board to a crew until there are none left."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tqdm import tqdm

from runtime.fleet.board import Board
from runtime.fleet.crew import Crew, Event
from runtime.fleet.job import Task
from runtime.fleet.store import Store
from splitmerge.errors import EngineError, InputError

__all__ = ["run_fleet"]

STARTS = 3
"""How often in a row a worker may be lost before it is ready; after that its place stays empty."""


def run_fleet(store: Store, board: Board, begin: Callable[[], Crew], videos: int, progress: bool = False) -> list[str]:
    """Do all tasks of the board; gives what is to be told about workers.

    `begin` makes a crew, where there is a task. Raises InputError where a worker of the first crew cannot work on its
    machine, EngineError where no worker is left. Whatever ends this, what is half-written goes.
    """
    if not board.look():
        return []
    crew = begin()
    with tqdm(total=board.segments, unit="segment", disable=None if progress else True) as bar:
        run = _Run(board, crew, bar, videos)
        try:
            with crew:
                run.until_done()
        finally:
            for video in board.begun:
                store.sweep(video)
        return run.notes


@dataclass
class _Run:
    board: Board
    crew: Crew
    bar: "tqdm[None]"
    videos: int
    free: set[int] = field(default_factory=set)
    at_work: dict[int, Task] = field(default_factory=dict)
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
                self.crew.give(worker, self.at_work[worker])
            self.show()
            if event := self.crew.wait(1.0):
                self.handle(event)
        self.show()

    def handle(self, event: Event) -> None:
        worker, task = event.worker, self.at_work.pop(event.worker, None)
        if event.kind == "refused":
            if worker not in self.known:
                raise InputError(event.words)
            self.drop(event)
        elif event.kind == "lost":
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
