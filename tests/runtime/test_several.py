"""Several sources on one engine: outputs of their own, ends of their own, and nobody falls with another."""

import itertools
import json
import os
import re
import signal
import socket
import threading
import urllib.request

import cv2
import numpy as np
import pytest
from clips import (
    SIZE,
    Threshold,
    masks_in,
    names,
    number_of,
    numbered_frame,
    records_in,
    write_clip,
    write_cut_clip,
    write_package,
)
from prometheus_client.parser import text_string_to_metric_families
from senders import Camera, numbered_parts, wait_for

import splitmerge.commands.run
from runtime.several import side_by_side
from runtime.sources import silence_decoder
from splitmerge.cli import main
from splitmerge.errors import EngineError, InputError

silence_decoder()


@pytest.fixture
def package(tmp_path):
    write_package(tmp_path / "package")
    return str(tmp_path / "package")


@pytest.fixture
def engine(monkeypatch):
    segmenter = Threshold()
    monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda package, arguments: segmenter)
    return segmenter


def _outputs(out):
    return [
        *("--overlay", f"{out}/{{source}}.mp4", "--masks", f"{out}/{{source}}-masks"),
        *("--records", f"{out}/{{source}}.jsonl", "--json", f"{out}/run.json"),
    ]


def _clips(folder):
    """Three videos of other lengths and sizes, two of the same name."""
    for name in ("left", "right"):
        (folder / name).mkdir()
    return [
        str(write_clip(folder / "left/drive.mp4", 30)),
        str(write_clip(folder / "right/drive.avi", 12, (90, 160))),
        str(write_clip(folder / "city.mp4", 20)),
    ]


def test_each_source_has_its_own_outputs(tmp_path, package, engine, capfd):
    out = tmp_path / "out"
    assert main(["run", *_clips(tmp_path), "--package", package, *_outputs(out)]) == 0
    expected = {"drive": (30, SIZE), "drive-2": (12, (90, 160)), "city": (20, SIZE)}
    assert names(out) == sorted(
        ["run.json", *(f"{name}{end}" for name in expected for end in (".mp4", ".jsonl", "-masks"))]
    )
    for name, (frames, size) in expected.items():
        masks = masks_in(out / f"{name}-masks")
        assert [number_of(mask) for mask in masks] == list(range(frames))
        assert {mask.shape for mask in masks} == {size}
        assert [record["frame"] for record in records_in(out / f"{name}.jsonl")] == list(range(frames))
        capture = cv2.VideoCapture(str(out / f"{name}.mp4"))
        assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == frames
    summary = json.loads((out / "run.json").read_text())
    assert (summary["model"], summary["backend"]) == ("smp18", "onnxruntime")
    assert [(each["name"], each["frames"], each["failed"]) for each in summary["sources"]] == [
        ("drive", 30, False),
        ("drive-2", 12, False),
        ("city", 20, False),
    ]
    assert (summary["totals"]["frames"], summary["totals"]["failed"]) == (62, [])
    said = capfd.readouterr()
    assert said.err == "" and "3 sources: 62 frames" in said.out


def test_frames_are_of_each(tmp_path, package, engine):
    out = tmp_path / "out"
    assert main(["run", *_clips(tmp_path), "--package", package, *_outputs(out), "--frames", "7"]) == 0
    assert [len(records_in(out / f"{name}.jsonl")) for name in ("drive", "drive-2", "city")] == [7, 7, 7]


def test_the_name_goes_for_a_single_source_too(tmp_path, package, engine):
    clip = str(write_clip(tmp_path / "drive.mp4", 3))
    assert main(["run", clip, "--package", package, *_outputs(tmp_path / "out")]) == 0
    assert names(tmp_path / "out") == ["drive-masks", "drive.jsonl", "drive.mp4", "run.json"]
    assert json.loads((tmp_path / "out/run.json").read_text())["frames"] == 3


@pytest.mark.parametrize("option", ["--overlay", "--masks", "--colour-masks", "--records"])
def test_one_place_for_several_is_refused(tmp_path, package, engine, capfd, option):
    clips = _clips(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["run", *clips, "--package", package, option, f"{tmp_path}/out.mp4"]) == 2
    assert capfd.readouterr().err == (
        f"splitmerge: 3 sources would all write to {option} {tmp_path}/out.mp4: put {{source}} in it, as "
        f"{tmp_path}/out-{{source}}.mp4.\n"
    )
    assert sorted(tmp_path.rglob("*")) == before and not engine.sizes


