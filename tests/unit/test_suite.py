"""Suites: which cells they have, how a cell's end is judged, and what a second call does again."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bertkit.bench import cells as cells_module
from bertkit.bench.cells import CellOutcome, How, command, judge, measure, open_suite, read_outcome, run_cells
from bertkit.bench.suite import Cell, Wanted, cells, read_suites
from bertkit.bench.table import show_outcomes, summary, total
from bertkit.comparison.load import read
from bertkit.errors import UserError
from bertkit.records.files import load, sealed, write_all
from bertkit.records.schema import Status, blank

CELL = Cell("infer", "tiny", "fp32", "mrpc", 128, 4)
HOW = How("null", steps=5, timeout=20.0)
COPIES = "import shutil, sys; shutil.copy({!r}, sys.argv[1])"


def left(status: Status = "measured", reason: str | None = None) -> dict[str, Any]:
    """The record that a cell's process leaves; its figures are made up."""
    made = blank("bench") | {"status": status, "reason": reason}
    made["case"] = {"model": "tiny", "lengths": "mrpc", "batch_size": 4, "loss": None}
    made["throughput"] |= {"sequences_per_second": 12.5, "tokens_per_second": 900.0}
    made["time"]["step_seconds"] = {"p50": 0.001, "p99": 0.002}
    return sealed(made)


