"""The work folder `OUT/.work`: what is done, each piece whole or absent.

    lock                      the process that works here
    manifest.json             what all results here depend on
    <video>/plan.json         the video's segments
    <video>/<segment>/        a segment's results, renamed to this name as a whole
    <video>/.<segment>.beat   how far a worker is at it, so that the coordinator sees that it does not hang
    <video>/done.json         the video's results are in their places; nothing else is left here then

Whoever computes a segment a second time (two workers of which one was believed lost) finds the folder there and throws
its own away: the first wins, and both are equal.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runtime.fleet.job import Job, Plan, Task, Video
from runtime.fleet.keyframes import Segment
from splitmerge.errors import InputError
from splitmerge.files import read_json, sync_folder, write_json

__all__ = ["Store"]

FACTS = "facts.json"


class Store:
    """The work folder of a job."""

    def __init__(self, job: Job) -> None:
        self._job, self.folder = job, Path(job.out) / ".work"

    def source(self, video: Video) -> Path:
        """The video itself."""
        return Path(self._job.folder) / video.path

    def target(self, video: Video, ending: str) -> Path:
        """Where a result goes: OUT/trip/drive + ending."""
        return Path(self._job.out) / f"{video.target}{ending}"

    def targets(self, video: Video) -> list[Path]:
        """Where the results go that the job wants."""
        wanted = {"-masks": self._job.masks, ".mp4": self._job.overlay, ".jsonl": self._job.records}
        return [self.target(video, ending) for ending, is_wanted in wanted.items() if is_wanted]

    def place(self, video: Video) -> Path:
        """The video's own work folder."""
        return self.folder / video.id

    def segment(self, video: Video, segment: Segment) -> Path:
        """The folder of a segment's results, which exists if they are whole."""
        return self.place(video) / segment.name

    def bind(self) -> None:
        """Note what the results depend on. Raises InputError where the folder holds results of something else."""
        path, mine = self.folder / "manifest.json", self._job.binding
        if not path.exists():
            write_json(path, mine)
            return
        there = read_json(path)
        for name, value in mine.items():
            if there.get(name) != value:
                what = "another package" if name == "package_sha256" else f"{name.replace('_', '-')} {there.get(name)}"
                now = "" if name == "package_sha256" else f", not {value}"
                raise InputError(
                    f"{self._job.out} holds results made with {what}{now}: give what it was begun with, or another "
                    "--out."
                )

    def leave_token(self, token: str) -> None:
        """Make the file by which workers know that they see this very folder."""
        self.remove_tokens()
        (self.folder / token).touch()

    def remove_tokens(self) -> None:
        """Remove such files, those of killed processes too."""
        for path in self.folder.glob("token-*"):
            path.unlink(missing_ok=True)

    def done(self, video: Video) -> dict[str, Any] | None:
        """The facts of a video whose results are in their places, None where they are not, or not any more."""
        path = self.place(video) / "done.json"
        if not path.exists():
            return None
        if not all(_holds_something(place) for place in self.targets(video)):
            path.unlink()
            return None
        return dict(read_json(path))

    def plan(self, video: Video) -> Plan | None:
        """The plan that was made before, None where there is none."""
        path = self.place(video) / "plan.json"
        return Plan.from_json(read_json(path)) if path.exists() else None

    def keep_plan(self, video: Video, plan: Plan) -> None:
        """Keep a new plan in place of any other."""
        self.place(video).mkdir(parents=True, exist_ok=True)
        write_json(self.place(video) / "plan.json", asdict(plan))

    def check_same(self, video: Video, bytes: int, mtime_ns: int) -> None:
        """Raise InputError where the video is not the file that it was, by size and time of change."""
        now = self.source(video).stat()
        if (now.st_size, now.st_mtime_ns) != (bytes, mtime_ns):
            raise InputError(
                f"{self.source(video)} was changed after its results were begun: delete {self.place(video)} to make "
                "them again."
            )

    @contextmanager
    def new_segment(self, video: Video, segment: Segment) -> Iterator[Path]:
        """A folder for a segment's results, which takes its place as a whole if the block succeeds. What is written
        into it is to be on the disk itself by then, as all sinks see to.
        """
        place = self.segment(video, segment)
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".partial", dir=place.parent))
        try:
            yield temporary
            temporary.chmod(0o755)
            try:
                temporary.rename(place)
            except OSError:
                if not place.is_dir():
                    raise
            sync_folder(place.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def beat(self, task: Task, frames: int) -> None:
        """Note how far a worker is at a segment, in words that no other attempt at it has."""
        self._beat(task).write_text(f"{frames} frames at {time.time():.6f}")

    def heard(self, task: Task) -> str | None:
        """What was noted of that; None where nothing was."""
        try:
            return self._beat(task).read_text() if task.segment else None
        except OSError:
            return None

    def _beat(self, task: Task) -> Path:
        assert task.segment is not None
        return self.place(task.video) / f".{task.segment.name}.beat"

    def facts(self, video: Video, segment: Segment) -> dict[str, Any]:
        """What was noted of a segment that is done."""
        return dict(read_json(self.segment(video, segment) / FACTS))

    def sweep(self, video: Video) -> None:
        """Remove what dead workers left half-written."""
        for path in self.place(video).glob(".*"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def finish(self, video: Video, facts: dict[str, Any]) -> None:
        """Note that the video's results are in their places, then remove its segments."""
        write_json(self.place(video) / "done.json", facts)
        self.sweep(video)
        for path in self.place(video).iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)


def _holds_something(place: Path) -> bool:
    return any(place.iterdir()) if place.is_dir() else place.is_file()
