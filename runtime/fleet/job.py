"""What a fleet is asked to do, in words that go to workers as JSON: the job, its videos, a video's plan, a task."""

import hashlib
import os
import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.fleet.keyframes import Segment
from splitmerge.errors import InputError

__all__ = ["SUFFIXES", "Job", "Plan", "Task", "Video", "videos_in"]

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv")
"""What counts as a video in a folder. Other files are passed over."""


@dataclass(frozen=True)
class Job:
    """Everything a worker must know. Folders are absolute; all machines see them under these names.

    `package_sha256` is the hash of the package's manifest, which holds those of its graphs; `token` the name of a file
    in the work folder that a worker on the same storage finds.
    """

    folder: str
    out: str
    package: str
    package_sha256: str
    version: str
    token: str
    overlay: bool = False
    masks: bool = False
    records: bool = True
    segment_s: float = 60.0
    backend: str = "auto"
    precision: str = "fp32"
    density: str = "1"
    contexts: int = 2
    chunk: int = 1

    @property
    def binding(self) -> dict[str, Any]:
        """What results depend on: the same in every command that goes on with the same output folder.

        The labels are the same for any number of contexts, wherever they are computed. Of whole frames they are for
        any chunk, too; at a lower density chunks are computed whole, so that a large one fills in more pixels.
        """
        return {
            "package_sha256": self.package_sha256,
            "overlay": self.overlay,
            "masks": self.masks,
            "records": self.records,
            "segment_s": self.segment_s,
            "backend": self.backend,
            "precision": self.precision,
            "density": self.density,
            **({} if self.density == "1" else {"chunk": self.chunk}),
        }


@dataclass(frozen=True)
class Video:
    """A video by its path below the job's folder, and where its results go below the output folder, without ending."""

    path: str
    target: str

    @property
    def id(self) -> str:
        """A name for its work folder that no other path has, readable at the beginning."""
        readable = re.sub(r"[^A-Za-z0-9]+", "-", Path(self.path).name)[:40].strip("-")
        return f"{readable}-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]}"


@dataclass(frozen=True)
class Plan:
    """How a video is divided. `size` is (height, width) in pixels; `whole` says why it is not cut, None where it is.
    `bytes` and `mtime_ns` are the file's, to notice another in its place.
    """

    bytes: int
    mtime_ns: int
    size: tuple[int, int]
    fps: float
    segments: tuple[Segment, ...]
    whole: str | None = None

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Plan":
        segments = tuple(Segment(**segment) for segment in value["segments"])
        return cls(**{**value, "size": tuple(value["size"]), "segments": segments})


@dataclass(frozen=True)
class Task:
    """One thing for a worker to do: `plan` a video (`whole`: for this reason in one segment), compute its `segment`,
    or `join` its segments.
    """

    kind: str
    video: Video
    plan: Plan | None = None
    segment: Segment | None = None
    whole: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is called when its failures are counted."""
        return self.video.path, self.kind, self.segment.name if self.segment else ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Task":
        plan, segment = value["plan"], value["segment"]
        return cls(
            value["kind"],
            Video(**value["video"]),
            Plan.from_json(plan) if plan else None,
            Segment(**segment) if segment else None,
            value["whole"],
        )


def videos_in(folder: Path, out: Path) -> list[Video]:
    """All videos below `folder` by name, `out` and hidden ones left out. Only names are read, no file is opened.

    Results are called as the video without its ending; videos that share such a name keep their endings. Raises
    InputError where there is no video, or two would still have results of one name.
    """
    paths: list[str] = []
    for place, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and (Path(place) / f).resolve() != out)
        chosen = [name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        paths += [Path(place, name).relative_to(folder).as_posix() for name in sorted(chosen)]
    if not paths:
        raise InputError(f"{folder} has no videos ({', '.join(SUFFIXES)}), nor has any folder in it: name another.")
    # Disks that do not tell upper from lower case must not mix two videos' results, either.
    stems = {path: Path(path).with_suffix("").as_posix() for path in paths}
    shared = Counter(stem.lower() for stem in stems.values())
    videos = [Video(path, path if shared[stem.lower()] > 1 else stem) for path, stem in stems.items()]
    targets = Counter(video.target.lower() for video in videos)
    if twice := next((video for video in videos if targets[video.target.lower()] > 1), None):
        raise InputError(f"{folder}/{twice.path} and another video would have results of one name: rename one of them.")
    return videos


def _raise(error: OSError) -> None:
    raise error
