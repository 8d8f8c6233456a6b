"""Statistics and thresholds against NumPy on the stored values, plain loops, and ONNX Runtime's calibrators."""

import math

import numpy as np
import pytest
from onnxruntime.quantization import calibrate

from calibration.ranges import ALL_ZERO, METHODS, threshold, thresholds
from calibration.statistics import BINS, TensorStatistics
from splitmerge.errors import InputError

PERCENTILES = (99.9, 99.99, 99.999)


def statistics_of(*arrays, name="x"):
    statistics = TensorStatistics(name)
    for array in arrays:
        statistics.update(np.asarray(array))
    return statistics


def activations(kind, count=200_000, seed=0):
    random = np.random.default_rng(seed)
    normal = random.normal(0, 3, count)
    kinds = {
        "normal": normal,
        "relu": np.maximum(normal, 0),
        "negative": -np.abs(normal),
        "heavy tail": random.laplace(0, 1, count) ** 3,
        "uniform": random.uniform(-1, 1, count),
        "tiny": normal * 1e-20,
        "huge": normal * 1e30,
    }
    return kinds[kind].astype(np.float32)


KINDS = ["normal", "relu", "negative", "heavy tail", "uniform", "tiny", "huge"]


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_numpys(kind):
    values = activations(kind)
    statistics = statistics_of(*np.array_split(values, 7))
    assert (statistics.minimum, statistics.maximum) == (values.min(), values.max())
    assert statistics.absolute_maximum == np.abs(values).max()
    assert (statistics.count, statistics.zeros) == (values.size, int((values == 0).sum()))
    np.testing.assert_allclose(statistics.channel_means, [values.mean(dtype=np.float64)], rtol=1e-9)
    nonzero = np.abs(values[values != 0]).astype(np.float64)
    expected, _ = np.histogram(nonzero, BINS, range=(0, BINS * statistics.bin_width))
    np.testing.assert_array_equal(statistics.histogram, expected)
    assert statistics.absolute_maximum < BINS * statistics.bin_width <= 2 * statistics.absolute_maximum


@pytest.mark.parametrize("kind", KINDS)
def test_order_and_the_first_batchs_size_change_nothing(kind):
    values = activations(kind)
    parts = np.array_split(values[np.argsort(np.abs(values))], 40)
    rising, falling = statistics_of(*parts), statistics_of(*parts[::-1])
    at_once = statistics_of(values.reshape(2, 4, 100, 250))
    for other in (falling, at_once):
        np.testing.assert_array_equal(rising.histogram, other.histogram)
        assert thresholds(rising) == thresholds(other)


def test_a_value_on_the_edge_of_the_range_is_counted():
    for value in (1.0, 2.0, -4.0, np.nextafter(np.float32(8), np.float32(0))):
        statistics = statistics_of(np.float32([value]), np.float32([0.3]))
        assert statistics.histogram.sum() == 2
        assert thresholds(statistics)["minmax"] == abs(value)


def test_channels_are_those_of_axis_1():
    values = activations("normal", 2 * 5 * 300).reshape(2, 5, 20, 15) * np.float32([1, 2, 0, 4, -5])[:, None, None]
    values[:, 3] -= 100
    statistics = statistics_of(values[:1], values[1:])
    np.testing.assert_array_equal(statistics.lowest, values.min((0, 2, 3)))
    np.testing.assert_array_equal(statistics.highest, values.max((0, 2, 3)))
    np.testing.assert_array_equal(statistics.channel_ranges, np.abs(values).max((0, 2, 3)))
    np.testing.assert_allclose(statistics.channel_means, values.mean((0, 2, 3), np.float64), rtol=1e-12)
    with pytest.raises(ValueError, match="had 5 channels and has 3"):
        statistics.update(values[:, :3])


def test_memory_does_not_grow():
    statistics = TensorStatistics("x")
    for scale in np.logspace(-30, 30, 61):
        statistics.update(np.float32([scale, -scale]))
    assert statistics.histogram.shape == (BINS,) and statistics.histogram.sum() == statistics.count == 122


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_floating_point_type(dtype):
    values = activations("normal", 1000).astype(dtype)
    statistics = statistics_of(values)
    assert statistics.absolute_maximum == np.abs(values).max() and statistics.histogram.sum() == 1000


@pytest.mark.parametrize(("bad", "words"), [(np.nan, "2 NaN and 0 infinite"), (-np.inf, "0 NaN and 2 infinite")])
def test_values_that_are_not_finite_are_refused_and_leave_no_trace(bad, words):
    statistics = statistics_of(np.float32([1, 2]), name="layer1.relu")
    with pytest.raises(InputError, match=rf"layer1\.relu holds {words} values of 5 in image 3"):
        statistics.update(np.float32([1e9, bad, 0, bad, -3]), "image 3")
    assert (statistics.count, statistics.maximum, statistics.histogram.sum()) == (2, 2, 2)


def test_integers_and_empty_tensors():
    with pytest.raises(InputError, match="frames is uint8, and ranges are for floating-point tensors"):
        statistics_of(np.zeros(3, np.uint8), name="frames")
    with pytest.raises(InputError, match="has had no values"):
        threshold(statistics_of(np.zeros((0, 4), np.float32)), "minmax")


