"""`splitmerge doctor`: what this machine can do."""

import argparse
import importlib.metadata
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

HELP = "Show GPUs, what is installed, which backend would be used, and how to get what is missing."

# what to install for each, so that nobody has to guess which extra brings it
_PACKAGES = {
    "numpy": "pip install numpy",
    "opencv-python": "pip install opencv-python",
    "torch": "pip install '.[train]' in the checkout",
    "onnx": "pip install '.[export]' in the checkout",
    "llvmlite": "pip install '.[native]' in the checkout (compiles networks for this CPU)",
    "pycuda": "pip install pycuda (for GPUs; it compiles, with a C++ compiler and the CUDA toolkit's nvcc on PATH)",
    "polygraphy": "pip install polygraphy (NVIDIA's tool to look into plans; nothing here needs it)",
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
    from engines.machine import ask_driver
    from splitmerge import __version__
    from splitmerge.errors import EngineError

    try:
        auto, why = choose_backend("auto")
    except EngineError as error:
        auto, why = "", str(error)
    gpus, problems = ask_driver()
    backends = find_backends().values()
    return {
        "splitmerge": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "gpus": [asdict(gpu) for gpu in gpus],
        "gpu_problems": problems,
        "packages": {name: _package(name, install) for name, install in _PACKAGES.items()},
        "backends": [{**asdict(b), "runs": b.runs, "detail": _detail(b.name) if b.version else ""} for b in backends],
        "auto": auto,
        "reason": why,
    }


def _package(name: str, install: str) -> dict[str, str | None]:
    version = _version(name)
    return {"version": version, "detail": _detail(name) if version else "", "install": install}


def _text(findings: dict[str, Any]) -> str:
    lines = [
        f"splitmerge {findings['splitmerge']} on Python {findings['python']}, {findings['machine']}",
        *(_gpu(gpu) for gpu in findings["gpus"]),
        *(f"GPUs   {problem}" for problem in findings["gpu_problems"]),
        "",
    ]
    for name, found in findings["packages"].items():
        lines.append(_line(name, found["version"], found["install"], found["detail"]))
    for backend in findings["backends"]:
        verbs = [verb for verb, can in (("builds", backend["builds"]), ("runs", backend["runs"])) if can]
        obstacle = f"cannot run: {backend['obstacle']}" if backend["obstacle"] else ""
        about = "; ".join(filter(None, (" and ".join(verbs), obstacle, backend["detail"])))
        lines.append(_line(backend["name"], backend["version"], backend["install"], about))
    if findings["auto"]:
        lines += ["", f"--backend auto picks {findings['auto']} ({findings['reason']})"]
    else:
        lines += ["", findings["reason"]]
    return "\n".join(lines)


def _gpu(gpu: dict[str, Any]) -> str:
    return (
        f"GPU {gpu['index']}  {gpu['name']}: compute capability {gpu['capability']}, {gpu['multiprocessors']} "
        f"multiprocessors, {gpu['memory_bytes'] / 2**30:.1f} GiB, driver for CUDA {gpu['driver']}"
    )


def _line(name: str, version: str | None, install: str, about: str) -> str:
    return f"{name:<14} {version or 'missing':<14} {about if version else install}".rstrip()


def _version(name: str) -> str | None:
    for distribution in (name, *_ALSO_KNOWN_AS.get(name, ())):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _detail(name: str) -> str:
    """What counts about an installed package besides its version. TensorRT is never imported: it may end the process
    where there is no GPU.
    """
    try:
        return _DETAILS[name]() if name in _DETAILS else ""
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return f"cannot be imported ({' '.join(str(error).split())}): install it anew"


def _onnxruntime() -> str:
    import onnxruntime

    return ", ".join(onnxruntime.get_available_providers())


def _opencv() -> str:
    import cv2

    built = cv2.getBuildInformation()
    return ", ".join(
        f"{'with' if re.search(rf'^ *{word}: *YES', built, re.MULTILINE) else 'without'} {name}"
        for name, word in (("FFmpeg", "FFMPEG"), ("GStreamer", "GStreamer"))
    )


def _torch() -> str:
    import torch

    if torch.version.cuda is None:
        return "built without CUDA"
    return f"built for CUDA {torch.version.cuda}, {'uses' if torch.cuda.is_available() else 'finds no'} GPU here"


_DETAILS: dict[str, Callable[[], str]] = {"onnxruntime": _onnxruntime, "opencv-python": _opencv, "torch": _torch}
