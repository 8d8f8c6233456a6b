"""Files are whole or absent."""

import errno
import os
import stat
from pathlib import Path

import pytest

from splitmerge.errors import InputError
from splitmerge.files import check_outputs, new_file, new_folder, read_json, sha256_of, writable_folder, write_json


def test_a_new_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out.mp4"
    with new_file(path) as temporary:
        temporary.write_text("whole")
        assert temporary.suffix == ".mp4"
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), new_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_folder_takes_the_old_ones_place_whole(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "stale").touch()
    with pytest.raises(RuntimeError), new_folder(folder) as temporary:
        (temporary / "half").touch()
        raise RuntimeError
    assert [p.name for p in folder.iterdir()] == ["stale"]
    with new_folder(folder) as temporary:
        (temporary / "fresh").touch()
    assert [p.name for p in folder.iterdir()] == ["fresh"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"Cannot write into .*file/below"):
        writable_folder(tmp_path / "file" / "below")


def test_json_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": [1, None]})
    assert read_json(path) == {"a": [1, None]}
    path.write_bytes(b"abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_json(path)
    with pytest.raises(InputError, match="no file"):
        read_json(tmp_path / "none.json")


def test_a_folder_or_a_device_is_no_place_for_a_file(tmp_path: Path) -> None:
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(InputError, match="a file was to be written there"), new_file(path):
            pytest.fail("the block must not run")


def test_a_file_or_a_link_is_no_place_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name, words in (("file", "file is a file"), ("link", "link is a link")):
        with pytest.raises(InputError, match=words), new_folder(tmp_path / name):
            pytest.fail("the block must not run")
    assert (tmp_path / "file").read_text() == "old" and (tmp_path / "link").is_symlink()


def test_the_old_folder_comes_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, replace = tmp_path / "package", Path.replace
    folder.mkdir()
    (folder / "old").touch()

    def fail(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise OSError(errno.EIO, "Input/output error", str(self))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="Input/output"), new_folder(folder) as temporary:
        (temporary / "new").touch()
    assert [p.name for p in tmp_path.iterdir()] == ["package"]
    assert [p.name for p in folder.iterdir()] == ["old"]


def test_outputs_are_checked_before_work(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    source.touch()
    (tmp_path / "link.mp4").symlink_to(source)
    (tmp_path / "folder").mkdir()
    for output in (source, tmp_path / "link.mp4", tmp_path / "x/../in.mp4"):
        with pytest.raises(InputError, match="is the source, which"):
            check_outputs([output], sources=[source])
    with pytest.raises(InputError, match="holds the source, which"):
        check_outputs(folders=[tmp_path], sources=[source])
    with pytest.raises(InputError, match="two outputs"):
        check_outputs([tmp_path / "a", None], [tmp_path / "a"])
    with pytest.raises(InputError, match=r"Cannot write into .*in\.mp4"):
        check_outputs([source / "below-a-file/out.mp4"])
    with pytest.raises(InputError, match="folder is a folder and a file"):
        check_outputs([tmp_path / "folder"])
    with pytest.raises(InputError, match=r"in\.mp4 is a file and a folder"):
        check_outputs(folders=[source])
    check_outputs([tmp_path / "new/a.json"], [tmp_path / "folder", tmp_path / "new/masks"], [source])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "in.mp4", "link.mp4"]


def test_names_come_after_bytes_and_are_on_the_disk_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut leaves is what was synced: the order of the calls that see to it."""
    calls: list[tuple[str, bool]] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        calls.append((kind, wanted.exists()))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    wanted = tmp_path / "a.json"
    write_json(wanted, {})
    assert calls == [("file", False), ("folder", True)]
    calls.clear()
    wanted = tmp_path / "folder"
    with new_folder(wanted) as temporary:
        (temporary / "deep").mkdir()
        for name in ("a", "deep/b"):
            (temporary / name).write_text("bytes")
            (temporary / name).chmod(0o444)
    assert calls == [("file", False), ("folder", False), ("file", False), ("folder", False), ("folder", True)]
