"""What became of every video, as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from runtime.fleet.board import Row

__all__ = ["report", "table"]

SHOWN = 40
"""Videos up to which the table has a line for each. Of more, only those that want a look."""


def report(rows: Sequence[Row], videos: int, notes: Sequence[str]) -> dict[str, Any]:
    """The report for JSON, videos by name."""
    counts = {state: sum(row.state == state for row in rows) for state in ("done", "failed")}
    whole = [asdict(row) for row in sorted(rows, key=lambda row: row.video)]
    return {"videos": videos, **counts, "notes": list(notes), "of_each": whole}


def table(rows: Sequence[Row]) -> str:
    """A line for each video, or, where there are many, for those that failed, are cut off or were not cut."""
    shown = sorted((row for row in rows if len(rows) <= SHOWN or row.state == "failed" or row.why), key=_name)
    width = max([len(row.video) for row in shown], default=0)
    lines = []
    for row in shown:
        numbers = f"{row.frames:>8} frames {row.segments:>4} segments" if row.state == "done" else ""
        lines.append(f"{row.video:<{width}}  {row.state:<6} {numbers}  {row.why}".rstrip())
    if len(shown) < len(rows):
        lines.append(f"and {len(rows) - len(shown):,} more that are done")
    return "\n".join(lines)


def _name(row: Row) -> str:
    return row.video
