"""On a CPU a package's graphs may have several forms (`engines.build.FORMS`), and a frame may be shared out in many
ways: what is fastest on this machine is measured once, when the engines are built, and kept beside them.

    engines/onnxruntime-fp32/tuning.json    what was fastest (a `Sharing`), and all that was timed

Stock sizes of caches and rates do not tell it: all forms, and each way to share out, run the same frames in turn.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from tqdm import tqdm

from engines.build import BuiltEngine, build_engines
from engines.onnxruntime_engine import cores
from engines.sidecar import engine_folder
from runtime.executor import Executor
from runtime.schedule import DEFAULT_CONTEXTS
from runtime.timing import in_turn, noise_frame
from splitmerge.errors import EngineError, InputError
from splitmerge.files import read_json, write_json
from splitmerge.package import Package

__all__ = ["Sharing", "build_fastest", "remembered"]

_BACKEND, _PRECISION = "onnxruntime", "fp32"
_TUNING = "tuning.json"
_ROUNDS = 3
_SECONDS = 10.0
"""About how long to time the forms; three times as long to search. Where frames are slow, ways that come last, and that
were slow before, are left out."""
_TURN_SECONDS = 2.5
"""After which a way's turn begins no other frame."""
_CHUNKS = (1, 2, 4)
_GAIN = 0.97
"""A way must take a frame to this share of the best one's time before it: less is noise, and of split batches the
first ways take least memory."""


@dataclass(frozen=True)
class Sharing:
    """How a frame's work is shared out: contexts at once, CPU threads of each (None for an equal share of the cores),
    split batches in one run; for networks of one graph whether memory is taken for speed.
    """

    contexts: int = DEFAULT_CONTEXTS
    threads: int | None = None
    chunk: int = 1
    roomy: bool = False


def build_fastest(package: Package, form: str = "auto") -> tuple[list[BuiltEngine], str]:
    """Build the engines for the CPU in the form that is fastest here (or in `form`, one of FORMS), look for the fastest
    way to share a frame out, and remember it. Also says in words what was measured.

    Raises InputError where the package does not have the form that is asked for, EngineError where that does not build.
    """
    _refuse_missing(package, form)
    times, refused = _form_times(package) if form == "auto" else ({}, "")
    fastest = min(times, key=lambda name: times[name], default="plain" if form == "auto" else form)
    notes = {"form": fastest, "form_ms": {name: round(ms, 1) for name, ms in times.items()}}
    built = build_engines(package, _BACKEND, _PRECISION, form=fastest, notes=notes)
    compared = ", ".join(f"{name} {ms:.0f} ms a frame" for name, ms in times.items())
    words = [f"form {fastest} ({compared})"] if times else []
    words += [refused] if refused else []
    sharing, tried = _search(package, fastest)
    write_json(
        engine_folder(package, _BACKEND, _PRECISION) / _TUNING,
        {
            **asdict(sharing),
            "cores": cores(),
            "tried_ms": [{**asdict(one), "ms": round(ms, 1)} for one, ms in tried.items()],
        },
    )
    words.append(f"{_in_words(sharing, package, fastest)} ({tried[sharing]:.0f} ms a frame; {len(tried)} ways tried)")
    return built, "; ".join(words)


def _in_words(sharing: Sharing, package: Package, form: str) -> str:
    if package.manifest.cut is None:
        if form == "native":
            return f"{sharing.threads} threads"
        return "memory planned for whole frames, threads that spin" if sharing.roomy else "memory and threads spared"
    return f"{sharing.contexts} contexts of {sharing.threads} threads, {sharing.chunk} split batches at once"


def _refuse_missing(package: Package, form: str) -> None:
    """Raise InputError for a form that the package does not have."""
    if form == "cpu" and not package.manifest.cpu:
        raise InputError(
            f"{package.folder} has no graphs for CPUs: export it with --target cpu, or leave out --form {form}."
        )


