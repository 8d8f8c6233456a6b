"""What the stand-ins offer exists in the real modules: their lists of members are in tests/members."""

import enum
import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from emulator.libcuda import LibCuda
from emulator.machine import Machine
from emulator.modules import MODULES
from emulator.rules import Ledger

LISTS = Path(__file__).parents[1] / "members"
TENSORRT = sorted(LISTS.glob("tensorrt-1*.json"))
EMULATED = [path for path in TENSORRT if path.name.startswith(("tensorrt-10.12", "tensorrt-10.16"))]
# what 10.x has and others do not: code under test must not take it for granted
LACKING = {
    "10.3": "SAME_COMPUTE_CAPABILITY EDITABLE_TIMING_CACHE MONITOR_MEMORY STRICT_NANS SQUEEZE UNSQUEEZE",
    "11": "EXPLICIT_BATCH",
}


def members(kind: type) -> set[str]:
    names = {name for name in dir(kind) if not name.startswith("_")}
    if issubclass(kind, enum.Enum):
        names = set(kind.__members__)
    return names


def missing(module: ModuleType, path: Path) -> list[str]:
    """What the stand-in has and the list has not."""
    real: dict[str, Any] = json.loads(path.read_text())
    names, classes = set(real["names"].split()), real["classes"]
    found = []
    for name, value in vars(module).items():
        if name.startswith("_") or inspect.ismodule(value):
            continue
        if not inspect.isclass(value):
            found += [] if name in names else [name]
        elif name not in classes:
            found.append(name)
        elif not issubclass(value, BaseException):
            found += [f"{name}.{member}" for member in sorted(members(value) - set(classes[name].split()))]
    return found


@pytest.mark.skipif(not EMULATED, reason="tests/members has no lists of TensorRT 10.12 or 10.16")
@pytest.mark.parametrize("path", EMULATED, ids=lambda path: path.stem)
def test_tensorrt(path: Path) -> None:
    assert missing(MODULES["tensorrt"], path) == []


@pytest.mark.skipif(not TENSORRT, reason="tests/members has no lists of TensorRT")
@pytest.mark.parametrize("path", TENSORRT, ids=lambda path: path.stem)
def test_what_differs_between_versions_is_known(path: Path) -> None:
    version = path.stem.removeprefix("tensorrt-")
    allowed = [name for prefix, names in LACKING.items() if version.startswith(prefix) for name in names.split()]
    found = [name.rpartition(".")[2] for name in missing(MODULES["tensorrt"], path)]
    assert [name for name in found if name not in allowed] == []


def test_pycuda() -> None:
    lists = sorted(LISTS.glob("pycuda*.json"))
    if not lists:
        pytest.skip("tests/members has no list of pycuda.driver")
    for path in lists:
        assert missing(MODULES["pycuda.driver"], path) == []


def test_the_driver() -> None:
    lists = sorted(LISTS.glob("cuda-driver*.json"))
    if not lists:
        pytest.skip("tests/members has no list of the CUDA driver's functions")
    library = LibCuda(Machine([], Ledger(), 0.0, "10.13.0", (12, 8)))
    offered = {name for name in vars(library) if name.startswith("cu")}
    assert len(offered) == 17
    for path in lists:
        assert offered - set(json.loads(path.read_text())["functions"]) == set()
