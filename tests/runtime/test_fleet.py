"""`splitmerge fleet` on one machine: equal to `splitmerge run`, each segment once, whatever is killed meanwhile."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

pytest.importorskip("av", reason="needs PyAV: pip install av")
pytest.importorskip("fcntl", reason="needs a system with file locks")

from fleets import (
    ROOT,
    alive,
    begun_segments,
    check_equals_run,
    check_nothing_half_written,
    children,
    finished_segments,
    inodes,
    make_fleet,
    report,
    running,
    wait_until,
)

from runtime.fleet.job import Job, Plan, Task, videos_in
from runtime.fleet.store import Store
from runtime.fleet.worker import Worker
from splitmerge import __version__
from splitmerge.cli import main
from splitmerge.files import sha256_of


def _refused(arguments, capfd, code=2):
    capfd.readouterr()
    assert main(arguments) == code
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("splitmerge: ")
    return line


def test_results_equal_a_run_on_the_whole_video(tmp_path, capfd):
    command = [*make_fleet(tmp_path, ("a.mp4", "deep/b.mp4"), frames=30, size=(64, 96))[:-1], "1"]
    imageio = pytest.importorskip("imageio_ffmpeg", reason="needs imageio-ffmpeg, which carries ffmpeg")
    # Times that lie between the overlay's ticks, also where segments begin.
    uneven = ("-vf", "settb=1/15360,setpts='N/30/TB+0.0041*mod(N,7)/TB'", "-fps_mode", "passthrough")
    uneven += ("-enc_time_base", "1:15360", "-bf", "3", "-g", "10")
    source = ("-f", "lavfi", "-i", "testsrc2=s=96x64:r=30:d=2", "-c:v", "libx264", "-sc_threshold", "0")
    ffmpeg = [imageio.get_ffmpeg_exe(), "-v", "error", *source]
    subprocess.run([*ffmpeg, *uneven, "-video_track_timescale", "15360", tmp_path / "videos/uneven.mp4"], check=True)
    subprocess.run([*ffmpeg, "-x264-params", "open-gop=1:keyint=10", tmp_path / "videos/open.mkv"], check=True)
    (tmp_path / "videos/bad.mp4").write_bytes(b"no video")
    (tmp_path / "videos/.hidden.mp4").write_bytes(b"no video")
    (tmp_path / "videos/notes.txt").write_text("no video")
    assert main(command) == 2
    said = capfd.readouterr()
    assert "4 of 5 videos done, 1 failed" in said.out and "is not a video that can be opened" in said.out
    rows = {row["video"]: row for row in report(tmp_path)["of_each"]}
    assert {name: row["state"] for name, row in rows.items()} == {
        **dict.fromkeys(["a.mp4", "deep/b.mp4", "open.mkv", "uneven.mp4"], "done"),
        "bad.mp4": "failed",
    }
    assert rows["open.mkv"]["segments"] == 1 and "not cut: a key frame does not reset" in rows["open.mkv"]["why"]
    assert rows["a.mp4"]["segments"] == 3 and rows["uneven.mp4"]["segments"] == 2
    for video in ("a.mp4", "deep/b.mp4", "open.mkv", "uneven.mp4"):
        check_equals_run(tmp_path, video)
    check_nothing_half_written(tmp_path)
    assert not finished_segments(tmp_path)


def test_what_is_done_is_not_done_again_and_what_is_new_is(tmp_path, capfd):
    command = make_fleet(tmp_path, ("a.mp4",), frames=30)
    assert main(command) == 0
    before = {path: path.stat().st_ino for path in (tmp_path / "out").rglob("*.*") if path.parent.name != ".work"}
    logs = (tmp_path / "out/.work").glob("worker-*.log")
    for log in logs:
        log.unlink()
    assert main(command) == 0
    assert not list((tmp_path / "out/.work").glob("worker-*.log"))  # no worker was begun
    assert {path: path.stat().st_ino for path in before if path.name != "fleet.json"} == {
        path: inode for path, inode in before.items() if path.name != "fleet.json"
    }
    shutil.copy(tmp_path / "videos/a.mp4", tmp_path / "videos/z.mp4")
    assert main(command) == 0
    assert [row["video"] for row in report(tmp_path)["of_each"]] == ["a.mp4", "z.mp4"]
    assert (tmp_path / "out/a.mp4").stat().st_ino == before[tmp_path / "out/a.mp4"]
    # Results that somebody took away are made again, and no others.
    shutil.rmtree(tmp_path / "out/a-masks")
    z = (tmp_path / "out/z.mp4").stat().st_ino
    assert main(command) == 0
    assert len(list((tmp_path / "out/a-masks").iterdir())) == 30 and (tmp_path / "out/z.mp4").stat().st_ino == z
    # Another file in a done video's place is told, not mixed with it.
    (tmp_path / "videos/a.mp4").write_bytes(b"another file")
    assert main(command) == 2
    (first, second) = report(tmp_path)["of_each"]
    assert first["state"] == "failed" and "was changed after its results were begun" in first["why"]
    assert second["state"] == "done"


def test_what_is_removed_has_its_results_on_the_disk_itself(tmp_path, monkeypatch):
    """A power cut keeps what was synced: all of a segment before it has its name, all results before segments go."""
    make_fleet(tmp_path, ("a.mp4",), frames=24)
    manifest, out = tmp_path / "package/manifest.json", tmp_path / "out"
    folders = [str(tmp_path / "videos"), str(out), str(tmp_path / "package")]
    job = Job(*folders, sha256_of(manifest), __version__, "token", overlay=True, masks=True, segment_s=1.2)
    (out / ".work").mkdir(parents=True)
    (out / ".work/token").touch()
    synced, checked = set(), []
    real_fsync, real_finish, real_rename = os.fsync, Store.finish, Path.rename

    def fsync(descriptor):
        synced.add(os.fstat(descriptor).st_ino)
        real_fsync(descriptor)

    def check(place):
        paths = [place, *place.rglob("*")]
        assert all(path.stat().st_ino in synced for path in paths)
        checked.append(len(paths))

    def rename(path, target):
        check(path)
        return real_rename(path, target)

    def finish(store, video, facts):
        for place in store.targets(video):
            check(place)
            assert place.parent.stat().st_ino in synced
        real_finish(store, video, facts)
        assert not finished_segments(tmp_path)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(Store, "finish", finish)
    worker, (video,) = Worker(job, threads=1), videos_in(tmp_path / "videos", out)
    plan = Plan.from_json(worker.do(Task("plan", video))["plan"])
    for segment in plan.segments:
        worker.do(Task("segment", video, plan, segment))
    assert worker.do(Task("join", video, plan))["frames"] == 24
    assert checked == [1 + 1 + 12 + 3, 1 + 1 + 12 + 3, 1 + 24, 1, 1]


def test_refusals(tmp_path, capfd):
    command = make_fleet(tmp_path, ("a.mp4",), frames=30)
    videos, package, out = f"{tmp_path}/videos", f"{tmp_path}/package", f"{tmp_path}/out"
    base = ["fleet", videos, "--package", package, "--out", out]
    assert "Nothing would be kept" in _refused(base, capfd)
    assert "is no folder" in _refused(["fleet", f"{videos}/a.mp4", *base[2:], "--records"], capfd)
    assert "is the folder of the videos" in _refused([*base[:-1], videos, "--records"], capfd)
    assert "has no videos" in _refused(["fleet", package, *base[2:], "--records"], capfd)
    assert "is no package" in _refused(["fleet", videos, "--package", videos, "--out", out, "--records"], capfd)
    assert "holds no int8 graphs" in _refused([*base, "--records", "--precision", "int8"], capfd)
    assert not (tmp_path / "out").exists()
    assert main(command) == 0
    line = _refused([*command[:-1], "3"], capfd)
    assert f"{out} holds results made with segment-s 2.0, not 3.0" in line
    assert "made with masks True, not False" in _refused([w for w in command if w != "--masks"], capfd)
    manifest = tmp_path / "package/manifest.json"
    shutil.rmtree(tmp_path / "package")
    make_other_package(tmp_path)
    assert manifest.exists() and "holds results made with another package" in _refused(command, capfd)


def make_other_package(folder):
    from fleets import SIZE
    from small_package import make_package

    from engines.build import build_engines

    build_engines(make_package(folder / "package", SIZE, seed=5), "onnxruntime")


def test_results_inside_the_folder_are_no_videos(tmp_path):
    command = make_fleet(tmp_path, ("a.mp4",), frames=24)
    command[command.index("--out") + 1] = f"{tmp_path}/videos/out"
    assert main(command) == 0 and main(command) == 0
    rows = json.loads((tmp_path / "videos/out/fleet.json").read_text())["of_each"]
    assert [row["video"] for row in rows] == ["a.mp4"]


def test_a_cut_off_video_is_done_as_far_as_it_goes(tmp_path):
    command = make_fleet(tmp_path, ("a.mp4",), frames=24)
    writer = tmp_path / "videos/cut.avi"
    from clips import write_cut_clip

    write_cut_clip(writer, frames=40)
    assert main(command) == 2
    row = report(tmp_path)["of_each"][1]
    assert row["state"] == "done" and row["frames"] + row["missing_frames"] == 40 and row["missing_frames"] > 0
    assert "cut.avi promises 40 frames" in row["why"]
    assert main(command) == 2  # as it was told the first time


def test_an_idle_worker_ends_with_its_coordinator(tmp_path):
    make_fleet(tmp_path, ("a.mp4",), frames=12)
    (tmp_path / "out/.work").mkdir(parents=True)
    (tmp_path / "out/.work/token").touch()
    manifest = tmp_path / "package/manifest.json"
    folders = [f"{tmp_path}/{name}" for name in ("videos", "out", "package")]
    job = Job(*folders, sha256_of(manifest), __version__, "token")
    with subprocess.Popen(
        [sys.executable, "-m", "runtime.fleet.process"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        try:
            worker.stdin.write(json.dumps({"job": asdict(job), "device": 0, "threads": 1}).encode() + b"\n")
            worker.stdin.flush()
            assert json.loads(worker.stdout.readline()) == {"kind": "ready"}
            worker.stdin.close()
            assert worker.wait(60) == 1
        finally:
            worker.kill()


def test_a_killed_worker_is_replaced_and_its_segment_done(tmp_path, capfd):
    command = make_fleet(tmp_path)
    with running([*command, "--workers", "2"]) as fleet:
        wait_until(lambda: begun_segments(tmp_path))
        os.kill(children(fleet.pid)[0], signal.SIGKILL)
        said, _ = fleet.communicate(timeout=120)
    assert fleet.returncode == 0, said
    assert [note for note in report(tmp_path)["notes"] if "was killed (SIGKILL)" in note]
    for video in ("a.mp4", "deep/b.mp4"):
        check_equals_run(tmp_path, video)
    check_nothing_half_written(tmp_path)


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced_and_its_segment_done(tmp_path):
    command = make_fleet(tmp_path, ("a.mp4",), frames=24)
    with running([*command, "--stall-s", "8"]) as fleet:
        wait_until(lambda: begun_segments(tmp_path))
        (worker,) = children(fleet.pid)
        os.kill(worker, signal.SIGSTOP)
        said, _ = fleet.communicate(timeout=120)
    assert fleet.returncode == 0, said
    assert "nothing was heard of it for 8 s, and it was ended" in report(tmp_path)["notes"][0]
    wait_until(lambda: not alive(worker))
    check_equals_run(tmp_path, "a.mp4")
    check_nothing_half_written(tmp_path)


def test_a_segment_that_always_kills_its_worker_is_set_aside(tmp_path):
    command = make_fleet(tmp_path, ("a.mp4", "b.mp4"))
    with running(command) as fleet:
        for _ in range(3):  # whoever is at the frames from 24 of the first video
            place = wait_until(lambda: begun_segments(tmp_path, "00000024-*"))[0]
            (worker,) = children(fleet.pid)
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda worker=worker: not alive(worker))
            shutil.rmtree(place, ignore_errors=True)
        said, _ = fleet.communicate(timeout=120)
    assert fleet.returncode == 2, said
    first, second = report(tmp_path)["of_each"]
    assert first["state"] == "failed"
    assert "failed 3 times (segment, frames from 24 on): its process was killed (SIGKILL)" in first["why"]
    assert second["state"] == "done"
    check_equals_run(tmp_path, "b.mp4")
    assert len(finished_segments(tmp_path)) >= 1  # of the first video, for the next time
    kept = inodes(finished_segments(tmp_path))
    assert main(command) == 0
    assert kept.items() <= inodes(_masks_of(tmp_path, "a")).items()
    check_equals_run(tmp_path, "a.mp4")


def _masks_of(folder, stem):
    """As `inodes` wants it: a folder with `masks/` in it."""
    place = folder / f"links-{stem}"
    place.mkdir()
    (place / "masks").symlink_to(folder / f"out/{stem}-masks")
    return [place]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_coordinator_that_is_stopped_is_gone_on_from(tmp_path, number):
    command = make_fleet(tmp_path, ("a.mp4",), frames=72)
    with running([*command, "--workers", "2"]) as fleet:
        wait_until(lambda: finished_segments(tmp_path) and begun_segments(tmp_path))
        workers = children(fleet.pid)
        assert len(workers) == 2
        fleet.send_signal(number)
        said, _ = fleet.communicate(timeout=120)
    wait_until(lambda: not any(alive(worker) for worker in workers))
    if number != signal.SIGKILL:
        assert (fleet.returncode, said.splitlines()[-1]) == {
            signal.SIGINT: (130, "splitmerge: interrupted"),
            signal.SIGTERM: (143, "splitmerge: terminated"),
        }[number]
        check_nothing_half_written(tmp_path)
    kept = inodes(finished_segments(tmp_path))
    assert kept and not (tmp_path / "out/a.mp4").exists()
    with running(command) as fleet:
        said, _ = fleet.communicate(timeout=120)
    assert fleet.returncode == 0, said
    assert (f"process {fleet.pid}" not in said) and ("died while it worked here" in said) == (number == signal.SIGKILL)
    assert kept.items() <= inodes(_masks_of(tmp_path, "a")).items()
    check_equals_run(tmp_path, "a.mp4")
    check_nothing_half_written(tmp_path)


def test_a_second_coordinator_is_refused(tmp_path, capfd):
    command = make_fleet(tmp_path, ("a.mp4",), frames=72)
    with running(command) as fleet:
        wait_until(lambda: begun_segments(tmp_path))
        line = _refused(command, capfd)
        assert f"is being worked on by process {fleet.pid} on {socket.gethostname()}" in line
        said, _ = fleet.communicate(timeout=120)
    assert fleet.returncode == 0, said
    lock = tmp_path / "out/.work/lock"
    assert lock.read_text() == ""
    # Whether a process of another machine still runs cannot be seen from here.
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 7}))
    assert f"by process 7 on elsewhere: wait for it, or delete {lock}" in _refused(command, capfd)
    lock.unlink()
    assert main(command) == 0


def test_a_machine_that_cannot_work_says_why(tmp_path, capfd):
    command = make_fleet(tmp_path, ("a.mp4",), frames=24)
    shutil.rmtree(tmp_path / "package/engines")
    assert "splitmerge build" in _refused(command, capfd)
