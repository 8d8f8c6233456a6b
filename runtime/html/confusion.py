"""Confusion matrices as heat maps in tables, each row in percent of its class's pixels, and the largest confusions."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.html.elements import Child, Element, element
from runtime.html.tables import Cell, percent, table

__all__ = ["difference_map", "heat_map", "largest_confusions"]

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]

LARGEST = 12


def heat_map(name: str, caption: str, classes: Sequence[str], confusion: Counts) -> Element:
    """A table int64 [C,C] of pixels by truth (rows) and prediction (columns), the darker the more of the row.

    Each cell's exact value is its count of pixels.
    """
    shares = _of_rows(confusion)

    def cell(row: int, column: int) -> Cell:
        count, share = int(confusion[row, column]), float(shares[row, column])
        # The root shows a confusion of a few percent, which is what one looks for beside a diagonal of nearly 100.
        return Cell([f"{100 * share:.0f}"], count, f"--heat: {share**0.5:.3f}", "heat") if count else Cell([], 0)

    return _square(name, caption, classes, cell)


def difference_map(name: str, caption: str, classes: Sequence[str], reference: Counts, engine: Counts) -> Element:
    """By how many points the engine's shares differ from the reference's; in two colours, for better and worse.

    Better is more on the diagonal and less beside it. Each cell's exact value is the difference of shares.
    """
    change = _of_rows(engine) - _of_rows(reference)
    largest = float(np.abs(change).max()) or 1.0

    def cell(row: int, column: int) -> Cell:
        value = float(change[row, column])
        if not value:
            return Cell([], 0)
        kind = "better" if (value > 0) == (row == column) else "worse"
        text = f"{100 * value:+.2f}"
        return Cell([text], value, f"--heat: {abs(value / largest) ** 0.5:.3f}", f"heat {kind}")

    return _square(name, caption, classes, cell)


def largest_confusions(name: str, classes: Sequence[str], reference: Counts, engine: Counts) -> Element:
    """The engine's largest entries beside the diagonal, with the reference's."""
    beside = engine * (1 - np.eye(len(engine), dtype=np.int64))
    order = np.argsort(-beside, axis=None, kind="stable")[:LARGEST]
    pairs = [divmod(int(index), len(engine)) for index in order]
    shares, expected = _of_rows(engine), _of_rows(reference)
    rows = [
        [
            Cell([classes[truth]], classes[truth]),
            Cell([classes[taken]], classes[taken]),
            Cell([f"{engine[truth, taken]:,}"], int(engine[truth, taken]), kind="number"),
            percent(float(shares[truth, taken])),
            percent(float(expected[truth, taken])),
        ]
        for truth, taken in pairs
        if beside[truth, taken]
    ]
    columns = ["ground truth", "taken for", "pixels", "engine, % of the class", "reference, % of the class"]
    return table(name, "The engine's largest confusions", columns, rows)


def _of_rows(confusion: Counts) -> Shares:
    """Each count over its row's sum; 0 in rows without any."""
    shares: Shares = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    return shares


def _square(name: str, caption: str, classes: Sequence[str], cell: Callable[[int, int], Cell]) -> Element:
    columns: list[Child] = ["truth \\ prediction", *(element("span", each, class_="upright") for each in classes)]
    indices = range(len(classes))
    rows = [[Cell([classes[row]]), *(cell(row, column) for column in indices)] for row in indices]
    return table(name, caption, columns, rows, kind="heat-map")
