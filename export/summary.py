"""What an export wrote, as a few lines and as JSON."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import onnx

from export.package import PRECISION
from splitmerge.package import Graph, Package

__all__ = ["print_summary", "summary_json"]


def print_summary(package: Package) -> None:
    """Print the files, their operators, and the verification."""
    manifest = package.manifest
    contract = manifest.input
    cut = manifest.cut
    print(f"{package.folder}: {manifest.model} for frames of {contract.height}x{contract.width}")
    if cut:
        print(f"cut at split level {cut.level}: {cut.rows}x{cut.columns} = {cut.batches} split batches a frame")
    for graph in package.parts(PRECISION).values():
        operators = _operators(package, graph)
        listed = ", ".join(f"{count} {name}" for name, count in operators.most_common())
        megabytes = package.path(graph).stat().st_size / 1e6
        print(f"  {graph.file:<12}{megabytes:8.2f} MB  {sum(operators.values()):4} operators: {listed}")
    _print_verification(manifest.verification)


def summary_json(package: Package) -> dict[str, Any]:
    """The same numbers for `--json`."""
    graphs = package.parts(PRECISION)
    return {
        "package": str(package.folder),
        "graphs": {
            part: {
                "file": graph.file,
                "bytes": package.path(graph).stat().st_size,
                "operators": dict(_operators(package, graph).most_common()),
            }
            for part, graph in graphs.items()
        },
        "verification": dict(package.manifest.verification),
    }


def _operators(package: Package, graph: Graph) -> Counter[str]:
    model = onnx.load(package.path(graph), load_external_data=False)
    return Counter(node.op_type for node in model.graph.node)


def _print_verification(report: Mapping[str, Any]) -> None:
    rows = report["comparisons"]
    longest = max(len(row["compared"]) for row in rows)
    print(f"verified against PyTorch: the same labels, but for near ties (logits within {report['tie']:.0e})")
    print(
        f"  {'':<{longest}} {'size':>9} {'pixels':>8} {'near ties':>9} {'labels':>10} {'max error':>10} {'of scale':>9}"
    )
    for row in rows:
        height, width = row["size"]
        print(
            f"  {row['compared']:<{longest}} {f'{height}x{width}':>9} {row['pixels']:>8} {row['near_ties']:>9} "
            f"{row['label_agreement']:>10.4%} {row['max_error']:>10.2g} {row['relative_error']:>9.2g}"
        )
    if not any("full size" in row["compared"] for row in rows):
        print(f"  full size: {report['full_size']}")
