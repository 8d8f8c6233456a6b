"""TensorRT through the engines and the executor that `splitmerge run` uses."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
from numpy.typing import NDArray

import engines.tensorrt_context
from benchmarks.gpu_rows import FRAME, RESIDENT, Made, Way
from engines.build import build_engines
from engines.compiler import GpuOptions
from engines.cuda import CudaDevice
from engines.cuda_graphs import CaptureError
from engines.load import load_engine, open_device
from engines.tensorrt_context import TensorRTContext
from engines.tensorrt_engine import TensorRTEngine
from runtime.executor import Executor
from runtime.schedule import chunks, split_batch_order
from runtime.stream import Whole
from splitmerge.errors import SplitmergeError
from splitmerge.package import Package

__all__ = ["CHUNKS", "CONTEXTS", "tensorrt_ways"]

CONTEXTS = (1, 2, 3, 4)
CHUNKS = (1, 2, 4)
"""Split batches that a context is given at once, up to as many as plans take by default."""
_NAMES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


def tensorrt_ways(
    package: Package, backend: str, gpu: int, frame: NDArray[np.uint8], work: dict[str, int], form: str = "split"
) -> Iterator[Way]:
    """Rows for each precision of the package: contexts x chunks where it is cut, and the whole graph.

    Engines are built when the first of a precision is asked for.
    """
    for precision in package.manifest.graphs:
        name, cut = f"{_NAMES[backend]} {precision}, {form}", package.manifest.cut is not None
        parts = ["model", "stem", "trunk"] if cut else ["model"]
        whole_missing = missing = _build(package, backend, precision, gpu, parts)
        if missing and cut:  # the whole graph may be too large
            missing = _build(package, backend, precision, gpu, ["stem", "trunk"])
        if missing:
            yield Way("whole frame", name, absent=missing)
            continue
        for part, group in (("stem", "stem"), ("trunk", "one split batch")) if cut else ():
            for graphs in (True, False):

                def alone(stack: ExitStack, args: tuple[str, str, bool] = (precision, part, graphs)) -> Made:
                    return _alone(stack, package, backend, gpu, *args)

                yield Way(group, f"{name}, {_words(graphs)}", alone, work.get(part))
        for contexts, chunk, graphs in _grid() if cut else ():

            def streamed(
                stack: ExitStack, args: tuple[str, int, int, bool] = (precision, contexts, chunk, graphs)
            ) -> Made:
                return _streamed(stack, package, backend, gpu, frame, *args)

            def there(stack: ExitStack, args: tuple[str, int, int] = (precision, contexts, chunk)) -> Made:
                return _streamed_there(stack, package, backend, gpu, *args)

            words = f"{name}, {contexts} context{'s' * (contexts > 1)}, chunk {chunk}"
            yield Way(FRAME, f"{words}, {_words(graphs)}", streamed, work.get("model"))
            if graphs:
                yield Way(RESIDENT, words, there, work.get("model"))

        def whole(stack: ExitStack, precision: str = precision) -> Made:
            return _whole(stack, package, backend, gpu, frame, precision)

        def whole_there(stack: ExitStack, precision: str = precision) -> Made:
            return _alone(stack, package, backend, gpu, precision, "model", True)

        for group, make in ((FRAME, whole), (RESIDENT, whole_there)):
            made = None if whole_missing else make
            yield Way(group, f"{name}, in one go", made, work.get("model"), absent=whole_missing)


def _grid() -> Iterator[tuple[int, int, bool]]:
    """Contexts, chunk and whether CUDA graphs are used; without them chunks of one alone."""
    for contexts in CONTEXTS:
        for chunk in CHUNKS:
            yield contexts, chunk, True
        yield contexts, 1, False


def _build(package: Package, backend: str, precision: str, gpu: int, parts: list[str]) -> str:
    """Why the parts cannot be built; empty where they are."""
    try:
        build_engines(package, backend, precision, GpuOptions(device=gpu), parts)
    except (SplitmergeError, RuntimeError) as error:  # of TensorRT's bindings, too: a row says so, the others go on
        return f"building failed: {' '.join(str(error).split())[:300] or type(error).__name__}"
    return ""


def _words(graphs: bool) -> str:
    return "CUDA graphs" if graphs else "no graphs"


def _streamed(
    stack: ExitStack,
    package: Package,
    backend: str,
    gpu: int,
    frame: NDArray[np.uint8],
    precision: str,
    contexts: int,
    chunk: int,
    graphs: bool,
) -> Made:
    with _capturing(graphs):
        executor = stack.enter_context(Executor(package, contexts, chunk, backend, precision, devices=(gpu,)))
    return Made(lambda: executor.segment(frame))


def _streamed_there(
    stack: ExitStack, package: Package, backend: str, gpu: int, precision: str, contexts: int, chunk: int
) -> Made:
    """Stem, then all split batches by turns of the contexts, their features read and their labels left on the GPU."""
    device, stem = _opened(stack, package, backend, gpu, precision, "stem")
    trunk = load_engine(package, "trunk", backend, precision, device=device)
    stack.callback(trunk.close)
    stack.enter_context(device.thread())
    cut = package.manifest.cut
    assert cut is not None
    (source,), (labels,) = stem.inputs, trunk.outputs
    frames = {source.name: device.empty((1, *(d or 1 for d in source.shape[1:])), np.dtype(source.dtype))}
    features = {
        t.name: device.empty((cut.batches, *(d or 1 for d in t.shape[1:])), np.dtype(t.dtype)) for t in stem.outputs
    }
    shape = (chunk, *(d or 1 for d in labels.shape[1:]))
    first, others = stem.create_context(), [trunk.create_context() for _ in range(contexts)]
    for context in (first, *others):
        stack.callback(context.close)
    results = [{labels.name: device.empty(shape, np.dtype(labels.dtype))} for _ in others]
    first.write(frames[source.name], np.zeros(frames[source.name].shape, np.dtype(source.dtype)))
    first.prepare(frames, features)
    work = []
    for index, run in enumerate(chunks(split_batch_order("bayer", cut.rows, cut.columns), chunk)):
        turn = index % contexts
        feeds = {name: buffer.batches(run.start, run.stop) for name, buffer in features.items()}
        into = {labels.name: results[turn][labels.name].batches(0, len(run))}
        others[turn].prepare(feeds, into)
        work.append((others[turn], feeds, into))

    def go() -> None:
        first.enqueue(frames, features)
        first.synchronize()
        for context, feeds, into in work:
            context.enqueue(feeds, into)
        for context in others:
            context.synchronize()

    return Made(go)


def _whole(
    stack: ExitStack, package: Package, backend: str, gpu: int, frame: NDArray[np.uint8], precision: str
) -> Made:
    _device, engine = _opened(stack, package, backend, gpu, precision, "model")
    whole = Whole(engine, package.manifest.input)
    stack.callback(whole.close)
    return Made(lambda: whole.segment(frame)[0])


def _alone(stack: ExitStack, package: Package, backend: str, gpu: int, precision: str, part: str, graphs: bool) -> Made:
    """Stem, or trunk on one split batch, with its input on the GPU already."""
    device, engine = _opened(stack, package, backend, gpu, precision, part)
    stack.enter_context(device.thread())
    cut = package.manifest.cut
    assert cut is not None
    (source,), outputs = engine.inputs, engine.outputs
    feeds = {source.name: device.empty((1, *(d or 1 for d in source.shape[1:])), np.dtype(source.dtype))}
    batches = cut.batches if part == "stem" else 1
    results = {t.name: device.empty((batches, *(d or 1 for d in t.shape[1:])), np.dtype(t.dtype)) for t in outputs}
    context: TensorRTContext = engine.create_context()
    stack.callback(context.close)
    feed = feeds[source.name]
    noise = np.random.default_rng(0).integers(0, 3, feed.shape)
    context.write(feed, noise.astype(feed.dtype))
    if graphs:
        context.prepare(feeds, results)
        if not context.graphs:
            raise CaptureError("the engine could not be captured as a CUDA graph")

    def run() -> None:
        context.enqueue(feeds, results)
        context.synchronize()

    return Made(run, context.elapsed_ms)


def _opened(
    stack: ExitStack, package: Package, backend: str, gpu: int, precision: str, part: str
) -> tuple[CudaDevice, TensorRTEngine]:
    device = open_device(backend, gpu)
    stack.callback(device.close)
    engine = load_engine(package, part, backend, precision, device=device)
    assert isinstance(device, CudaDevice) and isinstance(engine, TensorRTEngine)
    stack.callback(engine.close)
    return device, engine


@contextmanager
def _capturing(graphs: bool) -> Iterator[None]:
    """Contexts fall back to plain execution where a capture fails; without `graphs` each is made to fail."""
    if graphs:
        yield
        return
    refused = CaptureError("left out for the benchmark")
    with mock.patch.object(engines.tensorrt_context, "capture", side_effect=refused):
        yield
