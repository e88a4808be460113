"""benchmarks/on_hardware.py without hardware: its plan, verdicts, facts and processes, and the trials' data."""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from bertkit.cli.backends import _describe
from bertkit.cli.main import app
from bertkit.conformance import CHECKS
from bertkit.data.lengths import lengths
from bertkit.data.pretraining import open_data
from bertkit.engine.registry import find, installed
from bertkit.model.tokenizer_files import read_vocabulary
from bertkit.recipes.resolve import parse_set
from bertkit.training.setup import device_settings


def entry(name: str) -> dict[str, Any]:
    """As `bertkit backends NAME --json` gives it."""
    return _describe(find(name))


def planned(script: Any, backend: dict[str, Any], size: str = "full") -> list[Any]:
    module = script("hardware_plan")
    places = module.Places(python="python", out=Path("/out"), scratch=Path("/out/scratch"))
    found: list[Any] = module.plan(backend, list(CHECKS), module.scale_of(size, backend["name"]), places)
    return found


# ---- the plan ----


@pytest.mark.parametrize("size", ["full", "small"])
@pytest.mark.parametrize("name", sorted(installed()))
def test_every_part_of_every_backend_names_settings_that_it_has(script: Any, name: str, size: str) -> None:
    parts = planned(script, entry(name), size)
    assert len({part.name for part in parts}) == len({part.result for part in parts}) == len(parts)
    for command in (command for part in parts for command in part.commands):
        texts = [after for word, after in pairwise(command) if word == "--set"]
        device = dict(parse_set(text) for text in texts if text.startswith("device."))
        device_settings(find(name), {key.removeprefix("device."): value for key, value in device.items()})


def test_what_matters_most_comes_first_and_every_check_has_a_part(script: Any) -> None:
    parts = planned(script, entry("cuda"))
    kinds = [part.kind for part in parts]
    assert kinds[0] == "facts"
    assert [part.name for part in parts if part.kind == "check"] == [f"check.{name}" for name in CHECKS]
    assert kinds.index("check") < kinds.index("speed") < kinds.index("trial") < kinds.index("profile")
    assert all(part.needs <= part.limit for part in parts)
    whole = [part for part in parts if part.kind == "speed" and "+" not in part.name]
    assert [part.name for part in whole] == [f"speed.{n}" for n in ("mrpc", "squad", "phase1", "phase2", "answers")]
    assert "256,256,256" in whole[2].commands[0]  # three times
    assert "128,128,128" in whole[2].commands[1]  # where that does not fit


def test_graphs_and_compilers_are_turned_over_where_a_backend_has_them(script: Any) -> None:
    variants = script("hardware_plan").variants
    assert variants(entry("cuda")["settings"]) == [("device.graphs=off",), ("device.compile=off",)]
    assert variants(entry("gaudi")["settings"]) == [
        ("device.graphs=true", "device.mode=lazy"), ("device.compile=off",)
    ]  # fmt: skip
    assert variants({"graphs": {"default": "off", "choices": ["auto", "off"]}}) == [("device.graphs=auto",)]
    assert variants(entry("cpu")["settings"]) == []


def test_sizes_are_tried_where_a_backend_has_them(script: Any) -> None:
    assert not [part for part in planned(script, entry("cpu")) if "recompiles" in part.name]
    names = [part.name for part in planned(script, entry("cuda")) if part.kind == "trial"]
    assert {"trial.recompiles-8", "trial.recompiles-32"} < set(names)


def test_a_resume_is_tried_as_a_backend_promises_it(script: Any) -> None:
    """Bit for bit, in bf16 where the device has it, with the setting that the promise asks for."""
    for backend in (entry("cuda") | {"native_precisions": ["bf16"]}, entry("cpu") | {"native_precisions": ["fp32"]}):
        found = next(part.commands[0] for part in planned(script, backend) if part.name == "trial.resume")
        assert ("device.deterministic=true" in found) == ("deterministic" in backend["settings"])
        assert ("bf16" in found) == ("bf16" in backend["native_precisions"])


