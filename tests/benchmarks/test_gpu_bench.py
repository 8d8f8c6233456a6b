"""The parts of the GPU benchmark that need no GPU."""

import subprocess
import sys
import time
import types
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from emulator import EmulatedDevice, Emulator
from small_package import make_package
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu as benchmark
from benchmarks.gpu_machine import find_tools
from benchmarks.gpu_onnxruntime import streamed, whole
from benchmarks.gpu_options import BACKENDS
from benchmarks.gpu_power import power_meter
from benchmarks.gpu_rows import FRAME, RESIDENT, LowWater, Made, Row, Way, measure, ratios, slug, table
from benchmarks.gpu_setup import Step, install, steps
from benchmarks.gpu_tensorrt import CHUNKS, CONTEXTS, tensorrt_ways
from benchmarks.gpu_torch import KINDS, _Parts
from benchmarks.gpu_work import work_of
from benchmarks.streaming import Case, export_random
from engines.build import build_engines
from engines.machine import Gpu, find_gpus
from runtime.executor import Executor
from splitmerge.cli import main
from splitmerge.errors import InputError
from splitmerge.package import Package
from training.models import create_model
from training.networks.smp import SMPResNet

ROOT = Path(__file__).parents[2]
RTX = Gpu("NVIDIA GeForce RTX 4090", "8.9", 128, "12.8", 0, 24 << 30)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("NVIDIA GeForce RTX 4090", "nvidia-geforce-rtx-4090"),
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"),
        ("Orin (nvgpu)", "orin-nvgpu"),
        ("../..", "gpu"),
    ],
)
def test_a_gpus_name_as_a_files(name: str, file: str) -> None:
    assert slug(name) == file


def test_times_are_against_the_groups_baseline() -> None:
    rows = [
        Row("frame", "strict", wall_ms=40.0),
        Row("frame", "eager", wall_ms=20.0, baseline=True),
        Row("frame", "fast", wall_ms=5.0),
        Row("frame", "broken", skipped="why"),
        Row("stem", "only", wall_ms=3.0),
        Row("stem", "other", wall_ms=6.0),
        Row("copy", "broken", skipped="why"),
    ]
    assert ratios(rows) == [0.5, 1.0, 4.0, None, 1.0, 0.5, None]


def test_the_table_leaves_nothing_out_silently() -> None:
    rows = [Row("frame", "eager", wall_ms=20.0, tflops=1.5, baseline=True), Row("frame", "other", skipped="no room")]
    text = table(rows)
    assert "frame\n" in text and "20.000" in text and "1.50" in text
    assert "other" in text and "left out: no room" in text
    assert len({line.index(" 1.00") for line in text.splitlines() if " 1.00" in line}) == 1


def test_a_way_is_set_up_measured_and_taken_down() -> None:
    steps: list[str] = []
    labels = np.array([[1, 2], [3, 4]], np.uint8)

    def make(stack: ExitStack) -> Made:
        steps.append("up")
        stack.callback(steps.append, "down")
        return Made(lambda: labels, lambda: 0.5, lambda: 3 << 20)

    other = np.array([[1, 2], [3, 9]], np.uint8)
    row, found = measure(Way("frame", "x", make, multiply_adds=10**9), None, 0.001, other)
    assert steps == ["up", "down"]
    assert found is labels and row.agreement == 0.75
    assert row.gpu_ms == 0.5 and row.torch_peak_mib == 3.0 and row.memory_mib is None
    assert row.wall_ms is not None and row.runs >= 5
    assert row.to_json().keys() == {
        "group", "name", "wall_ms", "wall_ms_least", "wall_ms_90", "wall_ms_99", "gpu_ms", "runs",
        "torch_peak_mib", "tflops", "agreement"
    }  # fmt: skip


def test_operations_and_bytes_are_by_the_clock() -> None:
    """Of a run that takes a millisecond or more."""
    way = Way("frame", "x", lambda stack: Made(lambda: time.sleep(0.001)), multiply_adds=10**9, bytes=1 << 30)
    row, _ = measure(way, None, 0.001, None)
    assert row.wall_ms is not None and row.tflops is not None and row.gib_per_s is not None
    assert row.tflops == pytest.approx(2e9 / (row.wall_ms / 1e3) / 1e12, rel=0.01)
    assert row.gib_per_s == pytest.approx(1 / (row.wall_ms / 1e3), rel=0.01)


def test_what_fails_is_a_row_with_the_reason() -> None:
    down: list[int] = []

    def make(stack: ExitStack) -> Made:
        stack.callback(down.append, 1)
        raise RuntimeError("out of memory\nand a long story")

    row, labels = measure(Way("frame", "x", make), None, 0.001, None)
    assert row.skipped == "RuntimeError: out of memory" and labels is None and down == [1]
    assert measure(Way("frame", "x", absent="not installed"), None, 0.001, None)[0].skipped == "not installed"


