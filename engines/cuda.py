"""CUDA through pycuda: devices, buffers, page-locked arrays, streams, events. Nothing else imports pycuda.

    device = CudaDevice(gpu)
    with device.thread():
        buffer = device.empty((1, 512, 1024, 3), np.dtype(np.uint8))
        stream = device.stream()
        stream.write(buffer, device.pinned(buffer.shape, buffer.dtype))
        stream.synchronize()
    device.close()

A device is used through its primary context, the one that TensorRT and PyTorch use, too: pycuda's `autoinit` and
`make_context` would make a second one, in which the others' handles mean nothing. The context is current only between
push and pop, in each thread by itself, so that a process may hold several devices. pycuda frees an object where its
context is current and nowhere else; so a device keeps everything that it gave out and frees it in `close`, the newest
first.

pycuda releases the interpreter's lock while it copies and waits, and has no graphs: those are in engines.cuda_graphs.
"""

import ctypes
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.cuda_graphs import CaptureError
from engines.interface import Buffer
from engines.machine import Gpu, libcuda
from splitmerge.errors import EngineError

__all__ = ["CudaBuffer", "CudaDevice", "CudaStream", "cuda_buffer", "freeing"]

log = logging.getLogger(__name__)

_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: the stream does not wait for the default stream, which others in the process may use."""


@dataclass(frozen=True)
class CudaBuffer:
    """Device memory from `address` on, of the device called `device`."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: str

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def batches(self, start: int, stop: int) -> "CudaBuffer":
        if not 0 <= start <= stop <= self.shape[0]:
            raise ValueError(f"A buffer of {self.shape[0]} entries has no entries {start} to {stop}.")
        step = prod(self.shape[1:]) * self.dtype.itemsize
        return CudaBuffer(self.address + start * step, (stop - start, *self.shape[1:]), self.dtype, self.device)


class CudaStream:
    """Copies in order, on a stream of its own; `handle` is what TensorRT and the driver call it.

    Host arrays must be page-locked (`CudaDevice.pinned`) and stay as they are until `synchronize` has returned.
    """

    def __init__(self, cuda: Any, device: str) -> None:
        self._cuda, self._device = cuda, device
        with _said(cuda, f"make a stream on {device}"):
            self._stream = cuda.Stream(_NON_BLOCKING)
            self._begin, self._end = cuda.Event(), cuda.Event()

    @property
    def handle(self) -> int:
        return int(self._stream.handle)

    def write(self, buffer: CudaBuffer, pinned: NDArray[Any]) -> None:
        """Copy a page-locked array to the device."""
        with _said(self._cuda, f"copy to {self._device}"):
            self._cuda.memcpy_htod_async(buffer.address, pinned, self._stream)

    def read(self, pinned: NDArray[Any], buffer: CudaBuffer) -> None:
        """Copy from the device into a page-locked array."""
        with _said(self._cuda, f"copy from {self._device}"):
            self._cuda.memcpy_dtoh_async(pinned, buffer.address, self._stream)

    def copy(self, target: CudaBuffer, source: CudaBuffer) -> None:
        """Copy on the device."""
        with _said(self._cuda, f"copy on {self._device}"):
            self._cuda.memcpy_dtod_async(target.address, source.address, source.nbytes, self._stream)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """What is put on the stream inside is timed; `elapsed_ms` after `synchronize`."""
        with _said(self._cuda, f"time {self._device}"):
            self._begin.record(self._stream)
        yield
        with _said(self._cuda, f"time {self._device}"):
            self._end.record(self._stream)

    def elapsed_ms(self) -> float:
        """Milliseconds on the device from the beginning to the end of the last `timed` block."""
        with _said(self._cuda, f"read a timer of {self._device}"):
            return float(self._end.time_since(self._begin))

    def synchronize(self) -> None:
        """Wait until everything on the stream is done. Raises EngineError where any of it failed."""
        with _said(self._cuda, f"wait for {self._device}"):
            self._stream.synchronize()

    def free(self) -> None:
        """Give stream and events back."""
        del self._begin, self._end, self._stream


