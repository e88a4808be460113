"""`bertkit migrate` as typed: words without quotes, scripts on standard input, exit codes, text that is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Run, assert_one_line_error

DEMO = "./demo_bert finetuning -d bf16 -m large -t mrpc -b 64 -s 128 -v"


def piped(folder: Path, text: bytes, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bertkit", "migrate", *words]
    done = subprocess.run(command, input=text, cwd=folder, capture_output=True, timeout=60, check=False)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_the_same_in_quotes_without_and_from_standard_input(bertkit: Run, tmp_path: Path) -> None:
    ways = [bertkit("migrate", DEMO), bertkit("migrate", *DEMO.split())]
    ways += [piped(tmp_path, DEMO.encode()), piped(tmp_path, f"\ufeff{DEMO}\r\n".encode(), "-")]
    assert [done.returncode for done in ways] == [0] * 4, ways[-1].stderr
    assert len({done.stdout for done in ways}) == 1
    assert ways[0].stdout.startswith("bertkit launch -n 8 -- train --backend gaudi --recipe habana-mrpc-large -m ")


def test_hugging_faces_words_reach_it_unchanged(bertkit: Run) -> None:
    line = "python run_glue.py --model_name_or_path m --task_name mrpc --fp16 --gradient_accumulation_steps 2"
    done = bertkit("migrate", *line.split())
    assert done.returncode == 0, done.stderr
    assert "-m m -d fp16 -b 16" in done.stdout
    assert done.stderr == ""


def test_options_of_migrate_stand_before_the_old_command(bertkit: Run) -> None:
    done = bertkit("migrate", "--json", "--backend", "cpu", *DEMO.split())
    made = json.loads(done.stdout)
    assert "--backend cpu" in made["commands"][0]["command"]
    assert made["not_understood"] == []
    assert {note["kind"] for note in made["notes"]} == {"differs"}


def test_the_framework_is_kept_where_that_is_asked_for(bertkit: Run) -> None:
    line = "scripts/finetune_train_benchmark.sh large true 8 squad"
    done = bertkit("migrate", "--same-framework", *line.split())
    assert done.stdout.startswith("bertkit bench --backend tensorflow --suite squad-train")
    assert "--set device.xla=true" in done.stdout.splitlines()[0]
    done = bertkit("migrate", "--same-framework", "--backend", "cpu", *line.split())
    assert_one_line_error(done, "--backend and --same-framework exclude each other; give one of them")


def test_a_program_that_is_not_known_is_exit_code_1(bertkit: Run, tmp_path: Path) -> None:
    done = bertkit("migrate", "python mine.py --x")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "mine.py is none of the programs that are known" in done.stderr
    done = piped(tmp_path, f"python mine.py\n{DEMO}\n".encode())
    assert done.returncode == 1
    assert done.stdout.startswith("bertkit launch")
    assert "# not understood: mine.py is none" in done.stdout
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [b"", b"python 'x", b"a\0b", b"python \xff", b"a" * (2 << 20), b"[ " * 60_000, b"\n" * 9],
    ids=lambda text: repr(text[:8]),
)
def test_text_that_is_no_command_is_one_line(text: bytes, tmp_path: Path) -> None:
    done = piped(tmp_path, text)
    assert_one_line_error(done)


def test_bytes_of_a_command_line_that_are_not_utf8(tmp_path: Path) -> None:
    command = [os.fsencode(sys.executable), b"-m", b"bertkit", b"migrate", b"python run_glue.py \xff"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == b"bertkit: the old command is not UTF-8; give it in that encoding\n"
