"""What counts as held: memory that is asked for, not pages of files."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import high_water
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


@pytest.mark.parametrize("how", ["asked", "mapped"])
def test_what_is_asked_for_counts_and_what_is_mapped_does_not(how: str, tmp_path: Path) -> None:
    size = 64 * 2**20
    path = tmp_path / "weights"
    path.write_bytes(bytes(size))
    command = [sys.executable, "-c", HELD, how, str(path), str(size)]
    done = subprocess.run(command, capture_output=True, text=True)
    if not CLEAR_REFS.exists():
        assert done.returncode == 1 and "measure memory on Linux" in done.stderr
        return
    held = float(done.stdout)
    assert 63 < held < 80 if how == "asked" else held < 16


def test_elsewhere_than_on_linux_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(high_water, "CLEAR_REFS", Path("/nowhere/clear_refs"))
    with pytest.raises(SystemExit, match=r"There is no /nowhere/clear_refs, .*: measure memory on Linux"):
        high_water.HighWater()
