"""Stand-ins for TensorRT and CUDA on a machine without a GPU, which punish what the real ones forbid.

    from emulator import EmulatedDevice, Emulator

    with Emulator([EmulatedDevice("Emulated 4090"), EmulatedDevice("Emulated 3060", "8.6", speed=0.4)]) as emulator:
        ...                                   # code that imports tensorrt and pycuda.driver

or the fixtures of `emulator.fixture`. Plans are computed by ONNX Runtime; README.md beside this file lists the rules.
"""

from emulator.device import EmulatedDevice
from emulator.emulation import Emulator
from emulator.rules import RuleBroken, Violation
from emulator.timeline import Span, Timeline

__all__ = ["EmulatedDevice", "Emulator", "RuleBroken", "Span", "Timeline", "Violation"]
