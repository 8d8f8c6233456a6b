"""`splitmerge run`: a video through a package's network."""

import argparse
import math
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.live_options import SOURCE_HELP, add_live_arguments, limits_from, live_lines
from runtime.options import add_engine_arguments, open_executor
from splitmerge.errors import InputError, SplitmergeError
from splitmerge.files import check_outputs, write_json
from splitmerge.options import positive_integer

if TYPE_CHECKING:
    from runtime.page import LivePage
    from runtime.several import Outcome
    from runtime.share import Share
    from runtime.sinks import Sink
    from runtime.sources import Source
    from runtime.summary import Summary
    from splitmerge.labels import LabelClass
    from splitmerge.package import Package

HELP = "Segment videos, folders of images, cameras or streams, frame by frame; several at once share the engine."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    several = "; several at once share the engine, and {source} in an output's path becomes the name of each"
    parser.add_argument("source", metavar="SOURCE", nargs="+", help=SOURCE_HELP + several)
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
    from runtime.several import Outcome, open_sources, side_by_side
    from runtime.share import Share
    from runtime.source_names import names_of
    from splitmerge.package import Package

    if not arguments.deadline_ms >= 0 or math.isinf(arguments.deadline_ms):
        raise InputError(f"--deadline-ms {arguments.deadline_ms:g} cannot be kept: give milliseconds, or 0 for none.")
    given = dict(zip(names_of(arguments.source), arguments.source, strict=True))
    wanted = {name: _for_source(arguments, name) for name in given}
    package = Package.open(arguments.package)
    outcomes: list[Outcome] = []
    with ExitStack() as stack:
        page = _page(stack, arguments, package, list(given))

        def ended(name: str, result: "Summary | SplitmergeError") -> None:
            outcomes.append(Outcome.of(name, given[name], result))
            _tell(outcomes[-1])
            if page:
                page.end(name, outcomes[-1].failed)

        sources = open_sources(given, arguments.live, limits_from(arguments), ended)
        for source in sources.values():
            stack.callback(source.close)
        _check_outputs(arguments, [wanted[name] for name in sources], sources.values())
        executor = open_executor(package, arguments)
        stack.enter_context(executor)
        shares = {name: Share(executor, source.live) for name, source in sources.items()}
        work = {}
        for name, source in sources.items():
            files = stack.enter_context(ExitStack())  # a source that ends closes its own, whole or not at all
            sinks = [page.sinks[name]] if page else []
            sinks += _sinks(files, wanted[name], source, package.manifest.classes)
            work[name] = partial(_run, arguments, package, source, shares[name], files, sinks)
        began = time.perf_counter()
        if len(given) == 1:
            for name in work:
                ended(name, work[name]())
        else:
            side_by_side(work, ended, lambda: _stop(sources.values(), shares.values()))
        seconds = time.perf_counter() - began
    facts = {"model": package.manifest.model, **executor.facts}
    return _finish(arguments, sorted(outcomes, key=lambda outcome: list(given).index(outcome.name)), seconds, facts)


def _for_source(arguments: argparse.Namespace, name: str) -> argparse.Namespace:
    """The options with the output paths of one source."""
    from runtime.source_names import PLACEHOLDER, path_for

    if PLACEHOLDER in str(arguments.json):
        raise InputError(f"--json {arguments.json} is one file for all sources: leave {PLACEHOLDER} out.")
    paths = {
        option: path_for(f"--{option.replace('_', '-')}", getattr(arguments, option), name, len(arguments.source))
        for option in ("overlay", "masks", "colour_masks", "records")
    }
    return argparse.Namespace(**{**vars(arguments), **paths})


def _page(stack: ExitStack, arguments: argparse.Namespace, package: "Package", names: list[str]) -> "LivePage | None":
    """The live page, before anything that takes long: a port in use is to be seen at once."""
    if arguments.page is None:
        return None
    from runtime.page import live_page

    page = stack.enter_context(live_page(arguments.page, package.manifest.classes, arguments.alpha, names))
    print(f"live page: {page.url}", flush=True)
    return page


def _check_outputs(
    arguments: argparse.Namespace, wanted: list[argparse.Namespace], sources: "Iterable[Source]"
) -> None:
    files = [path for each in wanted for path in (each.overlay, each.records)]
    folders = [path for each in wanted for path in (each.masks, each.colour_masks)]
    check_outputs([*files, arguments.json], folders, [path for source in sources for path in source.paths])


def _run(
    arguments: argparse.Namespace,
    package: "Package",
    source: "Source",
    share: "Share",
    files: ExitStack,
    sinks: "list[Sink]",
) -> "Summary":
    """One source from its first frame to its last. Leaving `files` makes its outputs appear, or vanish on an error."""
    from runtime.pipeline import run_pipeline

    alone = len(arguments.source) == 1
    size = package.manifest.input.size
    with files:
        summary = run_pipeline(source, share, sinks, size, arguments.frames, alone, arguments.deadline_ms)
        share.check()
    return summary


def _stop(sources: "Iterable[Source]", shares: "Iterable[Share]") -> None:
    for share in shares:
        share.stop()
    for source in sources:
        if source.live:  # it may be waiting for a frame
            source.close()


def _sinks(
    stack: ExitStack, arguments: argparse.Namespace, source: "Source", classes: "tuple[LabelClass, ...]"
) -> "list[Sink]":
    """The sinks that were asked for; leaving `stack` makes their files appear, or vanish after an error."""
    from runtime.sinks import mask_folder, output, overlay_video, record_file
    from runtime.video_writer import fallback_note

    out: list[Sink] = []
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


def _tell(outcome: "Outcome") -> None:
    """What there is to say of a source that has ended."""
    if outcome.error:
        named = "" if outcome.source in outcome.error else f"{outcome.source}: "
        print(f"splitmerge: {named}{outcome.error}", file=sys.stderr)
    if outcome.summary:
        for warning in outcome.summary.warnings:
            print(f"splitmerge: {warning}", file=sys.stderr)
        print(_text(outcome.summary), flush=True)


def _finish(arguments: argparse.Namespace, outcomes: "list[Outcome]", seconds: float, facts: dict[str, object]) -> int:
    """Write what --json asks for, sum up several sources, and give the exit code."""
    from runtime.several import totals

    failed = [outcome for outcome in outcomes if outcome.failed]
    if len(outcomes) == 1:
        facts |= asdict(outcomes[0].summary) if outcomes[0].summary else {}
    else:
        sums = totals(outcomes, seconds)
        facts |= {"totals": sums, "sources": [outcome.facts for outcome in outcomes]}
        named = f"; failed or not complete: {', '.join(outcome.name for outcome in failed)}" if failed else ""
        print(f"{len(outcomes)} sources: {sums['frames']} frames in {seconds:.1f} s, {sums['fps']:.2f} a second{named}")
    if arguments.json:
        write_json(arguments.json, facts)
    return InputError.exit_code if failed else 0


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
