"""pycuda's Device and Context: a stack for each thread, and whose thread may clean up what.

The rules are those of pycuda's own C++: `Context.pop()` is static and takes the last pushed; cleaning up works where
the very Context object is current or in the thread that retained it, and leaks (with a warning) in any other thread.
"""

import contextlib
import threading
import warnings
from enum import IntEnum

from emulator.device import DeviceState
from emulator.errors import LogicError, RuntimeError
from emulator.machine import Machine, current_machine
from emulator.rules import RuleBroken

__all__ = ["Context", "Device", "activates", "device_attribute", "get_driver_version", "init", "started"]


class device_attribute(IntEnum):
    """The attributes that are answered, by their numbers in cuda.h."""

    MAX_THREADS_PER_BLOCK = 1
    WARP_SIZE = 10
    CLOCK_RATE = 13
    MULTIPROCESSOR_COUNT = 16
    ASYNC_ENGINE_COUNT = 40
    UNIFIED_ADDRESSING = 41
    COMPUTE_CAPABILITY_MAJOR = 75
    COMPUTE_CAPABILITY_MINOR = 76


def attribute_of(device: DeviceState, number: int) -> int:
    """Value of a CUdevice_attribute."""
    major, minor = (int(part) for part in device.config.capability.split("."))
    values = {1: 1024, 10: 32, 13: 2_000_000, 16: device.config.multiprocessors, 40: 2, 41: 1, 75: major, 76: minor}
    if number not in values:
        raise LogicError(f"cuDeviceGetAttribute failed: the emulator does not know attribute {number}")
    return values[number]


def init(flags: int = 0) -> None:
    machine = current_machine()
    if machine.enter("init"):
        raise RuntimeError("cuInit failed: no CUDA-capable device is detected")
    if not machine.devices:
        raise RuntimeError("cuInit failed: no CUDA-capable device is detected")
    machine.initialised = True


def started(call: str) -> Machine:
    """The machine, after a check that the driver was initialised."""
    machine = current_machine()
    if not machine.initialised:
        machine.ledger.broken("not-initialised", f"{call} was called before cuInit (pycuda.driver.init()).")
    return machine


def get_driver_version() -> int:
    major, minor = current_machine().driver
    return major * 1000 + minor * 10


class Device:
    """A GPU by its ordinal."""

    def __init__(self, ordinal: int) -> None:
        machine = started("cuDeviceGet")
        if not isinstance(ordinal, int):
            raise TypeError(f"Device.__init__ takes an int, not {type(ordinal).__name__}")
        if machine.enter("Device", ordinal if 0 <= ordinal < len(machine.devices) else None):
            raise LogicError("cuDeviceGet failed: invalid device ordinal")
        if not 0 <= ordinal < len(machine.devices):
            raise LogicError("cuDeviceGet failed: invalid device ordinal")
        self._state = machine.devices[ordinal]

    @staticmethod
    def count() -> int:
        return len(started("cuDeviceGetCount").devices)

    def name(self) -> str:
        return self._state.config.name

    def compute_capability(self) -> tuple[int, int]:
        return attribute_of(self._state, 75), attribute_of(self._state, 76)

    def total_memory(self) -> int:
        return self._state.memory.total

    def get_attribute(self, attr: int) -> int:
        return attribute_of(self._state, int(attr))

    def pci_bus_id(self) -> str:
        return f"0000:{self._state.index + 1:02X}:00.0"

    def make_context(self, flags: int = 0) -> None:
        current_machine().ledger.broken(
            "second-context",
            "Device.make_context() makes a second context beside TensorRT's, and handles of one are invalid in the "
            "other: use Device(i).retain_primary_context().",
        )

    def retain_primary_context(self) -> "Context":
        machine = current_machine()
        if machine.enter("retain_primary_context", self._state.index):
            raise LogicError("cuDevicePrimaryCtxRetain failed: out of memory")
        with machine.lock:
            self._state.retained += 1
        return Context(self._state)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other._state is self._state

    def __hash__(self) -> int:
        return self._state.index


