"""TensorRT's messages, kept: its methods return None or False and say why in the log alone."""

import logging
from collections import deque
from typing import Any

__all__ = ["recorder"]


def recorder(trt: Any, most: int | None = None) -> Any:
    """A logger for the module `trt` (tensorrt or tensorrt_rtx) with its `messages`, and `errors` apart: all of them, or
    the last `most`.

    Warnings go on to Python's logging as details.
    """
    severity = trt.ILogger.Severity
    ours = logging.getLogger(__name__)

    # The module is found at run time, so its classes count as Any.
    class Recorder(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: deque[str] = deque(maxlen=most)
            self.errors: deque[str] = deque(maxlen=most)

        def log(self, level: Any, message: str) -> None:
            self.messages.append(message)
            if level in (severity.ERROR, severity.INTERNAL_ERROR):
                self.errors.append(message)
            elif level == severity.WARNING:
                ours.info("%s", message)

        def last_error(self) -> str:
            """Its last error, to be put behind a sentence."""
            return f" ({' '.join(self.errors[-1].split())})" if self.errors else ""

    return Recorder()
