"""Memory, open files and frames of a soak over its time, and when which fault was."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from splitmerge.files import new_file

__all__ = ["draw"]

WIDTH, HEIGHT, LEFT, GAP = 1100, 150, 70, 40
CURVES = (
    ("rss_mib", "memory (RSS), MiB"),
    ("files", "open files"),
    ("threads", "threads"),
    ("written", "frames written"),
    ("unsure", "frames written that the state does not count yet"),
)
INK, PALE, LINE = (60, 60, 60), (225, 225, 225), (180, 90, 20)
FAULTS_BGR = {
    "killed": (60, 60, 220), "paused": (40, 160, 240), "slowed": (60, 200, 200), "resized": (180, 60, 180),
    "garbage": (40, 40, 40), "held_up": (120, 170, 60), "slow_output": (200, 150, 60),
}  # fmt: skip


def draw(path: Path, samples: list[dict[str, float]], faults: list[tuple[float, str]]) -> None:
    """Write the picture, a .png. Raises InputError where it cannot be written."""
    end_s = max(sample["time_s"] for sample in samples)
    canvas = np.full((len(CURVES) * (HEIGHT + GAP) + 2 * GAP, WIDTH, 3), 255, np.uint8)

    def across(time_s: float) -> int:
        return LEFT + int((WIDTH - LEFT - 20) * time_s / end_s)

    for row, (name, title) in enumerate(CURVES):
        top = GAP + row * (HEIGHT + GAP)
        values = [sample[name] for sample in samples]
        most = 1.1 * max(*values, 1)
        cv2.rectangle(canvas, (LEFT, top), (WIDTH - 20, top + HEIGHT), PALE, 1)
        for time_s, kind in faults:
            cv2.line(canvas, (across(time_s), top), (across(time_s), top + HEIGHT), FAULTS_BGR[kind], 1)
        points = [(across(s["time_s"]), top + HEIGHT - int(HEIGHT * s[name] / most)) for s in samples]
        cv2.polylines(canvas, [np.array(points, np.int32)], False, LINE, 2, cv2.LINE_AA)
        _write(canvas, title, (LEFT, top - 8))
        _write(canvas, f"{max(values):.0f}", (8, points[int(np.argmax(values))][1] + 5))
        _write(canvas, "0", (LEFT - 20, top + HEIGHT))
    bottom = canvas.shape[0] - GAP
    _write(canvas, f"{end_s / 60:.1f} minutes; faults:", (LEFT, bottom))
    for place, (kind, colour) in enumerate(FAULTS_BGR.items()):
        _write(canvas, kind.replace("_", " "), (LEFT + 190 + 110 * place, bottom), colour)
    with new_file(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", canvas)[1].tobytes())


def _write(canvas: NDArray[np.uint8], text: str, place: tuple[int, int], colour: tuple[int, int, int] = INK) -> None:
    cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
