"""`bertkit --help` loads no framework and no heavy library, and answers at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import command_env
from made_records import save

HEAVY = "torch tensorflow jax transformers sklearn scipy pydantic tokenizers safetensors mpi4py huggingface_hub".split()
PROGRAM = """
import json, sys, time
from bertkit.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as error:
    code = error.code
loaded = sorted({name.split(".")[0] for name in sys.modules})
print("@@" + json.dumps({"code": code, "seconds": time.process_time(), "loaded": loaded}), file=sys.stderr)
"""


def command(folder: Path, *arguments: str) -> tuple[str, dict[str, object]]:
    """What a command prints, and its exit code, CPU seconds and loaded packages."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        env=command_env(folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "@@" in done.stderr, done.stderr
    return done.stdout, json.loads(done.stderr.rpartition("@@")[2])


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--help"], "train"),
        (["-h"], "backends"),
        (["train", "-h"], "--batch-size"),
        (["score", "-h"], "--null-odds"),
        (["serve", "-h"], "--max-tokens"),
        (["client", "squad", "-h"], "--concurrency"),
        (["bench", "serve", "-h"], "--rate"),
        (["convert", "-h"], "--moments"),
        (["compare", "-h"], "--parity"),
        (["config", "show", "--help"], "--resolved"),
        (["--version"], "bertkit "),
        (["help"], "first-run"),
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str], shown: str, tmp_path: Path) -> None:
    out, seen = command(tmp_path, *arguments)
    assert seen["code"] == 0
    assert shown in out
    typers_own = {"pydantic"} if arguments[0][0] != "-" else set[str]()  # typer loads it to read a command's options
    assert [name for name in HEAVY if name in seen["loaded"] and name not in typers_own] == []  # type: ignore[operator]


def test_help_takes_under_a_second_of_computing(tmp_path: Path) -> None:
    seconds = [float(command(tmp_path, "--help")[1]["seconds"]) for _ in range(2)]  # type: ignore[arg-type]
    assert min(seconds) < 1.0, seconds


@pytest.mark.parametrize("arguments", [["backends", "--json"], ["backends", "cpu", "--json"]])
def test_looking_at_backends_imports_no_framework(arguments: list[str], tmp_path: Path) -> None:
    out, seen = command(tmp_path, *arguments)
    assert seen["code"] == 0
    names = [entry["name"] for entry in json.loads(out)]
    assert "cpu" in names
    assert {"torch", "tensorflow", "transformers"}.isdisjoint(seen["loaded"])  # type: ignore[arg-type]
    assert "intel_extension_for_pytorch" not in seen["loaded"]  # type: ignore[operator]


def seconds_of_libraries() -> float:
    """CPU seconds of loading what the command line needs of others: the unit of this machine at this moment."""
    program = "import time, numpy, pydantic.types, typer; print(time.process_time())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return float(done.stdout)


def test_looking_at_every_card_takes_under_four_times_what_loading_its_libraries_takes(tmp_path: Path) -> None:
    """By the best of some pairs, each measured at one time: other work on a core's other half doubles CPU time."""
    shares = []
    for _ in range(4):
        libraries, (out, seen) = seconds_of_libraries(), command(tmp_path, "backends")
        assert seen["code"] == 0
        names = ["accelerator:", "cpu", "cuda", "gaudi", "iluvatar", "jax:", "null:", "onnxruntime", "openvino:"]
        names += ["tensorflow", "xpu"]
        assert [line.partition(" ")[0] for line in out.splitlines()] == names
        assert all(": ready: " in line or ": not ready: " in line for line in out.splitlines())
        assert "torch" not in seen["loaded"]  # type: ignore[operator]
        shares.append(float(seen["seconds"]) / libraries)  # type: ignore[arg-type]
    assert min(shares) < 4, shares


def test_comparing_loads_no_framework_and_no_plots_unless_asked(tmp_path: Path) -> None:
    save(tmp_path / "a")
    out, seen = command(tmp_path, "compare", "a", "--json")
    assert seen["code"] == 0
    assert json.loads(out)["systems"][0]["name"] == "a"
    assert {"torch", "transformers", "sklearn", "scipy", "matplotlib", "jinja2"}.isdisjoint(seen["loaded"])  # type: ignore[arg-type]


def test_config_show_and_recipes_load_no_framework(tmp_path: Path) -> None:
    for arguments in (["config", "show", "--json"], ["recipes", "--json"], ["models", "--json"]):
        out, seen = command(tmp_path, *arguments)
        assert seen["code"] == 0, arguments
        assert json.loads(out)
        assert {"torch", "transformers", "sklearn", "scipy"}.isdisjoint(seen["loaded"])  # type: ignore[arg-type]
