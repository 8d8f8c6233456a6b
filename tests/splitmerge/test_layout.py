"""The layout's promises: folders are import paths, imports run one way, deployment needs no PyTorch."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from splitmerge.cli import main, verbs
from splitmerge.labels import CITYSCAPES, THIN_CLASSES, colours_from_labels

ROOT = Path(__file__).parents[2]
STAGES = ["splitmerge", "training", "export", "calibration", "engines", "runtime"]


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_is_the_folder_of_this_checkout(stage: str) -> None:
    file = importlib.import_module(stage).__file__
    assert file is not None and Path(file).parent == ROOT / stage


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_imports_a_later_one(stage: str) -> None:
    later = set(STAGES[STAGES.index(stage) + 1 :])
    for path in sorted((ROOT / stage).rglob("*.py")):
        if path.parent.name == "commands" or path.name == "cli.py":
            continue  # the command line is the last arrow
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            wrong = {name.split(".")[0] for name in names} & later
            assert not wrong, f"{path.relative_to(ROOT)}:{node.lineno} imports {wrong}"


def test_a_deployment_machine_needs_no_pytorch() -> None:
    """Engines, runtime, data sets and metrics import where torch, onnx and safetensors do not."""
    modules = ["splitmerge.cli", "training.metrics", "training.data", "training.streets"]
    modules += ["training.datasets.check", "training.datasets.sheet"]
    for stage in ("engines", "runtime"):
        modules += [f"{stage}.{path.stem}" for path in sorted((ROOT / stage).glob("*.py")) if path.stem != "__init__"]
    script = (
        "import sys, importlib\n"
        "for name in ('torch', 'onnx', 'onnx_ir', 'onnxscript', 'safetensors', 'tensorrt', 'tensorrt_rtx', 'pycuda'):\n"
        "    sys.modules[name] = None\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "from splitmerge.cli import main\n"
        "sys.exit(main(['run', 'missing.mp4', '--package', 'missing']))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("splitmerge: ")
    assert "Traceback" not in done.stderr


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in verbs():
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        assert stop.value.code == 0
        assert "--help" in capsys.readouterr().out
    assert {"train", "export", "build", "run", "compare", "bench", "inspect", "doctor", "models"} <= set(verbs())


def test_models_lists_the_papers_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert ["smp18", "11,186,259"] in [line.split()[:2] for line in out.splitlines()]
    assert "output_stride, multi_grid" in out
    assert main(["models", "--classes", "1"]) == 2
    assert "2 to 255 classes" in capsys.readouterr().err


def test_labels_are_cityscapes_train_ids() -> None:
    assert [entry.name for entry in CITYSCAPES[:3]] == ["road", "sidewalk", "building"]
    assert len(CITYSCAPES) == 19 and set(THIN_CLASSES) < {entry.name for entry in CITYSCAPES}
    painted = colours_from_labels(np.array([[0, 11, 255]], np.uint8))
    assert painted.tolist() == [[[128, 64, 128], [60, 20, 220], [0, 0, 0]]]


def test_make_targets_are_names_for_verbs() -> None:
    text = (ROOT / "Makefile").read_text()
    called = set(re.findall(r"\$\(SPLITMERGE\) (\w+)", text))
    assert called <= set(verbs())
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    assert {"demo", "setup", "train", "export", "engines", "run"} <= targets
    assert {"compare", "bench", "test", "lint", "clean"} <= targets