def test_commands_of_speed_are_taken_by_bertkit(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as a dry run."""
    monkeypatch.setenv("BERTKIT_CACHE", os.devnull)
    parts = [part for part in planned(script, entry("null"), "small") if part.kind == "speed"]
    for part in parts:
        words = part.commands[0][4:]
        done = CliRunner().invoke(app, [*words, "--dry-run"])
        assert done.exit_code == 0, (words, done.output)


def test_a_part_that_does_not_fit_is_passed_over_for_one_that_does(script: Any) -> None:
    module = script("hardware_plan")

    def part(name: str, kind: str, needs: float) -> Any:
        return module.Part(name=name, kind=kind, commands=(("a",),), needs=needs, limit=100, result=Path(name))

    waiting = [part("a", "check", 50), part("b", "check", 5), part("c", "speed", 5)]
    assert module.pick(waiting, {}, 60, 100).name == "a"
    assert module.pick(waiting, {}, 20, 100).name == "b"
    assert module.pick(waiting, {"check": 90}, 60, 100).name == "c", "checks have had their share"
    assert module.pick(waiting[:2], {"check": 90}, 60, 100).name == "a", "nobody else wants the time"
    assert module.pick(waiting, {}, 4, 100) is None


def test_parts_are_chosen_by_how_their_names_begin(script: Any) -> None:
    parts, chosen = planned(script, entry("cpu")), script("hardware_plan").chosen
    assert {part.kind for part in chosen(parts, ["check", "facts"])} == {"check", "facts"}
    assert chosen(parts, []) == parts
    with pytest.raises(ValueError, match=r"no part begins with 'speeed'"):
        chosen(parts, ["check", "speeed"])


def test_the_list_of_parts_has_commands_and_limits(script: Any) -> None:
    text = "\n".join(script("hardware_plan").show(planned(script, entry("cpu"))))
    assert "python -P -m bertkit check cpu --only resume" in text
    assert "where that does not fit, with 16,16,16 or 8,8,8 or 4,4,4" in text
    assert "speed.phase1: 45 s or more, ended after 300 s" in text


# ---- verdicts and the summary ----


def speed_record(status: str, rate: float | None) -> dict[str, Any]:
    return {
        "status": status, "reason": "out of memory: 3 GiB", "case": {"batch_size": 8}, "precision": {"name": "bf16"},
        "throughput": {"sequences_per_second": rate, "tokens_per_second": rate, "padding_efficiency": 1.0, "mfu": None},
        "memory": {"peak_bytes_per_device": 2**30}, "time": {"step_seconds": {"p50": 0.01}},
        "hardware": {"engine": {"layout": "packed"}},
    }  # fmt: skip


def test_speed_is_the_median_of_what_was_measured(script: Any) -> None:
    judge = script("hardware_report").judge
    records = [speed_record("measured", rate) for rate in (10.0, 30.0, 20.0)]
    outcome, detail, figures = judge("speed", 0, {"records": records}, "")
    assert (outcome, detail) == ("measured", "20.0 sequences/s")
    assert figures["sequences_per_second"] == {"median": 20.0, "min": 10.0, "max": 30.0, "count": 3}
    assert figures["mfu"] is None
    assert judge("speed", 1, {"records": records[:2]}, "x\nKilled\n")[:2] == (
        "failed", "after 2 of its measurements: Killed"
    )  # fmt: skip
    short = [records[0], speed_record("does not fit", None)]
    assert judge("speed", 1, {"records": short}, "")[:2] == ("does not fit", "out of memory: 3 GiB")


def test_a_part_that_leaves_nothing_has_failed_with_its_last_words(script: Any) -> None:
    judge = script("hardware_report").judge
    log = "warming up\nbertkit: unexpected error: RuntimeError: x\nbertkit: the traceback is in /tmp/a.txt; please …\n"
    for kind in ("facts", "check", "speed", "trial", "profile"):
        assert judge(kind, 1, None, log)[:2] == ("failed", "bertkit: unexpected error: RuntimeError: x")
        assert judge(kind, -11, None, "")[:2] == ("failed", "exit code -11")


def test_the_summary_shows_each_outcome_and_what_was_left_out(script: Any) -> None:
    report = script("hardware_report")
    parts = {part.name: part for part in planned(script, entry("cpu"))}

    def result(name: str, outcome: str, detail: str, **figures: Any) -> Any:
        kind = parts[name].kind
        return report.Result(name=name, kind=kind, outcome=outcome, detail=detail, seconds=2.0, figures=figures)

    rate = {"median": 1234.5, "min": 1000.0, "max": 1300.0, "count": 3}
    results = [
        result("check.card", "passed", "a CPU"),
        result("check.lamb", "timed out", "not done after its limit of 240 s; ended"),
        result("speed.mrpc", "measured", "", sequences_per_second=rate, mfu={"median": 0.312}, batch=32),
        result("speed.squad", "does not fit", "out of memory: 3 GiB", batch=1),
    ]
    about = {"backend": entry("cpu"), "size": "full", "minutes": 25, "started": "now", "seconds": 60.0, "ended": "…"}
    made = report.summary(about, results, [(parts["trial.starts"], "no time was left")])
    assert made == json.loads(json.dumps(made))
    assert made["counts"] == {"passed": 1, "timed out": 1, "measured": 1, "does not fit": 1, "left out": 1}
    lines = report.show(made).splitlines()
    assert any(line.split()[:2] == ["check.card", "passed"] and line.endswith("a CPU") for line in lines)
    assert any(line.split() == "mrpc 32 1,234 1,000 to 1,300 - 31.2 % - -".split() for line in lines)
    assert "speed.squad: does not fit: out of memory: 3 GiB" in lines
    assert "left out, no time was left: trial.starts" in lines


# ---- facts ----


def test_secrets_are_not_among_the_facts(script: Any) -> None:
    variables = script("hardware_facts").variables
    env = {
        "CHIP_MODE": "lazy", "CHIP_API_TOKEN": "t0p", "HOME": "/home/a", "OMP_NUM_THREADS": "4", "MY_KEY": "k",
        "BERTKIT_HUB": "https://me:pw@hub.example/x", "BERTKIT_PASSWORD": "pw",
    }  # fmt: skip
    found = variables(env, ("CHIP_",))
    assert found == {
        "BERTKIT_HUB": "https://(not shown)@hub.example/x", "BERTKIT_PASSWORD": "(not shown)",
        "CHIP_API_TOKEN": "(not shown)", "CHIP_MODE": "lazy", "OMP_NUM_THREADS": "4",
    }  # fmt: skip


def executable(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_vendors_tool_may_hang_or_fail(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("hardware_facts")
    monkeypatch.setattr(module, "SECONDS", 1.0)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    executable(bin_ / "a-smi", "exec sleep 100")
    executable(bin_ / "b-smi", 'case "$1" in "") echo two devices;; *) echo what is $1; exit 3;; esac')
    (bin_ / "c-smi").write_text("no program")
    assert [path.name for path in module.vendor_tools(f"{tmp_path}/none:{bin_}:{bin_}")] == ["a-smi", "b-smi"]
    start = time.monotonic()
    found = module.ask_all(tmp_path / "tools", str(bin_))
    assert time.monotonic() - start < 20
    assert found["a-smi"] == "did not end within 1 s"
    assert found["a-smi -q"] == "not tried: it hung before"
    assert (found["b-smi"], found["b-smi -q"]) == ("ended well", "exit code 3")
    assert (tmp_path / "tools" / "b-smi.txt").read_text() == "two devices\n"


# ---- processes ----


def test_a_list_of_backends_that_hangs_is_a_warning(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, plan = script("on_hardware"), script("hardware_plan")
    monkeypatch.setattr(module, "LOOK", 0.5)
    hangs = executable(tmp_path / "python", "exec sleep 100")
    places = plan.Places(python=str(hangs), out=tmp_path, scratch=tmp_path)
    backend, warning = module.look("cuda", places)
    assert warning == "bertkit backends cuda did not end within 0.5 s, so its settings are not known"
    assert "check.card" in [part.name for part in planned(script, backend)]


def part_of(script: Any, folder: Path, *codes: str, limit: float = 60, kind: str = "trial") -> Any:
    """A part whose commands run Python code; RESULT there names the file that it leaves."""
    result = folder / "result.json"
    commands = tuple((sys.executable, "-c", f"RESULT = {str(result)!r}\n{code}") for code in codes)
    return script("hardware_plan").Part(
        name="planted", kind=kind, commands=commands, needs=1, limit=limit, result=result
    )  # fmt: skip


def test_a_part_that_fails_costs_the_others_nothing(script: Any, tmp_path: Path) -> None:
    part = part_of(script, tmp_path, "import sys; print('the last words', file=sys.stderr); sys.exit(3)")
    result = script("hardware_processes").run_part(part, 60, tmp_path / "logs" / "planted.txt")
    assert (result.outcome, result.detail) == ("failed", "the last words")
    assert (tmp_path / "logs" / "planted.txt").read_text() == "the last words\n"


def test_a_part_that_hangs_is_ended_with_all_that_it_started(script: Any, tmp_path: Path) -> None:
    """Its child has left its session and shrugs SIGTERM off, as does the part itself."""
    code = f"""
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], start_new_session=True)
pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
time.sleep(100)
"""
    processes = script("hardware_processes")
    processes.GRACE = 0.2
    start = time.monotonic()
    result = processes.run_part(part_of(script, tmp_path, code, limit=2), 2, tmp_path / "log.txt")
    assert time.monotonic() - start < 30
    assert (result.outcome, result.detail) == ("timed out", "not done after its limit of 2 s; ended")
    assert gone(int((tmp_path / "pid").read_text()))


def gone(pid: int) -> bool:
    """Whether a process ends within a few seconds; one that nobody asked for its exit code yet has ended."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "ZX":
            return True
        time.sleep(0.05)
    return False


