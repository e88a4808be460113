"""`bertkit compare` as typed, in this process: what words name, files that are bad, exit codes, what is written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertkit.cli.main import main
from bertkit.comparison.entries import entry
from bertkit.comparison.published import every_figure, figures
from bertkit.comparison.systems import systems
from bertkit.comparison.vs_published import beside
from bertkit.records.files import Record, sealed, write
from made_records import record, save

Typed = Callable[..., tuple[int, str, list[str]]]
QUIET_WORK = 0.13  # seconds of 3,000,000 squares on the machine whose five seconds are meant, with nothing beside


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    """`typed("a", "b")` -> (exit code, stdout, lines of stderr), in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, list[str]]:
        with pytest.raises(SystemExit) as end:
            main(["compare", *words])
        shown = capsys.readouterr()
        return int(str(end.value.code or 0)), shown.out, shown.err.splitlines()

    return run


def names(out: str) -> list[str]:
    return [system["name"] for system in json.loads(out)["systems"]]


def test_folders_files_patterns_and_names(typed: Typed) -> None:
    for name, devices in (("runs/a", 1), ("runs/b", 2), ("c", 4)):
        save(Path(name), devices=devices)
    assert names(typed("runs", "c", "--json")[1]) == ["a", "b", "c"]
    assert names(typed("runs/*", "c/record.json", "--json")[1]) == ["a", "b", "c"]
    assert names(typed("x=runs/a", "y=c", "--json")[1]) == ["x", "y"]
    assert names(typed("c", "c/record.json", "./c", "--json")[1]) == ["c"], "one record counts once"
    code, out, errors = typed("c", "--json")
    assert (code, errors, json.loads(out)["differences"]) == (0, [], [])


def test_a_name_with_an_equals_sign_may_be_a_folder(typed: Typed) -> None:
    save(Path("lr=1"))
    assert names(typed("lr=1", "--json")[1]) == ["lr=1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "nowhere: there is no such folder, file or pattern"),
        (["empty"], "empty: holds no record.json"),
        (["a", "--baseline", "nobody"], "--baseline nobody: there is no such system"),
        (["a", "b", "--parity", "--csv", "x"], "--parity combines only with --steps and --json"),
        (["a", "--parity"], "--parity compares two runs, not 1"),
        (["a", "--steps", "3"], "--steps needs --parity"),
        (["a", "--csv", "empty"], "empty is a folder"),
        (["a", "--csv", "x", "--markdown", "x"], "x is named twice"),
        (["a", "--published", "nobodys"], "no figures are published under 'nobodys'"),
        (["x="], "x=: names no record"),
        ([], "no record is given; name run folders"),
    ],
)
def test_what_is_wrongly_asked_is_one_line(typed: Typed, words: list[str], told: str) -> None:
    Path("empty").mkdir()
    save(Path("a"))
    save(Path("b"), devices=2)
    code, out, errors = typed(*words)
    assert (code, out, len(errors)) == (2, "", 1)
    assert errors[0].startswith(f"bertkit: {told}")
    assert not Path("x").exists()


def test_the_names_of_published_figures_are_listed(typed: Typed) -> None:
    code, out, errors = typed("--published", "list")
    assert (code, errors) == (0, [])
    assert next(line for line in out.splitlines() if "gaudi2" in line).split()[:3] == ["habana-gaudi2", "gaudi2", "44"]
    found = json.loads(typed("--published", "list", "--json")[1])
    assert sum(one["figures"] for one in found) == len(every_figure())
    assert all(figures(name) for one in found for name in one["names"])
    save(Path("a"))
    assert "--published list names all" in typed("a", "--published", "nobodys")[2][0]


