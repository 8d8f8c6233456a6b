"""What is raised when a rule is broken, and the record of it that swallowing the exception does not erase."""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Ledger", "RuleBroken", "Violation"]


class RuleBroken(AssertionError):
    """The code under test did something that CUDA, pycuda or TensorRT forbids or leaves undefined."""


@dataclass(frozen=True)
class Violation:
    """One broken rule: its short name, and a sentence that says what happened and what is asked."""

    rule: str
    message: str

    def __str__(self) -> str:
        return f"[{self.rule}] {self.message}"


class Ledger:
    """All rules broken so far. Those in `tolerate` give their documented result (False, None, a code) instead."""

    def __init__(self, tolerate: Collection[str] = ()) -> None:
        self.violations: list[Violation] = []
        self.tolerated: list[Violation] = []
        self._tolerate = frozenset(tolerate)
        self._lock = threading.RLock()  # a destructor may note something while this thread does

    def note(self, rule: str, message: str) -> RuleBroken | None:
        """Record a violation and give the exception that says so; None where the rule is tolerated."""
        violation = Violation(rule, message)
        with self._lock:
            if rule in self._tolerate:
                self.tolerated.append(violation)
                return None
            self.violations.append(violation)
        return RuleBroken(str(violation))

    def broken(self, rule: str, message: str) -> None:
        """Record a violation and raise it, in the thread that caused it. Returns where the rule is tolerated."""
        error = self.note(rule, message)
        if error is not None:
            raise error

    @contextmanager
    def expected(self, rule: str) -> Iterator[None]:
        """The block must break `rule`. The exception and the record of it are taken away; others stay."""
        before = len(self.violations)
        try:
            yield
        except RuleBroken as error:
            if f"[{rule}]" not in str(error):
                raise
        with self._lock:
            new = self.violations[before:]
            if not any(violation.rule == rule for violation in new):
                raise AssertionError(f"nothing broke the rule {rule!r}; broken were {[v.rule for v in new]}")
            self.violations[before:] = [violation for violation in new if violation.rule != rule]
