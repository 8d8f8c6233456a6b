"""One clock for a live source, whatever its connections' clocks do."""

__all__ = ["SourceClock"]

BACK_S, AHEAD_S = 1.0, 10.0
"""A clock that goes back by more than the first, or ahead by more than the second beside the time that has passed, was
set anew: another sender took over on the same UDP port, or a counter ran over."""


class SourceClock:
    """Times that only grow, in seconds from 0: the stream's own steps, and the wall clock's across an outage or a jump.

    `began` and all `captured_at` are of one clock (`time.perf_counter`). A jump is seen in a single step, so that a
    stream's clock may run slower or faster than the wall's for days.
    """

    def __init__(self, began: float) -> None:
        self._began, self._time_s = began, -1.0
        self._shift_s: float | None = 0.0  # from the connection's clock to this one; None where it is to be found anew
        self._last: tuple[float, float] | None = None  # the last frame's own time and capture

    def interrupt(self) -> None:
        """The next frame is of another connection, whose clock is its own."""
        self._shift_s = self._last = None

    def time_s(self, position_s: float | None, captured_at: float) -> float:
        """The time of a frame with `position_s` on its connection's clock (None where it has none)."""
        elapsed = captured_at - self._began
        own = elapsed if position_s is None else position_s
        if self._last is not None:
            step, passed = own - self._last[0], captured_at - self._last[1]
            if step < -BACK_S or step > passed + AHEAD_S:
                self._shift_s = None
        if self._shift_s is None:
            self._shift_s = max(elapsed, self._time_s) - own
        self._last = own, captured_at
        # Some clocks stand still or jitter; a record's times must not.
        self._time_s = max(own + self._shift_s, self._time_s + 0.001)
        return round(self._time_s, 6)
