"""Failures made on purpose: the n-th call of something fails, or a device is lost."""

import threading
from dataclasses import dataclass

__all__ = ["Failure", "Failures"]


@dataclass
class Failure:
    """The `after`-th call from now on of `call` (on `device`, None for any) fails, and `times - 1` further ones.

    `error` is an exception to raise, an int that a function of libcuda returns, or None for what the call does by
    itself when it fails (a pycuda error; False or None from TensorRT; code 719).
    """

    call: str
    after: int
    device: int | None
    error: BaseException | int | None
    times: int


class Failures:
    """The failures that are still to come."""

    def __init__(self) -> None:
        self._waiting: list[Failure] = []
        self._lock = threading.Lock()

    def add(self, failure: Failure) -> None:
        with self._lock:
            self._waiting.append(failure)

    def take(self, call: str, device: int | None) -> Failure | None:
        """The failure that this call shall have, if any."""
        with self._lock:
            for failure in self._waiting:
                if failure.call == call and failure.device in (None, device):
                    failure.after -= 1
                    if failure.after <= 0:
                        failure.times -= 1
                        if failure.times <= 0:
                            self._waiting.remove(failure)
                        return failure
        return None

    def strike(self, call: str, device: int | None) -> bool:
        """Whether the call shall fail in its own way; raises where the failure is an exception."""
        failure = self.take(call, device)
        if failure is not None and isinstance(failure.error, BaseException):
            raise failure.error
        if failure is not None and call.startswith("run:"):
            from emulator.errors import LaunchError

            raise LaunchError("cuStreamSynchronize failed: unspecified launch failure")
        return failure is not None

    @property
    def waiting(self) -> list[Failure]:
        return list(self._waiting)
