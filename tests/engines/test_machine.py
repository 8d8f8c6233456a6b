"""GPUs as the driver tells them, with a driver library made up for the purpose."""

import ctypes
import re
from collections.abc import Callable
from typing import Any

import pytest

from engines import machine
from engines.machine import Gpu, ask_driver, find_gpus

INVALID_DEVICE = 101

GPUS = [
    {"name": b"NVIDIA GeForce RTX 4090", 16: 128, 75: 8, 76: 9, "memory": 25_386_352_640},
    {"name": b"NVIDIA GeForce RTX 3060", 16: 28, 75: 8, 76: 6, "memory": 12_622_168_064},
]


class Driver:
    """What of libcuda is called, by cuda.h: results through pointers, 0 for success. `errors[function, device]`."""

    def __init__(self, version: int = 13000, errors: dict[tuple[str, int], int] | None = None, count: int = 2) -> None:
        self.version, self.errors, self.count, self.started = version, errors or {}, count, False

    def _result(self, function: str, device: int = -1) -> int:
        if not self.started and function != "cuDriverGetVersion":
            return 3  # CUDA_ERROR_NOT_INITIALIZED
        return self.errors.get((function, device), 0)

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        self.started = ("cuInit", -1) not in self.errors
        return self.errors.get(("cuInit", -1), 0)

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self.version
        return self._result("cuDriverGetVersion")

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.count
        return self._result("cuDeviceGetCount")

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        device._obj.value = ordinal + 40  # a handle, which need not be the number
        return self._result("cuDeviceGet", ordinal)

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:
        name.value = GPUS[device.value - 40]["name"][: length - 1]  # type: ignore[index]
        return self._result("cuDeviceGetName", device.value - 40)

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:
        assert isinstance(memory._obj, ctypes.c_size_t), "32 bits are too few"
        memory._obj.value = GPUS[device.value - 40]["memory"]
        return self._result("cuDeviceTotalMem_v2", device.value - 40)

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = GPUS[device.value - 40][attribute]  # type: ignore[index]
        return self._result("cuDeviceGetAttribute", device.value - 40)

    def cuGetErrorName(self, code: int, name: Any) -> int:
        names = {100: b"CUDA_ERROR_NO_DEVICE", 101: b"CUDA_ERROR_INVALID_DEVICE", 999: b"CUDA_ERROR_UNKNOWN"}
        name._obj.value = names.get(code)
        return 0 if code in names else 1


Use = Callable[[Any], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return lambda driver: monkeypatch.setattr(machine, "libcuda", lambda: driver)


def test_no_driver(use: Use) -> None:
    use(None)
    assert ask_driver() == ([], ["no NVIDIA driver is installed"])


def test_several_gpus(use: Use) -> None:
    use(Driver())
    expected = [
        Gpu("NVIDIA GeForce RTX 4090", "8.9", 128, "13.0", 0, 25_386_352_640),
        Gpu("NVIDIA GeForce RTX 3060", "8.6", 28, "13.0", 1, 12_622_168_064),
    ]
    assert ask_driver() == (expected, [])
    assert find_gpus() == expected


@pytest.mark.parametrize(("number", "words"), [(12080, "12.8"), (11040, "11.4"), (13000, "13.0")])
def test_the_drivers_version(use: Use, number: int, words: str) -> None:
    use(Driver(version=number))
    assert {gpu.driver for gpu in find_gpus()} == {words}


@pytest.mark.parametrize(
    ("function", "code", "words"),
    [
        ("cuInit", 999, r"cuInit with error 999 \(CUDA_ERROR_UNKNOWN\); the kernel module may not be loaded"),
        ("cuInit", 803, "error 803; the driver's library and kernel module have different versions"),
        ("cuInit", 804, "error 804; a cuda-compat library"),
        ("cuInit", 34, "error 34; .* empty stand-in"),
        ("cuInit", 100, "sees no GPU$"),
        ("cuDriverGetVersion", 1, "cuDriverGetVersion with error 1$"),
        ("cuDeviceGetCount", 999, "cuDeviceGetCount with error 999"),
    ],
)
def test_a_driver_that_fails_says_so(use: Use, function: str, code: int, words: str) -> None:
    use(Driver(errors={(function, -1): code}))
    gpus, problems = ask_driver()
    assert gpus == [] and len(problems) == 1
    assert re.search(words, problems[0])


@pytest.mark.parametrize("function", ["cuDeviceGet", "cuDeviceGetName", "cuDeviceTotalMem_v2", "cuDeviceGetAttribute"])
def test_a_gpu_that_fails_does_not_hide_the_other(use: Use, function: str) -> None:
    use(Driver(errors={(function, 0): INVALID_DEVICE}))
    gpus, problems = ask_driver()
    assert [gpu.index for gpu in gpus] == [1]
    assert problems == [
        f"GPU 0 cannot be used: NVIDIA's driver answers {function} with error 101 (CUDA_ERROR_INVALID_DEVICE)"
    ]


def test_hidden_gpus(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    use(Driver(count=0))
    assert ask_driver() == ([], ["NVIDIA's driver sees no GPU"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert ask_driver() == ([], ["NVIDIA's driver sees no GPU (CUDA_VISIBLE_DEVICES is '')"])


def test_an_old_driver_without_names_for_its_errors(use: Use) -> None:
    class Old(Driver):
        @property
        def cuGetErrorName(self) -> Any:  # type: ignore[override]
            raise AttributeError

    use(Old(errors={("cuInit", -1): 999}))
    assert "cuInit with error 999; the kernel" in ask_driver()[1][0]
