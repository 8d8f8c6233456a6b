"""Fair turns, counted under contention. Every turn lasts until all others that can ask have asked, so that it is the
rule that decides who is next, not the machine's pace.
"""

import gc
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from small_package import make_package

import runtime.stream
from engines.build import build_engines
from runtime.executor import Executor
from runtime.memory import Memories
from runtime.shards import FrameShards
from runtime.share import Share
from runtime.turns import REMEMBERED, Turns
from splitmerge.errors import EngineError
from splitmerge.package import Package

SECONDS = 20.0  # until a test that hangs fails


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.0005)


def contend(turns: Turns[Any], callers: dict[str, int], rounds: int) -> list[str]:
    """The sources in the order of their turns, each source asking from so many threads all the time. One turn ends only
    when everybody else waits or has a turn, too.
    """
    order: list[str] = []
    everybody = sum(callers.values())
    end = threading.Event()

    def ask(source: str) -> None:
        while not end.is_set():
            with turns.turn(source):
                until(lambda: end.is_set() or len(turns._waiting) + len(turns._at_work) == everybody)
                order.append(source)
                if len(order) >= rounds:
                    end.set()

    threads = [threading.Thread(target=ask, args=(name,)) for name, count in callers.items() for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    return order[:rounds]


def unfair(order: list[str], sources: int) -> list[list[str]]:
    """Runs of as many turns as there are sources in which not every source has one; the first few turns, before all had
    asked, do not count.
    """
    begun = order[sources:]
    runs = [begun[i : i + sources] for i in range(len(begun) - sources + 1)]
    return [run for run in runs if len(set(run)) < sources]


CALLERS = {"file": 4, "camera": 1, "folder": 2}


def test_sources_take_turns_strictly_however_many_threads_each_has() -> None:
    order = contend(Turns(["context"]), CALLERS, 120)
    assert not unfair(order, 3)
    assert max(Counter(order).values()) - min(Counter(order).values()) <= 2


def first_come(turns: Turns[Any]) -> Any:
    return min(turns._waiting, key=lambda ticket: ticket.number)


def last_come(turns: Turns[Any]) -> Any:
    return max(turns._waiting, key=lambda ticket: ticket.number)


def by_name(turns: Turns[Any]) -> Any:
    return max(turns._waiting, key=lambda ticket: (ticket.source, -ticket.number))


@pytest.mark.parametrize("mutation", [first_come, last_come, by_name])
def test_an_unfair_rule_is_noticed(mutation: Callable[[Turns[Any]], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Turns, "_next", mutation)
    assert unfair(contend(Turns(["context"]), CALLERS, 60), 3)


def test_a_camera_waits_for_one_frame_of_each_file_at_most() -> None:
    """It asks now and then; the files always. Between its asking and its turn each file begins at most one frame."""
    turns = Turns(["context"])
    order: list[str] = []
    end = threading.Event()

    def file(name: str) -> None:
        while not end.is_set():
            with turns.turn(name):
                until(lambda: end.is_set() or len({ticket.source for ticket in turns._waiting} - {name}) >= 2)
                order.append(name)

    threads = [threading.Thread(target=file, args=(name,)) for name in ("a", "b", "c") for _ in range(2)]
    for thread in threads:
        thread.start()
    waited = []
    for pause in range(12):
        begun = len(order)
        until(lambda begun=begun, pause=pause: len(order) > begun + pause % 5)
        before = len(order)
        with turns.turn("camera"):
            waited.append(Counter(order[before:]))
    end.set()
    for thread in threads:
        thread.join(SECONDS)
    # one more may have ended between looking at the clock and asking
    assert all(sum(names.values()) <= 3 + 1 for names in waited), waited


def test_a_source_that_does_not_ask_holds_up_nobody() -> None:
    turns = Turns(["context"])
    with turns.turn("camera"):
        pass
    for _ in range(50):
        with turns.turn("file"):
            pass


def second_turns() -> list[str]:
    """Two contexts, a file's frame on one of them since before the camera's came on the other. Both have a further
    frame waiting when the camera's is done: who has the free context then, and the next one?
    """
    turns, order = Turns(["context", "context"]), list[str]()

    def wait(source: str) -> None:
        with turns.turn(source):
            order.append(source)

    with ExitStack() as file, ExitStack() as camera:
        file.enter_context(turns.turn("file"))
        camera.enter_context(turns.turn("camera"))
        threads = [threading.Thread(target=wait, args=(source,)) for source in ("file", "camera")]
        for count, thread in enumerate(threads, 1):
            thread.start()
            until(lambda count=count: len(turns._waiting) == count)  # type: ignore[misc]
        camera.close()
        for thread in threads:
            thread.join(SECONDS)
    return order


def test_with_as_many_contexts_as_sources_each_has_one() -> None:
    assert second_turns() == ["camera", "file"]


def test_and_would_not_if_only_the_last_turn_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Turns, "_next", lambda turns: min(turns._waiting, key=lambda t: turns._last.get(t.source, 0)))
    assert second_turns() == ["file", "camera"]


def test_sources_that_are_gone_are_forgotten_in_time(package: Package, frame: np.ndarray) -> None:
    turns = Turns(["context"])
    for number in range(3 * REMEMBERED):
        with turns.turn(number):
            pass
    assert list(turns._last) == list(range(2 * REMEMBERED, 3 * REMEMBERED))
    with Executor(package) as executor:  # which keeps no label map of a source that is gone
        share = Share(executor)
        share.segment(frame)
        gone = weakref.ref(share._source)
        del share
        gc.collect()
        assert gone() is None


def test_what_is_dropped_is_handed_out_no_more() -> None:
    turns = Turns(["a", "b", "a", "b"])
    with turns.turn("w") as first:
        turns.drop(first)
    with ExitStack() as stack:
        rest = {stack.enter_context(turns.turn(source)) for source in "xy"}
        assert rest == {"a", "b"} - {first}
        assert not turns.idle


def test_closing_turns_away_those_that_wait_and_waits_for_those_at_work() -> None:
    turns, refused = Turns(["context"]), []
    inside, go = threading.Event(), threading.Event()

    def work() -> None:
        with turns.turn("a"):
            inside.set()
            assert go.wait(SECONDS)

    def wait() -> None:
        with pytest.raises(EngineError, match="closed"), turns.turn("b"):
            pass
        refused.append(True)

    worker, waiter = threading.Thread(target=work), threading.Thread(target=wait)
    worker.start()
    assert inside.wait(SECONDS)
    waiter.start()
    until(lambda: len(turns._waiting) == 1)
    closer = threading.Thread(target=turns.close)
    closer.start()
    waiter.join(SECONDS)
    assert refused and closer.is_alive()
    go.set()
    closer.join(SECONDS)
    assert not closer.is_alive()


# --- the executors ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    package = make_package(tmp_path_factory.mktemp("package") / "small")
    build_engines(package, "onnxruntime")
    return package


@pytest.fixture
def frame(package: Package) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (*package.manifest.input.size, 3), np.uint8)


