"""Rules of order between streams: nothing here depends on which of two ran first."""

import numpy as np

from emulator.samples import ENTRY, WIDTH, Box, Runner, case


@case("race")
def two_streams_and_no_event(box: Box, wrong: bool) -> None:
    first, second, event = box.cuda.Stream(1), box.cuda.Stream(1), box.cuda.Event()
    memory, source, target = box.cuda.mem_alloc(ENTRY), box.pinned(), box.pinned()
    box.cuda.memcpy_htod_async(memory, source, first)
    event.record(first)
    if not wrong:
        second.wait_for_event(event)
    box.cuda.memcpy_dtoh_async(target, memory, second)
    second.synchronize()
    first.synchronize()


@case("race")
def two_streams_and_an_event_recorded_too_early(box: Box, wrong: bool) -> None:
    first, second, event = box.cuda.Stream(1), box.cuda.Stream(1), box.cuda.Event()
    memory, source, target = box.cuda.mem_alloc(ENTRY), box.pinned(), box.pinned()
    if wrong:
        event.record(first)
    box.cuda.memcpy_htod_async(memory, source, first)
    if not wrong:
        event.record(first)
    second.wait_for_event(event)
    box.cuda.memcpy_dtoh_async(target, memory, second)
    second.synchronize()
    first.synchronize()


@case("race")
def an_input_overwritten_while_it_is_read(box: Box, wrong: bool) -> None:
    runner, copies, pinned = Runner(box), box.cuda.Stream(1), box.pinned()
    assert runner.start()
    if not wrong:
        runner.stream.synchronize()
    box.cuda.memcpy_htod_async(runner.input, pinned, copies)
    copies.synchronize()
    runner.stream.synchronize()


@case("race")
def one_pinned_array_for_two_streams(box: Box, wrong: bool) -> None:
    streams, memory = [box.cuda.Stream(1), box.cuda.Stream(1)], box.filled(2)
    targets = [box.pinned(), box.pinned()]
    for i, stream in enumerate(streams):
        box.cuda.memcpy_dtoh_async(targets[0 if wrong else i], int(memory) + i * ENTRY, stream)
    for stream in streams:
        stream.synchronize()


@case("race")
def a_synchronous_copy_and_a_stream_that_does_not_wait(box: Box, wrong: bool) -> None:
    """A pageable source is only staged when memcpy_htod returns; streams of flag 1 do not wait for what follows."""
    stream, memory, target = box.cuda.Stream(1 if wrong else 0), box.cuda.mem_alloc(ENTRY), box.pinned()
    box.cuda.memcpy_htod(memory, np.ones(WIDTH, np.float32))
    box.cuda.memcpy_dtoh_async(target, memory, stream)
    stream.synchronize()


@case("race")
def a_fill_and_a_stream_that_does_not_wait(box: Box, wrong: bool) -> None:
    stream, memory, target = box.cuda.Stream(1), box.cuda.mem_alloc(ENTRY), box.pinned()
    if wrong:
        box.cuda.memset_d8(memory, 0, ENTRY)
    else:
        box.cuda.memset_d8_async(memory, 0, ENTRY, stream)
    box.cuda.memcpy_dtoh_async(target, memory, stream)
    stream.synchronize()


@case("shared-context-memory")
def two_contexts_in_one_block(box: Box, wrong: bool) -> None:
    one = Runner(box)
    two = Runner(box, engine=one.engine)
    size = one.context.update_device_memory_size_for_shapes()
    two.context.set_device_memory(int(one.memory if wrong else two.memory), size)
    assert one.start() and two.start()
    one.stream.synchronize()
    two.stream.synchronize()


@case("shared-context-memory")
def two_contexts_in_one_block_that_never_overlap(box: Box, wrong: bool) -> None:
    one = Runner(box)
    two = Runner(box, engine=one.engine, stream=None if wrong else one.stream)
    two.context.set_device_memory(int(one.memory), two.context.update_device_memory_size_for_shapes())
    assert one.start() and two.start()
    one.stream.synchronize()
    two.stream.synchronize()


@case("context-in-flight")
def one_context_on_two_streams(box: Box, wrong: bool) -> None:
    runner, other = Runner(box), box.cuda.Stream(1)
    assert runner.start()
    if not wrong:
        runner.stream.synchronize()
    assert runner.start(other)
    other.synchronize()
    runner.stream.synchronize()
