"""What every verb shares: exit codes, one sentence for what the system refuses, options in words."""

import argparse
import errno
import os
import signal
from pathlib import Path

import pytest

import splitmerge.commands.inspect
from splitmerge.cli import main
from splitmerge.options import height_and_width, positive_integer, positive_number, whole_number


def test_a_name_that_the_system_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "a" * 5000]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "out/a.json"),
            "out/a.json cannot be read or written (No spa",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", b"model.onnx"),
            "model.onnx cannot be read or written (Per",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "The system refused to go on (No space left on device)"),
        (OSError("strange"), "The system refused to go on (strange)"),
    ],
)
def test_the_systems_errors_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError, words: str
) -> None:
    def fail(arguments: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(splitmerge.commands.inspect, "run", fail)
    assert main(["inspect", "p"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"splitmerge: {words}")


def test_a_disk_that_is_full_when_the_json_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_text", full)
    assert main(["doctor", "--json", str(tmp_path / "d.json")]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_termination_is_an_exception_inside_a_verb_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unwound = []

    def wait(arguments: argparse.Namespace) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            unwound.append(True)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(splitmerge.commands.inspect, "run", wait)
    assert main(["inspect", "p"]) == 143
    assert capsys.readouterr().err == "splitmerge: terminated\n"
    assert unwound and signal.getsignal(signal.SIGTERM) is before


def test_numbers_in_options() -> None:
    assert (positive_integer("3"), whole_number("0"), positive_number("1e-3")) == (3, 0, 1e-3)
    assert height_and_width("512x1024") == (512, 1024)
    for kind, texts in [
        (positive_integer, ("0", "-1", "1.5", "", "three", "1" * 5000)),
        (whole_number, ("-1", "0.5", "nan")),
        (positive_number, ("0", "-1", "nan", "inf", "", "fast")),
        (height_and_width, ("512", "0x32", "x", "32x32x3", "-32x32")),
    ]:
        for text in texts:
            with pytest.raises(argparse.ArgumentTypeError, match="give"):
                kind(text)
