"""Which task is next: plan a video, then its segments, then join them. No thread, no clock, no worker: only the order.

Videos are looked at one by one, when a worker has nothing else to do, so that thousands of them cost no more than
their names. A video that is begun goes before the next one; what the work folder holds already is not done again.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from runtime.fleet.job import Plan, Task, Video
from runtime.fleet.store import Store
from splitmerge.errors import InputError

__all__ = ["Board", "Row"]


@dataclass(frozen=True)
class Row:
    """What became of a video. `why` says why it failed, why it was not cut, or what is wrong with it."""

    video: str
    state: str
    frames: int = 0
    segments: int = 0
    missing_frames: int = 0
    why: str = ""
    hosts: tuple[str, ...] = ()


@dataclass
class _Begun:
    video: Video
    plan: Plan | None = None
    left: set[str] = field(default_factory=set)


class Board:
    """The tasks of a job. A task that fails `attempts` times takes its video out; the others go on."""

    def __init__(self, store: Store, videos: Iterable[Video], attempts: int = 3) -> None:
        self.rows: list[Row] = []
        self.segments = self.segments_done = 0
        self._store, self._videos, self._attempts = store, iter(videos), attempts
        self._waiting: deque[Task] = deque()
        self._begun: dict[str, _Begun] = {}
        self._failures: Counter[tuple[str, str, str]] = Counter()

    @property
    def begun(self) -> list[Video]:
        """Videos that are neither done nor given up."""
        return [each.video for each in self._begun.values()]

    def look(self) -> bool:
        """Whether there is a task now. There may be more when one of those that were taken comes back."""
        while not self._waiting:
            video = next(self._videos, None)
            if video is None:
                return False
            self._begin(video)
        return True

    def take(self) -> Task:
        """The next task, of which `look` has told."""
        return self._waiting.popleft()

    def done(self, task: Task, outcome: dict[str, Any]) -> None:
        """A worker did the task."""
        begun = self._begun.get(task.video.path)
        if begun is None:  # another segment took the video out
            return
        if "error" in outcome:
            self.failed(task, outcome["error"])
        elif "untrusted" in outcome:
            self._plan_whole(begun, task, outcome["untrusted"])
        elif task.kind == "plan":
            self._planned(begun, Plan.from_json(outcome["plan"]))
        elif task.kind == "join":
            self._finish(begun, outcome)
        elif task.segment and task.plan == begun.plan:
            begun.left.discard(task.segment.name)
            self.segments_done += 1
            self._join_if_complete(begun)

    def failed(self, task: Task, words: str) -> None:
        """The task was not done, or its worker was lost at it: it is the next, unless it has failed too often."""
        if task.video.path not in self._begun:
            return
        self._failures[task.key] += 1
        if self._failures[task.key] < self._attempts:
            self._waiting.appendleft(task)
            return
        part = f", frames from {task.segment.first} on" if task.segment and task.segment.count else ""
        times = f"{self._attempts} times" if self._attempts > 1 else "once"
        self._give_up(task.video, f"failed {times} ({task.kind}{part}): {words}")

    def _begin(self, video: Video) -> None:
        begun = self._begun[video.path] = _Begun(video)
        try:
            if facts := self._store.done(video):
                self._store.check_same(video, facts["bytes"], facts["mtime_ns"])
                self.segments += facts["segments"]
                self.segments_done += facts["segments"]
                self._finish(begun, facts)
            elif plan := self._store.plan(video):
                self._store.check_same(video, plan.bytes, plan.mtime_ns)
                self._store.sweep(video)
                self._planned(begun, plan)
            else:
                self._waiting.append(Task("plan", video))
        except (InputError, OSError) as error:
            self._give_up(video, str(error))

    def _planned(self, begun: _Begun, plan: Plan) -> None:
        begun.plan = plan
        left = [each for each in plan.segments if not self._store.segment(begun.video, each).is_dir()]
        begun.left = {segment.name for segment in left}
        self._waiting.extend(Task("segment", begun.video, plan, segment) for segment in left)
        self.segments += len(plan.segments)
        self.segments_done += len(plan.segments) - len(left)
        self._join_if_complete(begun)

    def _plan_whole(self, begun: _Begun, task: Task, why: str) -> None:
        """The video does not decode in segments as its packets said: once more, in one."""
        if task.plan != begun.plan or begun.plan is None:
            return  # it was planned anew already
        self._forget(begun.video)
        self.segments -= len(begun.plan.segments)
        self.segments_done -= len(begun.plan.segments) - len(begun.left)
        begun.plan = None
        self._waiting.appendleft(Task("plan", begun.video, whole=why))

    def _join_if_complete(self, begun: _Begun) -> None:
        if not begun.left:
            self._waiting.appendleft(Task("join", begun.video, begun.plan))

    def _finish(self, begun: _Begun, facts: dict[str, Any]) -> None:
        why = "; ".join(filter(None, [facts["whole"] and f"not cut: {facts['whole']}", *facts["warnings"]]))
        missing, hosts = facts["missing_frames"], tuple(facts["hosts"])
        row = Row(begun.video.path, "done", facts["frames"], facts["segments"], missing, why, hosts)
        self.rows.append(row)
        del self._begun[begun.video.path]

    def _give_up(self, video: Video, why: str) -> None:
        self._forget(video)
        del self._begun[video.path]
        self.rows.append(Row(video.path, "failed", why=why))

    def _forget(self, video: Video) -> None:
        self._waiting = deque(task for task in self._waiting if task.video != video)
