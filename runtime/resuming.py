"""Taking back what an earlier run left: all outputs cut to the same frames, the end of the overlay drawn again."""

from collections.abc import Sequence
from contextlib import closing
from itertools import islice

from runtime.gops import Clock
from runtime.growing import Growing, NotContinuable
from runtime.growing_masks import GrowingMasks
from runtime.growing_overlay import GrowingOverlay
from runtime.kept_labels import KeptLabels
from runtime.overlay_groups import OverlayGroups
from runtime.run_files import RunFiles
from runtime.run_state import Mark
from runtime.sources import ImageSource, Source, VideoSource

__all__ = ["reopened"]


def reopened(outputs: RunFiles, source: Source, mark: Mark, groups: OverlayGroups) -> int:
    """Open outputs so that they go on where a run that came to `mark` ended. Gives how many frames each has then.

    Frames after the overlay's last whole group are drawn again, from the source and the labels that it left. Whatever
    goes wrong, what it left lies where it lay. Raises NotContinuable where that is less than `mark` says.
    """
    try:
        frames = _found(outputs.files, mark, mark.frames if source.live else mark.overlay_frames)
        if outputs.overlay is not None:
            outputs.overlay.reopen(Clock(source.fps, mark.overlay_frames, mark.first_s, mark.last_tick))
            groups.begin(mark)
            frames = _drawn_again(outputs.overlay, outputs.labels, source, mark.overlay_frames, frames, groups)
        for file in outputs.files:
            file.reopen(frames)
    except BaseException:
        outputs.give_back()
        raise
    return frames


def _found(files: Sequence[Growing], mark: Mark, needed: int) -> int:
    """The frames that all have, of those that count."""
    found = mark.frames
    for file in files:
        here = file.found()
        if here < needed:
            raise NotContinuable(
                f"{file.place} has the first {here} of the {mark.frames} frames that an interrupted run left: leave "
                "out --resume to begin anew."
            )
        found = min(found, here)
    return found


def _drawn_again(
    overlay: GrowingOverlay,
    labels: GrowingMasks | KeptLabels | None,
    source: Source,
    done: int,
    frames: int,
    groups: OverlayGroups,
) -> int:
    """Draw the frames that the overlay lacks after the first `done`, up to `frames`. Gives how many it has then."""
    if not isinstance(source, VideoSource | ImageSource) or frames <= done or labels is None:
        return done
    with closing(source.again()) as again:
        again.skip(done)
        for frame in islice(again, frames - done):
            image = labels.read(frame.index)
            if image is None:
                break
            overlay.draw(frame, image)
            done += 1
            groups.note(Mark(done, frame.index + 1, frame.time_s))
    return done
