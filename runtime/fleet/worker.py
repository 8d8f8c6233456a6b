"""What a worker does: plan a video, compute a segment of it, join its segments. One worker has one device.

It keeps its engine from task to task. Planning and joining are tasks, too, because they read whole videos: that is
spread over the machines, and a file that brings down its reader does so in a worker.
"""

import socket
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.fleet.job import Job, Plan, Task, Video
from runtime.fleet.keyframes import Segment, Untrusted, packets_of, segments_of
from runtime.fleet.segment import SegmentSource
from runtime.fleet.store import FACTS, Store
from runtime.frames import Source
from runtime.gops import TICK
from runtime.sources import COUNTED, VideoSource
from splitmerge import __version__
from splitmerge.errors import InputError
from splitmerge.files import sha256_of, write_json
from splitmerge.package import Package

if TYPE_CHECKING:
    from runtime.pipeline import MeasuredSegmenter
    from runtime.sinks import Result, Sink

__all__ = ["Worker", "open_engine"]


def open_engine(package: Package, job: Job, device: int, threads: int | None) -> "MeasuredSegmenter":
    """The package's engine on one device, as the job asks for it."""
    from runtime.executor import Executor

    return Executor(
        package,
        contexts=job.contexts,
        chunk=job.chunk,
        backend=job.backend,
        precision=job.precision,
        density=job.density,
        devices=(device,),
        threads=threads,
    )


class Worker:
    """Does tasks. `device` is the GPU's number as this process counts them, `threads` those of the CPU for a context.

    Raises InputError where this machine does not see the job's folders, has another package or another splitmerge, and
    what opening the engine raises.
    """

    def __init__(self, job: Job, device: int = 0, threads: int | None = None) -> None:
        self._job, self._store = job, Store(job)
        _check_here(job, self._store)
        self._package = Package.open(Path(job.package))
        self._engine = open_engine(self._package, job, device, threads)

    def do(self, task: Task) -> dict[str, Any]:
        """The task's outcome: `{"plan": ...}`, `{"frames": n}`, `{"untrusted": why}`, or `{"error": why}` where the
        video is to blame. Anything else is raised, and this worker is not to be used any more.
        """
        try:
            if task.kind == "plan":
                return {"plan": asdict(self._plan(task.video, task.whole))}
            assert task.plan is not None
            self._store.check_same(task.video, task.plan.bytes, task.plan.mtime_ns)
            if task.kind == "join":
                return self._join(task.video, task.plan)
            assert task.segment is not None
            return self._compute(task, task.plan, task.segment)
        except Untrusted as why:
            return {"untrusted": str(why)}
        except (InputError, OSError) as error:
            return {"error": str(error)}

    def _plan(self, video: Video, whole: str | None) -> Plan:
        path = self._store.source(video)
        source = VideoSource(path)
        source.close()
        stat = path.stat()
        plan = Plan(stat.st_size, stat.st_mtime_ns, source.size, source.fps, (Segment(),), whole)
        if whole is None:
            plan = _divided(plan, path, source.frame_count, self._job.segment_s)
        self._store.keep_plan(video, plan)
        return plan

    def _compute(self, task: Task, plan: Plan, segment: Segment) -> dict[str, Any]:
        from runtime.pipeline import run_pipeline

        video = task.video
        path, size = self._store.source(video), self._package.manifest.input.size
        with self._store.new_segment(video, segment) as folder, ExitStack() as stack:
            source: Source = VideoSource(path) if plan.whole else SegmentSource(path, segment, plan.size, plan.fps)
            stack.callback(source.close)
            with ExitStack() as written:
                sinks: list[Sink] = [*self._sinks(written, folder, plan), _Beat(self._store, task)]
                summary = run_pipeline(source, self._engine, sinks, size)
            facts = {
                "frames": summary.frames,
                "missing_frames": summary.missing_frames,
                "resized": summary.resized,
                "warnings": list(summary.warnings),
                "host": socket.gethostname(),
            }
            write_json(folder / FACTS, facts)
        return {"frames": summary.frames}

    def _sinks(self, stack: ExitStack, folder: Path, plan: Plan) -> "list[Sink]":
        from runtime.sinks import mask_folder, overlay_video, record_file

        classes, sinks = self._package.manifest.classes, []
        if self._job.masks:
            sinks.append(stack.enter_context(mask_folder(folder / "masks")))
        if self._job.overlay:
            overlay = stack.enter_context(overlay_video(folder / "overlay.mp4", plan.size, plan.fps, classes))
            sinks.append(overlay if plan.whole else _on_ticks(overlay, plan.segments[0].start_s))
        if self._job.records:
            records = stack.enter_context(record_file(folder / "records.jsonl", classes))
            # A segment's first frame is not the first of the video, but nothing before it was dropped.
            sinks.append(lambda result: records(replace(result, dropped_before=0)))
        return sinks

    def _join(self, video: Video, plan: Plan) -> dict[str, Any]:
        from runtime.join import join_masks, join_records, join_videos

        facts = [self._store.facts(video, segment) for segment in plan.segments]
        folders = [self._store.segment(video, segment) for segment in plan.segments]
        frames, numbered = sum(each["frames"] for each in facts), [0] * len(folders)
        if self._job.masks:
            join_masks([folder / "masks" for folder in folders], numbered, self._store.target(video, "-masks"))
        if self._job.overlay:
            first = plan.segments[0].start_s
            starts = [_on_tick(segment.start_s - first) for segment in plan.segments]
            join_videos([folder / "overlay.mp4" for folder in folders], self._store.target(video, ".mp4"), starts)
        if self._job.records:
            records = [folder / "records.jsonl" for folder in folders]
            join_records(records, numbered, self._store.target(video, ".jsonl"))
        whole = {
            "frames": frames,
            "segments": len(folders),
            "whole": plan.whole,
            "missing_frames": sum(each["missing_frames"] for each in facts),
            "warnings": list(dict.fromkeys(warning for each in facts for warning in each["warnings"])),
            "hosts": sorted({each["host"] for each in facts}),
        }
        self._store.finish(video, {"bytes": plan.bytes, "mtime_ns": plan.mtime_ns, **whole})
        return whole


