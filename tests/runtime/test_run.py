"""`splitmerge run` and `splitmerge data render` as a user meets them: exit codes, one line on stderr, no leftovers."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import SIZE, Threshold, names, number_of, write_clip, write_cut_clip, write_package
from test_sources import BAD_SOURCES

import splitmerge.commands.run
from runtime.sources import VideoSource, silence_decoder
from splitmerge.cli import main
from splitmerge.errors import EngineError

silence_decoder()  # FFmpeg reads its level once, and in these tests the clips are written first


@pytest.fixture
def package(tmp_path):
    write_package(tmp_path / "package")
    return str(tmp_path / "package")


@pytest.fixture
def engine(monkeypatch):
    """The next run's engine, to be changed by a test."""
    segmenter = Threshold()
    monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda package, arguments: segmenter)
    return segmenter


def _outputs(folder):
    return [
        *("--overlay", f"{folder}/o.mp4", "--masks", f"{folder}/masks", "--colour-masks", f"{folder}/colours"),
        *("--records", f"{folder}/frames.jsonl", "--json", f"{folder}/run.json", "--legend"),
    ]


def test_everything_at_once(tmp_path, package, engine, capfd):
    clip, out = write_clip(tmp_path / "in.mp4", 30, (90, 160), fps=12.5), tmp_path / "out"
    assert main(["run", str(clip), "--package", package, *_outputs(out)]) == 0
    assert names(out) == ["colours", "frames.jsonl", "masks", "o.mp4", "run.json"]
    masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((out / "masks").iterdir())]
    assert [number_of(mask) for mask in masks] == list(range(30))
    assert {mask.shape for mask in masks} == {(90, 160)}
    assert len(names(out / "colours")) == 30
    records = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    assert [record["frame"] for record in records] == list(range(30))
    np.testing.assert_allclose([record["time_s"] for record in records], np.arange(30) / 12.5, atol=1e-6)
    for record, mask in zip(records, masks, strict=True):
        assert record["resized"] and record["split_batches"] == 16 and record["dropped_before"] == 0
        assert record["area"].get("sidewalk", 0) == pytest.approx(mask.mean(), abs=1e-6)
    summary = json.loads((out / "run.json").read_text())
    assert (summary["frames"], summary["missing_frames"], summary["model"]) == (30, 0, "smp18")
    assert summary["source_size"] == [90, 160] and summary["engine_size"] == list(SIZE)
    said = capfd.readouterr()
    assert "30 frames" in said.out and "resized" in said.out
    assert said.err == ""


def test_overlay_has_the_sources_frames_and_length(tmp_path, package, engine):
    av = pytest.importorskip("av")
    clip, out = write_clip(tmp_path / "in.mp4", 25, fps=12.5), tmp_path / "o.mp4"
    assert (
        main(["run", str(clip), "--package", package, "--overlay", str(out), "--frames", "20", "--alpha", "0.2"]) == 0
    )
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width) == SIZE
        assert (stream.frames, float(stream.average_rate)) == (20, 12.5)
        assert [number_of(f.to_ndarray(format="bgr24")) for f in container.decode(stream)] == list(range(20))
        assert container.duration / 1e6 == pytest.approx(20 / 12.5, abs=0.01)


def test_a_cut_off_source_is_done_as_far_as_it_goes(tmp_path, package, engine, capfd):
    clip = write_cut_clip(tmp_path / "in.avi", frames=40)
    assert main(["run", str(clip), "--package", package, *_outputs(tmp_path / "out")]) == 2
    summary = json.loads((tmp_path / "out/run.json").read_text())
    assert summary["frames"] + summary["missing_frames"] == 40 and summary["missing_frames"] > 0
    assert len((tmp_path / "out/frames.jsonl").read_text().splitlines()) == summary["frames"]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("splitmerge: ") and "in.avi promises 40 frames" in line


def _refused(arguments, folder, capfd, code=2):
    """Run a verb that must fail with `code`, one line on stderr and nothing new in `folder`; give the line."""
    before = sorted(str(path) for path in folder.rglob("*"))
    capfd.readouterr()
    assert main(arguments) == code
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("splitmerge: ")
    assert sorted(str(path) for path in folder.rglob("*")) == before
    return lines[0]


