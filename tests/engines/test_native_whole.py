"""Natively compiled networks against PyTorch in float64: steps of all kinds, joined values, threads."""

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
from native_networks import MadeNetwork, check_network, exact_values, labels_of, network_engine, values_of

import engines.native.whole.binding
import engines.native.whole.convolutions
from engines.native.jit import lanes_here
from engines.native.whole import cost
from engines.native.whole.network import Convolution, Network
from engines.native.whole.plan import NetworkPlan
from splitmerge.errors import EngineError

LANES = [lanes for lanes in (4, 8, 16) if lanes <= lanes_here()]
LOST = 2e-5


def check_last(made: MadeNetwork, folder: Path, lanes: int | None = None, threads: int = 2) -> NetworkPlan:
    """The last value, number for number, and the labels."""
    network = made.network
    context = network_engine(network, folder, lanes, threads).create_context()
    frames = made.frames(2)
    check_network(context, network, frames)
    expected = exact_values(network, frames[-1])[network.logits].numpy()
    found = values_of(context, network, [network.logits])[network.logits]
    np.testing.assert_allclose(found, expected, rtol=0, atol=LOST * np.abs(expected).max())
    context.close()
    return context._plan


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize(
    ("into", "out", "size", "taps", "stride", "rate", "before", "behind"),
    [
        (16, 16, (6, 9), (1, 1), (1, 1), (1, 1), None, None),
        (20, 130, (7, 9), (1, 1), (2, 3), (1, 1), None, None),
        (8, 24, (11, 14), (3, 3), (2, 2), (1, 1), None, None),
        (16, 32, (12, 13), (3, 3), (2, 1), (1, 1), (0, 1), (1, 0)),
        (5, 7, (9, 9), (7, 7), (2, 2), (1, 1), None, None),
        (16, 16, (9, 10), (3, 3), (1, 1), (4, 5), None, None),
        (16, 16, (5, 6), (3, 3), (1, 1), (12, 18), None, None),  # but for one, taps are outside
        (16, 16, (10, 7), (3, 5), (2, 3), (3, 2), (4, 1), (2, 6)),
        (16, 48, (9, 8), (2, 4), (1, 1), (1, 1), (0, 0), (0, 0)),
        (3, 16, (6, 6), (1, 1), (1, 1), (1, 1), (3, 2), (1, 5)),  # pixels with no tap inside
        (16, 16, (1, 40), (1, 3), (1, 4), (1, 2), None, None),
    ],
)
def test_a_convolution_of_any_kind(
    into: int,
    out: int,
    size: tuple[int, int],
    taps: tuple[int, int],
    stride: tuple[int, int],
    rate: tuple[int, int],
    before: tuple[int, int] | None,
    behind: tuple[int, int] | None,
    lanes: int,
    tmp_path: Path,
) -> None:
    """Of the frames, and of a map."""
    made = MadeNetwork(size)
    made.convolve(into, taps, relu=False)
    made.convolve(into, (1, 1), relu=False)
    made.convolve(out, taps, stride, rate, before, behind)
    made.convolve(4, (1, 1), relu=False)
    check_last(made, tmp_path, lanes)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("tile", [None, *cost.TILES])
