"""`splitmerge bench`: what cannot be measured is refused in words, and every row of a small network."""

import json
from pathlib import Path

import pytest

from benchmarks import streaming
from splitmerge.cli import main
from splitmerge.errors import EngineError


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--sizes", "512"), ("--sizes", "0x64"), ("--contexts", "0"), ("--widths", "-1")),
        *(("--frames", "0"), ("--limit-gib", "nan")),
    ],
)
def test_bad_numbers(option, value, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", option, value])
    assert stop.value.code == 2
    assert f"{option}: '{value}' is no" in capsys.readouterr().err


def test_frames_that_are_too_small(capsys):
    assert main(["bench", "--sizes", "16x64"]) == 2
    assert "Frames of 16x64 are too small" in capsys.readouterr().err


def test_a_system_without_proc(capsys, monkeypatch):
    monkeypatch.setattr(streaming, "CLEAR_REFS", Path("/nowhere/clear_refs"))
    assert main(["bench"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run the benchmark on Linux" in line


def test_a_child_that_fails_is_quoted_in_one_sentence():
    with pytest.raises(EngineError, match=r"Exporting x failed \(ValueError: no room\): try") as error:
        streaming.child(["-c", "raise ValueError('no room.')"], "Exporting x")
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(EngineError, match="ended with -9"):
        streaming.child(["-c", "import os; os.kill(os.getpid(), 9)"], "Exporting x")


def test_every_row_of_a_small_network(tmp_path, capsys):
    pytest.importorskip("torch")
    path = tmp_path / "rows.json"
    assert main(["bench", "--sizes", "64x96", "--widths", "4", "--frames", "2", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    modes = ["whole", "whole-alike", "whole-defaults", "streamed", "streamed", "stem", "trunk"]
    assert [row["mode"] for row in rows] == modes
    assert all(row["agreement"] > 0.99 for row in rows[:4])
    assert "whole graph, ONNX Runtime's defaults" in capsys.readouterr().out