def test_memory_is_the_lowest_that_was_free() -> None:
    free = [100 << 20]
    with LowWater(lambda: free[0]) as memory:
        free[0] = 40 << 20
        time.sleep(0.05)
        free[0] = 90 << 20
    assert memory.taken_mib == pytest.approx(60, abs=0.1)
    with LowWater(None) as nobody:
        pass
    assert nobody.taken_mib is None


def test_multiply_adds_are_those_that_pytorch_counts(tmp_path: Path) -> None:
    export_random(Case(64, 96, 4), str(tmp_path / "p"))
    work = work_of(Package.open(tmp_path / "p"))
    model = create_model("smp18", 19, 4).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, 3, 64, 96))
    assert work["model"] == counter.get_total_flops() // 2
    assert work["model"] == work["stem"] + 16 * work["trunk"]


@pytest.mark.parametrize("size", [(64, 96), (45, 70)])
def test_pytorch_streamed_and_whole_is_the_network(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = create_model("smp18", 19, 4).eval()
    assert isinstance(model, SMPResNet)
    parts = _Parts(model, KINDS[0], "cpu")
    frame = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8)
    with torch.inference_mode():
        x = (frame[0].numpy()[..., ::-1] / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        expected = model(torch.tensor(x.transpose(2, 0, 1)[None].copy(), dtype=torch.float32))[0].argmax(0)
        whole, streamed, dilated = parts.whole(frame), parts.streamed(frame), parts.dilated(frame)
        trunk_batch = parts.trunk(parts.stem(frame)[6:7])[0, 0]
    assert whole.shape == streamed.shape == expected.shape == size and streamed.dtype == torch.uint8
    assert (whole == expected).float().mean() > 0.999
    assert (streamed == expected).float().mean() > 0.999
    assert (dilated == expected).float().mean() > 0.999
    rows, columns = streamed[1::4, 2::4].shape  # split batches count row and column by levels: 6 is (0,1) then (1,0)
    assert torch.equal(trunk_batch[:rows, :columns], streamed[2::4, 1::4][:rows, :columns])


def test_onnxruntime_bound_to_memory_gives_the_executors_labels(tmp_path: Path) -> None:
    package = make_package(tmp_path / "small")
    build_engines(package)
    frame = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
    with Executor(package) as executor:
        expected = executor.segment(frame)
    for way in (streamed, whole):
        made = way(package, "fp32", frame, "cpu")
        for _ in range(2):
            np.testing.assert_array_equal(made.run(), expected)


def test_percentiles_and_frames_per_watt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred runs of 1, 2, ... 100 ms at 50 W."""
    taken = [float(ms) for ms in range(1, 101)]
    monkeypatch.setattr("benchmarks.gpu_rows._times", lambda made, seconds: (taken, []))
    way = Way(FRAME, "x", lambda stack: Made(lambda: None))
    row, _ = measure(way, None, 1, None, lambda: 50.0)
    assert (row.wall_ms, row.wall_ms_90, row.wall_ms_99) == (50.5, 90.1, 99.01)
    assert row.watts == 50 and row.fps_per_watt == pytest.approx(1e3 / 50.5 / 50, abs=1e-4)
    other, _ = measure(way, None, 1, None)
    assert other.watts is None and other.fps_per_watt is None
    assert "fps/W" in table([row]) and "fps/W" not in table([other])
    batch, _ = measure(Way("one split batch", "x", way.make), None, 1, None, lambda: 50.0)
    assert batch.fps_per_watt is None  # which is no frame


class _Nvml(types.ModuleType):
    """Two GPUs as NVML lists them; power in milliwatts."""

    NVMLError = RuntimeError
    names = ("NVIDIA L4", "NVIDIA GeForce RTX 4090")

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return self.names[handle].encode()

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return 100_000 * (handle + 1)


def test_power_is_that_of_the_gpu_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu_power.is_installed", lambda name: False)
    assert power_meter(RTX) == (None, "power: nvidia-ml-py is not installed, so the column fps/W is left out")
    monkeypatch.setattr("benchmarks.gpu_power.is_installed", lambda name: True)
    nvml = _Nvml("pynvml")
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meter, reason = power_meter(RTX)
    assert meter is not None and meter() == 200.0 and reason == ""
    nvml.names = ("NVIDIA GeForce RTX 4090",) * 2
    assert power_meter(RTX)[1].startswith("power: 2 GPUs here are called")
    monkeypatch.setattr(nvml, "nvmlInit", _refuse)
    assert "no permission" in power_meter(RTX)[1]


def _refuse() -> None:
    raise RuntimeError("no permission")


def test_every_way_of_tensorrt_on_an_emulated_gpu(
    tmp_path: Path,
    make_emulator: Callable[..., Emulator],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Contexts x chunks, graphs, forms: each whole frame has the labels of the CPU."""
    make_emulator([EmulatedDevice("NVIDIA L4", "8.9", 58)], version="10.12.0")
    package = make_package(tmp_path / "small", size=(64, 64))
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    build_engines(package)
    with Executor(package) as executor:
        expected = executor.segment(frame)
    asked: list[tuple[int, int]] = []

    def executor(package: Package, contexts: int, chunk: int, *more: Any, **others: Any) -> Executor:
        asked.append((contexts, chunk))
        return Executor(package, contexts, chunk, *more, **others)

    monkeypatch.setattr("benchmarks.gpu_tensorrt.Executor", executor)
    ways = list(tensorrt_ways(package, "tensorrt", 0, frame, {}))
    names = {(way.group, way.name) for way in ways}
    for contexts in ("1 context", *(f"{number} contexts" for number in CONTEXTS[1:])):
        for chunk in CHUNKS:
            assert (FRAME, f"TensorRT fp32, split, {contexts}, chunk {chunk}, CUDA graphs") in names
            assert (RESIDENT, f"TensorRT fp32, split, {contexts}, chunk {chunk}") in names
    assert len(names) == len(ways) == 2 * 2 + 4 * 3 * 2 + 4 + 2
    for way in ways:
        if "3 contexts" in way.name or "2 contexts" in way.name:
            continue
        assert way.make is not None
        with ExitStack() as stack:
            labels = way.make(stack).run()
        if way.group == FRAME:
            np.testing.assert_array_equal(labels, expected, err_msg=way.name)
        else:
            assert labels is None
    assert asked == [(contexts, chunk) for contexts in (1, 4) for chunk in (*CHUNKS, 1)]
    uncut = make_package(tmp_path / "uncut", size=(64, 64), cut=False)
    found = [(way.group, way.name) for way in tensorrt_ways(uncut, "tensorrt", 0, frame, {}, "dilated")]
    assert found == [(group, "TensorRT fp32, dilated, in one go") for group in (FRAME, RESIDENT)]


def test_without_transfers_no_labels_are_read(tmp_path: Path) -> None:
    package = make_package(tmp_path / "small")
    frame = np.zeros((45, 70, 3), np.uint8)
    assert whole(package, "fp32", frame, "cpu", there=True).run() is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_without_a_gpu_is_one_sentence(
    backend: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.machine.libcuda", lambda: None)
    assert main(["bench", "--backend", backend]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("splitmerge: The benchmark runs on an NVIDIA GPU")


@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_sentence(tmp_path: Path) -> None:
    for module in ("gpu", "gpu_setup"):
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{module}"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith(f"{module}: ") and done.stderr.count("\n") == 1 and "GPU" in done.stderr


def test_neither_pytorch_nor_pycuda_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu_machine.is_installed", lambda name: False)
    with pytest.raises(InputError, match="Nothing here can use the NVIDIA GeForce RTX 4090"):
        find_tools(RTX)


def test_options_that_cannot_be_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--size", "16x64"]) == 2
    assert "32x32" in capsys.readouterr().err


class TestSetup:
    """What is installed, without installing anything."""

    def test_what_works_is_left_alone(self) -> None:
        calls: list[list[str]] = []

        def run(arguments: list[str]) -> tuple[int, str]:
            calls.append(arguments)
            return 0, "1.2.3\n"

        assert install(Step("thing", "import thing", ("thing",), "advice"), run) == "thing: 1.2.3"
        assert len(calls) == 1

    def test_what_is_missing_is_installed(self) -> None:
        answers = [(1, "No module"), (0, ""), (0, "1.2.3")]
        calls: list[list[str]] = []

        def run(arguments: list[str]) -> tuple[int, str]:
            calls.append(arguments)
            return answers[len(calls) - 1]

        assert install(Step("thing", "import thing", ("thing",), "advice"), run) == "thing: 1.2.3"
        assert calls[1][:3] == ["-m", "pip", "install"] and calls[1][-1] == "thing"

    def test_what_cannot_be_had_is_said_with_advice(self) -> None:
        answers = iter([(1, "No module"), (1, "warning\nERROR: no nvcc\nnote: hint"), (1, "No module")])
        line = install(Step("thing", "import thing", ("thing",), "advice"), lambda arguments: next(answers))
        assert line == "thing: cannot be had (ERROR: no nvcc); advice"

    def test_builds_are_the_drivers_or_those_asked_for(self) -> None:
        assert steps(RTX, {})[-1].arguments == ("tensorrt-cu12",)
        chosen = steps(RTX, {"TENSORRT": "tensorrt-cu12==10.3.0", "TORCH_INDEX": "somewhere"})
        assert chosen[-1].arguments == ("tensorrt-cu12==10.3.0",)
        assert chosen[0].arguments == ("--force-reinstall", "--index-url", "somewhere", "torch")

    def test_checks_are_python(self) -> None:
        for step in steps(RTX, {}):
            compile(step.check, step.name, "exec")
