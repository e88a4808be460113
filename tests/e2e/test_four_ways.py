"""One real fine-tuning on four systems, compared in every form: MRPC with MiniLM, fp32, bf16, 2 ranks, another chip."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bertkit.comparison.load import read_one
from bertkit.comparison.parity import hold
from command import settings
from conftest import command_env

pytestmark = pytest.mark.slow
STEPS = 8
COMMON = (
    "train", "-t", "mrpc", "-s", "128", *settings(train__steps=STEPS, data__eval_rows=16, log__every=2),
    *settings(model__hidden_dropout=0, model__attention_dropout=0),
)  # fmt: skip
FORMS = {"--markdown": "four.md", "--csv": "four.csv", "--html": "four.html"}


@pytest.fixture(scope="module")
def folder(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs by the CPU."""
    made = tmp_path_factory.mktemp("four")
    words = data_words(real_data)
    ran(made, *COMMON, *words, "--backend", "cpu", "-d", "fp32", "-b", "8", "-o", "fp32")
    ran(made, *COMMON, *words, "--backend", "cpu", "-d", "bf16", "-b", "8", "-o", "bf16")
    ran(made, "launch", "-n", "2", "--", *COMMON, *words, "--backend", "cpu", "-d", "fp32", "-b", "4", "-o", "ranks")
    return made


@pytest.fixture(scope="module")
def far(folder: Path, real_data: Path, gaudi_env: Callable[..., dict[str, str]]) -> Path:
    """The fourth run, by the Gaudi stand-in."""
    words = (*COMMON, *data_words(real_data), "--backend", "gaudi", "-d", "fp32", "-b", "8")
    ran(folder, *words, *settings(device__compile="off"), "-o", "far", env=gaudi_env(lazy=False))
    return folder


def data_words(real_data: Path) -> tuple[str, ...]:
    return "-m", str(real_data / "minilm"), "--data-dir", str(real_data / "glue")


def ran(folder: Path, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "bertkit", *words],
        cwd=folder, env=command_env(folder) | (env or {}), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("name", ["ranks", "bf16"])
def test_another_number_of_ranks_and_another_precision_are_at_parity(folder: Path, name: str) -> None:
    found = hold(read_one(folder / "fp32"), read_one(folder / name))
    assert found.verdict.holds, found
    assert found.verdict.steps == STEPS


@pytest.mark.parametrize("name", ["fp32", "ranks"])
def test_another_chip_is_at_parity(far: Path, name: str) -> None:
    found = hold(read_one(far / name), read_one(far / "far"))
    assert found.verdict.holds, found
    assert found.verdict.steps == STEPS
    assert found.reasons == []


def test_all_four_are_compared_in_every_form(far: Path) -> None:
    names = ["fp32", "bf16", "ranks", "far"]
    done = ran(far, "compare", *names, "--strict", "--json", *(word for pair in FORMS.items() for word in pair))
    made = json.loads(done.stdout)
    assert [system["name"] for system in made["systems"]] == names
    assert [system["device"] for system in made["systems"]][3].startswith("GAUDI")
    # a loaded machine's peaks may be a tenth apart, which is noted
    peaks = [one for one in made["differences"] if one["field"] == "peak_flops"]
    assert all(one["weight"] == "noted" for one in peaks)
    assert {one["field"] for one in made["differences"] if one not in peaks} == {"precision", "devices"}
    rates = {one["name"]: one["figures"]["sequences_per_second"]["mean"] for one in made["systems"]}
    assert all(rate > 0 for rate in rates.values())
    rows = list(csv.DictReader(io.StringIO((far / FORMS["--csv"]).read_text())))
    told = {row["system"]: float(row["mean"]) for row in rows if row["figure"] == "sequences_per_second"}
    assert told == rates
    for form in ("--markdown", "--html"):
        text = (far / FORMS[form]).read_text()
        assert all(name in text for name in names)
    shown = ran(far, "compare", *names).stdout
    assert shown.startswith("Comparable: all settings that must match do.")
    assert shown.count("GAUDI") == 1
