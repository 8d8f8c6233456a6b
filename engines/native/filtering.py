"""A small matrix times vectors, with as few operations as its pairs of points allow.

Minimal filtering's points of evaluation come in pairs a, -a (`export.cpu.winograd`), so that two rows (of the matrices
for inputs) or two columns (of those for outputs) differ in signs alone: what they share is computed once.
"""

from collections.abc import Sequence
from typing import Any

from engines.native.code import Code

__all__ = ["by_pairs_of_columns", "by_pairs_of_rows"]

Row = Sequence[float]


def by_pairs_of_rows(code: Code, matrix: Sequence[Row], values: Sequence[Any]) -> list[Any]:
    """`matrix` times `values`: what two rows have alike is summed up once, so is what they have with other signs."""
    out: dict[int, Any] = {}
    for one, other in _pairs(matrix):
        if other is None:
            out[one] = _sum(code, list(zip(matrix[one], values, strict=True)))
            continue
        rows = list(zip(matrix[one], matrix[other], values, strict=True))
        alike = _sum(code, [(x, value) for x, y, value in rows if x == y])
        unlike = _sum(code, [(x, value) for x, y, value in rows if x != y])
        out[one], out[other] = code.b.fadd(alike, unlike), code.b.fsub(alike, unlike)
    return [out[index] for index in range(len(matrix))]


def by_pairs_of_columns(code: Code, matrix: Sequence[Row], values: Sequence[Any]) -> list[Any]:
    """`matrix` times `values`: of two columns the values' sum and difference are taken once."""
    columns = list(zip(*matrix, strict=True))
    terms: list[list[tuple[float, Any]]] = [[] for _ in matrix]
    for one, other in _pairs(columns):
        if other is None:
            for term, factor in zip(terms, columns[one], strict=True):
                term.append((factor, values[one]))
            continue
        added, subtracted = (operate(values[one], values[other]) for operate in (code.b.fadd, code.b.fsub))
        for term, x, y in zip(terms, columns[one], columns[other], strict=True):
            term.append((x, added if x == y else subtracted))
    return [_sum(code, term) for term in terms]


def _pairs(rows: Sequence[Row]) -> list[tuple[int, int | None]]:
    """Rows that differ in some signs alone, by twos, and the rest."""
    pairs: list[tuple[int, int | None]] = []
    left = list(range(len(rows)))
    while left:
        one = left.pop(0)
        sizes = [abs(number) for number in rows[one]]
        other = next((row for row in left if [abs(number) for number in rows[row]] == sizes), None)
        if other is not None:
            left.remove(other)
        pairs.append((one, other))
    return pairs


def _sum(code: Code, terms: Sequence[tuple[float, Any]]) -> Any:
    """The sum of factors times vectors, plain additions first."""
    present = sorted((term for term in terms if term[0]), key=lambda term: term[0] != 1)
    factor, total = present[0]
    if factor != 1:
        total = code.b.fmul(total, code.floats(factor))
    for factor, value in present[1:]:
        total = code.b.fadd(total, value) if factor == 1 else code.fma(value, code.floats(factor), total)
    return total
