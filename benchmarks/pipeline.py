"""How much of its slowest stage's rate the pipeline of `splitmerge run` keeps, with overlay, masks and records written.

    python -m benchmarks.pipeline --package build/smp18 --json build/pipeline.json

Each round measures, one right after the other and in one process: each stage alone (decoding the clip; computing frames
that lie in memory; writing results that lie in memory), the pipeline over the same clip, and two sources at once that
share the engine, each half as long. The figures are the rounds' medians; a ratio is taken within each round, so that a
machine that changes its pace does not show in it. The number of frames is chosen so that all of it takes about
`--seconds`. Memory is the peak during the pipeline above what the process held before, engines and all (Linux only).

Copies are counted in a run of its own: every place where a frame's or a label map's pixels are written again is wrapped
(benchmarks.pipeline_copies says where and why each is needed) and its bytes are told in frames of the source.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.high_water import CLEAR_REFS, HighWater
from benchmarks.machine import machine
from benchmarks.pipeline_copies import Copied, counted, per_frame
from runtime.executor import Executor
from runtime.frames import resized
from runtime.options import add_engine_arguments, open_executor
from runtime.ordered import in_order
from runtime.pipeline import run_pipeline
from runtime.several import side_by_side
from runtime.shards import FrameShards
from runtime.share import Share
from runtime.sinks import Result, Sink, mask_folder, overlay_video, record_file, video_file
from runtime.sources import open_source
from runtime.stages import at_source_size
from splitmerge.errors import SplitmergeError
from splitmerge.files import check_outputs, write_json
from splitmerge.options import positive_integer, positive_number
from splitmerge.package import Package
from training.data import open_dataset

STAGES = ("decode", "compute", "encode")
KEPT = 32
"""Frames and results in memory that a stage alone is fed with, over and over."""
LONGEST_S = 20.0
"""About how long these results may take to be made."""
FEWEST, MOST = 12, 600
"""Frames of a round: the first one's decoding and the last one's writing overlap nothing, and must not matter."""

Engine = Executor | FrameShards


@dataclass(frozen=True)
class Round:
    """Frames per second. `two_sources` is both together."""

    decode: float
    compute: float
    encode: float
    pipeline: float
    two_sources: float
    peak_mib: float | None

    @property
    def slowest(self) -> str:
        return min(STAGES, key=lambda stage: getattr(self, stage))

    @property
    def of_slowest(self) -> float:
        """The pipeline's rate as a share of its slowest stage's alone."""
        return self.pipeline / float(getattr(self, self.slowest))

    @property
    def of_one_source(self) -> float:
        """Two sources' rate together as a share of one's."""
        return self.two_sources / self.pipeline


class Bench:
    """A clip, an engine, and the ways to run them."""

    def __init__(self, package: Package, engine: Engine, clip: Path, folder: Path) -> None:
        self.package, self.engine, self.clip, self.folder = package, engine, clip, folder
        self.size = package.manifest.input.size
        source = open_source(str(clip))
        self.frames, self.fps = list(islice(source, KEPT)), source.fps
        source.close()
        self.inputs = [resized(frame.frame_bgr, self.size) for frame in self.frames]
        self.results = []
        opened = time.perf_counter()
        for frame, input_bgr in zip(self.frames, self.inputs, strict=True):
            began = time.perf_counter()
            labels, stats = engine.measure(input_bgr)
            ms = 1e3 * (time.perf_counter() - began)
            self.results.append(Result(frame, labels, ms, ms, stats))
            if began - opened > LONGEST_S and len(self.results) > 2:
                break  # as many as there is time for
        self.frame_s = statistics.median(result.compute_ms for result in self.results) / 1e3

    def round(self, frames: int) -> Round:
        rates = {stage: _rate(frames, getattr(self, stage)) for stage in STAGES}
        memory = HighWater() if CLEAR_REFS.exists() else None
        pipeline = _rate(frames, self.pipeline)
        held = None if memory is None else round(memory.peak() - memory.baseline, 1)
        return Round(**rates, pipeline=pipeline, two_sources=_rate(frames, self.two_sources), peak_mib=held)

    def decode(self, frames: int) -> None:
        source = open_source(str(self.clip))
        for frame in islice(source, frames):
            resized(frame.frame_bgr, self.size)
        source.close()

    def compute(self, frames: int) -> None:
        inputs = (self.inputs[index % len(self.inputs)] for index in range(frames))
        for _ in in_order(self.engine.measure, inputs, self.engine.parallel):
            pass

    def encode(self, frames: int) -> None:
        with self.sinks("encode") as sinks:
            for index in range(frames):
                result = self.results[index % len(self.results)]
                frame = replace(result.frame, index=index, time_s=index / self.fps)
                whole = at_source_size(replace(result, frame=frame))
                for sink in sinks:
                    sink(whole)

    def pipeline(self, frames: int) -> None:
        self.source("pipeline", frames, Share(self.engine))

    def two_sources(self, frames: int) -> None:
        work = {name: partial(self.source, name, frames // 2, Share(self.engine)) for name in ("first", "second")}
        failed: list[SplitmergeError] = []

        def ended(name: str, result: SplitmergeError | None) -> None:
            if result is not None:
                failed.append(result)

        side_by_side(work, ended)
        if failed:
            raise failed[0]

    def source(self, name: str, frames: int, share: Share) -> None:
        with self.sinks(name) as sinks:
            run_pipeline(open_source(str(self.clip)), share, sinks, self.size, frames)

    @contextmanager
    def sinks(self, name: str) -> Iterator[Sequence[Sink]]:
        """What `splitmerge run --overlay --masks --records` writes into."""
        height, width, _ = self.frames[0].frame_bgr.shape
        classes = self.package.manifest.classes
        with ExitStack() as stack:
            yield [
                stack.enter_context(sink)
                for sink in (
                    mask_folder(self.folder / f"{name}-masks"),
                    overlay_video(self.folder / f"{name}.mp4", (height, width), self.fps, classes),
                    record_file(self.folder / f"{name}.jsonl", classes),
                )
            ]

    def copies(self) -> list[Copied]:
        frames = min(FEWEST, len(self.frames))
        with counted() as counts:
            self.source("copies", frames, Share(self.engine))
        return per_frame(counts, frames, self.frames[0].frame_bgr.nbytes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True, help="folder that `splitmerge export` made, built")
    parser.add_argument("--source", type=Path, help="a video (a rendered drive of the package's size)")
    parser.add_argument("--rounds", type=positive_integer, default=3, metavar="N", help="rounds (%(default)s)")
    parser.add_argument("--seconds", type=positive_number, default=150, metavar="S", help="about (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    add_engine_arguments(parser)
    arguments = parser.parse_args()
    try:
        check_outputs([arguments.json])
        facts = measure(arguments)
    except SplitmergeError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return error.exit_code
    print(text(facts))
    if arguments.json:
        write_json(arguments.json, {"machine": machine(), **facts})
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """All figures, for JSON."""
    package = Package.open(arguments.package)
    with tempfile.TemporaryDirectory() as folder, open_executor(package, arguments) as engine:
        clip = arguments.source or _drive(Path(folder) / "drive.mp4", package.manifest.input.size)
        bench = Bench(package, engine, clip, Path(folder))
        frames = round(arguments.seconds / arguments.rounds / (3 * bench.frame_s))  # compute alone, one source, two
        frames = max(FEWEST, min(MOST, frames)) // 2 * 2
        rounds = [bench.round(frames) for _ in range(arguments.rounds)]
        return {
            "package": package.manifest.model,
            **engine.facts,
            "source_size": bench.frames[0].frame_bgr.shape[:2],
            "engine_size": bench.size,
            "frames": frames,
            "slowest": rounds[0].slowest,
            "of_slowest": statistics.median(each.of_slowest for each in rounds),
            "two_sources_of_one": statistics.median(each.of_one_source for each in rounds),
            "rounds": [asdict(each) for each in rounds],
            "copies": [asdict(each) for each in bench.copies()],
        }


def text(facts: dict[str, Any]) -> str:
    """The figures as a person reads them."""
    rounds: list[dict[str, float]] = facts["rounds"]
    middle = {name: statistics.median(each[name] for each in rounds) for name in (*STAGES, "pipeline", "two_sources")}
    lines = [f"{facts['frames']} frames a round, {len(rounds)} rounds; frames per second"]
    lines += [f"  {name.replace('_', ' '):<24}{rate:>9.2f}" for name, rate in middle.items()]
    lines += [
        f"the pipeline keeps {facts['of_slowest']:.1%} of its slowest stage's rate ({facts['slowest']})",
        f"two sources together have {facts['two_sources_of_one']:.1%} of one source's rate",
    ]
    if rounds[0]["peak_mib"] is not None:
        lines.append(f"memory: {max(each['peak_mib'] for each in rounds):.0f} MiB above what was held before")
    lines.append("copies of a frame's pixels, in frames of the source")
    lines += [f"  {each['where']:<44}{each['frames']:>6.2f}  {each['why']}" for each in facts["copies"]]
    lines.append(f"  {'all':<44}{sum(each['frames'] for each in facts['copies']):>6.2f}")
    return "\n".join(lines)


def _rate(frames: int, work: Callable[[int], None]) -> float:
    began = time.perf_counter()
    work(frames)
    return frames / (time.perf_counter() - began)


def _drive(path: Path, size: tuple[int, int]) -> Path:
    """A clip of MOST frames: a rendered drive of KEPT frames, again and again. Sides are made even for the codec."""
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    drive = open_dataset("drive", even, KEPT)
    images = [drive[index][0] for index in range(KEPT)]
    with video_file(path, even, 25) as write:
        for index in range(MOST):
            write(images[index % KEPT])
    return path


if __name__ == "__main__":
    sys.exit(main())
