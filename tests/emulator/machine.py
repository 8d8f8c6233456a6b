"""The emulated machine: its devices, what the host knows of their work, and the one way into a stream."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from emulator import errors
from emulator.device import DeviceState, EmulatedDevice
from emulator.failures import Failures
from emulator.memory import Access, HostMemory, Region, handles
from emulator.rules import Ledger, RuleBroken
from emulator.streams import Clock, EventState, Operation, StreamState, Work, merge
from emulator.timeline import Timeline

__all__ = ["Machine", "current_machine", "set_machine"]

WorkUnits = Mapping[str, float] | Callable[[str, int], float] | float


class Machine:
    """State of one emulator. Everything that production code can reach asks `current_machine` for it."""

    def __init__(
        self, devices: Sequence[EmulatedDevice], ledger: Ledger, work: WorkUnits, version: str, driver: tuple[int, int]
    ) -> None:
        self.ledger, self.work, self.version, self.driver = ledger, work, version, driver
        self.timeline, self.failures, self.host = Timeline(), Failures(), HostMemory()
        self.lock = threading.RLock()
        self.closed = self.initialised = False
        self.keep_parents = True
        self.devices = [DeviceState(self, index, config) for index, config in enumerate(devices)]
        self.known: Clock = {}
        self.unknown: list[Operation] = []
        self.asynchronous_errors: list[Exception] = []
        self.stacks: dict[threading.Thread, list[Any]] = {}
        self.stale: dict[threading.Thread, list[int]] = {}
        """Handles of contexts that were released while they were current: CUDA keeps them on the thread's stack."""
        self.alive: dict[int, tuple[str, str, int]] = {}
        self.captures: list[Any] = []

    def enter(self, call: str, device: int | None = None) -> bool:
        """At the start of every call: whether it shall fail. Raises on a lost device and after the end."""
        if self.closed:
            raise RuleBroken(f"[after-close] {call} was called after the emulator was closed.")
        if device is not None and self.devices[device].lost:
            raise errors.LaunchError(f"{call} failed: unspecified launch failure (device {device} is lost)")
        return self.failures.strike(call, device)

    def fails(self, call: str, device: int) -> bool:
        """The same for TensorRT's calls, which do not raise on a lost device but say no."""
        if self.devices[device].lost and not self.closed:
            return True
        return self.enter(call, device)

    def born(self, thing: object, kind: str, device: int) -> None:
        """Something that must be gone when the emulator is closed."""
        with self.lock:
            leaked = self.alive.pop(id(thing), None)  # of something that went where it could not be freed
            if leaked is not None:
                self.alive[-next(handles)] = leaked
            self.alive[id(thing)] = (kind, repr(thing), device)

    def dead(self, thing: object) -> None:
        self.alive.pop(id(thing), None)

    def stack(self) -> list[Any]:
        """The contexts that this thread has pushed."""
        return self.stacks.setdefault(threading.current_thread(), [])

    def current(self, call: str, device: int | None = None) -> Any:
        """The context current in this thread, which must be one of `device` where that is given."""
        stack = self.stack()
        while stack and not stack[-1]._valid:
            stack.pop()
        if not stack:
            self.ledger.broken(
                "no-context",
                f"{call} in thread {threading.current_thread().name}: no context is current here; push the one that "
                "Device(i).retain_primary_context() gave.",
            )
            raise errors.LogicError(f"{call} failed: invalid device context - no currently active context?")
        if device is not None and stack[-1]._device.index != device:
            self.ledger.broken(
                "wrong-device", f"{call}: it belongs to device {device}, current is {stack[-1]._device.index}."
            )
        return stack[-1]

    def check(self, device: DeviceState, synchronising: bool = False) -> None:
        """Raise the device's sticky error: from a synchronise on, so that no test depends on how fast it came."""
        if not synchronising and not device.told:
            return
        device.told = device.error is not None
        if isinstance(device.error, RuleBroken):
            raise RuleBroken(str(device.error))
        if device.error is not None:
            raise type(device.error)(*device.error.args)

    def submit(self, stream: StreamState, work: Work, waits: Iterable[Operation] = ()) -> Operation | None:
        """Enqueue work, or record it where the stream is being captured (None then)."""
        with self.lock:
            self.check(stream.device)
            if stream.destroyed:
                self.ledger.broken("destroyed-stream", f"{work.label}: {stream} was destroyed.")
            if stream.capture is not None:
                stream.capture.record(work)  # type: ignore[attr-defined]
                return None
            clock, waiting = dict(stream.clock), list(waits)
            for other in self._ordered_with(stream):
                merge(clock, other.clock)
                if other.last is not None:
                    waiting.append(other.last)
            for operation in waiting:
                merge(clock, operation.clock)
            merge(clock, self.known)
            sequence = stream.sequence + 1
            clock[stream.handle] = sequence
            operation = Operation(work, stream, sequence, clock, waiting)
            work.submitted(operation)
            for region in work.regions:
                self._check_order(work, region, clock)
            for region in work.regions:
                access = Access(stream.handle, sequence, region.start, region.stop, region.writes, work.label)
                _remember(region.block.accesses, access, clock)
            stream.sequence, stream.clock, stream.last = sequence, clock, operation
            if work.known is not None:
                self.unknown.append(operation)
            stream.enqueue(operation)
            return operation

    def _ordered_with(self, stream: StreamState) -> list[StreamState]:
        """The streams that the default stream's rules order this one with."""
        if stream.default:
            return [other for other in stream.device.streams if other.blocking and other is not stream]
        return [stream.device.default_stream] if stream.blocking else []

    def _check_order(self, work: Work, region: Region, clock: Clock) -> None:
        accesses = region.block.accesses
        accesses[:] = [a for a in accesses if self.known.get(a.stream, 0) < a.sequence]
        for access in accesses:
            touches = access.start < region.stop and region.start < access.stop
            if touches and (access.writes or region.writes) and clock.get(access.stream, 0) < access.sequence:
                self.ledger.broken(
                    region.rule,
                    f"{work.label} {'writes' if region.writes else 'reads'} {region.what}, which {access.label} on "
                    f"another stream {'writes' if access.writes else 'reads'}, and neither an event nor a synchronise "
                    "orders the two.",
                )

    def learn(self, clock: Clock) -> None:
        """The host has synchronised with all that `clock` covers."""
        with self.lock:
            merge(self.known, clock)
            done = [operation for operation in self.unknown if operation.covered_by(self.known)]
            self.unknown = [operation for operation in self.unknown if not operation.covered_by(self.known)]
            for operation in done:
                if operation.work.known is not None:
                    operation.work.known(operation)

    def wait(self, operations: Iterable[Operation | None], device: DeviceState) -> None:
        """Wait for operations, then raise the device's error, or know them to be done."""
        for operation in operations:
            if operation is not None:
                self.wait_for(operation)
                if device.error is None:
                    self.learn(operation.clock)
        self.check(device, synchronising=True)

    def wait_for(self, operation: Operation) -> None:
        """Wait until an operation is done; the host does not know more by that."""
        if not operation.done.wait(_FOREVER):
            self.ledger.broken("deadlock", f"{operation.work.label} on {operation.stream} never ends.")

    def in_use(self, block: Any) -> str | None:
        """What may still use the block, as far as the host knows."""
        for access in block.accesses:
            if access.stream >= 0 and self.known.get(access.stream, 0) < access.sequence:
                return str(access.label)
        return None

    def release_primary(self, device: DeviceState) -> None:
        """The last retain was given back: the primary context is destroyed with all that is in it."""
        left = [what for kind, what, index in list(self.alive.values()) if index == device.index and kind not in _SOFT]
        device.generation += 1
        for block in device.memory.alive:
            block.accesses.clear()
            device.memory.free(block)
        for stream in device.streams:
            if not stream.default:
                stream.finish()
        if left and device.error is None and not device.lost:  # after an error nothing can be given back
            self.ledger.broken(
                "released-too-early",
                f"The primary context of device {device.index} was released while these were alive: {', '.join(left)}.",
            )

    def seconds(self, label: str, count: int, device: DeviceState) -> float:
        """How long an execution of the plan `label` on `count` entries of the first axis takes."""
        if callable(self.work):
            units = self.work(label, count)
        elif isinstance(self.work, Mapping):
            units = self.work.get(label, 0.0) * count
        else:
            units = self.work * count
        return units / device.config.speed

    def new_event(self, device: DeviceState, timed: bool) -> EventState:
        return EventState(device, timed)


_FOREVER = 300  # seconds after which work that a test waits for will never end
_SOFT = ("stream", "event")  # pycuda lets them go with their context without a word


def _remember(accesses: list[Access], new: Access, clock: Clock) -> None:
    """Add an access; those that it stands for from now on are dropped."""
    accesses[:] = [
        old
        for old in accesses
        if not (
            new.start <= old.start
            and old.stop <= new.stop
            and clock.get(old.stream, 0) >= old.sequence
            and (new.writes or (not old.writes and old.stream == new.stream))
        )
    ]
    accesses.append(new)


_machine: Machine | None = None


def current_machine() -> Machine:
    """The machine of the emulator that is running."""
    if _machine is None:
        raise RuleBroken("[after-close] No emulator is running.")
    return _machine


def set_machine(machine: Machine | None) -> None:
    global _machine
    _machine = machine
