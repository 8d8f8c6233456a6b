"""How much memory this process comes to hold from a moment on, as Linux tells it."""

from pathlib import Path

__all__ = ["CLEAR_REFS", "HighWater"]

_STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


class HighWater:
    """The high-water mark of a process whose libraries and weights are loaded, in MiB; `baseline` is what it holds now.

    Pages of files that come in later are not counted: they are libraries and mapped weights, which some contestants
    touch when they load and others with the first frame. Where the most was held before they came in, it is too little.
    """

    def __init__(self) -> None:
        if not CLEAR_REFS.exists():
            raise SystemExit(f"There is no {CLEAR_REFS}, which forgets a high-water mark: measure memory on Linux.")
        self.baseline, self._files = _status_mib("VmRSS"), _mapped_mib()
        CLEAR_REFS.write_text("5")  # forgets the mark that loading left

    def peak(self) -> float:
        """MiB held at most since then."""
        return _status_mib("VmHWM") - max(0.0, _mapped_mib() - self._files)


def _mapped_mib() -> float:
    return _status_mib("RssFile") + _status_mib("RssShmem")  # the latter of files in memory


def _status_mib(field: str) -> float:
    """A memory field of this process, which Linux alone has."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"{_STATUS} has no {field}, as Linux's has: measure memory there.")
