"""What `on_hardware.py` does and in which order: a pure function of what a backend says of itself.

Nothing here runs anything. Times are seconds.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["facts", "check", "speed", "trial", "profile"]
Words = tuple[str, ...]
HERE = Path(__file__).resolve().parent
HOST = "cpu"  # the backend whose device is the host: large models take it minutes, and its memory is everybody's
SWITCHES = ("graphs", "compile")  # device settings that are measured both ways, where a backend has them
PROFILED = 64  # sequences of an update at the most, so that it fits
TIMES = 3  # that each case of speed is measured
CHECK_MARGIN = 10.0  # so that `bertkit check` ends a long check itself, with its result
# Of the whole time; parts of a kind that has had its share wait until the others are done. So hangs of one kind cannot
# use up what the others need.
SHARES: Mapping[Kind, float] = {"facts": 1.0, "check": 0.35, "speed": 0.45, "trial": 0.4, "profile": 1.0}


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process with a limit of its own."""

    name: str
    kind: Kind
    commands: tuple[Words, ...]  # the next is run where the one before did not fit into the device's memory
    needs: float  # it is not begun with less time left
    limit: float  # it is ended after so long
    result: Path  # the JSON file that it leaves


@dataclass(frozen=True, kw_only=True)
class Case:
    """One of the standard cases of speed."""

    name: str
    work: Literal["train", "infer"]
    model: str
    lengths: str
    batches: tuple[int, ...]  # the first that fits
    sets: Words = ()


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large everything is."""

    name: Literal["full", "small"]
    cases: tuple[Case, ...]
    amount: Words  # of `bertkit bench`
    check: tuple[float, float]  # needs, limit
    speed: tuple[float, float]
    trials: Mapping[str, tuple[float, float]]
    profile: tuple[float, float]


def _halves(most: int, count: int = 4) -> tuple[int, ...]:
    return tuple(max(1, most >> step) for step in range(count))


def _cases(base: str, large: str, batches: Sequence[int]) -> tuple[Case, ...]:
    """`batches`: of MRPC, SQuAD, phase 1, phase 2 and inference."""
    mrpc, squad, phase1, phase2, answers = map(_halves, batches)
    lamb = ("optimizer.name=lamb",)
    return (
        Case(name="mrpc", work="train", model=base, lengths="mrpc", batches=mrpc),
        Case(name="squad", work="train", model=large, lengths="squad384", batches=squad),
        Case(name="phase1", work="train", model=large, lengths="wiki128", batches=phase1),
        Case(name="phase2", work="train", model=large, lengths="wiki512", batches=phase2, sets=lamb),
        Case(name="answers", work="infer", model=large, lengths="squad384", batches=answers),
    )


# By value.
TRIALS = ("too_large", "recompiles-8", "memory", "resume", "starts", "recompiles-32")
FULL = Scale(
    name="full",
    cases=_cases("base", "large", (32, 32, 256, 56, 32)),
    amount=("--seconds", "5"),
    check=(10, 240),
    speed=(45, 300),
    trials={
        "too_large": (30, 150), "recompiles-8": (45, 240), "memory": (90, 300), "resume": (60, 240),
        "starts": (60, 300), "recompiles-32": (90, 400),
    },
    profile=(40, 180),
)  # fmt: skip
FULL_ON_HOST = Scale(
    name="full",
    cases=_cases("base", "large", (32, 8, 32, 8, 8)),
    amount=FULL.amount,
    check=FULL.check,
    speed=FULL.speed,
    trials=FULL.trials,
    profile=FULL.profile,
)
SMALL = Scale(
    name="small",
    cases=_cases("tiny", "tiny", (4, 2, 4, 2, 2)),
    amount=("--steps", "3"),
    check=(2, 120),
    speed=(4, 120),
    trials=dict.fromkeys(TRIALS, (10.0, 180.0)),
    profile=(5, 120),
)


@dataclass(frozen=True, kw_only=True)
class Places:
    """The program that runs bertkit, and the folders."""

    python: str
    out: Path  # what is kept
    scratch: Path  # data and runs, removed in the end

    def bertkit(self, *words: str) -> Words:
        return (self.python, "-P", "-m", "bertkit", *words)

    def script(self, name: str, *words: str) -> Words:
        return (self.python, str(HERE / f"{name}.py"), *words)


def scale_of(size: str, backend: str) -> Scale:
    if size == "small":
        return SMALL
    return FULL_ON_HOST if backend == HOST else FULL


def plan(backend: Mapping[str, Any], checks: Sequence[str], scale: Scale, places: Places) -> list[Part]:
    """All parts, what matters most first. `backend`: an entry of `bertkit backends --json`; `checks`: by name."""
    settings = backend["settings"]
    switched = variants(settings)
    return [
        _facts(backend["name"], places),
        *(_check(backend["name"], name, scale, places) for name in checks),
        *(_speed(backend["name"], case, (), scale, places) for case in scale.cases),
        *_trials(backend, scale, places),
        *(_speed(backend["name"], case, sets, scale, places) for sets in switched for case in scale.cases),
        *(_profile(backend, case, scale, places) for case in scale.cases if case.work == "train"),
    ]


def variants(settings: Mapping[str, Mapping[str, Any]]) -> list[Words]:
    """For each of SWITCHES that the backend has: what turns it from its default, with what it needs besides."""
    found: list[Words] = []
    for name in SWITCHES:
        if name not in settings:
            continue
        default, choices = settings[name]["default"], settings[name]["choices"]
        if isinstance(default, bool):
            other = "false" if default else "true"
        else:
            other = next(
                (choice for choice in ("off", "auto", *choices) if choice in choices and choice != default), ""
            )
        if not other:
            continue
        lazy = name == "graphs" and "lazy" in settings.get("mode", {}).get("choices", ())
        found.append((f"device.{name}={other}", *(("device.mode=lazy",) if lazy else ())))
    return found


def _sets(texts: Sequence[str]) -> Words:
    return tuple(word for text in texts for word in ("--set", text))


def _facts(backend: str, places: Places) -> Part:
    result = places.out / "facts.json"
    tools = places.out / "tools"
    command = places.script("hardware_facts", backend, "-o", str(result), "--tools", str(tools))
    return Part(name="facts", kind="facts", commands=(command,), needs=1, limit=150, result=result)


def _check(backend: str, name: str, scale: Scale, places: Places) -> Part:
    needs, limit = scale.check
    result = places.out / "checks" / f"{name}.json"
    minutes = f"{(limit - CHECK_MARGIN) / 60:.2f}"
    command = places.bertkit("check", backend, "--only", name, "--limit", minutes, "-o", str(result))
    return Part(name=f"check.{name}", kind="check", commands=(command,), needs=needs, limit=limit, result=result)


def _speed(backend: str, case: Case, sets: Words, scale: Scale, places: Places) -> Part:
    needs, limit = scale.speed
    title = "+".join([case.name, *(text.removeprefix("device.") for text in sets)])
    result = places.out / "speed" / f"{title}.json"

    def command(batch: int) -> Words:
        what = ("-m", case.model, "--lengths", case.lengths, "-b", ",".join([str(batch)] * TIMES), *scale.amount)
        words = ("bench", case.work, "--backend", backend, *what, *_sets((*case.sets, *sets)))
        return places.bertkit(*words, "-o", str(result), "--overwrite")

    commands = tuple(command(batch) for batch in dict.fromkeys(case.batches))
    return Part(name=f"speed.{title}", kind="speed", commands=commands, needs=needs, limit=limit, result=result)


def _trials(backend: Mapping[str, Any], scale: Scale, places: Places) -> Iterator[Part]:
    settings = backend["settings"]
    few, plain = _few_sizes(backend), "off" in settings.get("compile", {}).get("choices", ())
    exact = _sets(("device.deterministic=true",)) if "deterministic" in settings else ()  # what a backend promises
    bf16 = ("--dtype", "bf16") if "bf16" in backend["native_precisions"] else ()
    more: dict[str, Words] = {
        "resume": (*bf16, *few, *exact),
        "starts": (*few, *(_sets(("device.compile=off",)) if plain else ())),
        "memory": few,
        "too_large": ("--host",) if backend["name"] == HOST else (),
    }
    for name in TRIALS:
        if name.startswith("recompiles") and "shapes" not in settings:
            continue  # batches are computed in the sizes that they have
        needs, limit = scale.trials[name]
        yield _worker(backend["name"], "trial", name, more.get(name, ()), scale, places, needs, limit)


def _few_sizes(backend: Mapping[str, Any]) -> Words:
    """Where a program is compiled for each size of batches: two of them, since compiling takes most of a short run."""
    return _sets(("device.shapes=2",)) if "shapes" in backend["settings"] else ()


def _profile(backend: Mapping[str, Any], case: Case, scale: Scale, places: Places) -> Part:
    words = ("--model", case.model, "--batch", str(min(PROFILED, case.batches[0])), *_sets(case.sets))
    words += _few_sizes(backend)
    return _worker(backend["name"], "profile", case.name, words, scale, places, *scale.profile)


def _worker(
    backend: str, kind: Literal["trial", "profile"], name: str, more: Words, scale: Scale, places: Places,
    needs: float, limit: float,
) -> Part:  # fmt: skip
    result = places.out / f"{kind}s" / f"{name}.json"
    work = places.scratch / f"{kind}-{name}"
    common = ("--backend", backend, "--size", scale.name, "--work", str(work), "-o", str(result))
    command = places.script("hardware_trials", f"{kind}.{name}", *common, "--limit", f"{limit:g}", *more)
    return Part(name=f"{kind}.{name}", kind=kind, commands=(command,), needs=needs, limit=limit, result=result)


def chosen(parts: Sequence[Part], only: Collection[str]) -> list[Part]:
    """The parts that begin with one of these names; all where there are none.

    Raises ValueError for one that fits none.
    """
    for beginning in only:
        if not any(part.name.startswith(beginning) for part in parts):
            raise ValueError(f"no part begins with {beginning!r}")
    return [part for part in parts if not only or part.name.startswith(tuple(only))]


def pick(waiting: Sequence[Part], spent: Mapping[Kind, float], left: float, whole: float) -> Part | None:
    """The next part: the first that the time left is enough for, kinds that had their share of the whole behind others.

    None: there is no time for any of them.
    """
    fitting = [part for part in waiting if part.needs <= left]
    early = [part for part in fitting if spent.get(part.kind, 0.0) < SHARES[part.kind] * whole]
    return next(iter([*early, *fitting]), None)


def show(parts: Sequence[Part]) -> Iterator[str]:
    """Each part with its limit and its commands, in lines."""
    for number, part in enumerate(parts, 1):
        yield f"{number:3} {part.name}: {part.needs:g} s or more, ended after {part.limit:g} s"
        first, *others = part.commands
        yield f"      {shlex.join(first)}"
        if others:
            changed = [shlex.join(word for word, own in zip(one, first, strict=True) if word != own) for one in others]
            yield f"      where that does not fit, with {' or '.join(changed)}"
    yield f"{len(parts)} parts, {sum(part.needs for part in parts) / 60:.0f} min or more"
