"""The order of a fleet's tasks, by workers that only pretend: each segment once, thousands of videos, failures."""

import random
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from runtime.fleet.board import Board, Row
from runtime.fleet.coordinator import run_fleet
from runtime.fleet.crew import Event
from runtime.fleet.job import Job, Plan, Task, Video, videos_in
from runtime.fleet.keyframes import Segment
from runtime.fleet.report import report, table
from runtime.fleet.store import Store
from splitmerge.errors import EngineError, InputError

SEGMENTS = tuple(Segment(10 * i, 10, 1.0 * i, 10 * i, 10 * i + 10) for i in range(3))


@pytest.fixture
def store(tmp_path):
    for name in ("videos", "out"):
        (tmp_path / name).mkdir()
    return Store(Job(f"{tmp_path}/videos", f"{tmp_path}/out", f"{tmp_path}/package", "", "", ""))


class Memory(Store):
    """A store without a disk, some of which take long to remove thousands of folders."""

    def __init__(self, store):
        super().__init__(store._job)
        self.plans, self.facts_of, self.whole = {}, {}, set()

    def done(self, video):
        return self.facts_of.get(video)

    def plan(self, video):
        return self.plans.get(video)

    def keep_plan(self, video, plan):
        self.plans[video] = plan

    def segment(self, video, segment):
        return Finished((video, segment) in self.whole)

    @contextmanager
    def new_segment(self, video, segment):
        yield Path(self._job.out)
        self.whole.add((video, segment))

    def finish(self, video, facts):
        self.facts_of[video] = facts

    def sweep(self, video):
        pass


class Finished:
    """What stands for the path of a segment's folder."""

    def __init__(self, finished):
        self.is_dir = lambda: finished


def _videos(store, count):
    names = [f"{i:04d}.mp4" for i in range(count)]
    for name in names:
        store.source(Video(name, name)).touch()
    return videos_in(store.source(Video(".", ".")), Path("elsewhere"))


def _plan(store, video, segments=SEGMENTS, whole=None):
    stat = store.source(video).stat()
    plan = Plan(stat.st_size, stat.st_mtime_ns, (64, 64), 25.0, segments, whole)
    store.keep_plan(video, plan)
    return {"plan": asdict(plan)}


class Pretenders:
    """A crew that does tasks at once, in random order; `fate` may give another outcome, or the words of a loss."""

    def __init__(self, store, workers=3, fate=lambda task: None, ready=lambda worker: None):
        self.store, self.workers, self.fate, self.ready = store, workers, fate, ready
        self.log: list[tuple] = []
        self.random, self.at_work, self.events, self.begun = random.Random(3), {}, [], 0

    def __enter__(self):
        for worker in range(self.workers):
            self.replace(worker)
        return self

    def __exit__(self, *_):
        self.at_work.clear()

    def replace(self, worker):
        assert worker not in self.at_work
        self.begun += 1
        self.events.append(self.ready(worker) or Event(worker, "ready"))

    def give(self, worker, task):
        assert worker not in self.at_work, "a worker was given two tasks"
        self.at_work[worker] = Task.from_json(_through_json(task))

    def wait(self, seconds):
        if self.events:
            return self.events.pop(0)
        worker = self.random.choice(sorted(self.at_work))
        task = self.at_work.pop(worker)
        fate = self.fate(task)
        if isinstance(fate, str):
            return Event(worker, "lost", words=fate)
        self.log.append(task.key)
        return Event(worker, "done", outcome=fate or self._do(task))

    def _do(self, task):
        if task.kind == "plan":
            whole = (Segment(),) if task.whole else SEGMENTS
            return _plan(self.store, task.video, whole, task.whole)
        if task.kind == "segment":
            with self.store.new_segment(task.video, task.segment):
                pass
            return {"frames": 10}
        assert all(self.store.segment(task.video, each).is_dir() for each in task.plan.segments)
        facts = {"frames": 30, "segments": len(task.plan.segments), "whole": task.plan.whole}
        facts |= {"missing_frames": 0, "warnings": [], "hosts": ["here"]}
        for place in [] if isinstance(self.store, Memory) else self.store.targets(task.video):
            if place.name.endswith("-masks"):
                place.mkdir(exist_ok=True)
                place = place / "000000.png"
            place.touch()
        self.store.finish(task.video, {"bytes": task.plan.bytes, "mtime_ns": task.plan.mtime_ns, **facts})
        return facts


def _through_json(task):
    import json

    return json.loads(json.dumps(task.to_json()))


def _run(store, videos, crew):
    board = Board(store, videos)
    notes = run_fleet(store, board, lambda: crew, len(videos))
    return board, notes


