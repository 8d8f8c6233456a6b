"""pycuda's Stream and Event."""

from enum import IntEnum

from emulator.contexts import Context, activates
from emulator.errors import LogicError
from emulator.machine import Machine, current_machine
from emulator.streams import Operation, StreamState, Work

__all__ = ["Event", "Stream", "event_flags"]

_NON_BLOCKING = 1


class event_flags(IntEnum):
    """CUevent_flags."""

    DEFAULT = 0
    BLOCKING_SYNC = 1
    DISABLE_TIMING = 2
    INTERPROCESS = 4


class Stream:
    """A stream of the current context. `flags` 1 is CU_STREAM_NON_BLOCKING: no order with the default stream."""

    def __init__(self, flags: int = 0) -> None:
        machine = current_machine()
        context: Context = machine.current("cuStreamCreate")
        if machine.enter("Stream", context._device.index):
            raise LogicError("cuStreamCreate failed: out of memory")
        machine.check(context._device)
        self._ward, self._machine = context, machine
        self._state: StreamState = context._device.new_stream(blocking=not flags & _NON_BLOCKING)
        machine.born(self, "stream", context._device.index)

    def __repr__(self) -> str:
        return str(self._state)

    @property
    def handle(self) -> int:
        return self._state.handle

    def synchronize(self) -> None:
        machine = self._here("Stream.synchronize", "cuStreamSynchronize")
        machine.wait([self._state.last], self._state.device)

    def is_done(self) -> bool:
        machine = self._here("Stream.is_done", "cuStreamQuery")
        last = self._state.last
        if last is not None and not last.done.is_set():
            return False
        machine.wait([last], self._state.device)
        return True

    def wait_for_event(self, evt: "Event") -> None:
        machine = self._here("Stream.wait_for_event", "cuStreamWaitEvent", in_capture=True)
        event = evt._event
        if self._state.capture is not None:
            if event.captured is not self._state.capture:
                self._state.capture.invalid = True  # type: ignore[attr-defined]
                machine.ledger.broken(
                    "foreign-event-in-capture", f"{self!r} is being captured and waits for an event from outside."
                )
            return
        if event.marker is not None:  # an event that was never recorded holds nobody up
            machine.submit(self._state, Work("wait", "wait_for_event"), [event.marker])

    def _here(self, call: str, function: str, in_capture: bool = False) -> Machine:
        machine = current_machine()
        machine.current(call, self._state.device.index)
        if machine.enter(call, self._state.device.index):
            raise LogicError(f"{function} failed: unknown error")
        if self._state.capture is not None and not in_capture:
            self._state.capture.invalid = True  # type: ignore[attr-defined]
            machine.ledger.broken("synchronise-in-capture", f"{call}(): {self!r} is being captured.")
        return machine

    def __del__(self) -> None:
        if not hasattr(self, "_state") or self._machine.closed:
            return
        if self._state.capture is not None:
            self._machine.ledger.note("destroyed-in-capture", f"{self!r} was destroyed while it was being captured.")
        if activates(self._ward, repr(self), quiet=True) or not self._ward._valid:
            self._machine.dead(self)
            self._state.finish()


class Event:
    """A point in a stream's work."""

    def __init__(self, flags: int = 0) -> None:
        machine = current_machine()
        context: Context = machine.current("cuEventCreate")
        if machine.enter("Event", context._device.index):
            raise LogicError("cuEventCreate failed: out of memory")
        machine.check(context._device)
        self._ward, self._machine = context, machine
        self._event = machine.new_event(context._device, timed=not flags & event_flags.DISABLE_TIMING)
        machine.born(self, "event", context._device.index)

    def __repr__(self) -> str:
        return f"event {self._event.handle:#x} of device {self._event.device.index}"

    def record(self, stream: Stream | None = None) -> "Event":
        machine = self._enter("Event.record")
        context = machine.current("cuEventRecord")
        state = context._device.default_stream if stream is None else stream._state
        if state.device is not self._event.device or state.device is not context._device:
            machine.ledger.broken(
                "wrong-device",
                f"{self!r} is recorded on {state} while device {context._device.index} is current: they must agree.",
            )
        if state.capture is not None:
            self._event.captured = state.capture
        else:
            self._event.captured = None
            self._event.marker = machine.submit(state, Work("event", "Event.record"))
        return self

    def synchronize(self) -> "Event":
        marker = self._marker("Event.synchronize")
        if marker is not None:
            self._machine.wait([marker], self._event.device)
        return self

    def query(self) -> bool:
        marker = self._marker("Event.query")
        if marker is None:
            return True
        if not marker.done.is_set():
            return False
        self._machine.wait([marker], self._event.device)
        return True

    def time_since(self, event: "Event") -> float:
        """Milliseconds from `event` to this one."""
        ends = []
        for each in (event, self):
            marker = each._marker("Event.time_since")
            if not each._event.timed or marker is None:
                raise LogicError("cuEventElapsedTime failed: invalid resource handle")
            if not marker.done.is_set():
                raise LogicError("cuEventElapsedTime failed: device not ready")
            ends.append(marker.end)
        if event._event.device is not self._event.device:
            self._machine.ledger.broken("wrong-device", "Event.time_since(): the events are of different devices.")
        return (ends[1] - ends[0]) * 1e3

    def time_till(self, event: "Event") -> float:
        """Milliseconds from this event to `event`."""
        return event.time_since(self)

    def _enter(self, call: str) -> Machine:
        if self._machine.enter(call, self._event.device.index):
            raise LogicError(f"{call} failed: unknown error")
        return self._machine

    def _marker(self, call: str) -> Operation | None:
        machine = self._enter(call)
        machine.current(call)
        if self._event.captured is not None:
            machine.ledger.broken("synchronise-in-capture", f"{call}(): the event was recorded in a capture.")
        return self._event.marker

    def __del__(self) -> None:
        if not hasattr(self, "_event") or self._machine.closed:
            return
        if activates(self._ward, repr(self), quiet=True) or not self._ward._valid:
            self._machine.dead(self)