def _form_times(package: Package) -> tuple[dict[str, float], str]:
    """Milliseconds a frame takes in each form that the package has, none where that is one; and why it has no native
    form, which is empty where it has."""
    forms = ["plain", *(["cpu"] if package.manifest.cpu else []), "native"]
    refused = ""
    with ExitStack() as resources:
        executors: dict[str, Executor] = {}
        for form in forms:  # the files of a loaded engine may be replaced
            try:
                build_engines(package, _BACKEND, _PRECISION, form=form)
            except EngineError as error:
                if form != "native":
                    raise
                refused = str(error).rstrip(".")  # it has something that is not compiled natively, or LLVM is not here
                continue
            executors[form] = resources.enter_context(Executor(package, backend=_BACKEND))
        runs = {form: executor.segment for form, executor in executors.items()}
        return in_turn(runs, noise_frame(package), _ROUNDS, _SECONDS / 2) if len(runs) > 1 else {}, refused


def remembered(package: Package) -> Sharing | None:
    """What was found to be fastest when the engines here were built; None where nothing was measured, or where that was
    on another number of cores."""
    path = engine_folder(package, _BACKEND, _PRECISION) / _TUNING
    try:
        value = read_json(path)
        numbers = [value[name] for name in ("contexts", "threads", "chunk")]
        usable = value["cores"] == cores() and all(type(number) is int and number > 0 for number in numbers)
        usable = usable and type(value["roomy"]) is bool
    except (InputError, KeyError, TypeError):
        return None
    return Sharing(**{name: value[name] for name in asdict(Sharing())}) if usable else None


def _search(package: Package, form: str) -> tuple[Sharing, Mapping[Sharing, float]]:
    """Ways to share a frame out and the fewest milliseconds that each took. They take turns, one at a time in memory: a
    shared machine has slow minutes, in which any way would lose. First those that differ most from each other; from the
    second round on the fastest so far, so that what time there is tells those that are close apart.
    """
    ways = list(_ways(package, form))
    tried: dict[Sharing, float] = {}
    frame, began = noise_frame(package), time.perf_counter()
    with tqdm(total=_ROUNDS * len(ways), desc="sharing out", disable=None, leave=False) as progress:
        for _ in range(_ROUNDS):
            for sharing in sorted(ways, key=lambda way: tried.get(way, 0)):
                if tried and time.perf_counter() - began > 3 * _SECONDS:
                    break
                with Executor(package, backend=_BACKEND, **asdict(sharing)) as executor:
                    (ms,) = in_turn({"": executor.segment}, frame, _ROUNDS, _TURN_SECONDS).values()
                tried[sharing] = min(ms, tried.get(sharing, ms))
                progress.update()
    best = next(iter(tried))
    for sharing, ms in tried.items():
        if ms < _GAIN * tried[best]:
            best = sharing
    return best, tried


def _ways(package: Package, form: str) -> Iterator[Sharing]:
    """As many contexts as cores, one context of all cores, and what lies between; small chunks first. A network of one
    graph has one context of all cores, with more memory (2 to 9 % faster in turn with other work, which leaves caches
    cold) unless little is clearly faster. A trunk that is compiled natively has contexts of one thread and goes through
    chunks one by one, a whole network has all threads in one context."""
    cut, most = package.manifest.cut, cores()
    if cut is None and form == "native":  # cores that are threads of one may get into each other's way
        for threads in dict.fromkeys((most, max(1, most // 2))):
            yield Sharing(1, threads)
        return
    if cut is None:
        yield Sharing(1, most, roomy=True)
        yield Sharing(1, most)
        return
    if form == "native":
        for contexts in dict.fromkeys(min(count, cut.batches) for count in (most, max(1, most // 2))):
            yield Sharing(contexts, most // contexts)  # threads are for the stem
        return
    splits = [contexts for contexts in range(most, 0, -1) if most % contexts == 0]
    for chunk in _CHUNKS:
        for contexts in splits:
            if contexts * chunk <= cut.batches:
                yield Sharing(contexts, most // contexts, chunk)
