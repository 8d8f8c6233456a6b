"""What an export wrote, as a few lines and as JSON."""

from collections import Counter
from typing import Any

import onnx

from export.package import PRECISION
from splitmerge.package import Graph, Package
from splitmerge.verification import verification_lines

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
    print("\n".join(verification_lines(manifest.verification)))


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
