"""A crew of actors of a Ray cluster: one for each GPU, or one for each machine where there are none.

Ray tells when an actor's process or machine is gone, and places the next one where there is room; the actors end with
the coordinator's process. The machines need this project installed and see the same folders.
"""

import logging
import os
import socket
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from runtime.fleet.crew import Event
from runtime.fleet.job import Job, Task
from runtime.fleet.worker import Worker
from splitmerge.errors import InputError, SplitmergeError

__all__ = ["RayCrew"]


class RayCrew:
    """`workers` actors on the cluster at `address` (None: one that is running here, or a new one on this machine).

    Raises InputError where Ray is not installed or the cluster cannot be reached.
    """

    def __init__(self, job: Job, address: str | None = None, workers: int | None = None) -> None:
        # Ray would otherwise report its use to its makers.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise InputError("--ray needs Ray: pip install ray, or leave --ray out for this machine alone.") from None
        self._ray, self._job = ray, asdict(job)
        try:
            _check_answers(address or "")
            ray.init(address or None, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise InputError(f"No Ray cluster answers at {address} ({reason}): start one with `ray start`.") from None
        gpus = 0 if job.backend == "onnxruntime" else int(ray.cluster_resources().get("GPU", 0))
        machines = sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes())
        self.workers = workers or gpus or machines
        needs = {"num_gpus": 1} if gpus else {"num_gpus": 0, "num_cpus": 1}
        self._actor_class = ray.remote(_Actor).options(scheduling_strategy="SPREAD", **needs)
        self._actors: dict[int, Any] = {}
        self._promises: dict[Any, int] = {}

    def __enter__(self) -> "RayCrew":
        for worker in range(self.workers):
            self.replace(worker)
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def replace(self, worker: int) -> None:
        self._actors[worker] = self._actor_class.remote(self._job)
        self._promises[self._actors[worker].open.remote()] = worker

    def kill(self, worker: int) -> None:
        self._ray.kill(self._actors[worker])

    def give(self, worker: int, task: Task) -> None:
        self._promises[self._actors[worker].do.remote(task.to_json())] = worker

    def wait(self, seconds: float) -> Event | None:
        kept, _ = self._ray.wait(list(self._promises), num_returns=1, timeout=seconds)
        if not kept:
            return None
        worker = self._promises.pop(kept[0])
        try:
            kind, what = self._ray.get(kept[0])
        except self._ray.exceptions.RayError as error:
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(self._actors[worker])
            return Event(worker, "lost", words=_words(error))
        if kind == "refused":
            return Event(worker, kind, words=what)
        return Event(worker, kind, outcome=what)


class _Actor:
    """A worker in a process of Ray's, where the GPU that it was given is the first."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = Job(**job)
        self._worker: Worker | None = None

    def open(self) -> tuple[str, str | None]:
        try:
            self._worker = Worker(self._job)
        except (SplitmergeError, OSError) as error:
            return "refused", str(error)
        return "ready", None

    def do(self, task: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        assert self._worker is not None
        return "done", self._worker.do(Task.from_json(task))


def _check_answers(address: str) -> None:
    """Raise OSError where nobody listens at an address of host and port: Ray would wait for ever."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _words(error: Exception) -> str:
    """A task's own error, or the first line of what Ray says of an actor's end."""
    cause = getattr(error, "cause", None)
    if cause is not None:
        return str(cause) or type(cause).__name__
    return str(error).strip().splitlines()[0]
