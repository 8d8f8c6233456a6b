"""Both rewritings over every network there is, against PyTorch, which runs each in the form that it was made in."""

import numpy as np
import pytest
import torch
from export_samples import MEAN, STD, network, noise, normalised, ort
from rewriting_checks import poolings

from export.dilated_form import dilate_split
from export.graphs import contract_for, graphs_from_whole, whole_from_network
from export.split_form import is_dilated, split_dilated
from training.models import list_models

OTHERS = [
    "deeplabv3-50,output_stride=8",
    "deeplabv3-50,output_stride=32",
    "deeplabv3-block7-50,multi_grid=1.2.4",
    "smp18,windows=2.3.2.1.1",
]
IN_SPLIT_FORM = "smp"
DILATED = ("dilatedfcn", "deeplabv3", "fastfcn", "encnet", "aspp", "pspnet", "ddn", "lddn")
SIZE, LARGE = (70, 100), (134, 140)
"""Which no stride divides; the larger one is for strides above 32."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [*list_models(), *OTHERS])
def test_a_network_split_dilated_and_split_again(name: str) -> None:
    model = network(name, width=2)
    size = SIZE if model.stride <= 32 else LARGE
    contract = contract_for(size, model.stride, MEAN, STD)
    whole = whole_from_network(model, contract, logits=True)
    is_split = bool(poolings(whole))
    assert (is_split, is_dilated(whole.graph)) == (name.startswith(IN_SPLIT_FORM), name.startswith(DILATED))
    frames = noise(1, *size)
    with torch.no_grad():
        expected = model(normalised(frames)).numpy()
    for rewrite in (split_dilated, dilate_split, split_dilated):
        rewrite(whole)
        if rewrite is split_dilated:
            assert not is_dilated(whole.graph)
        else:
            assert not poolings(whole)
        found = ort(graphs_from_whole(whole, contract, 0).parts["model"], {"frames": frames})
        np.testing.assert_allclose(found["logits"], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
