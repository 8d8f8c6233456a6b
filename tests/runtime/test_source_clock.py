"""The clock of a live source, in exact numbers: outages, jumps, jitter and clocks at another pace."""

import pytest

from runtime.source_clock import SourceClock


def _times(frames, interrupted=()):
    clock = SourceClock(100.0)
    times = []
    for index, (position, passed) in enumerate(frames):
        if index in interrupted:
            clock.interrupt()
        times.append(clock.time_s(position, 100.0 + passed))
    return times


def test_the_streams_own_time():
    assert _times([(0.0, 0.0), (0.04, 0.3), (0.08, 0.31), (0.5, 0.6)]) == [0.0, 0.04, 0.08, 0.5]


def test_the_wall_clocks_where_the_stream_has_none():
    assert _times([(None, 0.0), (None, 0.25), (None, 9.5)]) == [0.0, 0.25, 9.5]


def test_across_an_outage_it_goes_on_with_the_wall_clock():
    assert _times([(0.0, 0.0), (1.0, 1.0), (0.0, 31.0), (0.04, 31.04)], {2}) == pytest.approx([0, 1, 31, 31.04])


def test_a_clock_that_is_set_back_by_days_costs_no_days():
    """Another sender on the same UDP port: the connection is none the wiser."""
    frames = [(0.0, 0.0), (200_000.0, 200_000.0), (1.4, 200_000.5), (1.44, 200_000.54)]
    assert _times(frames) == pytest.approx([0, 200_000, 200_000.5, 200_000.54])


def test_a_clock_that_leaps_ahead():
    assert _times([(0.0, 0.0), (0.04, 0.04), (95_443.7, 0.08), (95_443.74, 0.12)]) == pytest.approx(
        [0, 0.04, 0.08, 0.12]
    )


def test_jitter_never_turns_time_round():
    assert _times([(0.0, 0.0), (0.08, 0.04), (0.04, 0.08), (0.04, 0.1), (0.2, 0.2)]) == [0.0, 0.08, 0.081, 0.082, 0.2]


def test_a_clock_at_another_pace_is_the_sources_own():
    """MJPEG has no clock, FFmpeg counts 25 frames a second, and this camera sends 50."""
    assert _times([(i / 25, i / 50) for i in range(5000)]) == pytest.approx([i / 25 for i in range(5000)])


def test_frames_that_come_late_and_at_once_keep_their_times():
    assert _times([(0.0, 0.0), (0.04, 25.0), (0.08, 25.0), (0.12, 25.01)]) == [0.0, 0.04, 0.08, 0.12]


def test_frames_that_were_lost_on_the_way_leave_a_gap():
    assert _times([(0.0, 0.0), (25.0, 25.1), (25.04, 25.12)]) == [0.0, 25.0, 25.04]
