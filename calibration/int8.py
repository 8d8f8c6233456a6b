"""From a package with float32 graphs to one that also holds int8: sweep, score, search, verify, add."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime

from calibration.agreement import Labeller
from calibration.cached import RangesSource
from calibration.package import add_precision
from calibration.ranges import METHODS
from calibration.recipes import Models, Quantiser, Recipe
from calibration.report import measured_line, tried_head
from calibration.score import Budget, Measured, Scorer
from calibration.score_log import ScoreLog, score_log_path
from calibration.scored_images import ScoredImages
from calibration.search import Found, Step, order_of_return, search
from calibration.sensitivity import sensitivity
from calibration.sweep import Tried, sweep
from splitmerge import __version__
from splitmerge.errors import VerificationError
from splitmerge.package import Package

__all__ = ["Int8Options", "Int8Report", "add_int8"]

_SEARCH_STRIDE = 2
_WHOLE_PIXELS = 512 * 1024
"""Up to this size the uncut graph is run, too: it takes some 2 GiB there, and 16 times that at 2048x4096."""

_LEAST_EQUAL = 0.9999

Say = Callable[[str], None]


@dataclass(frozen=True)
class Int8Options:
    """`method` is one of calibration's, or "auto". `force` adds what does not meet the budget; `search_stride` is how
    many rows and columns apart the pixels are that a search looks at.
    """

    method: str = "auto"
    budget: Budget = field(default_factory=Budget)
    rest: str = "fp16"
    sensitivity: bool = False
    force: bool = False
    search_stride: int = _SEARCH_STRIDE


@dataclass(frozen=True)
class Int8Report:
    """The recipe, the share of multiply-adds in int8, the score at full density beside float32's, and what led there.

    `exceeded` says in words what of the budget is; `written` whether the package has the graphs.
    """

    recipe: Recipe
    share: float
    float32: Measured
    measured: Measured
    exceeded: tuple[str, ...]
    written: bool
    sweep: tuple[Tried, ...]
    alone: dict[str, Measured]
    steps: tuple[Step, ...]

    def facts(self) -> dict[str, Any]:
        """As JSON: what the package keeps."""
        return {
            "method": self.recipe.method,
            "bias_corrected": self.recipe.corrected,
            "equalised": self.recipe.equalised,
            "left_out": sorted(self.recipe.left_out),
            "int8_share_of_multiply_adds": self.share,
            "exceeded": list(self.exceeded),
            "written": self.written,
            "label_agreement": self.measured.agreement,
            "float32": asdict(self.float32),
            "int8": asdict(self.measured),
            "sweep": [{"recipe": tried.recipe.words, **asdict(tried.measured)} for tried in self.sweep],
            "sensitivity": {name: asdict(measured) for name, measured in self.alone.items()},
            "search": [{**asdict(step), "left_out": list(step.left_out)} for step in self.steps],
        }


def add_int8(
    package: Package,
    source: RangesSource,
    images: ScoredImages,
    options: Int8Options,
    say: Say = print,
    progress: bool = True,
) -> Int8Report:
    """Make the package's int8 graphs and add them, with the tables that led to them in the manifest's verification.

    Where the budget cannot be met with 90 % of the multiply-adds in int8 nothing is written unless `force` is given.
    Raises InputError for a cache or data that cannot be used, VerificationError for graphs that contradict each other.
    """
    models = {part: onnx.load(package.path(graph)) for part, graph in package.parts("fp32").items()}
    quantiser = Quantiser(models, source.ranges(), source.equalised)
    scorer = Scorer(package, models, images, progress)
    work = _Work(quantiser, scorer, _log(package, source, images), options, say)
    recipe, tried = work.sweep()
    alone = work.alone(recipe) if options.sensitivity else {}
    measured = work.full(recipe)
    found = Found(frozenset(), options.budget.is_met(measured), ())
    if not found.met:
        say(f"all int8: {'; '.join(options.budget.exceeded(measured))}: layers go back to {options.rest}")
        alone = alone or work.alone(recipe)
        found = work.search(recipe, alone)
        recipe = replace(recipe, left_out=found.left_out)
        measured = work.full(recipe)
    report = Int8Report(
        recipe,
        quantiser.share(recipe.left_out),
        scorer.float32(),
        measured,
        tuple(options.budget.exceeded(measured)),
        found.met or options.force,
        tuple(tried),
        alone,
        found.steps,
    )
    if not report.written:
        return report
    graphs = quantiser.graphs(recipe, options.rest, whole=True)
    _check(package, quantiser, recipe, graphs, images)
    facts = {"rest": options.rest, "scored_on": images.words, "labelled": bool(images.truths), **report.facts()}
    facts |= {"budget": asdict(options.budget), "calibration": asdict(source.made)}
    add_precision(package, "int8", graphs, facts)
    work.log.remove()
    return report


class _Work:
    """The steps of one calibration, which share what was measured."""

    def __init__(self, quantiser: Quantiser, scorer: Scorer, log: ScoreLog, options: Int8Options, say: Say) -> None:
        self.quantiser, self.scorer, self.log, self.options, self.say = quantiser, scorer, log, options, say
        self.stride = scorer.stride(options.search_stride)
        if log.resumed:
            say(f"{log.resumed} scores are there from a calibration that was interrupted")

    def coarse(self, recipe: Recipe, what: str = "") -> Measured:
        """Some of the pixels, with float32 for the rest, which is quicker than float16 on a CPU and differs less."""
        return self._measured(recipe, self.stride, "fp32", what or recipe.words)

    def full(self, recipe: Recipe) -> Measured:
        """All pixels of the graphs as they will be deployed."""
        return self._measured(recipe, 1, self.options.rest, f"{recipe.words}, all pixels")

    def sweep(self) -> tuple[Recipe, list[Tried]]:
        if self.options.method != "auto":
            return Recipe(self.options.method), []
        self.say(tried_head(self.stride))
        return sweep(
            METHODS, self.coarse, self.options.budget, lambda t: self.say(measured_line(t.recipe.words, t.measured))
        )

    def alone(self, recipe: Recipe) -> dict[str, Measured]:
        self.say(f"sensitivity: each of {len(self.quantiser.layers)} convolutions alone in int8")
        return sensitivity(
            self.quantiser.layers,
            lambda left_out: self.coarse(replace(recipe, left_out=left_out), "sensitivity"),
            lambda name, measured: self.say(measured_line(name, measured)),
        )

    def search(self, recipe: Recipe, alone: dict[str, Measured]) -> Found:
        budget, work = self.options.budget, self.quantiser.work

        def measure(left_out: frozenset[str]) -> Measured:
            tried = replace(recipe, left_out=left_out)
            coarse = self.coarse(tried)
            return self.full(tried) if budget.is_met(coarse) else coarse

        def log(step: Step) -> None:
            verdict = "within the budget" if step.met else "; ".join(budget.exceeded(step.measured))
            self.say(f"{step.action}: {step.share:.1%} of the multiply-adds in int8, {verdict}")

        total = round(sum(work.values()) / self.quantiser.share(()))
        return search(order_of_return(alone, work, budget), work, total, budget, measure, log=log)

    def _measured(self, recipe: Recipe, stride: int, rest: str, what: str) -> Measured:
        return self.log.measured(
            recipe, stride, rest, lambda: self.scorer.measure(self.quantiser.graphs(recipe, rest), stride, what)
        )


def _log(package: Package, source: RangesSource, images: ScoredImages) -> ScoreLog:
    key = {"splitmerge": __version__, "onnxruntime": onnxruntime.__version__, "scored": images.sha256}
    return ScoreLog(
        score_log_path(package), key | {"ranges": source.made.data_sha256, "graphs": dict(source.made.graphs)}
    )


def _check(package: Package, quantiser: Quantiser, recipe: Recipe, graphs: Models, images: ScoredImages) -> None:
    """Every graph is well formed and loads; the uncut one gives the labels of stem and trunk."""
    cut, contract = package.manifest.cut, package.manifest.input
    for part, graph in graphs.items():
        onnx.checker.check_model(graph, full_check=True)
        if part == "model":  # the others were run
            Labeller(graphs, None)
    if cut is None or contract.padded_height * contract.padded_width > _WHOLE_PIXELS:
        return
    # With float32 for the rest both must round the same numbers. In float16 a CPU keeps some of them in float32, others
    # in the one than in the other, and each that so comes to the next step of int8 moves labels.
    exact = quantiser.graphs(recipe, "fp32", whole=True)
    frame = images.frames[0]
    equal = float(np.mean(Labeller({"model": exact["model"]}, None)(frame) == Labeller(exact, cut)(frame)))
    if equal < _LEAST_EQUAL:
        raise VerificationError(
            f"The int8 graphs model and stem + trunk agree on {equal:.3%} of the labels only, so nothing was written: "
            "report this with the checkpoint."
        )
