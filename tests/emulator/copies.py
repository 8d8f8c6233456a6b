"""pycuda's copies and fills, synchronous and on a stream."""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulator.allocations import DeviceAllocation
from emulator.device import DeviceState
from emulator.errors import LogicError
from emulator.machine import Machine, current_machine
from emulator.memory import POISON, Block, Region
from emulator.queues import Stream
from emulator.streams import Operation, StreamState, Work

__all__ = [
    "memcpy_dtod",
    "memcpy_dtod_async",
    "memcpy_dtoh",
    "memcpy_dtoh_async",
    "memcpy_htod",
    "memcpy_htod_async",
    "memset_d8",
    "memset_d8_async",
]

Address = int | DeviceAllocation


def memcpy_htod(dest: Address, src: Any) -> None:
    data, dtype = _bytes_of(src)
    machine, stream = _begin("memcpy_htod", None, synchronous=True)
    pinned = machine.host.find(data.ctypes.data, data.size) is not None
    target = _device_region(machine, stream, dest, data.size, True, "memcpy_htod")
    content = [data.copy()]  # taken out, or the stream's last operation would hold it

    def run(operation: Operation) -> None:
        target.block.write(target.start, content.pop(), dtype)

    operation = machine.submit(stream, Work("h2d", "memcpy_htod", (target,), run, _seconds(stream.device, data.size)))
    _complete(machine, stream.device, operation, known=pinned)


def memcpy_dtoh(dest: Any, src: Address) -> None:
    data, dtype = _bytes_of(dest, writable=True)
    machine, stream = _begin("memcpy_dtoh", None, synchronous=True)
    source = _device_region(machine, stream, src, data.size, False, "memcpy_dtoh")
    content: list[NDArray[np.uint8]] = []

    def run(operation: Operation) -> None:
        content.append(_read(machine, source, dtype, "memcpy_dtoh"))

    operation = machine.submit(stream, Work("d2h", "memcpy_dtoh", (source,), run, _seconds(stream.device, data.size)))
    _complete(machine, stream.device, operation, known=True)
    data[:] = content.pop()


def memcpy_dtod(dest: Address, src: Address, size: int) -> None:
    machine, stream = _begin("memcpy_dtod", None, synchronous=True)
    _complete(machine, stream.device, machine.submit(stream, _dtod(machine, stream, dest, src, size)), known=False)


def memset_d8(dest: Address, data: int, size: int) -> None:
    machine, stream = _begin("memset_d8", None, synchronous=True)
    _complete(machine, stream.device, machine.submit(stream, _memset(machine, stream, dest, data, size)), known=False)


def memcpy_dtod_async(dest: Address, src: Address, size: int, stream: Stream | None = None) -> None:
    machine, state = _begin("memcpy_dtod_async", stream)
    machine.submit(state, _dtod(machine, state, dest, src, size))


def memset_d8_async(dest: Address, data: int, size: int, stream: Stream | None = None) -> None:
    machine, state = _begin("memset_d8_async", stream)
    machine.submit(state, _memset(machine, state, dest, data, size))


def memcpy_htod_async(dest: Address, src: Any, stream: Stream | None = None) -> None:
    """The source is read when the stream gets there; it must stay as it is until the host has synchronised."""
    call = "memcpy_htod_async"
    data, dtype = _bytes_of(src)
    machine, state = _begin(call, stream)
    host, start = _page_locked(machine, data, call)
    source = Region(host, start, start + data.size, False, "its page-locked source")
    target = _device_region(machine, state, dest, data.size, True, call)

    def submitted(operation: Operation) -> None:
        pending = any(a.start < source.stop and source.start < a.stop and a.writes for a in host.accesses)
        operation.note = None if pending else zlib.crc32(host.data[source.start : source.stop].tobytes())

    def run(operation: Operation) -> None:
        target.block.write(target.start, _host_content(machine, source, operation), dtype)

    def known(operation: Operation) -> None:
        now = zlib.crc32(host.data[source.start : source.stop].tobytes())
        if operation.note not in (None, now) and not host.freed and not _written_later(machine, source):
            machine.ledger.broken(
                "source-changed",
                f"{call}: the host wrote to the page-locked source before it synchronised with the copy.",
            )

    machine.submit(state, Work("h2d", call, (source, target), run, _seconds(state.device, data.size), submitted, known))


def memcpy_dtoh_async(dest: Any, src: Address, stream: Stream | None = None) -> None:
    """The destination holds 0xA5 until the host has synchronised with the copy."""
    call = "memcpy_dtoh_async"
    data, dtype = _bytes_of(dest, writable=True)
    machine, state = _begin(call, stream)
    host, start = _page_locked(machine, data, call)
    target = Region(host, start, start + data.size, True, "its page-locked destination")
    source = _device_region(machine, state, src, data.size, False, call)

    def submitted(operation: Operation) -> None:
        if not any(a.start < target.stop and target.start < a.stop and not a.writes for a in host.accesses):
            host.data[target.start : target.stop] = POISON

    def run(operation: Operation) -> None:
        operation.note = (target, _read(machine, source, dtype, call))

    def known(operation: Operation) -> None:
        if isinstance(operation.note, tuple) and not host.freed and not _written_later(machine, target):
            host.data[target.start : target.stop] = operation.note[1]

    machine.submit(state, Work("d2h", call, (source, target), run, _seconds(state.device, data.size), submitted, known))


