"""Ladders: auxiliary losses against NumPy, the pyramid's grids, what each design is made of."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import with_statistics
from numpy.typing import NDArray

from splitmerge.errors import InputError
from training.models import create_model, list_models
from training.networks.auxiliary import soft_cross_entropy, soft_targets
from training.networks.ladder import Ladder
from training.networks.pyramid import Pyramid

IGNORED = 255


def targets_by_counting(labels: NDArray[np.int64], rows: int, columns: int, classes: int) -> NDArray[np.float64]:
    """Eq. 2 window by window: `[N,H,W] -> [N,classes,rows,columns]`."""
    n, height, width = labels.shape
    high, wide = height // rows, width // columns
    out = np.zeros((n, classes, rows, columns))
    for image, row, column in np.ndindex(n, rows, columns):
        window = labels[image, row * high : (row + 1) * high, column * wide : (column + 1) * wide]
        for value in window.ravel():
            if value != IGNORED:
                out[image, value, row, column] += 1 / (high * wide)
    return out


def cross_entropy_by_hand(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    """Eq. 1; windows with ignored pixels weigh less."""
    shifted = logits - logits.max(1, keepdims=True)
    log_share = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return float(-(targets * log_share).sum() / targets.sum())


def some_labels(ignored: bool) -> NDArray[np.int64]:
    random = np.random.default_rng(4)
    labels = random.integers(6, size=(2, 64, 96))
    if ignored:
        labels[random.random(labels.shape) < 0.2] = IGNORED
        labels[0, :32] = IGNORED
    return labels


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("window", [4, 16])
def test_soft_targets_count_labels(window: int, ignored: bool) -> None:
    labels = some_labels(ignored)
    found = soft_targets(torch.from_numpy(labels), window, 6)
    np.testing.assert_allclose(found, targets_by_counting(labels, 64 // window, 96 // window, 6), atol=1e-6)
    if not ignored:
        np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("ignored", [False, True])
def test_the_loss_is_the_papers_sum(ignored: bool) -> None:
    """0.6 of the final cross entropy, 0.4 of the mean over the pyramid's grids and the ladder's maps."""
    torch.manual_seed(1)
    model = create_model("ldn121-32-4", 6, 4).double().train()
    assert isinstance(model, Ladder)
    labels, x = some_labels(ignored), torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        logits, coarse = model.head.all_logits(model.stages(x))
        loss = float(model.loss(x, torch.from_numpy(labels)))
    # grids of 8, 4, 2 and 1 rows are no finer than the 2x3 maps; then the ladder at 32, 16 and 8
    assert [tuple(maps.shape[2:]) for maps in coarse] == [(2, 3), (2, 3), (2, 3), (1, 2), (2, 3), (4, 6), (8, 12)]
    auxiliary = []
    for maps in coarse:
        targets = targets_by_counting(labels, maps.shape[2], maps.shape[3], 6)
        auxiliary.append(cross_entropy_by_hand(maps.numpy(), targets))
    full = F.interpolate(logits, size=(64, 96), mode="bilinear", align_corners=False).numpy()
    final = cross_entropy_by_hand(full, targets_by_counting(labels, 64, 96, 6))
    assert loss == pytest.approx(0.6 * final + 0.4 * np.mean(auxiliary), rel=1e-6)


def test_a_soft_loss_of_nothing_is_nothing() -> None:
    targets = soft_targets(torch.full((1, 8, 8), IGNORED), 4, 6)
    assert float(soft_cross_entropy(torch.randn(1, 6, 2, 2), targets)) == 0


def test_without_auxiliary_heads_the_loss_is_the_final_one() -> None:
    torch.manual_seed(1)
    model = create_model("ldn121-32-4,auxiliary=no", 6, 4).double().train()
    labels, x = some_labels(True), torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        found = float(model.loss(x, torch.from_numpy(labels)))
        logits = model(x).numpy()
    assert found == pytest.approx(cross_entropy_by_hand(logits, targets_by_counting(labels, 64, 96, 6)), rel=1e-6)
    assert not any("auxiliary" in name for name in model.state_dict())


def test_labels_are_padded_as_the_image_is() -> None:
    """A crop that 64 does not divide has the loss of the padded crop whose padding is ignored."""
    torch.manual_seed(1)
    model = create_model("ldn121-64-4", 6, 4).double().train()
    labels, x = torch.from_numpy(some_labels(True))[:, :, :70], torch.randn(2, 3, 64, 70, dtype=torch.float64)
    with torch.no_grad():
        padded = model.loss(F.pad(x, (0, 58)), F.pad(labels, (0, 58), value=IGNORED))
        assert float(model.loss(x, labels)) == pytest.approx(float(padded), rel=1e-9)


@pytest.mark.parametrize(
    ("size", "square", "grids"),
    [
        ((16, 32), True, [(8, 16), (4, 8), (2, 4), (1, 2)]),
        ((16, 32), False, [(8, 8), (4, 4), (2, 2), (1, 1)]),
        ((5, 7), True, [(5, 7), (4, 6), (2, 3), (1, 1)]),
        ((16, 6), True, [(8, 3), (4, 2), (2, 1), (1, 1)]),
        ((1, 2), False, [(1, 1), (1, 1), (1, 1), (1, 1)]),
    ],
)
def test_cells_are_square(size: tuple[int, int], square: bool, grids: list[tuple[int, int]]) -> None:
    """Section 3.2: the number of columns follows the image's shape."""
    pyramid = with_statistics(Pyramid(4, 3, 2, 5, (8, 4, 2, 1), square))
    with torch.no_grad():
        out, pooled = pyramid(torch.randn(2, 4, *size))
    assert out.shape == (2, 5, *size)
    assert [tuple(level.shape) for level in pooled] == [(2, 2, *grid) for grid in grids]


def test_one_crop_is_too_little_to_learn_from() -> None:
    with pytest.raises(InputError, match="--batch 2"):
        create_model("ldn121-64-4", 6, 4).train().loss(torch.randn(1, 3, 64, 64), torch.zeros(1, 64, 64).long())


LADDERS = [name for name in list_models() if name.startswith(("l", "dn", "ddn", "dpn"))]


@pytest.mark.parametrize("name", LADDERS)
def test_names_say_the_resolutions(name: str) -> None:
    """d->u: the deepest maps are d times smaller than the image, the logits u times."""
    _, deepest, *rest = name.split("-")
    down, up = int(deepest), int(rest[0] if rest else deepest)
    with torch.device("meta"):
        model, x = create_model(name, 7, 8).eval(), torch.empty(1, 3, 256, 384)
    assert isinstance(model, Ladder) and model.stride == down
    with torch.no_grad():
        stages = model.stages(x)
        assert stages[-1].shape[2:] == (256 // down, 384 // down)
        assert model.head(stages).shape == (1, 7, 256 // up, 384 // up)


def test_dilated_densenets_compute_at_more_pixels_what_the_strided_one_does() -> None:
    """Pixels of the dilated network's maps are the strided network's where average pooling has nothing to average."""
    torch.manual_seed(0)
    dilated = with_statistics(create_model("ddn121-8", 5, 4)).double()
    strided = create_model("dn121-32", 5, 4).double().eval()
    strided.load_state_dict(dilated.state_dict())
    x = torch.ones(1, 3, 1, 1, dtype=torch.float64).expand(1, 3, 1024, 1024)  # far from the border all is constant
    with torch.no_grad():
        fine, coarse = dilated.stages(x)[-1], strided.stages(x)[-1]
    torch.testing.assert_close(fine[0, :, 64, 64], coarse[0, :, 16, 16], rtol=1e-9, atol=1e-9)
