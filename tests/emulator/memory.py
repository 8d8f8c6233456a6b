"""Memory of one device, and page-locked memory of the host.

Device addresses mean nothing to the host: they start at 0x7f00_0000_0000, a TiB apart for each device, 256-aligned,
never given out twice. Bytes hold 0xA5 until something is written to them, and what was never written cannot be read.
"""

import bisect
import itertools
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulator.rules import Ledger

__all__ = ["POISON", "Access", "Block", "DeviceMemory", "Region"]

POISON = 0xA5
ALIGNMENT = 256
_FIRST, _APART, _GUARD = 0x7F00_0000_0000, 1 << 40, 1 << 12


@dataclass(frozen=True)
class Access:
    """A use of bytes [start, stop) of a block by the operation number `sequence` of a stream."""

    stream: int
    sequence: int
    start: int
    stop: int
    writes: bool
    label: str


@dataclass(eq=False)
class Block:
    """One allocation. `data` are its bytes, `written` which of them hold something; `accesses` may still be running."""

    address: int
    data: NDArray[np.uint8]
    device: int | None
    what: str
    written: NDArray[np.bool_]
    size: int
    freed: bool = False
    typed: list[tuple[int, int, np.dtype[Any]]] = field(default_factory=list)
    accesses: list[Access] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)

    def write(self, start: int, data: NDArray[np.uint8], dtype: np.dtype[Any] | None) -> None:
        """Put bytes at `start`; `dtype` is what they are numbers of, None where that is not known."""
        stop = start + data.size
        with self.lock:
            self.data[start:stop] = data
            self.written[start:stop] = True
            self._forget(start, stop)
            if dtype is not None:
                self.typed.append((start, stop, dtype))

    def spoil(self, start: int, stop: int) -> None:
        """Make the bytes undefined."""
        with self.lock:
            self.data[start:stop] = POISON
            self.written[start:stop] = False
            self._forget(start, stop)

    def _forget(self, start: int, stop: int) -> None:
        kept = []
        for a, b, dtype in self.typed:
            kept += [(x, y, dtype) for x, y in ((a, min(b, start)), (max(a, stop), b)) if x < y]
        self.typed = kept

    def type_conflict(self, start: int, stop: int, dtype: np.dtype[Any]) -> np.dtype[Any] | None:
        """The type that some of the bytes were written as, where it is another than `dtype`."""
        return next((t for a, b, t in self.typed if a < stop and start < b and t != dtype), None)


@dataclass(frozen=True)
class Region:
    """Bytes of a block that an operation reads or writes. Unordered with another use, it breaks `rule`."""

    block: Block
    start: int
    stop: int
    writes: bool
    what: str
    rule: str = "race"


class DeviceMemory:
    """The allocations of one device, found by any address within them."""

    def __init__(self, device: int, total: int, ledger: Ledger) -> None:
        self.device, self.total, self.used = device, total, 0
        self._ledger = ledger
        self._next = _FIRST + device * _APART
        self._starts: list[int] = []
        self._blocks: list[Block] = []

    def allocate(self, size: int, what: str) -> Block | None:
        """A new block, or None where the device has no room for it."""
        taken = -(-size // 512) * 512
        if self.used + taken > self.total:
            return None
        written = np.zeros(size, np.bool_)
        block = Block(self._next, np.full(size, POISON, np.uint8), self.device, what, written, size)
        self._next += taken + _GUARD
        self._starts.append(block.address)
        self._blocks.append(block)
        self.used += taken
        return block

    def free(self, block: Block) -> None:
        block.freed = True
        block.data, block.written = np.empty(0, np.uint8), np.empty(0, np.bool_)
        self.used -= -(-block.size // 512) * 512

    def find(self, address: int, size: int, what: str) -> tuple[Block, int]:
        """The live block that holds the bytes [address, address + size), and where in it they start."""
        index = bisect.bisect_right(self._starts, address) - 1
        block = self._blocks[index] if index >= 0 else None
        if block is None or address >= block.address + max(block.size, 1):
            where = "the host's memory" if address < _FIRST else "no allocation"
            owner = (address - _FIRST) // _APART
            if address >= _FIRST and owner != self.device:
                self._ledger.broken(
                    "wrong-device", f"{what}: address {address:#x} lies on device {owner}, not on {self.device}."
                )
            self._ledger.broken(
                "unknown-address", f"{what}: address {address:#x} lies in {where} of device {self.device}."
            )
            raise AssertionError("an unknown address cannot be tolerated")
        if block.freed:
            self._ledger.broken("use-after-free", f"{what}: {block.what} at {address:#x} was freed.")
        start = address - block.address
        if start + size > block.size:
            self._ledger.broken(
                "out-of-bounds",
                f"{what}: {size} bytes at {address:#x} reach {start + size - block.size} bytes beyond {block.what}.",
            )
        return block, start

    @property
    def alive(self) -> list[Block]:
        return [block for block in self._blocks if not block.freed]


class HostMemory:
    """Page-locked blocks. Their addresses are the process's own."""

    def __init__(self) -> None:
        self._blocks: dict[int, Block] = {}

    def allocate(self, size: int) -> Block:
        room = np.full(size + 4096, POISON, np.uint8)
        first = -room.ctypes.data % 4096
        data = room[first : first + size]
        block = Block(data.ctypes.data, data, None, "page-locked memory", np.ones(size, np.bool_), size)
        self._blocks[block.address] = block
        return block

    def free(self, block: Block) -> None:
        block.freed = True
        block.data[:] = POISON
        del self._blocks[block.address]

    def find(self, address: int, size: int) -> tuple[Block, int] | None:
        """The block that holds all the bytes, or None where some of them are not page-locked."""
        for block in list(self._blocks.values()):
            if block.address <= address and address + size <= block.address + block.size:
                return block, address - block.address
        return None

    @property
    def alive(self) -> list[Block]:
        return list(self._blocks.values())


handles = itertools.count(0x55D0_0000_1000, 0x40)
"""Handles of streams, events and graphs: they do not fit 32 bits, as real ones do not."""
