"""How what export measured, a package's verification and the times of its forms, reads in a terminal."""

from collections.abc import Mapping
from typing import Any

from splitmerge.package import Manifest

__all__ = ["form_lines", "verification_lines"]


def verification_lines(report: Mapping[str, Any]) -> list[str]:
    """The manifest's `verification` as a table, a row for each comparison with PyTorch."""
    rows, cpu = [*report.get("comparisons", [])], report.get("cpu")
    if not rows:
        return ["not verified: this package was never compared with PyTorch"]
    rows += [cpu["comparison"]] if cpu else []
    longest = max(len(row["compared"]) for row in rows)
    lines = [
        f"verified against PyTorch: the same labels, but for near ties (logits within {report['tie']:.0e})",
        f"  {'':<{longest}} {'size':>9} {'pixels':>8} {'near ties':>9} {'labels':>10} {'max error':>10} of scale",
    ]
    for row in rows:
        height, width = row["size"]
        lines.append(
            f"  {row['compared']:<{longest}} {f'{height}x{width}':>9} {row['pixels']:>8} {row['near_ties']:>9} "
            f"{row['label_agreement']:>10.4%} {row['max_error']:>10.2g} {row['relative_error']:>8.2g}"
        )
    if not any("full size" in row["compared"] for row in report["comparisons"]):
        lines.append(f"  full size: {report['full_size']}")
    if cpu:
        lines.append(f"  for CPUs: the {' and '.join(cpu['parts'])}, held against {cpu['against']}{_errors(cpu)}")
    return lines


def _errors(cpu: Mapping[str, Any]) -> str:
    if cpu["float64_error"] is None:
        return ""
    return f"; logits off by {cpu['float64_error']:.1e} of the largest, {cpu['plain_float64_error']:.1e} in plain form"


def form_lines(manifest: Manifest) -> list[str]:
    """What the network was rewritten to, where it was, and what that was chosen by."""
    lines = []
    if manifest.output_stride:
        lines.append(f"stride    lowered to {manifest.output_stride}, without training")
    if manifest.form != "own":
        lines.append(f"form      {manifest.form}")
    if (times := manifest.form_times) is not None:
        for form, median in times.median_ms.items():
            took = "not run, because its tensors are too large" if median is None else f"{median:.1f} ms a frame"
            kept = ", kept" if form == manifest.form else ""
            lines.append(f"            {form}: {took}{kept} ({times.backend}, median of {times.rounds})")
    return lines
