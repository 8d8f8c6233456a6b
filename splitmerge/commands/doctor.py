"""`splitmerge doctor`: what this machine can do."""

import argparse
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

HELP = "Show what is installed, which backend would be used, and how to get what is missing."

# what to install for each, so that nobody has to guess which extra brings it
_PACKAGES = {
    "numpy": "pip install numpy",
    "opencv-python": "pip install opencv-python",
    "torch": "pip install '.[train]' in the checkout",
    "onnx": "pip install '.[export]' in the checkout",
}
_ALSO_KNOWN_AS = {"opencv-python": ("opencv-python-headless", "opencv-contrib-python")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    from splitmerge.files import check_outputs, write_json

    check_outputs([arguments.json])
    findings = _findings()
    print(_text(findings))
    if arguments.json:
        write_json(arguments.json, findings)
    return 0 if findings["auto"] else 1


def _findings() -> dict[str, Any]:
    from dataclasses import asdict

    from engines.backends import choose_backend, find_backends
    from engines.machine import find_gpus
    from splitmerge import __version__
    from splitmerge.errors import EngineError

    try:
        auto, why = choose_backend("auto")
    except EngineError as error:
        auto, why = "", str(error)
    return {
        "splitmerge": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "gpus": [asdict(gpu) for gpu in find_gpus()],
        "packages": {name: {"version": _version(name), "install": install} for name, install in _PACKAGES.items()},
        "backends": [asdict(backend) for backend in find_backends().values()],
        "auto": auto,
        "reason": why,
    }


def _text(findings: dict[str, Any]) -> str:
    gpus = ", ".join(
        f"{g['name']} (compute capability {g['capability']}, CUDA {g['driver']})" for g in findings["gpus"]
    )
    lines = [
        f"splitmerge {findings['splitmerge']} on Python {findings['python']}, {findings['machine']}",
        f"NVIDIA GPUs: {gpus or 'none with a driver'}",
        "",
    ]
    for name, found in findings["packages"].items():
        lines.append(_line(name, found["version"], found["install"], ""))
    for backend in findings["backends"]:
        abilities = " and ".join(
            verb for verb, can in (("builds", backend["builds"]), ("runs", backend["runs"])) if can
        )
        lines.append(_line(backend["name"], backend["version"], backend["install"], abilities))
    if findings["auto"]:
        lines += ["", f"--backend auto picks {findings['auto']}: {findings['reason']}"]
    else:
        lines += ["", findings["reason"]]
    return "\n".join(lines)


def _line(name: str, version: str | None, install: str, abilities: str) -> str:
    return f"{name:<14} {version or 'missing':<14} {abilities if version else install}".rstrip()


def _version(name: str) -> str | None:
    for distribution in (name, *_ALSO_KNOWN_AS.get(name, ())):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
