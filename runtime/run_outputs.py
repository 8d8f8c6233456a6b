"""The outputs of one run, which keep what they have whatever ends it, and can be gone on with.

They grow under hidden names. At the end, at Ctrl-C, SIGTERM, an error and a full disk they take their places, all with
the same number of frames; a killed process leaves them hidden. `--resume` cuts them back to the last frame that is sure
to be in each and goes on with the next. An overlay can be cut at groups of pictures alone (runtime.gops), so the label
maps of the frames after its last whole group are kept, and drawn again.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from runtime.growing import NotContinuable
from runtime.overlay_groups import OverlayGroups
from runtime.resuming import reopened
from runtime.run_files import RunFiles
from runtime.run_state import Mark, RunState, source_facts
from runtime.sinks import Result, Sink
from runtime.sources import ImageSource, Source, VideoSource
from runtime.wanted import Wanted
from splitmerge.errors import InputError
from splitmerge.labels import LabelClass

__all__ = ["RunOutputs"]

COMMIT_S = 1.0
"""Seconds between two states: what a killed process has to compute again."""


class RunOutputs:
    """The outputs `wanted` of the frames of `source`. `facts` is what else would make the results others.

    Before the run, `already_finished` says that there is nothing to do, and `note` is for the user. Inside of `open`,
    `before` frames are done and the source begins after them. After it `kept` frames are in the outputs, and
    `resumable` says whether a further run can go on with the next.

    Raises InputError where `resume` is asked for and cannot be.
    """

    def __init__(
        self,
        wanted: Wanted,
        source: Source,
        classes: tuple[LabelClass, ...],
        facts: Mapping[str, Any],
        resume: bool = False,
    ) -> None:
        self._wanted, self._source, self._resume = wanted, source, resume
        self._files = RunFiles(wanted, source, classes)
        if resume and self._files.obstacle:
            raise InputError(f"--resume cannot be: {self._files.obstacle}.")
        self._facts = {"source": source_facts(source), **facts, **wanted.facts}
        self._groups = OverlayGroups(self._files.overlay, source.fps)
        self._mark = self._last = self._earlier = Mark()
        self._complete = self._incomplete = False
        self._committed_at = time.monotonic()
        self._shift_s: float | None = None
        self.before, self.kept, self.resumable = 0, 0, False
        self._state = RunState(list(wanted.places.values())) if wanted.places else None
        try:
            self._check_facts()
        except BaseException:
            self.close()
            raise

    @property
    def already_finished(self) -> bool:
        """Whether a run that was to be resumed had come to its end. (A live source has none.)"""
        return self._resume and self._state is not None and self._state.finished and not self._source.live

    @property
    def was_incomplete(self) -> bool:
        """Whether the source of a run that `already_finished` had fewer frames than it was to have."""
        return self._state is not None and self._state.incomplete

    @property
    def note(self) -> str | None:
        """What a user should know of an earlier run before this one begins."""
        frames = self._state.mark.frames if self._state is not None and not self._state.ended else 0
        if self._resume or not frames:
            return None
        return f"{frames} frames of an interrupted run are given up; with --resume it would go on after them."

    @contextmanager
    def open(self, facts: Mapping[str, Any]) -> Iterator[Sink]:
        """Give the sink for all outputs; when the block ends they take their places with the frames they have.

        `facts` are those that were not known before.
        """
        try:
            self._facts |= facts
            self._check_facts()
            self._begin()
            try:
                yield self._write
            except BaseException:
                with suppress(OSError, InputError):  # the error that came first is the one to tell
                    self._end()
                raise
            self._end()
        finally:
            self.close()

    def complete(self, incomplete: bool = False) -> None:
        """The source has come to its end: after the block nothing is left to be done. `incomplete`: it had fewer
        frames than it was to have.
        """
        self._complete, self._incomplete = True, incomplete

    def close(self) -> None:
        """Let other runs have these outputs."""
        if self._state is not None:
            self._state.close()

    def _check_facts(self) -> None:
        if self._resume and self._state and self._state.found and (refusal := self._state.refusal(self._facts)):
            raise InputError(refusal)

    def _begin(self) -> None:
        state = self._state
        if self._resume and state is not None and state.mark.frames and (self._source.live or not state.ended):
            self._go_on(state.mark)
            return
        if self._state is not None:
            self._state.remove()
        try:
            self._files.begin()
            if self._state is not None and not self._files.obstacle:
                self._commit(Mark())
                self._state.write_pointers()
        except BaseException:
            self._leave_nothing()
            raise

    def _go_on(self, mark: Mark) -> None:
        try:
            frames = reopened(self._files, self._source, mark, self._groups)
        except NotContinuable:
            raise
        except BaseException:
            self.kept, self.resumable = mark.frames, True
            raise
        self._mark, self._earlier = mark, mark
        self._last = replace(mark, frames=frames)
        self.before = 0 if self._source.live else frames
        if isinstance(self._source, VideoSource | ImageSource):
            self._source.skip(frames)

    def _write(self, result: Result) -> None:
        result = self._continued(result)
        self._files.write(result)
        self._last = Mark(self._last.frames + 1, result.frame.index + 1, result.frame.time_s)
        self._groups.note(self._last)
        if time.monotonic() - self._committed_at >= COMMIT_S:
            self._commit(self._sure(self._files.overlay.safe if self._files.overlay else 0))
            self._committed_at = time.monotonic()

    def _continued(self, result: Result) -> Result:
        """Of a live source, the frame as one after those of the earlier run."""
        if not self._source.live or not self._earlier.frames:
            return result
        if self._shift_s is None:
            self._shift_s = self._earlier.time_s + 1 / self._source.fps - result.frame.time_s
        time_s = result.frame.time_s + self._shift_s
        index = result.frame.index + self._earlier.next_index
        return replace(result, frame=replace(result.frame, index=index, time_s=round(time_s, 6)))

    def _sure(self, overlay_frames: int) -> Mark:
        """How far the run is for sure; a live source's frames cannot be had again to be drawn."""
        return self._groups.sure(self._last, overlay_frames, again=not self._source.live)

    def _commit(self, mark: Mark, finished: bool = False) -> None:
        """Have the frames up to `mark` on the disk, and then the state that says so where there is to be one."""
        self._files.sync()
        if self._state is not None and not self._files.obstacle:
            self._state.write(self._facts, mark, finished, incomplete=finished and self._incomplete)
        self._mark = mark
        self._groups.forget(mark.overlay_frames)
        self._files.forget_labels(mark.overlay_frames)

    def _end(self) -> None:
        done = self._last.frames
        frames = self._files.close_overlay(done)
        if not frames:
            self._files.lose_overlay()
        if frames or (done and self._files.files):
            self._keep(frames or done)
        else:
            self._leave_nothing()
        if frames < done:
            place = self._wanted.overlay
            raise InputError(f"{place} cannot be written to its end: make room on its disk.")

    def _keep(self, frames: int) -> None:
        """All outputs take their places with so many frames."""
        self._files.publish(frames)
        self.kept = frames
        finished = self._complete and frames == self._last.frames
        if finished or self._files.obstacle:
            self._files.forget_labels()
        mark = self._sure(frames) if frames == self._last.frames else self._groups.at(frames) or self._mark
        if self._state is None:
            return
        if self._files.obstacle or not (mark.frames or finished):
            self._state.remove()
            return
        self._commit(mark, finished)
        self.resumable = not finished
        if finished:
            self._state.remove_pointers()

    def _leave_nothing(self) -> None:
        self._files.discard()
        if self._state is not None:
            self._state.remove()
