"""Names of sources in outputs: readable, different, and neither a way out of a folder nor a secret."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.source_names import names_of, path_for
from splitmerge.errors import InputError

NAMED = {
    "drive.mp4": "drive",
    "a/b/Fahrt nach Köln.2.mkv": "Fahrt-nach-Köln.2",
    "../../etc/passwd": "passwd",
    "...": "source",
    "..": "source",
    "a/...mp4": "source",
    "a/.hidden": "hidden",
    "a/x..y.mp4": "x.y",
    "C:\\videos\\a.mp4": "C-videos-a",
    "0": "camera-0",
    "/dev/null": "null",
    "-": "stdin",
    "rtsp://cam-1/left": "cam-1-left",
    "rtsp://user:secret@10.0.0.7:554/Streaming/Channels/101": "10.0.0.7-554-Streaming-Channels-101",
    "rtsp://user:sec@ret/@10.0.0.7/live": "10.0.0.7-live",
    "http://cam/video.mjpg?user=admin&pwd=secret": "cam-video.mjpg",
    "http://cam/a?user=x&pwd=sec?@ret": "http",
    "udp://@:1234": "1234",
    "http://cam/../../etc/passwd": "cam-.-.-etc-passwd",
    "rtmp://host/" + "k" * 300: "host-" + "k" * 115,
}


@pytest.mark.parametrize(("source", "name"), NAMED.items(), ids=range(len(NAMED)))
def test_names(source: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if source == "..":
        name = tmp_path.parent.name
    assert names_of([source]) == [name]


def test_folders_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "frames.1").mkdir()
    monkeypatch.chdir(tmp_path / "frames.1")
    assert names_of([str(tmp_path / "frames.1")]) == ["frames.1"]
    assert names_of(["."]) == ["frames.1"]
    assert names_of([f"{tmp_path}/frames.1/*.png", "*.png", f"{tmp_path}/*/*.png"]) == [
        "frames.1",
        "frames.1-2",
        tmp_path.name,
    ]


def test_later_ones_of_the_same_name_are_numbered() -> None:
    sources = ["a/drive.mp4", "b/drive.mp4", "drive-2.mp4", "Drive.mov", "c/drive.avi"]
    assert names_of(sources) == ["drive", "drive-2", "drive-2-2", "Drive-3", "drive-4"]


@given(st.lists(st.text(max_size=60), min_size=1, max_size=6))
def test_any_names_are_different_and_stay_in_their_folder(sources: list[str]) -> None:
    names = names_of([source.replace("\0", "") or "x" for source in sources])
    assert len({name.casefold() for name in names}) == len(sources)
    for name in names:
        assert Path("out", name).name == name and ".." not in name and not name.startswith((".", "-"))
        assert 0 < len(name.encode()) <= 125


@given(st.text(st.characters(exclude_characters="\0"), min_size=4), st.sampled_from(["rtsp", "http", "rtmp"]))
def test_no_password_in_a_name(password: str, scheme: str) -> None:
    (name,) = names_of([f"{scheme}://user:{password}@cam/x?token={password}"])
    assert name in ("cam-x", scheme)


def test_paths() -> None:
    assert path_for("--overlay", Path("out/{source}.mp4"), "drive", 2) == Path("out/drive.mp4")
    assert path_for("--masks", Path("{source}/masks-{source}"), "a", 1) == Path("a/masks-a")
    assert path_for("--overlay", Path("out.mp4"), "drive", 1) == Path("out.mp4")
    assert path_for("--overlay", None, "drive", 3) is None
    with pytest.raises(InputError) as refused:
        path_for("--overlay", Path("out/o.mp4"), "drive", 3)
    assert str(refused.value) == (
        "3 sources would all write to --overlay out/o.mp4: put {source} in it, as out/o-{source}.mp4."
    )
