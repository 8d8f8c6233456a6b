"""A benchmark's report: every row's numbers, what was left out and why, and JSON that has less or more columns."""

import json
import math
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import bench_report, main
from splitmerge.errors import InputError

ROOT = Path(__file__).parents[2]


class Tables(HTMLParser):
    """Titles of sections, and cells of each row of a table: (text, exact value, class)."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.titles: list[str] = []
        self.rows: dict[str, list[list[list[Any]]]] = {}
        self.marks = 0
        self._table, self._within = "", ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "table":
            self._table = given["id"] or ""
            self.rows[self._table] = []
        elif tag == "tr":
            self.rows[self._table].append([])
        elif tag in ("th", "td"):
            self.rows[self._table][-1].append(["", given.get("data-value"), given.get("class")])
        elif tag == "path" and "transform" in given:
            self.marks += 1
        elif tag == "h2":
            self.titles.append("")
        self._within = tag if tag in ("th", "td", "h2") else self._within

    def handle_endtag(self, tag: str) -> None:
        self._within = "" if tag == self._within else self._within

    def handle_data(self, data: str) -> None:
        if self._within == "h2":
            self.titles[-1] += data
        elif self._within:
            self.rows[self._table][-1][-1][0] += data


def _read(result: Mapping[str, Any], folder: Path) -> Tables:
    bench_report(result, folder / "r.html")
    return Tables(folder / "r.html")


def _row(contestant: str, height: int, **values: Any) -> dict[str, Any]:
    place = {"network": "smp18", "width": 16, "height": height, "width_pixels": 2 * height}
    return {**place, "contestant": contestant, **values}


def test_every_row_has_its_numbers_and_the_least_is_marked(tmp_path: Path) -> None:
    rows = [
        _row("ours", 64, median_ms=1234.5678, peak_mib=8, agreement=0.999999, ratio_to_best_peer=2.5),
        _row("theirs", 64, median_ms=3000.0, peak_mib=4),
        _row("ours", 128, median_ms=0.00123, peak_mib=math.nan),
        _row("theirs", 128, skipped="needs <31> GiB & more"),
    ]
    found = _read({"rows": rows, "machine": {"cores": 2, "versions": {"torch": "2.13"}}}, tmp_path)
    assert found.titles == ["smp18, width 16", "Machine"]
    headings, *cells = found.rows["group-0-rows"]
    titles = ["contestant", "frame", "median, ms", "peak, MiB", "agreement, %", "ratio to best peer"]
    assert [text for text, _, _ in headings] == titles
    assert [[text for text, _, _ in row] for row in cells] == [
        ["ours", "64x128", "1,235", "8", "99.9999", "2.50"],
        ["theirs", "64x128", "3,000", "4", "-", "-"],
        ["ours", "128x256", "0.00123", "-", "-", "-"],
    ]
    assert [row[2][1] for row in cells] == ["1234.5678", "3000.0", "0.00123"]
    assert [[row[column][2] for row in cells] for column in (2, 3)] == [
        ["number best", "number", "number"],
        ["number", "number best", "number"],
    ]
    (left_out,) = found.rows["group-0-skipped"][1:]
    assert [text for text, _, _ in left_out] == ["theirs", "128x256", "needs <31> GiB & more"]
    assert [[text for text, _, _ in row] for row in found.rows["facts"]] == [
        ["machine: cores", "2"],
        ["machine: versions: torch", "2.13"],
    ]
    # Drawn are three times and two memories, and each chart's two contestants in the legend.
    assert found.marks == 3 + 2 + 2


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"contestant": "a"},
        {"network": "n", "contestant": "a", "height": 64},
        {"contestant": None, "height": "64", "width_pixels": [1], "median_ms": "slow", "peak_mib": None},
        {"network": {"a": 1}, "contestant": 3, "height": 64, "width_pixels": 128, "median_ms": 0, "peak_mib": -1},
        {"contestant": "a", "height": 64, "width_pixels": 128, "median_ms": True, "stages": {"<stem>": [1, 2]}},
        {"skipped": None},
        {"height": 0, "width_pixels": 0, "median_ms": math.inf},
    ],
)
def test_rows_that_lack_or_have_other_columns(tmp_path: Path, row: dict[str, Any]) -> None:
    found = _read({"rows": [row, _row("b", 64, median_ms=2.0)]}, tmp_path)
    kind = "skipped" if "skipped" in row else "rows"
    (shown,) = found.rows[f"group-0-{kind}"][1:]
    assert len(shown) == len(found.rows[f"group-0-{kind}"][0])
    if "stages" in row:
        assert [text for text, _, _ in shown][-1] == '{"<stem>": [1, 2]}'
    assert found.marks == 2  # of the row that can be drawn, and its legend


@pytest.mark.parametrize("name", ["streaming-2026-11-21.json", "networks-2026-11-27.json"])
def test_results_that_are_there(tmp_path: Path, name: str) -> None:
    source = ROOT / "benchmarks/results" / name
    result = json.loads(source.read_text())
    assert main([str(source), "--out", str(tmp_path / "r.html")]) == 0
    found = Tables(tmp_path / "r.html")
    tables = [rows[1:] for name, rows in found.rows.items() if name.startswith("group")]
    assert sum(map(len, tables)) == len(result["rows"])
    shown = {value for rows in tables for row in rows for _, value, _ in row}
    numbers = [v for row in result["rows"] for v in row.values() if isinstance(v, float) and "skipped" not in row]
    assert numbers and {str(value) for value in numbers} <= shown


@pytest.mark.parametrize("result", [{}, [], {"rows": []}, {"rows": 3}, {"rows": ["a"]}, None, "text"])
def test_json_without_rows_is_refused(tmp_path: Path, result: Any) -> None:
    with pytest.raises(InputError, match="has no list `rows`"):
        bench_report(result, tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []


def test_bad_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.json"
    source.write_text(json.dumps({"rows": [_row("a", 64, median_ms=2.0)]}))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "folder").mkdir()
    cases = [
        (source, source, "is the source, which writing would destroy"),
        (source, tmp_path / "folder", "is a folder and a file was to be written there"),
        (tmp_path / "none.json", tmp_path / "r.html", "There is no file"),
        (tmp_path / "broken.json", tmp_path / "r.html", "cannot be read as JSON"),
    ]
    for given, out, words in cases:
        assert main([str(given), "--out", str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "broken.json", "folder"]
    assert json.loads(source.read_text())["rows"]
