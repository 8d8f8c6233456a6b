"""The cheapest mixed precision within a budget: all layers int8, then as few of them as possible back in float.

Layers go back in the order of what each costs alone for a multiply-add, until the budget is met; then each is tried in
int8 once more, the largest first, since the last ones may have done what the first were taken back for. Tries are
scored on some of the pixels, and what is to be believed on all. The search is greedy: where it finds nothing, there may
be something.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from calibration.score import Budget, Measured

__all__ = ["GOAL_SHARE", "LEAST_SHARE", "Found", "Step", "order_of_return", "search"]

LEAST_SHARE = 0.9
"""Of the multiply-adds that must stay int8: with less there is little left to gain by it."""

GOAL_SHARE = 0.95
"""Of the multiply-adds that should; what lies between the two is accepted and said."""


@dataclass(frozen=True)
class Step:
    """One try: what was done, the layers that are float then, the share of multiply-adds in int8, the score."""

    action: str
    left_out: tuple[str, ...]
    share: float
    measured: Measured
    met: bool


@dataclass(frozen=True)
class Found:
    """The layers left out and every step. Where `met` is false, `left_out` is the try that used the budget least."""

    left_out: frozenset[str]
    met: bool
    steps: tuple[Step, ...]


def order_of_return(alone: Mapping[str, Measured], work: Mapping[str, int], budget: Budget) -> list[str]:
    """Layers by the share of the budget that each uses alone for a multiply-add, the dearest first.

    What costs nothing measurable is in the order of the labels that it changes.
    """

    def cost(name: str) -> tuple[float, float]:
        used = max(0.0, budget.share_used(alone[name]))
        return used / work[name], (1 - alone[name].agreement) / work[name]

    return sorted(alone, key=cost, reverse=True)


def search(
    order: Collection[str],
    work: Mapping[str, int],
    total: int,
    budget: Budget,
    measure: Callable[[frozenset[str]], Measured],
    full: Callable[[frozenset[str]], Measured] | None = None,
    least_share: float = LEAST_SHARE,
    log: Callable[[Step], None] = lambda step: None,
) -> Found:
    """Take layers back in `order`. `work` has their multiply-adds, `total` the network's.

    `measure(left_out)` scores, and `full(left_out)` decides: on all int8, on what is within the budget by the other,
    and where nothing is, on the try that is nearest to it. A layer that would bring the share of int8 below
    `least_share` is passed over.
    """
    steps: list[Step] = []
    refused: set[frozenset[str]] = set()
    """What `full` has found beyond the budget."""

    def attempt(action: str, left_out: frozenset[str], at_once: bool = False) -> bool:
        measured = None if full and at_once else measure(left_out)
        if full and (measured is None or budget.is_met(measured)):
            measured = full(left_out)
            if not budget.is_met(measured):
                refused.add(left_out)
        assert measured is not None
        step = Step(action, tuple(sorted(left_out)), share(left_out), measured, budget.is_met(measured))
        steps.append(step)
        log(step)
        return step.met

    def share(left_out: frozenset[str]) -> float:
        return (sum(work.values()) - sum(work[name] for name in left_out)) / total

    left: frozenset[str] = frozenset()
    met = attempt("all int8", left, at_once=True)
    for name in order:
        if met:
            break
        if share(left | {name}) >= least_share:
            left |= {name}
            met = attempt(f"{name} back to float", left)
    tries = [step for step in steps if frozenset(step.left_out) not in refused]
    if not met and full and tries:
        left = frozenset(min(tries, key=lambda step: budget.share_used(step.measured)).left_out)
        met = attempt("the nearest, on all pixels", left, at_once=True)
    if not met:
        sure = [step for step in steps if frozenset(step.left_out) in refused] or steps
        best = min(sure, key=lambda step: budget.share_used(step.measured))
        return Found(frozenset(best.left_out), False, tuple(steps))
    for name in sorted(left, key=lambda name: -work[name]):
        tried = {step.left_out for step in steps}
        if tuple(sorted(left - {name})) not in tried and attempt(f"{name} int8 again", left - {name}):
            left -= {name}
    return Found(left, True, tuple(steps))
