"""One contestant in a process of its own, which does a frame whenever it is told to.

A line of JSON on standard input sets it up: `make`, `arguments`, `package`, `frame` (an .npy file) and `limit_gib`.
Then each line is a command, `frame` or `finish FILE.npz`, and each is answered by a line of JSON. What libraries print
goes to standard error. Memory is the high-water mark less what is held once all is loaded and nothing has run
(`benchmarks.high_water`).
"""

import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.high_water import HighWater
from benchmarks.peers.contestants import Contender

__all__ = ["main"]

_LIBRARIES_GIB = 1
"""What a process may hold besides: libraries and weights."""
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of linux/prctl.h


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # standard output belongs to the answers alone
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)  # a stopped worker outlives no one
    setup = json.loads(sys.stdin.readline())
    limit = int((setup["limit_gib"] + _LIBRARIES_GIB) * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))  # an error of its own, not the machine's end
    frame = np.load(setup["frame"])
    start = time.perf_counter()
    contender = _made(setup)
    load_s = time.perf_counter() - start
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what loading and compiling left is no part of a frame
    memory = HighWater()
    _reply(replies, load_s=round(load_s, 3), baseline_mib=round(memory.baseline, 1), notes=dict(contender.notes))
    labels = np.empty(0, np.uint8)
    for line in sys.stdin:
        command, _, place = line.strip().partition(" ")
        if command == "frame":
            start = time.perf_counter()
            labels = contender.segment(frame)
            _reply(replies, ms=round((time.perf_counter() - start) * 1e3, 3))
        else:
            peak = memory.peak()  # before the margins, which no user computes
            if contender.margins:
                np.savez(place, labels=labels, margins=contender.margins(frame))
            else:
                np.savez(place, labels=labels)
            _reply(replies, peak_mib=round(peak, 1))


def _made(setup: dict[str, Any]) -> Contender:
    module, _, function = setup["make"].partition(":")
    made: Contender = getattr(importlib.import_module(module), function)(Path(setup["package"]), **setup["arguments"])
    return made


def _reply(replies: Any, **values: Any) -> None:
    replies.write(json.dumps(values) + "\n")


if __name__ == "__main__":
    main()
