"""The search for a mixed precision, on score functions whose best answer is known."""

from dataclasses import replace
from itertools import chain, combinations

import numpy as np
import pytest

from calibration.recipes import Recipe
from calibration.report import score_table, share_line
from calibration.score import Budget, Measured
from calibration.search import GOAL_SHARE, Step, order_of_return, search
from calibration.sweep import HELPS, sweep

NAMES = [f"layer{i}" for i in range(8)]


def measured(drop: float, agreement: float = 0.999, thin: float = 0.0, miou: float = 70.0) -> Measured:
    return Measured(miou - drop, 50.0, 50.0, drop, thin, "pole", drop, agreement)


class Additive:
    """A network whose layers cost what they cost, whatever the others do."""

    def __init__(self, costs: dict[str, float], work: dict[str, int]) -> None:
        self.costs, self.work, self.asked = costs, work, list[frozenset[str]]()

    def __call__(self, left_out: frozenset[str]) -> Measured:
        assert left_out not in self.asked, "measured twice"
        self.asked.append(left_out)
        return measured(sum(cost for name, cost in self.costs.items() if name not in left_out))

    def order(self, budget: Budget) -> list[str]:
        alone = {name: measured(cost) for name, cost in self.costs.items()}
        return order_of_return(alone, self.work, budget)

    def best(self, budget: float) -> int:
        """The fewest multiply-adds that must leave int8, by looking at all subsets."""
        subsets = chain.from_iterable(combinations(self.costs, n) for n in range(len(self.costs) + 1))
        return min(
            sum(self.work[name] for name in left)
            for left in subsets
            if sum(cost for name, cost in self.costs.items() if name not in left) <= budget
        )


def test_where_all_int8_is_good_enough_nothing_goes_back() -> None:
    network = Additive(dict.fromkeys(NAMES, 0.01), dict.fromkeys(NAMES, 10))
    found = search(NAMES, network.work, 80, Budget(), network)
    assert (found.met, found.left_out, len(found.steps)) == (True, frozenset(), 1)


def test_the_two_fragile_layers_are_found_and_nothing_else() -> None:
    costs = dict.fromkeys(NAMES, 0.005) | {"layer2": 1.0, "layer5": 0.4}
    network = Additive(costs, dict.fromkeys(NAMES, 3))
    logged: list[Step] = []
    found = search(network.order(Budget()), network.work, 24, Budget(), network, None, 0.5, logged.append)
    assert found.met and found.left_out == {"layer2", "layer5"}
    assert [step.action for step in found.steps[:3]] == ["all int8", "layer2 back to float", "layer5 back to float"]
    assert logged == list(found.steps)
    assert found.steps[2].share == 18 / 24


def test_what_the_first_went_back_for_the_last_may_have_done() -> None:
    # per multiply-add `small` is dearer, and `large`, which must go anyhow, is enough
    network = Additive({"small": 0.05, "large": 0.3}, {"small": 1, "large": 10})
    found = search(network.order(Budget()), network.work, 1000, Budget(), network, None, 0.0)
    assert found.met and found.left_out == {"large"}
    assert found.steps[-1].action == "small int8 again" and found.steps[-1].met


@pytest.mark.parametrize("seed", range(20))
def test_random_costs(seed: int) -> None:
    random = np.random.default_rng(seed)
    equal = seed % 2 == 0
    work = {name: 10 if equal else int(random.integers(1, 50)) for name in NAMES}
    network = Additive({name: float(random.exponential(0.05)) for name in NAMES}, work)
    found = search(network.order(Budget()), work, sum(work.values()), Budget(), network, None, 0.0)
    left = sum(work[name] for name in found.left_out)
    assert found.met and network(found.left_out | {"checked"}).miou_drop <= 0.1
    best = network.best(0.1)
    assert left == best if equal else best <= left <= 2 * best + max(work.values())
    for name in found.left_out:  # none of them could have stayed
        assert sum(cost for n, cost in network.costs.items() if n not in found.left_out - {name}) > 0.1


def test_not_below_the_least_share() -> None:
    costs = dict.fromkeys(NAMES, 0.0) | {"layer0": 1.0, "layer1": 0.001}
    work = dict.fromkeys(NAMES, 10) | {"layer0": 50}
    network = Additive(costs, work)
    found = search(network.order(Budget()), work, 120, Budget(), network, None, 0.9)
    assert not found.met
    assert all(step.share >= 0.9 and "layer0" not in step.left_out for step in found.steps)
    assert found.left_out == {"layer1"}  # the nearest to the budget


def test_layers_that_are_never_int8_count_in_the_share() -> None:
    network = Additive({"a": 0.0}, {"a": 60})
    assert search(["a"], network.work, 100, Budget(), network).steps[0].share == 0.6


def test_order_is_cost_for_a_multiply_add_then_labels_changed() -> None:
    alone = {
        "large": measured(0.2),
        "small": measured(0.1),
        "harmless": measured(-0.1, agreement=0.99),
        "nothing": measured(-0.2, agreement=1.0),
        "thin": measured(0.0, thin=3.0),
    }
    work = {"large": 100, "small": 10, "harmless": 10, "nothing": 10, "thin": 10}
    any_labels = Budget(agreement=None)
    assert order_of_return(alone, work, any_labels) == ["thin", "small", "large", "harmless", "nothing"]
    # labels count, too: 1 % of them is twice what may change
    assert order_of_return(alone, work, Budget()) == ["thin", "harmless", "small", "large", "nothing"]


