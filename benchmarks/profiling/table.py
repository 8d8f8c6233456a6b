"""A profile as text: stages, totals of each kind of operator, and the operators that take longest."""

from collections.abc import Sequence

from benchmarks.limits import Limits
from benchmarks.profiling.trace import Operator

__all__ = ["screen", "totals"]

_HEADS = (
    ("calls", 6), ("ms", 10), ("share", 7), ("GFLOP", 9), ("GFLOP/s", 9), ("of GEMM", 8), ("MB", 9), ("GB/s", 8),
    ("of copy", 8),
)  # fmt: skip


def screen(stages: dict[str, float], frame_ms: float, operators: Sequence[Operator], limits: Limits, top: int) -> str:
    """All of a frame. A share of the copy's rate above 100 % means that a cache served what memory could not."""
    whole = sum(operator.ms for operator in operators)
    lines = [str(limits), "", f"{'stage':<40} {'ms':>10}"]
    lines += [f"  {stage:<38} {ms:>10.2f}" for stage, ms in stages.items()]
    lines += [f"  {'all of them':<38} {sum(stages.values()):>10.2f}"]
    lines += [f"  {'a frame as `splitmerge run` does it':<38} {frame_ms:>10.2f}", ""]
    lines += [_head("kind of operator, of a frame")]
    lines += [_line(total, whole, limits) for total in totals(operators)]
    lines += ["", _head(f"operators, the {min(top, len(operators))} of {len(operators)} that take longest")]
    longest = sorted(operators, key=lambda operator: -operator.ms)[:top]
    lines += [_line(operator, whole, limits) for operator in longest]
    return "\n".join(lines)


def totals(operators: Sequence[Operator]) -> list[Operator]:
    """The sum of each kind of operator in each stage, the longest first."""
    sums: dict[tuple[str, str], Operator] = {}
    for each in operators:
        before = sums.get((each.stage, each.kind), Operator(each.stage, "all", each.kind, 0, 0.0, 0, 0))
        sums[each.stage, each.kind] = Operator(
            each.stage,
            "all",
            each.kind,
            before.calls + each.calls,
            before.ms + each.ms,
            before.operations + each.operations,
            before.bytes + each.bytes,
        )
    return sorted(sums.values(), key=lambda total: -total.ms)


def _head(title: str) -> str:
    return f"{title:<60} {' '.join(f'{name:>{width}}' for name, width in _HEADS)}"


def _line(operator: Operator, whole_ms: float, limits: Limits) -> str:
    gflops, gb_per_s = (
        amount / operator.ms / 1e6 if operator.ms else 0.0 for amount in (operator.operations, operator.bytes)
    )
    cells = (
        str(operator.calls),
        f"{operator.ms:.3f}",
        f"{operator.ms / whole_ms:.1%}" if whole_ms else "",
        f"{operator.operations / 1e9:.3g}",
        f"{gflops:.1f}",
        f"{gflops / limits.gemm_gflops:.0%}",
        f"{operator.bytes / 1e6:.4g}",
        f"{gb_per_s:.1f}",
        f"{gb_per_s / limits.copy_gb_per_s:.0%}",
    )
    name = f"{operator.stage} {operator.kind}" + ("" if operator.name == "all" else f" {operator.name}")
    numbers = " ".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, _HEADS, strict=True))
    return f"  {name[:58]:<58} {numbers}".rstrip()
