"""The packaged recipes: each resolves, says what it means, and holds what its source holds."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from bertkit.errors import UserError
from bertkit.model.config import Head
from bertkit.recipes.resolve import describe_recipe, packaged, read_recipe, resolve
from bertkit.recipes.sections import DistillSection
from bertkit.training.distillation import check_section
from bertkit.training.phases import of_phase

SYSTEMS = ("nvidia", "habana", "intel", "google", "tinybert")
OF_SYSTEMS = [
    name for name in packaged() if name.startswith(SYSTEMS) and name not in ("intel-unsynced", "habana-mlperf")
]
# (task, precision, batch on each process, rate, warm-up, epochs, length) as the sources' scripts and documents say
SOURCES = {
    "nvidia-squad-a100-8": ("squad", "fp16", 32, 4.6e-5, 0.2, 2, 384),
    "nvidia-squad-a100-8-tf32": ("squad", "tf32", 32, 4.6e-5, 0.2, 2, 384),
    "nvidia-squad-v100-8": ("squad", "fp16", 32, 4.6e-5, 0.2, 2, 384),
    "nvidia-squad-v100-8-fp32": ("squad", "fp32", 16, 4.6e-5, 0.2, 2, 384),
    "nvidia-mrpc-a100-8": ("mrpc", "fp16", 128 // 8, 1.8e-5, 0.3, 3, 128),
    "nvidia-mrpc-a100-8-tf32": ("mrpc", "tf32", 128 // 8, 1.8e-5, 0.3, 3, 128),
    "nvidia-mrpc-v100-8": ("mrpc", "fp16", 128 // 8, 1.8e-5, 0.3, 3, 128),
    "nvidia-mrpc-v100-8-fp32": ("mrpc", "fp32", 128 // 8, 1.8e-5, 0.3, 3, 128),
    "nvidia-sst2-a100-8": ("sst2", "fp16", 1024 // 8, 1e-5, 0.1, 3, 128),
    "nvidia-sst2-a100-8-tf32": ("sst2", "tf32", 1024 // 8, 1e-5, 0.1, 3, 128),
    "nvidia-sst2-v100-8": ("sst2", "fp16", 1024 // 8, 1e-5, 0.1, 3, 128),
    "nvidia-sst2-v100-8-fp32": ("sst2", "fp32", 512 // 8, 1e-5, 0.1, 3, 128),
    "habana-mrpc-base": ("mrpc", "bf16", 32, 2e-5, 0.1, 3, 128),
    "habana-mrpc-large": ("mrpc", "bf16", 64, 2e-5, 0.1, 3, 128),
    "habana-squad-base": ("squad", "bf16", 32, 3e-5, 0.1, 2, 384),
    "habana-squad-large": ("squad", "bf16", 24, 3e-5, 0.1, 2, 384),
    "intel-squad": ("squad", "bf16", 24, 3e-5, 0.1, 2, 384),
    "intel-squad-per-socket": ("squad", "bf16", 24, 3e-5, 0.1, 2, 384),
    "intel-classifier": ("mrpc", "bf16", 32, 2e-5, 0.1, 30, 128),
    "intel-classifier-per-socket": ("mrpc", "bf16", 32, 2e-5, 0.1, 30, 128),
    "google-glue": ("mrpc", "fp32", 32, 2e-5, 0.1, 3, 128),
    "google-squad-base": ("squad", "fp32", 12, 3e-5, 0.1, 2, 384),
    "google-squad-large": ("squad", "fp32", 24, 3e-5, 0.1, 2, 384),
    "nvidia-squad": ("squad", "fp16", 4, 3e-5, 0.1, 2, 384),
    "nvidia-squad-fp32": ("squad", "fp32", 4, 3e-5, 0.1, 2, 384),
    "nvidia-glue": ("mrpc", "fp16", 16, 2.4e-5, 0.1, 3, 128),
    "nvidia-glue-fp32": ("mrpc", "fp32", 16, 2.4e-5, 0.1, 3, 128),
    "nvidia-distill-sst2-states": ("sst2", "fp16", 32, 5e-5, 0.0, 10, 128),
    "nvidia-distill-sst2-logits": ("sst2", "fp16", 32, 3e-5, 0.1, 3, 128),
    "nvidia-distill-squad-states": ("squad", "fp16", 32, 5e-5, 0.0, 9, 384),
    "nvidia-distill-squad-logits": ("squad", "fp16", 32, 3e-5, 0.1, 10, 384),
    "tinybert-sst2-states": ("sst2", "fp32", 32, 5e-5, 0.0, 10, 128),
    "tinybert-sst2-logits": ("sst2", "fp32", 32, 3e-5, 0.1, 3, 128),
}
# (what is learned, the schedule's decay, updates between evaluations) of those that are stages of a distillation
STAGES = {
    "nvidia-distill-sst2-states": ("last_layer", "constant", 0),
    "nvidia-distill-sst2-logits": ("logits", "linear", 100),
    "nvidia-distill-squad-states": ("last_layer", "constant", 0),
    "nvidia-distill-squad-logits": ("logits", "linear", 2000),
    "tinybert-sst2-states": ("tinybert", "constant", 0),
    "tinybert-sst2-logits": ("logits", "linear", 100),
}


# (length, global batch, updates, rate, warm-up, power, trust ratio) of both phases of the sources' pre-training
PRETRAINING = {
    ("pretrain-phase1", 1): (128, 65536, 7038, 6e-3, 0.2843, 0.5, "decayed"),
    ("pretrain-phase1", 2): (512, 32768, 1563, 4e-3, 0.128, 0.5, "decayed"),
    ("pretrain-phase2", 1): (512, 32768, 1563, 4e-3, 0.128, 0.5, "decayed"),
    ("habana-mlperf", 1): (512, 448, 6700, 4.25e-4, 0.0, 1.0, "all"),
    ("pretrain-mlperf", 1): (512, 648, 7400, 3.6e-4, 0.0, 1.0, "decayed"),
}


@pytest.mark.parametrize(("name", "phase"), PRETRAINING)
def test_pretraining_holds_what_its_source_holds(name: str, phase: int) -> None:
    recipe = of_phase(resolve({}, recipe=name, env={}).recipe, phase)
    course = recipe.schedule
    assert (
        recipe.data.seq_length, recipe.train.global_batch, recipe.train.steps, recipe.optimizer.learning_rate,
        course.warmup, course.power, recipe.optimizer.trust_ratio,
    ) == PRETRAINING[name, phase]  # fmt: skip
    assert (recipe.optimizer.name, recipe.optimizer.epsilon, course.decay_from) == ("lamb", 1e-6, "start")


def test_the_mlperf_run_of_gaudi_2_is_one_graph_over_packed_rows_with_its_own_lists() -> None:
    from bertkit.training.setup import device_settings
    from bertkit_gaudi import GaudiBackend, config_of

    recipe = resolve({}, recipe="habana-mlperf", env={}).recipe
    assert (recipe.backend, recipe.precision, recipe.train.micro_batch_size) == ("gaudi", "bf16", 448 // 8)
    assert recipe.ranks.gradients == "bf16"
    settings = device_settings(GaudiBackend(), recipe.device)
    assert (settings["mode"], settings["graphs"], settings["attention"]) == ("lazy", True, "plain")
    config = config_of(settings)
    assert {"add", "gelu", "index_add", "rsub", "log_softmax", "cross_entropy_loss"} < set(config.bf16_ops)
    assert recipe.evaluation.every_samples == 335 * 448


@pytest.mark.parametrize("name", packaged())
def test_each_resolves_and_sets_only_what_there_is(name: str) -> None:
    recipe = resolve({}, recipe=name, env={}).recipe
    assert recipe.train.epochs > 0
    assert len(describe_recipe(packaged()[name])) < 110


def test_none_is_without_its_source() -> None:
    assert set(SOURCES) == set(OF_SYSTEMS)


@pytest.mark.parametrize("name", SOURCES)
def test_each_holds_what_its_source_holds(name: str) -> None:
    recipe = resolve({}, recipe=name, env={}).recipe
    rate, warmup = recipe.optimizer.learning_rate, recipe.schedule.warmup
    found = (recipe.task, recipe.precision, recipe.train.batch_size, rate, warmup, recipe.train.epochs)
    assert (*found, recipe.data.seq_length) == SOURCES[name]
    assert recipe.optimizer.bias_correction is False, "none of these systems corrects Adam's bias"
    assert recipe.optimizer.epsilon == (1e-8 if recipe.precision == "fp16" else 1e-6)
    assert recipe.optimizer.clip_norm == 1.0


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_of_a_distillation_is_the_sources(name: str) -> None:
    recipe = resolve({}, recipe=name, env={}).recipe
    assert (recipe.distill.learn, recipe.schedule.name, recipe.evaluation.every) == STAGES[name]
    logits = recipe.distill.learn == "logits"
    assert recipe.checkpoint.result == ("best" if logits else "last")
    assert recipe.distill.temperature == (1.0 if logits else 2.0)
    text = packaged()[name].read_text(encoding="utf-8")
    for stage in ("states", "logits"):
        assert f"--recipe {name.rpartition('-')[0]}-{stage} -o " in text


def test_distilberts_losses_are_the_sources() -> None:
    recipe = resolve({}, recipe="distilbert", env={}).recipe
    found = recipe.distill
    assert (found.learn, found.temperature, found.soft, found.hard, found.cosine) == ("logits", 2.0, 5.0, 2.0, 1.0)
    made = recipe.optimizer
    assert (made.learning_rate, made.beta1, made.beta2, made.epsilon, made.clip_norm) == (5e-4, 0.9, 0.98, 1e-6, 5.0)
    assert (recipe.train.batch_size, recipe.train.micro_batch_size, recipe.schedule.warmup) == (250, 5, 0.05)


@pytest.mark.parametrize("name", [*STAGES, "minilmv2"])
def test_a_stage_without_a_teacher_is_refused(name: str) -> None:
    section = resolve({}, recipe=name, env={}).recipe.distill
    with pytest.raises(UserError, match="is set, but no teacher is named"):
        check_section(section, Head("classification", 2))
    taught = dataclasses.replace(section, teacher="runs/sst2")
    check_section(taught, Head("classification", 2))
    check_section(DistillSection(), Head("pretraining", 2))
    check_section(taught, Head("pretraining", 2))
    with pytest.raises(UserError, match="goes with the masked words of pre-training data"):
        check_section(dataclasses.replace(taught, cosine=1.0), Head("classification", 2))


@pytest.mark.parametrize("name", OF_SYSTEMS)
def test_its_first_lines_say_what_the_source_means(name: str) -> None:
    text = packaged()[name].read_text(encoding="utf-8")
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert text.startswith("# ")
    said = " ".join(comments[1:])
    assert "Batch: " in said
    assert "bias correction" in said
    assert "lip" in said


def test_only_what_runs_on_several_processes_scales_the_rate() -> None:
    scaling = {name: str(read_recipe(name).get("ranks.learning_rate_scaling", "none")) for name in OF_SYSTEMS}
    assert Counter(scaling.values()) == {"none": len(OF_SYSTEMS) - 2, "sqrt": 2}
    assert all(name.endswith("per-socket") for name, rule in scaling.items() if rule == "sqrt")


def test_the_list_keeps_each_systems_recipes_together() -> None:
    from bertkit.cli.recipes import _groups

    groups = _groups(["nvidia-b", "demo", "nvidia-a", "nvidia-a-x", "bert-paper", "intel-b", "intel-a"])
    assert groups == [["bert-paper", "demo"], ["intel-a", "intel-b"], ["nvidia-a", "nvidia-a-x", "nvidia-b"]]
