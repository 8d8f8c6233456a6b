"""A live source that fails at random for as long as one likes: memory, open files and the counters of frames.

    python -m benchmarks.soak --minutes 30 --seed 0 --json build/soak.json --picture build/soak.png

A real server (GStreamer's for RTSP, ffmpeg for the others) sends 25 numbered frames a second through a proxy, and a
small network segments them on the CPU into the live page and, as `splitmerge run` does, into an overlay, label maps and
records that a killed run could be gone on with. Every few seconds one of these happens: the server is killed, paused,
slowed, restarted with frames of another size; the proxy replaces pieces by random bytes or holds them up; the outputs
become slow. Between them it is left alone for a while. (An hour needs some 400 MB of temporary files.)

The exit code is 1 where memory or open files grow after the first quarter, where the counters do not add up, where the
state for --resume falls behind, or where the run does not come back from an outage.
"""

import argparse
import contextlib
import random
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.soak_picture import draw
from benchmarks.soak_verdicts import frames_in_outputs, frames_in_state, growth, verdicts
from engines.build import build_engines
from runtime import connection
from runtime.executor import Executor
from runtime.gops import group_length
from runtime.live import Limits
from runtime.page import live_page
from runtime.pipeline import run_pipeline
from runtime.run_outputs import RunOutputs
from runtime.sinks import Result
from runtime.sources import Source, open_source
from runtime.summary import Summary
from runtime.wanted import Wanted
from splitmerge.errors import InputError, SplitmergeError
from splitmerge.files import check_outputs, write_json

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests/runtime"))
# the tests' own stand-ins, which have no types of their own
from mangler import Mangler
from servers import Server, make_streams
from small_package import make_package

SIZES = ((64, 128), (96, 160))
STALL_S = 2.0


@dataclass
class Soak:
    """What happens, and what was seen. Times are seconds since the beginning."""

    server: Server
    proxy: Mangler
    source: Source
    random: random.Random
    folder: Path
    began: float = field(default_factory=time.monotonic)
    slow_sink_s: float = 0.0
    written: int = 0
    faults: list[tuple[float, str]] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def sink(self, _: Result) -> None:
        self.written += 1
        time.sleep(self.slow_sink_s)

    def misfortunes(self, seconds: float) -> None:
        """One fault after the other until time is up, then a quiet end."""
        kinds: list[Callable[[], None]] = [
            self.killed, self.paused, self.slowed, self.resized, self.garbage, self.held_up, self.slow_output
        ]  # fmt: skip
        while time.monotonic() - self.began < seconds - 10:
            self._wait(1, 6)
            kind = self.random.choice(kinds)
            self.faults.append((round(time.monotonic() - self.began, 2), kind.__name__))
            kind()
        self.ended.wait(max(0.0, self.began + seconds - time.monotonic()))
        self.source.close()

    def killed(self) -> None:
        self.server.kill()

    def paused(self) -> None:
        self.server.pause()
        self._wait(0.5, 3 * STALL_S)
        self.server.go_on()

    def slowed(self) -> None:
        self.server.slow(self.random.uniform(1, 4))

    def resized(self) -> None:
        self.server.streams = self.random.choice([s for s in self.server.sizes if s != self.server.streams])
        self.server.kill()

    def garbage(self) -> None:
        self.proxy.garbage = True
        self._wait(0.5, 4)
        self.proxy.garbage = False

    def held_up(self) -> None:
        self.proxy.slowness = 0.2
        self._wait(1, 4)
        self.proxy.slowness = 0.0

    def slow_output(self) -> None:
        self.slow_sink_s = 0.3
        self._wait(1, 4)
        self.slow_sink_s = 0.0

    def _wait(self, least_s: float, most_s: float) -> None:
        self.ended.wait(self.random.uniform(least_s, most_s))

    def watch(self, period_s: float) -> None:
        """Keep samples until the run has ended."""
        while not self.ended.wait(period_s):
            self.samples.append(
                {
                    "time_s": round(time.monotonic() - self.began, 2),
                    "rss_mib": round(
                        int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20, 2
                    ),
                    "files": len(list(Path("/proc/self/fd").iterdir())),
                    "threads": threading.active_count(),
                    "written": self.written,
                    "unsure": self.written - frames_in_state(self.folder),
                }
            )


