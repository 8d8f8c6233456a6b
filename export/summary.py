"""What an export wrote, as a few lines and as JSON."""

from collections import Counter
from collections.abc import Iterator
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
    for graph in (*package.parts(PRECISION).values(), *manifest.cpu.values()):
        operators = _operators(package, graph)
        listed = ", ".join(f"{count} {name}" for name, count in operators.most_common())
        megabytes = package.path(graph).stat().st_size / 1e6
        print(f"  {graph.file:<14}{megabytes:8.2f} MB  {sum(operators.values()):4} operators: {listed}")
    print("\n".join(verification_lines(manifest.verification)))


def summary_json(package: Package) -> dict[str, Any]:
    """The same numbers for `--json`."""
    graphs = {**package.parts(PRECISION), **{f"{part}-cpu": graph for part, graph in package.manifest.cpu.items()}}
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
    return Counter(_kinds(model.graph))


def _kinds(graph: onnx.GraphProto) -> Iterator[str]:
    """The operators of a graph and of those inside it."""
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _kinds(attribute.g)
