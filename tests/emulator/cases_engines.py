"""Rules of TensorRT's contexts and engines."""

import threading
import time

import numpy as np

from emulator.samples import ENTRY, WIDTH, Box, Runner, case, in_thread


@case("two-threads")
def one_context_in_two_threads(box: Box, wrong: bool) -> None:
    """While one thread is in a call of the context, another calls it."""
    runner, own = Runner(box), box.cuda.Context.get_current()
    other = Runner(box, engine=runner.engine)
    target = runner if wrong else other
    running = threading.Event()

    def work() -> None:
        own.push()
        running.set()
        end = time.monotonic() + 5
        while time.monotonic() < end and not box.emulator.violations and running.is_set():
            target.context.set_input_shape("x", (1, WIDTH))
        own.pop()

    thread = threading.Thread(target=lambda: in_thread(work))
    thread.start()
    running.wait()
    try:
        for _ in range(200 if wrong else 20):
            runner.context.set_input_shape("x", (1, WIDTH))
    finally:
        running.clear()
        thread.join()


@case("wrong-device", devices=2)
def an_engine_under_another_device(box: Box, wrong: bool) -> None:
    engine = box.engine()
    if not wrong:
        engine.create_execution_context()
    with box.device(1):
        if wrong:
            engine.create_execution_context()


@case("wrong-device", devices=2)
def an_engine_that_was_deserialised_elsewhere(box: Box, wrong: bool) -> None:
    """Without a word, an engine lands on the device that is current."""
    plan = box.build()
    with box.device(1):
        memory = box.filled()
        runner = Runner(box, engine=box.engine(plan))
        if wrong:
            with box.device(0):
                runner.context.set_tensor_address("x", int(memory))
                runner.start()
        assert runner.start()
        runner.stream.synchronize()
        memory.free()
        del runner


@case("wrong-device", devices=2)
def an_input_on_another_device(box: Box, wrong: bool) -> None:
    runner = Runner(box)
    with box.device(1):
        far = box.filled()
        if wrong:
            runner.context.set_tensor_address("x", int(far))
            with box.device(0):
                runner.start()
        far.free()
    assert runner.start()
    runner.stream.synchronize()


@case("wrong-device", devices=2)
def an_execution_on_another_devices_stream(box: Box, wrong: bool) -> None:
    runner = Runner(box)
    with box.device(1):
        far = box.cuda.Stream()
        with box.device(0):
            assert runner.start(far if wrong else None)
            runner.stream.synchronize()


@case("unset-shape")
def no_shape(box: Box, wrong: bool) -> None:
    runner = Runner(box)
    fresh = runner.engine.create_execution_context()
    if not wrong:
        fresh.set_input_shape("x", (1, WIDTH))
    fresh.set_tensor_address("x", int(runner.input))
    fresh.set_tensor_address("y", int(runner.output))
    assert fresh.execute_async_v3(runner.stream.handle)
    runner.stream.synchronize()


@case("unset-shape")
def memory_for_no_shape(box: Box, wrong: bool) -> None:
    strategy = box.trt.ExecutionContextAllocationStrategy.USER_MANAGED
    context = box.engine().create_execution_context(strategy)
    if not wrong:
        context.set_input_shape("x", (1, WIDTH))
    assert context.update_device_memory_size_for_shapes() == 4 * ENTRY


@case("wrong-shape")
def another_number_of_axes(box: Box, wrong: bool) -> None:
    Runner(box).context.set_input_shape("x", (1, WIDTH, 1) if wrong else (1, WIDTH))


@case("wrong-shape")
def another_size_of_a_fixed_axis(box: Box, wrong: bool) -> None:
    Runner(box).context.set_input_shape("x", (1, WIDTH + wrong))


@case("profile-range")
def too_many_entries(box: Box, wrong: bool) -> None:
    assert Runner(box).context.set_input_shape("x", (5 if wrong else 4, WIDTH))


@case("no-such-profile")
def a_profile_that_is_not_there(box: Box, wrong: bool) -> None:
    runner = Runner(box)
    assert runner.context.set_optimization_profile_async(int(wrong), runner.stream.handle)


@case("unknown-tensor")
def an_input_of_another_name(box: Box, wrong: bool) -> None:
    Runner(box).context.set_tensor_address("z" if wrong else "x", 0)


@case("unknown-tensor")
def a_shape_for_an_output(box: Box, wrong: bool) -> None:
    Runner(box).context.set_input_shape("y" if wrong else "x", (1, WIDTH))


@case("default-stream")
def running_on_the_default_stream(box: Box, wrong: bool) -> None:
    runner = Runner(box)
    assert runner.context.execute_async_v3(0 if wrong else runner.stream.handle)
    runner.stream.synchronize()


@case("destroyed-in-use")
def a_context_destroyed_while_it_runs(box: Box, wrong: bool) -> None:
    runner = Runner(box)
    assert runner.start()
    if not wrong:
        runner.stream.synchronize()
    runner.context = None
    runner.stream.synchronize()


@case("destroyed-too-early", keep_parents=False)
def the_runtime_before_its_engine(box: Box, wrong: bool) -> None:
    plan, runtime = box.build(), box.trt.Runtime(box.logger())
    engine = runtime.deserialize_cuda_engine(plan)
    if wrong:
        del runtime
    assert engine.num_io_tensors == 2
    del engine


@case("destroyed-too-early", keep_parents=False)
def the_engine_before_its_context(box: Box, wrong: bool) -> None:
    plan, runtime = box.build(), box.trt.Runtime(box.logger())
    engine = runtime.deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    if wrong:
        del engine
    assert context.set_input_shape("x", (1, WIDTH))
    del context
    if not wrong:
        del engine


@case("never-written")
def context_memory_holds_nothing_after_a_run(box: Box, wrong: bool) -> None:
    """What an execution leaves in its activation memory is nobody's."""
    runner = Runner(box)
    box.cuda.memset_d8(runner.memory, 0, ENTRY)
    box.cuda.Context.synchronize()
    if wrong:
        assert runner.start()
        runner.stream.synchronize()
    box.cuda.memcpy_dtoh(np.empty(WIDTH, np.float32), runner.memory)
