"""What an engine file is bound to: the processor it was optimised for."""

import platform
from pathlib import Path

__all__ = ["cpu_identity"]

# ONNX Runtime lays weights out for the widest vector unit it finds, so these decide whether an optimised graph fits
_VECTOR_UNITS = ("avx", "fma", "f16c", "amx", "asimd", "sve", "i8mm", "bf16", "neon")
_CPUINFO = Path("/proc/cpuinfo")


def cpu_identity() -> dict[str, str]:
    """Architecture and vector units, as text that is equal on machines that may share an optimised graph."""
    return {"architecture": platform.machine(), "cpu_features": _features()}


def _features() -> str:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:  # macOS and Windows have no such file: the processor's name is stricter, never laxer
        return platform.processor() or "unknown"
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return " ".join(sorted({flag for flag in value.split() if flag.startswith(_VECTOR_UNITS)}))
    return platform.processor() or "unknown"