@pytest.fixture
def leaves_a_record(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program that leaves it where its first argument says."""
    path = tmp_path_factory.mktemp("left") / "bench.json"
    write_all(path, [left()])
    return COPIES.format(str(path))


def test_the_packaged_grids_are_the_reference_systems() -> None:
    suites = read_suites("all")
    assert list(suites) == ["squad-train", "squad-infer", "glue"]
    infer, _ = cells(read_suites("squad-infer"), Wanted(["base"], ["fp16"]), ["fp32", "fp16"])
    assert [(cell.cut, cell.batch) for cell in infer] == [(cut, b) for cut in (128, 384) for b in (1, 2, 4, 8)]
    train, _ = cells(read_suites("squad-train"), Wanted(["large"], ["bf16"]), ["bf16"])
    assert {(cell.cut, cell.batch) for cell in train} == {
        *((cut, batch) for cut in (128, 384) for batch in (1, 2, 4)), (384, 16), (384, 24), (384, 32),
    }  # fmt: skip
    everything, _ = cells(suites, Wanted(), ["fp32", "tf32", "bf16", "fp16"])
    assert len({cell.name for cell in everything}) == len(everything), "two cells share a file"


def test_what_a_backend_lacks_is_left_out_and_said() -> None:
    found, lacking = cells(read_suites("glue"), Wanted(), ["fp32", "bf16"])
    assert {cell.precision for cell in found} == {"fp32", "bf16"}
    assert sorted(lacking) == ["fp16", "tf32"]
    with pytest.raises(UserError, match="no cell of the suite is asked for; the backend lacks fp16"):
        cells(read_suites("glue"), Wanted(precisions=["fp16"]), ["fp32"])


def test_a_model_of_ones_own_goes_through_every_grid() -> None:
    found, _ = cells(read_suites("glue"), Wanted(["models/mine"], ["fp32"]), ["fp32"])
    assert {cell.model for cell in found} == {"models/mine"}
    assert {cell.batch for cell in found} == {16, 32, 64, 128}
    assert found[0].name == "train-mine-fp32-mrpc-s128-b16"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[a", "is not TOML"),
        ('[a]\ntitle = "A"\nkind = "train"\n', "grids: field required"),
        ('[a]\ntitle = "A"\nkind = "bake"\ngrids = []\n', "a.kind"),
        (
            '[a]\ntitle = "A"\nkind = "train"\n[[a.grids]]\nfrom = "x"\nmodels = ["tiny"]\nlengths = "mrcp"\n'
            'cuts = [8]\nbatches = [1]\nprecisions = ["fp32"]\n',
            "no length distribution 'mrcp'",
        ),
    ],
)
def test_a_file_that_is_no_suite_is_named(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UserError, match=words):
        read_suites(str(tmp_path / "mine.toml"))


def test_an_unknown_suite_is_named() -> None:
    with pytest.raises(UserError, match="no suite 'squad'; did you mean squad-"):
        read_suites("squad")


def test_a_cells_words() -> None:
    words = command(CELL, How("null", processes=2, steps=5, sets=("device.step_seconds=1",)), Path("x.json"))
    assert words[1:7] == ["-P", "-m", "bertkit", "launch", "-n", "2"]
    assert " ".join(words[8:]) == (
        "bench infer -m tiny -d fp32 -b 4 --lengths mrpc -s 128 --backend null -o x.json --overwrite "
        "--seed 1 --steps 5 --set device.step_seconds=1"
    )


@pytest.mark.parametrize(
    ("code", "said", "made", "status", "reason"),
    [
        (0, "", left(), "measured", ""),
        (None, "", None, "timed out", "not done after 9 s"),
        (1, "", left("does not fit", "out of memory: 3 GiB"), "does not fit", "out of memory: 3 GiB"),
        (1, "boom\nRuntimeError: can't allocate memory\n", None, "does not fit", "RuntimeError: can't allocate memory"),
        (-9, "", None, "does not fit", "killed by the system"),
        (137, "", None, "does not fit", "killed by the system"),
        (2, "bertkit: no bf16 here\n\n", None, "failed", "bertkit: no bf16 here"),
        (3, "", None, "failed", "exit code 3"),
        (0, "", None, "failed", "exit code 0"),
        (-11, "", left(), "failed", "exit code -11"),
    ],
)
def test_how_an_end_is_judged(code: int | None, said: str, made: Any, status: str, reason: str) -> None:
    found = judge(code, said, made, 9)
    assert found[0] == status
    assert found[1].startswith(reason)


def program(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let a cell run this program in place of bertkit; its first argument is the record's file."""
    words = [sys.executable, "-c", text]
    monkeypatch.setattr(cells_module, "command", lambda cell, how, record: [*words, str(record)])


def test_a_measured_cell_leaves_its_record_and_is_not_run_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, leaves_a_record: str
) -> None:
    program(monkeypatch, leaves_a_record)
    first = run_cells(tmp_path, [CELL], HOW, lambda *_: None)
    assert first == [CellOutcome(CELL, "measured", "", left())]
    assert not load(tmp_path / f"{CELL.name}.json").edited
    assert [path.name for path in tmp_path.iterdir()] == [f"{CELL.name}.json"]
    program(monkeypatch, "raise SystemExit('run again')")
    told: list[bool] = []
    again = run_cells(tmp_path, [CELL], HOW, lambda number, outcome, before: told.append(before))
    assert again == first
    assert told == [True]


def test_a_cell_that_hangs_is_ended_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child = tmp_path / "child"
    program(
        monkeypatch,
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(child)!r}, 'w').write(str(p.pid))\n"
        "time.sleep(60)\n",
    )
    monkeypatch.setattr(cells_module, "GRACE_S", 0.2)
    outcome = measure(tmp_path, CELL, How("null", timeout=2.0))
    assert (outcome.status, outcome.reason) == ("timed out", "not done after 2 s")
    pid = int(child.read_text())
    for _ in range(50):
        if not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z":
            break
        time.sleep(0.1)
    else:
        os.kill(pid, signal.SIGKILL)
        pytest.fail("what the cell had started goes on")
    assert read_outcome(tmp_path, CELL) == outcome, "a cell that took too long is a result"


