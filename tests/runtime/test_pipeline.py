"""The pipeline: order, completeness, overlap, and one error whichever stage fails."""

import itertools
import os
import signal
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import SIZE, Threshold, number_of, write_clip, write_cut_clip

from runtime.channel import Channel, Stopped
from runtime.pipeline import DEPTH, Ending, run_pipeline
from runtime.sources import open_source


class Collected(list):
    """A sink that keeps what it is given, and may fail."""

    def __init__(self, fail_at=None, error=None):
        super().__init__()
        self.fail_at, self.error = fail_at, error

    def __call__(self, result):
        if len(self) == self.fail_at:
            raise self.error
        self.append(result)


def test_one_result_for_each_frame_in_order(tmp_path):
    sink = Collected()
    summary = run_pipeline(open_source(str(write_clip(tmp_path / "a.mp4", 50))), Threshold(seconds=0.002), [sink], SIZE)
    assert [result.frame.index for result in sink] == list(range(50))
    assert [number_of(result.labels) for result in sink] == list(range(50))
    np.testing.assert_allclose([result.frame.time_s for result in sink], np.arange(50) / 10, atol=1e-6)
    assert all(result.latency_ms >= result.compute_ms > 0 for result in sink)
    assert all(result.stats.split_batches == 16 and not result.resized for result in sink)
    assert (summary.frames, summary.missing_frames, summary.warnings, summary.resized) == (50, 0, (), False)
    assert summary.fps == pytest.approx(50 / summary.seconds, rel=0.02)


def test_frames_of_another_size_are_resized_there_and_back(tmp_path):
    sink, segmenter = Collected(), Threshold()
    source = open_source(str(write_clip(tmp_path / "a.mp4", 5, (90, 160))))
    summary = run_pipeline(source, segmenter, [sink], SIZE)
    assert set(segmenter.sizes) == {SIZE}
    assert {result.labels.shape for result in sink} == {(90, 160)}
    assert {result.frame.frame_bgr.shape for result in sink} == {(90, 160, 3)}
    assert [number_of(result.labels) for result in sink] == list(range(5))
    assert all(result.resized for result in sink)
    assert (summary.resized, summary.source_size, summary.engine_size) == (True, (90, 160), SIZE)


def test_pixels_are_not_copied_on_the_way(tmp_path):
    seen = []
    segmenter = Threshold()
    segmenter.segment = lambda frame: seen.append(frame) or np.zeros(SIZE, np.uint8)
    sink = Collected()
    run_pipeline(open_source(str(write_clip(tmp_path / "a.mp4", 3))), segmenter, [sink], SIZE)
    assert all(np.shares_memory(given, result.frame.frame_bgr) for given, result in zip(seen, sink, strict=True))


def test_a_cut_off_file_is_completed_and_named(tmp_path):
    sink = Collected()
    summary = run_pipeline(open_source(str(write_cut_clip(tmp_path / "cut.avi", frames=40))), Threshold(), [sink], SIZE)
    assert len(sink) == summary.frames == 40 - summary.missing_frames
    assert 0 < summary.missing_frames < 40
    (warning,) = summary.warnings
    assert "cut.avi promises 40 frames" in warning


def test_limit(tmp_path):
    sink = Collected()
    run_pipeline(open_source(str(write_clip(tmp_path / "a.mp4"))), Threshold(), [sink], SIZE, limit=7)
    assert len(sink) == 7


def test_stages_work_at_the_same_time_and_memory_is_bounded(tmp_path):
    """The decoder runs ahead until its channel is full, and the first frame is written while later ones are decoded."""
    release = threading.Event()
    source = open_source(str(write_clip(tmp_path / "a.mp4", 40)))
    decoded = []

    class Watched:
        def __getattr__(self, name):
            return getattr(source, name)

        def __iter__(self):
            for frame in source:
                decoded.append(frame.index)
                if frame.index == DEPTH + 1:
                    release.set()  # decoded beyond what one stage after the other would have
                yield frame

    class Waiting(Threshold):
        def segment(self, frame_bgr):
            assert release.wait(20), "nothing was decoded while computing"
            assert len(decoded) - len(self.sizes) <= DEPTH + 2, "more frames in flight than the channel holds"
            return super().segment(frame_bgr)

    summary = run_pipeline(Watched(), Waiting(), [Collected()], SIZE)
    assert summary.waiting[0] == DEPTH
    assert summary.waiting[1] >= 1


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("stage", ["decode", "compute", "encode"])
@pytest.mark.parametrize("at", [0, 9])
def test_an_error_in_any_stage_stops_all_and_comes_out_once(tmp_path, stage, error, at):
    source = open_source(str(write_clip(tmp_path / "a.mp4", 40)))

    class Failing:
        def __getattr__(self, name):
            return getattr(source, name)

        def __iter__(self):
            for frame in source:
                if stage == "decode" and frame.index == at:
                    raise error
                yield frame

    segmenter = Threshold(at if stage == "compute" else None, error)
    sink = Collected(at if stage == "encode" else None, error)
    threads = threading.active_count()
    with pytest.raises(type(error)) as raised:
        run_pipeline(Failing(), segmenter, [sink], SIZE)
    assert raised.value is error
    assert threading.active_count() == threads
    assert [result.frame.index for result in sink] == list(range(len(sink)))
    assert len(sink) <= at
    assert stage == "decode" or len(sink) == at, "what was labelled is written"


