"""torch.compile: the same losses but for rounding, the same steps after a kill, and words where it cannot be."""

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kills import killed_at
from safetensors.torch import load_file
from toy_pictures import toy_set

from splitmerge.cli import main
from splitmerge.errors import InputError
from training.learning import norms
from training.learning.compiled import _Apart, failures_told
from training.learning.recipes import RECIPES
from training.loop import TrainConfig, train
from training.models import create_model
from training.networks.smp import SMP
from training.reduction import SplitMerge

# Plain gradient descent: Adam's first steps follow the sign of a gradient, and would make much of rounding.
SGD = replace(RECIPES["fastfcn"], scale=None)
CONFIG = TrainConfig(
    width=4, crop=(64, 64), batch=2, steps=6, validate_every=3, save_every=2, lr=1e-3, recipe=SGD, device="cpu"
)
IMAGES, VALIDATION = toy_set(5, 1), toy_set(1, 2)


def losses(folder: Path) -> list[float]:
    return [float(row["loss"]) for row in csv.DictReader((folder / "log.csv").open())]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["smp18", "fcn8s-18"])
def test_the_same_losses_and_after_a_kill_the_very_same(tmp_path: Path, model: str) -> None:
    plain = replace(CONFIG, model=model)
    config = replace(plain, compile=True)
    train(plain, IMAGES, VALIDATION, tmp_path / "plain")
    torch._dynamo.utils.counters.clear()
    train(config, IMAGES, VALIDATION, tmp_path / "whole")
    programs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 0 < programs < 60  # not one for each draw of offsets
    # Of the first three steps: then weights that differ by 1e-7 alone take FCN8s over a ReLU's edge here.
    assert losses(tmp_path / "whole")[0] == pytest.approx(losses(tmp_path / "plain")[0], abs=2e-5)
    assert losses(tmp_path / "whole")[1] == pytest.approx(losses(tmp_path / "plain")[1], abs=0.05)

    with killed_at(5):
        train(config, IMAGES, VALIDATION, tmp_path / "halves")
    torch.compiler.reset()  # a new process compiles anew
    train(config, IMAGES, VALIDATION, tmp_path / "halves")
    assert losses(tmp_path / "halves") == losses(tmp_path / "whole")
    one, other = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "halves"))
    assert one.keys() == other.keys() and all(torch.equal(other[key], value) for key, value in one.items())
    with pytest.raises(InputError, match="compile True, not False"):
        train(plain, IMAGES, VALIDATION, tmp_path / "halves")


@pytest.mark.parametrize("stride", [32, 16])
def test_no_program_depends_on_the_offsets(stride: int) -> None:
    """Traced and run, not compiled: after the two forms of padding no further draw makes a new program."""
    torch.manual_seed(0)
    model = create_model("smp18", 5, 2).train()
    assert isinstance(model, SMP)
    x, programs = torch.randn(2, 3, 64, 64), []

    def counted(graph, inputs):
        programs.append(graph)
        return graph.forward

    torch._dynamo.config.recompile_limit = 256
    traced = torch.compile(model.logits, backend=counted, dynamic=False)
    counts = []
    for row, column in [(0, 0), (stride - 1, stride - 1), (0, 1), (1, 0), (3, 5), (stride // 2, 7), (10, 13)]:
        reduction = SplitMerge.at(row, column, stride)
        state = {key: value.clone() for key, value in model.state_dict().items()}
        expected = model.logits(x, reduction)
        model.load_state_dict(state)
        torch.testing.assert_close(traced(x, _Apart(reduction)), expected, rtol=1e-4, atol=1e-4)
        counts.append(len(programs))
    torch.compiler.reset()
    assert counts[0] > 8 and counts[-1] < 60 and counts[3] == counts[-1]


def test_statistics_are_computed_again_without_the_compiler() -> None:
    network, programs = torch.nn.Sequential(torch.nn.BatchNorm2d(2)), []
    compiled = torch.compile(network, backend=lambda graph, inputs: programs.append(graph) or graph.forward)
    x = torch.randn(3, 4, 2, 5, 5)
    norms.recompute(network, 3, lambda index: compiled(x[index]))
    torch.testing.assert_close(network[0].running_mean, x.mean((0, 1, 3, 4)))
    assert not programs
    compiled(x[0])
    assert len(programs) == 1
    torch.compiler.reset()


def test_without_a_compiler_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    few = ["--images", "2", "--validation-images", "1", "--size", "64x64", "--crop", "64x64", "--batch", "1"]
    command = ["train", *few, "--width", "2", "--steps", "1", "--device", "cpu", "--cache", str(tmp_path / "cache")]
    assert main([*command, "--out", str(tmp_path / "run"), "--compile"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("splitmerge: --compile needs a C++ compiler, and there is no program no-such-compiler")
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_what_the_compiler_says_is_one_sentence() -> None:
    from torch._inductor.exc import InvalidCxxCompiler

    with pytest.raises(InputError, match=r"cannot compile this training \(.*\): leave --compile out"), failures_told():
        raise InvalidCxxCompiler
    with pytest.raises(InputError, match="does not go together with --checkpointing"):
        replace(CONFIG, compile=True, checkpointing="full")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["smp18", "fcn8s-18"])
def test_two_compiled_processes_are_a_plain_one(tmp_path: Path, model: str) -> None:
    config = replace(CONFIG, model=model, steps=2, validate_every=2)
    script = tmp_path / "train.py"
    script.write_text(
        "from dataclasses import replace\nfrom pathlib import Path\nimport test_compiled as here\n"
        f"config = replace(here.CONFIG, model={model!r}, steps=2, validate_every=2, compile=True)\n"
        f"here.train(config, here.IMAGES, here.VALIDATION, Path({str(tmp_path / 'two')!r}))\n"
    )
    path = os.pathsep.join([str(Path.cwd()), str(Path(__file__).parent)])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    train(config, IMAGES, VALIDATION, tmp_path / "one")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=2e-5)
    one, two = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=2e-5, rtol=2e-4)
