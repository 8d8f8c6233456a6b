"""The procedural street: labels that fit the picture, every class, the same pixels every time."""

import hashlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from splitmerge.errors import InputError
from splitmerge.labels import CITYSCAPES, IGNORE
from training.streets import Drive, Streets, cached, render_still
from training.streets.painter import Bytes

ROOT = Path(__file__).resolve().parents[2]
CLASSES = len(CITYSCAPES)
POLE = [entry.name for entry in CITYSCAPES].index("pole")

_DIGEST = """
import hashlib
from training.streets import Drive, Streets, render_still
pairs = [render_still(3, 5, (96, 160)), Streets("val", (64, 128), 4)[2], Drive(1, (96, 160)).frame(37)]
print(hashlib.sha256(b"".join(a.tobytes() + b.tobytes() for a, b in pairs)).hexdigest())
"""


@pytest.fixture(scope="module")
def stills() -> list[tuple[Bytes, Bytes]]:
    return [render_still(0, index) for index in range(40)]


def test_two_processes_paint_the_same_pixels() -> None:
    command = [sys.executable, "-c", _DIGEST]
    digests = {subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout for _ in range(2)}
    pairs = [render_still(3, 5, (96, 160)), Streets("val", (64, 128), 4)[2], Drive(1, (96, 160)).frame(37)]
    here = hashlib.sha256(b"".join(a.tobytes() + b.tobytes() for a, b in pairs)).hexdigest()
    assert {digest.decode().strip() for digest in digests} == {here}


def test_the_package_needs_no_torch() -> None:
    code = "import sys, training.streets; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 200), (201, 64), (135, 241), (700, 1300)])
def test_any_size(size: tuple[int, int]) -> None:
    for image, labels in (render_still(1, 2, size), Drive(2, size).frame(11)):
        assert image.shape == (*size, 3)
        assert image.dtype == np.uint8
        assert labels.shape == size
        assert labels.dtype == np.uint8
        assert image.flags.c_contiguous
        assert labels.flags.c_contiguous


def test_labels_are_train_ids_and_void_is_rare(stills: list[tuple[Bytes, Bytes]]) -> None:
    found = np.unique(np.stack([labels for _, labels in stills]))
    assert set(found.tolist()) <= {*range(CLASSES), IGNORE}
    assert np.mean([np.mean(labels == IGNORE) for _, labels in stills]) < 0.04


def test_every_class_is_in_at_least_a_tenth_of_the_pictures(stills: list[tuple[Bytes, Bytes]]) -> None:
    counts = [np.bincount(labels.ravel(), minlength=256)[:CLASSES] >= 12 for _, labels in stills]
    share = np.mean(counts, axis=0)
    assert share.min() >= 0.1, dict(zip([c.name for c in CITYSCAPES], share.tolist(), strict=True))


def test_label_borders_lie_on_picture_edges(stills: list[tuple[Bytes, Bytes]]) -> None:
    """Gradients at borders beat those of the same borders laid over another picture, and their own shifted ones."""
    here, elsewhere, shifted = [], [], []
    for index, (image, labels) in enumerate(stills):
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
        slope = np.abs(np.diff(grey, axis=1))
        other = np.diff(stills[index - 1][1].astype(int), axis=1) != 0
        border = np.diff(labels.astype(int), axis=1) != 0
        here.append(slope[border].mean())
        elsewhere.append(slope[other].mean())
        shifted.append(slope[np.roll(border, 4, axis=1)].mean())
    assert np.median(np.divide(here, elsewhere)) > 2.0
    assert np.median(np.divide(here, shifted)) > 1.4


def test_poles_are_thin(stills: list[tuple[Bytes, Bytes]]) -> None:
    runs: list[int] = []
    for _, labels in stills:
        padded = np.pad(labels == POLE, ((0, 0), (1, 1))).astype(np.int8)
        step = np.diff(padded, axis=1)
        runs += (np.nonzero(step == -1)[1] - np.nonzero(step == 1)[1]).tolist()
    assert len(runs) > 1000
    assert 1 <= np.median(runs) <= 5


def test_splits_and_seeds_share_no_picture() -> None:
    sets = [Streets("train", (48, 96), 6), Streets("val", (48, 96), 6), Streets("train", (48, 96), 6, seed=1)]
    digests = {labels.tobytes() for dataset in sets for _, labels in dataset}
    assert len(digests) == 18
    assert render_still(0, 0, (48, 96))[1].tobytes() not in digests


def test_indexing_is_that_of_a_sequence() -> None:
    dataset = Streets("val", (48, 96), 3)
    assert len(dataset) == 3
    assert np.array_equal(dataset[-1][0], dataset[2][0])
    with pytest.raises(IndexError, match="picture 3 of 3"):
        dataset[3]
    with pytest.raises(InputError, match="'test'"):
        Streets("test")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 32"):
        Streets("val", (16, 64))
    with pytest.raises(InputError, match="at 0"):
        Drive(fps=0.0)


def test_random_access_equals_sequential() -> None:
    forward, jumping = Drive(4, (96, 192)), Drive(4, (96, 192))
    frames = {t: forward.frame(t) for t in range(0, 2400, 300)}
    for t in (1500, 0, 2100, 300):
        for a, b in zip(jumping.frame(t), frames[t], strict=True):
            assert np.array_equal(a, b)


def test_the_drive_moves_forward_smoothly() -> None:
    drive = Drive(0, (192, 384))
    frames = [cv2.cvtColor(drive.frame(t)[0], cv2.COLOR_BGR2GRAY) for t in (40, 41, 240)]
    near = np.corrcoef(frames[0].ravel(), frames[1].ravel())[0, 1]
    far = np.corrcoef(frames[0].ravel(), frames[2].ravel())[0, 1]
    assert near > 0.75
    assert near > far + 0.1
    assert not np.array_equal(frames[0], frames[1])


def test_the_street_expands_from_the_vanishing_point() -> None:
    """Flow of the sides points away from the middle: what stands still grows as it comes nearer."""
    drive = Drive(0, (192, 384))
    outward = []
    for t in range(0, 400, 50):
        a, b = (cv2.cvtColor(drive.frame(k)[0], cv2.COLOR_BGR2GRAY) for k in (t, t + 1))
        flow = cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 21, 3, 7, 1.5, 0)  # type: ignore[call-overload]
        outward.append(flow[100:150, 300:, 0].mean() - flow[100:150, :84, 0].mean())
    assert np.median(outward) > 0.3


def test_cache_keeps_rebuilds_and_separates(tmp_path: Path) -> None:
    dataset = Streets("train", (40, 72), 4)
    first = cached(dataset, tmp_path)
    assert len(first) == 4
    for index in range(4):
        for a, b in zip(first[index], dataset[index], strict=True):
            assert np.array_equal(a, b)
    files = sorted(tmp_path.iterdir())
    assert [path.suffix for path in files] == [".npy", ".npy"]
    stamp = files[0].stat().st_mtime_ns
    cached(dataset, tmp_path)
    assert files[0].stat().st_mtime_ns == stamp
    files[0].write_bytes(files[0].read_bytes()[:-100])
    files[1].write_bytes(b"not an array")
    again = cached(dataset, tmp_path)
    assert np.array_equal(again[3][0], dataset[3][0])
    assert np.array_equal(again[3][1], dataset[3][1])
    cached(Streets("train", (40, 72), 4, seed=9), tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
