"""The cache: reused when everything is the same, refused with what is not; TensorRT's form of it."""

import dataclasses
import json
import struct

import numpy as np
import pytest
from small_package import make_package

from calibration.cache import made_from, ranges_from_collected, read_cache, write_cache
from calibration.collect import collect
from calibration.images import data_hash, open_images
from calibration.ranges import METHODS, thresholds
from calibration.tensorrt_cache import read_tensorrt_cache, write_tensorrt_cache
from splitmerge.errors import InputError


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return make_package(tmp_path_factory.mktemp("package") / "small")


@pytest.fixture(scope="module")
def images(package):
    return open_images("streets", package.manifest.input.size, 2)


@pytest.fixture(scope="module")
def made(package, images):
    return made_from(package, images.name, data_hash(images))


@pytest.fixture(scope="module")
def collected(package, images):
    return collect(package, images, progress=False)


@pytest.fixture(scope="module")
def calibration(made, collected):
    return ranges_from_collected(made, collected)


def test_what_is_written_is_read(tmp_path, made, calibration):
    path = tmp_path / "calibration.json"
    write_cache(path, calibration)
    assert read_cache(path, made) == calibration
    fewer = dataclasses.replace(made, methods=("entropy",), data="the same by another name")
    assert read_cache(path, fewer).by_tensor("entropy") == calibration.by_tensor("entropy")


def test_it_is_readable(tmp_path, made, calibration, collected):
    path = tmp_path / "calibration.json"
    write_cache(path, calibration)
    value = json.loads(path.read_text())
    assert value["made"]["images"] == 2 and value["made"]["data"] == "streets"
    statistics = collected.statistics["features"]
    assert value["tensors"]["features"] == {
        "minimum": statistics.minimum,
        "maximum": statistics.maximum,
        "zeros": statistics.zeros / statistics.count,
        "thresholds": thresholds(statistics),
    }


def test_moved_tensors_have_the_range_of_the_tensor_they_come_from(collected, calibration):
    for method in METHODS:
        by_tensor = calibration.by_tensor(method)
        assert set(by_tensor) == set(collected.same_as)
        for name, source in collected.same_as.items():
            assert by_tensor[name] == calibration.tensors[source].thresholds[method] > 0


def test_channels_come_along(tmp_path, made, calibration, collected):
    write_cache(tmp_path / "calibration.json", calibration)
    cached = read_cache(tmp_path / "calibration.json", made)
    means, ranges = cached.channel_means(), cached.channel_ranges()
    for name, source in collected.same_as.items():
        np.testing.assert_array_equal(means[name], collected.statistics[source].channel_means)
        np.testing.assert_array_equal(ranges[name], collected.statistics[source].channel_ranges)
    assert means["features"].shape == (4,)


def test_a_method_that_was_not_used_is_refused(made, collected):
    some = ranges_from_collected(dataclasses.replace(made, methods=("minmax", "mse")), collected)
    with pytest.raises(InputError, match="made by minmax, mse, and entropy was asked for"):
        some.by_tensor("entropy")


