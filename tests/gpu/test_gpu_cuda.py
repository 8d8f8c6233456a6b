"""Devices, buffers, pinned memory and streams on the real driver, with pycuda alone."""

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from gpu_here import MIB, current_context, gpus_or_skip

from engines.cuda import CudaBuffer, CudaDevice, CudaStream, cuda_buffer
from engines.machine import Gpu
from splitmerge.errors import EngineError

GPUS = gpus_or_skip()
UINT8, FLOAT = np.dtype(np.uint8), np.dtype(np.float32)
SLACK = 32 * MIB  # the driver hands out memory in blocks, and may keep one


@pytest.fixture(params=GPUS, ids=lambda gpu: f"gpu{gpu.index}")
def gpu(request: pytest.FixtureRequest) -> Gpu:
    one: Gpu = request.param
    return one


@pytest.fixture
def device(gpu: Gpu) -> Iterator[CudaDevice]:
    device = CudaDevice(gpu)
    yield device
    device.close()


def noise(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def round_trip(device: CudaDevice, stream: CudaStream, data: np.ndarray) -> np.ndarray:
    """There and back through page-locked memory, which is given back."""
    source, target = device.pinned(data.shape, data.dtype), device.pinned(data.shape, data.dtype)
    buffer = device.empty(data.shape, data.dtype)
    source[...] = data
    target[...] = 0
    stream.write(buffer, source)
    stream.read(target, buffer)
    stream.synchronize()
    back = target.copy()
    for address in (source.ctypes.data, target.ctypes.data, buffer.address):
        device.release(address)
    return back


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work(i)` in threads that start together; the first failure is raised here."""
    failures: list[BaseException] = []
    start = threading.Barrier(count)

    def run(index: int) -> None:
        try:
            start.wait(60)
            work(index)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if failures:
        raise failures[0]


def test_the_device_is_current_inside_and_nowhere_else(device: CudaDevice) -> None:
    before = current_context()
    with device.thread():
        inside = current_context()
        assert inside is not None
        with device.thread():
            assert current_context() == inside
        assert current_context() == inside
    assert current_context() == before


def test_it_is_no_longer_current_after_an_error(device: CudaDevice) -> None:
    before = current_context()
    with pytest.raises(KeyError), device.thread():
        raise KeyError
    assert current_context() == before


def test_threads_push_and_pop_by_themselves(device: CudaDevice) -> None:
    contexts: dict[int, int | None] = {}

    def work(index: int) -> None:
        assert current_context() is None
        for _ in range(50):
            with device.thread(), device.thread():
                contexts[index] = current_context()
        assert current_context() is None

    in_threads(8, work)
    assert len(set(contexts.values())) == 1 and None not in contexts.values()


def test_every_thread_and_stream_gets_its_own_bytes_back(device: CudaDevice) -> None:
    def work(index: int) -> None:
        with device.thread():
            streams = [device.stream() for _ in range(2)]
            for turn in range(4):
                data = noise(100 * index + turn, (4 << 20) + 17 * index)
                np.testing.assert_array_equal(round_trip(device, streams[turn % 2], data), data)
            for stream in streams:
                stream.free()

    in_threads(4, work)


def test_many_streams_of_one_thread_overlap_without_mixing(device: CudaDevice) -> None:
    with device.thread():
        jobs = []
        for index in range(6):
            stream, size = device.stream(), (2 + index) << 20
            source, target = device.pinned((size,), UINT8), device.pinned((size,), UINT8)
            source[:] = noise(index, size)
            jobs.append((stream, source, target, device.empty((size,), UINT8)))
        for stream, source, _, buffer in jobs:
            stream.write(buffer, source)
        for stream, _, target, buffer in jobs:
            stream.read(target, buffer)
        for stream, source, target, _ in jobs:
            stream.synchronize()
            np.testing.assert_array_equal(source, target)
            stream.free()


def test_split_batches_are_addresses_in_the_same_memory(device: CudaDevice) -> None:
    with device.thread():
        stream = device.stream()
        data = np.random.default_rng(0).normal(size=(16, 3, 40, 70)).astype(np.float32)
        buffer, pinned = device.empty(data.shape, FLOAT), device.pinned(data.shape, FLOAT)
        pinned[...] = data
        stream.write(buffer, pinned)
        part = device.pinned((3, *data.shape[1:]), FLOAT)
        stream.read(part, buffer.batches(5, 8))
        stream.synchronize()
        np.testing.assert_array_equal(part, data[5:8])
        part[...] = 7
        stream.write(buffer.batches(8, 16).batches(1, 4), part)
        stream.read(pinned, buffer)
        stream.synchronize()
        data[9:12] = 7
        np.testing.assert_array_equal(pinned, data)
        stream.free()


def test_memory_begins_where_tensorrt_takes_it(device: CudaDevice) -> None:
    with device.thread():
        assert all(device.empty((size,), UINT8).address % 256 == 0 for size in (1, 17, 4096, 1 << 20))
        assert device.empty((0, 3), FLOAT).nbytes == 0


def test_a_copy_takes_no_longer_on_the_device_than_for_us(device: CudaDevice) -> None:
    size = 256 * MIB
    with device.thread():
        stream = device.stream()
        pinned, buffer = device.pinned((size,), UINT8), device.empty((size,), UINT8)
        pinned[:] = 1
        stream.write(buffer, pinned)
        stream.synchronize()
        start = time.perf_counter()
        with stream.timed():
            stream.write(buffer, pinned)
        stream.synchronize()
        waited_ms = (time.perf_counter() - start) * 1e3
        taken_ms = stream.elapsed_ms()
        assert 0 < taken_ms <= 1.01 * waited_ms + 0.1
        assert size / (taken_ms / 1e3) < 2e12, "faster than any link: it was the launch that was timed, not the copy"
        stream.free()


def test_a_timer_that_never_ran_is_one_error(device: CudaDevice) -> None:
    with device.thread():
        stream = device.stream()
        with pytest.raises(EngineError, match=rf"CUDA could not read a timer of {device.name}"):
            stream.elapsed_ms()
        stream.free()


def test_too_much_memory_is_one_sentence_and_the_device_goes_on(device: CudaDevice, gpu: Gpu) -> None:
    with device.thread():
        before = device.free_bytes()
        with pytest.raises(EngineError) as refused:
            device.allocate(2 * gpu.memory_bytes)
        words = str(refused.value)
        assert words.startswith("CUDA could not get ") and device.name in words and "\n" not in words
        assert abs(device.free_bytes() - before) <= SLACK
        stream = device.stream()
        data = noise(1, 1 << 20)
        np.testing.assert_array_equal(round_trip(device, stream, data), data)
        stream.free()


def test_free_memory_goes_down_and_comes_back(device: CudaDevice) -> None:
    with device.thread():
        before = device.free_bytes()
        buffer = device.empty((256, MIB), UINT8)
        assert before - device.free_bytes() >= buffer.nbytes - SLACK
        device.release(buffer.address)
        assert abs(device.free_bytes() - before) <= SLACK


def test_closing_gives_everything_back(device: CudaDevice, gpu: Gpu) -> None:
    with device.thread():
        before = device.free_bytes()
    for _ in range(3):
        other = CudaDevice(gpu)
        with other.thread():
            other.empty((256, MIB), UINT8)
            other.pinned((16, MIB), UINT8)
            stream = other.stream()
            stream.free()
        other.close()
    with device.thread():
        assert abs(device.free_bytes() - before) <= SLACK


def test_closing_twice_does_nothing_and_a_device_opens_again(gpu: Gpu) -> None:
    for seed in range(3):
        device = CudaDevice(gpu)
        with device.thread():
            stream = device.stream()
            data = noise(seed, 1 << 20)
            np.testing.assert_array_equal(round_trip(device, stream, data), data)
            stream.free()
        device.close()
        device.close()


def test_closing_leaves_nothing_current(gpu: Gpu) -> None:
    """A released context that stays current would decide which GPU TensorRT builds on in this thread."""
    before = current_context()
    device = CudaDevice(gpu)
    with device.thread():
        device.empty((1, MIB), UINT8)
    device.close()
    assert current_context() == before


def test_closing_inside_another_device_leaves_that_one_current(device: CudaDevice, gpu: Gpu) -> None:
    before = current_context()
    with device.thread():
        inside = current_context()
        CudaDevice(gpu).close()
        assert current_context() == inside
        stream = device.stream()
        data = noise(5, 1 << 20)
        np.testing.assert_array_equal(round_trip(device, stream, data), data)
        stream.free()
    assert current_context() == before


def test_a_device_closes_in_another_thread_than_it_was_opened_in(device: CudaDevice, gpu: Gpu) -> None:
    other = CudaDevice(gpu)
    with device.thread():
        before = device.free_bytes()
    with other.thread():
        other.empty((256, MIB), UINT8)
    in_threads(1, lambda index: other.close())
    with device.thread():
        assert abs(device.free_bytes() - before) <= SLACK


def test_two_openings_of_one_gpu_share_its_context(device: CudaDevice, gpu: Gpu) -> None:
    other = CudaDevice(gpu)
    with device.thread():
        inside = current_context()
    with other.thread():
        assert current_context() == inside
    other.close()


def test_a_gpu_that_is_not_there_is_one_error() -> None:
    nowhere = Gpu("nowhere", "9.9", 1, "13.0", 1000, 1)
    with pytest.raises(EngineError, match="CUDA could not open cuda:1000"):
        CudaDevice(nowhere)


@pytest.mark.skipif(len(GPUS) < 2, reason=f"needs two GPUs, here is {len(GPUS)}")
class TestTwoDevices:
    @pytest.fixture
    def devices(self) -> Iterator[list[CudaDevice]]:
        devices = [CudaDevice(gpu) for gpu in GPUS[:2]]
        yield devices
        for device in devices:
            device.close()

    def test_each_thread_has_its_own(self, devices: list[CudaDevice]) -> None:
        def work(index: int) -> None:
            device = devices[index % 2]
            with device.thread():
                stream = device.stream()
                for turn in range(8):
                    data = noise(10 * index + turn, 3 << 20)
                    np.testing.assert_array_equal(round_trip(device, stream, data), data)
                stream.free()

        in_threads(4, work)

    def test_one_inside_the_other(self, devices: list[CudaDevice]) -> None:
        first, second = devices
        with first.thread():
            outer = current_context()
            with second.thread():
                assert current_context() != outer
                data = noise(3, 1 << 20)
                np.testing.assert_array_equal(round_trip(second, second.stream(), data), data)
            assert current_context() == outer

    def test_memory_is_accounted_apart(self, devices: list[CudaDevice]) -> None:
        free = []
        for device in devices:
            with device.thread():
                free.append(device.free_bytes())
        with devices[0].thread():
            buffer = devices[0].empty((256, MIB), UINT8)
        with devices[1].thread():
            assert abs(devices[1].free_bytes() - free[1]) <= SLACK
        with pytest.raises(TypeError, match="needs the buffers of that device"):
            cuda_buffer(buffer, devices[1])


def test_buffers_say_how_large_they_are() -> None:
    buffer = CudaBuffer(4096, (16, 4, 8), FLOAT, "cuda:0")
    assert buffer.nbytes == 16 * 4 * 8 * 4
    assert buffer.batches(3, 5).address == 4096 + 3 * 4 * 8 * 4
    with pytest.raises(ValueError, match="has no entries 3 to 17"):
        buffer.batches(3, 17)
