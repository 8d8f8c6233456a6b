"""One emulated GPU: what it is, how fast, and its engines, which work is done on."""

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emulator.memory import DeviceMemory
from emulator.rules import RuleBroken
from emulator.streams import Operation, StreamState
from emulator.timeline import Span

if TYPE_CHECKING:
    from emulator.machine import Machine

__all__ = ["DeviceState", "EmulatedDevice"]

ENGINES = {"compute": "compute", "d2d": "compute", "memset": "compute", "h2d": "h2d", "d2h": "d2h"}


@dataclass(frozen=True)
class EmulatedDevice:
    """What a test says about a GPU. An execution takes `work units / speed` seconds; `parallel` run at once.

    Copies move `copy_gib_s` GiB a second, each direction on an engine of its own.
    """

    name: str = "Emulated RTX 4090"
    capability: str = "8.9"
    speed: float = 1.0
    memory_gib: float = 24.0
    multiprocessors: int = 128
    parallel: int = 1
    copy_gib_s: float = 1000.0


class DeviceState:
    """A GPU while the emulator runs. `error` is sticky: the device does nothing more, every synchronise raises it."""

    def __init__(self, machine: "Machine", index: int, config: EmulatedDevice) -> None:
        self.machine, self.index, self.config = machine, index, config
        self.memory = DeviceMemory(index, int(config.memory_gib * 2**30), machine.ledger)
        self.error: Exception | None = None
        self.told = False  # whether a synchronise has raised the error, which every call does from then on
        self.lost = False
        self.retained = 0
        self.generation = 0
        self.streams: list[StreamState] = []
        self._default: StreamState | None = None
        self._engines = {
            "compute": threading.Semaphore(config.parallel),
            "h2d": threading.Semaphore(1),
            "d2h": threading.Semaphore(1),
        }

    @property
    def default_stream(self) -> StreamState:
        if self._default is None:
            self._default = StreamState(self, blocking=True, default=True)
            self.streams.append(self._default)
        return self._default

    def new_stream(self, blocking: bool) -> StreamState:
        stream = StreamState(self, blocking)
        self.streams.append(stream)
        return stream

    def execute(self, operation: Operation) -> None:
        """Do one operation, on its stream's thread. What goes wrong becomes the device's error."""
        work, timeline = operation.work, self.machine.timeline
        if self.error is None and work.kind in ENGINES:
            with self._engines[ENGINES[work.kind]]:
                start = timeline.now()
                self._run(operation, start + work.seconds)
                operation.end = timeline.now()
            stream = 0 if operation.stream.default else operation.stream.handle
            timeline.add(Span(self.index, stream, work.kind, work.label, start, operation.end))
        else:
            operation.end = timeline.now()

    def _run(self, operation: Operation, until: float) -> None:
        try:
            self.machine.failures.strike(f"run:{operation.work.kind}", self.index)
            for region in operation.work.regions:
                if region.block.freed:
                    self.machine.ledger.broken(
                        "use-after-free", f"{operation.work.label}: {region.what} was freed before it was used."
                    )
            result = operation.work.run(operation)
            rest = until - self.machine.timeline.now()
            if rest > 0:
                time.sleep(rest)
            if result is not None:
                result()
        except Exception as error:  # there is nobody to raise to on this thread: the next synchronise tells
            if not isinstance(error, RuleBroken):
                self.machine.asynchronous_errors.append(error)
            self.error = error