def test_other_outputs_that_cannot_be(tmp_path, package, engine, capfd):
    clips = _clips(tmp_path)
    for arguments, words in [
        (["--json", f"{tmp_path}/{{source}}.json"], "is one file for all sources"),
        (["--overlay", f"{tmp_path}/{{source}}.mp4"], "city.mp4 is the source, which"),
        (["--overlay", f"{tmp_path}/o/{{source}}.gif"], "end its name in .mp4"),
        (["--records", f"{tmp_path}/o/{{source}}", "--masks", f"{tmp_path}/o/{{source}}"], "named for two outputs"),
    ]:
        before = sorted(tmp_path.rglob("*"))
        assert main(["run", *clips, "--package", package, *arguments]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert words in line
        assert sorted(path for path in tmp_path.rglob("*") if path.name != "o") == before
    assert not engine.sizes
    assert main(["run", "-", "-", "--package", package]) == 2
    assert "Standard input can be read once only" in capfd.readouterr().err


# --- one falls, the others do not -------------------------------------------------------------------------------------


def _two_sizes(folder):
    folder.mkdir()
    for index in range(6):
        cv2.imwrite(f"{folder}/{index}.png", numbered_frame(index, SIZE if index < 5 else (96, 96)))
    return folder


def test_sources_that_fail_do_not_end_the_others(tmp_path, package, engine, capfd):
    """One is not there, one is no video, one is cut off, one breaks off with an error; two are good."""
    (tmp_path / "text.mp4").write_text("no video " * 100)
    sources = [
        *(tmp_path / "missing.mp4", tmp_path / "text.mp4", write_cut_clip(tmp_path / "cut.avi", frames=40)),
        *(_two_sizes(tmp_path / "sizes"), write_clip(tmp_path / "a.mp4", 25), write_clip(tmp_path / "b.mp4", 10)),
    ]
    out = tmp_path / "out"
    assert main(["run", *map(str, sources), "--package", package, *_outputs(out)]) == 2
    for name, frames in (("a", 25), ("b", 10)):
        assert [number_of(mask) for mask in masks_in(out / f"{name}-masks")] == list(range(frames))
        assert len(records_in(out / f"{name}.jsonl")) == frames
    summary = json.loads((out / "run.json").read_text())
    by_name = {each["name"]: each for each in summary["sources"]}
    assert list(by_name) == ["missing", "text", "cut", "sizes", "a", "b"]
    assert summary["totals"]["failed"] == ["missing", "text", "cut", "sizes"]
    assert by_name["cut"]["frames"] + by_name["cut"]["missing_frames"] == 40
    assert len(records_in(out / "cut.jsonl")) == by_name["cut"]["frames"] > 0
    assert "frames" not in by_name["missing"] and "does not exist" in by_name["missing"]["error"]
    assert "5.png is 96x96" in by_name["sizes"]["error"]
    assert len(records_in(out / "sizes.jsonl")) == len(masks_in(out / "sizes-masks")) <= 5, "what was done is kept"
    assert not list(out.glob("*missing*")) and not list(out.glob(".*partial*"))
    said = capfd.readouterr()
    for name in ("missing.mp4", "text.mp4", "cut.avi", "sizes"):
        assert [line for line in said.err.splitlines() if line.startswith("splitmerge: ") and name in line]
    assert "failed or not complete: missing, text, cut, sizes" in said.out


def test_none_can_be_used(tmp_path, package, engine, capfd):
    assert main(["run", f"{tmp_path}/a.mp4", f"{tmp_path}/b.mp4", "--package", package, *_outputs(tmp_path / "o")]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 3 and lines[-1] == "splitmerge: None of the 2 sources can be used: see above."
    assert not (tmp_path / "o").exists()


def test_a_failure_is_one_whatever_an_earlier_run_did(tmp_path, package, engine, capfd):
    """One source was done by an earlier run, another is not there: before, that ended with 0 and no summary."""
    out, sources = tmp_path / "out", [str(write_clip(tmp_path / "a.mp4", 5)), f"{tmp_path}/nothere.mp4"]
    arguments = ["run", *sources, "--package", package, *_outputs(out), "--resume"]
    assert main(arguments) == 2
    for _ in range(2):
        engine.sizes.clear()
        (out / "run.json").unlink()
        assert main(arguments) == 2
        summary = json.loads((out / "run.json").read_text())
        assert [(each["name"], each["already_done"], each["failed"]) for each in summary["sources"]] == [
            ("a", True, False),
            ("nothere", False, True),
        ]
        assert summary["totals"]["failed"] == ["nothere"] and not engine.sizes
    assert main(["run", sources[0], *arguments[3:]]) == 0
    assert json.loads((out / "run.json").read_text())["already_done"]


@pytest.mark.parametrize("alone", [True, False])
def test_a_source_that_was_cut_off_stays_so_when_its_run_is_done(tmp_path, package, engine, capfd, alone):
    cut, whole = write_cut_clip(tmp_path / "cut.avi", frames=40), write_clip(tmp_path / "a.mp4", 5)
    sources = [str(cut)] if alone else [str(cut), str(whole)]
    arguments = ["run", *sources, "--package", package, *_outputs(tmp_path / "out")]
    assert main(arguments) == 2
    engine.sizes.clear()
    for _ in range(2):
        capfd.readouterr()
        assert main([*arguments, "--resume"]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"splitmerge: {cut}: an earlier run did all its frames that could be decoded; ")
        assert not engine.sizes
        summary = json.loads((tmp_path / "out/run.json").read_text())
        assert summary["failed"] if alone else summary["totals"]["failed"] == ["cut"]


def test_a_source_that_cannot_be_gone_on_with_leaves_the_others_to_go_on(tmp_path, package, engine, capfd):
    out, segment = tmp_path / "out", engine.segment
    clips = [str(write_clip(tmp_path / f"{name}.mp4", 40)) for name in "ab"]

    def fail_at_15(frame_bgr):
        if number_of(frame_bgr) == 15:
            raise EngineError("The engine failed.")
        return segment(frame_bgr)

    engine.segment = fail_at_15
    arguments = ["run", *clips, "--package", package, *_outputs(out), "--resume"]
    assert main(arguments) == 2
    (out / "a-masks/000003.png").unlink()
    engine.segment = segment
    capfd.readouterr()
    assert main(arguments) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert f"{out}/a-masks has the first 3 of the 15 frames that an interrupted run left" in line
    assert json.loads((out / "run.json").read_text())["totals"]["failed"] == ["a"]
    assert len(engine.sizes) == 2 * 15 + 25 and len(masks_in(out / "a-masks")) == 14
    assert [number_of(mask) for mask in masks_in(out / "b-masks")] == list(range(40))


def test_an_engine_that_fails_is_every_sources_failure(tmp_path, package, engine, capfd):
    engine.fail_at, engine.error = 0, EngineError("The engine failed.")
    engine.segment = lambda frame_bgr: (_ for _ in ()).throw(engine.error)
    assert main(["run", *_clips(tmp_path), "--package", package, *_outputs(tmp_path / "out")]) == 2
    summary = json.loads((tmp_path / "out/run.json").read_text())
    assert summary["totals"]["failed"] == ["drive", "drive-2", "city"]
    assert names(tmp_path / "out") == ["run.json"]


def test_a_bug_is_not_taken_for_a_sources_failure(tmp_path, package, engine):
    engine.fail_at, engine.error = 11, ZeroDivisionError("a bug")
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        main(["run", *_clips(tmp_path), "--package", package, *_outputs(tmp_path / "out")])
    assert threading.active_count() == before


def test_a_camera_that_is_lost_leaves_a_file_and_shows_no_password(tmp_path, package, engine, capfd):
    engine.seconds = 0.002

    def once():
        yield from numbered_parts(range(15))
        camera.close()

    camera, out = Camera(once), tmp_path / "out"
    clip = str(write_clip(tmp_path / "drive.mp4", 40))
    with socket.socket() as unused:  # bound and not listening: refuses connections
        unused.bind(("127.0.0.1", 0))
        refused = f"http://admin:s3cret@127.0.0.1:{unused.getsockname()[1]}/x?pwd=s3cret"
        sources = [camera.url, clip, refused]
        assert main(["run", *sources, "--package", package, *_outputs(out), "--reconnect", "1"]) == 2
    summary = json.loads((out / "run.json").read_text())
    live, file, other = summary["sources"]
    assert live["source_lost"] and live["live"] and live["name"].startswith("127.0.0.1-")
    assert live["captured"] == live["frames"] + live["dropped"] + live["dropped_by_sinks"] > 0
    assert len(records_in(out / f"{live['name']}.jsonl")) == live["frames"]
    assert (file["frames"], file["failed"], file["live"]) == (40, False, False)
    assert "refuses the connection" in other["error"]
    said = capfd.readouterr()
    written = [path.read_text() for path in out.iterdir() if path.suffix in (".json", ".jsonl")]
    for text in (said.out, said.err, *names(out), *written):
        assert "s3cret" not in text and "admin" not in text


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_all(tmp_path, package, engine, monkeypatch):
    """Two files, a camera that goes on for ever and one that falls silent."""
    hang_up, ended, end_all = threading.Event(), threading.Event(), splitmerge.commands.run._end_all

    def end_all_and_say_so(*arguments):
        end_all(*arguments)
        ended.set()

    monkeypatch.setattr(splitmerge.commands.run, "_end_all", end_all_and_say_so)

    def silent():
        yield from numbered_parts(range(12), 0)
        hang_up.wait(60)

    with Camera(lambda: numbered_parts(itertools.count())) as camera, Camera(silent) as quiet:
        clips = [str(write_clip(tmp_path / f"{name}.mp4", 250)) for name in "ab"]
        real, computed, counting = engine.segment, [], threading.Lock()

        def segment(frame_bgr):
            with counting:
                computed.append(1)
                number = len(computed)
            if number == 30:
                os.kill(os.getpid(), signal.SIGINT)
            if number >= 30:
                assert ended.wait(60), "the signal was not heard"
            return real(frame_bgr)

        engine.segment, engine.seconds = segment, 0.01
        arguments = ["run", *clips, camera.url, quiet.url, "--package", package, *_outputs(tmp_path / "out")]
        assert main(arguments) == 130
        hang_up.set()
        assert not [thread for thread in threading.enumerate() if thread.name in ("a", "b", "encode", "decode")]
        wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "reader"])
    assert 30 <= len(computed) <= 33, "each source ends with the frame that it is at"


