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
from itertools import islice
from typing import Any

from runtime.gops import Clock, group_length
from runtime.growing import Growing, GrowingMasks
from runtime.growing_overlay import GrowingOverlay, OverlayPicture
from runtime.kept_labels import KeptLabels
from runtime.run_state import Mark, RunState, source_facts
from runtime.sinks import Result, Sink, growing_records
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
        self._overlay: GrowingOverlay | None = None
        self._files = self._growing(classes)
        self._obstacle = self._what_forbids_resuming()
        if resume and self._obstacle:
            raise InputError(f"--resume cannot be: {self._obstacle}.")
        self._facts = {"source": source_facts(source), **facts, **wanted.facts}
        self._group, self._groups = group_length(source.fps), dict[int, Mark]()
        self._mark = self._last = self._earlier = Mark()
        self._complete, self._committed_at = False, time.monotonic()
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

    def complete(self) -> None:
        """The source has come to its end: after the block nothing is left to be done."""
        self._complete = True

    def close(self) -> None:
        """Let other runs have these outputs."""
        if self._state is not None:
            self._state.close()

    def _growing(self, classes: tuple[LabelClass, ...]) -> list[Growing]:
        wanted, files = self._wanted, list[Growing]()
        masks = GrowingMasks(wanted.masks) if wanted.masks else None
        self._labels: GrowingMasks | KeptLabels | None = masks
        if masks:
            files.append(masks)
        if wanted.colour_masks:
            files.append(GrowingMasks(wanted.colour_masks, classes))
        if wanted.records:
            files.append(growing_records(wanted.records, classes))
        if wanted.overlay:
            picture = OverlayPicture(self._source.size, classes, wanted.alpha, wanted.legend)
            self._overlay = GrowingOverlay(wanted.overlay, picture, self._source.fps)
            self._labels = self._labels or KeptLabels(wanted.overlay)
        return files

    def _what_forbids_resuming(self) -> str | None:
        name = self._source.name
        if self._overlay is not None and not self._overlay.resumable:
            return (
                f"{self._overlay.place} is a video by OpenCV, which cannot go on with one; name an .mp4 and install "
                "PyAV (pip install av)"
            )
        if self._source.live and self._source.paths:
            return f"{name} is played live and waits for nobody; leave out --live or --resume"
        if not self._source.live and not isinstance(self._source, VideoSource | ImageSource):
            return f"{name} cannot be read from its beginning again; leave it out"
        return None

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
            for output in self._outputs:
                output.begin()
            if isinstance(self._labels, KeptLabels):
                self._labels.begin()
            if self._state is not None and not self._obstacle:
                self._commit(Mark())
                self._state.write_pointers()
        except BaseException:
            self._leave_nothing()
            raise

    def _go_on(self, mark: Mark) -> None:
        frames = min((output.found() for output in self._files), default=mark.frames)
        frames = min(frames, mark.frames)
        if frames < (mark.frames if self._source.live else mark.overlay_frames):
            raise InputError(
                f"{next(iter(self._wanted.places.values()))} was to have {mark.frames} frames of an interrupted run "
                f"and {frames} are there in all outputs: leave out --resume to begin anew."
            )
        if self._overlay is not None:
            frames = self._drawn_again(self._overlay, mark, frames)
        for output in self._files:
            output.reopen(frames)
        self._mark, self._earlier = mark, mark
        self._last = replace(mark, frames=frames)
        self.before = 0 if self._source.live else frames
        if isinstance(self._source, VideoSource | ImageSource):
            self._source.skip(frames)

    def _drawn_again(self, overlay: GrowingOverlay, mark: Mark, frames: int) -> int:
        """Open the overlay and draw the frames that it lacks, up to so many. Gives how many it has then."""
        done = mark.overlay_frames
        overlay.reopen(Clock(self._source.fps, done, mark.first_s, mark.last_tick))
        self._groups[done] = mark
        if isinstance(self._source, VideoSource | ImageSource) and frames > done and self._labels is not None:
            again = self._source.again()
            again.skip(done)
            for frame in islice(again, frames - done):
                labels = self._labels.read(frame.index)
                if labels is None:
                    break
                overlay.draw(frame, labels)
                done += 1
                self._note_group(Mark(done, frame.index + 1, frame.time_s))
            again.close()
        return done

    def _write(self, result: Result) -> None:
        result = self._continued(result)
        frame = result.frame
        for output in self._files:
            output.write(result)
        if isinstance(self._labels, KeptLabels) and not self._source.live and not self._obstacle:
            self._labels.write(frame.index, result.labels)
        if self._overlay is not None:  # last, because it cannot take a frame back that another output has not
            self._overlay.write(result)
        self._last = Mark(self._last.frames + 1, frame.index + 1, frame.time_s)
        self._note_group(self._last)
        if time.monotonic() - self._committed_at >= COMMIT_S:
            self._commit(self._sure(self._overlay.safe if self._overlay else 0))
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

    def _note_group(self, mark: Mark) -> None:
        """Where the overlay's next group begins, remember its clock."""
        if self._overlay is not None and mark.frames % self._group == 0:
            clock = self._overlay.clock
            self._groups[mark.frames] = replace(
                mark, overlay_frames=mark.frames, first_s=clock.first_s, last_tick=clock.last
            )

    def _sure(self, overlay_frames: int) -> Mark:
        """How far the run is for sure when the overlay's file has so many frames."""
        if self._overlay is None:
            return self._last
        group = self._groups.get(overlay_frames // self._group * self._group, Mark())
        if self._source.live:  # its frames cannot be had again to be drawn
            return group
        return replace(
            self._last, overlay_frames=group.overlay_frames, first_s=group.first_s, last_tick=group.last_tick
        )

    def _commit(self, mark: Mark, finished: bool = False) -> None:
        """Have the frames up to `mark` on the disk, and then the state that says so."""
        if self._state is None or self._obstacle:
            return
        for output in (*self._outputs, self._labels):
            if output is not None:
                output.sync()
        self._state.write(self._facts, mark, finished)
        self._mark = mark
        self._groups = {frames: group for frames, group in self._groups.items() if frames >= mark.overlay_frames}
        if isinstance(self._labels, KeptLabels):
            self._labels.forget(mark.overlay_frames)

    @property
    def _outputs(self) -> "list[Growing | GrowingOverlay]":
        return [*self._files, *([self._overlay] if self._overlay else [])]

    def _end(self) -> None:
        done = frames = self._last.frames
        if self._overlay is not None and done:
            frames = self._overlay.close(done)
        if not frames and not (self._files and done):
            self._leave_nothing()
        else:
            self._keep(frames or done, overlay_lost=frames == 0)
        if frames < done:
            place = self._wanted.overlay
            raise InputError(f"{place} cannot be written to its end: make room on its disk.")

    def _keep(self, frames: int, overlay_lost: bool) -> None:
        """All outputs take their places with so many frames."""
        if overlay_lost and self._overlay is not None:
            self._overlay.discard()
            self._overlay = None
            self._obstacle = "the overlay is lost"
        for file in self._files:
            file.close(frames)
        for output in self._outputs:
            output.publish()
        self.kept = frames
        finished = self._complete and frames == self._last.frames
        if finished and isinstance(self._labels, KeptLabels):
            self._labels.discard()
        mark = self._sure(frames) if frames == self._last.frames else self._groups.get(frames, self._mark)
        if self._state is None:
            return
        if self._obstacle or not (mark.frames or finished):
            self._state.remove()
            return
        self._commit(mark, finished)
        self.resumable = not finished
        if finished:
            self._state.remove_pointers()

    def _leave_nothing(self) -> None:
        for output in self._outputs:
            output.discard()
        if isinstance(self._labels, KeptLabels):
            self._labels.discard()
        if self._state is not None:
            self._state.remove()
