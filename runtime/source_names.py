"""What several sources are called in the names of outputs, on the live page and in metrics.

names_of(["rtsp://user:secret@cam-1:554/left", "0", "a/drive.mp4", "b/drive.mp4"])
    -> ["cam-1-554-left", "camera-0", "drive", "drive-2"]
"""

import glob
import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from runtime.addresses import camera_of, is_url, masked
from splitmerge.errors import InputError

__all__ = ["PLACEHOLDER", "names_of", "path_for"]

PLACEHOLDER = "{source}"

LONGEST = 120
"""Bytes of a name: file systems take 255, of which an ending and a partial file's mark need some."""


def names_of(sources: Sequence[str]) -> list[str]:
    """A readable name for each source, fit for a file or folder: letters, digits, `_`, `.` and `-`, beginning with no
    dot, none twice even where upper and lower case are the same; a later one of the same name gets -2, -3, ...
    """
    names: list[str] = []
    for source in sources:
        name = _name_of(source)
        taken = {other.casefold() for other in names}
        numbered = (f"{name}-{number}" if number > 1 else name for number in range(1, len(sources) + 1))
        names.append(next(each for each in numbered if each.casefold() not in taken))
    return names


def path_for(option: str, path: Path | None, name: str, sources: int) -> Path | None:
    """An output's path for one of so many sources: {source} becomes its name.

    Raises InputError where several sources would write to one place.
    """
    if path is None:
        return None
    if PLACEHOLDER in str(path):
        return Path(str(path).replace(PLACEHOLDER, name))
    if sources > 1:
        example = path.with_name(f"{path.stem}-{PLACEHOLDER}{path.suffix}")
        raise InputError(
            f"{sources} sources would all write to {option} {path}: put {PLACEHOLDER} in it, as {example}."
        )
    return path


def _name_of(source: str) -> str:
    camera = camera_of(source)
    if source == "-":
        words = "stdin"
    elif camera is not None:
        words = f"camera-{camera}" if isinstance(camera, int) else PurePath(camera).name
    elif is_url(source):
        words = _without_secrets(source)
    else:
        words = _of_files(source)
    # "." within a word is harmless; what a path could be made of ("/", "..", a leading dot) does not get through
    words = re.sub(r"\.{2,}", ".", re.sub(r"[^\w.-]+", "-", words))
    return words.encode()[:LONGEST].decode(errors="ignore").strip(".-") or "source"


def _without_secrets(url: str) -> str:
    scheme, _, rest = masked(url).partition("://")
    return rest.removeprefix("***@").partition("?")[0].strip("*/") or scheme


def _of_files(source: str) -> str:
    path = Path(source)
    if not path.exists() and glob.has_magic(source):  # the folder that the pattern looks into
        path = next((parent for parent in path.parents if not glob.has_magic(str(parent))), Path())
    return path.resolve().name if path.is_dir() else path.stem
