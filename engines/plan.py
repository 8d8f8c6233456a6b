"""What a plan file says of itself, and whether it is for a GPU and a version of TensorRT.

A plan starts with a header, all numbers little endian:

    0-3    `ftrt` (TensorRT) or `vtrt` (TensorRT-RTX)
    4-7    how what follows is laid out: 0
    24-27  the version that built it: major, minor, patch, build (the lowest byte of each)

The first rows are what trtexec's --getPlanVersionOnly reads (sampleEngines.cpp in NVIDIA/TensorRT). All of it was also
seen in plans of TensorRT-RTX 1.7.1.116, whose bytes 24-27 are 1, 7, 1, 116. Those hold more, which nothing here relies
on: 16-23 the file's length, 28-31 the letters again, and from 32 on a bit for each compute capability (1, 2, 4, 8, 16,
32 are 7.5, 8.0, 8.6, 8.9, 12.0, 12.1).
"""

import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.machine import Gpu
from engines.sidecar import Sidecar
from splitmerge.errors import EngineError

__all__ = ["HARDWARE_COMPATIBILITY", "PlanHeader", "description_refusal", "plan_refusal", "read_header"]

HARDWARE_COMPATIBILITY = ("none", "ampere-plus", "same-compute-capability")

_NAMES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
_MAGIC = {b"ftrt": "tensorrt", b"vtrt": "tensorrt-rtx"}
_HEADER_BYTES = 28
_NUMBERS = re.compile(r"\d{1,9}(\.\d{1,9})*")
_PAIR = re.compile(r"\d{1,9}\.\d{1,9}")


@dataclass(frozen=True)
class PlanHeader:
    """The first bytes of a plan. `version` is (major, minor, patch, build), each modulo 256; None in a layout other
    than 0, which is TensorRT's to judge.
    """

    backend: str
    version: tuple[int, int, int, int] | None


def read_header(path: Path) -> PlanHeader:
    """The header of a plan. Raises EngineError, naming the file, where it is too short or has none."""
    header = _header_or_reason(path)
    if isinstance(header, str):
        raise EngineError(f"{path} is no plan that can be used, {header}: build it again.")
    return header


def plan_refusal(path: Path, sidecar: Sidecar, gpu: Gpu, version: str) -> str | None:
    """Why the plan `path` cannot run on `gpu` with this `version` of its backend; None where nothing speaks against it.

    `path` must be the file whose hash the sidecar has (`engines.sidecar.refusal`). NVIDIA's rules: TensorRT's guide
    under "Engine compatibility". Plans of an earlier major version are refused even if they were built version
    compatible: NVIDIA supports some such pairs, with exceptions in each release's notes.
    """
    problem = description_refusal(path, sidecar)
    if problem:
        return problem
    return (
        _version_refusal(sidecar, version)
        or _system_refusal(sidecar.machine)
        or _gpu_refusal(sidecar.machine, gpu)
        or _driver_refusal(sidecar.machine, gpu)
    )


def description_refusal(path: Path, sidecar: Sidecar) -> str | None:
    """Why a plan and its sidecar do not go together, or say too little; None where they do. Needs no GPU."""
    if sidecar.backend not in _NAMES:
        return f"it is an engine for {sidecar.backend}, not a plan"
    if not _NUMBERS.match(sidecar.version):
        return f"its description has no version but {sidecar.version!r}"
    problem = _machine_problem(sidecar.machine)
    if problem:
        return problem
    header = _header_or_reason(path)
    if isinstance(header, str):
        return header
    if header.backend != sidecar.backend:
        return f"the file is a plan of {_NAMES[header.backend]} and its description says {_NAMES[sidecar.backend]}"
    told = tuple(number % 256 for number in _numbers(sidecar.version))
    if header.version and header.version[: len(told)] != told[:4]:
        built = ".".join(map(str, header.version))
        return f"the file was built with {_NAMES[header.backend]} {built} and its description says {sidecar.version}"
    return None


