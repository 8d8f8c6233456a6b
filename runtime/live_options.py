"""The command line's options for live sources, and what it says of a live run."""

import argparse
from typing import TYPE_CHECKING

from splitmerge.options import positive_number, whole_number

if TYPE_CHECKING:
    from runtime.live import Limits
    from runtime.summary import Summary

__all__ = ["SOURCE_HELP", "add_live_arguments", "limits_from", "live_lines"]

SOURCE_HELP = (
    "a video, a folder of images, a pattern like 'a/*.png', a camera (0, /dev/video0), "
    "a URL (rtsp http https udp rtmp), or - for standard input"
)


def add_live_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--live",
        action=argparse.BooleanOptionalAction,
        help="the newest frame wins and others are skipped (default for cameras and streams), or every frame is "
        "computed (files, standard input, URLs of videos that have an end); a file with --live plays at its own pace",
    )
    parser.add_argument(
        "--stall-s",
        type=positive_number,
        default=10.0,
        metavar="S",
        help="connect to a stream again after S seconds without a frame (%(default)s)",
    )
    parser.add_argument(
        "--reconnect",
        type=whole_number,
        default=20,
        metavar="N",
        help="give a live source up after N attempts in a row to connect again (%(default)s)",
    )
    parser.add_argument(
        "--reconnect-s",
        type=positive_number,
        metavar="S",
        help="give a live source up after an outage of S seconds (no limit)",
    )


def limits_from(arguments: argparse.Namespace) -> "Limits":
    """What the options say."""
    from runtime.live import Limits

    return Limits(arguments.stall_s, arguments.reconnect, arguments.reconnect_s or 0.0)


def live_lines(summary: "Summary") -> list[str]:
    """How fresh a live run's results were, and what its source went through; nothing for other runs."""
    if not summary.live:
        return []
    ages = ", ".join(f"{name} {age:.0f} ms" for name, age in (summary.age_ms or {}).items())
    counts = f"{summary.frames} written + {summary.dropped} skipped + {summary.dropped_by_sinks} not written in time"
    outages = f"{summary.outages} outages, {summary.stalls} of them stalls"
    return [
        f"live: {summary.captured} frames captured = {counts}",
        f"age from capture to label: {ages or 'no frame'}",
        f"source: {outages}; {summary.reconnects} reconnects in {summary.attempts} attempts",
    ]
