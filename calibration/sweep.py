"""`--method auto`: every method is scored, then what can be done to the weights, and the best is taken."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from calibration.recipes import Recipe
from calibration.score import Budget, Measured

__all__ = ["HELPS", "Tried", "best_of", "sweep"]

HELPS = 0.02
"""Points of mIoU that bias correction or equalisation must gain to be kept: less is chance."""


@dataclass(frozen=True)
class Tried:
    """A recipe and what it scored."""

    recipe: Recipe
    measured: Measured


def sweep(
    methods: Iterable[str],
    measure: Callable[[Recipe], Measured],
    budget: Budget,
    log: Callable[[Tried], None] = lambda tried: None,
) -> tuple[Recipe, list[Tried]]:
    """The best recipe, and all that were tried in order."""
    rows: list[Tried] = []

    def attempt(recipe: Recipe) -> Tried:
        rows.append(Tried(recipe, measure(recipe)))
        log(rows[-1])
        return rows[-1]

    best = best_of([attempt(Recipe(method)) for method in methods], budget)
    for change in (_corrected, _equalised):
        tried = attempt(change(best.recipe))
        if tried.measured.miou >= best.measured.miou + HELPS:
            best = tried
    return best.recipe, rows


def _corrected(recipe: Recipe) -> Recipe:
    return replace(recipe, corrected=True)


def _equalised(recipe: Recipe) -> Recipe:
    return replace(recipe, equalised=True)


def best_of(rows: Iterable[Tried], budget: Budget) -> Tried:
    """The highest mIoU among those within the budget, or among all where none is; of equals, the most labels equal."""
    return max(rows, key=lambda row: (budget.is_met(row.measured), row.measured.miou, row.measured.agreement))