CHANGES = [
    ({"graphs": {"model": "0", "stem": "1", "trunk": "2"}}, "it was made for another model graph"),
    ({"images": 5}, "it was made from 2 images of streets and 5 are given"),
    ({"data_sha256": "0" * 64, "data": "drive"}, r"it was made from other images \(streets\) than those of drive"),
    ({"methods": ("minmax", "percentile-99.5")}, r"it has the methods minmax, .* and not percentile-99\.5"),
    ({"versions": {"splitmerge": "99", "onnxruntime": "1"}}, "it was made with onnxruntime .* and here is 1"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_another_calibrations_cache_is_refused_with_the_reason(tmp_path, made, calibration, change, words):
    path = tmp_path / "calibration.json"
    write_cache(path, calibration)
    with pytest.raises(InputError, match=rf"calibration\.json is not for this calibration: {words}; .* take it away"):
        read_cache(path, dataclasses.replace(made, **change))


def altered(value, change):
    change(value)
    return json.dumps(value)


DAMAGES = [
    (lambda value: value.pop("made"), "lacks or misstates 'made'"),
    (lambda value: value.pop("same_as"), "is no calibration cache"),
    (lambda value: value.update(format=99), "has format 99 and this splitmerge reads 1"),
    (lambda value: value["tensors"]["features"]["thresholds"].update(mse=-1), "the mse threshold -1 of features"),
    (lambda value: value["tensors"]["features"]["thresholds"].update(mse=float("nan")), "the mse threshold nan"),
    (lambda value: value["tensors"]["features"]["thresholds"].pop("mse"), "lacks or misstates 'mse'"),
    (lambda value: value["same_as"].update(other="nothing"), "the tensor 'nothing'"),
    (lambda value: value["made"].update(surprise=1), "lacks or misstates"),
    (lambda value: value["channels"].pop("features"), "lacks or misstates 'features'"),
]


@pytest.mark.parametrize(("change", "words"), DAMAGES)
def test_a_damaged_cache_is_refused(tmp_path, made, calibration, change, words):
    path = tmp_path / "calibration.json"
    write_cache(path, calibration)
    path.write_text(altered(json.loads(path.read_text()), change))
    with pytest.raises(InputError, match=words):
        read_cache(path, made)


@pytest.mark.parametrize("text", ["[]", "{}", "no JSON", '"x"'])
def test_other_files_are_refused(tmp_path, made, text):
    (tmp_path / "other").write_text(text)
    with pytest.raises(InputError, match=r"other (is no calibration cache|cannot be read as JSON)"):
        read_cache(tmp_path / "other", made)
    with pytest.raises(InputError, match="There is no file"):
        read_cache(tmp_path / "missing", made)


def test_images_that_change_between_hashing_and_collecting_are_noticed(made, collected):
    with pytest.raises(InputError, match="streets changed while it was read"):
        ranges_from_collected(made, dataclasses.replace(collected, data_sha256="1" * 64))


def test_tensorrts_cache_is_as_tensorrt_writes_it(tmp_path):
    path = tmp_path / "calibration.cache"
    # A line of NVIDIA's own example: prob: 3c010a14, a range of 1.
    (scale,) = struct.unpack(">f", bytes.fromhex("3c010a14"))
    write_tensorrt_cache(path, {"prob": 127 * scale, "layer1.0/conv: 2": 127.0}, "10.13.2.6")
    assert path.read_text() == "TRT-101302-EntropyCalibration2\nprob: 3c010a14\nlayer1.0/conv: 2: 3f800000\n"
    assert read_tensorrt_cache(path) == ("101302", {"prob": scale, "layer1.0/conv: 2": 1.0})


def test_tensorrts_cache_goes_round(tmp_path, calibration):
    path = tmp_path / "calibration.cache"
    ranges = calibration.by_tensor("entropy")
    write_tensorrt_cache(path, ranges)
    version, scales = read_tensorrt_cache(path)
    assert version == "100300" and list(scales) == list(ranges)
    assert list(scales.values()) == [float(np.float32(value / 127)) for value in ranges.values()]


def test_scales_without_leading_zeros(tmp_path):
    (tmp_path / "cache").write_text("TRT-100300-EntropyCalibration2\nx: 0\ny: 00800000\nz: 800000\n")
    assert read_tensorrt_cache(tmp_path / "cache")[1] == {"x": 0.0, "y": 2.0**-126, "z": 2.0**-126}


@pytest.mark.parametrize("version", ["11.0.0", "8.6.1", "10", "10.3", "latest", "10.100.0"])
def test_versions_without_such_caches_are_refused(tmp_path, version):
    with pytest.raises(InputError, match=f"TensorRT {version} reads no calibration cache"):
        write_tensorrt_cache(tmp_path / "cache", {"x": 1.0}, version)


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({"a\nb": 1.0}, "no place for"),
        ({"x": 0.0}, "above 0"),
        ({"x": float("inf")}, "above 0"),
        ({"": 1.0}, "no place"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path, ranges, words):
    with pytest.raises(InputError, match=words):
        write_tensorrt_cache(tmp_path / "cache", ranges)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must begin with a line such as TRT-100300"),
        ("TRT-100300-MinMaxCalibration\n", "must begin with"),
        ("TRT-100300-EntropyCalibration2\nx 3c010a14\n", "no tensor and scale in line 2"),
        ("TRT-100300-EntropyCalibration2\nx: 3c010a1\ny: 3c010a14f\n", "in line 3"),
    ],
)
def test_other_caches_of_tensorrt_are_refused(tmp_path, text, words):
    (tmp_path / "cache").write_text(text)
    with pytest.raises(InputError, match=words):
        read_tensorrt_cache(tmp_path / "cache")
