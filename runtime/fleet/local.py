"""A crew of processes on this machine, one for each GPU that the backend uses, or one on the CPU."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runtime.fleet.crew import Event
from runtime.fleet.job import Job, Task
from runtime.fleet.store import Store

__all__ = ["LocalCrew"]

ROOT = Path(__file__).parents[2]


class LocalCrew:
    """One process for each of `devices` (GPUs by number; 0 on a CPU). What they print goes to the work folder."""

    def __init__(self, job: Job, devices: Sequence[int], threads: int | None = None) -> None:
        self._job, self._devices, self._threads = job, devices, threads
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._processes: dict[int, subprocess.Popen[str]] = {}
        self._closed = False

    @property
    def workers(self) -> int:
        return len(self._devices)

    def __enter__(self) -> "LocalCrew":
        for worker in range(len(self._devices)):
            self.replace(worker)
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()

    def give(self, worker: int, task: Task) -> None:
        self._send(self._processes[worker], task.to_json())

    def wait(self, seconds: float) -> Event | None:
        try:
            return self._events.get(timeout=seconds)
        except queue.Empty:
            return None

    def kill(self, worker: int) -> None:
        self._processes[worker].kill()

    def replace(self, worker: int) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with (Store(self._job).folder / f"worker-{worker}.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "runtime.fleet.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is the coordinator's
            )
        self._processes[worker] = process
        start = {"job": asdict(self._job), "device": self._devices[worker], "threads": self._threads}
        self._send(process, start)
        threading.Thread(target=self._listen, args=(worker, process), daemon=True).start()

    def _send(self, process: "subprocess.Popen[str]", value: dict[str, Any]) -> None:
        assert process.stdin is not None
        with suppress(OSError, ValueError):  # it is dead, which the end of its output tells
            process.stdin.write(json.dumps(value) + "\n")
            process.stdin.flush()

    def _listen(self, worker: int, process: "subprocess.Popen[str]") -> None:
        """Pass on what a process tells until it ends, which is told once: as refused or as lost."""
        assert process.stdin is not None and process.stdout is not None
        last: dict[str, Any] = {}
        with suppress(ValueError):  # a line that was cut off by its writer's end
            for line in process.stdout:
                last = json.loads(line)
                if last["kind"] != "lost":
                    self._tell(Event(worker, last["kind"], last.get("outcome"), last.get("words", "")))
        code = process.wait()
        process.stdin.close()
        if last.get("kind") != "refused":
            self._tell(Event(worker, "lost", words=last.get("words") or _ending(code)))

    def _tell(self, event: Event) -> None:
        if not self._closed:
            self._events.put(event)


def _ending(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        return f"its process was killed ({name})"
    return f"its process ended with exit code {code}"