def _refused_option(arguments, folder, capfd):
    """Run a verb with an option that argparse must refuse; give the last line on stderr."""
    before = sorted(str(path) for path in folder.rglob("*"))
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert sorted(str(path) for path in folder.rglob("*")) == before
    return capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("words", BAD_SOURCES)
def test_bad_sources(tmp_path, package, engine, capfd, words):
    source = str(BAD_SOURCES[words](tmp_path))
    line = _refused(["run", source, "--package", package, *_outputs(tmp_path / "out")], tmp_path, capfd)
    assert words in line and source in line


def test_bad_outputs(tmp_path, package, engine, capfd):
    clip = str(write_clip(tmp_path / "in.mp4"))
    base = ["run", clip, "--package", package]
    assert "is the source, which" in _refused([*base, "--overlay", clip], tmp_path, capfd)
    assert "is the source, which" in _refused([*base, "--records", f"{tmp_path}/./in.mp4"], tmp_path, capfd)
    for option, name in [("--overlay", "o.mp4"), ("--masks", "m"), ("--records", "r"), ("--json", "s.json")]:
        assert "Cannot write into" in _refused([*base, option, f"{clip}/below-a-file/{name}"], tmp_path, capfd)
    assert "end its name in .mp4" in _refused([*base, "--overlay", f"{tmp_path}/o.gif"], tmp_path, capfd)
    assert "alpha of 2" in _refused([*base, "--overlay", f"{tmp_path}/o.mp4", "--alpha", "2"], tmp_path, capfd)
    assert "holds the source, which" in _refused([*base, "--masks", str(tmp_path)], tmp_path, capfd)
    assert "would be replaced" in _refused([*base, "--masks", package], tmp_path, capfd)
    assert "is a folder and a file" in _refused([*base, "--records", package], tmp_path, capfd)
    assert "is a folder and a file" in _refused([*base, "--json", package], tmp_path, capfd)
    assert "is a folder and a file" in _refused([*base, "--overlay", package], tmp_path, capfd)
    assert "is a file and a folder" in _refused([*base, "--masks", f"{package}/manifest.json"], tmp_path, capfd)
    assert engine.sizes == [], "no frame is computed before the outputs are known to be good"


@pytest.mark.parametrize(
    ("option", "value"), [("--frames", "0"), ("--frames", "1.5"), ("--contexts", "-1"), ("--chunk", "two")]
)
def test_bad_numbers(tmp_path, package, capfd, option, value):
    line = _refused_option(["run", "in.mp4", "--package", package, option, value], tmp_path, capfd)
    assert f"{option}: '{value}' is no positive whole number" in line


def test_a_deadline_that_cannot_be_is_refused(tmp_path, package, engine, capfd):
    clip = str(write_clip(tmp_path / "in.mp4", 2))
    base = ["run", clip, "--package", package, "--deadline-ms"]
    for value in ("-1", "nan", "inf"):
        assert "give milliseconds, or 0 for none" in _refused([*base, value], tmp_path, capfd)
    assert main([*base, "0"]) == 0


def test_a_part_of_a_video_gives_the_file_back(tmp_path, package, engine, monkeypatch):
    closed = []
    monkeypatch.setattr(VideoSource, "close", lambda self: closed.append(self._capture.release()))
    assert main(["run", str(write_clip(tmp_path / "in.mp4")), "--package", package, "--frames", "2"]) == 0
    assert closed


def test_a_folder_of_images_is_not_overwritten_by_its_masks(tmp_path, package, engine, capfd):
    (tmp_path / "frames").mkdir()
    cv2.imwrite(str(tmp_path / "frames/000000.png"), np.zeros((*SIZE, 3), np.uint8))
    frames = f"{tmp_path}/frames"
    assert "holds the source, which" in _refused(
        ["run", frames, "--package", package, "--masks", frames], tmp_path, capfd
    )


@pytest.mark.parametrize(("error", "code"), [(EngineError("The engine failed."), 2), (KeyboardInterrupt(), 130)])
def test_a_failure_at_the_first_frame_leaves_nothing(tmp_path, package, engine, capfd, error, code):
    clip = str(write_clip(tmp_path / "in.mp4"))
    (tmp_path / "out").mkdir()
    engine.fail_at, engine.error = 0, error
    outputs = [word for word in _outputs(tmp_path / "out") if word != "--json" and not word.endswith("run.json")]
    _refused(["run", clip, "--package", package, *outputs], tmp_path, capfd, code)


