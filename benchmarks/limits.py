"""What this machine reaches at most: the rate of a large float32 matrix product and of copying, on all cores."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from engines.backends import is_installed
from engines.onnxruntime_engine import cores

__all__ = ["GEMM_SIZE", "Limits", "gemm", "gemm_gflops", "measure_limits"]

GEMM_SIZE = 2048
"""Rows and columns of both matrices: 16 MiB each, well beyond the caches, as a library's best case is."""
_COPIED_MIB = 256
_ROUNDS = 5


@dataclass(frozen=True)
class Limits:
    """GFLOP/s count two operations for a multiply-add; GB/s the bytes that are read and those that are written."""

    gemm_gflops: float
    gemm_by: str
    copy_gb_per_s: float

    def __str__(self) -> str:
        return f"Matrix product {self.gemm_gflops:g} GFLOP/s ({self.gemm_by}), copying {self.copy_gb_per_s:g} GB/s"


def measure_limits(size: int = GEMM_SIZE, mib: int = _COPIED_MIB) -> Limits:
    """Medians of a few runs after one to warm up."""
    product, by = gemm(size)
    return Limits(round(gemm_gflops(size, _median_s(product)), 2), by, round(_copy_gb_per_s(mib), 2))


def gemm(size: int) -> tuple[Callable[[], object], str]:
    """A product of two float32 matrices of `size` x `size`, and whose it is: PyTorch's where it is installed."""
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((size, size), np.float32) for _ in range(2))
    if is_installed("torch"):
        import torch

        left, right, out = torch.from_numpy(a), torch.from_numpy(b), torch.empty(size, size)
        return lambda: torch.mm(left, right, out=out), f"PyTorch {torch.__version__}"
    result = np.empty_like(a)
    return lambda: np.matmul(a, b, out=result), f"NumPy {np.__version__}"


def gemm_gflops(size: int, seconds: float) -> float:
    """The rate that a product of `size` x `size` in so many seconds is."""
    return 2 * size**3 / seconds / 1e9


def _copy_gb_per_s(mib: int) -> float:
    """Each core copies a part of its own."""
    sources = np.array_split(np.ones(mib * 2**18, np.float32), cores())
    targets = [np.zeros_like(part) for part in sources]  # written once: their pages are there
    with ThreadPoolExecutor(len(sources)) as pool:
        seconds = _median_s(lambda: list(pool.map(np.copyto, targets, sources)))
    return 2 * sum(part.nbytes for part in sources) / seconds / 1e9


def _median_s(run: Callable[[], object]) -> float:
    run()
    taken = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