class CudaDevice:
    """One GPU. Raises EngineError where pycuda or the driver does not let it be used."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.name = gpu, f"cuda:{gpu.index}"
        try:
            import pycuda.driver as cuda
        except ImportError as error:
            raise EngineError(
                f"pycuda cannot be imported ({error}), and engines on a GPU need it: pip install pycuda."
            ) from None
        self._cuda: Any = cuda
        with _said(cuda, f"open {self.name}"):
            cuda.init()
            self._context = cuda.Device(gpu.index).retain_primary_context()
        self._held: dict[int, Callable[[], object]] = {}
        self._closed = False

    @contextmanager
    def thread(self) -> Iterator[None]:
        with _said(self._cuda, f"use {self.name}"):
            self._context.push()
        try:
            yield
        finally:
            self._cuda.Context.pop()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> CudaBuffer:
        return CudaBuffer(self.allocate(prod(shape) * dtype.itemsize), shape, dtype, self.name)

    def allocate(self, size: int) -> int:
        """The address of `size` bytes of device memory; `release` or `close` gives them back."""
        with _said(self._cuda, f"get {size / 2**20:.1f} MiB on {self.name}"):
            allocation = self._cuda.mem_alloc(max(1, size))
        address = int(allocation)
        self._held[address] = allocation.free
        return address

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """A page-locked host array with undefined contents; `release` (of its `ctypes.data`) or `close` frees it."""
        with _said(self._cuda, f"lock {prod(shape) * dtype.itemsize / 2**20:.1f} MiB of host memory"):
            array: NDArray[Any] = self._cuda.pagelocked_empty(shape, dtype)
        # The array's base is pycuda's allocation; NumPy's types know only of arrays there.
        self._held[array.ctypes.data] = array.base.free  # type: ignore[union-attr]
        return array

    def release(self, address: int) -> None:
        """Free what lies at `address`. Nothing may be using it."""
        with _said(self._cuda, f"free memory of {self.name}"):
            self._held.pop(address)()

    def stream(self) -> CudaStream:
        """A new stream, which its owner frees."""
        return CudaStream(self._cuda, self.name)

    def free_bytes(self) -> int:
        """Device memory that is free now, whoever else uses the GPU."""
        with _said(self._cuda, f"ask {self.name} for its memory"):
            return int(self._cuda.mem_get_info()[0])

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with freeing(self):
            for address in reversed(list(self._held)):
                self.release(address)
        self._held.clear()
        try:
            with _said(self._cuda, f"close {self.name}"):
                self._context.push()
                handle = int(self._context.handle)
                self._context.detach()
            _pop(handle)
        except EngineError as error:
            log.info("%s", error)


@contextmanager
def freeing(device: CudaDevice) -> Iterator[None]:
    """Make the device current to free what is on it. A device that failed lets nothing be freed any more, until the
    process ends: that is logged and is no error.
    """
    try:
        with device.thread():
            yield
    except (EngineError, CaptureError) as error:
        log.info("%s: not all could be freed: %s", device.name, error)


def _pop(handle: int) -> None:
    """Take a primary context that pycuda has released off this thread's stack, where pycuda leaves it."""
    driver, current = libcuda(), ctypes.c_void_p()
    if driver and not driver.cuCtxGetCurrent(ctypes.byref(current)) and current.value == handle:
        driver.cuCtxPopCurrent_v2(ctypes.byref(current))


def cuda_buffer(buffer: Buffer, device: CudaDevice) -> CudaBuffer:
    """The buffer as one of this device. Raises TypeError for another device's."""
    if not isinstance(buffer, CudaBuffer) or buffer.device != device.name:
        owner = getattr(buffer, "device", type(buffer).__name__)
        raise TypeError(f"An engine on {device.name} needs the buffers of that device, not of {owner}.")
    return buffer


@contextmanager
def _said(cuda: Any, what: str) -> Iterator[None]:
    """pycuda's errors, and of page-locked memory Python's own, as EngineErrors. Others are mistakes in the program."""
    try:
        yield
    except (cuda.Error, MemoryError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise EngineError(f"CUDA could not {what} ({words}).") from error