def _dtod(machine: Machine, stream: StreamState, dest: Address, src: Address, size: int) -> Work:
    source = _device_region(machine, stream, src, size, False, "memcpy_dtod")
    target = _device_region(machine, stream, dest, size, True, "memcpy_dtod")

    def run(operation: Operation) -> None:
        target.block.write(target.start, _read(machine, source, None, "memcpy_dtod"), None)

    return Work("d2d", "memcpy_dtod", (source, target), run)


def _memset(machine: Machine, stream: StreamState, dest: Address, data: int, size: int) -> Work:
    target = _device_region(machine, stream, dest, size, True, "memset_d8")
    content = np.full(size, data, np.uint8)

    def run(operation: Operation) -> None:
        target.block.write(target.start, content, None)

    return Work("memset", "memset_d8", (target,), run)


def _begin(call: str, stream: Stream | None, synchronous: bool = False) -> tuple[Machine, StreamState]:
    machine = current_machine()
    context = machine.current(call)
    if machine.enter(call, context._device.index):
        raise LogicError(f"{call} failed: unknown error")
    state = context._device.default_stream if stream is None else stream._state
    if state.device is not context._device:
        machine.ledger.broken(
            "wrong-device", f"{call}: {state} is used while device {context._device.index} is current."
        )
    if synchronous or state.default:
        for capture in list(machine.captures):
            if capture.stream.device is context._device and (capture.stream.blocking or capture.forbids_here()):
                capture.invalid = True
                machine.ledger.broken(
                    "default-stream-in-capture",
                    f"{call} uses the default stream while {capture.stream} is being captured.",
                )
    return machine, state


def _complete(machine: Machine, device: DeviceState, operation: Operation | None, known: bool) -> None:
    """Wait for a call on the default stream. Not `known`: CUDA returns before the bytes are there for other streams."""
    assert operation is not None
    if known:
        machine.wait([operation], device)
    else:
        machine.wait_for(operation)
        machine.check(device, synchronising=True)


def _bytes_of(array: Any, writable: bool = False) -> tuple[NDArray[np.uint8], np.dtype[Any] | None]:
    """The bytes of anything with a buffer, and its type where it is a number of more than one byte."""
    view = memoryview(array)
    if not view.contiguous:
        raise ValueError("ndarray is not contiguous")
    if writable and view.readonly:
        raise ValueError("buffer source array is read-only")
    raw = (
        array.reshape(-1, order="A").view(np.uint8) if isinstance(array, np.ndarray) else np.frombuffer(view, np.uint8)
    )
    dtype = array.dtype if isinstance(array, np.ndarray) and array.dtype.itemsize > 1 else None
    return raw, dtype


def _page_locked(machine: Machine, data: NDArray[np.uint8], call: str) -> tuple[Block, int]:
    found = machine.host.find(data.ctypes.data, data.size)
    if found is None:
        machine.ledger.broken(
            "not-page-locked", f"{call}: the host memory is not page-locked; take it from pagelocked_empty()."
        )
        raise LogicError(f"{call} failed: invalid argument")
    return found


def _device_region(
    machine: Machine, stream: StreamState, address: Address, size: int, writes: bool, call: str
) -> Region:
    if not isinstance(address, (int, DeviceAllocation)):
        raise TypeError(f"{call}: an address is an int or a DeviceAllocation, not {type(address).__name__}")
    block, start = stream.device.memory.find(int(address), size, call)
    return Region(block, start, start + size, writes, block.what)


def _read(machine: Machine, source: Region, dtype: np.dtype[Any] | None, call: str) -> NDArray[np.uint8]:
    """The bytes of device memory, which must all have been written (as `dtype`, where both are known)."""
    block = source.block
    missing = int(np.count_nonzero(~block.written[source.start : source.stop]))
    if missing:
        machine.ledger.broken(
            "never-written", f"{call} reads {missing} bytes of {source.what} that nothing has written."
        )
    if dtype is not None:
        wrong = block.type_conflict(source.start, source.stop, dtype)
        if wrong is not None:
            machine.ledger.broken(
                "wrong-type", f"{call} reads {source.what} as {dtype}, but it was written as {wrong}."
            )
    return block.data[source.start : source.stop].copy()


def _host_content(machine: Machine, source: Region, reader: Operation) -> NDArray[np.uint8]:
    """What a page-locked source holds for the device: also the results that the host has not synchronised with yet."""
    content = source.block.data[source.start : source.stop].copy()
    with machine.lock:
        earlier = [operation for operation in machine.unknown if operation.covered_by(reader.clock)]
    for operation in earlier:
        if operation.work.kind == "d2h" and isinstance(operation.note, tuple):
            region, data = operation.note
            if region.block is source.block:
                first, last = max(region.start, source.start), min(region.stop, source.stop)
                if first < last:
                    content[first - source.start : last - source.start] = data[
                        first - region.start : last - region.start
                    ]
    return content


def _written_later(machine: Machine, region: Region) -> bool:
    """Whether a copy that the host does not know to be done yet writes to the same page-locked bytes."""
    return any(
        other.writes and other.block is region.block and other.start < region.stop and region.start < other.stop
        for operation in machine.unknown
        for other in operation.work.regions
    )


def _seconds(device: DeviceState, size: int) -> float:
    return size / (device.config.copy_gib_s * 2**30)
