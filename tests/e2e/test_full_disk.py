"""A disk that is full in the middle of a run: one line, and what was saved before stays whole."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command import NULL, checkpoints, record, remove_checkpoint, run, same_result, settings, updates
from conftest import assert_one_line_error, command_env

SMALL = (*NULL, *settings(data__train_rows=160, data__eval_rows=8, checkpoint__every=4), "-b", "8", "-e", "1")

# In a mount namespace of its own, so that nothing stays mounted. 3 MB hold one checkpoint of 2 MB, not two.
SCRIPT = """
mkdir disk && mount -t tmpfs -o size=3m none disk || exit 77
"$@" -o disk/run 2>first.err
echo $? >first.code
cp -r disk/run kept
mount -o remount,size=64m disk || exit 77
"$@" -o disk/run --resume 2>second.err
echo $? >second.code
cp -r disk/run run
"""


def in_a_small_disk(folder: Path, *arguments: str | Path) -> None:
    """Run the command on a full disk, then with --resume once there is space. Skips where nothing can be mounted."""
    root = [] if os.geteuid() == 0 else ["-r"]
    try:
        done = subprocess.run(
            ["unshare", *root, "-m", "sh", "-c", SCRIPT, "sh", sys.executable, "-m", "bertkit", *map(str, arguments)],
            cwd=folder,
            env=command_env(folder),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare on this system")
    if not (folder / "second.code").exists():
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_leaves_the_earlier_one_whole(sample_dir: Path, tmp_path: Path) -> None:
    arguments = (*SMALL, "--data-dir", sample_dir)
    in_a_small_disk(tmp_path, *arguments)
    failed = subprocess.CompletedProcess[str](
        [], int((tmp_path / "first.code").read_text()), "", (tmp_path / "first.err").read_text()
    )
    assert_one_line_error(failed, "step-00000008", "No space left", "free some space")
    assert checkpoints(tmp_path / "kept") == [4]
    assert not list((tmp_path / "kept").rglob("*.part"))
    said = (tmp_path / "second.err").read_text()
    assert (tmp_path / "second.code").read_text().strip() == "0", said
    assert "continuing after update 4 of 20" in said
    assert run(tmp_path, *arguments, "-o", "whole").returncode == 0
    same_result(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_one_line_too(sample_dir: Path, tmp_path: Path) -> None:
    arguments = (*SMALL, "--data-dir", sample_dir)
    assert run(tmp_path, *arguments, "-o", "whole").returncode == 0
    folder = tmp_path / "run"
    shutil.copytree(tmp_path / "whole", folder)
    remove_checkpoint(folder, 20)
    (folder / "record.json").unlink()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))

    failed = run(tmp_path, *arguments, "-o", "run", "--resume", limit=limit)
    assert_one_line_error(failed, "step-00000020", "File too large", "free some space")
    assert checkpoints(folder) == [12, 16]
    assert not list(folder.rglob("*.part"))
    assert not (folder / "record.json").exists()
    done = run(tmp_path, *arguments, "-o", "run", "--resume")
    assert done.returncode == 0, done.stderr
    assert "continuing after update 16 of 20" in done.stderr
    same_result(folder, tmp_path / "whole")
    assert updates(folder) == list(range(1, 21))
    assert len(record(folder)["losses"]) == 20
