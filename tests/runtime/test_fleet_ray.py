"""`splitmerge fleet --ray` on a cluster of two nodes on this machine, of which workers and one node are killed."""

import os
import signal
from pathlib import Path

import pytest

pytest.importorskip("av", reason="needs PyAV: pip install av")
pytest.importorskip("ray", reason="needs Ray: pip install ray")

from fleets import (
    ROOT,
    alive,
    begun_segments,
    check_equals_run,
    check_nothing_half_written,
    children,
    finished_segments,
    make_fleet,
    report,
    running,
    wait_until,
)

from runtime.fleet.job import Job, Task, Video
from runtime.fleet.ray_crew import RayCrew
from runtime.fleet.store import Store
from splitmerge import __version__
from splitmerge.cli import main
from splitmerge.files import sha256_of

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes, each with room for one worker."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
        made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        try:
            made.add_node(**NODE)
            yield made
        finally:
            made.shutdown()


def _workers(node):
    """The fleet's workers on a node, by process."""
    (raylet,) = node.all_processes["raylet"]
    names = {pid: Path(f"/proc/{pid}/comm") for pid in children(raylet.process.pid)}
    return [pid for pid, name in names.items() if name.exists() and name.read_text().startswith("ray::_Actor")]


def test_a_killed_worker_and_a_removed_node(tmp_path, cluster):
    command = [*make_fleet(tmp_path, frames=120), "--ray", cluster.address]
    (second,) = cluster.worker_nodes
    with running(command) as fleet:
        wait_until(lambda: begun_segments(tmp_path) and _workers(cluster.head_node) and _workers(second))
        (killed,) = _workers(cluster.head_node)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: set(_workers(cluster.head_node)) - {killed} and finished_segments(tmp_path))
        wait_until(lambda: begun_segments(tmp_path))
        cluster.remove_node(second, allow_graceful=False)
        said, _ = fleet.communicate(timeout=240)
    cluster.add_node(**NODE)
    assert fleet.returncode == 0, said
    assert len([note for note in report(tmp_path)["notes"] if "was lost and replaced" in note]) >= 2
    for video in ("a.mp4", "deep/b.mp4"):
        check_equals_run(tmp_path, video)
    check_nothing_half_written(tmp_path)


def test_workers_end_with_their_coordinator(tmp_path, cluster):
    command = [*make_fleet(tmp_path, ("a.mp4",), frames=120), "--ray", cluster.address]
    with running(command) as fleet:
        wait_until(lambda: finished_segments(tmp_path) and begun_segments(tmp_path))
        workers = [worker for node in cluster.list_all_nodes() for worker in _workers(node)]
        assert workers
        fleet.send_signal(signal.SIGKILL)
        wait_until(lambda: not any(alive(worker) for worker in workers))
    with running(command) as fleet:
        said, _ = fleet.communicate(timeout=240)
    assert fleet.returncode == 0 and "died while it worked here" in said
    check_equals_run(tmp_path, "a.mp4")
    check_nothing_half_written(tmp_path)


def test_a_worker_that_sees_other_storage_is_refused(tmp_path, cluster, capfd, monkeypatch):
    command = [*make_fleet(tmp_path, ("a.mp4",), frames=24), "--ray", cluster.address]
    monkeypatch.setattr(Store, "leave_token", lambda self, token: None)
    assert main(command) == 2
    assert f"does not see {tmp_path}/out as this machine does" in capfd.readouterr().err


@pytest.mark.slow
def test_a_worker_that_hangs_can_be_ended(tmp_path, cluster):
    make_fleet(tmp_path, ("a.mp4",), frames=24)
    folders = [f"{tmp_path}/{name}" for name in ("videos", "out", "package")]
    job = Job(*folders, sha256_of(tmp_path / "package/manifest.json"), __version__, "token")
    (tmp_path / "out/.work").mkdir(parents=True)
    (tmp_path / "out/.work/token").touch()
    with RayCrew(job, cluster.address, 1) as crew:
        assert wait_until(lambda: crew.wait(1.0)).kind == "ready"
        (worker,) = [worker for node in cluster.list_all_nodes() for worker in _workers(node)]
        os.kill(worker, signal.SIGSTOP)
        crew.give(0, Task("plan", Video("a.mp4", "a")))
        crew.kill(0)
        assert wait_until(lambda: crew.wait(1.0)).kind == "lost"
        wait_until(lambda: not alive(worker))
        crew.replace(0)
        assert wait_until(lambda: crew.wait(1.0)).kind == "ready"


def test_no_cluster(tmp_path, capfd):
    command = make_fleet(tmp_path, ("a.mp4",), frames=24)
    assert main([*command, "--ray", "127.0.0.1:1"]) == 2
    assert "No Ray cluster answers at 127.0.0.1:1" in capfd.readouterr().err
