"""What a network's steps are bound to: maps, weights, and memory of their own, of which kernels are told addresses."""

from dataclasses import dataclass

import llvmlite.ir as ir
import numpy as np
from numpy.typing import NDArray

from engines.native.whole import kernels
from engines.native.whole.layout import View
from engines.native.whole.maps import maps_of
from engines.native.whole.network import Floats, Size
from engines.native.whole.plan import NetworkPlan, PlannedStep

__all__ = ["NO_LOW", "ROWS", "Binding", "WholeKernel", "low"]

NO_LOW = float("-inf")
ROWS = 48
"""Pixels at a time at least, for weights are read once for each block of them."""
_SHARES = 4
"""Records of a step for each thread, where there is enough to do: one that other programs keep waiting does less."""


@dataclass(frozen=True)
class WholeKernel:
    """A kernel of `engines.native.whole.kernels`."""

    kind: str
    vectors: int = 0
    added: bool = False

    @property
    def name(self) -> str:
        return f"{self.kind}{self.vectors or ''}{'_added' if self.added else ''}"

    def define(self, module: ir.Module, lanes: int) -> ir.Function:
        match self.kind:
            case "direct":
                return kernels.direct(module, lanes, self.vectors, self.added)
            case "resample":
                return kernels.resample(module, lanes, self.added)
            case _:
                return getattr(kernels, self.kind)(module, lanes)


class Binding:
    """A plan's maps, its weights, and one frame: `frame` uint8 [height,width,channels], `labels` uint8 [height,width],
    for `threads` threads."""

    def __init__(self, plan: NetworkPlan, weights: Floats, threads: int) -> None:
        self.plan, self._weights, self._threads = plan, weights, threads
        self._kept: list[NDArray[np.generic]] = []
        self.maps = maps_of(plan)
        self.frame = np.zeros((plan.height, plan.width, plan.maps[plan.first.map].channels), np.uint8)
        self.labels = np.zeros((plan.height, plan.width), np.uint8)
        self.zeros = np.zeros(max(one.channels for one in plan.maps), np.float32)

    def shares(self, count: int, least: int = ROWS) -> list[tuple[int, int]]:
        """So many things in parts of at least so many, where there is that much to do for each thread."""
        shares = self._threads * min(_SHARES, max(1, count // (self._threads * least)))
        each = max(1, -(-count // shares))
        return [(first, min(count, first + each)) for first in range(0, count, each)]

    def taken(self, place: int, rows: int, length: int) -> tuple[NDArray[np.int32], Floats]:
        """Of each row of a matrix [rows,length] the columns that are not zero, as many for all, and their factors."""
        matrix = self._weights[place : place + rows * length].reshape(rows, length)
        count = max(1, int((matrix != 0).sum(1).max()))
        order = np.argsort(matrix == 0, axis=1, kind="stable")[:, :count]
        return order.astype(np.int32), np.take_along_axis(matrix, order, axis=1)

    def added(self, view: View | None, pixel: int = 0) -> list[int]:
        """A kernel's last arguments."""
        return [] if view is None else [self.address(view, pixel), self.size(view).channels]

    def size(self, view: View) -> Size:
        """Of the map that a view is of."""
        return self.plan.maps[view.map]

    def address(self, view: View, pixel: int = 0) -> int:
        """Where a pixel of a view is."""
        return self.maps[view.map].ctypes.data + 4 * (view.first + pixel * self.size(view).channels)

    def weights_at(self, place: int) -> int:
        """The address of a place in the file of weights."""
        return self._weights.ctypes.data + 4 * place

    def keep(self, array: NDArray[np.generic]) -> int:
        """The address of an array, which is kept as long as this."""
        kept = np.ascontiguousarray(array)
        self._kept.append(kept)
        return kept.ctypes.data


def low(step: PlannedStep) -> float:
    """The least that a step's results may be."""
    return 0.0 if step.relu else NO_LOW