class _Beat:
    """A sink that tells the coordinator, who may be on another machine, that frames are done: at most once a second."""

    def __init__(self, store: Store, task: Task) -> None:
        self._store, self._task, self._frames, self._next = store, task, 0, 0.0

    def __call__(self, _: "Result") -> None:
        self._frames += 1
        if time.monotonic() >= self._next:
            self._store.beat(self._task, self._frames)
            self._next = time.monotonic() + 1.0


def _divided(plan: Plan, path: Path, promised: int | None, seconds: float) -> Plan:
    """The plan with segments, or with the reason why there is but one."""
    try:
        packets = packets_of(path)
        allowance = 0 if path.suffix.lower() in COUNTED else plan.fps
        if promised is not None and abs(promised - len(packets.pts)) > allowance:
            raise Untrusted(f"it promises {promised} frames and has {len(packets.pts)} packets")
        return replace(plan, segments=segments_of(packets, seconds))
    except Untrusted as why:
        return replace(plan, whole=str(why))


def _on_ticks(write: "Sink", start_s: float) -> "Sink":
    """The sink, given times that lie on the writer's grid as counted from the video's first frame.

    The writer rounds to ticks after a segment's first frame; from there, the sum would be off by one now and then.
    """

    def sink(result: "Result") -> None:
        time_s = _on_tick(result.frame.time_s - start_s)
        write(replace(result, frame=replace(result.frame, time_s=time_s)))

    return sink


def _on_tick(seconds: float) -> float:
    return float(round(seconds / TICK) * TICK)


def _check_here(job: Job, store: Store) -> None:
    host = socket.gethostname()
    if __version__ != job.version:
        raise InputError(f"{host} has splitmerge {__version__} and the fleet is {job.version}: install the same one.")
    manifest = Path(job.package) / "manifest.json"
    for seen, name in (
        ((store.folder / job.token).is_file(), job.out),
        (Path(job.folder).is_dir(), job.folder),
        (manifest.is_file() and sha256_of(manifest) == job.package_sha256, job.package),
    ):
        if not seen:
            raise InputError(
                f"{host} does not see {name} as this machine does: the videos, the package and the output folder must "
                "lie on storage that all machines share under the same names."
            )
