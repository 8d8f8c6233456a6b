"""/metrics, read by Prometheus' own parser."""

import urllib.request

import numpy as np
import pytest
from clips import SIZE, numbered_frame
from prometheus_client.parser import text_string_to_metric_families

from runtime.executor import FrameStats
from runtime.page import live_page
from runtime.sinks import Result
from runtime.sources import SourceFrame
from splitmerge.labels import CITYSCAPES


def _result(index, dropped=0, latency_ms=10.0, reconnects=0):
    labels = np.zeros(SIZE, np.uint8)
    labels[:16] = 6
    frame = SourceFrame(index, index / 10, numbered_frame(index))
    return Result(frame, labels, latency_ms, 5.0, FrameStats(1.0, 4.0, 16), dropped, reconnects=reconnects)


def _samples(url):
    with urllib.request.urlopen(f"{url}metrics", timeout=20) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = answer.read().decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_before_the_first_frame():
    with live_page("0", CITYSCAPES) as page:
        samples = _samples(page.url)
    assert samples["splitmerge_frames_total", "source"] == 0
    assert samples["splitmerge_class_area_ratio", "road", "source"] == 0


def test_what_is_counted():
    with live_page("0", CITYSCAPES) as page:
        for index, latency_ms in enumerate([4.0, 9.0, 9.0, 40.0, 20_000.0]):
            page.sink(_result(index, dropped=index, latency_ms=latency_ms, reconnects=index // 2))
        samples = _samples(page.url)
    assert samples["splitmerge_frames_total", "source"] == 5
    assert samples["splitmerge_dropped_frames_total", "source"] == 10
    assert samples["splitmerge_reconnects_total", "source"] == 2
    assert samples["splitmerge_latency_seconds_bucket", "0.005", "source"] == 1
    assert samples["splitmerge_latency_seconds_bucket", "0.01", "source"] == 3
    assert samples["splitmerge_latency_seconds_bucket", "0.05", "source"] == 4
    assert samples["splitmerge_latency_seconds_bucket", "10.0", "source"] == 4
    assert samples["splitmerge_latency_seconds_bucket", "+Inf", "source"] == 5
    assert samples["splitmerge_latency_seconds_count", "source"] == 5
    assert samples["splitmerge_latency_seconds_sum", "source"] == pytest.approx(20.062)
    assert samples["splitmerge_frames_per_second", "source"] > 0
    assert samples["splitmerge_last_frame_timestamp_seconds", "source"] > 1.7e9
    assert samples["splitmerge_class_area_ratio", "traffic light", "source"] == 0.25
    assert samples["splitmerge_class_area_ratio", "road", "source"] == 0.75
    assert len([key for key in samples if key[0] == "splitmerge_class_area_ratio"]) == 19


def test_two_runs_of_a_process_do_not_mix():
    with live_page("0", CITYSCAPES) as first, live_page("0", CITYSCAPES) as second:
        first.sink(_result(0))
        assert _samples(first.url)["splitmerge_frames_total", "source"] == 1
        assert _samples(second.url)["splitmerge_frames_total", "source"] == 0


def test_several_sources_have_a_label_each():
    names = ['a "quoted"\\name', "b"]
    with live_page("0", CITYSCAPES, sources=names) as page:
        for index in range(3):
            page.sinks[names[0]](_result(index, dropped=1))
        page.sinks["b"](_result(0, reconnects=1))
        page.end("b")
        samples = _samples(page.url)
    assert [samples["splitmerge_frames_total", name] for name in names] == [3, 1]
    assert [samples["splitmerge_dropped_frames_total", name] for name in names] == [3, 0]
    assert [samples["splitmerge_reconnects_total", name] for name in names] == [0, 1]
    assert [samples["splitmerge_source_running", name] for name in names] == [1, 0]
    assert [samples["splitmerge_latency_seconds_count", name] for name in names] == [3, 1]
    assert len([key for key in samples if key[0] == "splitmerge_class_area_ratio"]) == 38