class Context:
    """A retain of a device's primary context."""

    def __init__(self, device: DeviceState) -> None:
        self._device, self._valid, self._thread = device, True, threading.current_thread()
        self._machine = device.machine
        self._machine.born(self, "context", device.index)

    def __repr__(self) -> str:
        return f"a context of device {self._device.index}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and other._device is self._device

    def __hash__(self) -> int:
        return id(self)

    @property
    def handle(self) -> int:
        return 0x55C0_0000_0000 + self._device.index * 0x1000

    def push(self) -> None:
        machine = self._machine
        machine.enter("Context.push")
        if not self._valid:
            machine.ledger.broken("detached-context", f"Context.push(): {self!r} was detached.")
        machine.stack().append(self)

    @staticmethod
    def pop() -> None:
        machine = current_machine()
        stack = machine.stack()
        if not stack:
            machine.ledger.broken(
                "unbalanced-pop",
                f"Context.pop() in thread {threading.current_thread().name}: nothing is pushed in this thread.",
            )
            raise LogicError("context::pop failed: invalid device context - cannot pop non-current context")
        stack.pop()

    @staticmethod
    def get_current() -> "Context | None":
        stack = [context for context in current_machine().stack() if context._valid]
        return stack[-1] if stack else None

    @staticmethod
    def get_device() -> Device:
        return Device(current_machine().current("cuCtxGetDevice")._device.index)

    @staticmethod
    def synchronize() -> None:
        machine = current_machine()
        device = machine.current("cuCtxSynchronize")._device
        if machine.enter("Context.synchronize", device.index):
            raise LogicError("cuCtxSynchronize failed: unknown error")
        for capture in list(machine.captures):
            if capture.stream.device is device:
                capture.invalid = True
                machine.ledger.broken(
                    "synchronise-in-capture",
                    f"Context.synchronize() while {capture.stream} is being captured: a device-wide synchronise in any "
                    "thread breaks the capture.",
                )
        machine.wait([stream.last for stream in device.streams], device)

    def detach(self) -> None:
        if not self._valid:
            self._machine.ledger.broken("detached-context", "Context.detach(): it was detached before.")
            raise LogicError("context::detach failed: invalid device context - cannot detach from invalid context")
        here = threading.current_thread()
        # on top of this thread's own stack is fine: pycuda takes it off
        pushed = [
            thread.name
            for thread, stack in list(self._machine.stacks.items())
            if any(entry is self for entry in (stack[:-1] if thread is here else stack))
        ]
        if pushed:
            self._machine.ledger.broken(
                "detached-while-pushed",
                f"Context.detach(): {self!r} is still pushed in thread {', '.join(pushed)}; pop it there first.",
            )
        self._detach(quiet=False)

    def _detach(self, quiet: bool) -> None:
        machine, here = self._machine, threading.current_thread()
        stack = machine.stack()
        current = bool(stack) and stack[-1] is self
        self._valid = False
        if current:
            stack.pop()
            machine.stale.setdefault(here, []).append(self.handle)  # released, and still current for CUDA
        machine.dead(self)
        if self._thread is not here and not current:
            error = machine.ledger.note(
                "out-of-thread-cleanup",
                f"Context.detach() in thread {here.name}, which neither retained {self!r} nor has it current: pycuda "
                "leaks it without a word.",
            )
            if error is not None and not quiet:
                raise error
            return
        with machine.lock:
            self._device.retained -= 1
            last = self._device.retained == 0
        if last:
            machine.release_primary(self._device)

    def __del__(self) -> None:
        if getattr(self, "_valid", False) and not self._machine.closed:
            with contextlib.suppress(RuleBroken):  # it is recorded
                self._detach(quiet=True)


def activates(ward: Context, what: str, quiet: bool) -> bool:
    """Whether this thread can clean up what was made in the context `ward`, as pycuda decides it.

    False where the context is dead: pycuda then does nothing. A thread that may not records a leak, and raises unless
    `quiet` (in a destructor).
    """
    machine: Machine = ward._device.machine
    if not ward._valid:
        return False
    here = threading.current_thread()
    current = Context.get_current()
    if current is ward or ward._thread is here:
        return True
    if ward._device.error is not None or ward._device.lost:
        return False  # there is nothing left to give back
    warnings.warn(f"{what} in out-of-thread context could not be cleaned up", UserWarning, stacklevel=3)
    error = machine.ledger.note(
        "out-of-thread-cleanup",
        f"{what} was freed in thread {here.name}: its context was retained in thread {ward._thread.name} and is not "
        "current here, so pycuda leaks it.",
    )
    if error is not None and not quiet:
        raise error
    return False
