"""`splitmerge run` as a process of its own: on a machine without PyTorch, and ended from outside."""

import subprocess
import sys
from pathlib import Path

import pytest
from clips import names, write_clip
from small_package import make_package

from splitmerge.cli import main

ROOT = Path(__file__).parents[2]
DEPLOYED = """
import sys
for name in ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "tensorrt", "tensorrt_rtx", "pycuda", "av"):
    sys.modules[name] = None
from splitmerge.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def command(tmp_path):
    """Arguments of a run with all outputs, in the folder out/."""
    make_package(tmp_path / "package")
    assert main(["build", "--package", str(tmp_path / "package"), "--backend", "onnxruntime"]) == 0
    out = tmp_path / "out"
    out.mkdir()
    return [
        *("run", str(tmp_path / "in.mp4"), "--package", str(tmp_path / "package"), "--legend"),
        *("--overlay", f"{out}/o.mp4", "--masks", f"{out}/masks", "--colour-masks", f"{out}/colours"),
        *("--records", f"{out}/frames.jsonl", "--json", f"{out}/run.json"),
    ]


def test_a_deployment_machine_gets_every_output(tmp_path, command):
    write_clip(tmp_path / "in.mp4", 5)
    done = subprocess.run([sys.executable, "-c", DEPLOYED, *command], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert names(tmp_path / "out") == ["colours", "frames.jsonl", "masks", "o.mp4", "run.json"]
    assert len(names(tmp_path / "out/masks")) == len(names(tmp_path / "out/colours")) == 5
    assert len((tmp_path / "out/frames.jsonl").read_text().splitlines()) == 5
