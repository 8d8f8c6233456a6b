"""The table of convergence against collecting anew with fewer images; the plot has what the table says."""

import cv2
import numpy as np
import pytest
from small_package import make_package

from calibration.collect import collect
from calibration.convergence import converge, convergence_table, draw_convergence
from calibration.ranges import thresholds
from splitmerge.errors import InputError

SIZE = (45, 70)
METHODS = ("minmax", "mse", "percentile-99.9")


class Brightening:
    """Noise of which each image is brighter than the one before; the first `count` of them."""

    name = "noise"

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __iter__(self):
        for index in range(self.count):
            yield np.random.default_rng(index).integers(0, 50 + 30 * index, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return make_package(tmp_path_factory.mktemp("package") / "small", SIZE)


@pytest.fixture(scope="module")
def convergence(package):
    return converge(package, Brightening(6), METHODS, progress=False)


def test_changes_are_those_of_collecting_anew_with_fewer_images(package, convergence):
    assert convergence.counts == (1, 2, 4) and convergence.images == 6
    everything = collect(package, Brightening(6), progress=False).statistics
    for row, count in enumerate(convergence.counts):
        fewer = collect(package, Brightening(count), progress=False).statistics
        for method in METHODS:
            for column, name in enumerate(convergence.tensors):
                after, final = thresholds(fewer[name])[method], thresholds(everything[name])[method]
                assert convergence.changes[method][row, column] == pytest.approx(abs(after - final) / final)
    for method in METHODS:
        assert convergence.worst(method)[0] > convergence.worst(method)[-1] > 0
        assert all(m <= w for m, w in zip(convergence.median(method), convergence.worst(method), strict=True))


def test_the_table_has_a_row_for_each_number_of_images(convergence):
    title, head, *rows = convergence_table(convergence).splitlines()
    assert "after 6 images" in title and f"of {len(convergence.tensors)} tensors" in title
    assert head.split() == ["images", *METHODS]
    assert [row.split()[0] for row in rows] == ["1", "2", "4"]
    for row, count in zip(rows, range(3), strict=True):
        cells = row.replace(" / ", "/").split()[1:]
        for cell, method in zip(cells, METHODS, strict=True):
            expected = 100 * convergence.median(method)[count], 100 * convergence.worst(method)[count]
            assert [float(x) for x in cell.split("/")] == pytest.approx(expected, abs=0.051)


def test_the_plot_shows_every_method(convergence, tmp_path):
    draw_convergence(convergence, tmp_path / "plot.png")
    plot = cv2.imread(str(tmp_path / "plot.png"))
    coloured = plot[plot.max(2).astype(int) - plot.min(2) > 60]
    hues = np.unique(cv2.cvtColor(coloured[None], cv2.COLOR_BGR2HSV)[0, :, 0] // 20)
    assert plot.shape[1] > plot.shape[0] > 300 and len(hues) >= 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plot.png"]


def test_one_image_is_nothing_to_compare(package):
    with pytest.raises(InputError, match="gave one image, and comparing ranges needs 2 or more"):
        converge(package, Brightening(1), METHODS, progress=False)
