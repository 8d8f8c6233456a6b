"""Live sources: fresh, counted, connected again; each fault comes from a real server on loopback."""

import itertools
import json
import os
import signal
import threading

import cv2
import numpy as np
import pytest
from clips import SIZE, Threshold, number_of, numbered_frame, write_clip, write_package
from senders import Camera, ffmpeg, free_port, mjpeg_part, numbered_parts, wait_for
from tenacity import wait_fixed

import splitmerge.commands.run
from runtime import live
from runtime.live import LEFT_BEHIND, Limits, LiveSource
from runtime.pipeline import DEPTH, Ending, run_pipeline
from runtime.sources import open_source, silence_decoder
from splitmerge.cli import main
from splitmerge.errors import InputError

silence_decoder()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Attempts follow each other at once."""
    monkeypatch.setattr(live, "WAIT", wait_fixed(0.05))


def endless():
    return numbered_parts(itertools.count())


def check_sums(summary, results):
    """Every frame that was captured is accounted for, in the totals and in the records."""
    assert summary.captured == summary.frames + summary.dropped + summary.dropped_by_sinks
    assert summary.frames == len(results)
    numbers = [result.frame.index for result in results]
    befores = [result.dropped_before for result in results]
    assert numbers == [sum(befores[: i + 1]) + i for i in range(len(results))]
    assert 0 <= summary.captured - (numbers[-1] + 1) <= summary.dropped + summary.dropped_by_sinks - sum(befores)
    times = [result.frame.time_s for result in results]
    assert all(earlier < later for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize("parallel", [1, 3])
def test_the_newest_frame_wins_and_the_others_are_counted(parallel):
    segmenter, results = Threshold(seconds=0.07 * parallel), []
    segmenter.parallel = parallel
    with Camera(endless) as camera:
        source = open_source(camera.url, limits=Limits(5))
        summary = run_pipeline(source, segmenter, [results.append], SIZE, limit=20)
    check_sums(summary, results)
    assert summary.frames == 20 and summary.dropped >= 20
    assert summary.dropped == source.events.captured - 20
    # Each result is of the frame that it says: the sender's number is the index.
    assert [number_of(result.labels) for result in results] == [result.frame.index % 256 for result in results]
    assert summary.live and summary.age_ms["p50"] <= summary.age_ms["p95"] <= summary.age_ms["max"]
    assert all(result.latency_ms >= result.compute_ms for result in results)


def test_a_slow_output_never_stalls_the_source():
    segmenter, results, most = Threshold(), [], []

    def slow(result):
        done = len(segmenter.sizes)
        wait_for(lambda: len(segmenter.sizes) >= min(done + 2 * DEPTH, 60))
        most.append(len(segmenter.sizes))
        results.append(result)

    with Camera(endless) as camera:
        source = open_source(camera.url, limits=Limits(5))
        summary = run_pipeline(source, segmenter, [slow], SIZE, limit=60)
    check_sums(summary, results)
    assert summary.dropped_by_sinks == 60 - len(results) > 0
    assert summary.waiting == (1, DEPTH)


def test_a_file_stays_whole_unless_it_is_played_live(tmp_path):
    clip, results = str(write_clip(tmp_path / "a.mp4", 20, fps=50.0)), []
    summary = run_pipeline(open_source(clip), Threshold(seconds=0.03), [results.append], SIZE)
    assert (summary.frames, summary.dropped, summary.live, summary.age_ms) == (20, 0, False, None)
    results.clear()
    summary = run_pipeline(open_source(clip, live=True), Threshold(seconds=0.1), [results.append], SIZE)
    check_sums(summary, results)
    assert summary.captured == 20 and summary.dropped > 0 and not summary.source_lost


def test_every_frame_of_a_stream_where_that_is_asked_for():
    with Camera(lambda: numbered_parts(range(40), 0)) as camera:
        results = []
        source = open_source(camera.url, live=False)
        summary = run_pipeline(source, Threshold(seconds=0.005), [results.append], SIZE)
    assert [number_of(result.labels) for result in results] == list(range(40))
    assert (summary.dropped, summary.outages, summary.source_lost, camera.requests) == (0, 0, False, 1)


def test_a_lost_connection_is_opened_again(capfd):
    def short():
        return numbered_parts(range(20))

    with Camera(short, short, endless) as camera:
        results = []
        summary = run_pipeline(open_source(camera.url), Threshold(), [results.append], SIZE, limit=60)
    check_sums(summary, results)
    assert (summary.outages, summary.reconnects, summary.stalls, camera.requests) == (2, 2, 0, 3)
    said = capfd.readouterr().err
    assert said.count("connected again") == 2 and "s3cret" not in said and "admin" not in said


def test_a_stall_is_noticed_and_the_frames_go_on():
    hold = threading.Event()

    def stalling():
        yield from numbered_parts(range(10))
        hold.wait(30)

    with Camera(stalling, endless) as camera:
        results = []
        summary = run_pipeline(open_source(camera.url, limits=Limits(1.0)), Threshold(), [results.append], SIZE, 30)
        hold.set()
    check_sums(summary, results)
    assert (summary.stalls, summary.outages, summary.reconnects) == (1, 1, 1)
    times = [result.frame.time_s for result in results]
    # Not a whole second: FFmpeg takes MJPEG for 25 frames per second, and this sender's clock ran ahead.
    assert max(np.diff(times)) >= 0.5, "the clock goes on while the source is away"


class Hanging:
    """A connection that gives one frame and then hangs in the decoder, where no time limit reaches it."""

    fps, frame_count, release, opened, closed = 25.0, None, threading.Event(), 0, 0

    def __init__(self):
        Hanging.opened += 1
        self._first = True

    def read(self):
        if not self._first or Hanging.opened > 1:
            assert Hanging.release.wait(60)
            return None
        self._first = False
        return numbered_frame(1), 0.0

    def close(self):
        Hanging.closed += 1


def test_a_decoder_that_hangs_is_left_behind_and_no_more_than_a_few(monkeypatch):
    monkeypatch.setattr(live.connection, "OPEN_S", 0.1)
    source = LiveSource("camera", Hanging, Limits(0.1, reconnect=3 * LEFT_BEHIND), True)
    assert len(list(source)) == 1
    assert Hanging.opened == LEFT_BEHIND, "attempts while so many hang open nothing"
    assert source.events.attempts == 3 * LEFT_BEHIND and source.events.lost is not None
    Hanging.release.set()
    wait_for(lambda: Hanging.closed == Hanging.opened)
    wait_for(lambda: not any(thread.name == "reader" and thread.is_alive() for thread in threading.enumerate()))


def test_a_refused_connection_is_told_without_its_password():
    url = f"http://admin:s3cret@127.0.0.1:{free_port()}/video"
    with pytest.raises(InputError, match=r"http://\*\*\*@127.0.0.1:\d+/video cannot be opened") as error:
        open_source(url)
    assert "s3cret" not in str(error.value)


def test_garbage_is_refused():
    with (
        Camera(lambda: itertools.chain([os.urandom(1 << 16)] * 20)) as camera,
        pytest.raises(InputError, match=r"cannot be opened|gives no frame"),
    ):
        open_source(camera.url)


def test_damaged_pictures_in_between_are_passed_over():
    def damaged():
        for number, part in enumerate(numbered_parts(itertools.count())):
            yield mjpeg_part(numbered_frame(0))[:80] + os.urandom(200) + b"\r\n" if number % 5 == 3 else part

    with Camera(damaged) as camera:
        results = []
        summary = run_pipeline(open_source(camera.url), Threshold(), [results.append], SIZE, limit=30)
    check_sums(summary, results)
    assert summary.frames == 30


def test_other_sizes_and_gray_in_mid_stream_keep_the_first_size():
    sizes = [(71, 131), (96, 160), (64, 128)]

    def changing():
        for number in itertools.count():
            image = numbered_frame(number % 256, sizes[number // 10 % 3])
            yield mjpeg_part(image[:, :, 0] if number % 2 else image)
            threading.Event().wait(0.02)

    with Camera(changing) as camera:
        segmenter, results = Threshold(), []
        summary = run_pipeline(open_source(camera.url), segmenter, [results.append], SIZE, limit=40)
    check_sums(summary, results)
    assert summary.source_size == (71, 131) and set(segmenter.sizes) == {SIZE}
    assert {result.labels.shape for result in results} == {(71, 131)}
    assert {result.frame.frame_bgr.shape for result in results} == {(71, 131, 3)}
    assert all(result.resized for result in results)
    assert [number_of(result.labels) for result in results] == [result.frame.index for result in results]


def test_another_size_after_an_outage_is_scaled_to_the_first_and_told():
    def large():
        for number in itertools.count(20):
            yield mjpeg_part(numbered_frame(number % 256, (97, 161)))
            threading.Event().wait(0.02)

    with Camera(lambda: numbered_parts(range(20)), large) as camera:
        results = []
        summary = run_pipeline(open_source(camera.url), Threshold(), [results.append], SIZE, limit=40)
    check_sums(summary, results)
    assert summary.size_changes == 1 and any("changed its size 1 times" in words for words in summary.warnings)
    assert {result.frame.frame_bgr.shape for result in results} == {(*SIZE, 3)}
    assert [result.resized for result in results] == [result.frame.index >= 20 for result in results]
    assert [number_of(result.labels) for result in results] == [result.frame.index for result in results]


def test_a_deadline_counts_from_capture():
    given = []

    class Watched(Threshold):
        def measure(self, frame_bgr, until=None, **more):
            given.append(until)
            return super().measure(frame_bgr, until)

    with Camera(endless) as camera:
        results = []
        run_pipeline(open_source(camera.url), Watched(seconds=0.05), [results.append], SIZE, 10, deadline_ms=500)
    for until, result in zip(given, results, strict=True):
        assert until == pytest.approx(result.frame.captured_at + 0.5, abs=1e-9)


@pytest.mark.parametrize("stage", ["compute", "encode"])
@pytest.mark.parametrize("parallel", [1, 2])
def test_an_error_ends_a_live_run(stage, parallel):
    segmenter = Threshold(5 if stage == "compute" else None, ValueError("broken"))
    segmenter.parallel, done = parallel, []

    def sink(result):
        done.append(result)
        if stage == "encode" and len(done) == 5:
            raise ValueError("broken")

    with Camera(endless) as camera, pytest.raises(ValueError, match="broken"):
        run_pipeline(open_source(camera.url), segmenter, [sink], SIZE)
    wait_for(lambda: not any(thread.name == "reader" for thread in threading.enumerate()))


def test_ctrl_c_ends_a_live_run():
    results = []

    def sink(result):
        results.append(result)
        if len(results) == 1:
            os.kill(os.getpid(), signal.SIGINT)  # the main thread computes, or waits for the next frame

    with Camera(endless) as camera:
        summary = run_pipeline(open_source(camera.url), Threshold(), [sink], SIZE, ending=Ending())
    assert summary.interrupted == "SIGINT"
    check_sums(summary, results)
    wait_for(lambda: not any(thread.name == "reader" for thread in threading.enumerate()))


def test_a_silent_stream_that_is_waited_for_is_let_go_at_the_end():
    """Not a live one: a pipe whose sender stopped, for longer than anybody would wait."""
    silent, ending, results, summaries = threading.Event(), Ending(), [], []

    class Pipe:
        fps, frame_count = 25.0, None

        def __init__(self):
            self._frames = iter(range(3))

        def read(self):
            number = next(self._frames, None)
            if number is None:
                silent.wait(120)
                return None
            return numbered_frame(number), number / 25

        def close(self):
            pass

    def sink(result):
        results.append(result)
        if len(results) == 3:
            ending.end("SIGINT")

    source = LiveSource("standard input", Pipe, Limits(stall_s=600), live=False, ends=True)
    run = threading.Thread(
        target=lambda: summaries.append(run_pipeline(source, Threshold(), [sink], SIZE, ending=ending))
    )
    run.start()
    run.join(30)
    ended = not run.is_alive()
    silent.set()
    run.join()
    assert ended, "it waited for the sender"
    (summary,) = summaries
    assert (summary.frames, summary.interrupted, summary.source_lost, summary.warnings) == (3, "SIGINT", False, ())


def test_no_attempt_is_made_where_none_is_allowed(capfd):
    with Camera(lambda: numbered_parts(range(10))) as camera:
        results = []
        source = open_source(camera.url, limits=Limits(reconnect=0))
        summary = run_pipeline(source, Threshold(), [results.append], SIZE)
        check_sums(summary, results)
        assert (camera.requests, summary.attempts, summary.outages, summary.source_lost) == (1, 0, 1, True)
    assert capfd.readouterr().err == ""


def test_a_source_that_never_comes_back_leaves_its_results_and_no_password(tmp_path, monkeypatch, capfd):
    write_package(tmp_path / "package")
    monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda package, arguments: Threshold())

    def once():
        yield from numbered_parts(range(30))
        camera.close()  # before the connection ends, so that the further attempts are refused

    camera = Camera(once)
    out = tmp_path / "out"
    outputs = ["--records", f"{out}/frames.jsonl", "--json", f"{out}/run.json", "--masks", f"{out}/masks"]
    arguments = ["run", camera.url, "--package", str(tmp_path / "package"), "--reconnect", "2", *outputs]
    assert main(arguments) == 2
    summary = json.loads((out / "run.json").read_text())
    records = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    assert summary["source_lost"] and summary["live"] and summary["attempts"] == 2 and summary["reconnects"] == 0
    assert summary["captured"] == len(records) + summary["dropped"] + summary["dropped_by_sinks"] > 0
    assert len(list((out / "masks").iterdir())) == len(records)
    said = capfd.readouterr()
    assert "was lost" in said.err and "2 attempts to connect again failed" in said.err
    assert "frames captured =" in said.out and "age from capture to label: p50" in said.out
    for text in (said.err, said.out, (out / "run.json").read_text(), (out / "frames.jsonl").read_text()):
        assert "s3cret" not in text and "admin" not in text


def test_pictures_of_odd_size_in_a_file_that_changes_it(tmp_path):
    """A file keeps its first size, too: two streams of MPEG-TS one after the other, which is how recorders cut."""
    for name, size in (("a", "130x70"), ("b", "160x96")):
        with ffmpeg(
            *("-f", "lavfi", "-i", f"testsrc=size={size}:rate=10:duration=1", "-c:v", "libx264"),
            *("-pix_fmt", "yuv420p", tmp_path / f"{name}.ts"),
        ) as process:
            assert process.wait(30) == 0
    joined = tmp_path / "joined.ts"
    joined.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    results = []
    summary = run_pipeline(open_source(str(joined)), Threshold(), [results.append], SIZE)
    assert summary.frames >= 18 and summary.source_size == (70, 130)
    assert {result.frame.frame_bgr.shape for result in results} == {(70, 130, 3)}
    assert np.ptp([result.frame.frame_bgr.mean() for result in results]) < 40
    assert cv2.countNonZero(results[-1].frame.frame_bgr[:, :, 0]) > 0
