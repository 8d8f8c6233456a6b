"""What may be asked of a calibration to int8, and what it came to."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from calibration.recipes import Recipe
from calibration.score import Budget, Measured
from calibration.search import Step
from calibration.sweep import Tried
from splitmerge.labels import THIN_CLASSES

__all__ = ["Int8Options", "Int8Report"]

_SEARCH_STRIDE = 2


@dataclass(frozen=True)
class Int8Options:
    """`method` is one of calibration's, or "auto". `force` adds what does not meet the budget; `search_stride` is how
    many rows and columns apart the pixels are that a search looks at; `thin` names the classes that count as thin.
    """

    method: str = "auto"
    budget: Budget = field(default_factory=Budget)
    rest: str = "fp16"
    sensitivity: bool = False
    force: bool = False
    search_stride: int = _SEARCH_STRIDE
    thin: tuple[str, ...] = THIN_CLASSES


@dataclass(frozen=True)
class Int8Report:
    """The recipe, the share of multiply-adds in int8, the score at full density beside float32's, and what led there.

    `exceeded` says in words what of the budget is; `written` whether the package has the graphs; `kept` which values
    stay float32 where the rest is fp16, and why.
    """

    recipe: Recipe
    share: float
    float32: Measured
    measured: Measured
    exceeded: tuple[str, ...]
    written: bool
    sweep: tuple[Tried, ...]
    alone: dict[str, Measured]
    steps: tuple[Step, ...]
    kept: Mapping[str, str]

    def facts(self) -> dict[str, Any]:
        """As JSON: what the package keeps."""
        return {
            "method": self.recipe.method,
            "bias_corrected": self.recipe.corrected,
            "equalised": self.recipe.equalised,
            "left_out": sorted(self.recipe.left_out),
            "kept_float32": dict(sorted(self.kept.items())),
            "int8_share_of_multiply_adds": self.share,
            "exceeded": list(self.exceeded),
            "written": self.written,
            "label_agreement": self.measured.agreement,
            "float32": asdict(self.float32),
            "int8": asdict(self.measured),
            "sweep": [{"recipe": tried.recipe.words, **asdict(tried.measured)} for tried in self.sweep],
            "sensitivity": {name: asdict(measured) for name, measured in self.alone.items()},
            "search": [{**asdict(step), "left_out": list(step.left_out)} for step in self.steps],
        }
