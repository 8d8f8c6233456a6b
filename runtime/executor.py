"""Segment one frame: the stem once, then its split batches streamed through several contexts of the trunk.

    with Executor(Package.open(folder), contexts=2) as executor:
        labels = executor.segment(frame_bgr)

Split batches never meet before the merge, so every context writes its own pixels of the label map and the result is
the same, bit for bit, for any number of contexts, any chunk and any order. Only one chunk per context is in memory at a
time.

Two contexts are the default: with SMP-18 of width 16 at 512x1024 on two idle cores they took 3.1 s and 164 MiB a frame,
one context (of two threads) 4.4 s and 114 MiB; at 1024x2048, 14.2 s and 653 MiB against 15.2 s and 455 MiB. Chunks of 4
took 349 MiB and were no faster on busy cores. `splitmerge bench --streaming` measures other machines.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from engines.backends import choose_backend_to_run
from engines.interface import Device, Engine
from engines.load import load_engine, open_device
from runtime.lane import Labels, Lane
from runtime.memory import Memories, Newer
from runtime.schedule import DEFAULT_CONTEXTS, DENSITIES, chunks, split_batch_order
from runtime.stream import FrameStats, Stream, Whole
from runtime.turns import Turns
from splitmerge.errors import InputError
from splitmerge.package import Cut, InputContract, Package

__all__ = ["Executor", "FrameStats"]


class Executor:
    """Runs a package's engines on frames, `parallel` at the same time: further callers wait their turn, sources one
    after the other (`runtime.turns`).

    `contexts` are those that one frame has on each device, at most one for each chunk of split batches; `backend` is
    what `auto` came to and `why` says why.
    """

    def __init__(
        self,
        package: Package,
        contexts: int = DEFAULT_CONTEXTS,
        chunk: int = 1,
        backend: str = "onnxruntime",
        precision: str = "fp32",
        order: str = "bayer",
        threads: int | None = None,
        devices: Sequence[int] = (0,),
        in_flight: int = 1,
        density: str = "1",
        roomy: bool = False,
    ) -> None:
        """`devices` are GPUs by number, which share the split batches of every frame. `in_flight` frames have buffers
        and contexts of their own, so that devices that are done with one frame begin the next. `threads` is CPU threads
        per context, by default the cores shared out among the contexts. `density` is the share of the pixels that are
        computed, one of DENSITIES; the others take the nearest one's label. `roomy` takes memory for speed where a
        package has no cut (`engines.onnxruntime_engine`).

        Raises EngineError where an engine is missing or is not for this machine, InputError for options that cannot be.
        """
        _check_options(contexts, devices, in_flight, density)
        self.package, self.chunk, self.contexts, self.devices = package, chunk, contexts, tuple(devices)
        self.parallel = in_flight
        self.backend, self.why = choose_backend_to_run(package, backend, precision, devices)
        self.density = density
        self._order, self._precision, self._threads, self._roomy = order, precision, threads, roomy
        self._closed, self._lock, self._lost = False, threading.Lock(), set[str]()
        self._own = Memories()
        with ExitStack() as resources:
            streams = self._whole(resources) if package.manifest.cut is None else self._streams(resources)
            self._turns = Turns[Whole | Stream](streams)
            self._resources = resources.pop_all()

    def _whole(self, resources: ExitStack) -> list[Whole]:
        if len(self.devices) > 1:
            raise InputError(
                f"{self.package.folder} has no cut, so its frames cannot be shared out among {len(self.devices)} "
                "devices: use --shard frames, or export it with a cut."
            )
        if self.density != "1":
            raise InputError(
                f"{self.package.folder} has no cut, so every pixel is computed or none: leave out --density "
                f"{self.density}, or export it with a cut."
            )
        self.contexts = 1
        device = self._open(self.devices[0], resources)
        engine = self._load("model", device, self._threads, self.parallel, resources, self._roomy)
        streams = []
        for _ in range(self.parallel):
            streams.append(Whole(engine, self.package.manifest.input))
            resources.callback(streams[-1].close)
        return streams

    def _streams(self, resources: ExitStack) -> list[Stream]:
        cut, contract = self.package.manifest.cut, self.package.manifest.input
        assert cut is not None
        schedule = chunks(split_batch_order(self._order, cut.rows, cut.columns), self.chunk)
        self.contexts = min(self.contexts, len(schedule))
        contexts = self.contexts * self.parallel
        lanes: list[list[Lane]] = [[] for _ in range(self.parallel)]
        for index in self.devices:
            device = self._open(index, resources)
            stem = self._load("stem", device, self._threads and self._threads * contexts, self.parallel, resources)
            trunk = self._load("trunk", device, self._threads, contexts, resources)
            for each in lanes:
                lane = Lane(stem, trunk, contract, cut, schedule, self.contexts)
                resources.callback(lane.close)
                if self.backend != "onnxruntime":  # which has nothing to prepare
                    lane.prepare(schedule)
                each.append(lane)
        density = self._runs(len(schedule), cut)
        return [Stream(each, contract, cut, schedule, density) for each in lanes]

    def _runs(self, chunks: int, cut: Cut) -> int:
        """How many chunks make the density that was asked for."""
        batches, rest = divmod(cut.batches, DENSITIES[self.density])
        if self.density == "1":
            return chunks
        if rest or batches % self.chunk:
            raise InputError(
                f"--density {self.density} cannot be had of {cut.batches} split batches in chunks of {self.chunk}: "
                "choose a higher density or --chunk 1."
            )
        return batches // self.chunk

    def _open(self, index: int, resources: ExitStack) -> Device:
        device = open_device(self.backend, index)
        resources.callback(device.close)
        return device

    def _load(
        self,
        part: str,
        device: Device,
        threads: int | None,
        contexts: int,
        resources: ExitStack,
        roomy: bool = False,
    ) -> Engine:
        engine = load_engine(self.package, part, self.backend, self._precision, threads, contexts, device, roomy)
        resources.callback(engine.close)
        return engine

    def __enter__(self) -> "Executor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back engines and buffers, after the frames that are at work. The executor cannot be used after that."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._turns.close()
        self._resources.close()

    @property
    def device_names(self) -> str:
        """What the devices are called, for people."""
        if self.backend == "onnxruntime":
            return "cpu"
        return ", ".join(f"cuda:{index}" for index in self.devices)

    @property
    def facts(self) -> dict[str, object]:
        """What was chosen, for JSON."""
        facts: dict[str, object] = {"backend": self.backend, "precision": self._precision}
        return facts | {
            "contexts": self.contexts,
            "chunk": self.chunk,
            "devices": list(self.devices),
            "in_flight": self.parallel,
            "density": self.density,
            "shard": "split-batches",
        }

    def segment(self, frame_bgr: NDArray[np.uint8]) -> Labels:
        """Labels uint8 [H,W] of a frame uint8 [H,W,3], blue-green-red. The caller owns the array.

        Raises InputError for a frame that is not what the package takes, EngineError where an engine fails.
        """
        return self.measure(frame_bgr)[0]

    def measure(
        self,
        frame_bgr: NDArray[np.uint8],
        until: float | None = None,
        source: Memories | None = None,
        newer: Newer | None = None,
    ) -> tuple[Labels, FrameStats]:
        """`segment`, and what it took.

        With `until`, a time of `time.perf_counter`, no split batch is begun that would not be done by then, but for the
        first; pixels that are missing take the nearest one's label, and the next frame goes on with others. `source`
        is whose frame it is (`runtime.share.Share` gives it); callers without one are a source together. `newer` is
        asked once the frame's turn has come for another one to compute in its stead.
        """
        _check_frame(frame_bgr, self.package.manifest.input)
        source = source or self._own
        asked = time.perf_counter()
        with self._turns.turn(source.token) as stream:
            waited_s = time.perf_counter() - asked
            until = source.until(until, waited_s)
            if newer is not None and (instead := newer()):
                frame_bgr, until = instead
                _check_frame(frame_bgr, self.package.manifest.input)
            labels, stats = stream.segment(frame_bgr, until, source)
        return labels, replace(stats, waited_ms=1e3 * waited_s, lost=self._not_told(stats.lost))

    def _not_told(self, lost: tuple[str, ...]) -> tuple[str, ...]:
        """Every frame in flight finds out for itself that a device is lost; it is told once."""
        with self._lock:
            new = tuple(words for words in lost if words.split()[0] not in self._lost)
            self._lost.update(words.split()[0] for words in new)
        return new


def _check_options(contexts: int, devices: Sequence[int], in_flight: int, density: str) -> None:
    if density not in DENSITIES:
        raise InputError(f"There is no density {density!r}: choose one of {', '.join(DENSITIES)}.")
    if contexts < 1:
        raise InputError(f"{contexts} contexts cannot run anything: choose 1 or more.")
    if in_flight < 1:
        raise InputError(f"{in_flight} frames in flight cannot be: choose 1 or more.")
    if len(set(devices)) < len(devices) or not devices:
        named = ",".join(map(str, devices))
        raise InputError(f"--devices {named or 'of no number'} cannot be: name each device once.")


def _check_frame(frame: NDArray[np.uint8], contract: InputContract) -> None:
    expected = (*contract.size, 3)
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.shape != expected:
        given = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise InputError(
            f"A frame is {given} and this package takes uint8 {expected}, blue-green-red: resize the frame, or export "
            "the network again for its size."
        )
