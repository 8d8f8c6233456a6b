"""From a checkpoint and images to scores and predictions."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from splitmerge.errors import InputError
from training.checkpoint import Checkpoint
from training.evaluate import normalise, predict
from training.scales import mean_probabilities
from training.scoring.images import ScoredImage
from training.scoring.scores import Scores
from training.scoring.submission import Submission

__all__ = ["evaluate", "labels_at_scales"]

Labels = NDArray[np.uint8]


def evaluate(
    checkpoint: Checkpoint,
    images: Sequence[ScoredImage],
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    device: torch.device | None = None,
    submission: Submission | None = None,
    progress: bool = False,
) -> Scores:
    """Score the network on every labelled image at its own size, and write all predictions where wanted.

    What a submission holds already is read, not computed. The images, which must be Cityscapes' for a submission, are
    computed in bounded memory (`training.grids`). Raises InputError for an image, label or instance file that cannot be
    used, and where labels are there and none of their pixels has a class.
    """
    scores = Scores(checkpoint.classes)
    checkpoint.model.eval().to(device or torch.device("cpu"))
    for image in tqdm(images, unit="image", disable=None if progress else True):
        found = image.read()
        prediction = submission.read(image.file) if submission and image.file else None
        if prediction is not None and prediction.shape != found.image_bgr.shape[:2]:
            raise InputError(f"{image.file} has another size than its prediction there: name another --submission.")
        if prediction is None:
            prediction = labels_at_scales(checkpoint, found.image_bgr, scales, flip)
            if submission and image.file:
                submission.write(image.file, prediction)
        if found.labels is not None:
            scores.add(prediction, found.labels, found.instances)
    if scores.images and not scores.confusion.any():
        raise InputError("None of the data set's pixels has a class (all are ignored): give labels to score against.")
    return scores


@torch.inference_mode()
def labels_at_scales(
    checkpoint: Checkpoint, image_bgr: NDArray[np.uint8], scales: Sequence[float] = (1.0,), flip: bool = False
) -> Labels:
    """Labels uint8 `[H,W]` of an image uint8 `[H,W,3]`, of the mean probabilities where it is more than one pass."""
    device = next(checkpoint.model.parameters()).device
    frame = torch.from_numpy(np.array(image_bgr))[None].to(device)
    x = normalise(frame, checkpoint.mean, checkpoint.std)
    if tuple(scales) == (1.0,) and not flip:
        return predict(checkpoint.model, x)
    labels = mean_probabilities(checkpoint.model, x, scales, flip)[0].argmax(0).to(torch.uint8)
    return np.asarray(labels.cpu().numpy(), np.uint8)
