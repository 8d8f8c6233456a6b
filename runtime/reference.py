"""The PyTorch reference behind the executor's interface: frames uint8 BGR in, labels uint8 out.

The only module of `runtime` that uses PyTorch, and only once a reference is opened.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from splitmerge.errors import InputError, PackageError
from splitmerge.package import Package

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint

__all__ = ["Reference"]


class Reference:
    """A package's checkpoint in PyTorch: evaluation mode, float32, CPU.

    Raises InputError where the package has no checkpoint any more or PyTorch is not installed.
    """

    def __init__(self, package: Package) -> None:
        if not package.reference_path.exists():
            raise InputError(
                f"{package.folder} has no {package.reference_path.name} to compare with (a deployed package may leave "
                "it out): put the checkpoint back, or compare where the package was exported."
            )
        self.checkpoint = _load(package)
        if self.checkpoint.classes != package.manifest.classes:
            raise PackageError(f"{package.reference_path} has other classes than the package: export it again.")

    def segment(self, frame_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Labels uint8 [H,W] of a frame uint8 [H,W,3]."""
        import torch

        # Written out here rather than shared with training or export: a mistake in how those prepare frames shall show.
        rgb = torch.from_numpy(np.ascontiguousarray(frame_bgr[:, :, ::-1])).permute(2, 0, 1)[None].float() / 255
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (self.checkpoint.mean, self.checkpoint.std))
        with torch.inference_mode():
            labels = self.checkpoint.model((rgb - mean) / std).argmax(dim=1)[0]
        return np.asarray(labels.to(torch.uint8).numpy())


def _load(package: Package) -> "Checkpoint":
    try:
        from training.checkpoint import load_checkpoint
    except ImportError as error:
        raise InputError(
            f"Comparing needs PyTorch, and {error.name} is not installed: install splitmerge[train], "
            "or compare on the machine where the package was made."
        ) from None
    return load_checkpoint(package.reference_path)
