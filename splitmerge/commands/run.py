"""`splitmerge run`: a video through a package's network."""

import argparse
import math
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.live_options import SOURCE_HELP, add_live_arguments, limits_from, live_lines
from runtime.options import add_engine_arguments, open_executor
from splitmerge.errors import InputError
from splitmerge.files import check_outputs, write_json
from splitmerge.options import positive_integer

if TYPE_CHECKING:
    from runtime.sinks import Sink
    from runtime.sources import Source
    from runtime.summary import Summary
    from splitmerge.labels import LabelClass

HELP = "Segment a video or a folder of images, frame by frame."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help=SOURCE_HELP)
    parser.add_argument("--package", type=Path, required=True, help="folder that `splitmerge export` made")
    parser.add_argument("--overlay", type=Path, help="video of the source with its labels blended over it")
    parser.add_argument("--alpha", type=float, default=0.55, help="the labels' share of the overlay, 0 to 1")
    parser.add_argument("--legend", action="store_true", help="add the classes' names below the overlay")
    parser.add_argument("--masks", type=Path, help="folder of label maps, 000000.png: gray class ids")
    parser.add_argument("--colour-masks", type=Path, help="folder of label maps in the classes' colours")
    parser.add_argument("--records", type=Path, help="frames.jsonl: one JSON object a frame")
    parser.add_argument(
        "--page",
        metavar="[HOST:]PORT",
        help="show the run in a browser, on this machine only unless HOST says otherwise; /metrics is for Prometheus",
    )
    parser.add_argument("--frames", type=positive_integer, help="stop after this many frames")
    parser.add_argument(
        "--deadline-ms",
        type=float,
        default=0,
        metavar="MS",
        help="compute the split batches of a frame that are done by then; other pixels take the nearest label (0: all)",
    )
    add_live_arguments(parser)
    parser.add_argument("--json", type=Path, help="write the summary as JSON")
    add_engine_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from runtime.pipeline import run_pipeline
    from runtime.sources import open_source
    from splitmerge.package import Package

    if not arguments.deadline_ms >= 0 or math.isinf(arguments.deadline_ms):
        raise InputError(f"--deadline-ms {arguments.deadline_ms:g} cannot be kept: give milliseconds, or 0 for none.")
    package = Package.open(arguments.package)
    with ExitStack() as stack:
        source = open_source(arguments.source, arguments.live, limits_from(arguments))
        stack.callback(source.close)
        files = (arguments.overlay, arguments.records, arguments.json)
        check_outputs(files, (arguments.masks, arguments.colour_masks), source.paths)
        executor = open_executor(package, arguments)
        stack.enter_context(executor)
        sinks = _sinks(stack, arguments, source, package.manifest.classes)
        size = package.manifest.input.size
        summary = run_pipeline(source, executor, sinks, size, arguments.frames, True, arguments.deadline_ms)
    for warning in summary.warnings:
        print(f"splitmerge: {warning}", file=sys.stderr)
    print(_text(summary))
    if arguments.json:
        write_json(arguments.json, {"model": package.manifest.model, **executor.facts, **asdict(summary)})
    return InputError.exit_code if summary.missing_frames or summary.source_lost else 0


def _sinks(
    stack: ExitStack, arguments: argparse.Namespace, source: "Source", classes: "tuple[LabelClass, ...]"
) -> "list[Sink]":
    """The sinks that were asked for; leaving `stack` makes their files appear, or vanish after an error."""
    from runtime.sinks import mask_folder, output, overlay_video, record_file
    from runtime.video_writer import fallback_note

    out: list[Sink] = []
    if arguments.page is not None:
        from runtime.page import live_page

        page = stack.enter_context(live_page(arguments.page, classes, arguments.alpha))
        print(f"live page: {page.url}", flush=True)
        out.append(page.sink)
    if arguments.masks:
        out.append(stack.enter_context(output(mask_folder(arguments.masks))))
    if arguments.colour_masks:
        out.append(stack.enter_context(output(mask_folder(arguments.colour_masks, classes))))
    if arguments.overlay:
        look = arguments.alpha, arguments.legend
        video = overlay_video(arguments.overlay, source.size, source.fps, classes, *look)
        out.append(stack.enter_context(output(video)))
        if note := fallback_note(arguments.overlay):
            print(note)
    if arguments.records:  # last, so that a frame that is recorded is in every output
        out.append(stack.enter_context(output(record_file(arguments.records, classes))))
    return out


def _text(summary: "Summary") -> str:
    stages = ", ".join(f"{stage} {getattr(summary, f'{stage}_ms'):.1f} ms" for stage in ("decode", "compute", "encode"))
    lines = [
        f"{summary.source}: {summary.frames} frames in {summary.seconds:.1f} s, {summary.fps:.2f} frames per second",
        f"per frame, at the same time: {stages} ({summary.slowest_stage} sets the pace)",
        *live_lines(summary),
    ]
    if summary.resized:
        height, width = summary.source_size
        lines.append(
            f"resized: frames of {height}x{width} went into the network at {summary.engine_size[0]}x"
            f"{summary.engine_size[1]}, and the labels were resized back by nearest neighbour"
        )
    return "\n".join(lines)
