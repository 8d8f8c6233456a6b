"""Timing caches: whose they are, and what becomes of one that is another's."""

import hashlib
import json
from pathlib import Path

import pytest

from engines.machine import Gpu
from engines.timing_cache import CacheOwner, TimingCache, cache_for
from splitmerge.errors import EngineError, InputError

GPU = Gpu("NVIDIA L4", "8.9", 58, "12.8", 0, 24 << 30)
OWNER = CacheOwner("tensorrt", "10.12.0.36", "NVIDIA L4", "8.9")


def cache(path: Path, named: bool = True, owner: CacheOwner = OWNER) -> TimingCache:
    return TimingCache(path, owner, named)


@pytest.mark.parametrize("named", [True, False])
def test_what_was_written_is_read_again(tmp_path: Path, named: bool) -> None:
    path = tmp_path / "deep" / "t.cache"
    assert cache(path, named).read() == (b"", [])
    assert cache(path, named).write(b"timings") == hashlib.sha256(b"timings").hexdigest()
    assert cache(path, named).read() == (b"timings", [])
    assert sorted(file.name for file in path.parent.iterdir()) == ["t.cache", "t.cache.json"]
    cache(path, named).write(b"more timings")
    assert cache(path, named).read() == (b"more timings", [])


def damage(path: Path, kind: str) -> None:
    description = path.with_name(path.name + ".json")
    if kind == "altered":
        path.write_bytes(b"other timings")
    elif kind == "file gone":
        path.unlink()
    elif kind == "description gone":
        description.unlink()
    elif kind == "no JSON":
        description.write_text("{")
    else:
        facts = json.loads(description.read_text())
        key, value = kind.split("=")
        description.write_text(json.dumps(facts | {key: value}))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("altered", "was altered"),
        ("file gone", "was altered"),
        ("description gone", "has no description"),
        ("no JSON", "has no description"),
        ("gpu=NVIDIA A10", r"on NVIDIA A10 \(8.9\) and this is tensorrt 10.12.0.36 on NVIDIA L4"),
        ("capability=8.6", r"\(8.6\) and this is"),
        ("version=10.3.0", "with tensorrt 10.3.0 on"),
        ("backend=other", "with other 10.12"),
    ],
)
def test_another_ones_cache(tmp_path: Path, kind: str, words: str) -> None:
    path = tmp_path / "t.cache"
    cache(path).write(b"timings")
    damage(path, kind)
    with pytest.raises(EngineError, match=words) as caught:
        cache(path, named=True).read()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    contents, (note,) = cache(path, named=False).read()
    assert contents == b"" and note.startswith("timing cache begun anew (")
    cache(path, named=False).write(b"new timings")
    assert cache(path, named=True).read() == (b"new timings", [])


def test_each_version_and_gpu_has_a_default_cache_of_its_own(tmp_path: Path) -> None:
    other = Gpu("NVIDIA A10/2", "8.6", 72, "12.8", 1, 24 << 30)
    owners = [("10.3.0", GPU), ("10.12.0.36", GPU), ("10.3.0", other)]
    found = [cache_for(None, tmp_path, "tensorrt", version, gpu) for version, gpu in owners]
    paths = [item.path for item in found if item is not None]
    assert len(set(paths)) == 3 and {path.parent for path in paths} == {tmp_path}
    assert paths[0].name == "tensorrt-10.3.0-sm89-NVIDIA-L4.cache"
    assert not any(item.named for item in found if item is not None)


def test_where_nothing_is_measured_there_is_no_cache(tmp_path: Path) -> None:
    assert cache_for(None, tmp_path, "tensorrt-rtx", "1.7.1.116", None) is None
    assert cache_for(None, tmp_path, "tensorrt-rtx", "1.7.1.116", GPU) is None
    with pytest.raises(InputError, match="leave out --timing-cache"):
        cache_for(tmp_path / "t.cache", tmp_path, "tensorrt-rtx", "1.7.1.116", GPU)
    named = cache_for(tmp_path / "t.cache", tmp_path, "tensorrt", "10.3.0", GPU)
    assert named is not None and named.named
