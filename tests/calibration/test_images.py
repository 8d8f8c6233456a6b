"""What can be calibrated with: rendered sets, folders, an image, videos; and what is refused."""

import hashlib

import cv2
import numpy as np
import pytest

from calibration.images import DEFAULT_IMAGES, data_hash, open_images
from runtime.frames import resized as resized_as_running_does
from runtime.sources import VideoSource
from splitmerge.errors import InputError
from training.data import open_dataset

SIZE = (48, 64)


def picture(index, size=SIZE):
    return np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)


def write_pictures(folder, count, size=SIZE):
    folder.mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:03}.png"), picture(index, size))
    return folder


def write_video(path, frames):
    """A clip whose frame `i` is gray `10 i`."""
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10.0, SIZE[::-1])
    for index in range(frames):
        writer.write(np.full((*SIZE, 3), 10 * index, np.uint8))
    writer.release()
    return path


def grays(images):
    return [round(float(frame.mean()) / 10) for frame in images]


def test_a_folder_with_or_without_labels(tmp_path):
    plain = write_pictures(tmp_path / "plain", 3)
    (plain / "notes.txt").write_text("no image")
    write_pictures(tmp_path / "labelled" / "images", 3)
    (tmp_path / "labelled" / "labels").mkdir()
    for folder in ("plain", "labelled"):
        images = open_images(str(tmp_path / folder), SIZE)
        assert len(images) == 3
        for _ in range(2):
            for index, frame in enumerate(images):
                np.testing.assert_array_equal(frame, picture(index))


def test_one_image_is_enough(tmp_path):
    folder = write_pictures(tmp_path / "one", 1)
    (frame,) = open_images(str(folder / "000.png"), SIZE)
    np.testing.assert_array_equal(frame, picture(0))


def test_a_few_of_many_are_evenly_spaced(tmp_path):
    folder = write_pictures(tmp_path / "many", 10)
    chosen = list(open_images(str(folder), SIZE, 3))
    for index, frame in zip((1, 5, 8), chosen, strict=True):
        np.testing.assert_array_equal(frame, picture(index))


@pytest.mark.parametrize("size", [(24, 32), (96, 128), (48, 96), (90, 40)])
def test_other_sizes_are_resized_as_running_does(tmp_path, size):
    folder = write_pictures(tmp_path / "images", 1, size)
    (frame,) = open_images(str(folder), SIZE)
    np.testing.assert_array_equal(frame, resized_as_running_does(picture(0, size), SIZE))


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_frames_are_spread_over_a_video(tmp_path, suffix):
    path = write_video(tmp_path / f"drive{suffix}", 20)
    images = open_images(str(path), SIZE, 4)
    assert len(images) == 4
    assert grays(images) == grays(images) == [2, 7, 12, 17]
    everything = list(open_images(str(path), SIZE, 100))
    assert len(everything) == 20
    for frame, decoded in zip(everything, VideoSource(path), strict=True):
        np.testing.assert_array_equal(frame, decoded.frame_bgr)


def test_a_video_that_was_cut_off_gives_what_it_has(tmp_path):
    path = write_video(tmp_path / "drive.avi", 20)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    found = grays(open_images(str(path), SIZE, 20))
    assert 3 < len(found) < 20 and found[:-1] == list(range(len(found) - 1))  # the last may be half a frame


def test_streets_are_not_those_that_scores_are_taken_on():
    (frame,) = open_images("streets", (32, 64), 1)
    np.testing.assert_array_equal(frame, open_dataset("streets:train", (32, 64), 1)[0][0])
    assert (frame != open_dataset("streets", (32, 64), 1)[0][0]).any()


def test_a_drives_frames_are_a_second_apart():
    images = list(open_images("drive:3", (32, 64), 2))
    drive = open_dataset("drive:3", (32, 64), 21, fps=20.0)
    distances = [np.abs(drive[index][0].astype(int) - images[1]).mean() for index in range(0, 21, 4)]
    assert np.argmin(distances) == 5


def test_the_hash_is_of_the_pixels_in_order(tmp_path):
    folder = write_pictures(tmp_path / "a", 3)
    digest = data_hash(open_images(str(folder), SIZE))
    expected = hashlib.sha256()
    for index in range(3):
        expected.update(b"(48, 64, 3)" + picture(index).tobytes())
    assert (digest.sha256, digest.images) == (expected.hexdigest(), 3)
    (folder / "001.png").rename(folder / "009.png")
    assert data_hash(open_images(str(folder), SIZE)).sha256 != digest.sha256


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "There is no data .* to calibrate with"),
        (lambda path: path.mkdir(), r"holds no images \(\.png"),
        (lambda path: (path / "images").mkdir(parents=True), "images holds no images"),
        (lambda path: path.write_bytes(b""), r"neither an image nor a video that can be opened \(0 bytes\)"),
        (lambda path: path.write_text("no video"), r"neither an image nor a video that can be opened \(8 bytes\)"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, make, words):
    make(tmp_path / "data")
    with pytest.raises(InputError, match=words):
        open_images(str(tmp_path / "data"), SIZE)


def test_a_video_without_frames_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"empty\.avi (is neither|has no frame)"):
        open_images(str(write_video(tmp_path / "empty.avi", 0)), SIZE)


def test_an_unreadable_image_is_named(tmp_path):
    folder = write_pictures(tmp_path / "images", 2)
    (folder / "001.png").write_bytes(b"\x89PNG and no more")
    with pytest.raises(InputError, match=r"001\.png is not an image that can be decoded"):
        list(open_images(str(folder), SIZE))


def test_no_images_are_asked_for():
    assert DEFAULT_IMAGES >= 1
    with pytest.raises(InputError, match="0 images are not enough"):
        open_images("streets", SIZE, 0)
