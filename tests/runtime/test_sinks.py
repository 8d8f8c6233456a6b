"""Sinks: what they write, read back by PyAV where that is installed, and that it is whole or absent."""

import json

import cv2
import numpy as np
import pytest
from clips import SIZE, names, number_of, numbered_frame

from runtime.executor import FrameStats
from runtime.sinks import (
    Result,
    label_folder,
    mask_folder,
    overlay_video,
    record_file,
    write_image,
)
from runtime.sources import SourceFrame
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
