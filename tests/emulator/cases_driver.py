"""Rules of the driver and of pycuda: each script is wrong in one thing, or right."""

import ctypes
import gc
import warnings
from typing import Any

import numpy as np

from emulator.rules import RuleBroken
from emulator.samples import ENTRY, WIDTH, Box, Runner, case, in_thread


@case("after-close", bare=True)
def a_call_after_the_end(box: Box, wrong: bool) -> None:
    box.init()
    if wrong:
        try:
            box.emulator.close()
        finally:
            box.cuda.mem_get_info()


@case("not-initialised", bare=True)
def a_device_before_init(box: Box, wrong: bool) -> None:
    if not wrong:
        box.init()
    box.cuda.Device(0)


@case("not-initialised", bare=True)
def a_count_before_init(box: Box, wrong: bool) -> None:
    if not wrong:
        assert box.libcuda.cuInit(0) == 0
    count = ctypes.c_int()
    assert box.libcuda.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value == 1


@case("no-context", bare=True)
def memory_without_context(box: Box, wrong: bool) -> None:
    box.init()
    if wrong:
        box.cuda.mem_alloc(16)
    with box.device():
        box.cuda.mem_alloc(16).free()


@case("no-context")
def a_stream_in_a_thread_that_pushed_nothing(box: Box, wrong: bool) -> None:
    context, stream = box.cuda.Context.get_current(), box.cuda.Stream()

    def work() -> None:
        if not wrong:
            context.push()
        stream.synchronize()
        if not wrong:
            context.pop()

    in_thread(work)


@case("no-context")
def running_in_a_thread_that_pushed_nothing(box: Box, wrong: bool) -> None:
    context, runner = box.cuda.Context.get_current(), Runner(box)

    def work() -> None:
        if not wrong:
            context.push()
        assert runner.start()
        if not wrong:
            runner.stream.synchronize()
            context.pop()

    in_thread(work)


@case("second-context", bare=True)
def make_context(box: Box, wrong: bool) -> None:
    box.init()
    device = box.cuda.Device(0)
    if wrong:
        device.make_context()
    device.retain_primary_context().detach()


@case("second-context", bare=True)
def autoinit(box: Box, wrong: bool) -> None:
    if wrong:
        import pycuda.autoinit
    import pycuda.driver

    assert pycuda.driver


@case("unbalanced-pop", bare=True)
def pop_without_push(box: Box, wrong: bool) -> None:
    box.init()
    context = box.cuda.Device(0).retain_primary_context()
    if not wrong:
        context.push()
    box.cuda.Context.pop()
    context.detach()


@case("detached-context", bare=True)
def push_after_detach(box: Box, wrong: bool) -> None:
    box.init()
    context = box.cuda.Device(0).retain_primary_context()
    if wrong:
        context.detach()
    context.push()
    box.cuda.Context.pop()
    context.detach()


@case("detached-while-pushed", bare=True)
def detach_under_another_thread(box: Box, wrong: bool) -> None:
    box.init()
    context = box.cuda.Device(0).retain_primary_context()

    def work() -> None:
        context.push()
        if not wrong:
            context.pop()

    in_thread(work)
    context.detach()


@case("out-of-thread-cleanup")
def free_in_another_thread(box: Box, wrong: bool) -> None:
    context, memory = box.cuda.Context.get_current(), box.cuda.mem_alloc(16)

    def work() -> None:
        if not wrong:
            context.push()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            memory.free()
        if not wrong:
            context.pop()

    in_thread(work)


@case("out-of-thread-cleanup")
def free_under_another_retain(box: Box, wrong: bool) -> None:
    """pycuda compares its own objects, not the driver's contexts: a second retain in another thread does not help."""
    context, memory = box.cuda.Context.get_current(), box.cuda.mem_alloc(16)

    def work() -> None:
        again = box.cuda.Device(0).retain_primary_context()
        (again if wrong else context).push()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            memory.free()
        box.cuda.Context.pop()
        again.detach()

    in_thread(work)


@case("out-of-thread-cleanup")
def a_stream_that_goes_in_another_thread(box: Box, wrong: bool) -> None:
    streams = [box.cuda.Stream()]
    if not wrong:
        streams.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        in_thread(streams.clear)


@case("released-too-early", bare=True)
def the_context_before_its_memory(box: Box, wrong: bool) -> None:
    box.init()
    context = box.cuda.Device(0).retain_primary_context()
    context.push()
    memory = box.cuda.mem_alloc(16)
    if not wrong:
        memory.free()
    context.detach()


@case("released-too-early", bare=True)
def the_context_before_its_engine(box: Box, wrong: bool) -> None:
    box.init()
    context = box.cuda.Device(0).retain_primary_context()
    context.push()
    engine = box.engine()
    if not wrong:
        del engine
    context.detach()


@case("leak", bare=True)
def memory_never_freed(box: Box, wrong: bool) -> None:
    _keep(box, wrong, lambda: box.cuda.mem_alloc(16))


@case("leak", bare=True)
def pinned_memory_never_freed(box: Box, wrong: bool) -> None:
    _keep(box, wrong, lambda: box.pinned())


@case("leak", bare=True)
def a_stream_never_freed(box: Box, wrong: bool) -> None:
    _keep(box, wrong, lambda: box.cuda.Stream())


@case("leak", bare=True)
def an_event_never_freed(box: Box, wrong: bool) -> None:
    _keep(box, wrong, lambda: box.cuda.Event())


@case("leak", bare=True)
def an_engine_never_freed(box: Box, wrong: bool) -> None:
    _keep(box, wrong, box.engine)


@case("leak", bare=True)
def a_context_never_freed(box: Box, wrong: bool) -> None:
    engine = []

    def make() -> Any:
        engine.append(box.engine())
        return engine.pop().create_execution_context()

    _keep(box, wrong, make)


_KEPT: list[Any] = []


def _keep(box: Box, wrong: bool, make: Any) -> None:
    """Make something that lives on with its context, or goes before it."""
    _KEPT.clear()
    box.init()
    context = box.cuda.Device(0).retain_primary_context()
    context.push()
    thing = make()
    if wrong:
        _KEPT.append(context)
        _KEPT.append(thing)
    else:
        del thing
        gc.collect()
    context.pop()
    if not wrong:
        context.detach()


@case("leak", bare=True)
def a_thread_that_ends_with_its_context_pushed(box: Box, wrong: bool) -> None:
    box.init()
    context = box.cuda.Device(0).retain_primary_context()
    _KEPT[:] = [context]

    def work() -> None:
        context.push()
        if not wrong:
            context.pop()

    in_thread(work)
    if not wrong:
        context.detach()


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
