"""Contestants that do frames in turn, one at a time, while the others stand still.

A worker is stopped by SIGSTOP as soon as it has answered and goes on by SIGCONT when its turn comes, so that no
library's waiting threads take time from the one that is measured. Where all do not fit into memory together, a worker
lives for one turn only: it loads, does a frame to warm up and one that counts, and ends.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.contestants import Contestant
from splitmerge.errors import EngineError

__all__ = ["Entrant", "Taken", "Worker", "take_turns"]

ROOT = Path(__file__).parents[2]
SETUP_S = 1200.0
"""What loading and compiling may take."""
_PATIENCE, _LEAST_S = 20, 60.0
"""A frame that takes so many times as long as was allowed, and at least so many seconds, counts as hanging."""
_LEFT_OUT = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Settings that would hold some contestants back and not others: each takes the cores that the process may use."""


@dataclass(frozen=True)
class Entrant:
    """A contestant and the package folder that it is given."""

    contestant: Contestant
    package: Path


@dataclass
class Taken:
    """What a contestant took: `first_ms` is its first frame, `ms` those of the rounds. `failed` says why it stopped."""

    first_ms: float = 0.0
    ms: list[float] = field(default_factory=list)
    load_s: float = 0.0
    baseline_mib: float = 0.0
    peak_mib: float = 0.0
    notes: Mapping[str, Any] = field(default_factory=dict)
    labels: Path | None = None
    failed: str = ""


class Worker:
    """A contestant's process, stopped but for its turns. Raises EngineError, with its last words, where it ends."""

    def __init__(self, entrant: Entrant, frame: Path, limit_gib: float, errors: Path) -> None:
        """What it says on standard error goes to the file `errors`."""
        self._name = entrant.contestant.name
        self._errors = errors
        environment = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT}
        environment["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no helper processes, which would not stop with it
        with errors.open("w") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.peers.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                cwd=ROOT,
                env=environment,
            )
        setup = {
            "make": entrant.contestant.make,
            "arguments": dict(entrant.contestant.arguments),
            "package": str(entrant.package),
            "frame": str(frame),
            "limit_gib": limit_gib,
        }
        try:
            self.ready = self._ask(json.dumps(setup), SETUP_S)
        except BaseException:
            self.close()
            raise

    def frame(self, patience_s: float) -> float:
        """Milliseconds that one frame takes."""
        return float(self._ask("frame", patience_s)["ms"])

    def finish(self, labels: Path) -> float:
        """The process's peak memory in MiB. Labels, and margins where it has them, go to the file `labels`."""
        return float(self._ask(f"finish {labels}", SETUP_S)["peak_mib"])

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()  # which a stopped process obeys
        with suppress(BrokenPipeError):  # what it never read
            self._process.communicate()

    def _ask(self, words: str, patience_s: float) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        try:
            self._process.send_signal(signal.SIGCONT)
            self._process.stdin.write(words + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        readable, _, _ = select.select([self._process.stdout], [], [], patience_s)
        if not readable:
            raise EngineError(f"{self._name} gave no answer within {patience_s:.0f} s.")
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        self._process.send_signal(signal.SIGSTOP)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ended(self) -> EngineError:
        code = self._process.wait()
        said = self._errors.read_text(errors="replace").strip().splitlines()
        if code < 0:
            return EngineError(f"it was ended by {signal.Signals(-code).name}")
        return EngineError(said[-1][:300] if said else f"it ended with {code}")


def take_turns(
    entrants: Sequence[Entrant],
    rounds: int,
    frame: Path,
    folder: Path,
    limit_gib: float,
    limit_s: float,
    resident: bool,
) -> list[Taken]:
    """What each took, in the order given. Round by round every contestant does the frame once; one that fails, or whose
    first frame takes more than `limit_s`, is out and says so."""
    taken = [Taken(labels=folder / f"labels-{index}.npz") for index in range(len(entrants))]
    workers: dict[int, Worker] = {}
    patience_s = max(_LEAST_S, _PATIENCE * limit_s)
    try:
        for turn in range(rounds + resident):
            for index, entrant in enumerate(entrants):
                if taken[index].failed:
                    continue
                try:
                    if index not in workers:
                        workers[index] = _started(entrant, taken[index], frame, limit_gib, patience_s)
                        _check_time(taken[index], limit_s)
                    if turn or not resident:  # the first round of residents is to warm up
                        taken[index].ms.append(workers[index].frame(patience_s))
                    if turn == rounds + resident - 1:
                        _finish(workers[index], taken[index])
                    keep = resident and turn < rounds
                except EngineError as error:
                    taken[index].failed, keep = str(error).rstrip("."), False
                if not keep and index in workers:
                    workers.pop(index).close()
    finally:
        for worker in workers.values():
            worker.close()
    return taken


def _started(entrant: Entrant, taken: Taken, frame: Path, limit_gib: float, patience_s: float) -> Worker:
    """A worker that is loaded and has done its first frame."""
    assert taken.labels is not None
    worker = Worker(entrant, frame, limit_gib, taken.labels.with_suffix(".txt"))
    try:
        first_ms = worker.frame(patience_s)
    except BaseException:
        worker.close()
        raise
    taken.first_ms = taken.first_ms or first_ms
    taken.load_s, taken.baseline_mib = worker.ready["load_s"], worker.ready["baseline_mib"]
    taken.notes = worker.ready["notes"]
    return worker


def _check_time(taken: Taken, limit_s: float) -> None:
    if taken.first_ms > 1e3 * limit_s:
        raise EngineError(f"its first frame took {taken.first_ms / 1e3:.1f} s and --limit-s allows {limit_s:g}")


def _finish(worker: Worker, taken: Taken) -> None:
    assert taken.labels is not None
    taken.peak_mib = worker.finish(taken.labels)