@pytest.mark.parametrize(
    ("size", "rate"), [((13, 19), (1, 1)), ((13, 19), (5, 3)), ((4, 30), (6, 8)), ((1, 1), (2, 2))]
)
def test_tiles_of_taps_any_number_of_pixels_apart(
    size: tuple[int, int],
    rate: tuple[int, int],
    tile: tuple[int, int] | None,
    lanes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With sums and without, in one block of tiles and in several."""
    monkeypatch.setattr("engines.native.whole.plan.fastest_tile", lambda *_: tile)
    monkeypatch.setattr(engines.native.whole.convolutions, "BLOCK", 5)
    made = MadeNetwork(size)
    kept = made.convolve(24, (1, 1))
    made.convolve(20, rate=rate)
    made.convolve(24, rate=rate, added=kept)
    made.convolve(6, rate=rate, relu=False)
    plan = check_last(made, tmp_path, lanes)
    assert [step.tile for step in plan.steps] == [None, *[tile] * 3]  # frames are no vectors


@pytest.mark.parametrize("lanes", LANES)
def test_pixels_are_resampled_pooled_and_scaled(lanes: int, tmp_path: Path) -> None:
    made = MadeNetwork((12, 17))
    kept = made.convolve(20, (1, 1))
    made.largest((3, 3), (2, 2), (1, 1))
    made.scale()
    made.resample(5, 7, relu=True)
    made.scale(relu=False)
    made.largest((2, 3), (1, 2))
    made.resample(12, 17, added=kept)
    made.convolve(5, (1, 1), relu=False)
    check_last(made, tmp_path, lanes)


@pytest.mark.parametrize("lanes", LANES)
def test_joined_values(lanes: int, tmp_path: Path) -> None:
    """As dense blocks join them, with channels that fill no vector; joined values of joined ones; one value twice."""
    made = MadeNetwork((9, 10))
    parts = [made.convolve(12, (1, 1))]
    for _ in range(3):
        made.scale(of=made.join(*parts) if len(parts) > 1 else parts[0])
        made.convolve(20, (1, 1))
        parts.append(made.convolve(5, relu=False))
    dense = made.join(*parts)
    other = made.convolve(7, (1, 1), of=made.join(parts[2], parts[1]))
    twice = made.join(dense, other, dense)
    made.resample(9, 10, of=twice)
    kept = made.convolve(8, (3, 3), of=twice)
    made.convolve(8, (1, 1), of=made.join(other, kept, parts[0], parts[0]), added=kept)
    made.convolve(4, (1, 1), relu=False)
    check_last(made, tmp_path, lanes)


def test_a_copy_of_what_has_a_copy_in_it(tmp_path: Path) -> None:
    """It is made after that, and not only after the value that both were copied from."""
    made = MadeNetwork((5, 6))
    y, x, big = made.convolve(16, (1, 1)), made.convolve(16, (1, 1)), made.convolve(128, (1, 1))
    wide = made.join(x, big)
    doubled = made.join(y, x)
    twice = made.join(doubled, doubled)
    kept = made.convolve(8, (1, 1), of=wide)
    made.convolve(8, (1, 1), of=twice, added=kept)
    made.convolve(4, (1, 1), relu=False)
    check_last(made, tmp_path)


@pytest.mark.parametrize("seed", range(12))
def test_values_joined_at_random(seed: int, tmp_path: Path) -> None:
    """Any values of one size, joined ones among them, as often as it comes."""
    made = MadeNetwork((5, 6), seed)
    values = [made.convolve(int(out), (1, 1)) for out in made.random.integers(1, 40, 3)]
    for _ in range(8):
        chosen = [str(one) for one in made.random.choice(values, made.random.integers(2, 4))]
        values.append(made.join(*chosen))
        if made.random.random() < 0.5:
            made.scale()
        values.append(made.convolve(int(made.random.integers(1, 40)), (1, 1)))
    made.convolve(4, (1, 1), of=made.join(*values), relu=False)
    check_last(made, tmp_path, threads=int(made.random.integers(1, 4)))


def test_frames_that_are_smaller_than_their_map(tmp_path: Path) -> None:
    """What is beyond them stays zero, whatever other steps do meanwhile."""
    made = MadeNetwork((13, 10), padded=(16, 12))
    made.convolve(16, (5, 5))
    for _ in range(3):
        made.convolve(16)
    made.convolve(4, (1, 1), relu=False)
    check_last(made, tmp_path)


def test_values_that_cannot_lie_as_they_would_have_to(tmp_path: Path) -> None:
    made = MadeNetwork((6, 6))
    one, other = made.convolve(5, (1, 1)), made.convolve(6, (1, 1))
    joined = made.join(one, other)
    made.convolve(11, (1, 1), added=joined)
    with pytest.raises(EngineError, match="adds a value whose channels lie otherwise"):
        network_engine(made.network, tmp_path)
    made = MadeNetwork((6, 6))
    made.join("first", made.convolve(5, (1, 1)))
    made.convolve(4)
    with pytest.raises(EngineError, match="joins the frames with others"):
        network_engine(made.network, tmp_path)
    made = MadeNetwork((6, 6))
    made.scale()
    made.convolve(4)
    with pytest.raises(EngineError, match="reads the frames and is no convolution"):
        network_engine(made.network, tmp_path)
    made = MadeNetwork((6, 6))
    made.convolve(3, (1, 1), added="first")
    with pytest.raises(EngineError, match="adds a value whose channels lie otherwise"):
        network_engine(made.network, tmp_path)
    made = MadeNetwork((6, 6))
    made.convolve(257, (1, 1), relu=False)
    with pytest.raises(EngineError, match="257 classes are more than labels of a byte can tell"):
        network_engine(made.network, tmp_path)
    made = MadeNetwork((6, 6))
    made.join(made.convolve(5), made.convolve(4))
    with pytest.raises(EngineError, match="are of no convolution"):
        network_engine(made.network, tmp_path)


def convolution_of(made: MadeNetwork) -> Convolution:
    """The first step, to be altered."""
    step = made.steps[0]
    assert isinstance(step, Convolution)
    return step


def residual(size: tuple[int, int] = (24, 40)) -> tuple[Network, MadeNetwork]:
    """A small encoder and decoder."""
    made = MadeNetwork(size, seed=3)
    made.convolve(16, (7, 7), (2, 2))
    first = made.largest((3, 3), (2, 2), (1, 1))
    made.convolve(16)
    first = made.convolve(16, added=first)
    made.convolve(32, stride=(2, 2))
    shortcut = made.convolve(32, (1, 1), (2, 2), of=first, relu=False)
    made.convolve(32, of="value4", added=shortcut)
    made.convolve(32, rate=(2, 2))
    made.convolve(7, (1, 1), relu=False)
    low = made.convolve(7, (1, 1), relu=False, of=first)
    made.resample(made.sizes[low].height, made.sizes[low].width, added=low, of="value8")
    return made.network, made


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_any_number_of_threads(threads: int, tmp_path: Path) -> None:
    """Bit for bit, frame after frame, more threads than cores or fewer."""
    network, made = residual()
    frames = made.frames(3)
    check_network(network_engine(network, tmp_path).create_context(), network, frames)
    expected = labels_of(network_engine(network, tmp_path, threads=1).create_context(), frames)
    context = network_engine(network, tmp_path, threads=threads).create_context()
    for _ in range(20):
        np.testing.assert_array_equal(labels_of(context, frames), expected)
    context.close()


@pytest.mark.parametrize(("name", "value"), [("_PANEL_BYTES", 1), ("_PANEL_BYTES", 5000), ("_LEFT_BYTES", 1)])
def test_sums_in_parts_change_no_label(name: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few weights at a time, and few pixels."""
    monkeypatch.setattr(engines.native.whole.convolutions, name, value)
    monkeypatch.setattr(engines.native.whole.binding, "ROWS", 3)
    monkeypatch.setattr("engines.native.whole.plan.fastest_tile", lambda *_: None)
    network, made = residual()
    check_network(network_engine(network, tmp_path).create_context(), network, made.frames())


def test_threads_end_with_their_context(tmp_path: Path) -> None:
    network, made = residual()
    before = set(threading.enumerate())
    engine = network_engine(network, tmp_path, threads=5)
    context = engine.create_context()
    other = engine.create_context()
    labels_of(context, made.frames())
    own = set(threading.enumerate()) - before
    assert len(own) == 8
    context.close()
    context.close()
    del other  # without being closed
    for thread in own:
        thread.join(5)
        assert not thread.is_alive()


def test_contexts_at_the_same_time(tmp_path: Path) -> None:
    network, made = residual()
    engine = network_engine(network, tmp_path, threads=2)
    frames = made.frames(6)
    expected = labels_of(engine.create_context(), frames)
    found: dict[int, bool] = {}

    def work(index: int) -> None:
        context = engine.create_context()
        for _ in range(10):
            found[index] = found.get(index, True) and np.array_equal(labels_of(context, frames), expected)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert found == {0: True, 1: True, 2: True}


@pytest.mark.parametrize("threads", [1, 3])
def test_a_run_that_was_not_finished_is_forgotten(threads: int, tmp_path: Path) -> None:
    network, made = residual()
    context = network_engine(network, tmp_path, threads=threads).create_context()
    frames = made.frames()
    expected = labels_of(context, frames)
    for steps in range(4):
        unfinished = context.bound._program.run_one_by_one()
        for _ in range(steps):
            next(unfinished)
        del unfinished
        context.bound._program._begin()
        context.bound.labels[:] = 255
        np.testing.assert_array_equal(labels_of(context, frames), expected)


def test_steps_are_timed(tmp_path: Path) -> None:
    network, made = residual()
    context = network_engine(network, tmp_path).create_context()
    frame = made.frames()
    expected = labels_of(context, frame)
    context.bound.labels[:] = 255
    taken = context.bound.run_timed()
    np.testing.assert_array_equal(context.bound.labels[None], expected)
    assert list(taken) == ["frames", *(step.result for step in network.steps), "largest logit"]
    assert all(seconds > 0 for seconds in taken.values())


def test_labels_are_the_first_of_equals_in_any_vector(tmp_path: Path) -> None:
    made = MadeNetwork((5, 6))
    made.convolve(40, (1, 1), relu=False)
    step = convolution_of(made)
    step.weights[:] = 0
    for equal in ([3, 4], [17, 2], [39, 38], [0, 39], [33]):
        step.bias[:] = -1
        step.bias[equal] = 2
        labels = labels_of(network_engine(made.network, tmp_path).create_context(), made.frames())
        assert (labels == min(equal)).all()
    step.bias[:] = np.nan
    assert (labels_of(network_engine(made.network, tmp_path).create_context(), made.frames()) == 0).all()


def test_nan_does_not_vanish(tmp_path: Path) -> None:
    """Neither by ReLU nor by the largest of some pixels, and its neighbours are not touched."""
    made = MadeNetwork((6, 6))
    made.convolve(16, (1, 1))
    made.largest((2, 2), (2, 2))
    made.convolve(3, (1, 1), relu=False)
    first = convolution_of(made)
    first.weights[:] = 0
    first.weights[5, :2, 0, 0] = 1, -1
    mean, factors = np.array([[120, 110, 100], [3e38, 3e38, 1]], np.float32)
    network = dataclasses.replace(made.network, mean=mean, factors=factors)
    frame = np.broadcast_to(mean.astype(np.uint8), (1, 6, 6, 3)).copy()
    frame[0, 2, 3] = 220, 210, 100  # infinite, less infinite
    context = network_engine(network, tmp_path).create_context()
    labels_of(context, frame)
    found = np.isnan(values_of(context, network, [network.logits])[network.logits])
    assert found[:, 1, 1].all() and found.sum() == 3


@pytest.mark.parametrize("shape", [(1, 24, 40), (1, 40, 24, 3), (1, 24, 40, 4)])
def test_frames_of_another_shape_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    context = network_engine(residual()[0], tmp_path).create_context()
    with pytest.raises(ValueError, match="A network was given uint8"):
        labels_of(context, np.zeros(shape, np.uint8))


def test_values_share_memory_and_none_too_early(tmp_path: Path) -> None:
    """A chain of many convolutions has as many maps as are alive at once; a value that is added late stays."""
    made = MadeNetwork((8, 8))
    early = made.convolve(16)
    for _ in range(6):
        made.convolve(16)
    made.convolve(16, added=early)
    made.convolve(3, (1, 1), relu=False)
    network = made.network
    context = network_engine(network, tmp_path).create_context()
    check_network(context, network, made.frames())
    addresses = {value.ctypes.data for value in context.bound.maps}
    assert len(context.bound.maps) == 10 and len(addresses) == 3
