"""The verbs build, doctor and inspect."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import plans
import pytest
from small_package import make_package

from engines import machine
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


def test_plans_are_listed_with_their_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(machine, "libcuda", lambda: None)
    folder = tmp_path / "p"
    make_package(folder)
    arguments = ["build", "--package", str(folder), "--backend", "tensorrt-rtx", "--compute-capability", "8.6", "8.9"]
    assert main(arguments) == 0
    assert "convolutions Float" in capsys.readouterr().out
    assert main(["inspect", str(folder)]) == 0
    text = capsys.readouterr().out
    assert text.count("convolutions: 4 Float: made from this package, and there is no GPU here to run it") == 2
    assert text.count("compute capability 8.6") == text.count("compute capability 8.9") == 2


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


def test_doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "libcuda", lambda: None)
    assert main(["doctor", "--json", str(tmp_path / "d.json")]) == 0
    text = capsys.readouterr().out
    assert "no NVIDIA driver is installed" in text
    assert "--backend auto picks onnxruntime (tensorrt: " in text
    assert "CPUExecutionProvider" in text
    assert re.search(r"opencv-python .* with(out)? FFmpeg, with(out)? GStreamer", text)
    found = json.loads((tmp_path / "d.json").read_text())
    assert found["auto"] == "onnxruntime"
    assert found["gpus"] == []
    assert {backend["name"] for backend in found["backends"]} == {"onnxruntime", "tensorrt", "tensorrt-rtx"}
    assert {"numpy", "opencv-python", "torch", "onnx", "llvmlite", "pycuda", "polygraphy"} == set(found["packages"])


def test_doctor_lists_gpus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    problem = "GPU 1 cannot be used: NVIDIA's driver answers cuDeviceGet with error 101"
    monkeypatch.setattr(machine, "ask_driver", lambda: ([plans.RTX_4090], [problem]))
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert (
        "GPU 0  NVIDIA GeForce RTX 4090: compute capability 8.9, 128 multiprocessors, 24.0 GiB, driver for CUDA 13.0"
    ) in text
    assert problem in text


def test_doctor_survives_a_broken_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main(["doctor"]) == 0
    assert "cannot be imported (import of cv2 halted" in capsys.readouterr().out


def test_doctor_imports_no_tensorrt(tmp_path: Path) -> None:
    """TensorRT 11.4 without a driver ends the process, so a module that does so when imported must do no harm."""
    for name in ("tensorrt", "tensorrt_rtx", "pycuda"):
        (tmp_path / f"{name}.py").write_text("import os\nos._exit(66)\n")
    root = Path(__file__).parents[2]
    script = "import sys; from splitmerge.cli import main; sys.exit(main(['doctor']))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search("^tensorrt +unknown version", done.stdout, re.MULTILINE)


def test_doctor_says_how_to_get_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "pip install onnxruntime" in text
    assert "pip install '.[rtx]' in the checkout" in text
