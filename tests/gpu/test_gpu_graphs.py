"""CUDA graphs on the real driver: what is captured is not run, what is launched is what was captured."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from gpu_here import gpus_or_skip

from engines.cuda import CudaDevice, CudaStream
from engines.cuda_graphs import CaptureError, capture
from splitmerge.errors import EngineError

GPUS = gpus_or_skip()
UINT8 = np.dtype(np.uint8)
SIZE = 2 << 20


@pytest.fixture
def device() -> Iterator[CudaDevice]:
    device = CudaDevice(GPUS[0])
    with device.thread():
        yield device
    device.close()


@pytest.fixture
def stream(device: CudaDevice) -> Iterator[CudaStream]:
    stream = device.stream()
    yield stream
    stream.free()


class Copy:
    """A page-locked source, device memory and a page-locked target."""

    def __init__(self, device: CudaDevice, stream: CudaStream) -> None:
        self.stream = stream
        self.source, self.target = device.pinned((SIZE,), UINT8), device.pinned((SIZE,), UINT8)
        self.buffer = device.empty((SIZE,), UINT8)
        self.source[:], self.target[:] = 1, 2

    def there(self) -> None:
        self.stream.write(self.buffer, self.source)

    def there_and_back(self) -> None:
        self.there()
        self.stream.read(self.target, self.buffer)

    def check(self) -> None:
        """Plain copies still work."""
        self.source[:] = np.random.default_rng(int(self.source[0])).integers(0, 256, SIZE, np.uint8)
        self.there_and_back()
        self.stream.synchronize()
        np.testing.assert_array_equal(self.target, self.source)


def test_capturing_runs_nothing(device: CudaDevice, stream: CudaStream) -> None:
    copy = Copy(device, stream)
    copy.there()
    stream.synchronize()
    copy.source[:] = 9
    graph = capture(stream.handle, copy.there)
    stream.synchronize()
    stream.read(copy.target, copy.buffer)
    stream.synchronize()
    assert (copy.target == 1).all()
    graph.free()
    copy.check()


def test_every_launch_copies_what_the_source_holds_then(device: CudaDevice, stream: CudaStream) -> None:
    copy = Copy(device, stream)
    graph = capture(stream.handle, copy.there_and_back)
    for seed in range(20):
        copy.source[:] = np.random.default_rng(seed).integers(0, 256, SIZE, np.uint8)
        copy.target[:] = 0
        graph.launch(stream.handle)
        stream.synchronize()
        np.testing.assert_array_equal(copy.target, copy.source)
    graph.free()


def test_a_graph_runs_on_another_stream_too_and_is_timed(device: CudaDevice, stream: CudaStream) -> None:
    copy, other = Copy(device, stream), device.stream()
    graph = capture(stream.handle, copy.there_and_back)
    copy.source[:] = 77
    with other.timed():
        graph.launch(other.handle)
    other.synchronize()
    assert (copy.target == 77).all()
    assert other.elapsed_ms() > 0
    graph.free()
    other.free()


def test_an_error_inside_is_raised_and_the_stream_goes_on(device: CudaDevice, stream: CudaStream) -> None:
    copy = Copy(device, stream)

    def breaks() -> None:
        copy.there()
        raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        capture(stream.handle, breaks)
    copy.check()
    graph = capture(stream.handle, copy.there_and_back)
    graph.launch(stream.handle)
    stream.synchronize()
    graph.free()


def test_waiting_inside_breaks_the_capture_and_not_the_stream(device: CudaDevice, stream: CudaStream) -> None:
    copy = Copy(device, stream)
    refused: list[EngineError] = []

    def waits() -> None:
        copy.there()
        try:
            stream.synchronize()  # a stream under capture cannot be waited for
        except EngineError as error:
            refused.append(error)

    with pytest.raises(CaptureError, match="cuStreamEndCapture"):
        capture(stream.handle, waits)
    assert len(refused) == 1
    copy.check()


def test_capturing_while_capturing_is_refused(device: CudaDevice, stream: CudaStream) -> None:
    copy = Copy(device, stream)

    def again() -> None:
        with pytest.raises(CaptureError, match="cuStreamBeginCapture"):
            capture(stream.handle, copy.there)
        raise KeyError

    with pytest.raises(KeyError):
        capture(stream.handle, again)
    copy.check()


def test_a_capture_of_nothing_is_a_graph_of_nothing(device: CudaDevice, stream: CudaStream) -> None:
    graph = capture(stream.handle, lambda: None)
    graph.launch(stream.handle)
    stream.synchronize()
    graph.free()


def test_other_threads_work_on_while_one_captures(device: CudaDevice, stream: CudaStream) -> None:
    """Thread-local capture: allocating, copying and waiting in other threads neither fails nor breaks it."""
    copy, stop, failures = Copy(device, stream), threading.Event(), list[BaseException]()
    turns = [0, 0]

    def busy(index: int) -> None:
        try:
            with device.thread():
                own = device.stream()
                job = Copy(device, own)
                while not stop.is_set():
                    job.check()
                    device.release(device.allocate(1 << 20))
                    device.free_bytes()
                    turns[index] += 1
                own.free()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=busy, args=(index,), daemon=True) for index in range(2)]
    for thread in threads:
        thread.start()
    try:
        for seed in range(50):
            graph = capture(stream.handle, copy.there_and_back)
            copy.source[:] = seed
            graph.launch(stream.handle)
            stream.synchronize()
            assert (copy.target == seed).all()
            graph.free()
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not failures, failures
    assert all(turns)


def test_threads_capture_and_launch_at_the_same_time(device: CudaDevice) -> None:
    failures = list[BaseException]()

    def work(index: int) -> None:
        try:
            with device.thread():
                stream = device.stream()
                copy = Copy(device, stream)
                graphs = [capture(stream.handle, copy.there_and_back) for _ in range(8)]
                for turn, graph in enumerate(graphs * 3):
                    copy.source[:] = 10 * index + turn
                    graph.launch(stream.handle)
                    stream.synchronize()
                    assert (copy.target == 10 * index + turn).all()
                for graph in graphs:
                    graph.free()
                stream.free()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures, failures
