"""Rules of memory and of copies: each script is wrong in one thing, or right."""

import ctypes

import numpy as np

from emulator.rules import RuleBroken
from emulator.samples import ENTRY, WIDTH, Box, Runner, case


@case("unknown-address")
def an_address_of_the_host(box: Box, wrong: bool) -> None:
    memory, array = box.filled(), np.zeros((1, WIDTH), np.float32)
    box.cuda.memcpy_htod(array.ctypes.data if wrong else memory, array)


@case("out-of-bounds")
def a_copy_too_long(box: Box, wrong: bool) -> None:
    memory = box.cuda.mem_alloc(ENTRY)
    box.cuda.memcpy_htod(memory, np.zeros(WIDTH + wrong, np.float32))


@case("out-of-bounds")
def an_output_too_short(box: Box, wrong: bool) -> None:
    runner = Runner(box, 2)
    short = box.cuda.mem_alloc(2 * ENTRY - wrong)
    runner.context.set_tensor_address("y", int(short))
    assert runner.start()
    runner.stream.synchronize()


@case("wrong-device", devices=2)
def memory_of_another_device(box: Box, wrong: bool) -> None:
    with box.device(1):
        memory = box.cuda.mem_alloc(16)
        if not wrong:
            box.cuda.memset_d8(memory, 0, 16)
        else:
            with box.device(0):
                box.cuda.memset_d8(memory, 0, 16)
        memory.free()


@case("wrong-device", devices=2)
def a_stream_of_another_device(box: Box, wrong: bool) -> None:
    stream, pinned = box.cuda.Stream(), box.pinned()
    with box.device(1):
        own, memory = box.cuda.Stream(), box.cuda.mem_alloc(ENTRY)
        used = stream if wrong else own
        box.cuda.memcpy_htod_async(memory, pinned, used)
        used.synchronize()
        memory.free()


@case("wrong-device", devices=2)
def an_event_of_another_device(box: Box, wrong: bool) -> None:
    event = box.cuda.Event()
    with box.device(1):
        (event if wrong else box.cuda.Event()).record(box.cuda.Stream())


@case("wrong-device", devices=2)
def synchronising_under_another_device(box: Box, wrong: bool) -> None:
    stream = box.cuda.Stream()
    if not wrong:
        stream.synchronize()
    with box.device(1):
        if wrong:
            stream.synchronize()


@case("use-after-free")
def a_copy_to_freed_memory(box: Box, wrong: bool) -> None:
    memory = box.cuda.mem_alloc(ENTRY)
    address = int(memory)
    if wrong:
        memory.free()
    box.cuda.memcpy_htod(address, np.zeros(WIDTH, np.float32))


@case("use-after-free")
def a_graph_over_freed_memory(box: Box, wrong: bool) -> None:
    """The graph has the address of capture time; what is wrong shows on the stream's thread."""
    from emulator.cases_graphs import capture, destroy

    stream, pinned, memory = box.cuda.Stream(1), box.pinned(), box.cuda.mem_alloc(ENTRY)
    graph = capture(box, stream, lambda: box.cuda.memcpy_htod_async(memory, pinned, stream))
    if wrong:
        memory.free()
    assert box.libcuda.cuGraphLaunch(graph, ctypes.c_void_p(stream.handle)) == 0
    stream.synchronize()
    destroy(box, graph)


@case("double-free")
def device_memory_freed_twice(box: Box, wrong: bool) -> None:
    memory = box.cuda.mem_alloc(16)
    memory.free()
    if wrong:
        memory.free()


@case("double-free")
def pinned_memory_freed_twice(box: Box, wrong: bool) -> None:
    free = box.free_of(box.pinned())
    free()
    if wrong:
        free()


@case("freed-in-use")
def device_memory_freed_under_a_copy(box: Box, wrong: bool) -> None:
    stream, pinned, memory = box.cuda.Stream(), box.pinned(), box.cuda.mem_alloc(ENTRY)
    box.cuda.memcpy_htod_async(memory, pinned, stream)
    if not wrong:
        stream.synchronize()
    memory.free()
    stream.synchronize()


