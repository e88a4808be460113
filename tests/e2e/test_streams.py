"""What a command prints reaches any stream: of another encoding, closed, full, a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import command_env
from made_records import save

COMMANDS = (
    ("models",), ("models", "--json"), ("backends",), ("backends", "--json"), ("config", "show"),
    ("config", "show", "--json"), ("recipes",), ("data", "list"), ("data", "list", "--json"), ("compare", "é", "ü😀"),
    ("compare", "é", "ü😀", "--json"), ("compare", "--published", "list"), ("compare", "é", "ü😀", "--parity"),
    ("data", "inspect", "shards", "--samples", "2"), ("bench", "--suite", "all", "--dry-run"),
    ("migrate", "python run_glue.py --task_name mrpc --model_name_or_path é😀"),
    ("launch", "-n", "1", "--dry-run", "train", "-t", "mrpc", "-m", "é😀"),
    ("score", "é", "-t", "mrpc", "--gold", "😀"),
)  # fmt: skip
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ALL = """
import os, sys
from bertkit.cli import main as cli
for words in eval(sys.argv[1]):
    words = [os.fsdecode(word.encode()) for word in words]  # as arguments come
    try:
        cli.main(words)
    except SystemExit as end:
        print(words[0], end.code, file=sys.stderr)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two runs and pre-training data whose names and words few encodings have."""
    from pretraining_files import known_sequences, write_hdf5, write_vocabulary

    for name in ("é", "ü😀"):
        save(tmp_path / name, devices=len(name))
    (tmp_path / "shards").mkdir()
    vocab = write_vocabulary(tmp_path / "shards")
    vocab.write_text(vocab.read_text(encoding="utf-8").replace("word7\n", "😀\n"), encoding="utf-8")
    write_hdf5(tmp_path / "shards" / "a.hdf5", known_sequences(20))
    return tmp_path


@pytest.mark.parametrize(
    "encoding",
    [{"PYTHONIOENCODING": "gbk"}, {"PYTHONIOENCODING": "latin-1"}, ASCII],
    ids=["gbk", "latin-1", "ASCII"],
)  # fmt: skip
def test_every_command_that_prints_bears_any_encoding(encoding: dict[str, str], place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALL, ascii(COMMANDS)],
        cwd=place, env=command_env(place) | encoding, capture_output=True, timeout=200, check=False,
    )  # fmt: skip
    said = done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0, said
    assert "Traceback" not in said
    assert "unexpected error" not in said
    assert b"\\U0001f600" in done.stdout
    assert done.stdout.decode(encoding.get("PYTHONIOENCODING", "ascii"))


def test_files_are_utf_8_whatever_the_stream_is(place: Path) -> None:
    env = command_env(place) | ASCII
    words = ("compare", "é", "ü😀", "--markdown", "out.md", "--csv", "out.csv")
    done = subprocess.run(
        [sys.executable, "-m", "bertkit", *words], cwd=place, env=env, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ü😀" in (place / "out.md").read_text(encoding="utf-8")
    assert "ü😀" in (place / "out.csv").read_text(encoding="utf-8")


def shell(place: Path, line: str) -> subprocess.CompletedProcess[str]:
    env = command_env(place) | {"BERTKIT": sys.executable}
    return subprocess.run(
        ["sh", "-c", line], cwd=place, env=env, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize("words", ["models", "models --json", "config show", "compare é", "data list --json"])
def test_a_full_device_is_one_line(words: str, place: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = shell(place, f"$BERTKIT -m bertkit {words} > /dev/full")
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "bertkit: standard output cannot be written: No space left on device"
    )
    assert "Traceback" not in done.stderr
    assert shell(place, f"$BERTKIT -m bertkit {words} 2> /dev/full").returncode == 0
    assert shell(place, "$BERTKIT -m bertkit modles 2> /dev/full").returncode == 2


def test_closed_streams_are_no_fault(place: Path) -> None:
    for closed in (">&-", "2>&-", "<&-", ">&- 2>&- <&-"):
        done = shell(place, f"$BERTKIT -m bertkit compare é ü😀 --csv out.csv {closed}")
        assert done.returncode == 0, (closed, done.stderr)
        assert "Traceback" not in done.stderr
        assert (place / "out.csv").read_text(encoding="utf-8").startswith("record") or (
            place / "out.csv"
        ).stat().st_size
        (place / "out.csv").unlink()
    assert shell(place, "$BERTKIT -m bertkit modles 2>&-").returncode == 2


def test_what_a_terminal_would_obey_is_shown_on_it_and_kept_in_a_file(tmp_path: Path) -> None:
    program = (
        "from bertkit.files import streams; streams.prepare(); "
        "streams.put('a\\x1b[31mb\\u202ec'); streams.put_json('\"\\x1b\"')"
    )
    held, terminal = pty.openpty()
    subprocess.run([sys.executable, "-c", program], stdout=terminal, env=command_env(tmp_path), check=True)
    os.close(terminal)
    shown = os.read(held, 1000)
    os.close(held)
    assert shown.splitlines() == [b"a\\x1b[31mb\\u202ec", b'"\x1b"']
    piped = subprocess.run([sys.executable, "-c", program], capture_output=True, env=command_env(tmp_path), check=True)
    assert piped.stdout.splitlines()[0] == "a\x1b[31mb\u202ec".encode()