def test_a_batch_that_does_not_fit_is_halved(script: Any, tmp_path: Path) -> None:
    records = [{"records": [speed_record(*one)]} for one in (("does not fit", None), ("measured", 5.0))]
    codes = [f"open(RESULT, 'w').write({json.dumps(one)!r})" for one in records]
    part = part_of(script, tmp_path, *codes, kind="speed")
    result = script("hardware_processes").run_part(part, 60, tmp_path / "log.txt")
    assert (result.outcome, result.command) == ("measured", part.commands[1])


def test_tracebacks_of_bertkit_are_kept_beside_the_log(script: Any, tmp_path: Path) -> None:
    (tmp_path / "bertkit-traceback-1.txt").write_text("Traceback …")
    words = f"bertkit: the traceback is in {tmp_path}/bertkit-traceback-1.txt; please report it"
    part = part_of(script, tmp_path, f"print({words!r}); raise SystemExit(1)")
    script("hardware_processes").run_part(part, 60, tmp_path / "logs" / "planted.txt")
    assert (tmp_path / "logs" / "planted.traceback-1.txt").read_text() == "Traceback …"


# ---- the trials ----


def test_programs_after_the_warm_up_are_told_from_those_of_it(script: Any) -> None:
    programs = script("hardware_trials").programs

    def event(step: int, during: str, compiled: int) -> dict[str, Any]:
        return {"event": "programs", "step": step, "during": during, "compiled": compiled}

    scored = [{"event": "evaluation", "step": step} for step in (4, 8)]
    warm = [event(1, "training", 16), event(4, "evaluation", 8)]
    assert programs([*warm, *scored]) == {"warm_up": 24, "later": 0}
    late = [event(2, "training", 2), event(8, "evaluation", 1)]
    assert programs([*warm, *late, *scored]) == {"warm_up": 24, "later": 3}
    assert programs(scored) == {"warm_up": 0, "later": 0}


