"""Contestants with known faults, which workers import by name."""

import json
import os
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.peers.contestants import Contender
from benchmarks.peers.project import executor

SLOWER_S = 0.4


def slow(folder: Path) -> Contender:
    """The project, and `SLOWER_S` more."""
    made = executor(folder)

    def segment(frame):
        time.sleep(SLOWER_S)
        return made.segment(frame)

    return Contender(segment)


def wrong(folder: Path) -> Contender:
    """One pixel in fifty has another label, at once."""
    made = executor(folder)
    labels = []

    def segment(frame):
        labels[:] = labels or [made.segment(frame)]
        found = labels[0].copy()
        found.ravel()[::50] += 1
        return found

    return Contender(segment)


def fails_on_third(folder: Path) -> Contender:
    return Contender(_on_third(_raise))


def killed_on_third(folder: Path) -> Contender:
    return Contender(_on_third(lambda: os.kill(os.getpid(), 9)))


def hangs_on_third(folder: Path) -> Contender:
    return Contender(_on_third(lambda: time.sleep(600)))


def cannot_load(folder: Path) -> Contender:
    raise RuntimeError("no such thing here")


def _raise():
    raise ValueError("the third is too many")


def _on_third(act):
    frames = []

    def segment(frame):
        frames.append(frame)
        if len(frames) == 3:
            act()
        return frame[..., 0]

    return segment


def spinning(folder: Path, log: str) -> Contender:
    """A thread of it spins for ever, as waiting threads of libraries may; `log` gets the processor time at each end."""
    threading.Thread(target=_spin, daemon=True).start()

    def segment(frame):
        _write(log, "begin")
        time.sleep(0.05)
        _write(log, "end")
        return frame[..., 0]

    return Contender(segment)


def resting(folder: Path, log: str) -> Contender:
    def segment(frame):
        time.sleep(0.3)
        _write(log, "rested")
        return frame[..., 0]

    return Contender(segment)


def exact(folder: Path, labels: list[int], margins: list[float] | None = None) -> Contender:
    """Labels [1,n], and margins, as they are given."""
    found = None if margins is None else (lambda frame: np.array([margins], np.float32))
    return Contender(lambda frame: np.array([labels], np.uint8), found)


def _spin():
    while True:
        pass


def _write(log: str, what: str) -> None:
    with Path(log).open("a") as file:
        file.write(json.dumps({"what": what, "cpu_s": time.process_time(), "at": time.monotonic()}) + "\n")
