"""The stand-ins are there while an emulator runs, and gone without a trace afterwards."""

import importlib
import importlib.metadata
import importlib.util
import sys
from typing import Any

import pytest

import engines.machine
from emulator import EmulatedDevice, Emulator, RuleBroken
from emulator.samples import Box


def test_the_modules_come_and_go() -> None:
    before = {name: sys.modules.get(name) for name in ("tensorrt", "pycuda", "pycuda.driver")}
    path, finders, libcuda = list(sys.path), list(sys.meta_path), engines.machine.libcuda
    with Emulator(version="10.12.1") as emulator:
        for name in ("tensorrt", "pycuda", "pycuda.driver"):
            assert importlib.util.find_spec(name) is not None
        import tensorrt

        assert tensorrt.__version__ == importlib.metadata.version("tensorrt") == "10.12.1"
        assert importlib.metadata.version("pycuda") == "2026.1"
        found: Any = engines.machine.libcuda()
        assert found is emulator.libcuda
        assert [gpu.name for gpu in engines.machine.find_gpus()] == ["Emulated RTX 4090"]
    assert {name: sys.modules.get(name) for name in before} == before
    assert (list(sys.path), list(sys.meta_path), engines.machine.libcuda) == (path, finders, libcuda)
    if before["tensorrt"] is None:
        assert importlib.util.find_spec("tensorrt") is None


def test_libcuda_is_replaced_where_it_was_imported_by_name() -> None:
    graphs: Any = importlib.import_module("engines.cuda_graphs")
    original = graphs.libcuda
    with Emulator() as emulator:
        assert graphs.libcuda() is emulator.libcuda
    assert graphs.libcuda is original
    saved = sys.modules.pop("engines.cuda_graphs")
    try:
        with Emulator():
            fresh = importlib.import_module("engines.cuda_graphs")
        assert fresh.libcuda is original  # also where it was imported meanwhile
    finally:
        sys.modules["engines.cuda_graphs"] = saved


def test_a_module_kept_from_one_emulator_works_in_the_next() -> None:
    with Emulator():
        import pycuda.driver as kept
    with pytest.raises(RuleBroken, match="after-close"):
        kept.init()
    with Emulator([EmulatedDevice("next")]):
        kept.init()
        assert kept.Device(0).name() == "next"


def test_there_is_one_emulator_at_a_time() -> None:
    with Emulator(), pytest.raises(RuleBroken, match="two-emulators"):
        Emulator().start()


def test_no_devices() -> None:
    with Emulator([]) as emulator:
        box = Box(emulator)
        with pytest.raises(box.cuda.RuntimeError, match="no CUDA-capable device"):
            box.init()
        assert emulator.libcuda.cuInit(0) == 100
        with pytest.raises(TypeError, match="nullptr"):
            box.trt.Builder(box.logger())
        assert engines.machine.find_gpus() == []


def test_an_error_of_the_code_under_test_comes_first() -> None:
    """What was broken before is a note on it, and what its traceback holds alive is no leak."""
    with pytest.raises(KeyError) as caught, Emulator() as emulator:
        box = Box(emulator)
        box.init()
        box.cuda.Device(0).retain_primary_context().push()
        memory = box.cuda.mem_alloc(16)
        try:
            box.cuda.mem_alloc("twelve") if memory is None else box.cuda.memset_d8(int(memory) + 8, 0, 16)
        except RuleBroken:
            raise KeyError("the test's own") from None
    if sys.version_info >= (3, 11):
        assert any("out-of-bounds" in note for note in caught.value.__notes__)
