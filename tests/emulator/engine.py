"""The emulated runtime and engine: a plan becomes an ONNX Runtime session that belongs to one device."""

from typing import Any

from emulator.binding import ExecutionState
from emulator.common import Dims, IHostMemory, ILogger, Managed
from emulator.device import DeviceState
from emulator.dump import inspector_json
from emulator.enums import (
    DataType,
    ExecutionContextAllocationStrategy,
    LayerInformationFormat,
    Severity,
    TensorIOMode,
    TensorLocation,
)
from emulator.execution import IExecutionContext
from emulator.machine import Machine, current_machine
from emulator.plan import Plan, Tensor, plan_from_bytes
from emulator.session import EngineState
from emulator.sizes import activation_bytes

__all__ = ["EngineInspector", "ICudaEngine", "Runtime"]


class Runtime(Managed):
    """Deserialises plans. With `Emulator(keep_parents=False)` it must outlive its engines, as in C++."""

    def __init__(self, logger: ILogger) -> None:
        self._machine = current_machine()
        if not self._machine.devices or self._machine.enter("Runtime"):
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger
        self._gone: list[bool] = []
        self._children: set[int] = set()
        self.engine_host_code_allowed = False

    logger = property(lambda self: self._logger)

    def deserialize_cuda_engine(self, serialized_engine: Any) -> "ICudaEngine | None":
        machine = self._machine
        stack = machine.stack()
        device = stack[-1]._device if stack else machine.devices[0]  # device 0 is current where nothing was said
        failing = machine.fails("deserialize_cuda_engine", device.index)
        plan = self._readable(bytes(memoryview(serialized_engine)))
        if plan is None or failing:
            return None
        problem = _refusal(plan[0], device, machine, self.engine_host_code_allowed)
        if problem is not None:
            self._logger.log(Severity.ERROR, problem)
            return None
        return ICudaEngine(EngineState(plan[0], plan[1], device, machine, self._logger), self)

    def _readable(self, data: bytes) -> tuple[Plan, bytes] | None:
        try:
            return plan_from_bytes(data)
        except ValueError as error:
            self._logger.log(
                Severity.ERROR,
                f"Error Code 1: Serialization (Serialization assertion failed: {error} of the engine plan does not "
                "match)",
            )
            return None

    def __del__(self) -> None:
        if getattr(self, "_children", None) and not self._machine.closed:
            self._gone.append(True)
            self._machine.ledger.note("destroyed-too-early", "A Runtime was destroyed before the engines it made.")


def _refusal(plan: Plan, device: DeviceState, machine: Machine, host_code: bool) -> str | None:
    """Why this device and this version do not take the plan, in TensorRT's words."""
    here, built = device.config.capability, plan.capability
    compatible = "VERSION_COMPATIBLE" in plan.flags
    if compatible and not host_code:
        return (
            "Error Code 1: Serialization (The plan holds a lean runtime, which is code for the host, and "
            "engine_host_code_allowed is not set.)"
        )
    if plan.version != machine.version and not compatible:
        return (
            "Error Code 1: Serialization (Version tag does not match. Note: Current Version: "
            f"{machine.version}, Serialized Engine Version: {plan.version})"
        )
    if plan.hardware_compatibility == "AMPERE_PLUS" and float(here) >= 8.0:
        return None
    if here != built:
        return (
            "Error Code 6: API Usage Error (The engine plan file is generated on an incompatible device, expecting "
            f"compute {here} got compute {built}, please rebuild.)"
        )
    if plan.hardware_compatibility == "NONE" and device.config.multiprocessors < plan.multiprocessors:
        return (
            "Error Code 6: API Usage Error (The engine plan file is generated on a device with "
            f"{plan.multiprocessors} multiprocessors and this one has {device.config.multiprocessors}, please rebuild.)"
        )
    return None


