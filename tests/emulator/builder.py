"""The emulated builder: a parsed network and a configuration become a plan, with a log that says what is in it."""

import hashlib
import json
from typing import Any

from emulator.common import IHostMemory, ILogger, Managed
from emulator.device import DeviceState
from emulator.dump import layer_lines, layers_of
from emulator.enums import (
    BuilderFlag,
    NetworkDefinitionCreationFlag,
    ProfilingVerbosity,
    Severity,
)
from emulator.machine import current_machine
from emulator.network import INetworkDefinition
from emulator.plan import Plan, Tensor
from emulator.settings import IBuilderConfig, IOptimizationProfile
from emulator.sizes import activation_bytes

__all__ = ["Builder"]


class Builder(Managed):
    """Builds for the device that is current in this thread, or for device 0, as CUDA's runtime library has it."""

    def __init__(self, logger: ILogger) -> None:
        machine = current_machine()
        if not machine.devices:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        stack = machine.stack()
        self._device: DeviceState = stack[-1]._device if stack else machine.devices[0]
        if machine.fails("Builder", self._device.index):
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    logger = property(lambda self: self._logger)

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        if not flags >> int(NetworkDefinitionCreationFlag.STRONGLY_TYPED) & 1:
            self._logger.log(Severity.WARNING, "The network is weakly typed: its types are TensorRT's to choose.")
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig(self._device, self._logger)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> Any:
        if current_machine().fails("build_serialized_network", self._device.index):
            return self._failed("Internal Error (could not find any implementation for a node)")
        if network._model is None:
            return self._failed("Network must have at least one output.")
        problem = _profile_problem(network, config)
        if problem:
            return self._failed(problem)
        layers = layers_of(network)
        if not _measured(layers, network, config):
            return self._failed("The build was cancelled by the progress monitor.")
        plan = self._plan(network, config, layers)
        if config.profiling_verbosity == ProfilingVerbosity.DETAILED:
            self._logger.log(Severity.VERBOSE, layer_lines(layers))
        self._logger.log(
            Severity.INFO, f"Total Activation Memory: {activation_bytes(plan.tensors, plan.profiles)} bytes"
        )
        return IHostMemory(plan.to_bytes(network._model.SerializeToString()))

    def _plan(self, network: INetworkDefinition, config: IBuilderConfig, layers: list[dict[str, Any]]) -> Plan:
        ends = [(t, True) for t in network._inputs] + [(t, False) for t in network._outputs]
        device = self._device.config
        return Plan(
            name=network.name,
            version=current_machine().version,
            device=device.name,
            capability=device.capability,
            multiprocessors=device.multiprocessors,
            tensors=[Tensor(tensor.name, is_input, tensor.dtype.name, list(tensor.shape)) for tensor, is_input in ends],
            profiles=[
                {name: [list(shape) for shape in shapes] for name, shapes in profile._shapes.items()}
                for profile in config._profiles
            ],
            layers=layers,
            verbosity=config.profiling_verbosity.name,
            hardware_compatibility=config.hardware_compatibility_level.name,
            flags=[flag.name for flag in BuilderFlag if config.get_flag(flag)],
        )

    def _failed(self, words: str) -> Any:
        self._logger.log(Severity.ERROR, words)
        return None


def _profile_problem(network: INetworkDefinition, config: IBuilderConfig) -> str | None:
    """Why the profiles do not fit the network's inputs."""
    free = [tensor for tensor in network._inputs if -1 in tuple(tensor.shape)]
    if free and not config._profiles:
        return "Network has dynamic or shape inputs, but no optimization profile has been defined."
    for profile in config._profiles:
        for tensor in free:
            if tensor.name not in profile._shapes:
                return f"The optimization profile lacks the dynamic input {tensor.name}."
        for tensor in network._inputs:
            for shape in profile._shapes.get(tensor.name, []):
                fits = len(shape) == len(tensor.shape) and all(
                    want in (-1, size) for want, size in zip(tensor.shape, shape, strict=True)
                )
                if not fits:
                    return f"The profile's {shape} of {tensor.name} does not fit its {tuple(tensor.shape)}."
    return None


def _measured(layers: list[dict[str, Any]], network: INetworkDefinition, config: IBuilderConfig) -> bool:
    """Tell the progress monitor of each layer, and put it into the timing cache; False where the monitor says stop."""
    monitor, phase, tactics = config.progress_monitor, "Building Engine", "Computing tactics"
    go_on = True
    if monitor is not None:
        monitor.phase_start(phase, None, 2)
        monitor.phase_start(tactics, phase, max(1, len(layers)))
    for step, layer in enumerate(layers):
        if config._cache is not None:
            facts = json.dumps([layer["kind"], layer["inputs"], layer["outputs"]])
            config._cache._keys.add(hashlib.sha256(facts.encode()).hexdigest())
        if monitor is not None and not monitor.step_complete(tactics, step):
            go_on = False
            break
    if monitor is not None:
        monitor.phase_finish(tactics)
        go_on = monitor.step_complete(phase, 0) and go_on
        monitor.phase_finish(phase)
    return go_on
