"""TensorRT 10's calibration-cache text, for those who calibrate there with `--calib` or an IInt8EntropyCalibrator2.

    TRT-100300-EntropyCalibration2
    features: 3d55aa2c

A line for each tensor: its name and its scale, threshold / 127, as the eight hexadecimal digits of a big-endian
float32. TensorRT 11 reads no such file; there, and in packages of splitmerge, the scales are in the graph.
"""

import re
import struct
from collections.abc import Mapping
from math import isfinite
from pathlib import Path

from calibration.ranges import LEVELS
from splitmerge.errors import InputError
from splitmerge.files import new_file

__all__ = ["check_tensorrt_version", "read_tensorrt_cache", "write_tensorrt_cache"]

_ALGORITHM = "EntropyCalibration2"


def check_tensorrt_version(version: str) -> int:
    """A version as TensorRT counts it: 100300 of 10.3.0. Raises InputError for one that is not 10.x.y."""
    match = re.fullmatch(r"10\.(\d{1,2})\.(\d{1,2})(\.\d+)?", version)
    if not match:
        raise InputError(
            f"TensorRT {version} reads no calibration cache of this format: give the version 10.x.y that will (11 has "
            "no calibrators)."
        )
    return 100000 + 100 * int(match[1]) + int(match[2])


def write_tensorrt_cache(path: Path, thresholds: Mapping[str, float], version: str = "10.3.0") -> None:
    """Write `thresholds` by tensor, in the tensors' units, for TensorRT `version`, which it compares with its own.

    Raises InputError for a version that is not 10.x.y, a name that a line cannot hold and a threshold that is not above
    0 and finite.
    """
    lines = [f"TRT-{check_tensorrt_version(version)}-{_ALGORITHM}"]
    for name, threshold in thresholds.items():
        if not name or name != name.strip() or "\n" in name or "\r" in name:
            raise InputError(
                f"A calibration cache for TensorRT has no place for a tensor named {name!r}: leave it out."
            )
        if not (isfinite(threshold) and threshold > 0):
            raise InputError(f"Tensor {name} has the threshold {threshold}, and a scale must be above 0 and finite.")
        lines.append(f"{name}: {struct.pack('>f', threshold / LEVELS).hex()}")
    with new_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def read_tensorrt_cache(path: Path) -> tuple[str, dict[str, float]]:
    """The version as TensorRT counts it (`100300`) and the scales by tensor.

    Raises InputError where the file is missing or is no such cache.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a calibration cache of TensorRT: {error}.") from None
    header = re.fullmatch(rf"TRT-(\d+)-{_ALGORITHM}", lines[0].strip()) if lines else None
    if not header:
        raise InputError(
            f"{path} is no calibration cache of TensorRT: it must begin with a line such as TRT-100300-{_ALGORITHM}."
        )
    scales = {}
    for number, line in enumerate(lines[1:], 2):
        match = re.fullmatch(r"(.+): ([0-9a-fA-F]{1,8})", line.rstrip())
        if not match:
            raise InputError(f"{path} has no tensor and scale in line {number} ({line!r}): write the file again.")
        # TensorRT prints the bits as a number, without zeros in front.
        (scales[match[1]],) = struct.unpack(">f", bytes.fromhex(match[2].zfill(8)))
    return header[1], scales