def spoil(path: Path, how: str) -> None:
    text = path.read_text()
    made = json.loads(text)
    spoilt = {
        "cut off": text[: len(text) // 2],
        "foreign": json.dumps({"name": "a table", "rows": []}),
        "newer": json.dumps(made | {"schema": 99}),
        "no JSON": "seconds: 3\n",
        "binary": "\x00\x01",
        "unfit": json.dumps(made | {"updates": "many"}),
    }
    path.write_text(spoilt[how])


@pytest.mark.parametrize("how", ["cut off", "foreign", "newer", "no JSON", "binary", "unfit"])
def test_a_bad_record_is_one_line_and_the_others_are_compared(typed: Typed, how: str) -> None:
    for name, devices in (("a", 1), ("b", 2), ("bad", 3)):
        save(Path(name), devices=devices)
    spoil(Path("bad/record.json"), how)
    code, out, errors = typed("a", "b", "bad", "--json")
    assert code == 1
    assert len(errors) == 1
    assert errors[0].startswith("warning: bad/record.json:")
    assert names(out) == ["a", "b"]
    assert json.loads(out)["left_out"] == [errors[0].removeprefix("warning: ")]
    code, out, errors = typed("bad")
    assert (code, out, len(errors)) == (2, "", 1)
    assert errors[0].startswith("bertkit: bad/record.json:")
    assert typed("a", "b", "bad", "--strict")[0] == 2


def test_a_run_that_has_not_ended_is_left_out(typed: Typed) -> None:
    save(Path("runs/a"))
    Path("runs/b/checkpoints").mkdir(parents=True)
    code, out, errors = typed("runs/a", "runs/b", "--json")
    assert (code, names(out), len(errors)) == (1, ["a"], 1)
    assert errors[0].startswith("warning: runs/b: holds no record.json; ")


def test_a_record_edited_by_hand_is_flagged_and_shown(typed: Typed) -> None:
    save(Path("a"))
    path = save(Path("b"), devices=2) / "record.json"
    path.write_text(path.read_text().replace("0.85", "0.95"))
    code, out, _ = typed("a", "b")
    assert code == 0
    assert "b: was edited after it was written: its hash does not match" in out
    assert "0.9500" in out


def test_strict_refuses_after_showing(typed: Typed) -> None:
    save(Path("a"))
    save(Path("b"), facts={"hidden_dropout": 0.2})
    code, out, errors = typed("a", "b", "--strict", "--csv", "x.csv")
    assert code == 2
    assert "dropout of the dense layers: 0.1 (a); 0.2 (b)" in out
    assert errors[-1].startswith("bertkit: --strict: not comparable: dropout of the dense layers; ")
    assert Path("x.csv").exists()
    save(Path("c"), devices=2)
    assert typed("a", "c", "--strict")[0] == 0


def test_strict_refuses_published_figures(typed: Typed) -> None:
    save(Path("a"))
    code, out, errors = typed("a", "--published", "a100", "--strict")
    assert code == 2
    assert "Published figures" in out
    assert "not comparable: not stated by published figures" in errors[-1]


def test_published_figures_stand_beside_with_what_does_not_compare(typed: Typed) -> None:
    save(Path("a"))
    out = typed("a", "--published", "a100", "--json")[1]
    rows = json.loads(out)["published"]
    assert len(rows) > 3
    assert {row["theirs"]["task"] for row in rows} == {"mrpc"}
    assert all("model large, not minilm" in row["differs"] for row in rows)
    assert all(row["ratio"] is None for row in rows), "another model gives no ratio"
    accuracy = next(row for row in rows if row["theirs"]["metric"] == "accuracy")
    assert accuracy["mine"] == 0.8
    typed("a", "--published", "a100", "--csv", "x.csv", "--markdown", "x.md")
    assert "published: DGX A100" in Path("x.csv").read_text()
    assert "model large, not minilm" in Path("x.md").read_text()


def test_a_published_rate_of_the_same_setting_has_a_ratio(typed: Typed) -> None:
    save(Path("a"), rate=200.0, model={"name": "large"})
    rows = json.loads(typed("a", "--published", "a100", "--json")[1])["published"]
    rates = [row for row in rows if row["theirs"]["metric"] == "sequences_per_second" and row["ratio"]]
    assert rates
    for row in rates:
        assert row["per_device"]
        assert row["value"] == row["theirs"]["value"] / row["theirs"]["devices"]
        assert row["ratio"] == pytest.approx(200.0 / row["value"])


SERVED = {"measures": "infer", "task": "squad", "sequence_length": 384, "global_batch": 1}


def served(mean_tokens: float, concurrency: int | None = 1) -> list[dict[str, Any]]:
    """NVIDIA's figures of large at batch 1 on an A30, with TensorRT, beside a record of a server."""
    made = record(rate=100.0, facts=SERVED, model={"name": "large"}, precision={"name": "fp16"}, metrics={})
    made["config"]["concurrency"] = concurrency
    made["data"]["train"] = {
        "name": "every sequence of 384 tokens", "file": None, "sha256": None, "features_sha256": None, "examples": None,
        "sequences": 1, "mean_tokens": mean_tokens, "faults": [], "tokens": {}, "mean_masked": None,
    }  # fmt: skip
    made["time"]["step_seconds"] = {"p50": 0.010, "p90": 0.010, "p95": 0.011, "p99": 0.012, "p100": 0.012}
    made["time"]["step_of"] = "a request"
    (system,) = systems([entry(Record(sealed(made), Path("a", "record.json")))])
    return [
        {"metric": one.theirs.metric, "mine": one.mine, "ratio": one.ratio, "differs": one.differs}
        for one in beside(system, ["nvidia-a30"])
        if one.theirs.model == "large" and one.theirs.batch == 1 and one.theirs.detail == "Triton server, TensorRT"
    ]


def test_a_server_is_compared_with_nvidias_under_the_same_load_only() -> None:
    alike = {one["metric"]: one for one in served(384.0)}
    assert alike["latency_milliseconds_p99"]["mine"] == pytest.approx(12.0)
    assert alike["latency_milliseconds_p99"]["ratio"] == pytest.approx(12.0 / 5.9)
    assert alike["sequences_per_second"]["ratio"] == pytest.approx(100 / 172)
    assert "requests in flight" not in str(alike["latency_milliseconds_p99"]["differs"])
    unlike = {
        "tokens per sequence 384, not 178": served(178.0),
        "requests in flight 1, not 4": served(384.0, 4),
        "requests in flight 1, not known": served(384.0, None),
    }
    for words, rows in unlike.items():
        rows = [row for row in rows if row["metric"] != "f1"]
        assert all(words in row["differs"] for row in rows), rows
        assert all(row["ratio"] is None for row in rows)


def test_a_training_step_is_no_latency(typed: Typed) -> None:
    save(Path("a"), facts={"task": "sst2"}, time={"step_seconds": {"p50": 0.5, "p99": 0.6}})
    rows = json.loads(typed("a", "--published", "a30", "--json")[1])["published"]
    assert [row for row in rows if row["theirs"]["metric"] == "latency_milliseconds_p50"]
    assert all(row["mine"] is None for row in rows if row["theirs"]["metric"].startswith("latency"))


def test_every_form_is_written(typed: Typed) -> None:
    save(Path("a"))
    save(Path("b"), devices=2)
    code, out, errors = typed("a", "b", "--csv", "f/x.csv", "--markdown", "f/x.md", "--html", "f/x.html")
    assert code == 0
    assert [line.partition(" ")[0] for line in errors] == ["written:"] * 3
    assert Path("f/x.csv").read_text().startswith("system,figure,unit,mean,")
    assert Path("f/x.md").read_text().startswith("# a against b\n")
    assert Path("f/x.html").read_text().startswith("<!DOCTYPE html>")
    assert out.startswith("Comparable: all settings that must match do.")
    assert typed("a", "b", "-q", "--csv", "f/y.csv")[2] == []


def test_parity_has_its_exit_codes(typed: Typed) -> None:
    losses = [0.7, 0.6, 0.5, 0.4]
    save(Path("a"), losses=losses)
    save(Path("same"), losses=losses, config={"seed": 1})
    save(Path("parts"), losses=[0.7, 0.6, 0.51, 0.4])
    code, out, errors = typed("--parity", "a", "same")
    assert (code, errors) == (0, [])
    assert "parity holds over 4 updates" in out
    code, out, _ = typed("--parity", "a", "parts")
    assert code == 1
    assert re.search(r"parity fails at update 3: A 0\.5, B 0\.51, apart by 1\.00e-02", out)
    assert typed("--parity", "a", "parts", "--steps", "2")[0] == 0
    made = json.loads(typed("--parity", "a", "parts", "--json")[1])
    assert (made["holds"], made["verdict"]["parting"]["step"]) == (False, 3)


def test_a_failed_run_says_so(typed: Typed) -> None:
    save(Path("a"))
    save(Path("b"), devices=2, status="failed", reason="did not fit into memory", metrics={}, rate=None, losses=())
    assert "b: failed: did not fit into memory" in typed("a", "b")[1]


def test_losses_that_are_gone_are_said_and_the_rest_is_shown(typed: Typed) -> None:
    save(Path("a"), losses=[0.5] * 1500)
    save(Path("b"), devices=2)
    assert Path("a/losses.json").exists()
    assert len(record(losses=[0.5] * 1500)["losses"]) == 1500
    Path("a/losses.json").unlink()
    code, out, _ = typed("a", "b")
    assert code == 0
    assert "a: a/losses.json: cannot be read" in out


@pytest.mark.slow
def test_a_thousand_records_take_under_five_seconds_and_a_gibibyte(tmp_path: Path) -> None:
    made = record(losses=[0.5 + 0.0001 * step for step in range(345)])
    for number in range(1000):
        system, seed = divmod(number, 10)
        config = {"seed": seed, "optimizer.beta1": 0.9, "data.cache": "x" * 200}
        write(tmp_path / f"s{system}-seed{seed}" / "record.json", made | {"config": config | {"log": system}})
    # how fast this machine is just now: a fixed piece of work in the same process, before
    program = "import resource, sys, time; from bertkit.cli.main import main\n"
    program += "begun = time.process_time(); sum(i * i for i in range(3_000_000)); work = time.process_time() - begun\n"
    program += "try: main()\nexcept SystemExit as end:\n"
    program += " use = resource.getrusage(resource.RUSAGE_SELF)\n"
    # not ru_maxrss, which a child takes over from a large parent (getrusage(2): kept across execve)
    program += " most = next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
    program += " print(end.code, use.ru_utime + use.ru_stime - work, work, most, file=sys.stderr)"
    words = ["compare", str(tmp_path), "-q", "--csv", "x.csv", "--html", "x.html"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    code, seconds, work, kibibytes = map(float, done.stderr.split())
    assert code == 0
    assert len((tmp_path / "x.csv").read_text().splitlines()) > 100
    slower = max(1.0, work / QUIET_WORK)
    assert seconds < 5 * slower, f"{seconds} s of computing, on a machine {slower:.1f} times as slow as a quiet one"
    assert kibibytes < 2**20, f"{kibibytes} KiB"
