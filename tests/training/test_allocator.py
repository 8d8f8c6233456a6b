"""A training on a CPU keeps the memory of a step for the next one."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from toy_pictures import toy_set

from training.loop import TrainConfig, train

_FAULTS = """
import resource
import sys

from training.learning.allocator import keep_freed_memory

kept = sys.argv[1] == "kept" and keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytearray(48 << 20), bytearray(1 << 20)]
    del blocks
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_what_is_freed_is_not_mapped_again() -> None:
    """With glibc; another C library says that it does not keep it."""
    kept, faults = {}, {}
    for what in ("kept", "given back"):
        done = subprocess.run([sys.executable, "-c", _FAULTS, what], check=True, capture_output=True, text=True)
        kept[what], faults[what] = map(int, done.stdout.split())
    glibc = platform.libc_ver()[0] == "glibc"
    assert kept == {"kept": int(glibc), "given back": 0}
    assert (faults["kept"] < 10) == glibc and faults["given back"] > 10


def test_trainings_ask_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("training.loop.keep_freed_memory", lambda: asked.append(True))
    config = TrainConfig(model="fcn32s-18", width=2, crop=(32, 32), batch=2, steps=1, validate_every=1, device="cpu")
    train(config, toy_set(2, 1), toy_set(1, 2), tmp_path)
    assert asked == [True]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from training.learning import allocator

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not allocator.keep_freed_memory()
