"""Habana's demo_bert: fine-tuning and pre-training of six sizes, on one worker or eight per host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bertkit.cli.migration.command import Draft, NotUnderstood
from bertkit.cli.migration.pretraining import PhaseOptions, pretrain_phases
from bertkit.cli.migration.python_flags import is_on, lost_reason, read_flags
from bertkit.cli.migration.starters import CARDS, WHOLE, whole
from bertkit.cli.migration.words import Old
from bertkit.errors import UserError, nearest

# its own spellings, short and long, of both versions (a shell script, later demo_bert.py); -i, -w, -b, -s take a value
# for each phase, with a blank or a comma between
SHORT = {
    "c": "command", "d": "data_type", "dtype": "data_type", "m": "model_variant", "t": "test_set", "b": "batch_size",
    "s": "max_seq_length", "e": "epochs", "o": "output_dir", "v": "workers", "use_horovod": "workers",
    "i": "iters", "w": "warmup", "h": "help", "fpo": "fast_perf_only", "resume_p1": "resume1", "resume_p2": "resume2",
}  # fmt: skip
READ = (
    "command data_type model_variant model test_set batch_size max_seq_length epochs output_dir workers iters warmup"
    " help fast_perf_only learning_rate dataset_path checkpoint_folder bert_config_dir init_checkpoint_path"
    " save_ckpt_steps no_steps_accumulation global_batch_size run_phase2 enable_packed_data_mode resume1 resume2"
    " profile"
).split()
# the weights that it fetches itself, by the name under which -m knows the same model
WEIGHTS: Mapping[str, str] = {
    "tiny": "tiny",
    "mini": "mini",
    "small": "small",
    "medium": "medium",
    "base": "base",
    "large": "bert-large-uncased-whole-word-masking",
}
BASE = "google/bert_uncased_L-12_H-768_A-12"
BATCH = {("mrpc", "bf16"): "64", ("mrpc", "fp32"): "32", ("squad", "bf16"): "24", ("squad", "fp32"): "10"}
OURS = ("USE_HOROVOD", "NUM_WORKERS_PER_HLS", "MULTI_HLS_IPS", "OUTPUT_DIR", "DOCKER_SSHD_PORT")
SSH_PORT = 3022  # of the containers


def demo_bert(old: Old, draft: Draft) -> list[Draft]:
    """Raises UserError for a sub-command or a size that it does not have."""
    flags = {SHORT.get(name, name): value for name, value in read_flags(old.arguments).items()}
    words = [word for word in old.arguments if not word.startswith("-")]
    sub = flags.get("command") or (words[0] if words and old.arguments[0] == words[0] else "")
    sub = sub or next((word for word in words if word.endswith(("finetuning", "pretraining"))), "")
    _environment(old, draft, flags)
    if "help" in flags:
        draft.command, draft.place = ("train", "-h"), replace(draft.place, processes=1)
        return [draft]
    if not sub and old.elided:
        raise NotUnderstood(
            "the old command leaves out whether demo_bert fine-tunes or pre-trains", "add its arguments"
        )
    if sub not in ("finetuning", "pretraining"):
        raise UserError(
            f"demo_bert has no {sub!r}" if sub else "demo_bert without finetuning or pretraining", "add one"
        )
    named = flags.get("model", "")
    size = (flags.get("model_variant") or (named if named != "bert" else "") or "large").split()[0]
    if size not in WEIGHTS:
        raise UserError(f"demo_bert has no model {size!r}", nearest(size, WEIGHTS))
    draft.options["--backend"] = "gaudi"
    draft.framework = "tensorflow"
    for name in flags.keys() - set(READ):
        draft.lost(f"--{name}", lost_reason(name))
    drafts = _pretraining(flags, size, draft) if sub == "pretraining" else [_finetuning(flags, size, draft)]
    for one in drafts:
        _common(flags, one)
    return drafts


def _common(flags: Mapping[str, str], draft: Draft) -> None:
    """What both sub-commands have."""
    if flags.get("save_ckpt_steps"):
        draft.sets["checkpoint.every"] = flags["save_ckpt_steps"]
    if is_on(flags, "enable_packed_data_mode"):
        draft.sets["model.layout"] = "packed"
    if flags.get("profile"):
        draft.options["--profile"] = "-".join(_values(flags["profile"])[:2])


def _finetuning(flags: Mapping[str, str], size: str, draft: Draft) -> Draft:
    task = flags.get("test_set", "").split()[0] if flags.get("test_set") else ""
    if task not in ("mrpc", "squad"):
        raise UserError(f"demo_bert fine-tunes mrpc and squad, not {task or 'nothing'}", "name one with -t")
    precision = flags.get("data_type") or "bf16"
    draft.options["--recipe"] = f"habana-{task}-{'large' if size == 'large' else 'base'}"
    usual = BATCH.get((task, precision), BATCH[task, "bf16"])
    draft.options |= {"-m": WEIGHTS[size], "-d": precision, "-b": flags.get("batch_size") or usual}
    for flag, option in FINE_TUNED:
        if flags.get(flag):
            draft.options[option] = flags[flag]
    if folder := flags.get("checkpoint_folder") or flags.get("bert_config_dir"):
        draft.options["-m"] = f"{folder.rstrip('/')}/bert_model.ckpt"
    elif size == "base":
        draft.differs(f"base is Google's of 2018; demo_bert has the one of 2020, on the hub as {BASE}")
    for flag in ("iters", "warmup", "global_batch_size", "no_steps_accumulation"):
        if flag in flags:
            draft.lost(f"--{flag}", "it is of pre-training there, too")
    draft.differs("their Adam divides by sqrt(v + epsilon^2), ours by sqrt(v) + epsilon")
    if draft.place.words():
        draft.differs(_rate(task))
    return draft


FINE_TUNED = (
    ("max_seq_length", "-s"), ("epochs", "-e"), ("learning_rate", "--lr"), ("dataset_path", "--data-dir"),
    ("output_dir", "-o"),
)  # fmt: skip


def _rate(task: str) -> str:
    if task == "squad":
        return "several workers keep the rate as it is, there by a slip, here by the recipe"
    return "whether several workers multiply MRPC's rate is not documented; here they do not"


def _pretraining(flags: Mapping[str, str], size: str, draft: Draft) -> list[Draft]:
    """Both phases, or the one short run over a few samples."""
    phases = [_phase(flags, draft.place.processes or 1, at) for at in (0, 1)]
    overfit = (flags.get("test_set") or "bookswiki").split()[0] == "overfit"
    if flags.get("output_dir"):
        draft.options["-o"] = flags["output_dir"]
    if flags.get("dataset_path"):
        draft.options["--data-dir"] = flags["dataset_path"]
    if folder := flags.get("bert_config_dir"):
        draft.sets["model.vocab"] = f"{folder.rstrip('/')}/vocab.txt"
    if overfit:
        draft.differs("overfit is 200 updates of one phase on few samples: give them with --data-dir")
    draft.differs("their rate is multiplied by the workers inside; ranks.learning_rate_scaling=linear does that")
    if "learning_rate" in flags:
        draft.lost("--learning_rate", "demo_bert computes the rate of pre-training from the batch, and so does this")
    if "epochs" in flags:
        draft.lost("--epochs", "the updates of each phase say how long it trains")
    made = pretrain_phases(draft, phases[:1] if overfit else phases, "tensorflow", size)
    if path := flags.get("init_checkpoint_path"):
        made[0].options["-m"] = path
    for one, flag in zip(made, ("resume1", "resume2"), strict=False):
        if is_on(flags, flag):
            one.options["--resume"] = ""
    return made[1:] if is_on(flags, "run_phase2") else made


def _phase(flags: Mapping[str, str], workers: int, at: int) -> PhaseOptions:
    """Phase 1 or 2 (`at` 0 or 1): its rate follows from its batch."""
    precision = flags.get("data_type") or "bf16"
    overfit = (flags.get("test_set") or "").split()[:1] == ["overfit"]
    length = _nth(flags, "max_seq_length", ("128", "512"), at)
    usual = ("32", "32") if overfit else ("64", "8") if precision == "bf16" else ("32", "8")
    once = whole(_nth(flags, "batch_size", usual, at), "the batch size")
    whole_batch = ("1600", "200") if is_on(flags, "fast_perf_only") else ("65536", "32768")
    update = whole(_nth(flags, "global_batch_size", whole_batch, at), "the global batch size")
    share = once if overfit or is_on(flags, "no_steps_accumulation") else max(once, update // workers // once * once)
    rate, of = ((7.5e-4, 65536), (5e-4, 32768))[at]
    peak = f"{rate * 8 / workers * (share * workers if share == once else update) / of:g}"
    return PhaseOptions(
        whole(length, "the length"), share, once, peak, "",
        _nth(flags, "iters", ("200", "200") if overfit else ("7038", "1564"), at), precision,
        warmup_steps=_nth(flags, "warmup", ("10", "10") if overfit else ("2000", "200"), at), scaling="linear",
    )  # fmt: skip


def _values(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _nth(flags: Mapping[str, str], name: str, usual: tuple[str, str], at: int) -> str:
    """Of the values for each phase that of this one."""
    given = _values(flags.get(name, ""))
    return given[at] if at < len(given) else usual[at]


def _environment(old: Old, draft: Draft, flags: dict[str, str]) -> None:
    """What variables say of the place; the device's own stay before the command."""
    env = old.env
    if "workers" in flags or env.get("USE_HOROVOD") == "true":
        given = flags.get("workers", "").split()[:1]
        many = (given[0] if given and WHOLE.match(given[0]) else "") or env.get("NUM_WORKERS_PER_HLS") or str(CARDS)
        draft.place = replace(draft.place, processes=whole(many, "the number of workers"))
    if hosts := env.get("MULTI_HLS_IPS"):
        port = whole(env.get("DOCKER_SSHD_PORT", str(SSH_PORT)), "DOCKER_SSHD_PORT")
        draft.place = replace(draft.place, processes=draft.place.processes or CARDS, hosts=hosts, ssh_port=port)
    if "OUTPUT_DIR" in env:
        flags.setdefault("output_dir", env["OUTPUT_DIR"])
    draft.env |= {name: value for name, value in env.items() if name not in OURS}  # launch passes them to every process


def export(old: Old, draft: Draft) -> list[Draft]:
    """A variable set for the commands that follow."""
    draft.command = ("export", *(f"{name}={value}" for name, value in old.env.items()))
    draft.shell = True
    if "MULTI_HLS_IPS" not in old.env:
        raise UserError(f"{', '.join(old.env)} alone is no command", "give the command behind it")
    draft.differs("bertkit launch reads MULTI_HLS_IPS as it is; --hosts says the same")
    return [draft]
