"""How old a live frame's labels can be: the computation in progress when it was captured, and its own.

By a clock of the test's own, which only a computation moves on. So nothing here depends on how fast the machine is, and
ages are exact.
"""

import random
import time
from types import SimpleNamespace

import numpy as np
import pytest
from clips import SIZE, Threshold

import runtime.pipeline
import runtime.reader
import runtime.stages
from runtime.channel import Channel
from runtime.live import Limits, LiveSource
from runtime.pipeline import run_pipeline

COMPUTE_MS, STEP_MS = 1000, 125  # what a computation takes, and how the clock goes on
FRAMES, SECONDS = 25, 30.0


class World:
    """A camera and an engine that share a clock. At each step of a computation the camera takes a frame, or not."""

    fps, frame_count, parallel = 25.0, None, 1

    def __init__(self, chance):
        self._dice, self._chance = random.Random(1), chance
        self.now_ms, self.taken, self.offered, self.ended = 0, 0, 0, False
        self.due = 1  # frames that the camera may have taken by now
        self.computed = []  # of each: its number, and the number of the newest one at that time

    def perf_counter(self):
        return self.now_ms / 1000

    def read(self):
        self._until(lambda: self.ended or self.taken < self.due)
        if self.ended:
            return None
        frame = np.full((*SIZE, 3), self.taken, np.uint8)
        self.taken += 1
        return frame, None

    def close(self):
        self.ended = True

    def measure(self, frame_bgr, until=None, newer=None):
        number = int(frame_bgr[0, 0, 0])
        self.computed.append((number, self.offered - 1))
        for _ in range(COMPUTE_MS // STEP_MS):
            self.now_ms += STEP_MS
            self.due += self._dice.random() < self._chance
            self._until(lambda: self.ended or self.offered == self.due)
        if self.offered == number + 1:
            self.due += 1  # nothing waits: the next frame finds the engine idle
        return Threshold().measure(frame_bgr)

    def _until(self, true):
        limit = time.monotonic() + SECONDS
        while not true():
            assert time.monotonic() < limit, "waited in vain"
            time.sleep(0.0002)


def run_in(world, patch):
    """The ages in milliseconds of each frame at its labels, and the summary; the clock is the world's."""
    clock, real = SimpleNamespace(perf_counter=world.perf_counter), Channel.offer

    def offer(channel, item):
        dropped = real(channel, item)
        world.offered += hasattr(item, "ready_at")  # a frame, not a result
        return dropped

    patch.setattr(runtime.reader, "time", clock)
    patch.setattr(runtime.pipeline, "time", clock)
    patch.setattr(runtime.stages, "time", clock)
    patch.setattr(Channel, "offer", offer)
    results = []
    source = LiveSource("camera", lambda: world, Limits(stall_s=1e6), live=True)
    summary = run_pipeline(source, world, [results.append], SIZE, limit=FRAMES)
    return [result.latency_ms for result in results], summary


@pytest.mark.parametrize("chance", [1.0, 0.4, 0.1])
def test_an_age_is_at_most_the_computation_in_progress_and_its_own(monkeypatch, chance):
    world = World(chance)
    ages, summary = run_in(world, monkeypatch)
    assert len(world.computed) == len(ages) + summary.dropped_by_sinks == FRAMES
    assert min(ages) >= COMPUTE_MS and max(ages) <= 2 * COMPUTE_MS
    # No older frame is computed when a newer one was there before its turn.
    assert all(number == newest for number, newest in world.computed)
    # The report says so.
    assert COMPUTE_MS <= summary.age_ms["p50"] <= summary.age_ms["p95"] <= summary.age_ms["p99"] <= 2 * COMPUTE_MS
    assert summary.captured == summary.frames + summary.dropped + summary.dropped_by_sinks


def test_it_would_be_more_if_frames_queued(monkeypatch):
    """The mutation of the test above: a frame that waits is not replaced by a newer one."""
    real, world = Channel.__init__, World(1.0)
    monkeypatch.setattr(Channel, "__init__", lambda channel, depth: real(channel, 1000))
    ages, _ = run_in(world, monkeypatch)
    assert max(ages) > 10 * COMPUTE_MS and any(number < newest for number, newest in world.computed)
