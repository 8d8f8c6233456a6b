"""What a run leaves beside its outputs, so that `--resume` can go on: how far it came, and what it was a run of.

    .NAME.run.json   beside the first output: {"run": what it was of, "mark": how far, "finished": whether to its end,
                      "incomplete": whether its source had fewer frames than it was to have}
    .NAME.run.json   beside each other output while the run is unfinished: {"state": where the one above is}
    .NAME.run.lock   beside each while the run goes on (runtime.output_locks)

The state is written, and is on the disk itself, after the outputs' frames that it counts. So whatever ended a run, the
outputs have at least the frames that it says.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.growing import unwritable
from runtime.output_locks import OutputLocks
from runtime.sources import ImageSource, Source
from splitmerge.files import hidden, sync_folder

__all__ = ["Mark", "RunState", "fingerprint", "source_facts"]


@dataclass(frozen=True)
class Mark:
    """How far a run has come: `frames` are done, the last one shown at `time_s`, and the next one's number is
    `next_index`. The overlay has `overlay_frames` of them for sure, and its clock (runtime.gops.Clock) was there at
    `first_s` and `last_tick`.
    """

    frames: int = 0
    next_index: int = 0
    time_s: float = 0.0
    overlay_frames: int = 0
    first_s: float = 0.0
    last_tick: int = -1


_BLOCK, _BLOCKS = 1 << 16, 64

Facts = dict[str, Any]


class RunState:
    """The state of a run with outputs at `places`; `found` is what an earlier one left there, None where nothing is.

    Raises InputError where another run is at work at one of them.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        self._places = [place.resolve() for place in places]
        self.path = _state_path(self._places[0])
        self._locks = OutputLocks(self._places)
        self.found = self._find()

    def refusal(self, facts: Mapping[str, Any]) -> str | None:
        """Why what was found cannot be gone on with by a run of `facts`; None where it can."""
        assert self.found is not None
        before = self.found["run"]
        for key, now in facts.items():
            if key in before and _essence(before[key]) != _essence(now):
                return (
                    f"{self._places[0]} is of an earlier run with another {key} ({_words(before[key])}, and now "
                    f"{_words(now)}): give what it had, or leave out --resume to begin anew."
                )
        return None

    @property
    def mark(self) -> Mark:
        """How far the run that was found came."""
        return Mark(**self.found["mark"]) if self.found else Mark()

    @property
    def ended(self) -> bool:
        """Whether the run that was found came to its end."""
        return bool(self.found and self.found["finished"])

    @property
    def finished(self) -> bool:
        """Whether it did, and its outputs are still there."""
        return self.ended and all(place.exists() for place in self._places)

    @property
    def incomplete(self) -> bool:
        """Whether its source had fewer frames than it was to have."""
        return bool(self.found and self.found.get("incomplete"))

    def write(self, facts: Mapping[str, Any], mark: Mark, finished: bool = False, incomplete: bool = False) -> None:
        """Say how far the run is. What it counts must be on the disk already."""
        ends = {"finished": finished, "incomplete": incomplete}
        _write(self.path, {"run": dict(facts), "mark": asdict(mark), **ends})

    def write_pointers(self) -> None:
        """Let the other outputs say where the state is."""
        for place in self._places[1:]:
            _write(_state_path(place), {"state": str(self.path)})

    def remove_pointers(self) -> None:
        """A run that has come to its end needs them no more."""
        for place in self._places[1:]:
            _state_path(place).unlink(missing_ok=True)

    def remove(self) -> None:
        """Leave nothing of the run."""
        self.remove_pointers()
        self.path.unlink(missing_ok=True)
        hidden(self.path).unlink(missing_ok=True)

    def close(self) -> None:
        """Let others run here."""
        self._locks.close()

    def _find(self) -> Facts | None:
        for place in self._places:
            content = _read(_state_path(place))
            if content is not None and "state" in content:
                content = _read(Path(str(content["state"])))
            if content is not None and {"run", "mark", "finished"} <= content.keys():
                return content
        return None


def source_facts(source: Source) -> Facts:
    """What makes a source the same one again: a file's or all images' content, a stream's name."""
    if not source.paths or source.live:
        return {"name": source.name, "size": list(source.size)}
    return {"name": source.name, "sha256": fingerprint(source.paths, names=isinstance(source, ImageSource))}


def fingerprint(paths: Sequence[Path], names: bool = False) -> str:
    """SHA-256 of the files' sizes, of blocks of 64 KiB evenly spread over each, and of their names where asked for.

    At most 64 blocks of a file, and less of each of many, so that hours of video take no time.
    """
    digest, blocks = hashlib.sha256(), max(1, _BLOCKS // len(paths))
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name if names else ''}:{size}:".encode())
        with path.open("rb") as file:
            for start in _starts(size, blocks):
                file.seek(start)
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def _starts(size: int, blocks: int) -> list[int]:
    if size <= blocks * _BLOCK:
        return list(range(0, size, _BLOCK))
    return [number * (size - _BLOCK) // max(1, blocks - 1) for number in range(blocks)]


def _state_path(place: Path) -> Path:
    return place.with_name(f".{place.name}.run.json")


def _read(path: Path) -> Facts | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write(path: Path, content: Facts) -> None:
    temporary = hidden(path)
    try:
        with temporary.open("w") as file:
            file.write(json.dumps(content, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise unwritable(path, error) from None
    sync_folder(path.parent)


def _essence(value: Any) -> Any:
    """A file by its content, whatever it is called now."""
    return value.get("sha256", value) if isinstance(value, dict) else value


def _words(value: Any) -> str:
    return str(value["name"]) if isinstance(value, dict) and "name" in value else json.dumps(value)
