"""The progress of real builds, and stopping them."""

import contextlib
import os
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest
from small_package import make_package

from engines.build import build_engines
from engines.build_progress import BuildProgress
from engines.compiler import GpuOptions
from splitmerge.cli import main
from splitmerge.package import Package

pytest.importorskip("tensorrt_rtx", reason="pip install 'splitmerge[rtx]'")
RTX = "tensorrt-rtx"


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return make_package(tmp_path / "small")


class Watched:
    """What TensorRT reports, in order; `interrupt` sends a signal at the first step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, interrupt: signal.Signals | None = None) -> None:
        self.started: list[tuple[str, str | None, int]] = []
        self.steps: list[str] = []
        self.finished: list[str] = []
        self.threads: set[int] = set()
        start, step, finish = BuildProgress.phase_start, BuildProgress.step_complete, BuildProgress.phase_finish

        def phase_start(progress: BuildProgress, phase: str, parent: str | None, steps: int) -> None:
            self.started.append((phase, parent, steps))
            self.threads.add(threading.get_ident())
            start(progress, phase, parent, steps)

        def step_complete(progress: BuildProgress, phase: str, number: int) -> bool:
            self.steps.append(phase)
            if interrupt is not None and len(self.steps) == 1:
                os.kill(os.getpid(), interrupt)
                progress._cancelled.wait(30)  # TensorRT waits with us until the main thread has seen the signal
            return step(progress, phase, number)

        def phase_finish(progress: BuildProgress, phase: str) -> None:
            self.finished.append(phase)
            finish(progress, phase)

        monkeypatch.setattr(BuildProgress, "phase_start", phase_start)
        monkeypatch.setattr(BuildProgress, "step_complete", step_complete)
        monkeypatch.setattr(BuildProgress, "phase_finish", phase_finish)


def test_tensorrt_reports_its_steps(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    build_engines(package, RTX, options=GpuOptions("8.9"), parts=["trunk"])
    assert [parent for _, parent, _ in watched.started].count(None) == 1 and len(watched.started) > 3
    announced: Counter[str] = Counter()
    for phase, _, steps in watched.started:
        announced[phase] += steps
    assert Counter(watched.steps) <= announced  # the last one may be told by the phase's end alone
    assert len(watched.steps) > 50
    assert sorted(watched.finished) == sorted(phase for phase, _, _ in watched.started)
    assert threading.get_ident() not in watched.threads


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_build_and_leaves_nothing(
    package: Package, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    watched = Watched(monkeypatch, interrupt=number)
    arguments = ["build", "--package", str(package.folder), "--backend", RTX, "--compute-capability", "8.9"]
    assert main(arguments) == code
    assert len(watched.steps) == 1  # TensorRT asked once and stopped
    assert sorted(watched.finished) == sorted(phase for phase, _, _ in watched.started)
    assert not list(package.engines_folder.rglob("*"))


def test_the_old_engines_survive_an_interrupted_build(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build_engines(package, RTX, options=GpuOptions("8.9"))
    before = {engine.path: engine.path.read_bytes() for engine in built}
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        Watched(patch, interrupt=signal.SIGINT)
        build_engines(package, RTX, options=GpuOptions("8.9"))
        pytest.fail("the build was not interrupted")
    assert {path: path.read_bytes() for path in before} == before
    assert [folder.name for folder in package.engines_folder.iterdir()] == ["tensorrt-rtx-sm89-fp32"]
    build_engines(package, RTX, options=GpuOptions("8.9"))


def test_errors_of_a_build_come_through() -> None:
    progress = BuildProgress("trunk")
    with pytest.raises(ZeroDivisionError):
        progress.run(lambda: 1 // 0)
    assert BuildProgress("trunk").run(lambda: 7) == 7