def shares_in_turn(segmenter: Any, turns: Turns[Any], frame: np.ndarray, patch: pytest.MonkeyPatch) -> list[str]:
    """Which share's frames were computed, in order; the first share is asked by three threads at once."""
    shares = {"file": Share(segmenter), "camera": Share(segmenter)}
    callers = {"file": 3, "camera": 1}
    names = {share._source: name for name, share in shares.items()}
    real = runtime.stream.Stream.segment
    order: list[str] = []
    end = threading.Event()

    def segment(self: Any, frame: Any, until_s: Any, source: Memories) -> Any:
        until(lambda: end.is_set() or len(turns._waiting) + len(turns._at_work) == 4)
        order.append(names[source])
        if len(order) >= 40:
            end.set()
        return real(self, frame, until_s, source)

    def ask(name: str) -> None:
        while not end.is_set():
            shares[name].segment(frame)

    patch.setattr(runtime.stream.Stream, "segment", segment)
    threads = [threading.Thread(target=ask, args=(name,)) for name, count in callers.items() for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    return order[:40]


def test_an_executor_gives_its_sources_turns(package: Package, frame: np.ndarray, monkeypatch: Any) -> None:
    with Executor(package) as executor:
        assert not unfair(shares_in_turn(executor, executor._turns, frame, monkeypatch), 2)


def test_frame_shards_do_so_too(package: Package, frame: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    with FrameShards([Executor(package)]) as shards:
        assert not unfair(shares_in_turn(shards, shards._turns, frame, monkeypatch), 2)


def test_callers_that_name_no_source_would_not_be_fair(package: Package, frame: np.ndarray, monkeypatch: Any) -> None:
    """The mutation of the two above: a share that forgets to say whose frame it is."""
    monkeypatch.setattr(Turns, "turn", lambda self, source, real=Turns.turn: real(self, None))
    with Executor(package) as executor:
        assert unfair(shares_in_turn(executor, executor._turns, frame, monkeypatch), 2)


@pytest.fixture
def several(package: Package) -> Iterator[Executor]:
    with Executor(package, in_flight=2) as executor:
        yield executor


def test_two_sources_compute_at_the_same_time(several: Executor, frame: np.ndarray, monkeypatch: Any) -> None:
    barrier, real = threading.Barrier(2, timeout=SECONDS), runtime.stream.Stream.segment

    def segment(self: Any, frame: Any, until_s: Any, source: Memories) -> Any:
        barrier.wait()  # breaks unless the other source is here, too
        return real(self, frame, until_s, source)

    monkeypatch.setattr(runtime.stream.Stream, "segment", segment)
    done: list[str] = []

    def run(name: str, share: Share) -> None:
        for _ in range(10):
            share.segment(frame)
            done.append(name)

    threads = [threading.Thread(target=run, args=(name, Share(several))) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert Counter(done) == {"a": 10, "b": 10}
