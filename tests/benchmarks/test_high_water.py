"""What counts as held: memory that is asked for, not pages of files."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.high_water import CLEAR_REFS

HELD = """
import mmap, sys
from benchmarks.high_water import HighWater
before = b"x" * (2 * int(sys.argv[3]))
del before
memory = HighWater()
if sys.argv[1] == "asked":
    held = b"x" * int(sys.argv[3])
    del held
else:
    with open(sys.argv[2], "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        assert sum(mapped[::mmap.PAGESIZE]) == 0
print(memory.peak() - memory.baseline)
"""


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="Linux alone tells it")
@pytest.mark.parametrize("how", ["asked", "mapped"])
def test_what_is_asked_for_counts_and_what_is_mapped_does_not(how: str, tmp_path: Path) -> None:
    size = 64 * 2**20
    path = tmp_path / "weights"
    path.write_bytes(bytes(size))
    command = [sys.executable, "-c", HELD, how, str(path), str(size)]
    held = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert 63 < held < 80 if how == "asked" else held < 16
