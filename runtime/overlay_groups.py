"""How far a run is where each group of pictures of its overlay begins: an overlay is cut and continued there alone."""

from dataclasses import replace

from runtime.gops import group_length
from runtime.growing_overlay import GrowingOverlay
from runtime.run_state import Mark

__all__ = ["OverlayGroups"]


class OverlayGroups:
    """The marks of a run's groups, by their first frames' numbers; of frames at `fps`. Without a resumable overlay
    there are none.
    """

    def __init__(self, overlay: GrowingOverlay | None, fps: float) -> None:
        self._overlay, self._length = overlay, group_length(fps)
        self._marks: dict[int, Mark] = {}

    def begin(self, mark: Mark) -> None:
        """The run goes on at the beginning of a group."""
        self._marks[mark.overlay_frames] = mark

    def note(self, mark: Mark) -> None:
        """So far is the run; where a group begins, remember the overlay's clock."""
        if self._overlay is not None and self._overlay.resumable and mark.frames % self._length == 0:
            clock = self._overlay.clock
            self._marks[mark.frames] = replace(
                mark, overlay_frames=mark.frames, first_s=clock.first_s, last_tick=clock.last
            )

    def at(self, frames: int) -> Mark | None:
        """The mark of a group that begins there."""
        return self._marks.get(frames)

    def sure(self, last: Mark, overlay_frames: int, again: bool) -> Mark:
        """How far the run is for sure when it did `last` and the overlay's file has so many frames. What is missing
        there can be drawn from the source `again`, or cannot.
        """
        if self._overlay is None:
            return last
        group = self._marks.get(overlay_frames // self._length * self._length, Mark())
        if not again:
            return group
        return replace(last, overlay_frames=group.overlay_frames, first_s=group.first_s, last_tick=group.last_tick)

    def forget(self, before: int) -> None:
        """Let go of the groups before this frame."""
        self._marks = {frames: mark for frames, mark in self._marks.items() if frames >= before}
