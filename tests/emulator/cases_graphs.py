"""Rules of stream capture and graphs, through the functions that ctypes calls."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from emulator.samples import WIDTH, Box, Runner, case, in_thread


def begin(box: Box, stream: Any, mode: int = 1) -> int:
    return int(box.libcuda.cuStreamBeginCapture_v2(ctypes.c_void_p(stream.handle), ctypes.c_int(mode)))


def end(box: Box, stream: Any) -> tuple[int, ctypes.c_void_p]:
    graph = ctypes.c_void_p()
    return int(box.libcuda.cuStreamEndCapture(ctypes.c_void_p(stream.handle), ctypes.byref(graph))), graph


def capture(box: Box, stream: Any, work: Callable[[], object]) -> ctypes.c_void_p:
    """An executable graph of what `work` enqueues on the stream."""
    assert begin(box, stream) == 0
    work()
    code, graph = end(box, stream)
    assert code == 0
    executable = ctypes.c_void_p()
    assert box.libcuda.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_ulonglong(0)) == 0
    assert box.libcuda.cuGraphDestroy(graph) == 0
    return executable


def launch(box: Box, graph: ctypes.c_void_p, stream: Any) -> int:
    return int(box.libcuda.cuGraphLaunch(graph, ctypes.c_void_p(stream.handle)))


def destroy(box: Box, graph: ctypes.c_void_p) -> None:
    assert box.libcuda.cuGraphExecDestroy(graph) == 0


@case("global-capture")
def a_global_capture_beside_another_thread(box: Box, wrong: bool) -> None:
    """Another thread that has a context current breaks it by any unsafe call; one that popped it does not."""
    import threading

    stream, context = box.cuda.Stream(1), box.cuda.Context.get_current()
    pushed, over = threading.Event(), threading.Event()

    def work() -> None:
        context.push()
        pushed.set()
        over.wait(10)
        context.pop()

    thread = threading.Thread(target=work)
    thread.start()
    pushed.wait()
    try:
        assert begin(box, stream, 0 if wrong else 1) == 0
        code, graph = end(box, stream)
        assert code == 0 and box.libcuda.cuGraphDestroy(graph) == 0
    finally:
        over.set()
        thread.join()


def _in_capture(box: Box, work: Callable[[Any], object]) -> None:
    stream = box.cuda.Stream(1)
    destroy(box, capture(box, stream, lambda: work(stream)))


@case("synchronise-in-capture")
def a_device_wide_synchronise(box: Box, wrong: bool) -> None:
    """In any thread: here in another one than captures."""
    context = box.cuda.Context.get_current()

    def work() -> None:
        context.push()
        box.cuda.Context.synchronize()
        context.pop()

    _in_capture(box, lambda stream: in_thread(work) if wrong else None)


@case("synchronise-in-capture")
def synchronising_the_stream(box: Box, wrong: bool) -> None:
    _in_capture(box, lambda stream: (stream if wrong else box.cuda.Stream(1)).synchronize())


@case("synchronise-in-capture")
def asking_an_event_of_the_capture(box: Box, wrong: bool) -> None:
    event = box.cuda.Event()

    def work(stream: Any) -> None:
        event.record(stream if wrong else box.cuda.Stream(1))
        event.query()

    _in_capture(box, work)


@case("allocation-in-capture")
def allocating(box: Box, wrong: bool) -> None:
    context, made = box.cuda.Context.get_current(), []

    def allocate() -> None:
        made.append(box.cuda.mem_alloc(16))

    def elsewhere() -> None:
        context.push()
        allocate()
        context.pop()

    # thread-local mode: only the capturing thread must not
    _in_capture(box, lambda stream: allocate() if wrong else in_thread(elsewhere))
    made.clear()


@case("allocation-in-capture")
def freeing(box: Box, wrong: bool) -> None:
    memory = box.cuda.mem_alloc(16)
    _in_capture(box, lambda stream: memory.free() if wrong else None)


@case("default-stream-in-capture")
def a_synchronous_copy(box: Box, wrong: bool) -> None:
    memory, pinned = box.filled(), box.pinned()

    def work(stream: Any) -> None:
        if wrong:
            box.cuda.memcpy_htod(memory, np.zeros(WIDTH, np.float32))
        else:
            box.cuda.memcpy_htod_async(memory, pinned, stream)

    _in_capture(box, work)


@case("foreign-event-in-capture")
def an_event_from_outside(box: Box, wrong: bool) -> None:
    event = box.cuda.Event()
    event.record(box.cuda.Stream(1))

    def work(stream: Any) -> None:
        if not wrong:
            event.record(stream)
        stream.wait_for_event(event)

    _in_capture(box, work)


@case("destroyed-in-capture")
def a_stream_that_goes_while_it_is_captured(box: Box, wrong: bool) -> None:
    stream = box.cuda.Stream(1)
    assert begin(box, stream) == 0
    if not wrong:
        code, graph = end(box, stream)
        assert code == 0 and box.libcuda.cuGraphDestroy(graph) == 0


@case("truncated-handle")
def a_handle_as_a_plain_int(box: Box, wrong: bool) -> None:
    stream = box.cuda.Stream(1)
    if not wrong:
        box.libcuda.cuStreamBeginCapture_v2.argtypes = [ctypes.c_void_p, ctypes.c_int]
    assert box.libcuda.cuStreamBeginCapture_v2(stream.handle, 1) == 0
    code, graph = end(box, stream)
    assert code == 0 and box.libcuda.cuGraphDestroy(graph) == 0


@case("unknown-handle")
def a_graph_launched_after_its_end(box: Box, wrong: bool) -> None:
    stream = box.cuda.Stream(1)
    graph = capture(box, stream, lambda: None)
    if not wrong:
        assert launch(box, graph, stream) == 0
    destroy(box, graph)
    if wrong:
        launch(box, graph, stream)


@case("leak", bare=True)
def a_graph_never_destroyed(box: Box, wrong: bool) -> None:
    box.init()
    context = box.cuda.Device(0).retain_primary_context()
    context.push()
    stream = box.cuda.Stream(1)
    graph = capture(box, stream, lambda: None)
    if not wrong:
        destroy(box, graph)
    del stream
    context.pop()
    if not wrong:
        context.detach()


@case("wrong-device", devices=2)
def a_graph_on_another_device(box: Box, wrong: bool) -> None:
    stream = box.cuda.Stream(1)
    graph = capture(box, stream, lambda: None)
    with box.device(1):
        far = box.cuda.Stream(1)
        if wrong:
            launch(box, graph, far)
    assert launch(box, graph, stream) == 0
    destroy(box, graph)


@case("destroyed-in-use")
def a_graph_of_a_context_that_is_no_more(box: Box, wrong: bool) -> None:
    runner = Runner(box)
    assert runner.start()
    runner.stream.synchronize()
    graph = capture(box, runner.stream, runner.start)
    if wrong:
        runner.context = None
    assert launch(box, graph, runner.stream) == 0
    runner.stream.synchronize()
    destroy(box, graph)


@case("race")
def a_graph_beside_a_copy_into_its_input(box: Box, wrong: bool) -> None:
    runner, copies, pinned = Runner(box), box.cuda.Stream(1), box.pinned()
    assert runner.start()
    runner.stream.synchronize()
    graph = capture(box, runner.stream, runner.start)
    box.cuda.memcpy_htod_async(runner.input, pinned, copies)
    if not wrong:
        copies.synchronize()
    assert launch(box, graph, runner.stream) == 0
    runner.stream.synchronize()
    copies.synchronize()
    destroy(box, graph)
