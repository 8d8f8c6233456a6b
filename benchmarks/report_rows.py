"""A benchmark's rows, whatever columns they have, in the form that its report shows."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from splitmerge.errors import InputError

__all__ = ["Row", "grouped", "is_number", "machine_facts", "rows_of", "size_of", "text_of", "title_of"]

Row: TypeAlias = Mapping[str, Any]
"""What the JSON has, with `network`, `contestant`, `pixels` (None where unknown) and `values`: its further columns."""

CONTESTANT = ("contestant", "mode", "name")
NETWORK = ("network", "model")
PLACE = frozenset((*CONTESTANT, *NETWORK, "width", "height", "width_pixels", "skipped"))
"""Columns that say what a row is about, and so are no values of it."""
SHARES = frozenset({"agreement", "pixel_agreement"})
UNITS = {"ms": "ms", "s": "s", "mib": "MiB", "gib": "GiB", "mb": "MB"}


def rows_of(result: Mapping[str, Any]) -> list[Row]:
    """The result's rows. Raises InputError where it has none."""
    rows = result.get("rows") if isinstance(result, Mapping) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise InputError(
            "The benchmark's JSON has no list `rows` of objects: give what `splitmerge bench --json` wrote."
        )
    return [_row(row, result) for row in rows]


def grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by network and width, in the order in which they come, under a title each."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        width = f", width {row['width']}" if "width" in row else ""
        groups.setdefault(f"{row['network']}{width}", []).append(row)
    return groups


def size_of(row: Row) -> str:
    """`512x1024`, or as much as is known."""
    height, width = row.get("height"), row.get("width_pixels")
    return f"{height}x{width}" if row["pixels"] else str(height or width or "-")


def machine_facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """All that the result says beside its rows, one line a fact."""
    return _flat({key: value for key, value in result.items() if key != "rows"})


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def title_of(key: str) -> str:
    """`median_ms` to `median, ms`; underscores to spaces."""
    words, _, unit = key.rpartition("_")
    if words and unit in UNITS:
        return f"{words.replace('_', ' ')}, {UNITS[unit]}"
    return key.replace("_", " ") + (", %" if key in SHARES else "")


def text_of(key: str, value: Any) -> str:
    """A value for people: thousands apart, four digits or so; anything that is no number as JSON has it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "-"
        return f"{100 * value:.4f}" if key in SHARES else _digits(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _digits(value: float) -> str:
    size = abs(value)
    return (
        f"{value:,.0f}"
        if size >= 1000
        else f"{value:.1f}"
        if size >= 100
        else f"{value:.2f}"
        if size >= 1
        else f"{value:.4g}"
    )


def _row(row: Row, result: Mapping[str, Any]) -> Row:
    network = next((row[key] for key in NETWORK if key in row), result.get("model", "rows"))
    contestant = next((str(row[key]) for key in CONTESTANT if key in row), "-")
    # Rows of the streaming benchmark differ by their contexts alone.
    if "contestant" not in row and isinstance(row.get("contexts"), int) and row["contexts"] > 1:
        contestant += f", {row['contexts']} contexts"
    height, width = row.get("height"), row.get("width_pixels")
    pixels = height * width if isinstance(height, int) and isinstance(width, int) else None
    values = {key: value for key, value in row.items() if key not in PLACE}
    return {**row, "network": network, "contestant": contestant, "pixels": pixels, "values": values}


def _flat(facts: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    lines = []
    for key, value in facts.items():
        name = before + str(key).replace("_", " ")
        lines += _flat(value, f"{name}: ") if isinstance(value, Mapping) else [(name, text_of(str(key), value))]
    return lines