def test_budgets_say_what_is_exceeded() -> None:
    assert Budget().is_met(measured(0.1)) and Budget().is_met(measured(0.0, thin=0.3))
    (words,) = Budget().exceeded(measured(0.2))
    assert words == "mIoU falls by 0.200 points (0.1 allowed)"
    (words,) = Budget().exceeded(measured(0.0, thin=0.5))
    assert "pole by 0.500" in words
    labels = Budget(None, None, None, 0.995)
    assert labels.is_met(measured(50.0, agreement=0.995)) and not labels.is_met(measured(0.0, agreement=0.99))
    assert labels.share_used(measured(9.0, agreement=0.99)) == pytest.approx(2)


def test_the_sweep_takes_the_best_and_changes_weights_only_where_it_helps() -> None:
    scores = {
        Recipe("minmax"): measured(0.05),
        Recipe("mse"): measured(0.02),
        Recipe("entropy"): measured(-0.5, thin=2.0),  # a higher mIoU, and a thin class that is gone
        Recipe("mse", corrected=True): measured(0.02 - 0.9 * HELPS),
        Recipe("mse", equalised=True): measured(0.02 - 1.1 * HELPS),
    }
    best, rows = sweep(["minmax", "mse", "entropy"], scores.__getitem__, Budget())
    assert best == Recipe("mse", equalised=True)
    assert [tried.recipe for tried in rows] == list(scores)
    scores[Recipe("mse", equalised=True)] = measured(0.02)
    assert sweep(["minmax", "mse", "entropy"], scores.__getitem__, Budget())[0] == Recipe("mse")


def test_only_what_all_pixels_say_is_believed() -> None:
    # Some of the pixels find all int8 within the budget, all of them find that layer1 must go.
    work = dict.fromkeys(NAMES, 10)
    coarse = Additive(dict.fromkeys(NAMES, 0.0), work)
    full = Additive(dict.fromkeys(NAMES, 0.0) | {"layer1": 0.4}, work)
    found = search(NAMES, work, 80, Budget(), coarse, full, 0.5)
    assert found.met and found.left_out == {"layer1"}
    believed = [step for step in found.steps if step.met]
    assert believed and all(step.measured == full_score(full, step) for step in believed)


def full_score(network: Additive, step: Step) -> Measured:
    return measured(sum(cost for name, cost in network.costs.items() if name not in step.left_out))


@pytest.mark.parametrize("enough", [True, False])
def test_before_giving_up_the_nearest_try_is_scored_on_all_pixels(enough: bool) -> None:
    # A few pixels never find the budget met. On all of them it is, or not, without layer0.
    work = dict.fromkeys(NAMES, 10)
    coarse = Additive(dict.fromkeys(NAMES, 0.02) | {"layer0": 0.3, "layer1": 0.12}, work)
    full = Additive(dict.fromkeys(NAMES, 0.0) | {"layer0": 0.2, "layer2": 0.05 if enough else 0.15}, work)
    found = search(["layer0", "layer1"], work, 80, Budget(), coarse, full, 0.75)
    assert found.met == enough
    assert [step.action for step in found.steps][3] == "the nearest, on all pixels"
    assert full.asked[:2] == [frozenset(), {"layer0", "layer1"}]
    if enough:
        assert budgeted(found.steps[-1] if found.steps[-1].met else found.steps[3])
    else:
        assert len(found.steps) == 4 and found.left_out == {"layer0", "layer1"}


def budgeted(step: Step) -> bool:
    return step.met and step.measured.miou_drop == pytest.approx(0.05)


def test_each_part_of_the_budget_counts() -> None:
    good = measured(0.0)
    worse = {
        "mIoU falls by 0.200 points (0.1 allowed)": replace(good, miou_drop=0.2),
        "the thin class pole by 0.400 (0.3 allowed)": replace(good, thin_drop=0.4),
        "boundary IoU falls by 0.400 (0.3 allowed)": replace(good, boundary_drop=0.4),
        "99.400% of the labels are float32's (99.500% asked for)": replace(good, agreement=0.994),
    }
    assert Budget().is_met(good) and Budget().share_used(good) < 1
    for words, bad in worse.items():
        assert Budget().exceeded(bad) == [words] and Budget().share_used(bad) > 1
        assert Budget(None, None, None, None).is_met(bad)


def test_little_int8_is_said() -> None:
    assert GOAL_SHARE == 0.95
    assert share_line(0.951, [], "fp16") == "int8: 95.10% of the multiply-adds"
    words = share_line(0.93, ["b", "a"], "fp32")
    assert words == "int8: 93.00% of the multiply-adds (less than the 95% that it should be); a, b in fp32"


def test_drops_that_are_no_differences_are_explained() -> None:
    float32 = replace(measured(0.0), miou=70.0)
    assert "(drops are means" not in score_table(float32, {"int8": replace(measured(0.2), miou=69.8)})
    assert "(drops are means" in score_table(float32, {"int8": replace(measured(0.2), miou=66.5)})
