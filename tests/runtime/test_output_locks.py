"""Two runs never write the same outputs, however many they have in common and whenever they come."""

import pytest
from clips import Threshold, names, write_clip, write_package

import splitmerge.commands.run
from runtime.output_locks import OutputLocks
from splitmerge.cli import main
from splitmerge.errors import InputError

fcntl = pytest.importorskip("fcntl", reason="this kind of lock is POSIX")


@pytest.mark.parametrize("common", ["--overlay", "--masks", "--colour-masks", "--records"])
def test_a_run_is_refused_whichever_output_another_writes(tmp_path, monkeypatch, capfd, common):
    """The other run has one of its outputs, and a first one of its own."""
    monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda package, arguments: Threshold())
    package, clip = write_package(tmp_path / "package").folder, write_clip(tmp_path / "in.mp4", 3)
    out = tmp_path / "out"
    places = {"--overlay": "1.mp4", "--masks": "m", "--colour-masks": "c", "--records": "2.jsonl"}
    outputs = [word for option, name in places.items() for word in (option, str(out / name))]
    arguments = ["run", str(clip), "--package", str(package), *outputs]
    out.mkdir()
    place = out / places[common]
    other = OutputLocks([out / "another.mp4", place])
    assert main(arguments) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line == f"splitmerge: Another run is writing {place}: wait for it, or name other outputs."
    assert {path.name for path in out.iterdir()} == {".another.mp4.run.lock", f".{place.name}.run.lock"}
    other.close()
    assert main(arguments) == 0
    assert names(out) == ["1.mp4", "2.jsonl", "c", "m"]


def test_a_lock_that_is_removed_while_another_waits_at_it_is_no_lock(tmp_path, monkeypatch):
    """Between the opening and the locking of one, the holder has left and a third has come."""
    place, real, others = tmp_path / "o.mp4", fcntl.flock, [OutputLocks([tmp_path / "o.mp4"])]

    def flock(fd, how):
        if len(others) == 1:
            others.append(None)
            others[0].close()
            others[1] = OutputLocks([place])
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(InputError, match="Another run is writing"):
        OutputLocks([place])
    others[1].close()
    OutputLocks([place]).close()
    assert list(tmp_path.iterdir()) == []