@case("freed-in-use")
def pinned_memory_freed_under_a_copy(box: Box, wrong: bool) -> None:
    stream, pinned, memory = box.cuda.Stream(), box.pinned(), box.cuda.mem_alloc(ENTRY)
    box.cuda.memcpy_htod_async(memory, pinned, stream)
    if not wrong:
        stream.synchronize()
    box.free_of(pinned)()
    stream.synchronize()


@case("never-written")
def reading_what_nobody_wrote(box: Box, wrong: bool) -> None:
    memory, array = box.cuda.mem_alloc(ENTRY), np.empty(WIDTH, np.float32)
    if not wrong:
        box.cuda.memset_d8(memory, 0, ENTRY)
    box.cuda.memcpy_dtoh(array, memory)


@case("never-written")
def running_on_what_was_written_in_part(box: Box, wrong: bool) -> None:
    runner = Runner(box, 2)
    half = box.cuda.mem_alloc(2 * ENTRY)
    box.cuda.memset_d8(half, 0, ENTRY if wrong else 2 * ENTRY)
    box.cuda.Context.synchronize()
    runner.context.set_tensor_address("x", int(half))
    assert runner.start()
    runner.stream.synchronize()


@case("never-written")
def the_exception_was_swallowed(box: Box, wrong: bool) -> None:
    """The end of the emulator tells all the same."""
    try:
        reading = box.cuda.mem_alloc(ENTRY)
        if not wrong:
            box.cuda.memset_d8(reading, 0, ENTRY)
        box.cuda.memcpy_dtoh(np.empty(WIDTH, np.float32), reading)
    except RuleBroken:
        pass


@case("wrong-type")
def doubles_for_floats(box: Box, wrong: bool) -> None:
    runner = Runner(box)
    box.cuda.memcpy_htod(runner.input, np.zeros(WIDTH // 2, np.float64) if wrong else np.zeros(WIDTH, np.float32))
    box.cuda.Context.synchronize()
    assert runner.start()
    runner.stream.synchronize()


@case("wrong-type")
def an_output_read_as_integers(box: Box, wrong: bool) -> None:
    runner = Runner(box)
    assert runner.start()
    runner.stream.synchronize()
    box.cuda.memcpy_dtoh(np.empty(WIDTH, np.int32 if wrong else np.float32), runner.output)


@case("not-page-locked")
def an_asynchronous_copy_of_ordinary_memory(box: Box, wrong: bool) -> None:
    stream, memory = box.cuda.Stream(), box.cuda.mem_alloc(ENTRY)
    source = np.ones((1, WIDTH), np.float32) if wrong else box.pinned()
    box.cuda.memcpy_htod_async(memory, source, stream)
    stream.synchronize()


@case("not-page-locked")
def an_asynchronous_copy_into_ordinary_memory(box: Box, wrong: bool) -> None:
    stream, memory = box.cuda.Stream(), box.filled()
    target = np.ones((1, WIDTH), np.float32) if wrong else box.pinned()
    box.cuda.memcpy_dtoh_async(target, memory, stream)
    stream.synchronize()


@case("source-changed")
def a_source_used_again_too_early(box: Box, wrong: bool) -> None:
    stream, memory, pinned = box.cuda.Stream(), box.cuda.mem_alloc(ENTRY), box.pinned()
    box.cuda.memcpy_htod_async(memory, pinned, stream)
    if not wrong:
        stream.synchronize()
    pinned[:] = 5
    stream.synchronize()


@case("unknown-handle")
def a_stream_that_is_no_more(box: Box, wrong: bool) -> None:
    runner, other = Runner(box), box.cuda.Stream()
    handle = other.handle
    if wrong:
        del other
    assert runner.context.execute_async_v3(handle)
    box.cuda.Context.synchronize()
