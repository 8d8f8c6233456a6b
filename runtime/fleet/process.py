"""A worker in a process of its own: `python -m runtime.fleet.process`, tasks in and events out as lines of JSON.

Its standard input stays open as long as the coordinator lives. When it ends, so does the process, whatever it is at:
no worker outlives its coordinator, however that dies.
"""

import json
import os
import queue
import sys
import threading
from typing import TextIO

from runtime.fleet.job import Job, Task
from runtime.fleet.worker import Worker
from splitmerge.errors import SplitmergeError


def main() -> None:
    out = _own_standard_output()
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    start = json.loads(lines.get())

    def tell(kind: str, **what: object) -> None:
        out.write(json.dumps({"kind": kind, **what}) + "\n")
        out.flush()

    try:
        worker = Worker(Job(**start["job"]), start["device"], start["threads"])
    except (SplitmergeError, OSError) as error:
        tell("refused", words=str(error))
        return
    tell("ready")
    while True:
        task = Task.from_json(json.loads(lines.get()))
        try:
            outcome = worker.do(task)
        except Exception as error:  # whatever it was is raised again below, after the coordinator knows
            # An engine that failed once may fail for ever (a GPU's errors stick to its process): another takes over.
            tell("lost", words=str(error) or type(error).__name__)
            raise
        tell("done", outcome=outcome)


def _own_standard_output() -> TextIO:
    """The real standard output, for events alone: what libraries print goes to standard error from now on."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return out


def _read(lines: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(1)


if __name__ == "__main__":
    main()
