"""What `migrate` calls lost is lost: no setting of a recipe, of a backend, and no option of a command says it.

Each entry of flags.toml names words that such a setting would have. A setting that is added later and has one of them
makes a test here fail, until the entry is taken out or says why that setting means something else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_type_hints

import pytest

from bertkit.cli.bench import train as bench_train
from bertkit.cli.data_prepare import prepare
from bertkit.cli.hf_flags import SWITCHES, WITH_VALUE
from bertkit.cli.launch import launch
from bertkit.cli.migration.command import Draft
from bertkit.cli.migration.python_flags import carry_over, table
from bertkit.cli.predict import predict
from bertkit.cli.train import train
from bertkit.engine.registry import installed
from bertkit.recipes.recipe import KEYS

LOST: Mapping[str, Mapping[str, Any]] = table("flags.toml")["lost"]
ITSELF: list[str] = table("flags.toml")["by_itself"]["flags"]
COMMANDS = {"train": train, "launch": launch, "predict": predict, "data prepare": prepare, "bench train": bench_train}


def what_there_is() -> dict[str, str]:
    """Setting or option -> its name and what it says of itself, in lower case."""
    found = {key.name: key.description for key in KEYS.values()}
    for card in installed().values():
        for name, one in card.settings.items():
            found[f"device.{name}"] = f"{found.get(f'device.{name}', '')} {one.help} {' '.join(one.choices)}"
    for command, function in COMMANDS.items():
        for name, hint in get_type_hints(function, include_extras=True).items():
            for part in getattr(hint, "__metadata__", ()):
                found[f"{command} --{name.rstrip('_').replace('_', '-')}"] = getattr(part, "help", "") or ""
    return {name: f"{name} {said}".lower() for name, said in found.items()}


THERE_IS = what_there_is()


def matches(entry: Mapping[str, Any]) -> set[str]:
    """What there is that has one of the entry's words, or the flag's own name among its own."""
    words = [re.escape(word.lower()) for word in entry["like"]]
    pattern = re.compile("|".join(rf"(?<![a-z]){word}" for word in words))
    return {name for name, said in THERE_IS.items() if pattern.search(said)}


@pytest.mark.parametrize("flag", sorted(LOST))
def test_nothing_there_is_says_it(flag: str) -> None:
    entry = LOST[flag]
    assert entry["like"]
    assert all(len(word) > 2 for word in entry["like"])
    assert matches(entry) == set(entry.get("other", ())), "a setting has these words: carry it over, or say why not"


@pytest.mark.parametrize("flag", sorted(LOST))
def test_no_setting_has_the_flags_own_name(flag: str) -> None:
    """As --checkpoint_activations was called lost beside a setting that does it."""
    looked_at = LOST[flag].get("other", ())
    leaves = {re.split(r"[ .]-*", name)[-1].replace("-", "_") for name in THERE_IS if name not in looked_at}
    assert flag not in leaves
    assert not leaves & {flag.removeprefix("use_"), flag.removeprefix("enable_")}


@pytest.mark.parametrize("flag", sorted(LOST))
def test_a_flag_is_in_one_table(flag: str) -> None:
    assert flag not in ITSELF
    assert flag not in WITH_VALUE
    assert flag not in SWITCHES
    assert len(LOST[flag]["why"]) > 12


def test_the_tables_words_would_find_a_setting_that_is_there() -> None:
    """The check itself: it finds the settings that were overlooked before."""
    assert matches({"like": ["compute its inside again"]}) == {"device.recompute"}
    assert "optimizer.shard" in matches({"like": ["optimizer state"]})
    assert "train --profile" in matches({"like": ["profile"]})


def test_settings_that_a_reason_names_exist() -> None:
    for flag, entry in LOST.items():
        for named in re.findall(r"\b([a-z_]+\.[a-z_]+)(?==|\b)", entry["why"]):
            if not named.endswith((".json", ".jsonl", ".md", ".txt")):
                assert named in THERE_IS, f"{flag}: {named}"


def test_what_is_carried_is_said_and_nothing_else() -> None:
    draft = Draft()
    flags = {"checkpoint_activations": "", "distributed_lamb": "", "loss_scale": "1024", "learning_rate": "1e-4"}
    carry_over(draft, flags | {"use_xla": "", "unheard_of": "1"})
    assert draft.sets == {
        "device.recompute": "true", "optimizer.shard": "true", "loss_scaling.initial": "1024",
        "loss_scaling.dynamic": "false",
    }  # fmt: skip
    assert draft.options == {"--lr": "1e-4"}
    assert [note.text.partition(":")[0] for note in draft.notes] == ["--use_xla", "--unheard_of"]
