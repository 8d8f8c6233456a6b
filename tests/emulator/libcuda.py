"""What stands in for the driver library as ctypes sees it: pointers by `byref`, handles as `c_void_p`, codes back.

Functions here have no `argtypes` until the caller sets them, as with a library that ctypes opened. ctypes then passes a
Python int as a C int: a handle or address given so would lose its upper half, which is a rule broken here.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

from emulator.contexts import attribute_of
from emulator.device import DeviceState
from emulator.errors import Error
from emulator.graphs import GLOBAL, RELAXED, Capture, Graph, GraphExec
from emulator.machine import Machine
from emulator.streams import StreamState

__all__ = ["LibCuda"]

OK, INVALID_VALUE, NOT_INITIALISED, NO_DEVICE, INVALID_DEVICE = 0, 1, 3, 100, 101
INVALID_CONTEXT, INVALID_HANDLE, NOT_FOUND, LAUNCH_FAILED = 201, 400, 500, 719
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, ILLEGAL_STATE, CAPTURE_WRONG_THREAD = 900, 901, 401, 908
NAMES = {
    OK: "no error",
    INVALID_VALUE: "invalid argument",
    2: "out of memory",
    NOT_INITIALISED: "initialization error",
    NO_DEVICE: "no CUDA-capable device is detected",
    INVALID_DEVICE: "invalid device ordinal",
    INVALID_CONTEXT: "invalid device context",
    INVALID_HANDLE: "invalid resource handle",
    ILLEGAL_STATE: "the operation cannot be performed in the present state",
    NOT_FOUND: "named symbol not found",
    700: "an illegal memory access was encountered",
    LAUNCH_FAILED: "unspecified launch failure",
    CAPTURE_UNSUPPORTED: "operation not permitted when stream is capturing",
    CAPTURE_INVALIDATED: "operation failed due to a previous error during capture",
    CAPTURE_WRONG_THREAD: "attempt to terminate a thread-local capture sequence from another thread",
    999: "unknown error",
}
SYMBOLS = {
    INVALID_VALUE: "INVALID_VALUE",
    NO_DEVICE: "NO_DEVICE",
    INVALID_DEVICE: "INVALID_DEVICE",
    LAUNCH_FAILED: "LAUNCH_FAILED",
    CAPTURE_INVALIDATED: "STREAM_CAPTURE_INVALIDATED",
    999: "UNKNOWN",
}


def _integer(value: Any) -> int:
    """An argument by value: an int, a c_int, a handle."""
    inner = getattr(value, "value", value)
    return 0 if inner is None else int(inner)


def _store(pointer: Any, value: Any) -> None:
    """Write through `byref(x)`, `pointer(x)`."""
    target = pointer._obj if hasattr(pointer, "_obj") else pointer.contents
    target.value = value


class LibCuda:
    """The functions of libcuda that the project calls."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._graphs: dict[int, Graph] = {}
        self._executables: dict[int, GraphExec] = {}
        self._texts = {code: text.encode() for code, text in NAMES.items()}
        functions: list[Callable[..., int]] = [
            self._cuInit, self._cuDriverGetVersion, self._cuDeviceGetCount, self._cuDeviceGet, self._cuDeviceGetName,
            self._cuDeviceGetAttribute, self._cuDeviceTotalMem_v2, self._cuGetErrorString, self._cuGetErrorName,
            self._cuStreamBeginCapture_v2, self._cuStreamEndCapture, self._cuGraphInstantiateWithFlags,
            self._cuGraphLaunch, self._cuGraphExecDestroy, self._cuGraphDestroy,
            self._cuCtxGetCurrent, self._cuCtxPopCurrent_v2,
        ]  # fmt: skip
        for function in functions:
            name = function.__name__[1:]
            setattr(self, name, _guarded(machine, name, function))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"libcuda: undefined symbol: {name} (the emulator does not have it)")

    def _cuInit(self, flags: Any) -> int:
        if not self._machine.devices:
            return NO_DEVICE
        self._machine.initialised = True
        return OK

    def _cuCtxGetCurrent(self, context: Any) -> int:
        pushed = [entry.handle for entry in self._machine.stack()]
        stale = self._machine.stale.get(threading.current_thread(), [])
        return _stored(context, [0, *stale, *pushed][-1])

    def _cuCtxPopCurrent_v2(self, context: Any) -> int:
        stale = self._machine.stale.get(threading.current_thread(), [])
        if self._machine.stack() or not stale:
            return INVALID_CONTEXT  # what pycuda pushed is pycuda's to pop
        return _stored(context, stale.pop())

    def _cuDriverGetVersion(self, version: Any) -> int:
        major, minor = self._machine.driver
        _store(version, major * 1000 + minor * 10)
        return OK

    def _cuDeviceGetCount(self, count: Any) -> int:
        return self._started("cuDeviceGetCount") or _stored(count, len(self._machine.devices))

    def _cuDeviceGet(self, device: Any, ordinal: Any) -> int:
        index = _integer(ordinal)
        if not 0 <= index < len(self._machine.devices):
            return INVALID_DEVICE
        return self._started("cuDeviceGet") or _stored(device, index)

    def _cuDeviceGetName(self, name: Any, length: Any, device: Any) -> int:
        name.value = self._device(device).config.name.encode()[: _integer(length) - 1]
        return OK

    def _cuDeviceGetAttribute(self, value: Any, attribute: Any, device: Any) -> int:
        try:
            return _stored(value, attribute_of(self._device(device), _integer(attribute)))
        except Error:
            return INVALID_VALUE

    def _cuDeviceTotalMem_v2(self, size: Any, device: Any) -> int:
        return _stored(size, self._device(device).memory.total)

    def _cuGetErrorString(self, code: Any, text: Any) -> int:
        words = self._texts.get(_integer(code))
        return INVALID_VALUE if words is None else _stored(text, words)

    def _cuGetErrorName(self, code: Any, name: Any) -> int:
        symbol = SYMBOLS.get(_integer(code))
        return INVALID_VALUE if symbol is None else _stored(name, f"CUDA_ERROR_{symbol}".encode())

    def _cuStreamBeginCapture_v2(self, stream: Any, mode: Any) -> int:
        machine, state = self._machine, self._stream("cuStreamBeginCapture", stream)
        kind = _integer(mode)
        if state.default:
            return CAPTURE_UNSUPPORTED
        if kind == GLOBAL and (others := self._other_threads()):
            machine.ledger.broken(
                "global-capture",
                f"cuStreamBeginCapture in global mode while thread {', '.join(others)} has a context current: what it "
                "calls breaks the capture; use thread-local mode (1).",
            )
        if not GLOBAL <= kind <= RELAXED:
            return INVALID_VALUE
        if state.capture is not None:
            return ILLEGAL_STATE
        with machine.lock:
            state.capture = Capture(state, kind)
            machine.captures.append(state.capture)
        return OK

    def _cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        machine, state = self._machine, self._stream("cuStreamEndCapture", stream)
        capture = state.capture
        if not isinstance(capture, Capture):
            return ILLEGAL_STATE
        if capture.mode != RELAXED and capture.thread is not threading.current_thread():
            return CAPTURE_WRONG_THREAD
        with machine.lock:
            state.capture = None
            machine.captures.remove(capture)
        if capture.invalid:
            _store(graph, None)
            return CAPTURE_INVALIDATED
        made = Graph(state.device, capture.works)
        self._graphs[made.handle] = made
        machine.born(made, "graph", state.device.index)
        return _stored(graph, made.handle)

    def _cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: Any) -> int:
        found = self._graphs.get(self._handle("cuGraphInstantiateWithFlags", graph))
        if found is None:
            return self._unknown("cuGraphInstantiateWithFlags", "graph")
        self._machine.current("cuGraphInstantiateWithFlags", found.device.index)
        made = GraphExec(found)
        self._executables[made.handle] = made
        self._machine.born(made, "executable graph", found.device.index)
        return _stored(executable, made.handle)

    def _cuGraphLaunch(self, executable: Any, stream: Any) -> int:
        found = self._executables.get(self._handle("cuGraphLaunch", executable))
        if found is None:
            return self._unknown("cuGraphLaunch", "executable graph")
        state = self._stream("cuGraphLaunch", stream)
        if state.device is not found.device:
            self._machine.ledger.broken("wrong-device", f"cuGraphLaunch: {found!r} is launched on {state}.")
        found.launch(self._machine, state)
        return OK

    def _cuGraphExecDestroy(self, executable: Any) -> int:
        found = self._executables.pop(self._handle("cuGraphExecDestroy", executable), None)
        self._machine.dead(found)
        return OK if found is not None else self._unknown("cuGraphExecDestroy", "executable graph")

    def _cuGraphDestroy(self, graph: Any) -> int:
        found = self._graphs.pop(self._handle("cuGraphDestroy", graph), None)
        self._machine.dead(found)
        return OK if found is not None else self._unknown("cuGraphDestroy", "graph")

    def _started(self, call: str) -> int:
        if not self._machine.initialised:
            self._machine.ledger.broken("not-initialised", f"{call} was called before cuInit.")
            return NOT_INITIALISED
        return OK

    def _device(self, device: Any) -> DeviceState:
        return self._machine.devices[_integer(device)]

    def _handle(self, call: str, value: Any) -> int:
        number = _integer(value)
        if type(value) is int and value >> 31 and not getattr(getattr(self, call, None), "argtypes", None):
            self._machine.ledger.broken(
                "truncated-handle", f"{call}: ctypes passes the int {value:#x} as 32 bits; wrap it in c_void_p."
            )
        return number

    def _stream(self, call: str, value: Any) -> StreamState:
        symbol = "cuStreamBeginCapture_v2" if call == "cuStreamBeginCapture" else call
        handle = self._handle(symbol, value)
        context = self._machine.current(call)
        if handle == 0:
            return context._device.default_stream  # type: ignore[no-any-return]
        for device in self._machine.devices:
            for stream in device.streams:
                if stream.handle == handle and not stream.destroyed:
                    if device is not context._device:
                        self._machine.ledger.broken(
                            "wrong-device", f"{call}: {stream} is used while device {context._device.index} is current."
                        )
                    return stream
        self._machine.ledger.broken("unknown-handle", f"{call}: {handle:#x} is no stream that is alive.")
        raise AssertionError("an unknown handle cannot be tolerated")

    def _unknown(self, call: str, kind: str) -> int:
        self._machine.ledger.broken("unknown-handle", f"{call}: the {kind} was destroyed, or never made.")
        return INVALID_HANDLE

    def _other_threads(self) -> list[str]:
        here = threading.current_thread()
        return [t.name for t, stack in list(self._machine.stacks.items()) if t is not here and t.is_alive() and stack]


def _stored(pointer: Any, value: Any) -> int:
    _store(pointer, value)
    return OK


def _guarded(machine: Machine, name: str, function: Callable[..., int]) -> Callable[..., int]:
    """A plain function, so that `argtypes` can be set on it; failures made on purpose become codes."""

    @functools.wraps(function)
    def call(*arguments: Any) -> int:
        stack = machine.stack()
        device = stack[-1]._device.index if stack and stack[-1]._valid else None
        failure = machine.failures.take(name, device)
        if failure is not None:
            if isinstance(failure.error, BaseException):
                raise failure.error
            return LAUNCH_FAILED if failure.error is None else failure.error
        if device is not None and machine.devices[device].lost:
            if name.endswith("Destroy"):
                function(*arguments)  # it fails, too, and there is nothing left to do
            return LAUNCH_FAILED
        try:
            return function(*arguments)
        except Error:  # an earlier one of the device
            return LAUNCH_FAILED

    call.__name__ = name
    return call
