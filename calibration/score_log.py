"""Scores that were measured, kept in a JSON file as they come: what was interrupted goes on where it was."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from calibration.recipes import Recipe
from calibration.score import Measured
from splitmerge.errors import InputError
from splitmerge.files import read_json, write_json
from splitmerge.package import Package

__all__ = ["ScoreLog", "score_log_path"]


def score_log_path(package: Package) -> Path:
    """Where the scores of an interrupted calibration are."""
    return package.folder / "calibration-scores.json"


class ScoreLog:
    """`key` says what is scored, on what and with which versions: scores in the file under another key are dropped."""

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        self._path, self._key = path, dict(key)
        self._scores: dict[str, Measured] = {}
        try:
            value = read_json(path)
            if value["key"] == self._key:
                self._scores = {name: Measured(**numbers) for name, numbers in value["scores"].items()}
        except (InputError, AttributeError, KeyError, TypeError):
            pass  # there is none, or none that can be used
        self.resumed = len(self._scores)

    def measured(self, recipe: Recipe, stride: int, rest: str, measure: Callable[[], Measured]) -> Measured:
        """The score of a recipe: the one in the file, or `measure()`'s, which is written there."""
        name = f"{recipe.words} / stride {stride} / {rest} / without {', '.join(sorted(recipe.left_out)) or 'none'}"
        if name not in self._scores:
            self._scores[name] = measure()
            scores = {name: asdict(score) for name, score in self._scores.items()}
            write_json(self._path, {"key": self._key, "scores": scores})
        return self._scores[name]

    def remove(self) -> None:
        """Take the file away: the work is done."""
        self._path.unlink(missing_ok=True)
