"""`splitmerge run`: a video through a package's network."""

import argparse
import math
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import run_words as words
from runtime.live_options import SOURCE_HELP, add_live_arguments, limits_from
from runtime.options import add_engine_arguments, open_executor
from splitmerge.errors import InputError, SplitmergeError
from splitmerge.files import check_outputs, sha256_of
from splitmerge.interrupts import EXIT_CODES, Terminated, second_ends_at_once
from splitmerge.options import positive_integer

if TYPE_CHECKING:
    from runtime.executor import Executor
    from runtime.page import LivePage
    from runtime.pipeline import Ending
    from runtime.run_outputs import RunOutputs
    from runtime.shards import FrameShards
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
    from runtime.source_names import names_of
    from splitmerge.package import Package

    if not arguments.deadline_ms >= 0 or math.isinf(arguments.deadline_ms):
        raise InputError(f"--deadline-ms {arguments.deadline_ms:g} cannot be kept: give milliseconds, or 0 for none.")
    given = dict(zip(names_of(arguments.source), arguments.source, strict=True))
    wanted = {name: _for_source(arguments, name) for name in given}
    package = Package.open(arguments.package)
    outcomes: dict[str, Outcome] = {}
    with second_ends_at_once(), ExitStack() as stack:
        page = _page(stack, arguments, package, list(given))

        def ended(outcome: Outcome) -> None:
            outcomes[outcome.name] = outcome
            words.tell(outcome)
            if page:
                page.end(outcome.name, outcome.failed)

        def ended_with(name: str, result: "Summary | SplitmergeError") -> None:
            ended(Outcome.of(name, given[name], result))

        sources = open_sources(given, arguments.live, limits_from(arguments), ended_with)
        for source in sources.values():
            stack.callback(source.close)
        _check_outputs(arguments, [wanted[name] for name in sources], sources.values())
        outputs = _outputs(stack, arguments, wanted, sources, package)
        for name in [name for name in outputs if outputs[name].already_finished]:
            incomplete = outputs.pop(name).was_incomplete
            ended(Outcome(name, sources.pop(name).name, already_done=True, incomplete=incomplete))
        facts: dict[str, object] = {"model": package.manifest.model}
        began = time.perf_counter()
        if sources:
            executor = open_executor(package, arguments)
            stack.enter_context(executor)
            facts |= executor.facts
            endings = {name: Ending() for name in sources}
            work = {
                name: partial(_run, arguments, package, source, executor, page, name, outputs[name], endings[name])
                for name, source in sources.items()
            }
            began = time.perf_counter()
            if len(given) == 1:
                try:
                    for name in work:
                        ended_with(name, work[name]())
                except (KeyboardInterrupt, Terminated) as signal:  # before its first frame
                    return _interrupted(
                        arguments, "SIGTERM" if isinstance(signal, Terminated) else "SIGINT", outputs.values()
                    )
            else:
                side_by_side(work, ended_with, partial(_end_all, endings.values()))
        seconds = time.perf_counter() - began
    in_order = [outcomes[name] for name in given if name in outcomes]
    code = words.finish(arguments.json, in_order, seconds, facts)
    signals = [each.summary.interrupted for each in in_order if each.summary and each.summary.interrupted]
    return _interrupted(arguments, signals[0], outputs.values()) if signals else code


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
        "--chunk": None if arguments.density == "1" else arguments.chunk or 1,  # which pixels are computed is by chunks
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
    executor: "Executor | FrameShards",
    page: "LivePage | None",
    name: str,
    outputs: "RunOutputs",
    ending: "Ending",
) -> "Summary":
    """One source from its first frame to its last. When it ends its outputs appear with what they have."""
    from runtime.pipeline import run_pipeline
    from runtime.share import Share

    sinks = [page.sinks[name]] if page else []
    alone, size = len(arguments.source) == 1, package.manifest.input.size
    limit, deadline_ms = arguments.frames, arguments.deadline_ms
    share = Share(executor, source.live)
    try:
        with outputs.open({"backend": executor.facts["backend"]}) as sink:
            sinks.append(sink)
            summary = run_pipeline(source, share, sinks, size, limit, alone, deadline_ms, outputs.before, ending)
            if not summary.interrupted:
                outputs.complete(summary.incomplete)
    except SplitmergeError as error:
        if outputs.kept:
            raise type(error)(f"{str(error).rstrip('.')}; {words.kept(arguments, [outputs])}") from error
        raise
    return summary


def _interrupted(arguments: argparse.Namespace, signal: str, outputs: "Iterable[RunOutputs]") -> int:
    print(f"splitmerge: {signal}: {words.kept(arguments, outputs)}", file=sys.stderr)
    return EXIT_CODES[signal]


def _end_all(endings: "Iterable[Ending]", signal: str) -> None:
    for ending in endings:
        ending.end(signal)
