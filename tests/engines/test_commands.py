"""The verbs build, doctor and inspect."""

import json
from pathlib import Path

import pytest
from small_package import make_package

from splitmerge.cli import main


def test_build_then_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "p"
    make_package(folder)
    assert main(["inspect", str(folder)]) == 0
    assert "engines   none" in capsys.readouterr().out
    assert main(["build", "--package", str(folder), "--json", str(tmp_path / "build.json")]) == 0
    table = capsys.readouterr().out
    assert "backend: onnxruntime (" in table
    assert "onnxruntime-fp32/stem.onnx" in table
    assert [e["part"] for e in json.loads((tmp_path / "build.json").read_text())["engines"]] == ["stem", "trunk"]
    assert main(["inspect", str(folder), "--json", str(tmp_path / "inspect.json")]) == 0
    text = capsys.readouterr().out
    assert "4x4 = 16 split batches" in text
    assert "labels uint8 [n, 12, 18]" in text
    assert text.count(": valid") == 2
    assert all(engine["problem"] is None for engine in json.loads((tmp_path / "inspect.json").read_text())["engines"])


def test_inspect_says_which_engine_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "p"
    make_package(folder)
    main(["build", "--package", str(folder), "--backend", "onnxruntime"])
    (folder / "engines" / "onnxruntime-fp32" / "trunk.onnx").write_bytes(b"")
    (folder / "engines" / "onnxruntime-fp32" / "stem.json").write_text("{}")
    assert main(["inspect", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "cannot be used, the file was altered after it was built" in text
    assert "does not describe an engine" in text


def test_plans_are_listed_with_their_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx")
    folder = tmp_path / "p"
    make_package(folder)
    arguments = ["build", "--package", str(folder), "--backend", "tensorrt-rtx", "--compute-capability", "8.6", "8.9"]
    assert main(arguments) == 0
    assert "convolutions Float" in capsys.readouterr().out
    assert main(["inspect", str(folder)]) == 0
    assert capsys.readouterr().out.count("cannot be run yet") == 4


def test_errors_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_package(tmp_path / "p")
    assert main(["build", "--package", str(tmp_path / "p"), "--precision", "int4"]) == 2
    assert "holds no int4 graphs" in capsys.readouterr().err
    assert main(["build", "--package", str(tmp_path / "nothing")]) == 2


def test_doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", str(tmp_path / "d.json")]) == 0
    assert "--backend auto picks onnxruntime" in capsys.readouterr().out
    found = json.loads((tmp_path / "d.json").read_text())
    assert found["auto"] == "onnxruntime"
    assert {backend["name"] for backend in found["backends"]} == {"onnxruntime", "tensorrt", "tensorrt-rtx"}


def test_doctor_says_how_to_get_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "pip install onnxruntime" in text
    assert "pip install 'splitmerge[rtx]'" in text
