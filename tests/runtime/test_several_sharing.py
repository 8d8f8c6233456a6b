"""Several sources that share an engine: the same labels as alone, whose turn it is, and live beside recorded."""

import itertools
import queue
import threading
import time

import numpy as np
import pytest
from clips import masks_in, number_of, numbered_frame, records_in, write_clip
from senders import Camera, numbered_parts, wait_for
from small_package import make_package
from test_live import check_sums

import runtime.stream
from engines.build import build_engines
from runtime.channel import Channel
from runtime.executor import Executor
from runtime.frames import Events
from runtime.pipeline import run_pipeline
from runtime.shards import FrameShards
from runtime.share import Share
from runtime.sources import SourceFrame, open_source, silence_decoder
from splitmerge.cli import main

silence_decoder()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A package that computes, for frames of 45x70."""
    package = make_package(tmp_path_factory.mktemp("real") / "small")
    build_engines(package, "onnxruntime")
    return package


@pytest.mark.parametrize("in_flight", ["1", "2"])
def test_labels_are_those_of_each_alone(tmp_path, real, in_flight):
    clips = [str(write_clip(tmp_path / "a.mp4", 9)), str(write_clip(tmp_path / "b.mp4", 14, (90, 160)))]
    base = ["--package", str(real.folder), "--masks"]
    for name, clip in zip("ab", clips, strict=True):
        assert main(["run", clip, *base, str(tmp_path / f"alone-{name}")]) == 0
    together = [*base, f"{tmp_path}/together-{{source}}", "--in-flight", in_flight]
    assert main(["run", *clips, *together]) == 0
    for name in "ab":
        alone, shared = (masks_in(tmp_path / f"{how}-{name}") for how in ("alone", "together"))
        assert len(alone) == len(shared) > 0
        for one, other in zip(alone, shared, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_deadline_is_of_each_frame(tmp_path, real):
    clips = [str(write_clip(tmp_path / f"{name}.mp4", 8)) for name in "ab"]
    arguments = ["run", *clips, "--package", str(real.folder), "--records", f"{tmp_path}/{{source}}.jsonl"]
    assert main([*arguments, "--deadline-ms", "0.001"]) == 0
    for name in "ab":
        assert [record["split_batches"] for record in records_in(tmp_path / f"{name}.jsonl")] == [1] * 8


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("sharded", [False, True])
def test_waiting_for_a_turn_counts_for_a_live_source_only(real, monkeypatch, live, sharded):
    """A file's deadline is of computing; a live one's of the age of the result."""
    given, until = [], 1000.0
    frame = np.zeros((*real.manifest.input.size, 3), np.uint8)
    compute = runtime.stream.Stream.segment

    def segment(self, frame_bgr, until, source):
        given.append(until)
        return compute(self, frame_bgr, None, source)

    monkeypatch.setattr(runtime.stream.Stream, "segment", segment)
    with FrameShards([Executor(real)]) if sharded else Executor(real) as segmenter:
        share, stats = Share(segmenter, live), []
        with segmenter._turns.turn("another source"):
            waiting = threading.Thread(target=lambda: stats.append(share.measure(frame, until)[1]))
            waiting.start()
            wait_for(lambda: segmenter._turns._waiting)
        waiting.join(20)
    assert stats[0].waited_ms > 0
    assert given == [pytest.approx(until if live else until + stats[0].waited_ms / 1e3, abs=1e-4)]


class Fed:
    """A live source of numbered frames, each when it is told to come."""

    name, paths, size, fps, frame_count, missing_frames, live = "fed", (), (45, 70), 10.0, None, 0, True

    def __init__(self):
        self.events, self.coming, self.asked = Events(), queue.SimpleQueue(), 0

    def feed(self, frames):
        for _ in range(frames):
            self.coming.put(True)

    def close(self):
        self.coming.put(False)

    def __iter__(self):
        for index in itertools.count():
            self.asked += 1
            if not self.coming.get():
                return
            self.events.captured += 1
            yield SourceFrame(index, index / 10, numbered_frame(index, self.size), time.perf_counter())


@pytest.mark.parametrize("sharded", [False, True])
def test_a_live_frame_that_waited_gives_way_to_the_newest(real, monkeypatch, sharded):
    """Another source is at work when frame 0 comes, and still when 1, 2, 3 do: 3 is computed, by its own deadline."""
    source, results, given = Fed(), [], []
    compute = runtime.stream.Stream.segment

    def segment(self, frame_bgr, until, of):
        given.append((number_of(frame_bgr), until))
        return compute(self, frame_bgr, None, of)

    monkeypatch.setattr(runtime.stream.Stream, "segment", segment)
    with FrameShards([Executor(real)]) if sharded else Executor(real) as segmenter:
        share = Share(segmenter, live=True)
        arguments = source, share, [results.append], (45, 70), 2, False, 1e6
        summaries = []
        run = threading.Thread(target=lambda: summaries.append(run_pipeline(*arguments)))
        with segmenter._turns.turn("another source"):
            run.start()
            source.feed(1)
            wait_for(lambda: segmenter._turns._waiting)
            source.feed(3)
            wait_for(lambda: source.asked == 5)  # all four were handed on
        wait_for(lambda: len(results) == 1)
        source.feed(1)
        run.join(20)
    assert [number_of(result.frame.frame_bgr) for result in results] == [result.frame.index for result in results]
    assert [result.frame.index for result in results] == [3, 4]
    assert [number for number, _ in given] == [3, 4]
    assert [until for _, until in given] == [pytest.approx(r.frame.captured_at + 1e3) for r in results]
    (summary,) = summaries
    assert (summary.captured, summary.frames, summary.dropped) == (5, 2, 3)


def test_a_newer_frame_does_not_overtake_what_another_thread_has():
    channel = Channel(1)
    channel.put("a")
    items = iter(channel)
    assert next(items) == "a" and channel.newer("a") is None
    channel.put("b")
    assert next(items) == "b"
    channel.put("c")
    assert channel.newer("a") is None and channel.newer("b") == "c" and channel.replaced == 1
    channel.put("d")
    channel.stop()
    assert channel.newer("c") is None


@pytest.mark.parametrize("in_flight", [1, 2])
def test_a_camera_beside_a_file_is_kept_in_order_and_counted(real, in_flight):
    """The file always has frames for the engine; every frame of the camera is accounted for, in order."""
    results, others = [], []
    with (
        Camera(lambda: numbered_parts(itertools.count(), 0.004)) as camera,
        Executor(real, in_flight=in_flight) as engine,
    ):
        clip = itertools.repeat(np.zeros((45, 70, 3), np.uint8))
        end, file = threading.Event(), Share(engine)

        def work():
            for frame in clip:
                if end.is_set():
                    return
                others.append(file.measure(frame)[1])

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        source = open_source(camera.url)
        try:
            summary = run_pipeline(source, Share(engine, live=True), [results.append], (45, 70), 60)
        finally:
            end.set()
            for thread in threads:
                thread.join(20)
    assert others and summary.frames == 60
    check_sums(summary, results)
    assert [number_of(result.frame.frame_bgr) for result in results] == [r.frame.index % 256 for r in results]


# --- the page ---------------------------------------------------------------------------------------------------------