def _header_or_reason(path: Path) -> PlanHeader | str:
    """The header, or in words why the file has none."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except OSError as error:
        return f"the file cannot be read ({error.strerror or error})"
    if len(head) < _HEADER_BYTES:
        return f"the file is cut off after {len(head)} bytes"
    if head[:4] not in _MAGIC:
        return f"the file starts with {head[:4]!r} and plans start with b'ftrt' (TensorRT) or b'vtrt' (TensorRT-RTX)"
    known_layout = not any(head[4:8])
    return PlanHeader(_MAGIC[head[:4]], (head[24], head[25], head[26], head[27]) if known_layout else None)


def _machine_problem(machine: Mapping[str, Any]) -> str | None:
    """Which of the machine's facts the sidecar lacks or misstates."""
    for key, valid in _MACHINE.items():
        if key not in machine:
            return f"its description names no {key.replace('_', ' ')}"
        if not valid(machine[key]):
            return f"its description says {machine[key]!r} for {key.replace('_', ' ')}"
    return None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_pair(value: object) -> bool:
    return isinstance(value, str) and _PAIR.fullmatch(value) is not None


_MACHINE: dict[str, Callable[[Any], bool]] = {
    "os": _is_text,
    "architecture": _is_text,
    "gpu": lambda value: value is None or _is_text(value),
    "capability": _is_pair,
    "multiprocessors": lambda value: value is None or (type(value) is int and value > 0),
    "driver": lambda value: value is None or _is_pair(value),
    "hardware_compatibility": lambda value: isinstance(value, str) and value in HARDWARE_COMPATIBILITY,
    "version_compatible": lambda value: isinstance(value, bool),
}


def _version_refusal(sidecar: Sidecar, version: str) -> str | None:
    name, built, here = _NAMES[sidecar.backend], _numbers(sidecar.version), _numbers(version)
    if sidecar.machine["version_compatible"]:
        if built[:1] == here[:1] and built <= here:
            return None
        return (
            f"it was built with {name} {sidecar.version} for that version and later ones of the same major number, and "
            f"{version} is installed"
        )
    return None if built == here else f"it was built with {name} {sidecar.version} and {version} is installed"


def _system_refusal(machine: Mapping[str, Any]) -> str | None:
    built, here = (machine["os"], machine["architecture"]), (platform.system(), platform.machine())
    return None if built == here else f"it was built for {' '.join(built)} and this is {' '.join(here)}"


def _gpu_refusal(machine: Mapping[str, Any], gpu: Gpu) -> str | None:
    level, built, least = machine["hardware_compatibility"], machine["capability"], machine["multiprocessors"]
    if level == "ampere-plus":
        fits, wanted = _numbers(gpu.capability) >= (8, 0), " for GPUs of compute capability 8.0 and later"
    elif level == "same-compute-capability":
        fits, wanted = gpu.capability == built, " for GPUs of the same compute capability"
    else:
        fits, wanted = gpu.capability == built and (least is None or gpu.multiprocessors >= least), ""
    return None if fits else f"{_origin(machine)}{wanted} and this GPU is {gpu}"


def _driver_refusal(machine: Mapping[str, Any], gpu: Gpu) -> str | None:
    built = machine["driver"]
    if built is None or _numbers(gpu.driver)[:1] >= _numbers(built)[:1]:
        return None
    return (
        f"it was built with a driver for CUDA {built} and the driver of this {gpu.name} is for CUDA {gpu.driver}, "
        "which is older (update the driver)"
    )


def _origin(machine: Mapping[str, Any]) -> str:
    if machine["gpu"] is None:
        return f"it was built ahead of time for compute capability {machine['capability']}"
    count = machine["multiprocessors"]
    parts = f", {count} multiprocessors" if count is not None else ""
    return f"it was built on {machine['gpu']} (compute capability {machine['capability']}{parts})"


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version starts with: 10.2.0.post1 gives (10, 2, 0)."""
    match = _NUMBERS.match(version)
    return tuple(map(int, match[0].split("."))) if match else ()
