"""Where the time of a package goes: stem, trunk, placing the labels, and every operator in them.

    splitmerge bench --profile build/smp18 --json profile.json

Engines run under ONNX Runtime's profiler, one after the other with all threads; a trunk that is compiled natively runs
on one thread and is timed call by call, a network on all threads and step by step. Beside each measured time stand the
operations and bytes that the shapes make necessary, as rates and as shares of what the machine reaches: a large matrix
product and a large copy, measured in the same run. A whole frame as `splitmerge run` does it stands beside the sum; it
runs several contexts at once and no profiler, so the two need not be equal. How operators count: `profiling.costs`.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.limits import Limits, measure_limits
from benchmarks.machine import machine
from benchmarks.profiling.options import add_arguments
from benchmarks.profiling.table import screen
from benchmarks.profiling.trace import Operator, Profiled, batches_of
from benchmarks.script import run_script
from engines.load import load_engine
from engines.onnxruntime_engine import cores
from engines.sidecar import NATIVE, engine_file, engine_folder
from runtime.executor import Executor
from splitmerge.errors import InputError
from splitmerge.files import check_outputs, write_json
from splitmerge.package import Package

if TYPE_CHECKING:
    from benchmarks.profiling.native import ProfiledNative
    from benchmarks.profiling.native_network import ProfiledNetwork

    Timed = Profiled | ProfiledNative | ProfiledNetwork

__all__ = ["Profile", "main", "profile", "run"]


@dataclass(frozen=True)
class Profile:
    """Milliseconds a frame of each stage, by the clock around it, and its operators; `frame_ms` is the executor's."""

    stages: dict[str, float]
    operators: list[Operator]
    frame_ms: float


def main() -> int:
    def add_all(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("profile", metavar="PACKAGE", help="with engines of the onnxruntime backend")
        add_arguments(parser)

    return run_script("profiling", __doc__, add_all, run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print tables, write JSON."""
    check_outputs([arguments.json])
    package = Package.open(Path(arguments.profile))
    found = profile(package, arguments.precision, arguments.chunk, arguments.frames)
    limits = measure_limits()
    print(screen(found.stages, found.frame_ms, found.operators, limits, arguments.top))
    if arguments.json:
        write_json(arguments.json, _report(arguments, package, found, limits))
    return 0


def profile(package: Package, precision: str, chunk: int, frames: int) -> Profile:
    """Stages and operators of `frames` frames of noise, after one to warm up.

    Raises EngineError where an engine is missing or is not for this machine.
    """
    parts = ["stem", "trunk"] if package.manifest.cut else ["model"]
    for part in parts:
        load_engine(package, part, "onnxruntime", precision).close()  # which checks that it may be run
    with tempfile.TemporaryDirectory() as folder:
        place = engine_folder(package, "onnxruntime", precision)
        sessions = {part: _profiled(part, engine_file(place, part, "onnxruntime"), Path(folder)) for part in parts}
        size = package.manifest.input.size
        frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        timer = _Timer(package, precision, sessions, chunk)
        for _ in range(frames + 1):
            timer.segment(frame)
        operators: list[Operator] = []
        for part, session in sessions.items():
            operators += session.operators(part, frames, timer.runs[part])
    stages = {stage: median(taken[1:]) for stage, taken in timer.taken.items()}
    with Executor(package, precision=precision, chunk=chunk) as executor:
        taken = [_ms(executor.segment, frame) for _ in range(frames + 1)]
    return Profile(stages, operators, median(taken[1:]))


def _profiled(part: str, engine: Path, folder: Path) -> "Timed":
    if engine.suffix != NATIVE:
        return Profiled(engine, folder, cores())
    if part == "model":
        from benchmarks.profiling.native_network import ProfiledNetwork

        return ProfiledNetwork(engine, cores())
    from benchmarks.profiling.native import ProfiledNative

    return ProfiledNative(engine)


class _Timer:
    """Runs a frame's stages one after the other; `taken` has each one's milliseconds, frame by frame."""

    def __init__(self, package: Package, precision: str, sessions: "Mapping[str, Timed]", chunk: int) -> None:
        self._sessions, self._contract = sessions, package.manifest.input
        self._cut = cut = package.manifest.cut
        if cut and cut.batches % chunk:
            raise InputError(f"--chunk {chunk} does not divide {cut.batches} split batches: choose one that does.")
        self._chunk = chunk
        self.runs = {"model": 1, "stem": 1, "trunk": cut.batches // chunk if cut else 0}
        self.taken: dict[str, list[float]] = {}
        if cut:
            features = package.parts(precision)["trunk"].inputs
            self._axes = {info.name: info.shape.index(None) for info in features}

    def segment(self, frame: Any) -> None:
        if self._cut is None:
            (name,) = self._sessions["model"].inputs
            self._note("model", _ms(self._sessions["model"].run, {name: frame[None]}))
            return
        stem, trunk = self._sessions["stem"], self._sessions["trunk"]
        start = time.perf_counter()
        features = stem.run({stem.inputs[0]: frame[None]})
        self._note("stem", (time.perf_counter() - start) * 1e3)
        padded = np.empty((self._contract.padded_height, self._contract.padded_width), np.uint8)
        trunk_ms = placing_ms = 0.0
        for begin in range(0, self._cut.batches, self._chunk):
            end = begin + self._chunk
            feeds = {name: batches_of(features[name], axis, begin, end) for name, axis in self._axes.items()}
            start = time.perf_counter()
            labels = trunk.run(feeds)["labels"]
            trunk_ms += (time.perf_counter() - start) * 1e3
            placing_ms += _ms(self._place, padded, labels, begin)
        self._note("trunk", trunk_ms)
        self._note("placing labels", placing_ms)

    def _place(self, padded: Any, labels: Any, first: int) -> None:
        assert self._cut is not None
        for index, batch in enumerate(labels, first):
            row, column = divmod(index, self._cut.columns)
            padded[row :: self._cut.rows, column :: self._cut.columns] = batch

    def _note(self, stage: str, ms: float) -> None:
        self.taken.setdefault(stage, []).append(ms)


def _ms(run: Any, *arguments: Any) -> float:
    start = time.perf_counter()
    run(*arguments)
    return (time.perf_counter() - start) * 1e3


def _report(arguments: argparse.Namespace, package: Package, found: Profile, limits: Limits) -> dict[str, Any]:
    return {
        "machine": machine(),
        "command": ["splitmerge", *getattr(arguments, "words", sys.argv[1:])],
        "package": {
            "model": package.manifest.model,
            "width": package.manifest.model_width,
            "size": package.manifest.input.size,
            "form": package.manifest.form,
            "precision": arguments.precision,
        },
        "limits": vars(limits),
        "frame_ms": round(found.frame_ms, 3),
        "stages_ms": {stage: round(ms, 3) for stage, ms in found.stages.items()},
        "operators": _rounded(found.operators),
    }


def _rounded(operators: Iterable[Operator]) -> list[dict[str, Any]]:
    return [{**asdict(operator), "ms": round(operator.ms, 4)} for operator in operators]
