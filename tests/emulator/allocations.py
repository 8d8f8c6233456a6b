"""pycuda's memory: DeviceAllocation, page-locked arrays, and copies between them."""

import contextlib
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from emulator.contexts import Context, activates
from emulator.errors import LogicError, MemoryError
from emulator.machine import Machine, current_machine
from emulator.memory import Block
from emulator.rules import RuleBroken

__all__ = ["DeviceAllocation", "PagelockedHostAllocation", "mem_alloc", "mem_get_info", "pagelocked_empty"]


def refuse_in_capture(machine: Machine, call: str, device: Any) -> None:
    """Allocating and freeing may not happen in a thread that captures (in any thread, in global mode)."""
    for capture in list(machine.captures):
        if capture.stream.device is device and capture.forbids_here():
            capture.invalid = True
            machine.ledger.broken("allocation-in-capture", f"{call} while {capture.stream} is being captured.")


class DeviceAllocation:
    """Memory on a device. It is freed with `free()` or when the object goes."""

    def __init__(self, context: Context, block: Block) -> None:
        self._ward, self._block, self._valid = context, block, True
        self._machine: Machine = context._device.machine
        self._machine.born(self, "device memory", context._device.index)

    def __repr__(self) -> str:
        return f"{self._block.size} bytes of device {self._block.device}'s memory"

    def __int__(self) -> int:
        return self._block.address

    __index__ = __int__

    def free(self) -> None:
        if not self._valid:
            self._machine.ledger.broken("double-free", f"DeviceAllocation.free(): {self!r} was freed before.")
            raise LogicError("device_allocation::free failed: invalid resource handle")
        self._free(quiet=False)

    def _free(self, quiet: bool) -> None:
        self._valid = False
        machine, device = self._machine, self._ward._device
        if not activates(self._ward, repr(self), quiet):
            if not self._block.freed and self._ward._valid:
                return  # leaked, and stays in the list of what is alive
            machine.dead(self)
            return
        machine.dead(self)
        with machine.lock:
            user = None if device.error or device.lost else machine.in_use(self._block)
            if not self._block.freed:
                device.memory.free(self._block)
        if user is not None:
            error = machine.ledger.note("freed-in-use", f"{self!r} was freed while {user} may still use it.")
            if error is not None and not quiet:
                raise error
        refuse_in_capture(machine, "mem_free", device)

    def __del__(self) -> None:
        if getattr(self, "_valid", False) and not self._machine.closed:
            with contextlib.suppress(RuleBroken):  # it is recorded
                self._free(quiet=True)


def mem_alloc(bytes: int) -> DeviceAllocation:
    machine = current_machine()
    context = machine.current("cuMemAlloc")
    failing = machine.enter("mem_alloc", context._device.index)
    machine.check(context._device)
    refuse_in_capture(machine, "mem_alloc", context._device)
    if bytes <= 0:
        raise LogicError("cuMemAlloc failed: invalid argument")
    with machine.lock:
        block = None if failing else context._device.memory.allocate(bytes, f"an allocation of {bytes} bytes")
    if block is None:
        raise MemoryError("cuMemAlloc failed: out of memory")
    return DeviceAllocation(context, block)


def mem_get_info() -> tuple[int, int]:
    device = current_machine().current("cuMemGetInfo")._device
    current_machine().enter("mem_get_info", device.index)
    return device.memory.total - device.memory.used, device.memory.total


class PagelockedHostAllocation:
    """Page-locked memory of the host: the `.base` of the array that `pagelocked_empty` gives."""

    def __init__(self, context: Context, block: Block, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._ward, self._block, self._valid = context, block, True
        self._machine: Machine = context._device.machine
        self._machine.born(self, "page-locked memory", context._device.index)
        self.__array_interface__ = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (block.address, False),
            "version": 3,
        }

    def __repr__(self) -> str:
        return f"{self._block.size} bytes of page-locked memory"

    def get_flags(self) -> int:
        return 0

    def free(self) -> None:
        if not self._valid:
            self._machine.ledger.broken("double-free", f"PagelockedHostAllocation.free(): {self!r} was freed before.")
            raise LogicError("pagelocked_host_allocation::free failed: invalid resource handle")
        self._free(quiet=False)

    def _free(self, quiet: bool) -> None:
        self._valid = False
        machine, device = self._machine, self._ward._device
        if not activates(self._ward, repr(self), quiet):
            if not self._ward._valid:
                self._gone()  # it went with the context
            return
        with machine.lock:
            user = None if device.error or device.lost else machine.in_use(self._block)
        self._gone()
        if user is not None:
            error = machine.ledger.note("freed-in-use", f"{self!r} was freed while {user} may still use it.")
            if error is not None and not quiet:
                raise error
        refuse_in_capture(machine, "mem_host_free", device)

    def _gone(self) -> None:
        self._machine.dead(self)
        with self._machine.lock:
            if not self._block.freed:
                self._machine.host.free(self._block)

    def __del__(self) -> None:
        if getattr(self, "_valid", False) and not self._machine.closed:
            with contextlib.suppress(RuleBroken):  # it is recorded
                self._free(quiet=True)


def pagelocked_empty(
    shape: int | tuple[int, ...], dtype: DTypeLike, order: str = "C", mem_flags: int = 0
) -> NDArray[Any]:
    machine = current_machine()
    context = machine.current("cuMemHostAlloc")
    if machine.enter("pagelocked_empty", context._device.index):
        raise MemoryError("cuMemHostAlloc failed: out of memory")
    machine.check(context._device)
    refuse_in_capture(machine, "pagelocked_empty", context._device)
    if order != "C":
        raise LogicError("numpy_empty failed: invalid argument - the emulator knows C order only")
    kind = np.dtype(dtype)
    dims = (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(int(d) for d in shape)
    size = int(np.prod(dims, dtype=np.int64)) * kind.itemsize
    if size <= 0:
        raise LogicError("cuMemHostAlloc failed: invalid argument")
    with machine.lock:
        block = machine.host.allocate(size)
    return np.asarray(PagelockedHostAllocation(context, block, dims, kind))
