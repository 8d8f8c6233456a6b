"""What int8 costs: this project's placement by each method against ONNX Runtime's own static quantisation.

    splitmerge export --checkpoint training/checkpoints/smp18-streets.safetensors --size 256x512 --package build/smp18
    python -m benchmarks.calibration --package build/smp18 --json build/calibration.json

All rows are calibrated on the same images of streets' training split and scored on the same ones of its validation
split, all pixels, stem and trunk in ONNX Runtime on the CPU. Rows say what is not int8: float32, for the comparison
with ONNX Runtime's quantiser, which knows nothing else; the last row is the best of them as it is deployed, with
float16. The package is not changed but for its calibration cache.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from benchmarks.machine import machine
from calibration.cache import made_from
from calibration.cached import RangesSource, default_cache
from calibration.half import half_graph
from calibration.images import DEFAULT_IMAGES, Images, data_hash, open_images
from calibration.quantise_count import count_int8, multiply_adds
from calibration.ranges import METHODS
from calibration.recipes import Models, Quantiser, Recipe
from calibration.report import measured_line, tried_head
from calibration.score import Budget, Scorer
from calibration.scored_images import SCORE_IMAGES, scored_images
from calibration.sweep import Tried, best_of
from export.ends import FRAMES
from splitmerge.errors import SplitmergeError
from splitmerge.files import write_json
from splitmerge.package import Package

Graphs = dict[str, onnx.ModelProto]
_NAIVE = {"ActivationSymmetric": True, "WeightSymmetric": True}


# ONNX Runtime has no types, so its base class counts as Any.
class _Frames(CalibrationDataReader):  # type: ignore[misc]
    """What one part of the package reads, for ONNX Runtime's calibrators."""

    def __init__(self, models: Models, part: str, images: Images) -> None:
        self._models, self._part, self._images = models, part, images
        self._feeds = self._all()

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._feeds, None)

    def _all(self) -> Iterator[dict[str, NDArray[Any]]]:
        if self._part != "trunk":
            yield from ({FRAMES: frame[None]} for frame in self._images)
            return
        stem = onnxruntime.InferenceSession(
            self._models["stem"].SerializeToString(), providers=["CPUExecutionProvider"]
        )
        names = [value.name for value in self._models["trunk"].graph.input]
        for frame in self._images:
            features = dict(zip(names, stem.run(names, {FRAMES: frame[None]}), strict=True))
            for batch in range(len(features[names[0]])):
                yield {name: value[batch, None] for name, value in features.items()}


def statically_quantised(models: Models, images: Images, options: Mapping[str, Any]) -> Graphs:
    """Stem and trunk by `onnxruntime.quantization.quantize_static`, its defaults but for `options`."""
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in ("stem", "trunk"):
            full, quantised = Path(folder) / f"{part}.onnx", Path(folder) / f"{part}.int8.onnx"
            onnx.save(models[part], full)  # a model that is given in memory would be emptied
            quantize_static(full, quantised, _Frames(models, part, images), extra_options=dict(options))
            made[part] = onnx.load(quantised)
    return made


def int8_share(graphs: Mapping[str, onnx.ModelProto], batches: int) -> float:
    """Of a frame's multiply-adds, 0..1."""
    work = {part: sum(multiply_adds(graphs[part]).values()) for part in ("stem", "trunk")}
    work["trunk"] *= batches
    return sum(work[part] * count_int8(graphs[part]) for part in work) / sum(work.values())


class Table:
    """Scores rows as they are made, and prints them."""

    def __init__(self, scorer: Scorer, batches: int) -> None:
        self._scorer, self._batches = scorer, batches
        self.rows: list[dict[str, Any]] = []
        print(f"{tried_head(1)} | in int8 | graphs", flush=True)

    def add(self, name: str, graphs: Mapping[str, onnx.ModelProto], recipe: Recipe | None = None) -> Tried:
        parts = {part: graphs[part] for part in ("stem", "trunk")}
        measured = self._scorer.measure(parts, what=name)
        share = int8_share(parts, self._batches)
        size = sum(len(model.SerializeToString()) for model in parts.values())
        print(f"{measured_line(name, measured)} | {share:>7.2%} | {size / 2**20:.2f} MiB", flush=True)
        self.rows.append({"name": name, "int8_share": share, "graph_bytes": size, **asdict(measured)})
        return Tried(recipe or Recipe(name), measured)


def table(package: Package, images: int, score_images: int, baselines: bool) -> dict[str, Any]:
    """All rows, as JSON. Raises InputError for a package without a cut."""
    size, cut = package.manifest.input.size, package.manifest.cut
    assert cut is not None
    calibrated = open_images("streets", size, images)
    made = made_from(package, "streets", data_hash(calibrated))
    source = RangesSource(package, calibrated, made, default_cache(package), False, print)
    scored = scored_images("streets", size, len(package.manifest.classes), set(), images, score_images)
    models = {part: onnx.load(package.path(graph)) for part, graph in package.parts("fp32").items()}
    quantiser = Quantiser(models, source.ranges(), source.equalised)
    rows = Table(Scorer(package, models, scored), cut.batches)
    rows.add("fp32", models)
    rows.add("fp16", {part: half_graph(models[part]) for part in ("stem", "trunk")})

    def ours(recipe: Recipe, rest: str = "fp32") -> Tried:
        return rows.add(f"{recipe.words}, {rest}", quantiser.graphs(recipe, rest), recipe)

    tried = [ours(Recipe(method)) for method in METHODS]
    best = best_of(tried, Budget()).recipe
    if baselines:
        rows.add("ONNX Runtime's defaults", statically_quantised(models, calibrated, {}))
        rows.add("naive min-max, symmetric", statically_quantised(models, calibrated, _NAIVE))
    ours(best, "fp16")
    ours(replace(best, corrected=True))
    ours(replace(best, equalised=True))
    scores = {"rows": rows.rows, "best": best.words, "scored_on": scored.words, "calibration": asdict(made)}
    return {"model": package.manifest.model, "size": size, **scores}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True, help="folder from `splitmerge export`")
    parser.add_argument("--images", type=int, default=DEFAULT_IMAGES, help="to calibrate on")
    parser.add_argument("--score-images", type=int, default=SCORE_IMAGES, help="to score on")
    parser.add_argument("--no-baselines", action="store_true", help="leave ONNX Runtime's quantiser out")
    parser.add_argument("--json", type=Path, help="write the table here too")
    arguments = parser.parse_args()
    try:
        package = Package.open(arguments.package)
        result = table(package, arguments.images, arguments.score_images, not arguments.no_baselines)
    except SplitmergeError as error:
        print(f"calibration: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.json:
        write_json(arguments.json, {**machine(), **result})
    return 0


if __name__ == "__main__":
    sys.exit(main())