def test_a_cell_beyond_its_memory_does_not_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(
        monkeypatch,
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "import numpy\nnumpy.ones(1 << 30)\n",
    )
    outcome = measure(tmp_path, CELL, HOW)
    assert outcome.status == "does not fit"
    assert "allocate" in outcome.reason
    made = load(tmp_path / f"{CELL.name}.json").mapping
    assert (made["status"], made["case"]["batch_size"], made["precision"]["name"]) == ("does not fit", 4, "fp32")
    assert made["throughput"]["sequences_per_second"] is None
    assert "Traceback" in (tmp_path / f"{CELL.name}.log").read_text()


def test_a_cell_that_failed_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, leaves_a_record: str
) -> None:
    program(monkeypatch, "raise SystemExit('bertkit: the disk is on fire')")
    assert run_cells(tmp_path, [CELL], HOW, lambda *_: None)[0].reason == "bertkit: the disk is on fire"
    assert read_outcome(tmp_path, CELL) is None
    program(monkeypatch, leaves_a_record)
    assert run_cells(tmp_path, [CELL], HOW, lambda *_: None)[0].status == "measured"
    assert [path.name for path in tmp_path.iterdir()] == [f"{CELL.name}.json"], "what it said is gone"


def test_a_suites_folder_is_compared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, leaves_a_record: str) -> None:
    open_suite(tmp_path / "suite", "mine", HOW)
    program(monkeypatch, leaves_a_record)
    run_cells(tmp_path / "suite", [CELL], HOW, lambda *_: None)
    program(monkeypatch, "import time; time.sleep(60)")
    hung = Cell("infer", "tiny", "fp32", "mrpc", 128, 8)
    run_cells(tmp_path / "suite", [hung], How("null", steps=5, timeout=0.3), lambda *_: None)
    entries, left_out = read([str(tmp_path / "suite")], lambda *_: None)
    assert left_out == []
    assert [one.figures["sequences_per_second"] for one in entries] == [12.5, None]
    assert entries[1].marks == ["timed out: not done after 0.3 s"]


def test_sigterm_ends_the_cell_under_way_and_keeps_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, leaves_a_record: str
) -> None:
    program(monkeypatch, leaves_a_record)
    second = Cell("infer", "tiny", "fp32", "mrpc", 128, 8)

    def tell(number: int, outcome: CellOutcome, before: bool) -> None:
        program(monkeypatch, "import os, signal, time\nos.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(60)\n")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(UserError, match="stopped") as stopped:
        run_cells(tmp_path, [CELL, second], HOW, tell)
    assert stopped.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert read_outcome(tmp_path, CELL)
    assert read_outcome(tmp_path, second) is None


def test_a_folder_of_another_measurement_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "suite"
    open_suite(folder, "glue", HOW)
    open_suite(folder, "glue", HOW)
    with pytest.raises(UserError, match=r"another way: backend 'null', now 'cpu', steps 5, now 6; choose"):
        open_suite(folder, "glue", How("cpu", steps=6))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(UserError, match="holds other files"):
        open_suite(tmp_path / "other", "glue", HOW)
    (folder / f"{CELL.name}.json").write_text('{"status": "meas')
    with pytest.raises(UserError, match="remove it; its cell is then measured again"):
        read_outcome(folder, CELL)


def test_the_table_shows_every_end() -> None:
    import io

    hung = CellOutcome(Cell("train", "large", "bf16", "squad384", 384, 32), "timed out", "not done after 9 s")
    outcomes = [CellOutcome(CELL, "measured", "", left()), hung]
    stream = io.StringIO()
    show_outcomes(outcomes, stream)
    lines = stream.getvalue().splitlines()
    assert lines[1].split() == ["infer", "tiny", "fp32", "mrpc", "128", "4", "12.5", "900", "1", "2", "-"]
    assert lines[2].split()[6:8] == ["timed", "out"]
    assert lines[3] == "train-large-bf16-squad384-s384-b32: timed out: not done after 9 s"
    assert lines[4] == total(outcomes) == "2 cells: 1 measured, 1 timed out"
    assert [entry["status"] for entry in summary(outcomes)] == ["measured", "timed out"]
    assert summary(outcomes)[0]["record"] == left()
