"""The networks side by side on `streets`: what each scores after the same short training, and what its frames cost.

    python -m benchmarks.networks --out build/networks --json build/networks.json --picture build/networks.png
    python -m benchmarks.networks --out build/networks --measure --json build/networks.json --picture build/networks.png

The first command trains, exports and scores one network after the other, each in a folder of its own, OUT/NAME. What
is done is skipped: after Ctrl-C the same command goes on. The second times frames and reads their peak memory in ONNX
Runtime (`benchmarks.streaming_row`, a process for each) of the networks that are done, and wants idle cores. Both print
the table of all that is known.

Alike are: crops in the same order from the same images, steps, seed, schedule, and the number of parameters as far as
whole channels allow (each network takes the width that comes nearest). Learning rate and weight decay are each
network's own (`training.networks.base.Settings`; at present the same for all), and so are its losses. Nothing is chosen
by a score: it is the last step's weights that are scored, exported and in ONNX Runtime, Split-Merge Pooling's at full
density. Multiply-adds are PyTorch's count of convolutions and matrix products at inference.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.machine import machine
from benchmarks.networks_cost import measure, multiply_adds, parameters_of, width_of
from benchmarks.networks_picture import draw
from benchmarks.streaming import check_machine
from engines.build import build_engines
from export.package import export_package
from runtime.compare import Score
from runtime.executor import Executor
from splitmerge.errors import SplitmergeError
from splitmerge.files import check_outputs, read_json, writable_folder, write_json
from splitmerge.interrupts import EXIT_CODES
from splitmerge.labels import CITYSCAPES, THIN_CLASSES
from splitmerge.options import height_and_width, positive_integer
from splitmerge.package import Package
from training.data import training_sets
from training.loop import TrainConfig, train
from training.metrics import boundary_iou, iou, mean_of_known
from training.models import network_named
from training.streets import Streets, cached

__all__ = ["NETWORKS", "config_of", "main", "table"]

NETWORKS = (
    "smp18", "fcn8s-18", "fcn32s-18", "deeplabv3-50", "fastfcn-encnet-50", "ldn121-64-4", "lrn18-32-4", "smp-dn121",
    "fastfcn-aspp-50", "aspp-50", "pspnet-50", "dilatedfcn8-18", "ldn121-32-4", "dpn68-32-4",
)  # fmt: skip
"""The most telling ones first, so that a part of the table is of use."""

LARGE = (1024, 2048)
"""Height and width of Cityscapes' frames, where multiply-adds are counted, too."""
_STRIDE = 16  # Split-Merge Pooling learns from one pixel per such window, as with `splitmerge train`
_WATCHED = 16  # images validated on at the end of a training, which decide nothing


def config_of(name: str, arguments: argparse.Namespace) -> TrainConfig:
    """A network's training; two networks' differ in model, width and their own settings alone."""
    settings = network_named(name).settings
    return TrainConfig(
        model=name,
        width=width_of(name, arguments.parameters),
        crop=arguments.crop,
        size=arguments.size,
        images=arguments.images,
        validation_images=_WATCHED,
        batch=arguments.batch,
        stride=_STRIDE,
        steps=arguments.steps,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        seed=arguments.seed,
        validate_every=arguments.steps,
    )


def train_and_score(name: str, arguments: argparse.Namespace) -> None:
    """Leave `last.safetensors`, `package/` and `scores.json` in OUT/NAME, or go on to where they are all there."""
    folder, config = arguments.out / name, config_of(name, arguments)
    training = json.loads(json.dumps(asdict(config)))
    done = _read(folder / "scores.json")
    if done and done["training"] == training and done["scored_images"] == arguments.scored_images:
        return
    images, watched = training_sets(config.data, config.size, config.images, _WATCHED, arguments.cache)
    train(config, images, watched, folder)  # refuses a folder of another configuration
    package = export_package(folder / "last.safetensors", config.size, folder / "package")
    build_engines(package)
    sizes = {f"{height}x{width}": (height, width) for height, width in (config.size, LARGE)}
    row = {
        "model": name,
        "width": config.width,
        "parameters": parameters_of(name, config.width),
        "multiply_adds": {text: multiply_adds(name, config.width, size) for text, size in sizes.items()},
        **_scores(package, arguments),
    }
    print(f"{name}: mIoU {100 * row['miou']:.1f}", flush=True)
    write_json(folder / "scores.json", {**row, "training": training, "scored_images": arguments.scored_images})


