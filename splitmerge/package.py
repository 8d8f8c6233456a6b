"""The package: the folder that a model is deployed as.

    manifest.json            everything below, in words; sealed by a hash of itself
    model.onnx               the whole graph: frames in, labels out
    stem.onnx, trunk.onnx    the same graph cut at a split level (absent when it has no cut)
    trunk-cpu.onnx           a form of it that only CPUs are faster with (where it was exported for them)
    reference.safetensors    the checkpoint, for comparing with PyTorch; a deployment machine may delete it
    engines/                 what `splitmerge build` compiles from the graphs

Graphs are kept by precision (`fp32` now; reduced precisions add theirs beside it). Opening a package checks every hash,
so that an altered or mixed one is refused before anything runs.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from splitmerge.errors import InputError, PackageError
from splitmerge.files import read_json, sha256_of, write_json
from splitmerge.labels import LabelClass

__all__ = ["FORMAT", "Cut", "FormTimes", "Graph", "InputContract", "Manifest", "Package", "TensorInfo"]

FORMAT = 1
MANIFEST = "manifest.json"
REFERENCE = "reference.safetensors"


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a graph; a free dimension is None."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Graph:
    """One ONNX file of the package and what it takes and gives."""

    file: str
    sha256: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True)
class InputContract:
    """What a frame must be. Normalising and padding happen inside the graph; frames go in as they are decoded.

    `height, width` are the frame's pixels; `padded_*` what the network sees: zeros (in normalised values, that is the
    mean colour) are added below and on the right up to a multiple of the network's stride, and the labels are cropped
    back. `mean, std` are red, green, blue in units of 0..1.
    """

    height: int
    width: int
    padded_height: int
    padded_width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dtype: str = "uint8"
    layout: str = "NHWC"
    colour: str = "BGR"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a frame in pixels."""
        return self.height, self.width


@dataclass(frozen=True)
class Cut:
    """Where stem and trunk part: after `level` splits, which step `rows` x `columns` pixels in all.

    Split batch (k,l) has index `k * columns + l` in the stem's outputs and holds the pixels `[k::rows, l::columns]`.
    """

    level: int
    rows: int
    columns: int

    @property
    def batches(self) -> int:
        """How many split batches one frame makes."""
        return self.rows * self.columns


@dataclass(frozen=True)
class FormTimes:
    """How the split and the dilated form of a network compared: median milliseconds a frame, None for one not run."""

    backend: str
    rounds: int
    median_ms: Mapping[str, float | None]


@dataclass(frozen=True)
class Manifest:
    """The contents of manifest.json. `graphs[precision][part]`, part one of `model`, `stem`, `trunk`.

    `cpu` has the parts, of fp32, that have a form for CPUs beside the plain one.

    `form` is the network's own, or what it was rewritten to, `split` or `dilated`; `output_stride` the one that it was
    lowered to, None for its own.
    """

    model: str
    model_width: int
    classes: tuple[LabelClass, ...]
    input: InputContract
    cut: Cut | None
    graphs: Mapping[str, Mapping[str, Graph]]
    reference_sha256: str
    versions: Mapping[str, str]
    verification: Mapping[str, Any] = field(default_factory=dict)
    form: str = "own"
    output_stride: int | None = None
    form_times: FormTimes | None = None
    cpu: Mapping[str, Graph] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def preprocessing_sha256(self) -> str:
        """Identity of the input contract, for engines to remember."""
        return hashlib.sha256(_canonical(asdict(self.input))).hexdigest()