@contextlib.contextmanager
def _connected(protocol: str, folder: Path) -> Iterator[tuple[Server, Mangler, Source]]:
    streams = [folder / f"{height}x{width}" for height, width in SIZES]
    for place, size in zip(streams, SIZES, strict=True):
        place.mkdir()
        make_streams(place, size)
    with Server(protocol, streams[0]) as server, Mangler(server.port) as proxy:
        server.sizes = streams
        url = server.url.replace(str(server.port), str(proxy.port))
        for left in reversed(range(50)):  # a server takes a moment until it listens
            try:
                source = open_source(url, limits=Limits(STALL_S, reconnect=1000))
                break
            except InputError:
                if not left:
                    raise
                time.sleep(0.2)
        yield server, proxy, source


def soak(minutes: float, seed: int, protocol: str, folder: Path) -> tuple[Summary, Soak]:
    """Run it, with everything that it writes in `folder`; give the summary and what was seen."""
    connection.OPEN_S = 8.0  # so that a server that is paused while it is opened costs less of the time
    package = make_package(folder / "package")
    build_engines(package, "onnxruntime")
    classes = package.manifest.classes
    with (
        _connected(protocol, folder) as (server, proxy, source),
        Executor(package) as executor,
        live_page("0", classes) as page,
    ):
        wanted = Wanted(folder / "overlay.mp4", folder / "masks", records=folder / "frames.jsonl")
        outputs = RunOutputs(wanted, source, classes, {})
        state = Soak(server, proxy, source, random.Random(seed), folder)
        threads = [
            threading.Thread(target=state.misfortunes, args=(60 * minutes,), daemon=True),
            threading.Thread(target=state.watch, args=(minutes * 60 / 300,), daemon=True),
        ]
        with outputs.open(executor.facts) as written:
            for thread in threads:
                thread.start()
            sinks = [page.sink, written, state.sink]
            summary = run_pipeline(source, executor, sinks, package.manifest.input.size)
        state.ended.set()
        for thread in threads:
            thread.join()
        return summary, state


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--protocol", choices=("rtsp", "http", "mjpeg", "rtmp"), default="rtsp")
    parser.add_argument("--json", type=Path, help="write the samples, the faults and the summary")
    parser.add_argument("--picture", type=Path, help="draw memory, open files and frames over time, as a .png")
    arguments = parser.parse_args()
    check_outputs((arguments.json, arguments.picture), (), ())
    with tempfile.TemporaryDirectory() as folder:
        summary, state = soak(arguments.minutes, arguments.seed, arguments.protocol, Path(folder))
        left = frames_in_outputs(Path(folder))
    judged = verdicts(summary, state.samples, state.written, left, group_length(state.source.fps))
    grown = {name: growth(state.samples, name) for name in ("rss_mib", "files", "threads", "unsure")}
    if arguments.json:
        facts = {"minutes": arguments.minutes, "seed": arguments.seed, "protocol": arguments.protocol}
        seen = {"verdicts": judged, "growth": grown, "outputs": left, "summary": asdict(summary)}
        write_json(
            arguments.json,
            {"machine": machine(), **facts, **seen, "faults": state.faults, "samples": state.samples},
        )
    if arguments.picture:
        draw(arguments.picture, state.samples, state.faults)
    print(f"{len(state.faults)} faults; {summary.captured} frames captured = {summary.frames} written + "
          f"{summary.dropped} skipped + {summary.dropped_by_sinks} not written in time")  # fmt: skip
    print(
        f"{summary.outages} outages, {summary.stalls} of them stalls; {summary.reconnects} reconnects; growth {grown}"
    )
    for words, holds in judged.items():
        print(f"{'ok' if holds else 'NOT SO':>6}  {words}")
    return 0 if all(judged.values()) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SplitmergeError as error:
        sys.exit(f"soak: {error}")
