"""Sinks: what they write, read back by PyAV where that is installed, and that it is whole or absent."""

import errno
import json
import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import SIZE, Threshold, names, number_of, numbered_frame, write_clip, write_package

import splitmerge.commands.run
from runtime.executor import FrameStats
from runtime.sinks import (
    OutputError,
    Result,
    label_folder,
    mask_folder,
    output,
    overlay_video,
    record_file,
    write_image,
)
from runtime.sources import SourceFrame
from splitmerge.cli import main
from splitmerge.errors import InputError
from splitmerge.labels import CITYSCAPES, palette_bgr


def _result(index=0, labels=None, size=SIZE, time_s=None):
    frame = SourceFrame(index, index / 10 if time_s is None else time_s, numbered_frame(index, size))
    labels = (frame.frame_bgr[:, :, 1] > 125).astype(np.uint8) if labels is None else labels
    return Result(frame, labels, 12.3456, 10.0, FrameStats(1.0, 9.0, 16))


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
@pytest.mark.parametrize("legend", [False, True])
def test_overlay_keeps_count_rate_order_and_size(tmp_path, suffix, legend):
    av = pytest.importorskip("av")
    path = tmp_path / f"out{suffix}"
    with overlay_video(path, SIZE, 30000 / 1001, CITYSCAPES, 0.3, legend) as sink:
        for index in range(30):
            sink(_result(index, time_s=index * 1001 / 30000))
        assert not path.exists()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(stream)]
        assert float(stream.average_rate) == pytest.approx(30000 / 1001, rel=1e-3)
        assert float(container.duration) / 1e6 == pytest.approx(30 * 1001 / 30000, abs=0.035)
    assert len(frames) == 30
    assert frames[0].shape[1] == SIZE[1]
    assert (frames[0].shape[0] > SIZE[0]) == legend
    assert [number_of(frame[: SIZE[0]]) for frame in frames] == list(range(30))


def test_overlay_mixes_frame_and_palette(tmp_path):
    labels = np.full(SIZE, 10, np.uint8)  # sky, so nothing meets and no edge is drawn
    with overlay_video(tmp_path / "out.avi", SIZE, 10, CITYSCAPES, 0.4) as sink:
        sink(_result(0, labels))
    frame_bgr = cv2.VideoCapture(str(tmp_path / "out.avi")).read()[1]
    expected = 0.6 * 25 + 0.4 * palette_bgr(CITYSCAPES)[10].astype(float)
    np.testing.assert_allclose(frame_bgr.reshape(-1, 3).mean(axis=0), expected, atol=4)


def test_odd_sizes_lose_nothing(tmp_path):
    with overlay_video(tmp_path / "out.mp4", (65, 129), 10, CITYSCAPES) as sink:
        sink(_result(3, size=(65, 129)))
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).read()[1].shape == (66, 130, 3)


