"""The Gaudi backend on the software stand-in: the contract, thirteen mistakes of ports, training by the command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertkit.conformance import CHECKS
from command import record, settings
from conftest import Run, assert_one_line_error
from device.gaudi_mistakes import MISTAKES
from pretraining_runs import write_phases

Env = Callable[..., dict[str, str]]
SCRIPT = Path(__file__).with_name("gaudi_mistakes.py")
CHEAP = ("layouts", "split", "optimizer", "lamb", "clipping", "dropout", "resume", "host_waits", "memory")
SAMPLE = ("-t", "sample", "-m", "tiny", "-s", "32", "-b", "16", "--set", "train.steps=6", "--set", "log.every=3")
EXACT = ("--set", "model.hidden_dropout=0.0", "--set", "model.attention_dropout=0.0", "-d", "fp32")
QUICK = ("--set", "data.eval_rows=16", "--set", "evaluation.batch_size=16", "--set", "device.shapes=2")


def mistakes(env: dict[str, str], folder: Path) -> dict[str, dict[str, str]]:
    out = folder / "mistakes.json"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), str(out)], env=env, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, dict[str, str]] = json.loads(out.read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "eager"])
def test_thirteen_mistakes_of_ports_are_not_made_and_would_be_found(gaudi_env: Env, tmp_path: Path, lazy: bool) -> None:
    """Each is planted in the same process, where its own check must fail."""
    found = mistakes(gaudi_env(lazy), tmp_path)
    assert len(found) == sum(mode in ("", "lazy" if lazy else "eager") for _, _, mode in MISTAKES.values())
    made = {name: seen["kept"] for name, seen in found.items() if seen["kept"]}
    assert not made, "\n".join(f"{name}: {why}" for name, why in made.items())
    assert not [name for name, seen in found.items() if not seen["planted"]], "planted and not found"


@pytest.mark.parametrize(
    ("lazy", "settings", "only"),
    [
        (True, (), CHEAP),
        pytest.param(True, (), (), marks=pytest.mark.slow),
        pytest.param(True, ("device.graphs=true",), (), marks=pytest.mark.slow),
        pytest.param(True, ("device.recompute=true",), ("reference", "dropout"), marks=pytest.mark.slow),
        pytest.param(
            True,
            ("device.operators=mlperf", "device.attention=plain", "device.graphs=true"),
            ("precisions", "dropout"),
            marks=pytest.mark.slow,
        ),
        # The rest, in lazy mode above: what is compiled here differs by head and layout alone.
        pytest.param(False, (), ("layouts", "precisions", "resume", "static_shapes"), marks=pytest.mark.slow),
        pytest.param(False, ("device.compile=off", "device.attention=sdpa"), CHEAP, marks=pytest.mark.slow),
    ],
)
def test_the_contract(
    bertkit: Run, gaudi_env: Env, lazy: bool, settings: tuple[str, ...], only: tuple[str, ...]
) -> None:
    sets = [word for setting in settings for word in ("--set", setting)]
    names = [word for name in only for word in ("--only", name)]
    done = bertkit("check", "gaudi", *sets, *names, "--json", timeout=600, **gaudi_env(lazy))
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert report["passed"] == len(only or CHECKS), done.stderr
    assert report["engine"]["mode"].startswith("lazy" if lazy else "eager")
    assert "standin" in report["engine"]["habana_frameworks"]


@pytest.mark.slow
def test_training_by_the_command_gives_the_losses_of_the_cpu(
    bertkit: Run, gaudi_env: Env, sample_dir: Path, tmp_path: Path
) -> None:
    """And its folder is of use where no Gaudi is: it is evaluated on the CPU."""
    said = tmp_path / "standin.json"
    data = ("--data-dir", sample_dir)
    env = gaudi_env(True, HPU_STANDIN_REPORT=str(said))
    done = bertkit("train", "--backend", "hpu", *SAMPLE, *EXACT, *QUICK, *data, "-o", "g", **env)
    assert done.returncode == 0, done.stderr
    assert "PT_HPU_LAZY_MODE=1 (ours)" in done.stderr
    on_cpu = bertkit("train", "--backend", "cpu", *SAMPLE, *EXACT, *QUICK[:4], *data, "-o", "c")
    assert on_cpu.returncode == 0, on_cpu.stderr
    gaudi, cpu = (record(tmp_path / name) for name in ("g", "c"))
    assert gaudi["losses"] == pytest.approx(cpu["losses"], abs=1e-5)
    assert gaudi["hardware"]["device"]["model"] == "GAUDI2"
    seen = json.loads(said.read_text())
    assert seen["implicit"] == []
    assert seen["mark_steps"] >= 12
    assert not re.search("new sizes", done.stderr)
    scored = bertkit("evaluate", tmp_path / "g", "--backend", "cpu", *data, "--set", "data.eval_rows=16", "--json")
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["metrics"]["accuracy"] == pytest.approx(gaudi["metrics"]["accuracy"], abs=0.07)


@pytest.mark.slow
@pytest.mark.parametrize("data", ["rows", "shards"])
def test_a_student_learns_on_it_what_it_does_on_the_cpu(
    bertkit: Run, gaudi_env: Env, sample_dir: Path, tmp_path: Path, data: str
) -> None:
    """States, then logits; of shards masked words and hidden states. Teacher and student are both on the device."""
    common = ("-s", "32", "-b", "16", *EXACT, *settings(train__steps=6, log__every=3, data__eval_rows=16))
    of_rows = ("-t", "sample", "--data-dir", sample_dir, *common)
    of_shards = ("-t", "pretrain", "--data-dir", write_phases(tmp_path), *common)
    given = of_rows if data == "rows" else of_shards
    made = bertkit("train", "--backend", "cpu", "-m", "tiny", *given, "-o", "teacher")
    assert made.returncode == 0, made.stderr
    words = ("distill", "teacher", "--layers", "1", "--stages", "relations,logits", *given)
    words += tuple(settings(distill__hard=2, distill__cosine=1)) if data == "shards" else ()
    for backend, more, env in (("cpu", [], {}), ("hpu", settings(device__shapes=2), gaudi_env(True))):
        done = bertkit(*words, *more, "--backend", backend, "-o", backend, **env)
        assert done.returncode == 0, done.stderr
    for stage in ("-relations", ""):
        gaudi, cpu = (record(tmp_path / f"{name}{stage}") for name in ("hpu", "cpu"))
        assert gaudi["losses"] == pytest.approx(cpu["losses"], abs=1e-5)
        facts = [one["callbacks"]["distillation"]["teacher_forward_passes"] for one in (gaudi, cpu)]
        assert facts[0] == facts[1] > 0


def test_variables_that_are_gone_are_refused(bertkit: Run, gaudi_env: Env, sample_dir: Path) -> None:
    env = gaudi_env(True, HCL_CONFIG_PATH="/tmp/hcl.json")  # noqa: S108 - never opened
    done = bertkit("train", "--backend", "gaudi", *SAMPLE, "--data-dir", sample_dir, **env)
    assert_one_line_error(done, "HCL_CONFIG_PATH", "no longer exists", "MULTI_HLS_IPS")


@pytest.mark.slow
def test_operators_of_a_gaudi_config_reach_autocast(gaudi_env: Env, tmp_path: Path) -> None:
    """Lists are read when the package is imported; that of bf16 goes first, so an operator must be in one alone.

    With all but softmax kept in fp32, bf16 logits come nearer to fp32's.
    """
    config = tmp_path / "gaudi_config.json"
    operators = {"autocast_bf16_ops": ["softmax"], "autocast_fp32_ops": ["linear", "matmul", "layer_norm", "dropout"]}
    config.write_text(json.dumps({"use_fused_adam": True, **operators}))
    code = (
        "import json, sys, numpy as np\n"
        "from bertkit.conformance.report import configured\n"
        "from bertkit.conformance.fixtures import example_batch, job, with_settings\n"
        "from bertkit_gaudi import GaudiBackend\n"
        "batch = example_batch('classification')\n"
        "backend = configured(GaudiBackend(), sys.argv[1:])\n"
        "found = [with_settings(backend, job('classification', precision=p)).predict(batch)['logits']"
        " for p in ('fp32', 'bf16')]\n"
        "print(float(np.abs(found[0] - found[1]).max()))\n"
    )
    gaps = []
    for more in ([], [f"device.gaudi_config={config}"]):
        env = gaudi_env(True, BERTKIT_CACHE=str(tmp_path / "cache"))
        command = [sys.executable, "-W", "ignore", "-c", code, "device.attention=plain", *more]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        gaps.append(float(done.stdout))
    assert 0 < gaps[1] < gaps[0], gaps


def minilm(real_data: Path, batch: int, output: str) -> list[str]:
    words = ["-m", real_data / "minilm", "-t", "mrpc", "--data-dir", real_data / "glue", "-b", batch, "-o", output]
    return [*map(str, words), "--set", "train.steps=4", "--set", "log.every=2", *EXACT, *QUICK]


@pytest.mark.slow
def test_mrpc_with_a_real_encoder_in_both_modes_and_on_two_ranks(
    bertkit: Run, gaudi_env: Env, real_data: Path, tmp_path: Path
) -> None:
    on_cpu = bertkit("train", "--backend", "cpu", *minilm(real_data, 16, "c")[:-2])
    assert on_cpu.returncode == 0, on_cpu.stderr
    wanted = record(tmp_path / "c")["losses"]
    runs: dict[str, Any] = {}
    for mode in ("eager", "lazy"):
        said = tmp_path / f"{mode}.json"
        env = gaudi_env(mode == "lazy", HPU_STANDIN_REPORT=str(said))
        done = bertkit("train", "--backend", "gaudi", *minilm(real_data, 16, mode), timeout=600, **env)
        assert done.returncode == 0, done.stderr
        assert "0 unforeseen" in done.stderr
        runs[mode] = json.loads(said.read_text())
    mpirun = shutil.which("mpirun")
    if mpirun:
        env = {**gaudi_env(True, HPU_STANDIN_REPORT=str(tmp_path / "ranks.json")), "BERTKIT_CACHE": str(tmp_path)}
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        start = [mpirun, *root, "--oversubscribe", "-n", "2", sys.executable, "-m", "bertkit", "train"]
        command = [*start, "--backend", "gaudi", *minilm(real_data, 8, "ranks")]
        ranks = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
        assert ranks.returncode == 0, ranks.stderr
        reports = [json.loads((tmp_path / f"ranks.json.{rank}").read_text()) for rank in (0, 1)]
        assert [report["environment"]["HLS_MODULE_ID"] for report in reports] == ["0", "1"]
        assert all(len(report["collectives"]) == 2 * 4 for report in reports)  # gradients and loss, once an update
        runs["ranks"] = reports[0]
    for name in runs:
        assert record(tmp_path / name)["losses"] == pytest.approx(wanted, abs=2e-6), name
        assert runs[name]["implicit"] == []
