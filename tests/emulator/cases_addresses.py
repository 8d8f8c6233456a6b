"""Rules of the addresses that TensorRT is given."""

from emulator.samples import ENTRY, WIDTH, Box, Runner, case


@case("unset-address")
def no_address(box: Box, wrong: bool) -> None:
    runner = Runner(box)
    if wrong:
        runner.context.set_tensor_address("y", 0)
    assert runner.start()
    runner.stream.synchronize()


@case("misaligned")
def an_address_between(box: Box, wrong: bool) -> None:
    runner, wide = Runner(box), box.filled(2)
    runner.context.set_tensor_address("x", int(wide) + (16 if wrong else 256))
    assert runner.start()
    runner.stream.synchronize()


@case("misaligned")
def context_memory_between(box: Box, wrong: bool) -> None:
    runner, wide = Runner(box), box.cuda.mem_alloc(8 * ENTRY)
    runner.context.set_device_memory(int(wide) + (16 if wrong else 256), 4 * ENTRY)
    assert runner.start()
    runner.stream.synchronize()


@case("overlap")
def the_output_over_the_input(box: Box, wrong: bool) -> None:
    runner = Runner(box)
    runner.context.set_tensor_address("y", int(runner.input if wrong else runner.output))
    assert runner.start()
    runner.stream.synchronize()


@case("overlap")
def context_memory_over_the_input(box: Box, wrong: bool) -> None:
    runner = Runner(box)
    both = box.filled(5)
    runner.context.set_tensor_address("x", int(both))
    runner.context.set_device_memory(int(both) + (0 if wrong else ENTRY), 4 * ENTRY)
    assert runner.start()
    runner.stream.synchronize()


@case("no-device-memory")
def no_context_memory(box: Box, wrong: bool) -> None:
    runner = Runner(box)
    strategy = box.trt.ExecutionContextAllocationStrategy
    fresh = runner.engine.create_execution_context(strategy.USER_MANAGED if wrong else strategy.STATIC)
    fresh.set_input_shape("x", (1, WIDTH))
    fresh.set_tensor_address("x", int(runner.input))
    fresh.set_tensor_address("y", int(runner.output))
    assert fresh.execute_async_v3(runner.stream.handle)
    runner.stream.synchronize()


@case("too-little-device-memory")
def context_memory_for_smaller_shapes(box: Box, wrong: bool) -> None:
    runner = Runner(box)
    more, output = box.filled(2), box.cuda.mem_alloc(2 * ENTRY)
    runner.context.set_input_shape("x", (2, WIDTH))
    runner.context.set_tensor_address("x", int(more))
    runner.context.set_tensor_address("y", int(output))
    size = runner.context.update_device_memory_size_for_shapes()
    memory = box.cuda.mem_alloc(size)
    runner.context.set_device_memory(int(runner.memory if wrong else memory), 4 * ENTRY if wrong else size)
    assert runner.start()
    runner.stream.synchronize()


@case("too-little-device-memory")
def context_memory_that_nobody_asked_the_size_of(box: Box, wrong: bool) -> None:
    """Without a question for these shapes, it is device_memory_size_v2 that is needed."""
    runner = Runner(box, 2)
    runner.context.set_input_shape("x", (1, WIDTH))
    if not wrong:
        assert runner.context.update_device_memory_size_for_shapes() == 4 * ENTRY
    assert runner.start()
    runner.stream.synchronize()


@case("not-user-managed")
def memory_for_a_context_that_has_its_own(box: Box, wrong: bool) -> None:
    strategy = box.trt.ExecutionContextAllocationStrategy
    runner = Runner(box)
    context = runner.engine.create_execution_context(strategy.STATIC if wrong else strategy.USER_MANAGED)
    context.set_device_memory(int(runner.memory), 4 * ENTRY)


@case("use-after-free")
def context_memory_freed(box: Box, wrong: bool) -> None:
    runner = Runner(box)
    if wrong:
        runner.memory.free()
    assert runner.start()
    runner.stream.synchronize()


@case("freed-in-use")
def an_input_freed_while_it_is_read(box: Box, wrong: bool) -> None:
    runner = Runner(box)
    assert runner.start()
    if not wrong:
        runner.stream.synchronize()
    runner.input.free()
    runner.stream.synchronize()
