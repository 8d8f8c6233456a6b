"""The emulated execution context: everything that TensorRT asks of a caller is checked when work is enqueued."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from emulator.binding import ExecutionState, bound_regions
from emulator.common import Dims, Managed
from emulator.enums import Severity
from emulator.errors import Error
from emulator.inference import inference
from emulator.machine import Machine
from emulator.memory import ALIGNMENT
from emulator.plan import Tensor
from emulator.sizes import bytes_for_shapes
from emulator.streams import StreamState

if TYPE_CHECKING:
    from emulator.engine import ICudaEngine

__all__ = ["IExecutionContext"]

_IN_A_CALL = 0.0002  # seconds that a call holds the context at least, so that two threads in it meet


class IExecutionContext(Managed):
    """One execution of an engine at a time, from one thread at a time."""

    def __init__(self, state: ExecutionState, engine: "ICudaEngine") -> None:
        self._state, self._machine = state, state.engine.machine
        self._device = state.engine.device
        self._engine = engine if self._machine.keep_parents else None
        self._siblings, self._engine_gone = engine._children, engine._gone
        self._siblings.add(id(self))
        self._busy = threading.Lock()
        self._user: str = ""
        self._shapes = {t.name: tuple(t.shape) for t in state.engine.inputs()}
        self._addresses: dict[str, int] = {}
        self._memory: tuple[int, int] | None = None
        self._needed: int | None = None
        self.active_optimization_profile = 0
        self.name = ""
        self._machine.born(self, "execution context", self._device.index)

    def __repr__(self) -> str:
        return f"a context of the engine {self._state.engine.label} of device {self._device.index}"

    @property
    def engine(self) -> "ICudaEngine | None":
        return self._engine

    @property
    def all_binding_shapes_specified(self) -> bool:
        return not self.infer_shapes()

    def infer_shapes(self) -> list[str]:
        return [name for name, shape in self._shapes.items() if -1 in shape]

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        with self._call("set_optimization_profile_async") as failing:
            self._stream("set_optimization_profile_async", stream_handle)
            if failing:
                return False
            count = max(1, len(self._state.engine.plan.profiles))
            if not 0 <= profile_index < count:
                return self._refuse("no-such-profile", f"there is no profile {profile_index} among {count}")
            self.active_optimization_profile = profile_index
            return True

    def set_input_shape(self, name: str, shape: Any) -> bool:
        with self._call("set_input_shape") as failing:
            if failing:
                return self._fails("set_input_shape")
            wanted = tuple(int(d) for d in shape)
            tensor = self._state.engine.tensors.get(name)
            if tensor is None or not tensor.is_input:
                return self._refuse("unknown-tensor", f"set_input_shape: there is no input {name!r}")
            fits = len(wanted) == len(tensor.shape) and all(
                want >= 0 and size in (-1, want) for size, want in zip(tensor.shape, wanted, strict=True)
            )
            if not fits:
                return self._refuse("wrong-shape", f"set_input_shape: {name} is {tensor.shape} and was given {wanted}")
            smallest, largest = self._range(tensor)
            if not all(a <= want <= b for a, want, b in zip(smallest, wanted, largest, strict=True)):
                return self._refuse(
                    "profile-range",
                    f"set_input_shape: {wanted} of {name} is outside the profile's range {smallest} to {largest}",
                )
            if wanted != self._shapes[name]:
                self._needed = None
            self._shapes[name] = wanted
            return True

    def get_tensor_shape(self, name: str) -> Dims:
        if name in self._shapes:
            return Dims(self._shapes[name])
        if self.infer_shapes():
            return Dims(self._state.engine.tensors[name].shape)
        return Dims(self._state.engine.output_shapes(self._shapes)[name])

    def set_tensor_address(self, name: str, memory: Any) -> bool:
        with self._call("set_tensor_address") as failing:
            if failing:
                return self._fails("set_tensor_address")
            if name not in self._state.engine.tensors:
                return self._refuse("unknown-tensor", f"set_tensor_address: there is no tensor {name!r}")
            self._addresses[name] = int(memory)
            return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def update_device_memory_size_for_shapes(self) -> int:
        with self._call("update_device_memory_size_for_shapes"):
            missing = self.infer_shapes()
            if missing:
                self._refuse("unset-shape", f"update_device_memory_size_for_shapes: no shape was set for {missing}")
                return 0
            self._needed = bytes_for_shapes(self._state.engine.plan.tensors, self._shapes)
            return self._needed

    def set_device_memory(self, memory: Any, size: int) -> None:
        with self._call("set_device_memory"):
            if self._state.block is not None:
                self._refuse("not-user-managed", "set_device_memory: the context was made with memory of its own")
            if int(memory) % ALIGNMENT:
                self._refuse("misaligned", f"set_device_memory: {int(memory):#x} is no multiple of {ALIGNMENT}")
            self._memory = (int(memory), int(size))

    def execute_async_v3(self, stream_handle: int) -> bool:
        with self._call("execute_async_v3") as failing:
            self._machine.current("execute_async_v3", self._device.index)
            stream = self._stream("execute_async_v3", stream_handle)
            if failing:
                return self._fails("enqueueV3")
            if missing := self.infer_shapes():
                return self._refuse("unset-shape", f"execute_async_v3: no shape was set for {', '.join(missing)}")
            shapes = dict(self._shapes)
            key = (tuple(shapes.items()), self.active_optimization_profile)
            regions = bound_regions(self._state, shapes, self._addresses, self._memory, self._needed, self._refuse)
            if regions is None:
                return False
            if stream.capture is not None and key not in self._state.enqueued:
                stream.capture.invalid = True  # type: ignore[attr-defined]
                return self._say(
                    "execute_async_v3: capturing needs one enqueue of the same shapes before it, which sets things up"
                )
            try:
                self._machine.submit(stream, inference(self._state, shapes, regions, repr(self)))
            except Error as error:  # an earlier one, which has been told
                return self._say(f"enqueueV3: Error Code 1: Cuda Runtime ({error})")
            self._state.enqueued.add(key)
            return True

    def _range(self, tensor: Tensor) -> tuple[list[int], list[int]]:
        profiles = self._state.engine.plan.profiles
        shapes = profiles[self.active_optimization_profile].get(tensor.name) if profiles else None
        return (shapes[0], shapes[2]) if shapes else (tensor.shape, tensor.shape)

    def _stream(self, call: str, handle: Any) -> StreamState:
        machine, number = self._machine, int(handle)
        if number == 0:
            machine.ledger.broken("default-stream", f"{call} on the default stream (handle 0): use one of your own.")
            return self._device.default_stream
        for device in machine.devices:
            for stream in device.streams:
                if stream.handle == number and not stream.destroyed:
                    if device is not self._device:
                        machine.ledger.broken("wrong-device", f"{call}: {self!r} is enqueued on {stream}.")
                    return stream
        machine.ledger.broken("unknown-handle", f"{call}: {number:#x} is no stream that is alive.")
        raise AssertionError("an unknown handle cannot be tolerated")

    @contextmanager
    def _call(self, call: str) -> Iterator[bool]:
        """Around every call: one thread at a time, a live engine, a failure made on purpose."""
        if not self._busy.acquire(blocking=False):
            self._refuse(
                "two-threads",
                f"{call} in thread {threading.current_thread().name} while thread {self._user} uses the same context",
            )
            self._busy.acquire()
        try:
            self._user = threading.current_thread().name
            time.sleep(_IN_A_CALL)
            if self._engine_gone:
                self._refuse("destroyed-too-early", f"{call}: the engine was destroyed")
            if self._state.engine.generation != self._device.generation:
                self._refuse("detached-context", f"{call}: the CUDA context was released")
            yield self._machine.fails(call, self._device.index)
        finally:
            self._busy.release()

    def _refuse(self, rule: str, message: str) -> bool:
        self._machine.ledger.broken(rule, f"{self!r}: {message}.")
        return self._say(message)

    def _fails(self, call: str) -> bool:
        return self._say(f"{call}: Error Code 1: Cuda Runtime (unspecified launch failure)")

    def _say(self, message: str) -> bool:
        self._state.engine.logger.log(Severity.ERROR, message)
        return False

    def __del__(self) -> None:
        if not hasattr(self, "_memory") or self._machine.closed:
            return
        machine: Machine = self._machine
        self._siblings.discard(id(self))
        machine.dead(self)
        last = self._state.last
        broken = self._device.error is not None or self._device.lost
        if last is not None and not last.covered_by(machine.known) and not broken:
            machine.ledger.note(
                "destroyed-in-use", f"{self!r} was destroyed before the host synchronised with its work."
            )
        self._state.destroyed = True
        if self._state.block is not None and not self._state.block.freed:
            with machine.lock:
                self._device.memory.free(self._state.block)
