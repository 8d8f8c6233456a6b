"""One export of SMP-18, shared by the tests that only look at it."""

import pytest
from export_samples import MEAN, STD, network

from export.graphs import Graphs, contract_for, graphs_from_network
from training.networks.base import SegmentationNet


@pytest.fixture(scope="session")
def smp18() -> SegmentationNet:
    return network("smp18")


@pytest.fixture(scope="session")
def smp18_graphs(smp18: SegmentationNet) -> Graphs:
    return graphs_from_network(smp18, contract_for((64, 96), 32, MEAN, STD), cut_level=2)