def test_a_full_disk_leaves_nothing(tmp_path, package, engine, capfd, monkeypatch):
    clip = str(write_clip(tmp_path / "in.mp4"))
    (tmp_path / "out").mkdir()

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    line = _refused(["run", clip, "--package", package, *_outputs(tmp_path / "out")], tmp_path, capfd)
    assert "make room on its disk" in line


def test_no_package(tmp_path, capfd):
    clip = str(write_clip(tmp_path / "in.mp4"))
    assert "is no package" in _refused(["run", clip, "--package", str(tmp_path / "nothing")], tmp_path, capfd)


def test_the_decoders_own_complaints_stay_off_stderr(tmp_path, package):
    """In a process of its own: FFmpeg and OpenCV write past Python's stderr."""
    for name in ("text.mp4", "cut.mp4"):
        path = BAD_SOURCES["its end is cut off" if name == "cut.mp4" else "is not a video that can be opened"](tmp_path)
        command = [sys.executable, "-m", "splitmerge", "run", str(path), "--package", package]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1, done.stderr


def test_render_a_clip_with_its_labels(tmp_path, capfd):
    clip, labels = tmp_path / "clip.mp4", tmp_path / "labels"
    arguments = ["data", "render", "drive", "--frames", "3", "--size", "64x128", "--seed", "4", "--fps", "12"]
    assert main([*arguments, "--out", str(clip), "--labels", str(labels)]) == 0
    from training.streets import Drive

    capture = cv2.VideoCapture(str(clip))
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)) == (3, 12)
    for index in range(3):
        image_bgr, truth = Drive(4, (64, 128), 12.0).frame(index)
        decoded = capture.read()[1]
        assert np.abs(decoded.astype(int) - image_bgr).mean() < 20
        np.testing.assert_array_equal(cv2.imread(str(labels / f"{index:06d}.png"), cv2.IMREAD_UNCHANGED), truth)


def test_render_a_folder_that_is_a_data_set(tmp_path, capfd):
    out = tmp_path / "scenes"
    assert main(["data", "render", "streets", "--frames", "2", "--size", "64x96", "--out", str(out)]) == 0
    from training.data import open_dataset

    rendered, read = open_dataset("streets", (64, 96), 2), open_dataset(str(out), (64, 96))
    assert len(read) == 2
    for index in range(2):
        for expected, found in zip(rendered[index], read[index], strict=True):
            np.testing.assert_array_equal(found, expected)
    base = ["data", "render", "drive", "--frames", "2", "--size", "64x96"]
    assert "exists already" in _refused([*base, "--out", str(out)], tmp_path, capfd)
    assert "no data set" in _refused(["data", "render", "streams", "--out", f"{tmp_path}/a.mp4"], tmp_path, capfd)
    assert "even height" in _refused([*base[:-1], "65x96", "--out", f"{tmp_path}/a.mp4"], tmp_path, capfd)
    assert "too small" in _refused([*base[:-1], "16x96", "--out", f"{tmp_path}/a.mp4"], tmp_path, capfd)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--seed", "-1", "no whole number"),
        ("--fps", "nan", "no positive number"),
        ("--fps", "0", "no positive number"),
        ("--fps", "inf", "no positive number"),
        ("--frames", "0", "no positive whole number"),
        ("--size", "64", "is no size"),
    ],
)
def test_render_refuses_numbers_that_cannot_be(tmp_path, capfd, option, value, words):
    arguments = ["data", "render", "drive", "--out", f"{tmp_path}/a.mp4", option, value]
    assert words in _refused_option(arguments, tmp_path, capfd)


def test_render_with_a_seed_in_the_name_and_another_beside_it(tmp_path, capfd):
    base = ["data", "render", "drive:7", "--frames", "1", "--size", "32x64", "--out", f"{tmp_path}/a.mp4"]
    assert "drive:7 and the seed 3 name two streets" in _refused([*base, "--seed", "3"], tmp_path, capfd)
    assert main([*base, "--seed", "7"]) == 0


def test_a_built_in_name_wins_over_a_folder(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "streets").mkdir()
    base = ["data", "render", "streets", "--frames", "1", "--size", "32x64"]
    assert main([*base, "--out", "scenes"]) == 0
    base[2] = "./streets"
    assert "is a folder, which needs no rendering" in _refused([*base, "--out", "more"], tmp_path, capfd)