def test_thousands_of_videos_each_segment_once(store):
    videos = _videos(store, 3000)
    looked = []
    lazily = (looked.append(video.path) or video for video in videos)
    store = Memory(store)
    board, crew = Board(store, lazily), Pretenders(store)
    ahead = []
    crew.fate = lambda task: ahead.append(len(looked) - len(board.rows))
    run_fleet(store, board, lambda: crew, len(videos))
    assert max(ahead) <= 2 * crew.workers  # videos that were begun before those before them were done
    assert Counter(crew.log).most_common(1)[0][1] == 1 and len(crew.log) == 3000 * 5
    assert [row.state for row in board.rows] == ["done"] * 3000 and board.segments == board.segments_done == 9000
    # And again: nothing is left to do, so that no worker begins.
    again, crew = Board(store, videos), Pretenders(store)
    assert run_fleet(store, again, lambda: crew, len(videos)) == [] and crew.begun == 0
    assert again.rows == sorted(board.rows, key=lambda row: row.video) and again.segments_done == 9000


@pytest.mark.parametrize("ending", ["-masks", ".mp4", ".jsonl"])
def test_a_video_whose_results_are_gone_is_not_done(store, ending):
    store = Store(replace(store._job, overlay=True, masks=True, records=True))
    (video, _) = videos = _videos(store, 2)
    _run(store, videos, Pretenders(store))
    crew = Pretenders(store)
    assert [row.state for row in _run(store, videos, crew)[0].rows] == ["done", "done"] and crew.begun == 0
    place = store.target(video, ending)
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    board, _ = _run(store, videos, crew)
    assert sorted(row.state for row in board.rows) == ["done", "done"] and place.exists()
    segments = [(video.path, "segment", segment.name) for segment in SEGMENTS]
    assert Counter(crew.log) == Counter([*segments, (video.path, "join", "")])


def test_a_chunk_binds_where_it_changes_labels(store):
    """Of whole frames it does not; at a lower density chunks are computed whole (runtime.schedule.chunks)."""
    store.folder.mkdir()
    store.bind()
    Store(replace(store._job, chunk=4)).bind()
    sparse = replace(store._job, out=f"{store._job.out}/sparse", density="1/16")
    Store(sparse).folder.mkdir(parents=True)
    Store(sparse).bind()
    with pytest.raises(InputError, match="made with chunk 1, not 4: give what it was begun with"):
        Store(replace(sparse, chunk=4)).bind()


def test_lost_workers_give_their_tasks_back(store):
    chance = random.Random(0)
    lost = Counter()

    def fate(task):
        if lost[task.key] < 2 and chance.random() < 0.3:
            lost[task.key] += 1
            return "its machine is gone"
        return None

    crew = Pretenders(store, 4, fate)
    board, notes = _run(store, _videos(store, 40), crew)
    assert sum(lost.values()) > 20 and len(notes) == sum(lost.values()) == crew.begun - 4
    assert {row.state for row in board.rows} == {"done"} and len(board.rows) == 40
    assert max(Counter(crew.log).values()) == 1


def test_what_fails_three_times_is_set_aside_and_the_rest_goes_on(store):
    fails = {("0001.mp4", "segment", SEGMENTS[1].name), ("0003.mp4", "plan", ""), ("0004.mp4", "join", "")}
    tried = Counter()

    def fate(task):
        tried[task.key] += 1
        return {"error": "no luck"} if task.key in fails else None

    videos = _videos(store, 6)
    board, _ = _run(store, videos, Pretenders(store, 2, fate))
    assert {key: tried[key] for key in fails} == dict.fromkeys(fails, 3)
    rows = {row.video: row for row in board.rows}
    assert {name for name, row in rows.items() if row.state == "failed"} == {"0001.mp4", "0003.mp4", "0004.mp4"}
    assert rows["0001.mp4"].why == "failed 3 times (segment, frames from 10 on): no luck"
    # The next time only what is missing is done.
    crew = Pretenders(store, 2)
    board, _ = _run(store, videos, crew)
    assert {row.state for row in board.rows} == {"done"}
    assert ("0001.mp4", "segment", SEGMENTS[1].name) in crew.log and ("0001.mp4", "plan", "") not in crew.log
    assert [key for key in crew.log if key[0] == "0004.mp4"] == [("0004.mp4", "join", "")]


