"""Files that are either whole or absent, and their hashes."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from splitmerge.errors import InputError

__all__ = [
    "check_outputs",
    "hidden",
    "new_file",
    "new_folder",
    "read_json",
    "sha256_of",
    "sync_folder",
    "writable_folder",
    "write_json",
]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def writable_folder(folder: Path) -> Path:
    """Make `folder` if it is missing and prove that a file can be made in it.

    Raises InputError where that is not so.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"Cannot write into {folder} ({error.strerror or error}): name a folder on a disk that can be written."
        ) from None
    return folder


def check_outputs(
    files: Iterable[Path | None] = (), folders: Iterable[Path | None] = (), sources: Iterable[Path] = ()
) -> None:
    """Refuse outputs that are a source, lie twice in one place or cannot be written, before any work is done.

    None stands for an output that nobody asked for. Folders are only looked at, not made.
    """
    wanted = [(path, False) for path in files if path] + [(path, True) for path in folders if path]
    read = [source.resolve() for source in sources]
    places = [path.resolve() for path, _ in wanted]
    for (path, is_folder), place in zip(wanted, places, strict=True):
        for source in read:
            if place == source or place in source.parents:
                word = "is" if place == source else "holds"
                raise InputError(f"{path} {word} the source, which writing would destroy: name another output.")
        if places.count(place) > 1:
            raise InputError(f"{path} is named for two outputs: give each its own name.")
        _check_kind(place, path, is_folder)
        writable_folder(next((folder for folder in place.parents if folder.exists()), place))


def hidden(place: Path) -> Path:
    """Where something grows that belongs at `place`: beside it, with the same ending, always at the same name."""
    return place.with_name(f".{place.stem}.partial{place.suffix}")


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk itself, as far as the system can."""
    with suppress(OSError):  # Windows opens no folder
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, with the same ending; rename it onto `path` only if the block succeeds.

    The file is on the disk itself before it has its name, and its name when this returns: whoever then removes what it
    was made of loses nothing by a power cut. Raises InputError where `path` is a folder or a device.
    """
    _check_kind(path, path, is_folder=False)
    writable_folder(path.parent)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        _sync_file(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; let it take the place of `path` only if the block succeeds.

    As `new_file`'s, what is in it is on the disk itself before it has its name. Raises InputError where `path` is a
    file or a link.
    """
    if path.is_symlink():
        raise InputError(f"{path} is a link, and a folder was to take its place: name the folder itself.")
    _check_kind(path, path, is_folder=True)
    writable_folder(path.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    temporary.chmod(0o755)
    old = temporary.with_suffix(".old")
    try:
        yield temporary
        _sync_tree(temporary)
        try:
            if path.exists():
                path.replace(old)
            temporary.replace(path)
        except BaseException:
            if old.exists() and not path.exists():
                old.replace(path)
            raise
        sync_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises InputError where it is missing or is not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}.") from None


def _check_kind(place: Path, name: Path, is_folder: bool) -> None:
    if is_folder and place.exists() and not place.is_dir():
        raise InputError(f"{name} is a file and a folder was to be written there: name another output.")
    if not is_folder and place.exists() and not place.is_file():
        kind = "a folder" if place.is_dir() else "no regular file"
        raise InputError(f"{name} is {kind} and a file was to be written there: name another output.")


def _sync_file(path: Path) -> None:
    """Have a file's bytes on the disk itself, so that a power cut leaves no empty file under a name that counts."""
    fd = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows syncs no file that it only reads
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_tree(folder: Path) -> None:
    """Have a folder on the disk itself, with all files and folders in it."""
    for place, _, files in os.walk(folder):
        for name in files:
            _sync_file(Path(place, name))
        sync_folder(Path(place))