def test_all_zero_and_constant_tensors():
    assert set(thresholds(statistics_of(np.zeros((2, 3), np.float32))).values()) == {ALL_ZERO}
    assert set(thresholds(statistics_of(np.full(10, -3, np.float32))).values()) == {3.0}
    # One value among a million zeros is no outlier: it is all there is.
    lonely = thresholds(statistics_of(np.zeros(10**6, np.float32), np.float32([5])))
    assert list(lonely.values()) == pytest.approx([5.0] * len(METHODS), rel=1e-3)


def test_unknown_methods_are_refused():
    for method in ("median", "percentile-", "percentile-12", "percentile-101", "percentile-99.9.9"):
        with pytest.raises(InputError, match="There is no calibration method"):
            threshold(statistics_of(np.float32([1])), method)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("percentage", PERCENTILES)
def test_percentiles_are_numpys(kind, percentage):
    values = activations(kind)
    statistics = statistics_of(*np.array_split(values, 3))
    # Between two of the stored values NumPy interpolates; the histogram may lie anywhere between them, or a bin off.
    ordered = np.sort(np.abs(values.astype(np.float64)))
    rank = percentage / 100 * (values.size - 1)
    low, high = ordered[int(rank)], ordered[min(int(rank) + 1, values.size - 1)]
    found = threshold(statistics, f"percentile-{percentage}")
    assert low - statistics.bin_width <= found <= high + statistics.bin_width
    if percentage == 99.9 and kind != "heavy tail":
        assert math.isclose(found, np.percentile(np.abs(values), percentage), abs_tol=2 * statistics.bin_width)


def squared_error(values, limit):
    scale = limit / 127
    return float(((values - np.clip(np.rint(values / scale), -127, 127) * scale) ** 2).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_mse_has_the_least_error_on_the_stored_values(kind):
    values = activations(kind, 20_000).astype(np.float64)
    best = min(squared_error(values, limit) for limit in np.abs(values).max() * np.linspace(0.01, 1, 400))
    found = threshold(statistics_of(values.astype(np.float32)), "mse")
    assert squared_error(values, found) <= 1.01 * best


def entropy_by_the_talk(statistics):
    """The talk's pseudo-code, step by step, on 1025 to 2048 bins: the divergence for each number of bins kept."""
    bins = statistics.histogram.reshape(-1, 4).sum(1)
    bins = bins[: bins.nonzero()[0].max() + 1]
    divergences = {}
    for n in range(128, len(bins) + 1):
        reference = bins[:n].astype(float)
        reference[-1] += bins[n:].sum()
        level = np.arange(n) * 128 // n
        sums, filled = np.bincount(level, bins[:n]), np.bincount(level, bins[:n] > 0)
        candidate = np.where(bins[:n] > 0, (sums / np.maximum(filled, 1))[level], 0)
        there = reference > 0
        if candidate[there].all():
            p, q = reference / reference.sum(), candidate / candidate.sum()
            divergences[n] = float((p[there] * np.log(p[there] / q[there])).sum())
    return divergences


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_is_the_talks_pseudo_code(kind):
    statistics = statistics_of(activations(kind))
    divergences = entropy_by_the_talk(statistics)
    bins = threshold(statistics, "entropy") / (4 * statistics.bin_width) + 0.5
    assert divergences[round(bins)] <= min(divergences.values()) + 1e-12


def onnxruntimes_threshold(method, batches, **options):
    collector = calibrate.HistogramCollector(
        method=method, symmetric=True, num_quantized_bins=255, scenario="same", **options
    )
    for batch in batches:
        collector.collect({"x": batch})
    low, high = collector.compute_collection_result()["x"][:2]
    return max(-float(low), float(high))


def test_entropy_is_near_onnxruntimes():
    # Theirs has levels of both signs and of whole bins, smoothed: another curve, its flat minimum in the same place.
    values = activations("normal", 50_000)
    theirs = onnxruntimes_threshold("entropy", [values], num_bins=2049, percentile=None)
    assert math.isclose(threshold(statistics_of(values), "entropy"), theirs, rel_tol=0.1)


@pytest.mark.parametrize("kind", ["normal", "relu", "heavy tail"])
@pytest.mark.parametrize("percentage", PERCENTILES)
def test_percentiles_are_onnxruntimes(kind, percentage):
    values = activations(kind)
    theirs = onnxruntimes_threshold("percentile", [values], num_bins=4096, percentile=percentage)
    ours = statistics_of(values)
    width = np.abs(values).max() / 4096
    assert math.isclose(threshold(ours, f"percentile-{percentage}"), theirs, abs_tol=2 * (width + ours.bin_width))


def test_every_method_is_between_zero_and_the_largest_value():
    for kind in KINDS:
        statistics = statistics_of(activations(kind))
        for method, value in thresholds(statistics, METHODS).items():
            assert 0 < value <= statistics.absolute_maximum, (kind, method)
