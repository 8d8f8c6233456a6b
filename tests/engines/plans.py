"""Plans that were never built: a header that is real, a sidecar that fits it, nothing behind it."""

import platform
from pathlib import Path
from typing import Any

from engines.machine import Gpu
from engines.sidecar import Sidecar, engine_folder, write_sidecar
from splitmerge.files import sha256_of
from splitmerge.package import Package

RTX_4090 = Gpu("NVIDIA GeForce RTX 4090", "8.9", 128, "13.0", 0, 24 << 30)
RTX_3060 = Gpu("NVIDIA GeForce RTX 3060", "8.6", 28, "13.0", 1, 12 << 30)
H200 = Gpu("NVIDIA H200", "9.0", 132, "12.8", 0, 140 << 30)

VERSIONS = {"onnxruntime": "1.31.1", "tensorrt": "10.16.1.11", "tensorrt-rtx": "1.7.1.116"}

# what trtexec's --getPlanVersionOnly reads as TensorRT 10.16.1.11, and what TensorRT-RTX 1.7.1.116 wrote
HEADERS = {
    "tensorrt": b"ftrt" + bytes(20) + bytes([10, 16, 1, 11]),
    "tensorrt-rtx": bytes.fromhex("76747274 00000000 02000000 00000000 941c0400 00000000 01070174"),
}


def machine_facts(gpu: Gpu | None = None, capability: str | None = None) -> dict[str, Any]:
    """A plan's machine: this one with `gpu`, or ahead of time for `capability`."""
    return {
        "os": platform.system(),
        "architecture": platform.machine(),
        "gpu": gpu.name if gpu else None,
        "capability": gpu.capability if gpu else capability,
        "multiprocessors": gpu.multiprocessors if gpu else None,
        "driver": gpu.driver if gpu else None,
        "hardware_compatibility": "none",
        "version_compatible": False,
    }


def put_engines(package: Package, backend: str, capability: str | None = None, **machine: Any) -> Path:
    """Write engines of a package's stem and trunk, fp32, that pass every check but would not run."""
    folder = engine_folder(package, backend, "fp32", capability)
    folder.mkdir(parents=True)
    for part in ("stem", "trunk"):
        engine = folder / (part + (".plan" if capability else ".onnx"))
        engine.write_bytes(HEADERS.get(backend, b""))
        sidecar = Sidecar(
            backend=backend,
            version=VERSIONS[backend],
            part=part,
            precision="fp32",
            engine_sha256=sha256_of(engine),
            graph_sha256=package.parts("fp32")[part].sha256,
            preprocessing_sha256=package.manifest.preprocessing_sha256,
            machine={**machine_facts(None, capability), **machine},
            build={"convolutions": {"Half": 3, "Float": 1}},
        )
        write_sidecar(engine, sidecar)
    return folder
