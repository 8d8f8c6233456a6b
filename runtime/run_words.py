"""What `splitmerge run` says of the ends of its sources, and the summary that it writes."""

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.addresses import is_url
from runtime.live_options import live_lines
from splitmerge.errors import InputError
from splitmerge.files import write_json

if TYPE_CHECKING:
    from runtime.run_outputs import RunOutputs
    from runtime.several import Outcome
    from runtime.summary import Summary

__all__ = ["finish", "kept", "tell"]


def kept(arguments: argparse.Namespace, outputs: "Iterable[RunOutputs]") -> str:
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


def tell(outcome: "Outcome") -> None:
    """What there is to say of a source that has ended."""
    if outcome.error:
        named = "" if outcome.source in outcome.error else f"{outcome.source}: "
        print(f"splitmerge: {named}{outcome.error}", file=sys.stderr)
    if outcome.incomplete:
        print(
            f"splitmerge: {outcome.source}: an earlier run did all its frames that could be decoded; it is cut off or "
            "damaged, copy it again for the rest",
            file=sys.stderr,
        )
    elif outcome.already_done:
        print(f"{outcome.source}: an earlier run did all its frames; without --resume they are done again")
    if outcome.summary:
        for warning in outcome.summary.warnings:
            print(f"splitmerge: {warning}", file=sys.stderr)
        print(_text(outcome.summary), flush=True)


def finish(json: Path | None, outcomes: "Sequence[Outcome]", seconds: float, facts: dict[str, object]) -> int:
    """Write the summary as --json asks for it, sum up several sources, and give the exit code."""
    from runtime.several import totals

    failed = [outcome for outcome in outcomes if outcome.failed]
    if len(outcomes) == 1:
        facts |= asdict(outcomes[0].summary) if outcomes[0].summary else outcomes[0].facts
    else:
        sums = totals(outcomes, seconds)
        facts |= {"totals": sums, "sources": [outcome.facts for outcome in outcomes]}
        named = f"; failed or not complete: {', '.join(outcome.name for outcome in failed)}" if failed else ""
        print(f"{len(outcomes)} sources: {sums['frames']} frames in {seconds:.1f} s, {sums['fps']:.2f} a second{named}")
    if json:
        write_json(json, facts)
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
