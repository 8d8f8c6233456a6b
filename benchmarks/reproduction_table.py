"""Scores of several seeds as tables, and whether the SMP paper's order is theirs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import methodcaller
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitmerge.labels import CITYSCAPES, THIN_CLASSES
from training.metrics import mean_of_known

__all__ = ["ORDER", "Network", "density_table", "rows_of", "table", "verdict"]

ORDER = ("smp34", "smp18", "fcn8s-18", "fcn32s-18")
"""The SMP paper's Table 2, the best first."""

_THIN = [index for index, entry in enumerate(CITYSCAPES) if entry.name in THIN_CLASSES]

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Network:
    """IoU of each class, 0..1 and float64 [19], by seed and stride; strided networks have the stride 1 alone."""

    model: str
    scores: Mapping[int, Mapping[int, Values]]

    @property
    def strides(self) -> list[int]:
        """From the coarsest to 1."""
        return sorted(next(iter(self.scores.values())), reverse=True)

    def miou(self, stride: int = 1) -> dict[int, float]:
        """Mean IoU by seed."""
        return {seed: mean_of_known(by_stride[stride]) for seed, by_stride in self.scores.items()}

    def thin(self, stride: int = 1) -> dict[int, float]:
        """Mean IoU of the small and thin classes by seed."""
        return {seed: mean_of_known(by_stride[stride][_THIN]) for seed, by_stride in self.scores.items()}

    def of_class(self, index: int) -> dict[int, float]:
        """IoU of one class at full density by seed."""
        return {seed: float(by_stride[1][index]) for seed, by_stride in self.scores.items()}


def in_order(networks: Sequence[Network]) -> list[Network]:
    """In the paper's order, others behind them."""
    places = {model: place for place, model in enumerate(ORDER)}
    return sorted(networks, key=lambda network: (places.get(network.model, len(places)), network.model))


def table(networks: Sequence[Network]) -> str:
    """Markdown: a column per network, in each place the mean over the seeds and, of several, the range."""
    ordered = in_order(networks)
    rows: list[tuple[str, Callable[[Network], dict[int, float]]]] = [
        (f"**mean of {len(CITYSCAPES)} classes**", Network.miou),
        ("**mean of thin classes**", Network.thin),
    ]
    others = [index for index in range(len(CITYSCAPES)) if index not in _THIN]
    for index in (*_THIN, *others):
        name = CITYSCAPES[index].name + (" (thin)" if index in _THIN else "")
        rows.append((name, methodcaller("of_class", index)))
    lines = ["| IoU in % | " + " | ".join(network.model for network in ordered) + " |"]
    lines.append("|---|" + "---:|" * len(ordered))
    lines.append("| seeds | " + " | ".join(", ".join(map(str, sorted(each.scores))) for each in ordered) + " |")
    for name, of in rows:
        lines.append(f"| {name} | " + " | ".join(_cell(of(network)) for network in ordered) + " |")
    return "\n".join(lines)


def density_table(networks: Sequence[Network]) -> str:
    """Markdown: mIoU and thin classes of the networks that have strides, at each, as in `table`; empty without any."""
    ordered = [network for network in in_order(networks) if len(network.strides) > 1]
    if not ordered:
        return ""
    strides = sorted({stride for network in ordered for stride in network.strides}, reverse=True)
    lines = ["| IoU in %, one pixel of every | " + " | ".join(f"{s}x{s}" for s in strides) + " |"]
    lines.append("|---|" + "---:|" * len(strides))
    for network in ordered:
        for word, of in (("mean", network.miou), ("thin classes", network.thin)):
            cells = [_cell(of(stride)) if stride in network.strides else "" for stride in strides]
            lines.append(f"| {network.model}, {word} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(networks: Sequence[Network]) -> tuple[bool, str]:
    """Whether Table 2's order holds in the mean and in every seed, and a sentence that says so or what is against it.

    Two neighbours are compared over the seeds that both have.
    """
    by_model = {network.model: network.miou() for network in networks}
    order = " > ".join(ORDER)
    missing = [model for model in ORDER if model not in by_model]
    if missing:
        return False, f"Whether the order {order} holds cannot be told: there is no finished run of {_listed(missing)}."
    against, seeds = [], set[int]()
    for better, worse in pairwise(ORDER):
        shared = sorted(by_model[better].keys() & by_model[worse].keys())
        if not shared:
            return False, f"Whether the order {order} holds cannot be told: {better} and {worse} share no seed."
        seeds |= set(shared)
        above, below = ([by_model[model][seed] for seed in shared] for model in (better, worse))
        compared = [("the mean", float(np.mean(above)), float(np.mean(below)))]
        compared += [(f"seed {seed}", ours, theirs) for seed, ours, theirs in zip(shared, above, below, strict=True)]
        for where, ours, theirs in compared:
            if not ours > theirs:
                against.append(f"in {where} {better} has {100 * ours:.1f} and {worse} {100 * theirs:.1f}")
    if against:
        return False, f"Table 2's order {order} does not hold: {'; '.join(against)}."
    return True, f"Table 2's order {order} holds in the mean and in every seed ({', '.join(map(str, sorted(seeds)))})."


def rows_of(networks: Sequence[Network], names: Sequence[str]) -> list[dict[str, Any]]:
    """For JSON: a row per network, seed and stride; shares 0..1, null for a class that never occurs."""
    rows: list[dict[str, Any]] = []
    for network in in_order(networks):
        for seed in sorted(network.scores):
            for stride in network.strides:
                values = [None if np.isnan(value) else float(value) for value in network.scores[seed][stride]]
                means = {"miou": network.miou(stride)[seed], "thin": network.thin(stride)[seed]}
                of = {"model": network.model, "seed": seed, "stride": stride}
                rows.append(of | means | {"iou": dict(zip(names, values, strict=True))})
    return rows


def _cell(by_seed: Mapping[int, float]) -> str:
    values = 100 * np.array(list(by_seed.values()))
    mean = f"{values.mean():.1f}"
    return mean if len(values) == 1 else f"{mean} ({values.min():.1f} to {values.max():.1f})"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
