"""What a measurement was made on."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

__all__ = ["machine"]

_LIBRARIES = ("torch", "onnxruntime", "onnx", "numpy", "opencv-python", "tensorrt-rtx-cu13", "llvmlite", "openvino")


def machine() -> dict[str, object]:
    """Processor, cores, system, library versions and the day, as a JSON object."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