@pytest.mark.parametrize(
    ("code", "said", "outcome"),
    [
        (2, "warming up\nbertkit: out of memory at 16384 sequences; take a smaller batch\n", "passed"),
        (1, "Traceback (most recent call last):\nRuntimeError: out of memory\n", "failed"),
        (1, "bertkit: unexpected error: RuntimeError\nbertkit: the traceback is in /tmp/a.txt; report it\n", "failed"),
        (0, "", "failed"),
        (-9, "", "failed"),
    ],
)
def test_too_large_a_batch_is_to_be_one_line(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str, outcome: str
) -> None:
    trials, result = script("hardware_trials"), tmp_path / "result.json"
    done = script("hardware_trainings").Done(code, said)
    monkeypatch.setattr(trials, "run", lambda words, before=None: done)
    words = ["trial.too_large", "--backend", "cpu", "--size", "small", "--work", str(tmp_path), "-o", str(result)]
    assert trials.main(words) == (outcome == "failed")
    assert json.loads(result.read_text())["outcome"] == outcome


def test_the_trials_data_is_read_as_it_was_meant(script: Any, tmp_path: Path) -> None:
    data = script("hardware_data")
    vocabulary = read_vocabulary(data.write_vocabulary(tmp_path))
    assert len(vocabulary.pieces) == 30522
    shards = open_data(data.write_shard(tmp_path / "shards", "wiki512", 12, 512), vocabulary, seed=1)
    assert sorted(shards.lengths) == sorted(lengths("wiki512", 12, data.SEED))
    assert shards.most_masked == 76
    again = data.write_shard(tmp_path / "again", "wiki512", 12, 512)
    assert (again / "made.tfrecord").read_bytes() == (tmp_path / "shards" / "made.tfrecord").read_bytes()
    table = data.write_texts(tmp_path / "texts.csv", np.array([20, 64])).read_text().splitlines()
    assert [len(line.rpartition(",")[0].split()) for line in table[1:]] == [18, 62]
    squad = json.loads((data.write_squad(tmp_path, 20) / "squad" / "train-v1.1.json").read_text())
    for paragraph in squad["data"][0]["paragraphs"]:
        answer = paragraph["qas"][0]["answers"][0]
        assert paragraph["context"][answer["answer_start"] :].startswith(answer["text"])


