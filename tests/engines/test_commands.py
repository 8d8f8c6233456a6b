"""The verbs build, doctor and inspect."""

import json
import shutil
from pathlib import Path

import pytest
from small_package import make_package

from engines.listing import list_engines
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


@pytest.mark.parametrize("verb", [["doctor"], ["inspect", "p"], ["build", "--package", "p"]])
def test_a_folder_where_the_json_should_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_package(tmp_path / "p")
    assert main([*verb, "--json", "p"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("splitmerge: p is a folder and a file was to be written there")
    assert said.out == "" and not (tmp_path / "p/engines").exists()


def test_numbers_of_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_package(tmp_path / "p")
    assert main(["build", "--package", str(tmp_path / "p"), "--min-batches", "8"]) == 2
    assert "are 8, 1 and 4: give them in rising order" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["build", "--package", str(tmp_path / "p"), "--workspace", "-5"])
    assert stop.value.code == 2


def test_engines_that_are_still_being_built_are_not_listed(tmp_path: Path) -> None:
    package = make_package(tmp_path / "p")
    main(["build", "--package", str(tmp_path / "p"), "--backend", "onnxruntime"])
    folder = package.engines_folder / "onnxruntime-fp32"
    shutil.copytree(folder, folder.with_name(".onnxruntime-fp32.abc.partial"))
    assert [engine.path.parent for engine in list_engines(package)] == [folder, folder]


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
    assert "pip install '.[rtx]' in the checkout" in text