def test_masks_are_the_labels(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 19, SIZE, dtype=np.uint8)
    with mask_folder(tmp_path / "ids") as ids, mask_folder(tmp_path / "colours", CITYSCAPES) as colours:
        ids(_result(7, labels))
        colours(_result(7, labels))
        assert not (tmp_path / "ids").exists()
    written = cv2.imread(str(tmp_path / "ids/000007.png"), cv2.IMREAD_UNCHANGED)
    assert written.dtype == np.uint8
    np.testing.assert_array_equal(written, labels)
    coloured = cv2.imread(str(tmp_path / "colours/000007.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(coloured, palette_bgr(CITYSCAPES)[labels])


def test_records_are_one_object_a_frame(tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    labels[:16] = 10
    with record_file(tmp_path / "frames.jsonl", CITYSCAPES) as sink:
        sink(_result(0, labels))
        sink(_result(1, labels))
    first, second = map(json.loads, (tmp_path / "frames.jsonl").read_text().splitlines())
    assert first == {
        "frame": 0,
        "time_s": 0.0,
        "latency_ms": 12.346,
        "compute_ms": 10.0,
        "stem_ms": 1.0,
        "trunk_ms": 9.0,
        "split_batches": 16,
        "held": 0,
        "dropped_before": 0,
        "resized": False,
        "area": {"road": 0.75, "sky": 0.25},
    }
    assert (second["frame"], second["time_s"]) == (1, 0.1)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_an_error(tmp_path, error):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/000000.png").write_bytes(b"of an earlier run")
    (tmp_path / "out.mp4").write_bytes(b"of an earlier run")
    sinks = overlay_video(tmp_path / "out.mp4", SIZE, 10, CITYSCAPES), mask_folder(tmp_path / "masks")
    with pytest.raises(error), sinks[0] as overlay, sinks[1] as masks, record_file(tmp_path / "r.jsonl", ()):
        overlay(_result())
        masks(_result())
        raise error
    assert names(tmp_path) == ["masks", "out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"of an earlier run"
    assert (tmp_path / "masks/000000.png").read_bytes() == b"of an earlier run"


def test_a_folder_of_label_maps_is_replaced_and_any_other_is_not(tmp_path):
    for _ in range(2):
        with label_folder(tmp_path / "masks") as write:
            write(0, np.zeros(SIZE, np.uint8))
    (tmp_path / "masks/thesis.tex").touch()
    with pytest.raises(InputError, match=r"masks holds thesis\.tex"), label_folder(tmp_path / "masks"):
        pass
    assert (tmp_path / "masks/thesis.tex").exists()


def test_an_image_at_a_name_in_any_script(tmp_path):
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    write_image(tmp_path / "Straße-通り.png", image)
    data = np.frombuffer((tmp_path / "Straße-通り.png").read_bytes(), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(data, cv2.IMREAD_COLOR), image)
    with pytest.raises(InputError, match=r"end its name in \.png"):
        write_image(tmp_path / "out.nothing", image)


def test_a_source_that_changes_its_size_keeps_its_overlay(tmp_path):
    with overlay_video(tmp_path / "out.mp4", SIZE, 10, CITYSCAPES, 0.2) as sink:
        sink(_result(5))
        sink(_result(6, size=(96, 192)))
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    frames = [capture.read()[1] for _ in range(2)]
    assert [frame.shape for frame in frames] == [(*SIZE, 3)] * 2
    assert [number_of(frame) for frame in frames] == [5, 6]


def _run_until_error(sinks, frames=6):
    """Feed the sinks in order as a run does; give the error that ended it."""
    with pytest.raises(OutputError) as stop, ExitStack() as stack:
        opened = [stack.enter_context(output(sink)) for sink in sinks]
        for index in range(frames):
            for sink in opened:
                sink(_result(index))
    return str(stop.value)


def test_a_full_disk_takes_one_output_and_leaves_the_others(tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(path, data):
        if path.name == "000003.png":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    video, records = tmp_path / "out.avi", tmp_path / "frames.jsonl"
    sinks = [mask_folder(tmp_path / "masks"), overlay_video(video, SIZE, 10, CITYSCAPES), record_file(records, ())]
    words = _run_until_error(sinks)
    assert "000003.png cannot be written (No space left on device): make room" in words
    assert "the other outputs keep the 3 frames before" in words
    assert names(tmp_path) == ["frames.jsonl", "out.avi"]
    assert [json.loads(line)["frame"] for line in records.read_text().splitlines()] == [0, 1, 2]
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == 3


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small tmpfs cannot be mounted: it takes Linux and root's rights")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("full", ["masks", "out.mp4", "out.webm", "frames.jsonl"])
def test_a_small_disk_that_runs_full(tmp_path, small_disk, full):
    """Noise fills the disk that one of three outputs is on; the two others are whole and of the same length."""
    rng = np.random.default_rng(0)
    place = {name: (small_disk if name == full else tmp_path) / name for name in ("masks", "frames.jsonl")}
    video = (small_disk / full) if full.startswith("out") else tmp_path / "out.avi"
    sinks = [
        mask_folder(place["masks"]),
        overlay_video(video, SIZE, 10, CITYSCAPES, 0),
        record_file(place["frames.jsonl"], CITYSCAPES),
    ]
    if full == "frames.jsonl":
        (small_disk / "filling").write_bytes(bytes(250 << 10))
    words = rf"{full}.* cannot be written \(No space left on device\).*keep the"
    with pytest.raises(OutputError, match=words), ExitStack() as stack:
        opened = [stack.enter_context(output(sink)) for sink in sinks]
        for index in range(400):
            frame = SourceFrame(index, index / 10, rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8))
            labels = rng.integers(0, 19, SIZE, dtype=np.uint8)
            for sink in opened:
                sink(Result(frame, labels, 1.0, 1.0, FrameStats(1.0, 9.0, 16)))
    assert [name for name in names(small_disk) if name != "filling"] == []
    counts = {}
    if full != "masks":
        counts["masks"] = len(names(place["masks"]))
    if not full.startswith("out"):
        counts["video"] = int(cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT))
    if full != "frames.jsonl":
        counts["records"] = len([json.loads(line) for line in place["frames.jsonl"].read_text().splitlines()])
    assert len(counts) == 2 and min(counts.values()) > 0
    assert max(counts.values()) - min(counts.values()) <= 1, "the frame at which the disk was full may be in some"


def test_records_on_a_full_disk(tmp_path, monkeypatch):
    """/dev/full is a file that has no room; the system itself refuses."""
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is missing: Linux has it")
    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *how, **more: real(Path("/dev/full") if ".r." in self.name else self, *how, **more)
    )
    words = _run_until_error([mask_folder(tmp_path / "masks"), record_file(tmp_path / "r.jsonl", ())])
    assert "r.jsonl cannot be written (No space left on device)" in words
    assert names(tmp_path) == ["masks"] and names(tmp_path / "masks") == ["000000.png"]


def test_a_run_on_a_disk_that_runs_full(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda package, arguments: Threshold())
    write_package(tmp_path / "package")
    clip, out, write = write_clip(tmp_path / "in.mp4", 9), tmp_path / "out", Path.write_bytes

    def full(path, data):
        if path.name == "000004.png":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    outputs = ["--masks", f"{out}/masks", "--overlay", f"{out}/o.avi", "--records", f"{out}/r.jsonl"]
    assert main(["run", str(clip), "--package", str(tmp_path / "package"), *outputs]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("splitmerge: ") and line.endswith("the other outputs keep the 4 frames before.")
    assert names(out) == ["o.avi", "r.jsonl"]
    assert len((out / "r.jsonl").read_text().splitlines()) == 4
    assert cv2.VideoCapture(str(out / "o.avi")).get(cv2.CAP_PROP_FRAME_COUNT) == 4


def test_an_output_that_fails_at_its_end_leaves_the_others(tmp_path):
    @contextmanager
    def fails_at_its_end():
        yield lambda result: None
        raise InputError("The end does not fit.")

    words = _run_until_error([mask_folder(tmp_path / "masks"), fails_at_its_end()], 2)
    assert words.startswith("The end does not fit")
    assert names(tmp_path / "masks") == ["000000.png", "000001.png"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, InputError])
def test_an_output_leaves_nothing_after_an_error_that_is_no_outputs(tmp_path, error):
    with pytest.raises(error), output(mask_folder(tmp_path / "masks")) as masks:
        masks(_result())
        raise error
    assert not names(tmp_path)
