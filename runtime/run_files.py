"""The files and folders of one run, which all get the same frames."""

from runtime.growing import Growing
from runtime.growing_masks import GrowingMasks
from runtime.growing_overlay import GrowingOverlay, OverlayPicture
from runtime.kept_labels import KeptLabels
from runtime.sinks import Result, growing_records
from runtime.sources import ImageSource, Source, VideoSource
from runtime.wanted import Wanted
from splitmerge.labels import LabelClass

__all__ = ["RunFiles"]


class RunFiles:
    """What is `wanted` of the frames of `source`.

    `overlay` is the one that can be cut at groups of pictures alone, None where there is none, and `files` are the
    others. `labels` has the label maps that are needed to draw the end of an overlay again: the masks where there are
    some, or else a few that are `kept`. `obstacle` says why the run cannot be gone on with once it was ended, None
    where it can.
    """

    def __init__(self, wanted: Wanted, source: Source, classes: tuple[LabelClass, ...]) -> None:
        self.files: list[Growing] = []
        self.overlay: GrowingOverlay | None = None
        self.kept: KeptLabels | None = None
        self._live = source.live
        masks = GrowingMasks(wanted.masks, gaps=source.live) if wanted.masks else None
        if masks:
            self.files.append(masks)
        if wanted.colour_masks:
            self.files.append(GrowingMasks(wanted.colour_masks, classes, gaps=source.live))
        if wanted.records:
            self.files.append(growing_records(wanted.records, classes))
        if wanted.overlay:
            picture = OverlayPicture(source.size, classes, wanted.alpha, wanted.legend)
            self.overlay = GrowingOverlay(wanted.overlay, picture, source.fps)
            self.kept = None if masks else KeptLabels(wanted.overlay)
        self.labels: GrowingMasks | KeptLabels | None = masks or self.kept
        self.obstacle = _obstacle(self.overlay, source)

    @property
    def all(self) -> list[Growing | GrowingOverlay]:
        """The outputs. The overlay is the last: it cannot take a frame back that another one has no room for."""
        return [*self.files, *([self.overlay] if self.overlay else [])]

    def begin(self) -> None:
        """Begin anew."""
        for output in self.all:
            output.begin()
        if self.kept is not None:
            self.kept.begin()

    def write(self, result: Result) -> None:
        """Add a frame to each."""
        for file in self.files:
            file.write(result)
        if self.kept is not None and not self._live and not self.obstacle:
            self.kept.write(result.frame.index, result.labels)
        if self.overlay is not None:
            self.overlay.write(result)

    def sync(self) -> None:
        """Have what was written on the disk itself."""
        for output in (*self.all, *([self.kept] if self.kept else [])):
            output.sync()

    def close_overlay(self, frames: int) -> int:
        """End it with so many frames; gives how many there are, fewer where the disk has no room."""
        return frames if self.overlay is None or not frames else self.overlay.close(frames)

    def lose_overlay(self) -> None:
        """Go on without it."""
        if self.overlay is not None:
            self.overlay.discard()
            self.overlay, self.obstacle = None, "the overlay is lost"

    def publish(self, frames: int) -> None:
        """Take the places, with so many frames; the overlay is closed already."""
        for file in self.files:
            file.close(frames)
        for output in self.all:
            output.publish()

    def give_back(self) -> None:
        """What an earlier run left lies where it lay."""
        for output in self.all:
            output.give_back()

    def forget_labels(self, before: int | None = None) -> None:
        """Of the few label maps that are kept, let go of those before this frame, or of all."""
        if self.kept is not None and before is None:
            self.kept.discard()
        elif self.kept is not None and before is not None:
            self.kept.forget(before)

    def discard(self) -> None:
        """Leave nothing."""
        for output in self.all:
            output.discard()
        self.forget_labels()


def _obstacle(overlay: GrowingOverlay | None, source: Source) -> str | None:
    if overlay is not None and not overlay.resumable:
        return (
            f"{overlay.place} is a video by OpenCV, which cannot go on with one; name an .mp4 and install PyAV (pip "
            "install av)"
        )
    if source.live and source.paths:
        return f"{source.name} is played live and waits for nobody; leave out --live or --resume"
    if not source.live and not isinstance(source, VideoSource | ImageSource):
        return f"{source.name} cannot be read from its beginning again; leave it out"
    return None