def test_a_signal_while_an_end_is_told_loses_none():
    told, stop, begun = [], threading.Event(), threading.Event()

    def second():
        begun.set()
        assert stop.wait(20)
        return 2

    def ended(name, result):
        if not told:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.wait(20)
        told.append((name, result))

    work = {"first": lambda: begun.wait(20), "second": second}
    side_by_side(work, ended, lambda signal: stop.set())
    assert sorted(told) == [("first", True), ("second", 2)]


def test_work_that_is_left_behind_tells_nothing():
    told, end = [], threading.Event()

    def bug():
        raise ZeroDivisionError

    def long():
        end.wait(20)

    with pytest.raises(ZeroDivisionError):
        side_by_side({"long": long, "bug": bug}, lambda name, result: told.append(name))
    end.set()
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "long"])
    assert told == []


def test_work_that_is_told_to_stop_is_waited_for():
    stop, ended = threading.Event(), []

    def long():
        assert stop.wait(20)
        ended.append("long")
        raise KeyboardInterrupt

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side({"long": long, "interrupted": interrupted}, lambda name, result: None, lambda signal: stop.set())
    assert ended == ["long"]


# --- one engine -------------------------------------------------------------------------------------------------------


def test_a_page_for_all(tmp_path, package, engine, monkeypatch, capfd):
    """Looked at while the second source is at work and after the first has ended, the third could not be opened."""
    seen, segment = {}, engine.segment
    clips = [str(write_clip(tmp_path / "a.mp4", 4)), str(write_clip(tmp_path / "b.mp4", 60)), f"{tmp_path}/c.mp4"]
    open_page = splitmerge.commands.run._page
    pages = []

    def page_of(*arguments):
        pages.append(open_page(*arguments))
        return pages[0]

    monkeypatch.setattr(splitmerge.commands.run, "_page", page_of)

    def look(frame_bgr):
        if number_of(frame_bgr) == 40:  # which the first source has not
            wait_for(lambda: pages[0].monitors["a"].state == "ended")
            for path in ("sources.json", "metrics", "overlay.jpg?source=b"):
                with urllib.request.urlopen(pages[0].url + path, timeout=20) as answer:
                    seen[path] = answer.read()
        return segment(frame_bgr)

    engine.segment = look
    assert main(["run", *clips, "--package", package, "--page", "0"]) == 2
    states = {each["source"]: (each["state"], each["frames"]) for each in json.loads(seen["sources.json"])}
    assert states["a"] == ("ended", 4) and states["c"] == ("failed", 0)
    assert states["b"][0] == "running" and 0 < states["b"][1] < 60
    samples = {
        (sample.name, sample.labels["source"]): sample.value
        for family in text_string_to_metric_families(seen["metrics"].decode())
        for sample in family.samples
    }
    assert samples["splitmerge_frames_total", "a"] == 4 and samples["splitmerge_frames_total", "c"] == 0
    assert cv2.imdecode(np.frombuffer(seen["overlay.jpg?source=b"], np.uint8), cv2.IMREAD_COLOR).shape == (*SIZE, 3)
    assert re.search(r"^live page: http://127\.0\.0\.1:\d+/$", capfd.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("sources", [1, 2])
def test_a_port_in_use_is_noticed_before_the_engine_and_the_sources_are_opened(tmp_path, package, monkeypatch, sources):
    opened = []
    monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda *_: opened.append("engine"))
    clips = [str(write_clip(tmp_path / f"{name}.mp4", 2)) for name in "ab"[:sources]]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["run", *clips, "--package", package, "--page", str(taken.getsockname()[1])]) == 2
    assert opened == []


def test_errors_have_the_words_that_they_came_with():
    told = []
    work = {"good": lambda: 7, "bad": lambda: (_ for _ in ()).throw(InputError("out of luck"))}
    side_by_side(work, lambda name, result: told.append((name, str(result))))
    assert sorted(told) == [("bad", "out of luck"), ("good", "7")]
