"""Failures made on purpose, and what a device does after an error."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from emulator import EmulatedDevice, RuleBroken
from emulator.cases_graphs import begin, capture, destroy, launch
from emulator.samples import ENTRY, WIDTH, Box, Runner, in_thread


@pytest.fixture
def box(start: Callable[..., Box]) -> Box:
    return start([EmulatedDevice(), EmulatedDevice("second")])


def test_the_nth_call_fails_and_no_other(box: Box) -> None:
    box.emulator.fail("mem_alloc", after=3)
    blocks = [box.cuda.mem_alloc(16) for _ in range(2)]
    with pytest.raises(box.cuda.MemoryError, match="out of memory"):
        box.cuda.mem_alloc(16)
    blocks.append(box.cuda.mem_alloc(16))


def test_a_failure_is_one_devices(box: Box) -> None:
    box.emulator.fail("Stream", device=1)
    assert box.cuda.Stream().is_done()
    with box.use(1), pytest.raises(box.cuda.LogicError, match="cuStreamCreate"):
        box.cuda.Stream()


def test_any_exception_and_several_times(box: Box) -> None:
    box.emulator.fail("mem_get_info", error=OSError("gone"), times=2)
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            box.cuda.mem_get_info()
    assert box.cuda.mem_get_info()


PYCUDA: dict[str, Callable[[Box, Runner, Any], object]] = {
    "pagelocked_empty": lambda box, runner, pinned: box.pinned(),
    "Event": lambda box, runner, pinned: box.cuda.Event(),
    "Event.record": lambda box, runner, pinned: box.cuda.Event().record(runner.stream),
    "Event.synchronize": lambda box, runner, pinned: box.cuda.Event().synchronize(),
    "Event.query": lambda box, runner, pinned: box.cuda.Event().query(),
    "Stream.synchronize": lambda box, runner, pinned: runner.stream.synchronize(),
    "Stream.is_done": lambda box, runner, pinned: runner.stream.is_done(),
    "Stream.wait_for_event": lambda box, runner, pinned: runner.stream.wait_for_event(box.cuda.Event()),
    "Context.synchronize": lambda box, runner, pinned: box.cuda.Context.synchronize(),
    "retain_primary_context": lambda box, runner, pinned: box.cuda.Device(0).retain_primary_context(),
    "memcpy_htod": lambda box, runner, pinned: box.cuda.memcpy_htod(runner.input, pinned),
    "memcpy_dtoh": lambda box, runner, pinned: box.cuda.memcpy_dtoh(pinned, runner.input),
    "memcpy_dtod": lambda box, runner, pinned: box.cuda.memcpy_dtod(runner.output, runner.input, 4),
    "memset_d8": lambda box, runner, pinned: box.cuda.memset_d8(runner.output, 0, 4),
    "memcpy_htod_async": lambda box, runner, pinned: box.cuda.memcpy_htod_async(runner.input, pinned, runner.stream),
    "memcpy_dtoh_async": lambda box, runner, pinned: box.cuda.memcpy_dtoh_async(pinned, runner.input, runner.stream),
    "memcpy_dtod_async": lambda box, runner, pinned: box.cuda.memcpy_dtod_async(
        runner.output, runner.input, 4, runner.stream
    ),
    "memset_d8_async": lambda box, runner, pinned: box.cuda.memset_d8_async(runner.output, 0, 4, runner.stream),
}


@pytest.mark.parametrize("call", list(PYCUDA))
def test_calls_of_pycuda_raise_its_errors(box: Box, call: str) -> None:
    runner, pinned = Runner(box), box.pinned()
    box.emulator.fail(call)
    with pytest.raises(box.cuda.Error):
        PYCUDA[call](box, runner, pinned)
    PYCUDA[call](box, runner, pinned)  # and the next one is as before
    box.cuda.Context.synchronize()


TENSORRT: dict[str, Callable[[Box, Runner], object]] = {
    "execute_async_v3": lambda box, runner: runner.start(),
    "set_input_shape": lambda box, runner: runner.context.set_input_shape("x", (1, WIDTH)),
    "set_tensor_address": lambda box, runner: runner.context.set_tensor_address("x", int(runner.input)),
    "set_optimization_profile_async": lambda box, runner: runner.context.set_optimization_profile_async(
        0, runner.stream.handle
    ),
    "create_execution_context": lambda box, runner: runner.engine.create_execution_context(),
    "deserialize_cuda_engine": lambda box, runner: box.trt.Runtime(box.logger()).deserialize_cuda_engine(box.build()),
    "build_serialized_network": lambda box, runner: box.build(),
}


@pytest.mark.parametrize("call", list(TENSORRT))
def test_calls_of_tensorrt_say_no(box: Box, call: str) -> None:
    runner = Runner(box)
    box.emulator.fail(call)
    assert TENSORRT[call](box, runner) in (False, None)
    assert TENSORRT[call](box, runner)
    runner.stream.synchronize()


@pytest.mark.parametrize("call", ["Builder", "Runtime"])
def test_what_cannot_be_made_raises_a_type_error(box: Box, call: str) -> None:
    box.emulator.fail(call)
    with pytest.raises(TypeError, match="nullptr"):
        getattr(box.trt, call)(box.logger())


def test_functions_of_libcuda_give_codes(box: Box) -> None:
    stream = box.cuda.Stream(1)
    box.emulator.fail("cuStreamBeginCapture_v2", error=900)
    assert begin(box, stream) == 900
    graph = capture(box, stream, lambda: None)
    box.emulator.fail("cuGraphLaunch")
    assert launch(box, graph, stream) == 719
    assert launch(box, graph, stream) == 0
    destroy(box, graph)
    box.emulator.fail("cuInit", error=999)
    assert box.libcuda.cuInit(0) == 999
    assert box.libcuda.cuInit(0) == 0


@pytest.mark.parametrize("kind", ["compute", "h2d", "d2h"])
def test_what_fails_on_the_device_shows_at_the_next_synchronise_and_stays(box: Box, kind: str) -> None:
    runner, pinned = Runner(box), box.pinned()
    box.emulator.fail(f"run:{kind}", device=0)
    box.cuda.memcpy_htod_async(runner.input, pinned, runner.stream)
    assert runner.start()
    target = box.pinned()
    box.cuda.memcpy_dtoh_async(target, runner.output, runner.stream)
    for _ in range(2):
        with pytest.raises(box.cuda.LaunchError, match="unspecified launch failure"):
            runner.stream.synchronize()
    with pytest.raises(box.cuda.LaunchError):
        box.cuda.mem_alloc(16)
    assert not runner.start()  # TensorRT does not raise
    graph = capture(box, runner.stream, lambda: None)
    assert launch(box, graph, runner.stream) == 0  # it has no work
    destroy(box, graph)
    assert target.tobytes() == b"\xa5" * ENTRY
    runner.input.free()  # cleaning up works
    with box.use(1):  # and the other device does, too
        other = Runner(box)
        assert other.start()
        assert (other.result() == 3).all()


def test_a_broken_rule_on_the_streams_thread_is_sticky_too(box: Box) -> None:
    runner = Runner(box)
    unwritten = box.cuda.mem_alloc(ENTRY)
    runner.context.set_tensor_address("x", int(unwritten))
    assert runner.start()  # nothing is wrong yet
    with box.emulator.expected("never-written"):
        runner.stream.synchronize()
    with pytest.raises(RuleBroken, match="never-written"):
        runner.stream.synchronize()


def test_a_lost_device_fails_every_call(box: Box) -> None:
    runner, pinned = Runner(box), box.pinned()
    assert runner.start()
    box.emulator.lose(0)
    for call in (
        runner.stream.synchronize,
        runner.stream.is_done,
        lambda: box.cuda.mem_alloc(16),
        lambda: box.cuda.Stream(),
        lambda: box.cuda.memcpy_htod_async(runner.input, pinned, runner.stream),
        box.cuda.Context.synchronize,
        box.cuda.mem_get_info,
    ):
        with pytest.raises(box.cuda.LaunchError):
            call()
    assert begin(box, runner.stream) == 719
    assert not runner.start()
    assert runner.engine.create_execution_context() is None
    with box.use(1):
        other = Runner(box)
        assert other.start()
        assert (other.result() == 3).all()


def test_what_a_lost_device_holds_may_go_anywhere(box: Box) -> None:
    kept = [box.cuda.Stream(), box.cuda.mem_alloc(16), box.pinned()]
    box.emulator.lose(0)
    in_thread(kept.clear)
    assert box.emulator.violations == []


def test_tolerated_rules_give_the_documented_result(start: Callable[..., Box]) -> None:
    box = start(tolerate={"profile-range", "wrong-shape"})
    runner = Runner(box)
    assert not runner.context.set_input_shape("x", (5, WIDTH))
    assert not runner.context.set_input_shape("x", (1, 1))
    assert [violation.rule for violation in box.emulator.tolerated] == ["profile-range", "wrong-shape"]
    assert (runner.start(), *np.unique(runner.result())) == (True, 3.0)


def test_a_count_is_stored_where_it_is_wanted(box: Box) -> None:
    count, major, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(64)
    memory, version = ctypes.c_size_t(), ctypes.c_int()
    assert box.libcuda.cuDeviceGetCount(ctypes.pointer(count)) == 0 and count.value == 2
    assert box.libcuda.cuDeviceGetAttribute(ctypes.byref(major), 75, ctypes.c_int(0)) == 0 and major.value == 8
    assert box.libcuda.cuDeviceGetName(name, 64, ctypes.c_int(1)) == 0 and name.value == b"second"
    assert box.libcuda.cuDeviceTotalMem_v2(ctypes.byref(memory), 0) == 0 and memory.value == 24 << 30
    assert box.libcuda.cuDriverGetVersion(ctypes.byref(version)) == 0 and version.value == 12080
    assert box.libcuda.cuDeviceGet(ctypes.byref(count), 2) == 101
    words = ctypes.c_char_p()
    assert box.libcuda.cuGetErrorName(101, ctypes.byref(words)) == 0 and words.value == b"CUDA_ERROR_INVALID_DEVICE"
