"""Rows of the comparison: what each contestant took, and what follows from it."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.limits import gemm_gflops
from benchmarks.peers.contestants import LIMIT, PEER, Contestant
from benchmarks.peers.turns import Taken
from export.agreement import TIE

__all__ = ["LEAST_AGREEMENT", "Row", "agreements", "rows_of"]

LEAST_AGREEMENT = 0.999
"""Of the pixels that are no near ties: below, a contestant computes something else, and is no peer to be compared."""


@dataclass(frozen=True)
class Row:
    """One contestant in one case. Times are of its rounds; `median_ms`, and `least_ms` to `most_ms` as the spread.

    `memory_mib` is the peak above the loaded model. `agreement` is the share of pixels with this project's label, near
    ties left out where they are known. `times` is how many times as fast it is as the best peer. `gflops` counts two
    operations for each multiply-add of the network as it is written, whatever a contestant really computes, and
    `of_gemm` is their share of the matrix product's rate in the same rounds: fewer operations can take it above 1.
    `notes` are a contestant's own settings: of this project, how the frame was shared out.
    """

    name: str
    role: str
    form: str
    skipped: str = ""
    ms: tuple[float, ...] = ()
    median_ms: float | None = None
    least_ms: float | None = None
    most_ms: float | None = None
    first_ms: float | None = None
    load_s: float | None = None
    loaded_mib: float | None = None
    memory_mib: float | None = None
    agreement: float | None = None
    near_ties: float | None = None
    wrong: bool = False
    times: float | None = None
    gflops: float | None = None
    of_gemm: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Without what is unknown."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "", (), {})}


def rows_of(contestants: Sequence[Contestant], taken: Sequence[Taken | str], multiply_adds: int) -> list[Row]:
    """A row for each contestant, from what it took, or why it was left out."""
    ran = [
        (contestant, took)
        for contestant, took in zip(contestants, taken, strict=True)
        if not isinstance(took, str) and not took.failed
    ]
    shares = agreements([(c.name, took.labels) for c, took in ran if c.role != LIMIT and took.labels])
    medians = {contestant.name: statistics.median(took.ms) for contestant, took in ran}
    right = [c for c, _ in ran if c.role == PEER and not _wrong(shares.get(c.name))]
    best_peer = min((medians[c.name] for c in right), default=None)
    gemm = next((gemm_gflops(c.arguments["size"], medians[c.name] / 1e3) for c, _ in ran if c.role == LIMIT), None)
    rows = []
    for contestant, took in zip(contestants, taken, strict=True):
        row = Row(contestant.name, contestant.role, contestant.form)
        if isinstance(took, str) or took.failed:
            rows.append(Row(row.name, row.role, row.form, skipped=took if isinstance(took, str) else took.failed))
            continue
        rows.append(_row(contestant, took, shares.get(contestant.name), best_peer, gemm, multiply_adds))
    return rows


def _row(
    contestant: Contestant,
    took: Taken,
    share: tuple[float, float | None] | None,
    best_peer: float | None,
    gemm: float | None,
    multiply_adds: int,
) -> Row:
    median = statistics.median(took.ms)
    limit = contestant.role == LIMIT
    gflops = gemm if limit else 2 * multiply_adds / median / 1e6
    return Row(
        contestant.name,
        contestant.role,
        contestant.form,
        ms=tuple(took.ms),
        median_ms=round(median, 3),
        least_ms=min(took.ms),
        most_ms=max(took.ms),
        first_ms=took.first_ms,
        load_s=took.load_s,
        loaded_mib=took.baseline_mib,
        memory_mib=None if limit or contestant.runs_at_load else round(took.peak_mib - took.baseline_mib, 1),
        agreement=share[0] if share else None,
        near_ties=share[1] if share else None,
        wrong=_wrong(share),
        times=None if limit or best_peer is None else round(best_peer / median, 3),
        gflops=None if gflops is None else round(gflops, 2),
        notes=took.notes,
        of_gemm=None if limit or gemm is None or gflops is None else round(gflops / gemm, 4),
    )


def _wrong(share: tuple[float, float | None] | None) -> bool:
    return share is not None and share[0] < LEAST_AGREEMENT


def agreements(named: Sequence[tuple[str, Path]]) -> dict[str, tuple[float, float | None]]:
    """Of each contestant the share of decided pixels with the first one's label, and the share of near ties in all.

    A pixel is decided where the two best logits lie more than `export.agreement.TIE` apart; without logits all count.
    """
    maps = {}
    decided: NDArray[np.bool_] | None = None
    for name, path in named:
        with np.load(path) as saved:
            maps[name] = saved["labels"]
            if decided is None and "margins" in saved:
                decided = saved["margins"] > TIE
    if not maps:
        return {}
    expected = next(iter(maps.values()))
    ties = None if decided is None else float(1 - decided.mean())
    kept = np.ones(expected.shape, bool) if decided is None else decided
    return {name: (_share(labels, expected, kept), ties) for name, labels in maps.items()}


def _share(labels: NDArray[np.uint8], expected: NDArray[np.uint8], kept: NDArray[np.bool_]) -> float:
    """0 for labels of another size."""
    if labels.shape != expected.shape or not kept.any():
        return 0.0
    return float((labels == expected)[kept].mean())
