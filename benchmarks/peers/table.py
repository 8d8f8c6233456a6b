"""The comparison as text: on the screen, and as Markdown."""

from collections.abc import Sequence

from benchmarks.peers.contestants import LIMIT, PROJECT
from benchmarks.peers.packages import Case
from benchmarks.peers.rows import Row

__all__ = ["INPUTS", "markdown", "screen", "verdict"]

INPUTS = (
    "Every contestant takes uint8 frames and gives uint8 labels, normalising and argmax included; weights are random."
)
_HEADS = (("ms", 10), ("spread", 20), ("MiB", 8), ("x best peer", 12), ("GFLOP/s", 9), ("of GEMM", 8), ("equal", 9))


def screen(case: Case, rows: Sequence[Row], multiply_adds: int) -> str:
    """One case's rows; what was left out with the reason."""
    title = f"{case} ({multiply_adds / 1e9:,.3g} G multiply-adds)"
    lines = ["", f"{title:<52} {' '.join(f'{name:>{width}}' for name, width in _HEADS)}"]
    for row in rows:
        if row.skipped:
            lines.append(f"  {row.name:<50} left out: {row.skipped}")
            continue
        cells = (
            f"{row.median_ms:,.1f}",
            f"{row.least_ms:,.1f}..{row.most_ms:,.1f}",
            _number(row.memory_mib, ".0f"),
            _number(row.times, ".2f"),
            _number(row.gflops, ".1f"),
            _number(row.of_gemm, ".0%"),
            _number(row.agreement, ".6f"),
        )
        text = " ".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, _HEADS, strict=True))
        lines.append(f"  {row.name:<50} {text}{'  OTHER LABELS' if row.wrong else ''}".rstrip())
    return "\n".join(lines)


def markdown(cases: Sequence[tuple[Case, Sequence[Row]]]) -> str:
    """A table of medians, each contestant in its fastest form, with this project's against the best peer."""
    names = list(dict.fromkeys(_base(row) for _, rows in cases for row in rows if row.role != LIMIT))
    lines = [f"| ms a frame (MiB) | {' | '.join(names)} | ratio |", f"|---|{'---:|' * (len(names) + 1)}"]
    for case, rows in cases:
        cells = [_cell([row for row in rows if _base(row) == name]) for name in names]
        lines.append(f"| {case} | {' | '.join(cells)} | {_number(verdict(rows), '.2f')} |")
    return "\n".join(lines)


def verdict(rows: Sequence[Row]) -> float | None:
    """How many times as fast this project's best form is as the best peer; None where one of them has no time."""
    return max((row.times for row in rows if row.role == PROJECT and row.times and not row.wrong), default=None)


def _base(row: Row) -> str:
    """The contestant's name without the form."""
    return row.name.partition(", ")[0]


def _cell(forms: Sequence[Row]) -> str:
    """The fastest form that has the right labels, or the fastest at all, marked."""
    ran = [row for row in forms if row.median_ms is not None]
    if not ran:
        return "-"
    best = min(ran, key=lambda row: (row.wrong, row.median_ms))
    words = best.name.partition(", ")[2].removesuffix(" form") if len(forms) > 1 else ""
    mark = " other labels" if best.wrong else ""
    return f"{best.median_ms:,.0f} {words} ({_number(best.memory_mib, ',.0f')}){mark}".replace("  ", " ")


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