def _scores(package: Package, arguments: argparse.Namespace) -> dict[str, Any]:
    """IoU, 0..1, on validation images of streets that no training watches."""
    score = Score(len(CITYSCAPES))
    fresh = cached(Streets("val", arguments.size, arguments.scored_images, seed=1), arguments.cache)
    with Executor(package, contexts=1, threads=arguments.threads) as executor:
        for index in tqdm(range(len(fresh)), desc=f"scoring {package.manifest.model}", disable=None):
            score.add(executor, *fresh[index])
    classes = dict(zip((entry.name for entry in CITYSCAPES), map(float, iou(score.confusion)), strict=True))
    thin = [entry.name in THIN_CLASSES for entry in CITYSCAPES]
    return {
        "miou": mean_of_known(iou(score.confusion)),
        "thin": mean_of_known(iou(score.confusion)[thin]),
        "boundary_iou": mean_of_known(boundary_iou(score.boundary)),
        "iou": {name: value if value == value else None for name, value in classes.items()},
    }


def rows_of(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """What is known of each network that is trained, in the order they were asked for."""
    rows = []
    for name in arguments.networks:
        row = _read(arguments.out / name / "scores.json")
        if row:
            measured = _read(arguments.out / name / "measured.json")
            rows.append(row | ({"measured": measured} if measured else {}))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table, a row per network; scores in %, times in ms, memory in MiB above the loaded engines."""
    sizes = list(rows[0]["multiply_adds"])
    heads = ["network (width)", "parameters", *(f"multiply-adds {size}" for size in sizes)]
    heads += ["mIoU", "thin classes", "boundary IoU"]
    timed = any("measured" in row for row in rows)
    heads += ["ms a frame", "MiB"] if timed else []
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for row in rows:
        cells = [f"{row['model']} ({row['width']})", f"{row['parameters'] / 1e6:.2f} M"]
        cells += [f"{row['multiply_adds'][size] / 1e9:,.3g} G" for size in sizes]
        cells += [f"{100 * row[score]:.1f}" for score in ("miou", "thin", "boundary_iou")]
        cells += [_measured(row, what) for what in ("median_ms", "activations_mib") if timed]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _measured(row: dict[str, Any], what: str) -> str:
    """`streamed / whole` of a network that has both."""
    modes = [row["measured"][mode] for mode in ("streamed", "whole") if mode in row.get("measured", {})]
    return " / ".join(f"{mode[what]:,.0f}" for mode in modes)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    value: dict[str, Any] = read_json(path)
    return value


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), metavar="NAME", help="see `splitmerge models`")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder for each network goes here")
    parser.add_argument("--parameters", type=positive_integer, default=400_000, help="that each comes nearest to")
    parser.add_argument("--steps", type=positive_integer, default=1000, help="of each training")
    parser.add_argument("--batch", type=positive_integer, default=4, help="crops per step")
    parser.add_argument("--crop", type=height_and_width, default=(128, 256), help="HxW of the training crops")
    parser.add_argument("--size", type=height_and_width, default=(256, 512), help="HxW of all images")
    parser.add_argument("--images", type=positive_integer, default=1000, help="to train on")
    parser.add_argument("--scored-images", type=positive_integer, default=50, help="to score on")
    parser.add_argument("--seed", type=int, default=0, help="of weights, crops and shrink offsets")
    parser.add_argument("--threads", type=positive_integer, help="for training and scoring; all cores by default")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"), help="where drawn images are kept")
    parser.add_argument("--measure", action="store_true", help="time the networks that are trained; trains nothing")
    parser.add_argument("--frames", type=positive_integer, default=9, help="timed per network; the first is left out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows and the machine as JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw accuracy against cost, a .png")
    return parser.parse_args(words)


def run(arguments: argparse.Namespace) -> int:
    """Do what is missing, tell what is known. A network that fails is named and left out; the exit code says so."""
    check_outputs([arguments.json, arguments.picture])
    writable_folder(arguments.out)
    if arguments.measure:
        check_machine()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    code = 0
    for name in arguments.networks:
        network_named(name)
        try:
            if arguments.measure:
                measure(arguments.out / name, arguments.frames)
            else:
                train_and_score(name, arguments)
        except SplitmergeError as error:
            print(f"networks: {name}: {error}", file=sys.stderr)
            code = error.exit_code
    rows = rows_of(arguments)
    if rows:
        print(table(rows))
        if arguments.json:
            write_json(arguments.json, {**machine(), "size": arguments.size, "rows": rows})
        if arguments.picture:
            draw(arguments.picture, rows)
    return code


def main() -> int:
    try:
        return run(parse())
    except SplitmergeError as error:
        print(f"networks: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("networks: stopped; the same command goes on.", file=sys.stderr)
        return EXIT_CODES["SIGINT"]


if __name__ == "__main__":
    sys.exit(main())
