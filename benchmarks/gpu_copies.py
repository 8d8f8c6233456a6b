"""Frames to the GPU and labels back, from page-locked and from pageable host memory."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_rows import Made, Way

if TYPE_CHECKING:
    from engines.cuda import CudaDevice

__all__ = ["pycuda_copies", "torch_copies"]

THERE, BACK = "frame to the GPU", "labels from the GPU"
_BASELINE = "pageable"
_UINT8 = np.dtype(np.uint8)


def pycuda_copies(device: "CudaDevice", size: tuple[int, int]) -> Iterator[Way]:
    """By the streams that the runtime uses."""
    for group, count in _sizes(size):
        for memory in (_BASELINE, "page-locked"):

            def make(stack: ExitStack, group: str = group, count: int = count, memory: str = memory) -> Made:
                stack.enter_context(device.thread())
                stream, buffer = device.stream(), device.empty((count,), _UINT8)
                stack.callback(device.release, buffer.address)
                stack.callback(stream.free)
                host: NDArray[Any] = np.ones(count, np.uint8)
                if memory != _BASELINE:
                    host = device.pinned((count,), _UINT8)
                    stack.callback(device.release, host.ctypes.data)
                    host[:] = 1
                stream.write(buffer, host)

                def run() -> None:
                    with stream.timed():
                        if group == THERE:
                            stream.write(buffer, host)  # CUDA takes pageable memory too: that is what is compared
                        else:
                            stream.read(host, buffer)
                    stream.synchronize()

                return Made(run, stream.elapsed_ms)

            yield Way(group, f"pycuda, {memory}", make, bytes=count, baseline=memory == _BASELINE)


def torch_copies(size: tuple[int, int]) -> Iterator[Way]:
    """The same by PyTorch, where there is no pycuda."""
    for group, count in _sizes(size):
        for memory in (_BASELINE, "page-locked"):

            def make(stack: ExitStack, group: str = group, count: int = count, memory: str = memory) -> Made:
                import torch

                host = torch.ones(count, dtype=torch.uint8, pin_memory=memory != _BASELINE)
                buffer = torch.ones(count, dtype=torch.uint8, device="cuda")
                source, target = (host, buffer) if group == THERE else (buffer, host)
                return Made(_waiting(lambda: target.copy_(source, non_blocking=True)))

            yield Way(group, f"PyTorch, {memory}", make, bytes=count, baseline=memory == _BASELINE)


def _waiting(copy: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        import torch

        copy()
        torch.cuda.synchronize()

    return run


def _sizes(size: tuple[int, int]) -> tuple[tuple[str, int], ...]:
    height, width = size
    return (THERE, 3 * height * width), (BACK, height * width)