def test_ctrl_c_reaches_a_run_that_waits_for_its_decoder(tmp_path):
    source = open_source(str(write_clip(tmp_path / "a.mp4", 5)))
    gone_on = threading.Event()

    class Stuck:
        def __getattr__(self, name):
            return getattr(source, name)

        def __iter__(self):
            yield from itertools.islice(source, 2)
            os.kill(os.getpid(), signal.SIGINT)  # the main thread is waiting for the third frame, or about to
            assert gone_on.wait(20)
            yield from source

    sink = Collected()
    timer = threading.Timer(0.3, gone_on.set)
    timer.start()
    summary = run_pipeline(Stuck(), Threshold(), [sink], SIZE, ending=Ending())
    timer.join()
    assert summary.interrupted == "SIGINT"
    assert summary.frames == len(sink) <= 2


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_run_is_ended_from_another_thread(tmp_path, parallel):
    source, ending, sink = open_source(str(write_clip(tmp_path / "a.mp4", 100))), Ending(), Collected()
    segmenter = Threshold(seconds=0.002)
    segmenter.parallel = parallel

    def then_end(result):
        sink(result)
        if len(sink) == 7:
            ending.end("SIGTERM")

    summary = run_pipeline(source, segmenter, [then_end], SIZE, ending=ending)
    assert summary.interrupted == "SIGTERM"
    assert summary.frames == len(sink) < 100
    assert [number_of(result.labels) for result in sink] == list(range(len(sink)))
    assert run_pipeline(open_source(str(tmp_path / "a.mp4")), segmenter, [], SIZE, ending=ending).frames == 0


@pytest.mark.parametrize("images", [False, True])
def test_a_source_goes_on_after_frames_that_are_done(tmp_path, images):
    clip, name = write_clip(tmp_path / "a.mp4", 20), str(tmp_path / "a.mp4")
    if images:
        name = str(tmp_path / "images")
        Path(name).mkdir()
        capture = cv2.VideoCapture(str(clip))
        for index in range(20):
            cv2.imwrite(f"{name}/{index:02d}.png", capture.read()[1])
    whole, rest = Collected(), Collected()
    run_pipeline(open_source(name), Threshold(), [whole], SIZE)
    source = open_source(name)
    source.skip(13)
    summary = run_pipeline(source, Threshold(), [rest], SIZE, limit=18, start=13)
    assert [result.frame.index for result in rest] == list(range(13, 18))
    for one, other in zip(whole[13:18], rest, strict=True):
        assert one.frame.time_s == other.frame.time_s
        np.testing.assert_array_equal(one.frame.frame_bgr, other.frame.frame_bgr)
    assert all(result.dropped_before == 0 for result in rest)
    assert (summary.frames, summary.frames_before, summary.missing_frames) == (5, 13, 0)


def test_channel_keeps_order_and_ends():
    channel = Channel(2)
    got = []
    reader = threading.Thread(target=lambda: got.extend(channel))
    reader.start()
    for item in range(100):
        channel.put(item)
    channel.close()
    reader.join(10)
    assert got == list(range(100))
    assert 1 <= channel.fullest <= 2


def test_a_stopped_channel_wakes_both_sides():
    channel, ended = Channel(1), []

    def writer():
        try:
            for item in range(10):
                channel.put(item)
        except Stopped:
            ended.append("writer")

    thread = threading.Thread(target=writer)
    thread.start()
    channel.stop()
    thread.join(10)
    assert ended == ["writer"]
    with pytest.raises(Stopped):
        next(iter(channel))