class ICudaEngine(Managed):
    """An engine on the device that was current when it was deserialised. It keeps its runtime alive, as pybind11's
    keep_alive does in the real bindings, unless the emulator was told `keep_parents=False`.
    """

    def __init__(self, state: EngineState, runtime: Runtime) -> None:
        self._state, self._machine = state, state.machine
        self._runtime = runtime if state.machine.keep_parents else None
        self._siblings, self._runtime_gone = runtime._children, runtime._gone
        self._siblings.add(id(self))
        self._children: set[int] = set()
        self._gone: list[bool] = []
        self._machine.born(self, "engine", state.device.index)

    def __repr__(self) -> str:
        return f"the engine {self._state.label} of device {self._state.device.index}"

    num_io_tensors = property(lambda self: len(self._alive("num_io_tensors").plan.tensors))
    num_layers = property(lambda self: len(self._alive("num_layers").plan.layers))
    num_optimization_profiles = property(lambda self: max(1, len(self._alive("profiles").plan.profiles)))
    name = property(lambda self: self._alive("name").plan.name)

    @property
    def device_memory_size_v2(self) -> int:
        plan = self._alive("device_memory_size_v2").plan
        return activation_bytes(plan.tensors, plan.profiles)

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        plan = self._alive("get_device_memory_size_for_profile_v2").plan
        return activation_bytes(plan.tensors, plan.profiles, profile_index)

    def get_tensor_name(self, index: int) -> str:
        return self._alive("get_tensor_name").plan.tensors[index].name

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        tensor = self._alive("get_tensor_mode").tensors.get(name)
        if tensor is None:
            return TensorIOMode.NONE
        return TensorIOMode.INPUT if tensor.is_input else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self._tensor(name).dtype]

    def get_tensor_shape(self, name: str) -> Dims:
        return Dims(self._tensor(name).shape)

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        tensor = self._tensor(name)
        profiles = self._state.plan.profiles
        shapes = profiles[profile_index].get(name) if profiles else None
        return [Dims(shape) for shape in shapes or [tensor.shape] * 3]

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC
    ) -> IExecutionContext | None:
        state, machine = self._alive("create_execution_context"), self._machine
        machine.current("create_execution_context", state.device.index)
        if machine.fails("create_execution_context", state.device.index):
            return None
        block = None
        if strategy != ExecutionContextAllocationStrategy.USER_MANAGED:
            with machine.lock:
                block = state.device.memory.allocate(max(256, self.device_memory_size_v2), "a context's own memory")
            if block is None:
                state.logger.log(Severity.ERROR, "Error Code 2: OutOfMemory (Requested size was not available)")
                return None
        return IExecutionContext(ExecutionState(state, block), self)

    def create_engine_inspector(self) -> "EngineInspector":
        return EngineInspector(self)

    def serialize(self) -> Any:
        state = self._alive("serialize")
        return IHostMemory(state.plan.to_bytes(state.graph))

    def _tensor(self, name: str) -> Tensor:
        tensor = self._alive("tensor").tensors.get(name)
        if tensor is None:
            self._machine.ledger.broken("unknown-tensor", f"{self!r} has no tensor {name!r}.")
            raise AssertionError("an unknown tensor cannot be tolerated")
        return tensor

    def _alive(self, call: str) -> EngineState:
        if self._runtime_gone:
            self._machine.ledger.broken("destroyed-too-early", f"{call}: the Runtime of {self!r} was destroyed.")
        if self._state.generation != self._state.device.generation:
            self._machine.ledger.broken("detached-context", f"{call}: the context of {self!r} was released.")
        return self._state

    def __del__(self) -> None:
        if not hasattr(self, "_gone") or self._machine.closed:
            return
        self._siblings.discard(id(self))
        self._machine.dead(self)
        if self._children:
            self._gone.append(True)
            self._machine.ledger.note("destroyed-too-early", f"{self!r} was destroyed before its contexts.")


class EngineInspector:
    """Tells of an engine's layers."""

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self.execution_context: IExecutionContext | None = None

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        plan = self._engine._alive("get_engine_information").plan
        names = [tensor.name for tensor in plan.tensors]
        return inspector_json(plan.layers, names, plan.verbosity == "DETAILED")

    def get_layer_information(self, layer_index: int, format: LayerInformationFormat) -> str:
        plan = self._engine._alive("get_layer_information").plan
        return inspector_json([plan.layers[layer_index]], [], plan.verbosity == "DETAILED")