@dataclass(frozen=True)
class Package:
    """A package folder that has been checked."""

    folder: Path
    manifest: Manifest

    @classmethod
    def write_manifest(cls, folder: Path, manifest: Manifest) -> "Package":
        """Seal `manifest` into a folder whose graph files are in place."""
        value = asdict(manifest)
        value["seal"] = hashlib.sha256(_canonical(value)).hexdigest()
        write_json(folder / MANIFEST, value)
        return cls(folder, manifest)

    @classmethod
    def open(cls, folder: Path) -> "Package":
        """Read and check a package. Raises PackageError where it is not whole, not itself, or of a newer format."""
        path = folder / MANIFEST
        if not path.is_file():
            raise PackageError(
                f"{folder} is no package (it has no {MANIFEST}): make one with `splitmerge export --package {folder}`."
            )
        try:
            value = read_json(path)
        except InputError as error:
            raise PackageError(f"{error} Export the package again.") from None
        if not isinstance(value, dict) or not isinstance(value.get("format"), int):
            raise PackageError(f"{path} is not a manifest (it names no format): export the package again.")
        if value["format"] > FORMAT:
            raise PackageError(
                f"{path} has format {value['format']} and this splitmerge reads up to {FORMAT}: "
                "update splitmerge, or export the package again with this one."
            )
        seal = value.pop("seal", None)
        if seal != hashlib.sha256(_canonical(value)).hexdigest():
            raise PackageError(f"{path} was altered after it was written (its seal is broken): export it again.")
        try:
            manifest = _manifest_from_json(value)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PackageError(f"{path} lacks or misstates {error}: export the package again.") from None
        package = cls(folder, manifest)
        for graphs in (*manifest.graphs.values(), manifest.cpu):
            for graph in graphs.values():
                package._check(graph.file, graph.sha256)
        if package.reference_path.exists():
            package._check(REFERENCE, manifest.reference_sha256)
        return package

    @property
    def reference_path(self) -> Path:
        """The PyTorch checkpoint that the graphs were made from."""
        return self.folder / REFERENCE

    @property
    def engines_folder(self) -> Path:
        """Where compiled engines live."""
        return self.folder / "engines"

    def parts(self, precision: str) -> Mapping[str, Graph]:
        """The graphs of one precision. Raises PackageError where the package has none."""
        try:
            return self.manifest.graphs[precision]
        except KeyError:
            have = ", ".join(sorted(self.manifest.graphs))
            raise PackageError(
                f"{self.folder} holds no {precision} graphs (it has: {have}): choose one of those precisions."
            ) from None

    def path(self, graph: Graph) -> Path:
        """The file of one of the package's graphs."""
        return self.folder / graph.file

    def _check(self, file: str, sha256: str) -> None:
        path = self.folder / file
        if not path.is_file():
            raise PackageError(f"{path} is missing from the package: export the package again.")
        found = sha256_of(path)
        if found != sha256:
            raise PackageError(
                f"{path} is not the file that this package was made with (SHA-256 {found[:12]}..., the manifest says "
                f"{sha256[:12]}...): it was altered or comes from another package; export the package again."
            )


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _tensors(values: list[dict[str, Any]]) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(v["name"], v["dtype"], tuple(v["shape"])) for v in values)


def _graph(value: dict[str, Any]) -> Graph:
    if Path(value["file"]).name != value["file"] or value["file"] in ("", ".."):
        raise ValueError(f"the file name {value['file']!r}")
    return Graph(value["file"], value["sha256"], _tensors(value["inputs"]), _tensors(value["outputs"]))


def _manifest_from_json(value: dict[str, Any]) -> Manifest:
    contract = dict(value["input"])
    contract["mean"], contract["std"] = tuple(contract["mean"]), tuple(contract["std"])
    return Manifest(
        model=value["model"],
        model_width=value["model_width"],
        classes=tuple(LabelClass(c["name"], tuple(c["rgb"])) for c in value["classes"]),
        input=InputContract(**contract),
        cut=Cut(**value["cut"]) if value["cut"] else None,
        graphs={
            precision: {part: _graph(graph) for part, graph in parts.items()}
            for precision, parts in value["graphs"].items()
        },
        reference_sha256=value["reference_sha256"],
        versions=value["versions"],
        verification=value["verification"],
        form=value.get("form", "own"),
        output_stride=value.get("output_stride"),
        cpu={part: _graph(graph) for part, graph in value.get("cpu", {}).items()},
        form_times=FormTimes(**value["form_times"]) if value.get("form_times") else None,
        format=value["format"],
    )
