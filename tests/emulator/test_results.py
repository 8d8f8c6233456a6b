"""What runs gives what ONNX Runtime gives, and not before the host has synchronised."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from emulator import EmulatedDevice
from emulator.samples import ENTRY, WIDTH, Box, Runner, in_thread

POISON = b"\xa5"


def test_an_engine_computes(box: Box) -> None:
    runner = Runner(box, 3)
    box.cuda.memcpy_htod(runner.input, np.arange(3 * WIDTH, dtype=np.float32))
    box.cuda.Context.synchronize()
    assert runner.start()
    assert np.array_equal(runner.result().ravel(), 2 * np.arange(3 * WIDTH, dtype=np.float32) + 1)
    assert [span.kind for span in box.emulator.timeline.of(label="affine")] == ["compute"]


def test_a_result_is_poison_until_the_host_has_synchronised(box: Box) -> None:
    """Even where the stream was done long before."""
    runner, target = Runner(box), box.pinned(value=7)
    assert runner.start()
    box.cuda.memcpy_dtoh_async(target, runner.output, runner.stream)
    last = runner.stream._state.last
    assert last.done.wait(10)
    assert target.tobytes() == POISON * ENTRY
    runner.stream.synchronize()
    assert (target == 3).all()


@pytest.mark.parametrize("how", ["event", "query", "is_done", "context", "another stream that waited"])
def test_every_way_to_synchronise_shows_it(box: Box, how: str) -> None:
    stream, other, event, _memory, target = _started_copy(box)
    if how == "event":
        event.synchronize()
    elif how == "query":
        while not event.query():
            pass
    elif how == "is_done":
        while not stream.is_done():
            pass
    elif how == "context":
        box.cuda.Context.synchronize()
    else:
        other.wait_for_event(event)
        other.synchronize()
    assert (target == 4).all()
    stream.synchronize()


def test_other_events_show_nothing(box: Box) -> None:
    _stream, other, event, _memory, target = _started_copy(box)
    early = box.cuda.Event().record(other)
    early.synchronize()
    other.synchronize()
    box.cuda.Event().synchronize()  # one that was never recorded
    assert target.tobytes() == POISON * ENTRY
    event.synchronize()
    assert (target == 4).all()


def _started_copy(box: Box) -> tuple[Any, ...]:
    stream, other, event = box.cuda.Stream(1), box.cuda.Stream(1), box.cuda.Event()
    memory, target = box.filled(value=4), box.pinned()
    box.cuda.memcpy_dtoh_async(target, memory, stream)
    event.record(stream)
    return stream, other, event, memory, target


def test_a_copy_in_the_host_goes_through_page_locked_memory_in_order(box: Box) -> None:
    """A second copy reads what the first brought, though the host has not seen it yet."""
    stream, first, second, between = box.cuda.Stream(1), box.filled(value=9), box.filled(value=1), box.pinned()
    box.cuda.memcpy_dtoh_async(between, first, stream)
    box.cuda.memcpy_htod_async(second, between, stream)
    stream.synchronize()
    array = np.empty(WIDTH, np.float32)
    box.cuda.memcpy_dtoh(array, second)
    assert (array == 9).all() and (between == 9).all()


def test_outputs_are_poison_while_an_execution_runs(start: Callable[..., Box]) -> None:
    box = start(work=0.3)
    runner = Runner(box)
    box.cuda.memset_d8(runner.output, 0, ENTRY)
    box.cuda.Context.synchronize()
    assert runner.start()
    while box.emulator.contents(int(runner.output), ENTRY) == bytes(ENTRY):
        pass
    assert box.emulator.contents(int(runner.output), ENTRY) == POISON * ENTRY
    assert not runner.stream.is_done()
    assert (runner.result() == 3).all()


def test_addresses_and_sizes(start: Callable[..., Box]) -> None:
    box = start([EmulatedDevice(memory_gib=1), EmulatedDevice(memory_gib=1)])
    ends = []
    for index in range(2):
        with box.use(index):
            free, total = box.cuda.mem_get_info()
            assert free == total == 1 << 30
            blocks = [box.cuda.mem_alloc(100) for _ in range(3)]
            addresses = [int(block) for block in blocks]
            assert all(address % 256 == 0 and address >= 0x7F00_0000_0000 for address in addresses)
            assert len(set(addresses)) == 3
            assert box.emulator.contents(addresses[0], 100, index) == POISON * 100
            assert box.cuda.mem_get_info()[0] == total - 3 * 512 == total - box.emulator.memory_used(index)
            with pytest.raises(box.cuda.MemoryError, match="out of memory"):
                box.cuda.mem_alloc(1 << 30)
            blocks[0].free()
            again = box.cuda.mem_alloc(100)
            assert int(again) not in addresses  # so that what still uses the old one is found
            ends.append((min(addresses), int(again)))
    assert ends[0][1] < ends[1][0]


def test_the_contexts_of_a_thread_are_a_stack(start: Callable[..., Box]) -> None:
    box = start([EmulatedDevice("one"), EmulatedDevice("two")])
    seen: list[Any] = []
    assert box.cuda.Device.count() == 2
    first = box.cuda.Context.get_current()
    with box.use(1) as second:
        assert box.cuda.Context.get_current() is second and box.cuda.Context.get_device().name() == "two"
    assert box.cuda.Context.get_current() is first
    assert box.cuda.Context.get_device() == box.cuda.Device(0)
    in_thread(lambda: seen.append(box.cuda.Context.get_current()))
    assert seen == [None]  # of another thread
    with pytest.raises(box.cuda.LogicError, match="ordinal"):
        box.cuda.Device(2)


def test_a_device_tells_what_it_is(start: Callable[..., Box]) -> None:
    box = start([EmulatedDevice("Mine", "8.6", memory_gib=12, multiprocessors=28)], driver=(13, 0))
    device = box.cuda.Device(0)
    assert (device.name(), device.compute_capability(), device.total_memory()) == ("Mine", (8, 6), 12 << 30)
    assert device.get_attribute(box.cuda.device_attribute.MULTIPROCESSOR_COUNT) == 28
    assert box.cuda.get_driver_version() == 13000


def test_what_is_no_address_is_no_address(box: Box) -> None:
    memory = box.cuda.mem_alloc(16)
    with pytest.raises(TypeError, match="an int or a DeviceAllocation"):
        box.cuda.memset_d8(np.int64(int(memory)), 0, 16)
    with pytest.raises(ValueError, match="contiguous"):
        box.cuda.memcpy_htod(memory, np.zeros((4, 4), np.float32)[:, ::2])
    frozen = np.zeros(4, np.uint8)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        box.cuda.memcpy_dtoh(frozen, memory)


def test_events_measure_time(start: Callable[..., Box]) -> None:
    box = start([EmulatedDevice(speed=2.0)], work={"affine": 0.01})
    runner, begin, end = Runner(box, 4), box.cuda.Event(), box.cuda.Event()
    untimed = box.cuda.Event(box.cuda.event_flags.DISABLE_TIMING).record(runner.stream)
    begin.record(runner.stream)
    assert runner.start()
    end.record(runner.stream)
    end.synchronize()
    assert end.time_since(begin) >= 20  # 4 entries of 10 ms at twice the speed
    assert begin.time_till(end) == end.time_since(begin)
    with pytest.raises(box.cuda.LogicError):
        end.time_since(untimed)
