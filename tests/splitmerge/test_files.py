"""Files are whole or absent."""

from pathlib import Path

import pytest

from splitmerge.errors import InputError
from splitmerge.files import new_file, new_folder, read_json, sha256_of, writable_folder, write_json


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
