"""What a frame will about take, so that what does not fit is left out by name and not found out the hard way."""

from benchmarks.peers.contestants import LIMIT, Contestant
from benchmarks.peers.packages import Case
from benchmarks.peers.rows import Row

__all__ = ["Estimates"]

_SHARE_OF_GEMM = 0.25
"""Of the matrix product's rate that a contestant that was never seen is taken to reach."""
_TENSORS_WHOLE, _TENSORS_STREAMED = 8, 1
"""Peak memory in the largest activations of the network: a whole graph holds a few and an allocator as much again
(measured with Split-Merge Pooling: 3 to 10, see `benchmarks.streaming`), streaming a sixteenth of that."""


class Estimates:
    """Of seconds and MiB: a contestant's own at its last size scaled by the pixels, or the network's size."""

    def __init__(self, gemm_gflops: float) -> None:
        self._gemm_gflops = gemm_gflops
        self._seen: dict[tuple[str, str, int], tuple[int, float, float]] = {}

    def note(self, case: Case, rows: list[Row]) -> None:
        """Remember what rows of a case took."""
        for row in rows:
            if row.median_ms is not None and row.memory_mib is not None:
                key = (row.name, case.network, case.width)
                self._seen[key] = (case.pixels, row.median_ms / 1e3, row.memory_mib)

    def seconds(self, contestant: Contestant, case: Case, multiply_adds: int) -> float:
        seen = self._seen.get((contestant.name, case.network, case.width))
        if contestant.role == LIMIT:
            return 0.0
        if seen:
            return seen[1] * case.pixels / seen[0]
        return 2 * multiply_adds / (_SHARE_OF_GEMM * self._gemm_gflops * 1e9)

    def mib(self, contestant: Contestant, case: Case, largest_mib: float) -> float:
        seen = self._seen.get((contestant.name, case.network, case.width))
        if contestant.role == LIMIT:
            return 0.0
        if seen:
            return seen[2] * case.pixels / seen[0]
        return largest_mib * (_TENSORS_WHOLE if contestant.whole else _TENSORS_STREAMED)

    def refusal(
        self,
        contestant: Contestant,
        case: Case,
        multiply_adds: int,
        largest_mib: float,
        limit_gib: float,
        limit_s: float,
    ) -> str:
        """Why a contestant is left out of a case; empty where it takes part."""
        if contestant.missing:
            return contestant.missing
        gib = self.mib(contestant, case, largest_mib) / 1024
        if gib > limit_gib:
            return f"needs about {gib:.1f} GiB, {limit_gib:.1f} GiB may be used"
        seconds = self.seconds(contestant, case, multiply_adds)
        if seconds > limit_s:
            return f"takes about {seconds:.0f} s a frame, {limit_s:g} s are allowed"
        return ""
