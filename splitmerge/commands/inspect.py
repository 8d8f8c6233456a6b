"""`splitmerge inspect`: what a package holds."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engines.listing import FoundEngine
    from splitmerge.package import Graph, Package, TensorInfo

HELP = "Show a package: its network, graphs, verification and engines, and whether each engine can still be used."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("package", type=Path, metavar="DIR", help="folder from `splitmerge export`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the manifest and the engines as JSON")


def run(arguments: argparse.Namespace) -> int:
    from engines.listing import list_engines
    from splitmerge.files import check_outputs, write_json
    from splitmerge.package import Package
    from splitmerge.verification import verification_lines

    check_outputs([arguments.json])
    package = Package.open(arguments.package)
    engines = list_engines(package)
    verified = verification_lines(package.manifest.verification)
    print("\n".join([*_about(package), "", *_graphs(package), "", *verified, "", *_engines(engines)]))
    if arguments.json:
        found = [{**asdict(engine), "path": str(engine.path)} for engine in engines]
        write_json(arguments.json, {"manifest": asdict(package.manifest), "engines": found})
    return 0


def _about(package: "Package") -> list[str]:
    from splitmerge.verification import form_lines

    manifest, contract = package.manifest, package.manifest.input
    cut = manifest.cut
    parts = f"level {cut.level}, {cut.rows}x{cut.columns} = {cut.batches} split batches" if cut else "none, one graph"
    return [
        f"package   {package.folder}",
        f"model     {manifest.model}, width {manifest.model_width}, {len(manifest.classes)} classes",
        f"frames    {contract.height}x{contract.width} {contract.dtype} {contract.layout} {contract.colour}",
        f"padded    {contract.padded_height}x{contract.padded_width}",
        f"cut       {parts}",
        *form_lines(manifest),
        f"made with {', '.join(f'{name} {version}' for name, version in manifest.versions.items())}",
    ]


def _graphs(package: "Package") -> list[str]:
    graphs = [
        (f"{precision} {part}", graph)
        for precision, parts in package.manifest.graphs.items()
        for part, graph in parts.items()
    ]
    graphs += [(f"fp32 {part} for CPUs", graph) for part, graph in package.manifest.cpu.items()]
    return [line for name, graph in graphs for line in _graph(package, name, graph)]


def _graph(package: "Package", name: str, graph: "Graph") -> list[str]:
    size = package.path(graph).stat().st_size / 2**20
    return [
        f"graph     {name}: {graph.file}, {size:.1f} MiB",
        *(f"            in  {_tensor(tensor)}" for tensor in graph.inputs),
        *(f"            out {_tensor(tensor)}" for tensor in graph.outputs),
    ]


def _tensor(tensor: "TensorInfo") -> str:
    shape = ", ".join("n" if d is None else str(d) for d in tensor.shape)
    return f"{tensor.name} {tensor.dtype} [{shape}]"


def _engines(engines: "list[FoundEngine]") -> list[str]:
    if not engines:
        return ["engines   none: make them with `splitmerge build`"]
    return [line for engine in engines for line in _engine(engine)]


def _engine(engine: "FoundEngine") -> list[str]:
    types = ", ".join(f"{count} {kind}" for kind, count in engine.convolutions.items())
    about = f"{engine.size / 2**20:.1f} MiB, {engine.target}" + (f", convolutions: {types}" if types else "")
    start = f"engine    {engine.path.parent.name}/{engine.path.name}, {about}: "
    if len(engine.gpus) < 2:
        return [start + engine.verdict]
    return [
        f"{start}on {len(engine.gpus)} GPUs",
        *(f"            {gpu}: {f'cannot be used, {why}' if why else 'valid'}" for gpu, why in engine.gpus.items()),
    ]
