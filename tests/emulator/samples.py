"""What the emulator's own tests share: a tiny plan, y = 2x + 1 for x [n, 64] float32, and the objects to run it."""

import functools
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from emulator import EmulatedDevice, Emulator

__all__ = ["CASES", "Box", "Case", "Collector", "Runner", "affine_onnx", "case", "in_thread"]

WIDTH = 64
ENTRY = 4 * WIDTH
MOST = 4


@functools.cache
def affine_onnx() -> bytes:
    """An ONNX model named `affine`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])
    weights = [numpy_helper.from_array(np.array(v, np.float32), name) for v, name in ((2, "two"), (1, "one"))]
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["twice"], name="multiply"),
        helper.make_node("Add", ["twice", "one"], ["y"], name="add"),
    ]
    graph = helper.make_graph(nodes, "affine", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@dataclass
class Case:
    """A script that breaks `rule` where it is told to be wrong, and does the same rightly where not."""

    rule: str
    script: Callable[["Box", bool], None]
    devices: int
    bare: bool
    options: dict[str, Any]

    def run(self, wrong: bool) -> None:
        """Run it in an emulator of its own, in a thread that has device 0's context, but for `bare` ones."""
        with Emulator([EmulatedDevice()] * self.devices, **self.options) as emulator:
            box = Box(emulator)
            if self.bare:
                self.script(box, wrong)
            else:
                box.init()
                with box.device():
                    self.script(box, wrong)


CASES: list[Case] = []


def case(
    rule: str, devices: int = 1, bare: bool = False, **options: Any
) -> Callable[[Callable[["Box", bool], None]], None]:
    """Add the function to the cases of `rule`."""

    def add(script: Callable[["Box", bool], None]) -> None:
        CASES.append(Case(rule, script, devices, bare, options))

    return add


class Collector:
    """Mixed with ILogger: keeps what TensorRT says."""

    messages: list[str]

    def log(self, severity: Any, message: str) -> None:
        self.messages.append(message)


class Box:
    """The stand-ins at hand, as production code imports them."""

    def __init__(self, emulator: Emulator) -> None:
        import pycuda.driver
        import tensorrt

        self.emulator: Emulator = emulator
        self.cuda: Any = pycuda.driver
        self.trt: Any = tensorrt
        self.libcuda: Any = emulator.libcuda
        self._kept: dict[int, Any] = {}

    def init(self) -> None:
        self.cuda.init()

    @contextmanager
    def device(self, index: int = 0) -> Iterator[Any]:
        """The device's context, current in this thread; detached at the end, when all in it must be gone."""
        context = self.cuda.Device(index).retain_primary_context()
        context.push()
        try:
            yield context
        finally:
            self.cuda.Context.pop()
            context.detach()

    @contextmanager
    def use(self, index: int) -> Iterator[Any]:
        """The device's context, current in this thread for a while; it is kept until `end`."""
        if index not in self._kept:
            self._kept[index] = self.cuda.Device(index).retain_primary_context()
        self._kept[index].push()
        try:
            yield self._kept[index]
        finally:
            self.cuda.Context.pop()

    def end(self) -> None:
        """Detach what `use` kept. All that was made must be gone."""
        if len(self.emulator.alive()) > len(self._kept):
            gc.collect()
        while self._kept:
            self._kept.popitem()[1].detach()

    def logger(self) -> Any:
        """A logger that keeps `messages`."""
        kind = type("Kept", (Collector, self.trt.ILogger), {})
        made = kind()
        made.messages = []
        return made

    def build(self, logger: Any = None, most: int = MOST, model: bytes | None = None, **settings: Any) -> Any:
        """The plan of a model, by the emulated builder; `settings` are set on the configuration."""
        trt, logger = self.trt, logger or self.logger()
        builder = trt.Builder(logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger)
        assert parser.parse(model or affine_onnx()), [parser.get_error(i).desc() for i in range(parser.num_errors)]
        config = builder.create_builder_config()
        for name, value in settings.items():
            setattr(config, name, value)
        profile = builder.create_optimization_profile()
        for i in range(network.num_inputs):
            tail = tuple(network.get_input(i).shape)[1:]
            profile.set_shape(network.get_input(i).name, (1, *tail), (1, *tail), (most, *tail))
        assert config.add_optimization_profile(profile) == 0
        return builder.build_serialized_network(network, config)

    def engine(self, plan: Any = None) -> Any:
        """The engine of the tiny plan, on the device that is current."""
        engine = self.trt.Runtime(self.logger()).deserialize_cuda_engine(plan or self.build())
        assert engine is not None
        return engine

    def pinned(self, count: int = 1, value: float = 1.0) -> NDArray[np.float32]:
        array: NDArray[np.float32] = self.cuda.pagelocked_empty((count, WIDTH), np.float32)
        array[:] = value
        return array

    def free_of(self, pinned: Any) -> Callable[[], None]:
        """What frees a page-locked array."""
        free: Callable[[], None] = pinned.base.free
        return free

    def filled(self, count: int = 1, value: float = 1.0) -> Any:
        """Device memory of `count` entries that hold `value`, known to be there."""
        memory = self.cuda.mem_alloc(count * ENTRY)
        self.cuda.memcpy_htod(memory, np.full((count, WIDTH), value, np.float32))
        self.cuda.Context.synchronize()
        return memory


class Runner:
    """A context of the tiny plan with input, output, activation memory and a stream: `start()` enqueues it."""

    def __init__(self, box: Box, count: int = 1, engine: Any = None, stream: Any = None) -> None:
        self.box, self.count = box, count
        self.engine = engine or box.engine()
        strategy = box.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self.context = self.engine.create_execution_context(strategy)
        self.stream = stream or box.cuda.Stream(1)
        self.input, self.output = box.filled(count), box.cuda.mem_alloc(count * ENTRY)
        self.bind()
        size = self.context.update_device_memory_size_for_shapes()
        self.memory = box.cuda.mem_alloc(size)
        self.context.set_device_memory(int(self.memory), size)

    def bind(self) -> None:
        assert self.context.set_input_shape("x", (self.count, WIDTH))
        assert self.context.set_tensor_address("x", int(self.input))
        assert self.context.set_tensor_address("y", int(self.output))

    def start(self, stream: Any = None) -> bool:
        return bool(self.context.execute_async_v3((stream or self.stream).handle))

    def result(self) -> NDArray[np.float32]:
        """The output, after a synchronise."""
        self.stream.synchronize()
        array = np.empty((self.count, WIDTH), np.float32)
        self.box.cuda.memcpy_dtoh(array, int(self.output))
        return array


def in_thread(work: Callable[[], object], name: str = "other") -> None:
    """Run `work` in another thread; what it raises is raised here."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name=name)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
