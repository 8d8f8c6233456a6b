"""The emulator as a test uses it: installs the stand-ins, takes them away, and tells what was broken or left."""

import gc
import importlib
import importlib.abc
import importlib.machinery
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from emulator.device import EmulatedDevice
from emulator.failures import Failure
from emulator.libcuda import LibCuda
from emulator.machine import Machine, WorkUnits, current_machine, set_machine
from emulator.modules import AUTOINIT, MODULES
from emulator.rules import Ledger, RuleBroken, Violation
from emulator.timeline import Timeline

__all__ = ["Emulator"]

_PYCUDA_VERSION = "2026.1"
_UNTIL_THE_END = 60  # seconds for all streams to do what is still enqueued


class Emulator:
    """Stand-ins for `tensorrt`, `pycuda.driver` and libcuda, between `with` and its end (or `start` and `close`).

    `work` are the work units of an execution for each entry of its first input's first axis, for all plans or by the
    plan's name (the ONNX graph's), or a function of name and entries that gives the execution's units; a unit takes a
    second on a device of speed 1. `version` is TensorRT's. Rules in `tolerate` give their documented result (False,
    None, a code) instead of an exception. `keep_parents=False` lets a Runtime go before its engine, and an engine
    before its context, which C++ forbids and which the real Python bindings prevent.
    """

    def __init__(
        self,
        devices: Sequence[EmulatedDevice] = (EmulatedDevice(),),
        work: WorkUnits = 0.0,
        version: str = "10.13.0",
        driver: tuple[int, int] = (12, 8),
        tolerate: Collection[str] = (),
        keep_parents: bool = True,
    ) -> None:
        self._ledger = Ledger(tolerate)
        self._machine = Machine(devices, self._ledger, work, version, driver)
        self._machine.keep_parents = keep_parents
        self._saved: dict[str, Any] = {}
        self._folder: Path | None = None
        self._finder = _NoAutoinit(self._ledger)
        self._replaced: list[tuple[Any, Any]] = []
        self.libcuda = LibCuda(self._machine)

    @property
    def timeline(self) -> Timeline:
        """What ran when."""
        return self._machine.timeline

    @property
    def violations(self) -> list[Violation]:
        """The rules broken so far, but for those that `expected` took away."""
        return list(self._ledger.violations)

    @property
    def tolerated(self) -> list[Violation]:
        """Broken rules of `tolerate`."""
        return list(self._ledger.tolerated)

    def expected(self, rule: str) -> AbstractContextManager[None]:
        """The block must break `rule` (its short name); the exception and the record of it are taken away."""
        return self._ledger.expected(rule)

    def fail(
        self,
        call: str,
        after: int = 1,
        device: int | None = None,
        error: BaseException | int | None = None,
        times: int = 1,
    ) -> None:
        """Make the `after`-th `call` from now on fail, and the next `times - 1`.

        `call` is a function's name (`mem_alloc`, `execute_async_v3`, `cuGraphLaunch`), a class's (`Stream`), a
        method's (`Stream.synchronize`, `Event.record`, `Context.synchronize`), or `run:compute`, `run:h2d`, `run:d2h`
        for what fails on the stream's thread and shows at the next synchronise. `error` is an exception to raise or the
        code of a libcuda function; otherwise the call fails as it documents: a pycuda error, False or None, code 719.
        """
        self._machine.failures.add(Failure(call, after, device, error, times))

    def lose(self, device: int) -> None:
        """The device falls off the bus: every further call on it fails."""
        from emulator.errors import LaunchError

        state = self._machine.devices[device]
        state.lost = state.told = True
        state.error = LaunchError("cuStreamSynchronize failed: unspecified launch failure (the device is lost)")

    def memory_used(self, device: int = 0) -> int:
        """Bytes of device memory that are allocated, contexts' own included."""
        return self._machine.devices[device].memory.used

    def alive(self) -> list[str]:
        """What was made and is not gone yet, in words."""
        return [what for _, what, _ in list(self._machine.alive.values())]

    @property
    def left_current(self) -> int:
        """How many contexts were released while they were current and are on CUDA's stack of their thread still."""
        return sum(len(handles) for handles in self._machine.stale.values())

    def contents(self, address: int, size: int, device: int = 0) -> bytes:
        """What lies in device memory now, whatever is in flight. For assertions about what is NOT there yet."""
        block, start = self._machine.devices[device].memory.find(address, size, "Emulator.contents")
        return block.data[start : start + size].tobytes()

    def start(self) -> "Emulator":
        try:
            current_machine()
        except RuleBroken:
            pass
        else:
            raise RuleBroken("[two-emulators] Another emulator is running: close it first.")
        set_machine(self._machine)
        self._saved = {name: sys.modules.get(name) for name in [*MODULES, AUTOINIT]}
        MODULES["tensorrt"].__version__ = self._machine.version  # type: ignore[attr-defined]
        sys.modules.update(MODULES)
        sys.modules.pop(AUTOINIT, None)
        sys.meta_path.insert(0, self._finder)
        self._folder = _distributions({"tensorrt": self._machine.version, "pycuda": _PYCUDA_VERSION})
        sys.path.insert(0, str(self._folder))
        importlib.invalidate_caches()
        self._replace_libcuda()
        return self

    def close(self, check_leaks: bool = True) -> None:
        """Take everything away. Raises RuleBroken for what was broken or, if asked for, is still alive."""
        machine = self._machine
        if machine.closed:
            return
        if machine.alive:
            gc.collect()  # what only a cycle still holds is no leak
        for device in machine.devices:
            for stream in device.streams:
                stream.finish()
        end = time.monotonic() + _UNTIL_THE_END
        for device in machine.devices:
            for stream in device.streams:
                stream.thread.join(max(0.0, end - time.monotonic()))
                if stream.thread.is_alive():
                    self._ledger.note("deadlock", f"{stream} still waits for something when the emulator is closed.")
        if check_leaks:
            self._note_leaks()
        machine.closed = True
        self._uninstall()
        if self._ledger.violations:
            raise RuleBroken("\n".join(str(violation) for violation in self._ledger.violations))

    def __enter__(self) -> "Emulator":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close(check_leaks=False)  # the traceback holds on to what it passed through
        except RuleBroken as broken:
            if hasattr(error, "add_note"):
                error.add_note(f"Rules broken before: {broken}")

    def _note_leaks(self) -> None:
        machine = self._machine
        for kind, what, device in list(machine.alive.values()):
            state = machine.devices[device]
            if kind in ("stream", "event") and state.retained == 0:
                continue  # it went with its context
            if kind != "context" and (state.lost or state.error is not None):
                continue  # after an error nothing can be given back
            self._ledger.note("leak", f"{kind} left alive: {what}.")
        for thread, stack in list(machine.stacks.items()):
            left = [context for context in stack if context._valid]
            if left:
                self._ledger.note(
                    "leak", f"thread {thread.name} ended with {len(left)} contexts pushed: pycuda aborts the process."
                )

    def _replace_libcuda(self) -> None:
        """Put the stand-in in the place of `engines.machine.libcuda`, also where it was imported by name."""
        machine: Any = importlib.import_module("engines.machine")
        original = getattr(machine, "libcuda", None)
        modules: list[tuple[str, Any]] = list(sys.modules.items())
        for name, module in modules:
            if name.startswith("engines.") and module is not None and "libcuda" in vars(module):
                self._replaced.append((module, module.libcuda))
                module.libcuda = self._library
        if original is None:
            self._replaced.append((machine, None))
            machine.libcuda = self._library

    def _library(self) -> LibCuda:
        return self.libcuda

    def _uninstall(self) -> None:
        set_machine(None)
        original = next((libcuda for _, libcuda in self._replaced if libcuda is not None), None)
        modules: list[tuple[str, Any]] = list(sys.modules.items())
        for name, module in modules:
            # also those that were imported while the stand-in stood in
            if name.startswith("engines.") and module is not None and vars(module).get("libcuda") == self._library:
                if original is None:
                    del module.libcuda
                else:
                    module.libcuda = original
        sys.meta_path.remove(self._finder)
        for name, module in self._saved.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
        if self._folder is not None:
            sys.path.remove(str(self._folder))
            shutil.rmtree(self._folder, ignore_errors=True)
        importlib.invalidate_caches()


class _NoAutoinit(importlib.abc.MetaPathFinder):
    """`import pycuda.autoinit` is a broken rule."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname == AUTOINIT:
            self._ledger.broken(
                "second-context",
                "pycuda.autoinit makes a second context beside TensorRT's: use Device(i).retain_primary_context().",
            )
        return None


def _distributions(versions: dict[str, str]) -> Path:
    """A folder that makes importlib.metadata know these distributions."""
    folder = Path(tempfile.mkdtemp(prefix="emulator-"))
    for name, version in versions.items():
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder
