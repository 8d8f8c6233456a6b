"""How scores of quantised graphs read in a terminal."""

from collections.abc import Collection, Mapping

from calibration.score import Measured
from calibration.search import GOAL_SHARE

__all__ = ["measured_line", "score_table", "share_line", "tried_head"]

_WIDTH = 34
_SEEN = 0.005
"""Points of mIoU that show in the table."""


def tried_head(stride: int) -> str:
    """The line above `measured_line`s that are about every `stride`-th row and column."""
    pixels = "all pixels" if stride == 1 else f"every {stride}. row and column"
    return f"{pixels:<{_WIDTH}}   mIoU    thin  boundary | drop: mIoU  worst thin         boundary | labels equal"


def measured_line(name: str, m: Measured) -> str:
    """Scores in per cent, drops in points."""
    thin = "-" if m.thin is None else f"{m.thin:.2f}"
    return (
        f"{name:<{_WIDTH}} {m.miou:>6.2f} {thin:>7} {m.boundary:>9.2f} | {m.miou_drop:>+10.3f} {m.thin_drop:>+7.3f} "
        f"{(m.worst_thin or '-'):<13} {m.boundary_drop:>+7.3f} | {m.agreement:>11.3%}"
    )


def score_table(float32: Measured, rows: Mapping[str, Measured]) -> str:
    """float32 and others at full density; where the drops are not the differences that one sees, why."""
    lines = [tried_head(1), measured_line("fp32", float32)]
    lines += [measured_line(name, measured) for name, measured in rows.items()]
    if any(abs(float32.miou - m.miou - m.miou_drop) > _SEEN for m in rows.values()):
        lines.append(
            "(drops are means over the classes that both have a score for; here one has a score for a class that the "
            "other never gives, so the mIoUs differ by another number)"
        )
    return "\n".join(lines)


def share_line(share: float, left_out: Collection[str], rest: str) -> str:
    """How much is int8, what is not, and whether that is less than it should be."""
    left = f"; {', '.join(sorted(left_out))} in {rest}" if left_out else ""
    little = f" (less than the {GOAL_SHARE:.0%} that it should be)" if share < GOAL_SHARE else ""
    return f"int8: {share:.2%} of the multiply-adds{little}{left}"
