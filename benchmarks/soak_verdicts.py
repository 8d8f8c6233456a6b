"""What must be so after a soak: counters that add up, outputs that have every frame, and nothing that grows."""

import json
import statistics
from pathlib import Path

import av

from runtime.summary import Summary

__all__ = ["frames_in_outputs", "frames_in_state", "growth", "verdicts"]

GROWTH_MIB, GROWTH_FILES = 24.0, 4.0
"""What the last quarter's median may be above the second's: an allocator's unrest, and readers that still let go."""
GROWTH_UNSURE = 250.0
"""The same of frames that a killed run would lose: a few seconds of them, where the disk is busy."""


def frames_in_state(folder: Path) -> int:
    """How many frames the state for --resume counts."""
    return int(json.loads((folder / ".overlay.mp4.run.json").read_text())["mark"]["frames"])


def frames_in_outputs(folder: Path) -> dict[str, int]:
    """How many frames each output has, and the state for --resume."""
    with (folder / "frames.jsonl").open() as lines, av.open(str(folder / "overlay.mp4")) as overlay:
        records, pictures = sum(1 for _ in lines), sum(1 for _ in overlay.decode(video=0))
    return {
        "records": records,
        "masks": sum(1 for _ in (folder / "masks").iterdir()),
        "overlay": pictures,
        "state": frames_in_state(folder),
    }


def growth(samples: list[dict[str, float]], name: str) -> float:
    """The median of the last quarter above that of the second one; the first is for warming up."""
    quarter = max(1, len(samples) // 4)
    early, late = ([s[name] for s in part] for part in (samples[quarter : 2 * quarter], samples[-quarter:]))
    return round(statistics.median(late) - statistics.median(early), 2) if early else 0.0


def verdicts(
    summary: Summary, samples: list[dict[str, float]], written: int, left: dict[str, int], group: int
) -> dict[str, bool]:
    """Of a run whose sinks were given `written` frames; `group` is the length of the overlay's groups of pictures."""
    outputs = {left[name] for name in ("records", "masks", "overlay")}
    return {
        "every captured frame is written or counted as left out": summary.captured
        == summary.frames + summary.dropped + summary.dropped_by_sinks,
        "each output has every written frame": outputs == {summary.frames} == {written} != {0},
        "the state counts all whole groups of them": left["state"] == written // group * group,
        "the state keeps up": growth(samples, "unsure") <= GROWTH_UNSURE,
        "each outage was overcome": summary.outages - summary.reconnects <= 1 and not summary.source_lost,
        "memory is flat": growth(samples, "rss_mib") <= GROWTH_MIB,
        "open files are flat": growth(samples, "files") <= GROWTH_FILES,
    }
