"""A benchmark's JSON as one HTML file: curves of time and memory over the frame's size, tables, what was left out.

    python -m benchmarks.report build/bench.json --out build/bench.html

Takes what has a list `rows` of objects with a network, size and contestant, or a part of that, as `splitmerge bench`
and most of `benchmarks/results/` have. Columns that it does not know are shown under their own names.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.report_rows import Row, grouped, is_number, machine_facts, rows_of, size_of, text_of, title_of
from runtime.html.charts import Series, curves, legend
from runtime.html.elements import Child, Element, element
from runtime.html.page import Section, write_page
from runtime.html.tables import Cell, facts_table, number, table
from splitmerge.errors import SplitmergeError
from splitmerge.files import check_outputs, read_json

__all__ = ["bench_report"]

CURVES = (
    (("median_ms", "ms", "ms_per_frame"), "Median time of a frame, ms"),
    (("peak_mib", "activations_mib"), "Peak memory, MiB"),
)
"""Columns that are drawn over the size, the first of each that a group has, and the charts' titles."""
LEAST_IS_BEST = frozenset(name for names, _ in CURVES for name in names)


def bench_report(result: Mapping[str, Any], path: Path) -> None:
    """Write the report of a benchmark's JSON to `path`.

    Raises InputError where it has no rows, or where there can be no file.
    """
    rows = rows_of(result)
    sections = [_group(f"group-{index}", title, group) for index, (title, group) in enumerate(grouped(rows).items())]
    facts = machine_facts(result)
    if facts:
        sections.append(Section("machine", "Machine", [facts_table("facts", "What it was measured on", facts)]))
    measured = sum("skipped" not in row for row in rows)
    lead = f"{measured} measured, {len(rows) - measured} left out. Bold is the least of those of one size."
    title = f"Benchmark: {result['command']}" if isinstance(result.get("command"), str) else "Benchmark"
    write_page(path, title, [element("p", lead)], sections)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, metavar="FILE.json", help="what a benchmark wrote with --json")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.html", help="the report")
    parsed = parser.parse_args(arguments)
    try:
        check_outputs([parsed.out], sources=[parsed.json])
        bench_report(read_json(parsed.json), parsed.out)
    except SplitmergeError as error:
        print(f"report: {error}", file=sys.stderr)
        return error.exit_code
    print(f"report: {parsed.out}")
    return 0


def _group(name: str, title: str, rows: Sequence[Row]) -> Section:
    measured = [row for row in rows if "skipped" not in row]
    skipped = [row for row in rows if "skipped" in row]
    content: list[Child] = [*_charts(name, measured)]
    if measured:
        content.append(_table(f"{name}-rows", measured))
    if skipped:
        content.append(_skipped(f"{name}-skipped", skipped))
    return Section(name, title, content)


def _charts(name: str, rows: Sequence[Row]) -> list[Element]:
    contestants = list(dict.fromkeys(row["contestant"] for row in rows))
    ticks = sorted({(float(row["pixels"]), size_of(row)) for row in rows if row["pixels"]})
    drawn = []
    for keys, title in CURVES:
        key = next((key for key in keys if any(_drawable(row, key) for row in rows)), None)
        if key is None:
            continue
        series = [Series(each, _points(rows, each, key)) for each in contestants]
        drawn.append(curves(f"{name}-{key}", f"{title}, over the frame's size", series, ticks, "frame, height x width"))
    return [element("div", *drawn, class_="charts"), legend(contestants)] if drawn else []


def _points(rows: Sequence[Row], contestant: str, key: str) -> list[tuple[float, float, str]]:
    return [
        (float(row["pixels"]), float(row[key]), f"{size_of(row)}: {text_of(key, row[key])}")
        for row in rows
        if row["contestant"] == contestant and _drawable(row, key)
    ]


def _drawable(row: Row, key: str) -> bool:
    """Whether there is a point on logarithmic axes."""
    value: Any = row.get(key)
    return bool(row["pixels"]) and is_number(value) and value > 0


def _table(name: str, rows: Sequence[Row]) -> Element:
    columns = list(dict.fromkeys(key for row in rows for key in row["values"]))
    numeric = {key for key in columns if all(_may_be_number(row["values"].get(key)) for row in rows)}
    best = {(size_of(row), key): _least(rows, row, key) for row in rows for key in LEAST_IS_BEST & set(columns)}
    cells = [
        [
            Cell([row["contestant"]], row["contestant"]),
            Cell([size_of(row)], row["pixels"]),
            *(_cell(key, row["values"].get(key), key in numeric, best.get((size_of(row), key))) for key in columns),
        ]
        for row in rows
    ]
    return table(name, "Every row that was measured", ["contestant", "frame", *map(title_of, columns)], cells)


def _may_be_number(value: Any) -> bool:
    return value is None or isinstance(value, float) or is_number(value)


def _least(rows: Sequence[Row], like: Row, key: str) -> float | None:
    values = [float(row[key]) for row in rows if size_of(row) == size_of(like) and _drawable(row, key)]
    return min(values) if len(values) > 1 else None


def _cell(key: str, value: Any, numeric: bool, best: float | None) -> Cell:
    text = text_of(key, value)
    if numeric:
        cell = number(value, text)
        return replace(cell, kind="number best") if value == best and best is not None else cell
    return Cell([text], None if value is None else text)


def _skipped(name: str, rows: Sequence[Row]) -> Element:
    cells = [
        [Cell([row["contestant"]], row["contestant"]), Cell([size_of(row)], row["pixels"]), Cell([str(row["skipped"])])]
        for row in rows
    ]
    return table(name, "Left out", ["contestant", "frame", "why"], cells, kind="plain")


if __name__ == "__main__":
    sys.exit(main())
