"""From a package with float32 graphs to one that also holds int8: sweep, score, search, verify, add."""

from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import onnx
import onnxruntime

from calibration.agreement import Labeller
from calibration.cached import RangesSource
from calibration.half import carried
from calibration.int8_report import Int8Options, Int8Report
from calibration.package import add_precision
from calibration.peaks import outside_float16, unfit_weights, watched
from calibration.ranges import METHODS
from calibration.recipes import Models, Quantiser, Recipe
from calibration.reduce import kept_words
from calibration.report import measured_line, tried_head
from calibration.score import LEAST_PIXELS, Measured, Scorer
from calibration.score_log import ScoreLog, score_log_path
from calibration.scored_images import ScoredImages
from calibration.search import Found, Step, order_of_return, search
from calibration.sensitivity import sensitivity
from calibration.sweep import Tried, sweep
from splitmerge import __version__
from splitmerge.errors import VerificationError
from splitmerge.package import Package

__all__ = ["add_int8"]

_WHOLE_PIXELS = 512 * 1024
"""Up to this size the uncut graph is run, too: it takes some 2 GiB there, and 16 times that at 2048x4096."""

_LEAST_EQUAL = 0.9999

Say = Callable[[str], None]


def add_int8(
    package: Package,
    source: RangesSource,
    images: ScoredImages,
    options: Int8Options,
    say: Say = print,
    progress: bool = True,
) -> Int8Report:
    """Make the package's int8 graphs and add them, with the tables that led to them in the manifest's verification.

    Where nothing is found that meets the budget with 90 % of the multiply-adds in int8, nothing is written unless
    `force` is given. Raises InputError for a cache or data that cannot be used, VerificationError for graphs that
    contradict each other.
    """
    models = {part: onnx.load(package.path(graph)) for part, graph in package.parts("fp32").items()}
    quantiser = Quantiser(models, source.ranges(), source.equalised)
    watch = {part: watched(model) for part, model in models.items()} if options.rest == "fp16" else {}
    scorer = Scorer(package, models, images, progress, options.thin, watch)
    work = _Work(quantiser, scorer, _log(package, source, images, options), options, say)
    recipe, tried = work.sweep()
    alone = work.alone(recipe) if options.sensitivity else {}
    measured = work.full(recipe)
    if images.truths and options.budget.thin_drop is not None and measured.worst_thin is None:
        say(_no_thin_class(package, options))
    found = Found(frozenset(), options.budget.is_met(measured), ())
    if not found.met:
        say(f"all int8: {'; '.join(options.budget.exceeded(measured))}: layers go back to {options.rest}")
        alone = alone or work.alone(recipe)
        found = work.search(recipe, alone)
        recipe = replace(recipe, left_out=found.left_out)
        measured = work.full(recipe)
    kept = work.kept(recipe)
    if kept:
        say(f"in float32, because float16 does not hold it: {kept_words(kept)}")
    report = Int8Report(
        recipe,
        quantiser.share(recipe.left_out),
        scorer.float32(),
        measured,
        tuple(options.budget.exceeded(measured)),
        options.budget.is_met(measured) or options.force,
        tuple(tried),
        alone,
        found.steps,
        kept,
    )
    if not report.written:
        return report
    graphs = work.graphs(recipe, options.rest, whole=True)
    _check(package, quantiser, recipe, graphs, images)
    facts = {"rest": options.rest, "scored_on": images.words, "labelled": bool(images.truths), **report.facts()}
    facts |= {"thin": list(options.thin), "budget": asdict(options.budget), "calibration": asdict(source.made)}
    add_precision(package, "int8", graphs, facts)
    work.log.remove()
    return report


class _Work:
    """The steps of one calibration, which share what was measured."""

    def __init__(self, quantiser: Quantiser, scorer: Scorer, log: ScoreLog, options: Int8Options, say: Say) -> None:
        self.quantiser, self.scorer, self.log, self.options, self.say = quantiser, scorer, log, options, say
        self.stride = scorer.stride(options.search_stride)
        self._outside: dict[bool, dict[str, str]] = {}
        if log.resumed:
            say(f"{log.resumed} scores are there from a calibration that was interrupted or wrote nothing")

    def coarse(self, recipe: Recipe, what: str = "") -> Measured:
        """Some of the pixels, with float32 for the rest, which is quicker than float16 on a CPU and differs less."""
        return self._measured(recipe, self.stride, "fp32", what or recipe.words)

    def full(self, recipe: Recipe) -> Measured:
        """All pixels of the graphs as they will be deployed."""
        return self._measured(recipe, 1, self.options.rest, f"{recipe.words}, all pixels")

    def outside(self, recipe: Recipe) -> dict[str, str]:
        """The values that float16 does not hold in the scored images, and why; none where the rest is float32."""
        changed = recipe.equalised
        if self.options.rest == "fp16" and changed not in self._outside:
            models = self.quantiser.floats(recipe) if changed else None
            self._outside[changed] = outside_float16(self.scorer.extents(models))
        return self._outside.get(changed, {})

    def kept(self, recipe: Recipe) -> dict[str, str]:
        """These, and the layers that are not int8 and whose weights float16 does not hold."""
        weights: dict[str, str] = {}
        for model in self.quantiser.floats(recipe).values() if self.options.rest == "fp16" else ():
            weights |= unfit_weights(model)
        return {name: weights[name] for name in recipe.left_out if name in weights} | self.outside(recipe)

    def graphs(self, recipe: Recipe, rest: str, whole: bool = False) -> dict[str, onnx.ModelProto]:
        """The graphs of a recipe, with in float32 what float16 does not hold."""
        wide = carried(self.quantiser.models.values(), self.outside(recipe)) if rest == "fp16" else ()
        return self.quantiser.graphs(recipe, rest, whole, wide)

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

        def coarse(left_out: frozenset[str]) -> Measured:
            return self.coarse(replace(recipe, left_out=left_out))

        def full(left_out: frozenset[str]) -> Measured:
            return self.full(replace(recipe, left_out=left_out))

        def log(step: Step) -> None:
            verdict = "within the budget" if step.met else "; ".join(budget.exceeded(step.measured))
            self.say(f"{step.action}: {step.share:.1%} of the multiply-adds in int8, {verdict}")

        total = round(sum(work.values()) / self.quantiser.share(()))
        return search(order_of_return(alone, work, budget), work, total, budget, coarse, full, log=log)

    def _measured(self, recipe: Recipe, stride: int, rest: str, what: str) -> Measured:
        return self.log.measured(
            recipe, stride, rest, lambda: self.scorer.measure(self.graphs(recipe, rest), stride, what)
        )


def _log(package: Package, source: RangesSource, images: ScoredImages, options: Int8Options) -> ScoreLog:
    key = {"splitmerge": __version__, "onnxruntime": onnxruntime.__version__, "scored": images.sha256}
    key |= {"thin": sorted(options.thin), "ranges": source.made.data_sha256, "graphs": dict(source.made.graphs)}
    return ScoreLog(score_log_path(package), key)


def _no_thin_class(package: Package, options: Int8Options) -> str:
    have = [entry.name for entry in package.manifest.classes if entry.name in options.thin]
    if not have:
        return "no class counts as thin, so --max-thin-drop is not looked at: name the package's with --thin"
    return (
        f"none of the thin classes {', '.join(have)} has {LEAST_PIXELS:,} pixels in the images that are scored, so "
        "--max-thin-drop is not looked at: score more of them with --score-images"
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
