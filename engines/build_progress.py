"""How far a build is, and how to stop it: TensorRT's progress monitor on a tqdm bar.

TensorRT builds for minutes inside one call that Ctrl-C does not reach. So the call runs in a thread of its own and the
main thread waits, where signals arrive; the monitor then answers TensorRT's next question with "stop".
"""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from tqdm import tqdm

__all__ = ["BuildProgress"]

_Result = TypeVar("_Result")
_POLL_S = 0.1


class BuildProgress:
    """The phases of one build. The bar counts the steps of the outermost phase and names the innermost.

    It is shown where standard error is a terminal.
    """

    def __init__(self, name: str) -> None:
        self._bar = tqdm(desc=name, unit=" steps", leave=False, disable=None)
        self._outermost: str | None = None
        self._lock = threading.Lock()  # TensorRT reports from several threads
        self._cancelled = threading.Event()

    def run(self, build: Callable[[], _Result]) -> _Result:
        """What `build` gives. Where this thread is interrupted meanwhile, stop the build and wait for its end."""
        future: Future[_Result] = Future()
        begin, ended = threading.Event(), threading.Event()

        def work() -> None:
            begin.wait()
            try:
                if not self._cancelled.is_set():
                    future.set_result(build())
            except BaseException as error:
                future.set_exception(error)
            finally:
                ended.set()

        # until `begin` it holds nothing, should a signal come inside `start`
        threading.Thread(target=work, name="build", daemon=True).start()
        try:
            begin.set()
            _wait_for(ended)
            return future.result()
        except BaseException:
            self._cancelled.set()
            raise
        finally:
            begin.set()
            _wait_for(ended)
            self._bar.close()

    def attach(self, trt: Any, config: Any) -> None:
        """Have TensorRT report to this, where its version can."""
        if hasattr(trt, "IProgressMonitor") and hasattr(config, "progress_monitor"):
            config.progress_monitor = _monitor(trt, self)

    def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):  # of a terminal that went away
            if parent is None:
                self._outermost = phase
                self._bar.reset(steps)
            self._bar.set_postfix_str(phase)

    def step_complete(self, phase: str, step: int) -> bool:
        """Whether to go on."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            if phase == self._outermost:
                self._bar.update()
        return not self._cancelled.is_set()

    def phase_finish(self, phase: str) -> None:
        """A phase has ended, also where it was stopped."""


def _wait_for(event: threading.Event) -> None:
    """Wait in short steps: Python raises between two where a signal reached another thread.

    `Thread.join` will not do: in Python 3.11 a thread whose join was interrupted counts as ended and runs on.
    """
    while not event.wait(_POLL_S):
        pass


def _monitor(trt: Any, progress: BuildProgress) -> Any:
    # The module is found at run time, so its classes count as Any.
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.phase_start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step_complete(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            progress.phase_finish(phase_name)

    return Monitor()
