"""Habana's demo_bert: fine-tuning and pre-training of six sizes, on one worker or eight a box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bertkit.errors import UserError, nearest
from bertkit.migrate.ours import Draft
from bertkit.migrate.pretraining import Phase, pretrain_phases
from bertkit.migrate.python_flags import read_flags
from bertkit.migrate.words import CARDS, WHOLE, Old, whole

SHORT = {
    "d": "data_type", "m": "model", "t": "test_set", "b": "batch_size", "s": "max_seq_length", "e": "epochs",
    "o": "output_dir", "v": "workers", "i": "iters", "w": "warmup", "h": "help", "fpo": "fast_perf_only",
}  # fmt: skip
# the weights that it fetches itself, by the hub's name of the same model
WEIGHTS: Mapping[str, str] = {
    "tiny": "google/bert_uncased_L-2_H-128_A-2",
    "mini": "google/bert_uncased_L-4_H-256_A-4",
    "small": "google/bert_uncased_L-4_H-512_A-8",
    "medium": "google/bert_uncased_L-8_H-512_A-8",
    "base": "google/bert_uncased_L-12_H-768_A-12",
    "large": "bert-large-uncased-whole-word-masking",
}
BATCH = {("mrpc", "bf16"): "64", ("mrpc", "fp32"): "32", ("squad", "bf16"): "24", ("squad", "fp32"): "10"}
OURS = ("USE_HOROVOD", "NUM_WORKERS_PER_HLS", "MULTI_HLS_IPS", "OUTPUT_DIR", "DOCKER_SSHD_PORT")
SSH_PORT = 3022  # of the containers


def demo_bert(old: Old, draft: Draft) -> list[Draft]:
    """Raises UserError for a sub-command or a size that it does not have."""
    flags = read_flags(old.arguments, SHORT)
    sub = next((word for word in old.arguments if not word.startswith("-")), "")
    _environment(old, draft, flags)
    if "help" in flags or (old.elided and not sub):
        return [_help(old, draft)]
    if sub not in ("finetuning", "pretraining"):
        raise UserError(
            f"demo_bert has no {sub!r}" if sub else "demo_bert without finetuning or pretraining", "add one"
        )
    size = (flags.get("model") or "large").split()[0]
    if size not in WEIGHTS:
        raise UserError(f"demo_bert has no model {size!r}", nearest(size, WEIGHTS))
    draft.options["--backend"] = "gaudi"
    if sub == "pretraining":
        return _pretraining(flags, size, draft)
    return [_finetuning(flags, size, draft)]


def _finetuning(flags: Mapping[str, str], size: str, draft: Draft) -> Draft:
    task = flags.get("test_set", "").split()[0] if flags.get("test_set") else ""
    if task not in ("mrpc", "squad"):
        raise UserError(f"demo_bert fine-tunes mrpc and squad, not {task or 'nothing'}", "name one with -t")
    precision = flags.get("data_type", "bf16")
    draft.options["--recipe"] = f"habana-{task}-{'large' if size == 'large' else 'base'}"
    draft.options |= {"-m": WEIGHTS[size], "-d": precision, "-b": flags.get("batch_size") or BATCH[task, precision]}
    for flag, option in (("max_seq_length", "-s"), ("epochs", "-e"), ("output_dir", "-o")):
        if flags.get(flag):
            draft.options[option] = flags[flag]
    draft.do(f"the weights of {size} come from the hub (pip install 'bertkit[hub]'), or give -m their folder")
    draft.differs("their Adam divides by sqrt(v + epsilon^2), ours by sqrt(v) + epsilon")
    if draft.place.words():
        draft.differs(_rate(task))
    return draft


def _rate(task: str) -> str:
    if task == "squad":
        return "several workers keep the rate as it is, there by a slip, here by the recipe"
    return "whether several workers multiply MRPC's rate is not documented; here they do not"


def _pretraining(flags: Mapping[str, str], size: str, draft: Draft) -> list[Draft]:
    """Both phases, or the one short run over a few samples."""
    precision = flags.get("data_type", "bf16")
    workers = draft.place.processes or 1
    lengths = _two(flags.get("max_seq_length", ""), ("128", "512"))
    batches = _two(flags.get("batch_size", ""), ("64", "8") if precision == "bf16" else ("32", "8"))
    steps = _two(flags.get("iters", ""), ("7038", "1564"))
    warmup = _two(flags.get("warmup", ""), ("2000", "200"))
    if flags.get("test_set", "bookswiki") == "overfit":
        draft.differs("overfit is 200 updates on few samples: give them with --data-dir")
        steps, warmup = _two(flags.get("iters", ""), ("200", "200")), ("10", "10")
    updates = (1600, 200) if "fast_perf_only" in flags else (65536, 32768)
    phases = []
    for at, (rate, usual) in enumerate(((7.5e-4, 65536), (5e-4, 32768))):
        once, length = whole(batches[at], "the batch size"), whole(lengths[at], "the length")
        share = max(once, updates[at] // workers // once * once)
        peak = f"{rate * 8 / workers * updates[at] / usual:g}"
        phases.append(
            Phase(
                length,
                share,
                once,
                peak,
                "",
                steps[at],
                precision,
                warmup_steps=warmup[at],
                scaling="linear",
            )
        )
    draft.differs("their rate is multiplied by the workers inside; ranks.learning_rate_scaling=linear does that")
    return pretrain_phases(draft, phases, "tensorflow", size)


def _two(text: str, usual: tuple[str, str]) -> tuple[str, str]:
    given = text.split()
    return (given[0], given[1] if len(given) > 1 else usual[1]) if given else usual


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


def _help(old: Old, draft: Draft) -> Draft:
    if old.elided:
        draft.differs("the document leaves the arguments out; put those of train in place of -h")
    draft.command, draft.place = ("train", "-h"), replace(draft.place, processes=1)
    return draft


def export(old: Old, draft: Draft) -> list[Draft]:
    """A variable set for the commands that follow."""
    draft.command = ("export", *(f"{name}={value}" for name, value in old.env.items()))
    if "MULTI_HLS_IPS" not in old.env:
        raise UserError(f"{', '.join(old.env)} alone is no command", "give the command behind it")
    draft.differs("bertkit launch reads MULTI_HLS_IPS as it is; --hosts says the same")
    return [draft]
