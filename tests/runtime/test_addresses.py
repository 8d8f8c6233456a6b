"""What a name means, and that no credential is left in what is shown or kept of it."""

import pytest
from clips import Threshold, write_clip, write_package

import splitmerge.commands.run
from runtime.addresses import SCHEMES, camera_of, is_url, masked
from runtime.sources import open_source
from splitmerge.cli import main
from splitmerge.errors import InputError


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("rtsp://user:pass@cam/stream", "rtsp://***@cam/stream"),
        ("rtsp://user:p@ss@cam:554/1", "rtsp://***@cam:554/1"),
        ("rtsp://user:p/a?ss@cam/1", "rtsp://***"),
        ("http://user:pass@cam/a?pwd=pass", "http://***@cam/a?***"),
        ("http://cam/a?user=u&pwd=p@ss", "http://***"),
        ("HTTPS://u:pass@cam/", "HTTPS://***@cam/"),
        ("udp://127.0.0.1:1234", "udp://127.0.0.1:1234"),
        ("rtspu://user:pass@cam/1", "rtspu://***@cam/1"),
        ("rtsp+tls://user:pass@cam/1", "rtsp+tls://***@cam/1"),
        (" \trtsp://user:pass@cam/1", "rtsp://***@cam/1"),
        ("rtsp:/user:pass@cam/1", "rtsp://***@cam/1"),
        ("drive@home?.mp4", "drive@home?.mp4"),
        ("C:/drive@home?.mp4", "C:/drive@home?.mp4"),
        ("a/b:/c@d.mp4", "a/b:/c@d.mp4"),
    ],
)
def test_masked(name, shown):
    assert masked(name) == shown


def test_cameras():
    assert camera_of("0") == 0
    assert camera_of("/dev/null") == "/dev/null"
    assert camera_of("./0") is None and camera_of("/dev/video-that-is-not") is None and camera_of("a.mp4") is None


UNKNOWN = ["ftp://", "rtp://", "sftp://", "mms://", "rtspu://", "RTSP+tls://", "  ftp://", "rtsp:/", "file:///"]


@pytest.mark.parametrize("scheme", [*UNKNOWN, " rtsp://", "\thttp://"])
def test_no_password_is_shown_or_kept_whatever_the_scheme(tmp_path, monkeypatch, capfd, scheme):
    """Two sources: one that can be read, so that there are outputs, records and a summary; and one with a password."""
    monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda *_: Threshold())
    write_package(tmp_path / "package")
    clip, out = write_clip(tmp_path / "a.avi", 5), tmp_path / "out"
    outputs = ("--records", f"{out}/{{source}}.jsonl", "--masks", f"{out}/{{source}}", "--json", f"{out}/run.json")
    url = f"{scheme}user:geheim@127.0.0.1:1/live?pwd=geheim"
    assert main(["run", url, str(clip), "--package", str(tmp_path / "package"), *outputs, "--page", "0"]) == 2
    assert main(["run", url, "--package", str(tmp_path / "package"), "--json", f"{out}/alone.json"]) == 2
    assert main(["fleet", url, "--package", str(tmp_path / "package"), "--out", f"{out}/fleet", "--masks"]) == 2
    said = capfd.readouterr()
    assert said.err.count("***@127.0.0.1:1/live?***") >= 3 and "geheim" not in said.out + said.err
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {"run.json", "a.jsonl", ".a.jsonl.run.json"} <= {path.name for path in files}
    assert not [path for path in files if "geheim" in path.name or b"geheim" in path.read_bytes()]


@pytest.mark.parametrize("scheme", UNKNOWN)
def test_a_scheme_that_nobody_knows_is_no_file(scheme):
    with pytest.raises(InputError, match=r"is no address that can be opened: begin it with rtsp://, .*srt://, or"):
        open_source(f"{scheme}cam/1")


def test_known_schemes():
    assert all(is_url(f"{scheme}://cam") for scheme in SCHEMES)
