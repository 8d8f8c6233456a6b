"""Rules of contexts, and of cleaning up: each script is wrong in one thing, or right."""

import ctypes
import gc
import warnings
from typing import Any

from emulator.samples import Box, Runner, case, in_thread


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
