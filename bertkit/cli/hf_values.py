"""Hugging Face's options whose value decides what they are here, and those that have another way here.

Source: the TrainingArguments of transformers 5, and its example scripts run_glue, run_classification, run_ner, run_qa.
"""

from __future__ import annotations

from collections.abc import Mapping

from bertkit.errors import UserError

Words = tuple[str, ...]

# theirs -> each value's words here, () where it is so anyway
BY_VALUE: Mapping[str, Mapping[str, Words]] = {
    "optim": {
        **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw"), ()),
        "lamb": ("--set", "optimizer.name=lamb"),
    },
    "report_to": {"none": (), "tensorboard": ("--set", "log.tensorboard=true")},
    "eval_strategy": {"epoch": (), "steps": ()},
    "evaluation_strategy": {"epoch": (), "steps": ()},
    "save_strategy": {"epoch": (), "steps": ()},
    "logging_strategy": {"steps": ()},
    "greater_is_better": {"true": ()},
    "resume_from_checkpoint": {"true": ("--resume",), "false": ()},
    "version_2_with_negative": {"true": ("--task", "squad2"), "false": ("--task", "squad")},
    "push_to_hub": {"false": ()},
    "do_predict": {"false": ()},
    "dataloader_drop_last": {"false": ()},
    "group_by_length": {"true": (), "false": ()},
    "pad_to_max_length": {"true": (), "false": ()},
    "use_fast_tokenizer": {"true": (), "false": ()},
}
# what a value that is not listed may be replaced by
OTHERWISE: Mapping[str, str] = {
    "optim": "bertkit has adamw and lamb: --set optimizer.name=lamb",
    "report_to": "tensorboard goes by --set log.tensorboard=true; Weights & Biases and MLflow are callbacks in Python",
    "eval_strategy": "an evaluation ends every run: --set evaluation.every=N beyond its updates leaves that one alone",
    "evaluation_strategy": "an evaluation ends every run: --set evaluation.every=N beyond its updates leaves that one",
    "save_strategy": "--set checkpoint.every=N says when, --set checkpoint.result=best takes the best",
    "logging_strategy": "--set log.every=N says after how many updates",
    "greater_is_better": "the metric's name tells: a smaller mae or rmse is better, of all others a larger; drop it",
    "resume_from_checkpoint": "name the run's folder with -o and say --resume: its latest checkpoint is taken",
    "push_to_hub": "push it afterwards: bertkit push RUN ORG/NAME",
    "do_predict": "predict afterwards: bertkit predict RUN FILE",
    "dataloader_drop_last": "an epoch's last batch is never dropped here; drop it",
}
# theirs -> what to do here
ELSEWHERE: Mapping[str, str] = {
    "test_file": "predict afterwards: bertkit predict RUN FILE",
    "max_predict_samples": "predict afterwards: bertkit predict RUN FILE",
    "dataset_config_name": "name its folder: --train hf://datasets/OWNER/NAME/CONFIG, and --dev likewise",
    "hub_model_id": "push it afterwards: bertkit push RUN ORG/NAME",
    "tokenizer_name": "--set model.vocab=FILE names another vocabulary",
    "config_name": "--model names a folder with its config.json",
    "deepspeed": "--set optimizer.shard=true shares the optimizer's state between processes",
    "fsdp": "--set optimizer.shard=true shares the optimizer's state between processes",
}
PREFIX = "eval_"  # of a metric's name there
SQUAD = {"squad": "squad", "squad_v2": "squad2"}  # their name on the hub -> ours
OUR_METRICS = {"f1": "macro_f1", "overall_f1": "entity_f1", "matthews_correlation": "mcc"}
KNOWN = frozenset({*BY_VALUE, *ELSEWHERE, "metric_for_best_model", "text_column_names", "dataset_name"})
SWITCHES = frozenset(name for name, values in BY_VALUE.items() if set(values) <= {"true", "false"})  # may lack a value


def spelled(name: str, value: str) -> list[str]:
    """Our words for --`name` `value`, one of `KNOWN`. Raises UserError where it is said in another way here."""
    if name in ELSEWHERE:
        raise UserError(f"--{name} has no counterpart", ELSEWHERE[name])
    if name == "metric_for_best_model":
        metric = value.removeprefix(PREFIX)
        return ["--set", f"evaluation.metric={OUR_METRICS.get(metric, metric)}"]
    if name == "dataset_name":
        return _data_set(value)
    if name == "text_column_names":  # run_classification joins them by a space
        columns = value.split(",")
        return ["--text", " ".join(f"{{{column}}}" for column in columns) if len(columns) > 1 else value]
    value = {"": "true", "1": "true", "yes": "true", "0": "false", "no": "false"}.get(value.lower(), value)
    found = BY_VALUE[name].get(value.lower())
    if found is None:
        raise UserError(f"--{name} {value} has no counterpart", OTHERWISE.get(name, "drop it"))
    return list(found)


def _data_set(name: str) -> list[str]:
    if (squad := name.rpartition("/")[2].lower()) in SQUAD:
        return ["--task", SQUAD[squad]]
    if "/" not in name:
        raise UserError(
            f"--dataset_name {name} has no counterpart", "name a task with -t, or --train hf://datasets/OWNER/NAME"
        )
    return [word for option in ("--train", "--dev") for word in (option, f"hf://datasets/{name}")]
