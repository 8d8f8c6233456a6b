"""CUDA graphs: what a stream enqueues is recorded, and replayed with the addresses it had."""

import threading

from emulator.device import DeviceState
from emulator.machine import Machine
from emulator.memory import handles
from emulator.streams import Operation, StreamState, Work

__all__ = ["GLOBAL", "RELAXED", "THREAD_LOCAL", "Capture", "Graph", "GraphExec"]

GLOBAL, THREAD_LOCAL, RELAXED = 0, 1, 2


class Capture:
    """A capture in progress. What breaks it makes it `invalid`; its end then fails with a code."""

    def __init__(self, stream: StreamState, mode: int) -> None:
        self.stream, self.mode = stream, mode
        self.thread = threading.current_thread()
        self.invalid = False
        self.works: list[Work] = []

    def forbids_here(self) -> bool:
        """Whether this thread must not allocate, free or use the default stream meanwhile."""
        if self.mode == THREAD_LOCAL:
            return self.thread is threading.current_thread()
        return self.mode == GLOBAL

    def record(self, work: Work) -> None:
        self.works.append(work)


class Graph:
    """What a capture recorded."""

    def __init__(self, device: DeviceState, works: list[Work]) -> None:
        self.handle, self.device, self.works = next(handles), device, works

    def __repr__(self) -> str:
        return f"a graph of {len(self.works)} nodes of device {self.device.index}"


class GraphExec:
    """A graph made ready to launch. Launches of one never overlap each other."""

    def __init__(self, graph: Graph) -> None:
        self.handle, self.device, self.works = next(handles), graph.device, list(graph.works)
        self.last: Operation | None = None

    def __repr__(self) -> str:
        return f"an executable graph of {len(self.works)} nodes of device {self.device.index}"

    def launch(self, machine: Machine, stream: StreamState) -> None:
        for work in self.works:
            operation = machine.submit(stream, work, [self.last] if self.last is not None else [])
            if operation is not None:
                self.last = operation
