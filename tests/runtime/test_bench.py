"""`splitmerge bench`: what cannot be measured is refused in words; with `--streaming`, every row of a small network."""

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
    for mode in ([], ["--streaming"]):
        assert main(["bench", *mode, "--sizes", "16x64"]) == 2
        assert "Frames of 16x64 are too small" in capsys.readouterr().err


def test_options_of_another_measurement_are_refused(capsys):
    assert main(["bench", "--streaming", "--peers", "eager"]) == 2
    assert "--peers is not for `splitmerge bench --streaming`" in capsys.readouterr().err
    assert main(["bench", "--contexts", "2"]) == 2
    assert "--contexts is not for `splitmerge bench`:" in capsys.readouterr().err
    assert main(["bench", "--streaming", "--backend", "torch"]) == 2
    assert "two measurements" in capsys.readouterr().err


def test_each_measurement_keeps_its_own_defaults(monkeypatch):
    seen = []
    for module in ("peers.comparison", "streaming", "profiling.report", "gpu"):
        monkeypatch.setattr(f"benchmarks.{module}.run", lambda arguments: seen.append(arguments) or 0)
    for words in ([], ["--streaming"], ["--profile", "p", "--frames", "7"], ["--backend", "torch"]):
        assert main(["bench", *words]) == 0
    peers, streaming, profile, gpu = seen
    assert peers.sizes[0] == (128, 256) and streaming.sizes[0] == (512, 1024)
    assert streaming.frames == 3 and profile.frames == 7 and profile.profile == "p"
    assert gpu.backend == "torch" and gpu.size == (512, 1024)
    assert not hasattr(peers, "contexts") and not hasattr(gpu, "sizes")


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
    assert (
        main(["bench", "--streaming", "--sizes", "64x96", "--widths", "4", "--frames", "2", "--json", str(path)]) == 0
    )
    rows = json.loads(path.read_text())["rows"]
    modes = ["whole", "whole-alike", "whole-defaults", "streamed", "streamed", "stem", "trunk"]
    assert [row["mode"] for row in rows] == modes
    assert all(row["agreement"] > 0.99 for row in rows[:4])
    assert "whole graph, ONNX Runtime's defaults" in capsys.readouterr().out
