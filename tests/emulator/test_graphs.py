"""Captured work is not done, and replayed with the addresses of its capture."""

import ctypes

import numpy as np
import pytest

from emulator import RuleBroken
from emulator.cases_graphs import begin, capture, destroy, end, launch
from emulator.samples import ENTRY, Box, Runner, in_thread


def test_a_graph_replays_with_the_addresses_of_capture_time(box: Box) -> None:
    runner, source, target = Runner(box), box.pinned(value=1), box.pinned()
    assert runner.start()
    runner.stream.synchronize()

    def work() -> None:
        box.cuda.memcpy_htod_async(runner.input, source, runner.stream)
        assert runner.start()
        box.cuda.memcpy_dtoh_async(target, runner.output, runner.stream)

    before = len(box.emulator.timeline.spans)
    graph = capture(box, runner.stream, work)
    runner.stream.synchronize()
    assert len(box.emulator.timeline.spans) == before  # nothing of it was done
    other = box.filled(value=50)
    runner.context.set_tensor_address("x", int(other))
    for value in (10, 20):
        source[:] = value
        assert launch(box, graph, runner.stream) == 0
        runner.stream.synchronize()
        assert (target == 2 * value + 1).all()
    destroy(box, graph)


def test_a_capture_without_an_enqueue_before_it_fails_with_a_code(box: Box) -> None:
    runner = Runner(box)
    assert begin(box, runner.stream) == 0
    assert not runner.start()
    code, graph = end(box, runner.stream)
    assert code == 901 and not graph.value
    words = ctypes.c_char_p()
    assert box.libcuda.cuGetErrorString(ctypes.c_int(code), ctypes.byref(words)) == 0
    assert words.value == b"operation failed due to a previous error during capture"
    assert runner.start()  # the stream can be used again
    assert (runner.result() == 3).all()
    more, output = box.filled(2), box.cuda.mem_alloc(2 * ENTRY)
    runner.context.set_input_shape("x", (2, 64))
    runner.context.set_tensor_address("x", int(more))
    runner.context.set_tensor_address("y", int(output))
    memory = box.cuda.mem_alloc(runner.context.update_device_memory_size_for_shapes())
    runner.context.set_device_memory(int(memory), 8 * ENTRY)
    assert begin(box, runner.stream) == 0
    assert not runner.start()  # of other shapes than those that ran before
    assert end(box, runner.stream)[0] == 901


def test_codes_of_calls_that_cannot_be(box: Box) -> None:
    context = box.cuda.Context.get_current()
    stream = box.cuda.Stream(1)
    assert end(box, stream)[0] == 401
    assert box.libcuda.cuStreamBeginCapture_v2(ctypes.c_void_p(0), ctypes.c_int(1)) == 900
    assert begin(box, stream, 7) == 1
    assert begin(box, stream) == 0
    assert begin(box, stream) == 401
    codes = []

    def elsewhere() -> None:
        context.push()
        codes.append(end(box, stream)[0])
        context.pop()

    in_thread(elsewhere)
    assert codes == [908]
    code, graph = end(box, stream)
    assert code == 0 and box.libcuda.cuGraphDestroy(graph) == 0


def test_launches_of_one_graph_on_two_streams_are_in_order(box: Box) -> None:
    """No race, though no event is between them: the driver does not overlap launches of one graph."""
    runner, other = Runner(box), box.cuda.Stream(1)
    assert runner.start()
    runner.stream.synchronize()
    graph = capture(box, runner.stream, runner.start)
    assert launch(box, graph, runner.stream) == 0 and launch(box, graph, other) == 0
    other.synchronize()
    runner.stream.synchronize()
    destroy(box, graph)


def test_events_within_a_capture_are_part_of_it(box: Box) -> None:
    stream, memory, event = box.cuda.Stream(1), box.filled(), box.cuda.Event()
    target = box.pinned()

    def work() -> None:
        event.record(stream)
        stream.wait_for_event(event)
        box.cuda.memcpy_dtoh_async(target, memory, stream)

    graph = capture(box, stream, work)
    assert launch(box, graph, stream) == 0
    stream.synchronize()
    assert np.all(target == 1)
    destroy(box, graph)


def test_the_library_has_no_other_functions(box: Box) -> None:
    with pytest.raises(AttributeError, match="undefined symbol: cuNoSuchThing"):
        box.libcuda.cuNoSuchThing(0)


def test_a_capture_that_was_broken_ends_with_a_code(box: Box) -> None:
    stream = box.cuda.Stream(1)
    assert begin(box, stream) == 0
    with box.emulator.expected("allocation-in-capture"):
        box.cuda.mem_alloc(16)
    assert end(box, stream)[0] == 901
    assert begin(box, stream, 2) == 0  # relaxed: allowed
    kept = [box.cuda.mem_alloc(16)]
    code, graph = end(box, stream)
    assert code == 0 and box.libcuda.cuGraphDestroy(graph) == 0
    with pytest.raises(AssertionError, match="nothing broke"), box.emulator.expected("race"):
        pass
    assert box.emulator.violations == [] and len(kept) == 1
    assert issubclass(RuleBroken, AssertionError)