def trial_of(script: Any, folder: Path) -> Any:
    amounts = script("hardware_trainings").AMOUNTS["small"]
    return script("hardware_trainings").Trial(backend="cpu", amounts=amounts, work=folder, until=time.monotonic() + 60)


def left_by(folder: Path, run: str, bytes_: int = 0, weight: float = 0.0, attention: str = "flash") -> None:
    """What a training leaves, as far as the trials look at it."""
    (folder / run).mkdir(parents=True)
    record = {
        "memory": {"peak_bytes_per_device": bytes_}, "precision": {"name": "bf16"},
        "hardware": {"engine": {"attention": attention}},
    }  # fmt: skip
    (folder / run / "record.json").write_text(json.dumps(record))
    save_file({"w": np.array([1.0, weight], np.float32)}, folder / run / "model.safetensors")


@pytest.mark.parametrize(("both", "passes"), [(1050, True), (1620, False)])
def test_two_phases_that_need_more_than_the_hungrier_one_are_found(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: int, passes: bool
) -> None:
    trials, done = script("hardware_trials"), script("hardware_trainings").Done(0, "")
    peaks = iter([("phases-1", 700), ("phases-2", 1000), ("phases-1-2", both)])
    monkeypatch.setattr(trials, "run", lambda words: left_by(tmp_path, *next(peaks)) or done)
    trial = trial_of(script, tmp_path)
    if passes:
        assert trials.memory(trial).startswith("phases 1: ")
    else:
        with pytest.raises(script("hardware_trainings").Failed, match=r"two phases need 1\.62 times the memory"):
            trials.memory(trial)
    assert trial.figures["peak_bytes"] == {"1": 700, "2": 1000, "1,2": both}


@pytest.mark.parametrize(("weight", "attention"), [(0.0, "flash"), (1e-7, "efficient")])
def test_a_resume_with_other_weights_is_found_with_its_kernels(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: float, attention: str
) -> None:
    trials, done = script("hardware_trials"), script("hardware_trainings").Done(0, "")
    made = iter([("whole", 0, 0.0, "flash"), ("killed", 0, weight, attention)])
    monkeypatch.setattr(trials, "run", lambda words: left_by(tmp_path, *next(made)) or done)
    monkeypatch.setattr(trials, "kill_after_checkpoint", lambda words, log: 2)
    if weight:
        with pytest.raises(script("hardware_trainings").Failed, match=r"differ by up to 1\.00e-07 .* flash, then eff"):
            trials.resume(trial_of(script, tmp_path))
    else:
        assert "the same weights bit for bit" in trials.resume(trial_of(script, tmp_path))


def test_starts_that_fail_are_counted(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials, module = script("hardware_trials"), script("hardware_trainings")
    made = iter([module.Done(0, ""), module.Done(1, "error 901\n")])
    monkeypatch.setattr(trials, "run", lambda words: next(made))
    with pytest.raises(module.Failed, match="1 of 2 starts failed, the first with: error 901"):
        trials.starts(trial_of(script, tmp_path))


@pytest.mark.parametrize("said", ["torch._dynamo hit config.recompile_limit (8)", "a batch of new sizes, 1 x 8, is …"])
def test_sizes_that_are_compiled_late_or_not_at_all_are_found(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    trials, module = script("hardware_trials"), script("hardware_trainings")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text(
        '{"event": "programs", "step": 1, "during": "training", "compiled": 8}\n{"event": "evaluation", "step": 4}\n'
    )
    monkeypatch.setattr(trials, "run", lambda words: module.Done(0, said))
    with pytest.raises(module.Failed):
        trials.recompiles(trial_of(script, tmp_path), 8)
    monkeypatch.setattr(trials, "run", lambda words: module.Done(0, ""))
    assert trials.recompiles(trial_of(script, tmp_path), 8).startswith("8 programs in the warm-up, none in 16 updates")
