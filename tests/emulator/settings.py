"""What a build is told: profiles, a timing cache, a progress monitor, and the configuration that holds them."""

import json
from typing import Any

from emulator.common import Dims, IHostMemory, ILogger, Managed
from emulator.device import DeviceState
from emulator.enums import BuilderFlag, HardwareCompatibilityLevel, MemoryPoolType, ProfilingVerbosity, Severity
from emulator.machine import current_machine

__all__ = ["IBuilderConfig", "IOptimizationProfile", "IProgressMonitor", "ITimingCache"]

_HIGHEST_LEVEL = 5


class IProgressMonitor:
    """Subclass it; `step_complete` that gives False stops the build."""

    def __init__(self) -> None:
        pass

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError("Tried to call pure virtual function IProgressMonitor::phaseStart")

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError("Tried to call pure virtual function IProgressMonitor::stepComplete")

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError("Tried to call pure virtual function IProgressMonitor::phaseFinish")


class IOptimizationProfile:
    """Smallest, best and largest shape of each input."""

    def __init__(self) -> None:
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        shapes = [tuple(shape) for shape in (min, opt, max)]
        if len({len(shape) for shape in shapes}) > 1 or not all(
            0 <= a <= b <= c for a, b, c in zip(*shapes, strict=False)
        ):
            raise ValueError(f"The shapes of {input} are not in rising order: {shapes}")
        self._shapes[input] = shapes

    def get_shape(self, input: str) -> list[Dims]:
        return [Dims(shape) for shape in self._shapes.get(input, [])]


class ITimingCache:
    """What was measured: a list of keys, bound to a TensorRT version and a GPU."""

    def __init__(self, header: dict[str, str], keys: set[str]) -> None:
        self._header, self._keys = header, keys

    def serialize(self) -> Any:
        return IHostMemory(json.dumps({**self._header, "keys": sorted(self._keys)}).encode())

    def combine(self, input_cache: "ITimingCache", ignore_mismatch: bool) -> bool:
        if input_cache._header["version"] != self._header["version"]:
            return False
        if input_cache._header != self._header and not ignore_mismatch:
            return False
        self._keys |= input_cache._keys
        return True

    def reset(self) -> bool:
        self._keys.clear()
        return True


class IBuilderConfig(Managed):
    """How to build."""

    def __init__(self, device: DeviceState, logger: ILogger) -> None:
        self._device, self._logger = device, logger
        self._profiles: list[IOptimizationProfile] = []
        self._pools: dict[MemoryPoolType, int] = {}
        self._cache: ITimingCache | None = None
        self._level = 3
        self.flags = 1 << int(BuilderFlag.TF32)
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.progress_monitor: IProgressMonitor | None = None

    num_optimization_profiles = property(lambda self: len(self._profiles))

    @property
    def builder_optimization_level(self) -> int:
        return self._level

    @builder_optimization_level.setter
    def builder_optimization_level(self, level: int) -> None:
        self._level = min(level, _HIGHEST_LEVEL)

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags |= 1 << int(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags &= ~(1 << int(flag))

    def get_flag(self, flag: BuilderFlag) -> bool:
        return bool(self.flags >> int(flag) & 1)

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self._pools[pool] = pool_size

    def get_memory_pool_limit(self, pool: MemoryPoolType) -> int:
        return self._pools.get(pool, self._device.memory.total)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if not profile._shapes:
            self._logger.log(Severity.ERROR, "The optimization profile is empty.")
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: Any) -> ITimingCache | None:
        data = bytes(memoryview(serialized_timing_cache))
        header = {"version": current_machine().version, "device": self._device.config.name}
        if not data:
            return ITimingCache(header, set())
        try:
            values = json.loads(data)
            return ITimingCache({key: values[key] for key in header}, set(values["keys"]))
        except (ValueError, KeyError, TypeError):
            self._logger.log(Severity.ERROR, "The timing cache cannot be deserialized.")
            return ITimingCache({"version": "?", "device": "?"}, set())

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache._header["version"] != current_machine().version:
            self._logger.log(Severity.ERROR, "The timing cache is of another TensorRT version.")
            return False
        if cache._header["device"] != self._device.config.name and not ignore_mismatch:
            self._logger.log(Severity.ERROR, "The timing cache is of another device.")
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache
