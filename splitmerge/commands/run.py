"""`splitmerge run`: a video through a package's network."""

import argparse
import math
import shlex
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.addresses import is_url
from runtime.live_options import SOURCE_HELP, add_live_arguments, limits_from, live_lines
from runtime.options import add_engine_arguments, open_executor
from splitmerge.errors import InputError, SplitmergeError
from splitmerge.files import check_outputs, sha256_of, write_json
from splitmerge.interrupts import EXIT_CODES, second_ends_at_once
from splitmerge.options import positive_integer

if TYPE_CHECKING:
    from runtime.page import LivePage
    from runtime.pipeline import Ending
    from runtime.run_outputs import RunOutputs
    from runtime.several import Outcome
    from runtime.share import Share
    from runtime.sinks import Sink
    from runtime.sources import Source
    from runtime.summary import Summary
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
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on after the frames that a run of the same command did before it was ended; what a camera or stream "
        "shows now is appended",
    )
    parser.add_argument("--json", type=Path, help="write the summary as JSON")
    add_engine_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from runtime.pipeline import Ending
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
    with second_ends_at_once(), ExitStack() as stack:
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
        outputs = _outputs(stack, arguments, wanted, sources, package)
        for name in [name for name in outputs if outputs[name].already_finished]:
            outcomes.append(Outcome(name, sources[name].name, already_done=True))
            print(f"{sources.pop(name).name}: an earlier run did all its frames; without --resume they are done again")
            outputs.pop(name)
        if not sources:
            return 0
        executor = open_executor(package, arguments)
        stack.enter_context(executor)
        endings = {name: Ending() for name in sources}
        work = {}
        for name, source in sources.items():
            files = stack.enter_context(ExitStack())  # a source that ends closes its own
            sinks = [page.sinks[name]] if page else []
            sinks.append(files.enter_context(outputs[name].open({"backend": executor.facts["backend"]})))
            share = Share(executor, source.live)
            work[name] = partial(_run, arguments, package, source, share, files, sinks, outputs[name], endings[name])
        began = time.perf_counter()
        if len(given) == 1:
            for name in work:
                ended(name, work[name]())
        else:
            side_by_side(work, ended, partial(_end_all, endings.values()))
        seconds = time.perf_counter() - began
    facts = {"model": package.manifest.model, **executor.facts}
    code = _finish(arguments, sorted(outcomes, key=lambda outcome: list(given).index(outcome.name)), seconds, facts)
    signals = [outcome.summary.interrupted for outcome in outcomes if outcome.summary and outcome.summary.interrupted]
    if not signals:
        return code
    print(f"splitmerge: {signals[0]}: {_kept(arguments, outputs.values())}", file=sys.stderr)
    return EXIT_CODES[signals[0]]


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


def _outputs(
    stack: ExitStack,
    arguments: argparse.Namespace,
    wanted: dict[str, argparse.Namespace],
    sources: "dict[str, Source]",
    package: "Package",
) -> "dict[str, RunOutputs]":
    """Each source's outputs, not begun yet."""
    from runtime.run_outputs import RunOutputs
    from runtime.video_writer import fallback_note
    from runtime.wanted import Wanted

    manifest = package.folder / "manifest.json"  # it has the hashes of all graphs
    facts = {
        "package": {"name": str(package.folder), "sha256": sha256_of(manifest)},
        "--precision": arguments.precision,
        "--density": arguments.density,
        "--deadline-ms": arguments.deadline_ms,
        "--frames": arguments.frames,
    }
    outputs = {}
    for name, source in sources.items():
        each = wanted[name]
        files = Wanted(each.overlay, each.masks, each.colour_masks, each.records, each.alpha, each.legend)
        outputs[name] = RunOutputs(files, source, package.manifest.classes, facts, arguments.resume)
        stack.callback(outputs[name].close)
        for note in (outputs[name].note, each.overlay and fallback_note(each.overlay)):
            if note:
                print(note)
    return outputs


def _run(
    arguments: argparse.Namespace,
    package: "Package",
    source: "Source",
    share: "Share",
    files: ExitStack,
    sinks: "list[Sink]",
    outputs: "RunOutputs",
    ending: "Ending",
) -> "Summary":
    """One source from its first frame to its last. Leaving `files` makes its outputs appear with what they have."""
    from runtime.pipeline import run_pipeline

    alone, size = len(arguments.source) == 1, package.manifest.input.size
    limit, deadline_ms = arguments.frames, arguments.deadline_ms
    try:
        with files:
            summary = run_pipeline(source, share, sinks, size, limit, alone, deadline_ms, outputs.before, ending)
            if not summary.interrupted:
                outputs.complete()
    except SplitmergeError as error:
        if outputs.kept:
            raise type(error)(f"{str(error).rstrip('.')}; {_kept(arguments, [outputs])}") from error
        raise
    return summary


def _end_all(endings: "Iterable[Ending]", signal: str) -> None:
    for ending in endings:
        ending.end(signal)


def _kept(arguments: argparse.Namespace, outputs: "Iterable[RunOutputs]") -> str:
    """How many frames are done, and what goes on after them."""
    outputs = list(outputs)
    done = sum(each.kept for each in outputs)
    words = f"{done} frames are done and kept" if done else "no output has a frame"
    if not any(each.resumable for each in outputs):
        return f"{words}."
    if any(is_url(source) for source in arguments.source):  # which may hold a password
        return f"{words}; the same command with --resume goes on."
    given = arguments.words if arguments.resume else [*arguments.words, "--resume"]
    return f"{words}; go on with: splitmerge {shlex.join(given)}"


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
        *([f"after {summary.frames_before} frames of an earlier run"] if summary.frames_before else []),
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
