"""Winograd's minimal filtering F(m,3) as matrices: m neighbouring outputs of a 3-tap filter from m + 2 products.

    y = A^T [(G g) * (B^T d)]      d: m + 2 inputs, g: 3 weights, y: m outputs (Lavin and Gray 2016, Eq. 5)

The matrices are Toom-Cook's: polynomials are evaluated at m + 1 points and at infinity, multiplied there and
interpolated (Blahut, "Fast Algorithms for Signal Processing", 5.2), and the algorithm transposed. They are computed in
rational numbers, so that nothing is rounded before the weights are.

In two dimensions a tile of m x n outputs takes (m + 2) (n + 2) products for m n outputs: 1.875 each for 4 x 8, 2.25 for
4 x 4, 4 for 2 x 2, where the convolution itself takes 9.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import NDArray

__all__ = ["POINTS", "Side", "exact_filtering", "filters", "minimal_filtering", "side_of"]

Matrix = NDArray[np.float64]
Rows = list[list[Fraction]]

_TAPS = 3


def _around_zero(*sizes: str) -> tuple[Fraction, ...]:
    return (Fraction(0), *(sign * Fraction(size) for size in sizes for sign in (1, -1)))


POINTS = {
    2: _around_zero("1"),
    4: _around_zero("3/4", "3/2"),
    8: _around_zero("7/16", "13/16", "5/4", "19/8"),
}
"""Points of evaluation by m, which all but minimise what float32 loses (of rounding in d and in the products, by the
norms of the matrices' rows; Barabasz et al. 2020 searched like that) and have few binary digits. With 256 channels
F(4x4) loses 1.3e-6 of the result's deviation, 2.6e-6 with the usual 1 and 2; F(4x8) 5.9e-6; F(8x8) would lose 28e-6."""


def minimal_filtering(m: int) -> tuple[Matrix, Matrix, Matrix]:
    """`A^T` [m,m+2], `G` [m+2,3] and `B^T` [m+2,m+2] of F(m,3), float64."""
    forward, middle, backward = exact_filtering(m)
    return _matrix(forward), _matrix(middle), _matrix(backward)


def exact_filtering(m: int) -> tuple[Rows, Rows, Rows]:
    """The rows of `A^T`, `G` and `B^T` of F(m,3) in rational numbers."""
    points = POINTS[m]
    powers = [[point**power for point in points] + [Fraction(power == m - 1)] for power in range(m)]
    at_points = [[point**tap / _others(points, point) for tap in range(_TAPS)] for point in points]
    inputs = [[*_with_roots([other for other in points if other != point]), Fraction(0)] for point in points]
    at_infinity = [Fraction(0), Fraction(0), Fraction(1)]
    return powers, [*at_points, at_infinity], [*inputs, _with_roots(points)]


class Side:
    """One side (height or width) of a convolution with padding 1, tiled: `inputs` [points,size + 2 * halo] and
    `outputs` [size,points]. The last tile may reach beyond `size`; nothing is computed for that part.

    Without a halo the padding is folded in: what lies outside is zero and has no column.
    """

    def __init__(self, size: int, m: int, halo: bool) -> None:
        forward, _, backward = minimal_filtering(m)
        self.m, self.tiles, step = m, -(-size // m), m + _TAPS - 1
        self.points = self.tiles * step
        inputs = np.zeros((self.points, self.tiles * m + 2))
        self.outputs = np.zeros((size, self.points))
        for tile in range(self.tiles):
            rows = slice(tile * step, (tile + 1) * step)
            inputs[rows, tile * m : tile * m + step] = backward
            within = min(m, size - tile * m)
            self.outputs[tile * m : tile * m + within, rows] = forward[:within]
        self.inputs = inputs[:, : size + 2] if halo else inputs[:, 1 : size + 1]


def side_of(size: int, largest: int, halo: bool = False) -> Side:
    """The tiling of a side by tiles of at most `largest` that takes fewest products, the smaller tiles where two take
    as many: they lose less."""
    return min((Side(size, m, halo) for m in sorted(POINTS) if m <= largest), key=lambda side: side.points)


def filters(weights: NDArray[np.float32], rows: int, columns: int) -> Matrix:
    """Weights `[out,in,3,3]` at the points of F(rows,3) x F(columns,3): float64 `[rows + 2,columns + 2,out,in]`."""
    down, across = minimal_filtering(rows)[1], minimal_filtering(columns)[1]
    at_points: Matrix = np.einsum("ik,jl,ockl->ijoc", down, across, weights.astype(np.float64), optimize=True)
    return at_points


def _others(points: Sequence[Fraction], point: Fraction) -> Fraction:
    return prod((point - other for other in points if other != point), start=Fraction(1))


def _with_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of the monic polynomial with these roots, the constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [up - root * here for up, here in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
    return coefficients


def _matrix(rows: Rows) -> Matrix:
    return np.array([[float(value) for value in row] for row in rows])
