"""The PyTorch reference behind the executor's interface: frames uint8 BGR in, labels uint8 out.

With `runtime.scales` the only module of `runtime` that uses PyTorch, and only once a reference is opened.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from splitmerge.errors import InputError, PackageError
from splitmerge.package import Package

if TYPE_CHECKING:
    from torch import Tensor

    from training.checkpoint import Checkpoint

__all__ = ["Reference"]


class Reference:
    """A package's checkpoint in PyTorch: evaluation mode, float32, CPU.

    A Split-Merge Pooling network of large feature maps is computed grid by grid (`training.grids`): SMP-18 of 64
    channels at 1024x2048 so takes 0.4 GiB, where one go takes tens of GiB.

    `own` names the user's own network, where it is one (`training.own`).

    Raises InputError where the package has no checkpoint any more or PyTorch is not installed.
    """

    def __init__(self, package: Package, own: str | None = None) -> None:
        if not package.reference_path.exists():
            raise InputError(
                f"{package.folder} has no {package.reference_path.name} to compare with (a deployed package may leave "
                "it out): put the checkpoint back, or compare where the package was exported."
            )
        self.checkpoint = _load(package, own)
        if self.checkpoint.classes != package.manifest.classes:
            raise PackageError(f"{package.reference_path} has other classes than the package: export it again.")

    def segment(self, frame_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Labels uint8 [H,W] of a frame uint8 [H,W,3]."""
        import torch

        from training.grids import labels_of

        with torch.inference_mode():
            return np.asarray(labels_of(self.checkpoint.model, self.normalised(frame_bgr))[0].numpy(), np.uint8)

    def normalised(self, frame_bgr: NDArray[np.uint8]) -> "Tensor":
        """The network's input `[1,3,H,W]` for a frame uint8 [H,W,3]."""
        import torch

        # Written out here rather than shared with training or export: a mistake in how those prepare frames shall show.
        rgb = torch.from_numpy(np.ascontiguousarray(frame_bgr[:, :, ::-1])).permute(2, 0, 1)[None].float() / 255
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (self.checkpoint.mean, self.checkpoint.std))
        return (rgb - mean) / std


def _load(package: Package, own: str | None) -> "Checkpoint":
    try:
        from training.checkpoint import load_checkpoint
    except ImportError as error:
        raise InputError(
            f"Comparing needs PyTorch, and {error.name} is not installed: pip install '.[train]' in the "
            "checkout, or compare on the machine where the package was made."
        ) from None
    return load_checkpoint(package.reference_path, own)
