"""Which outputs a user asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Wanted"]


@dataclass(frozen=True)
class Wanted:
    """The outputs of a run, and the overlay's looks."""

    overlay: Path | None = None
    masks: Path | None = None
    colour_masks: Path | None = None
    records: Path | None = None
    alpha: float = 0.55
    legend: bool = False

    @property
    def places(self) -> dict[str, Path]:
        """Where each is to be, by its option; the first keeps the run's state beside it."""
        options = {
            "--overlay": self.overlay,
            "--records": self.records,
            "--masks": self.masks,
            "--colour-masks": self.colour_masks,
        }
        return {option: place for option, place in options.items() if place is not None}

    @property
    def facts(self) -> dict[str, Any]:
        """What of it makes a run another one."""
        places = {option: str(place.resolve()) for option, place in self.places.items()}
        return {"outputs": places} | ({"--alpha": self.alpha, "--legend": self.legend} if self.overlay else {})
