"""The power that a GPU draws while something runs, as NVIDIA's management library tells it."""

import importlib
import threading
from collections.abc import Callable
from types import TracebackType

from engines.backends import is_installed
from engines.machine import Gpu

__all__ = ["Power", "power_meter"]

_EVERY_S = 0.02
"""The library's own readings change no faster."""
Meter = Callable[[], float]


def power_meter(gpu: Gpu) -> tuple[Meter | None, str]:
    """A function that gives the watts of now, or None and why there is none.

    CUDA and the library number GPUs differently, so the GPU is found by its name, which must be the only one of its
    kind.
    """
    advice = "so the column fps/W is left out"
    if not is_installed("pynvml"):
        return None, f"power: nvidia-ml-py is not installed, {advice}"
    nvml = importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        named = [handle for handle in handles if _text(nvml.nvmlDeviceGetName(handle)) == gpu.name]
        if len(named) != 1:
            return None, f"power: {len(named)} GPUs here are called {gpu.name}, {advice}"
        nvml.nvmlDeviceGetPowerUsage(named[0])
    except nvml.NVMLError as error:
        return None, f"power: NVML does not tell it ({error}), {advice}"
    return lambda: float(nvml.nvmlDeviceGetPowerUsage(named[0])) / 1e3, ""  # it gives milliwatts


class Power:
    """The mean watts while it is entered; None where nobody can be asked."""

    def __init__(self, meter: Meter | None) -> None:
        self._meter, self._stop, self._seen = meter, threading.Event(), list[float]()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def watts(self) -> float | None:
        return sum(self._seen) / len(self._seen) if self._seen else None

    def __enter__(self) -> "Power":
        if self._meter:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._meter:
            self._thread.join()

    def _watch(self) -> None:
        assert self._meter is not None
        while True:
            self._seen.append(self._meter())
            if self._stop.wait(_EVERY_S):
                return


def _text(name: str | bytes) -> str:
    """Older versions of the library give bytes."""
    return name.decode() if isinstance(name, bytes) else name
