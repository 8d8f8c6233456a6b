"""The package of each form of a network, exported and built in a process of its own, and what a frame will about take.

    python -m benchmarks.peers.packages NETWORK WIDTH HxW FOLDER FORM...

writes FOLDER/own, FOLDER/split, ... with engines and prints, of each form, its folder's name or why there is none. A
form that is the network's own is not exported twice. Those that are not named have no engines, and are left out if no
peer runs them. Weights are random and seeded.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitmerge.errors import InputError, SplitmergeError
from splitmerge.options import height_and_width

if TYPE_CHECKING:
    import torch

__all__ = ["FORMS", "OWN_MAKING", "Case", "Prepared", "largest_mib", "prepared", "soften"]

FORMS = ("own", "split", "dilated", "cpu", "split-cpu", "native", "split-native")
"""Each is exported as `_export` says; this project has a row for each that a network has. `cpu` is the own form with
graphs for CPUs (`splitmerge export --target cpu`), `native` that compiled natively (`splitmerge build --form native`),
`split-cpu` and `split-native` are those of the split form."""

OWN_MAKING = frozenset({"cpu", "split-cpu", "native", "split-native"})
"""Forms that only this project makes, which peers are not given."""

_NOISE_SIZE = (128, 256)
"""Height and width of the noise that logits are looked at for."""
_TRAINED_LOGIT = 10.0
"""The largest logit of a random network: trained ones have up to 30, and rounding stays well below a near tie."""


@dataclass(frozen=True)
class Case:
    """One network on frames of one size, `height` x `width_pixels`; `width` is the first stage's channels."""

    network: str
    width: int
    height: int
    width_pixels: int

    @property
    def pixels(self) -> int:
        return self.height * self.width_pixels

    @property
    def size(self) -> str:
        return f"{self.height}x{self.width_pixels}"

    def __str__(self) -> str:
        return f"{self.network} of width {self.width}, {self.size}"


@dataclass(frozen=True)
class Prepared:
    """Packages of one case: of each form that there is, what it is called and whether it is cut."""

    folder: Path
    forms: Mapping[str, str]
    cut: Mapping[str, bool]


def prepared(folder: Path, found: Mapping[str, Any]) -> Prepared:
    """Read what this module printed. The network's own form bears the name of the one that it is, where it is one."""
    same = {entry["same_as"]: form for form, entry in found.items() if entry.get("same_as")}
    forms = {}
    for form, entry in found.items():
        if "cut" in entry and not entry.get("same_as"):
            base, made = _parted(form)
            words = same.get(base, base)
            forms[form] = "its only form" if words == "own" else f"{words} form"
            forms[form] += {"plain": "", "cpu": ", for CPUs", "native": ", native"}[made]
    return Prepared(folder, forms, {form: found[form]["cut"] for form in forms})


def export_forms(case: Case, folder: Path, wanted: Sequence[str] = FORMS) -> dict[str, dict[str, Any]]:
    """Export all forms that peers run or that are `wanted`, and build these. Raises SplitmergeError where the network's
    own fails."""
    import torch

    from splitmerge.labels import CITYSCAPES
    from training.checkpoint import save_checkpoint
    from training.models import create_model

    torch.manual_seed(0)
    checkpoint = folder / "random.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    model = create_model(case.network, len(CITYSCAPES), case.width).eval()
    soften(model)
    save_checkpoint(checkpoint, model, case.network, CITYSCAPES)
    found: dict[str, dict[str, Any]] = {"own": _export(checkpoint, case, "own", folder, wanted)}
    for form in FORMS[1:]:
        if form in OWN_MAKING and form not in wanted:
            continue
        try:
            found[form] = _export(checkpoint, case, form, folder, wanted)
        except SplitmergeError as error:
            found[form] = {"missing": str(error)}
            continue
        if form not in OWN_MAKING and _same_graph(folder / "own", folder / form):
            found[form]["same_as"] = "own"
    if "same_as" in found["split"]:
        for form in ("split-cpu", "split-native"):  # the same as `cpu` and `native`
            found.pop(form, None)
    return found


def soften(model: "torch.nn.Module") -> None:
    """Scale a network's classifiers, in place, where its logits for noise are larger than a trained network's.

    A near tie is an absolute distance (`export.agreement.TIE`), which rounding exceeds for logits up to several
    hundred, as random weights of some wide networks give. Labels stay, and so does all that is computed before.
    """
    import torch

    frame = torch.randn(1, 3, *_NOISE_SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        largest = float(model(frame).abs().max())
        if largest <= _TRAINED_LOGIT:
            return
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Conv2d) and "classifier" in name:
                for parameter in module.parameters():
                    parameter.mul_(_TRAINED_LOGIT / largest)


def _parted(form: str) -> tuple[str, str]:
    """What a form is exported as, and what it is built as."""
    made = next((name for name in ("cpu", "native") if form.endswith(name)), "plain")
    return form.removesuffix(made).removesuffix("-") or "own", made


def _export(checkpoint: Path, case: Case, form: str, folder: Path, wanted: Sequence[str]) -> dict[str, Any]:
    from export.graphs import Rewriting
    from export.package import export_package
    from runtime.cpu_form import build_fastest

    base, made = _parted(form)
    rewriting = Rewriting(base, target="any" if made == "plain" else "cpu")
    package = export_package(checkpoint, (case.height, case.width_pixels), folder / form, rewriting=rewriting)
    if made == "cpu" and not package.manifest.cpu:
        raise InputError(f"{case} has no form for CPUs: neither its convolutions nor its labels gain by it.")
    if form in wanted:
        build_fastest(package, made)
    return {"cut": package.manifest.cut is not None}


def _same_graph(one: Path, other: Path) -> bool:
    return (one / "model.onnx").read_bytes() == (other / "model.onnx").read_bytes()


def largest_mib(case: Case) -> float:
    """The largest activation of the whole network on one frame, in MiB of float32; nothing is computed."""
    import torch

    from splitmerge.labels import CITYSCAPES
    from training.models import create_model

    largest = 0

    def note(module: object, inputs: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, torch.Tensor):
            largest = max(largest, output.numel())

    with torch.device("meta"), torch.no_grad():
        model = create_model(case.network, len(CITYSCAPES), case.width).eval()
        for module in model.modules():
            module.register_forward_hook(note)
        model(torch.empty(1, 3, case.height, case.width_pixels))
    return largest * 4 / 2**20


def main() -> int:
    network, width, size, folder, *wanted = sys.argv[1:]
    try:
        case = Case(network, int(width), *height_and_width(size))
        print(json.dumps(export_forms(case, Path(folder), wanted or FORMS)))
    except InputError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
