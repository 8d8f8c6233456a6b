"""How long things take, what overlaps, and the record of it."""

from collections.abc import Callable

import pytest

from emulator import EmulatedDevice
from emulator.samples import ENTRY, Box, Runner

LONG = 0.2


def test_copies_hide_behind_computing(start: Callable[..., Box]) -> None:
    box = start(work=LONG)
    runner, copies = Runner(box), box.cuda.Stream(1)
    memory, source, target = box.filled(), box.pinned(), box.pinned()
    box.cuda.memset_d8(runner.output, 0, ENTRY)
    box.cuda.Context.synchronize()
    assert runner.start()
    while box.emulator.contents(int(runner.output), 1) == b"\0":
        pass
    box.cuda.memcpy_htod_async(memory, source, copies)
    box.cuda.memcpy_dtoh_async(target, memory, copies)
    copies.synchronize()
    assert not runner.stream.is_done()
    runner.stream.synchronize()
    compute = box.emulator.timeline.of(0, "compute")[0]
    last = {kind: box.emulator.timeline.of(0, kind)[-1] for kind in ("h2d", "d2h")}
    assert compute.overlaps(last["d2h"])
    assert last["h2d"].end <= last["d2h"].start  # in their stream's order
    assert compute.end - compute.start >= LONG


@pytest.mark.parametrize(("parallel", "overlap"), [(1, False), (2, True)])
def test_executions_share_their_device(start: Callable[..., Box], parallel: int, overlap: bool) -> None:
    box = start([EmulatedDevice(parallel=parallel)], work=LONG)
    one = Runner(box)
    two = Runner(box, engine=one.engine)
    assert one.start() and two.start()
    box.cuda.Context.synchronize()
    first, second = box.emulator.timeline.of(0, "compute")
    assert first.overlaps(second) == overlap
    assert first.stream != second.stream


def test_devices_do_not_share_and_have_their_own_speed(start: Callable[..., Box]) -> None:
    box = start([EmulatedDevice(speed=1.0), EmulatedDevice("slow", speed=0.5)], work={"affine": LONG})
    fast = Runner(box)
    with box.use(1):
        slow = Runner(box)
        assert slow.start()
        with box.use(0):
            assert fast.start()
            fast.stream.synchronize()
        assert not slow.stream.is_done()
        slow.stream.synchronize()
        one, two = box.emulator.timeline.of(kind="compute")
        assert one.overlaps(two)
        spans = {span.device: span.end - span.start for span in (one, two)}
        assert spans[0] >= LONG and spans[1] >= 2 * LONG


def test_work_may_be_a_function_of_plan_and_entries(start: Callable[..., Box]) -> None:
    asked = []

    def work(plan: str, entries: int) -> float:
        asked.append((plan, entries))
        return 0.0

    box = start(work=work)
    runner = Runner(box, 3)
    assert runner.start()
    runner.stream.synchronize()
    assert asked == [("affine", 3)]


def test_copies_have_a_bandwidth(start: Callable[..., Box]) -> None:
    box = start([EmulatedDevice(copy_gib_s=ENTRY / 2**30 * 100)])
    stream, memory, source = box.cuda.Stream(), box.cuda.mem_alloc(4 * ENTRY), box.pinned(4)
    box.cuda.memcpy_htod_async(memory, source, stream)
    stream.synchronize()
    (span,) = box.emulator.timeline.of(kind="h2d")
    assert span.end - span.start >= 0.04 and span.label == "memcpy_htod_async"
