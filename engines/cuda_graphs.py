"""CUDA graphs by the driver's own functions: what a stream was given once is launched again as one piece.

Capturing is thread-local: other threads may go on using the device, but a device-wide synchronise in any thread would
break the capture, so nothing in this project calls one. (CUDA driver API, "Stream Management" and "Graph Management".)
"""

import ctypes
from collections.abc import Callable

from engines.machine import libcuda

__all__ = ["CaptureError", "CudaGraph", "capture"]

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


class CaptureError(Exception):
    """A stream's work could not be captured. Running it plainly still works."""


class CudaGraph:
    """Work that can be launched on any stream of its device, any number of times, one launch at a time."""

    def __init__(self, driver: "_Driver", executable: ctypes.c_void_p) -> None:
        self._driver, self._executable = driver, executable

    def launch(self, stream: int) -> None:
        """Put the work on the stream with this handle. Raises CaptureError where the driver refuses."""
        self._driver.call("cuGraphLaunch", self._executable, ctypes.c_void_p(stream))

    def free(self) -> None:
        """Give it back. It must not be running."""
        self._driver.call("cuGraphExecDestroy", self._executable)


def capture(stream: int, enqueue: Callable[[], None]) -> CudaGraph:
    """What `enqueue` puts on the stream with this handle, as a graph; nothing of it is run.

    The device must be current in this thread. Raises CaptureError where it cannot be captured, and whatever `enqueue`
    raises; the stream can be used again in both cases.
    """
    driver = _Driver()
    graph, executable, handle = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p(stream)
    driver.call("cuStreamBeginCapture_v2", handle, ctypes.c_int(_THREAD_LOCAL))
    try:
        enqueue()
    except BaseException:
        driver.try_call("cuStreamEndCapture", handle, ctypes.byref(graph))
        driver.destroy(graph)
        raise
    driver.call("cuStreamEndCapture", handle, ctypes.byref(graph))
    try:
        driver.call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
    finally:
        driver.destroy(graph)
    return CudaGraph(driver, executable)


class _Driver:
    """The driver library's functions, which tell by their result what went wrong."""

    def __init__(self) -> None:
        library = libcuda()
        if library is None:
            raise CaptureError("there is no CUDA driver")
        self._library = library

    def call(self, name: str, *arguments: object) -> None:
        code = self.try_call(name, *arguments)
        if code:
            raise CaptureError(f"{name}: {self._words(code)}")

    def try_call(self, name: str, *arguments: object) -> int:
        return int(getattr(self._library, name)(*arguments))

    def destroy(self, graph: ctypes.c_void_p) -> None:
        if graph.value:
            self.try_call("cuGraphDestroy", graph)

    def _words(self, code: int) -> str:
        text = ctypes.c_char_p()
        if self.try_call("cuGetErrorString", ctypes.c_int(code), ctypes.byref(text)) or not text.value:
            return f"error {code}"
        return text.value.decode(errors="replace")
