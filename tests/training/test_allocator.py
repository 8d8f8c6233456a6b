"""A training on a CPU keeps the memory of a step for the next one."""

import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource
import sys

from training.learning.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytearray(48 << 20), bytearray(1 << 20)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_what_is_freed_is_not_mapped_again() -> None:
    faults = {}
    for what in ("kept", "given back"):
        done = subprocess.run([sys.executable, "-c", _FAULTS, what], check=True, capture_output=True, text=True)
        faults[what] = int(done.stdout)
    assert faults["kept"] < 10 < faults["given back"]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from training.learning import allocator

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not allocator.keep_freed_memory()