def test_a_video_that_does_not_decode_as_planned_is_one_segment(store):
    def fate(task):
        return {"untrusted": "frames are missing"} if task.segment and task.segment.first == 10 else None

    (video,) = videos = _videos(store, 1)
    crew = Pretenders(store, 3, fate)
    board, _ = _run(store, videos, crew)
    (row,) = board.rows
    assert (row.state, row.segments, row.why) == ("done", 1, "not cut: frames are missing")
    assert crew.log[-2:] == [(video.path, "segment", "whole"), (video.path, "join", "")]
    assert board.segments == board.segments_done == 1
    assert [path.name for path in store.place(video).iterdir() if path.is_dir()] == []


def test_a_worker_that_hangs_is_ended_and_one_that_is_slow_is_not(store):
    """By a clock of the test's own: a segment that hangs once, one whose frames take long, and a join that hangs."""
    (video,) = videos = _videos(store, 1)
    now, hangs, beats = 0.0, {SEGMENTS[1].name, ""}, []

    class Crew(Pretenders):
        killed = 0

        def wait(self, seconds):
            nonlocal now
            assert now < 10_000, "waited in vain"
            for task in self.at_work.values():
                if task.kind == "segment" and task.segment == SEGMENTS[2] and len(beats) < 8:
                    now += 60.0  # of a limit of 100
                    beats.append(now)
                    self.store.beat(task, len(beats))
                    return None
                if task.kind != "plan" and (task.segment.name if task.segment else "") in hangs:
                    now += 60.0
                    return None
            return super().wait(seconds)

        def kill(self, worker):
            task = self.at_work.pop(worker)
            hangs.remove(task.segment.name if task.segment else "")
            self.killed += 1
            self.events.append(Event(worker, "lost", words="its process was killed"))

    crew = Crew(store, 1)
    board = Board(store, videos)
    notes = run_fleet(store, board, lambda: crew, 1, stall_s=100.0, clock=lambda: now)
    assert crew.killed == 2 and not hangs and len(beats) == 8 and now > 8 * 60
    assert [row.state for row in board.rows] == ["done"]
    assert notes == ["worker 0 was lost and replaced: nothing was heard of it for 100 s, and it was ended"] * 2
    assert sorted(path.name for path in store.place(video).iterdir()) == ["done.json", "plan.json"]


def test_workers_that_cannot_begin(store):
    videos = _videos(store, 2)
    with pytest.raises(InputError, match="no storage here"):
        _run(
            store, videos, Pretenders(store, 2, ready=lambda worker: Event(worker, "refused", words="no storage here"))
        )
    with pytest.raises(EngineError, match=r"No worker is left \(it died\)"):
        _run(store, videos, Pretenders(store, 2, ready=lambda worker: Event(worker, "lost", words="it died")))
    crew = Pretenders(store, 2, ready=lambda worker: Event(worker, "lost", words="it died") if worker else None)
    board, notes = _run(store, videos, crew)
    assert [row.state for row in board.rows] == ["done", "done"]
    assert notes[-1] == "worker 1 is out: it died"


def test_of_two_that_do_the_same_segment_the_first_wins(store):
    (video,) = _videos(store, 1)
    _plan(store, video)
    with store.new_segment(video, SEGMENTS[0]) as late, store.new_segment(video, SEGMENTS[0]) as early:
        (early / "facts.json").write_text('{"by": "early"}')
        (late / "facts.json").write_text('{"by": "late"}')
    assert store.facts(video, SEGMENTS[0]) == {"by": "early"}
    with pytest.raises(KeyError), store.new_segment(video, SEGMENTS[1]):
        raise KeyError
    assert sorted(path.name for path in store.place(video).iterdir()) == [SEGMENTS[0].name, "plan.json"]


def test_names_of_results(tmp_path):
    for name in ("a.mp4", "a.AVI", "b/a.mp4", "c.txt", ".d.mp4", ".e/f.mp4", "out/g.mp4", "h.i.mkv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    videos = videos_in(tmp_path, tmp_path / "out")
    names = {"a.AVI": "a.AVI", "a.mp4": "a.mp4", "b/a.mp4": "b/a", "h.i.mkv": "h.i"}
    assert {video.path: video.target for video in videos} == names
    assert len({video.id for video in videos}) == 4
    (tmp_path / "a.mp4.mov").touch()
    with pytest.raises(InputError, match="rename one"):
        videos_in(tmp_path, tmp_path / "out")


def test_report_of_many_shows_those_that_want_a_look():
    rows = [Row(f"{i:03d}.mp4", "done", 10, 1) for i in range(100)]
    rows[7] = Row("007.mp4", "failed", why="no luck")
    shown = table(rows)
    assert shown.splitlines() == ["007.mp4  failed   no luck", "and 99 more that are done"]
    assert len(table(rows[:20]).splitlines()) == 20
    whole = report(rows, 100, [])
    assert (whole["done"], whole["failed"], len(whole["of_each"])) == (99, 1, 100)
