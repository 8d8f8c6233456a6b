"""How scores of quantised graphs read in a terminal."""

from calibration.score import Measured

__all__ = ["measured_line", "score_table", "tried_head"]

_WIDTH = 34


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


def score_table(float32: Measured, rows: dict[str, Measured]) -> str:
    """float32 and others at full density."""
    lines = [tried_head(1), measured_line("fp32", float32)]
    return "\n".join(lines + [measured_line(name, measured) for name, measured in rows.items()])
