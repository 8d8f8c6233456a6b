"""`splitmerge fleet`: a folder of videos through a package's network, on all GPUs of a machine or of a cluster."""

import argparse
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from splitmerge.errors import InputError
from splitmerge.options import positive_integer, positive_number

if TYPE_CHECKING:
    from runtime.fleet.crew import Crew
    from runtime.fleet.job import Job
    from splitmerge.package import Package

HELP = "Segment a folder of videos in pieces, one worker per GPU, each piece once; the same command goes on."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from runtime.schedule import DEFAULT_CONTEXTS, DENSITIES

    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder of videos, with the folders in it")
    add("--package", type=Path, required=True, help="folder that `splitmerge export` made")
    add("--out", type=Path, required=True, help="folder for results, under the videos' own paths")
    add("--overlay", action="store_true", help="NAME.mp4: the video with its labels blended over it")
    add("--masks", action="store_true", help="NAME-masks/: label maps, 000000.png, gray class ids")
    add("--records", action="store_true", help="NAME.jsonl: one JSON object a frame")
    add(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="use the Ray cluster at ADDRESS; without one, that of this machine, or a new one",
    )
    add("--workers", type=positive_integer, metavar="N", help="workers; one per GPU, or one per machine, if absent")
    add("--segment-s", type=positive_number, default=60.0, metavar="S", help="seconds of video in a piece, about")
    add(
        "--stall-s",
        type=positive_number,
        default=1800.0,  # more than a frame takes anywhere, and than planning or joining a long video
        metavar="S",
        help="end and replace a worker that computes no frame, or does not plan or join a video, in so many seconds",
    )
    group = parser.add_argument_group("engine")
    group.add_argument("--backend", default="auto", help="auto, or one of those that `splitmerge doctor` lists")
    group.add_argument("--precision", default="fp32", help="one of the package's precisions")
    group.add_argument("--density", choices=tuple(DENSITIES), default="1", help="share of the pixels that are computed")
    group.add_argument("--contexts", type=positive_integer, default=DEFAULT_CONTEXTS, metavar="N", help="as for run")
    group.add_argument("--chunk", type=positive_integer, default=1, metavar="N", help="as for run")


def run(arguments: argparse.Namespace) -> int:
    from runtime.fleet.board import Board
    from runtime.fleet.coordinator import run_fleet
    from runtime.fleet.job import videos_in
    from runtime.fleet.lock import locked
    from runtime.fleet.report import report, table
    from runtime.fleet.store import Store
    from splitmerge.files import writable_folder, write_json
    from splitmerge.package import Package

    folder, out = arguments.folder.resolve(), arguments.out.resolve()
    _check(arguments, folder, out)
    package = Package.open(arguments.package.resolve())
    videos = videos_in(folder, out)
    job = _job(arguments, package, folder, out)
    store = Store(job)
    writable_folder(store.folder)
    with locked(store.folder / "lock") as stale:
        if stale:
            print(stale)
        store.bind()
        try:
            store.leave_token(job.token)
            board = Board(store, videos)
            begin = lambda: _crew(arguments, job, package)  # noqa: E731 (only where there is something to do)
            notes = run_fleet(store, board, begin, len(videos), progress=True, stall_s=arguments.stall_s)
        finally:
            store.remove_tokens()
        whole = report(board.rows, len(videos), notes)
        write_json(out / "fleet.json", whole)
    for note in notes:
        print(f"splitmerge: {note}", file=sys.stderr)
    print(table(board.rows))
    print(f"{whole['done']} of {len(videos)} videos done, {whole['failed']} failed: {out / 'fleet.json'}")
    return InputError.exit_code if any(row.state == "failed" or row.missing_frames for row in board.rows) else 0


def _check(arguments: argparse.Namespace, folder: Path, out: Path) -> None:
    from runtime.addresses import is_url, masked

    try:
        import av  # noqa: F401
    except ImportError:
        raise InputError("splitmerge fleet needs PyAV to find key frames: pip install av.") from None
    if is_url(str(arguments.folder)):  # which may hold a password
        raise InputError(f"{masked(str(arguments.folder))} is no folder of videos: `splitmerge run` takes streams.")
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: name one that holds videos; `splitmerge run` takes a single one.")
    if out == folder:
        raise InputError(f"--out {out} is the folder of the videos: results would mix with them, name another.")
    if not (arguments.overlay or arguments.masks or arguments.records):
        raise InputError("Nothing would be kept of the videos: give --overlay, --masks or --records, or several.")


def _job(arguments: argparse.Namespace, package: "Package", folder: Path, out: Path) -> "Job":
    from runtime.fleet.job import Job
    from splitmerge import __version__
    from splitmerge.files import sha256_of

    package.parts(arguments.precision)
    same = ("overlay", "masks", "records", "segment_s", "backend", "precision", "density", "contexts", "chunk")
    return Job(
        folder=str(folder),
        out=str(out),
        package=str(package.folder),
        package_sha256=sha256_of(package.folder / "manifest.json"),
        version=__version__,
        token=f"token-{secrets.token_hex(8)}",
        **{name: getattr(arguments, name) for name in same},
    )


def _crew(arguments: argparse.Namespace, job: "Job", package: "Package") -> "Crew":
    if arguments.ray is not None:
        from runtime.fleet.ray_crew import RayCrew

        return RayCrew(job, arguments.ray, arguments.workers)
    from engines.backends import choose_backend_to_run
    from engines.machine import find_gpus
    from runtime.fleet.local import LocalCrew

    gpus = [gpu.index for gpu in find_gpus()]
    backend, why = choose_backend_to_run(package, job.backend, job.precision, gpus[:1] or (0,))
    print(f"backend: {backend} ({why})")
    if backend == "onnxruntime" or not gpus:
        workers = arguments.workers or 1
        threads = max(1, (os.cpu_count() or 1) // (workers * job.contexts)) if workers > 1 else None
        return LocalCrew(job, [0] * workers, threads)
    return LocalCrew(job, [gpus[i % len(gpus)] for i in range(arguments.workers or len(gpus))])
