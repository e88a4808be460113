"""Which backends are installed, by which names, and which one `auto` takes and why."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from bertkit.distributed.world import World
from bertkit.engine import registry
from bertkit.engine.interface import Capabilities, Engine, Job, Probe
from bertkit.engine.registry import GROUP, choose, find, installed
from bertkit.errors import UserError


class Card:
    """A backend's card with what a test wants of it."""

    capabilities = Capabilities(("fp32",), ("classification",), ("padded",))
    settings: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, name: str, preference: int = 0, ready: bool = True, aliases: tuple[str, ...] = ()) -> None:
        self.name, self.preference, self.aliases, self.ready = name, preference, aliases, ready

    def probe(self) -> Probe:
        return Probe(self.ready, f"{self.name}'s driver" if self.ready else f"install {self.name}'s driver")

    def engine(self, job: Job, world: World) -> Engine:
        raise NotImplementedError


Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make these the installed backends."""

    def these(*cards: Card) -> None:
        class Point(EntryPoint):
            def load(self) -> Any:
                return lambda: next(card for card in cards if card.name == self.name)

        points = [Point(card.name, f"package_{card.name}:Backend", GROUP) for card in cards]
        monkeypatch.setattr(registry, "entry_points", lambda group: points if group == GROUP else [])

    return these


def test_our_own_are_installed_and_named_as_their_entry_points() -> None:
    cards = installed()
    assert {"cpu", "null"} <= set(cards)
    assert list(cards) == sorted(cards)
    assert all(name == card.name for name, card in cards.items())


def test_names_and_aliases_are_each_ones_own() -> None:
    names = [name for card in installed().values() for name in (card.name, *card.aliases)]
    assert len(names) == len(set(names))
    assert "auto" not in names


@pytest.mark.parametrize(("word", "name"), [("cpu", "cpu"), ("intel", "cpu"), ("null", "null")])
def test_a_backend_is_found_by_name_and_alias(word: str, name: str) -> None:
    assert find(word).name == name


@pytest.mark.parametrize("word", ["cqu", "CPU", "", "auto"])
def test_an_unknown_backend_lists_those_there_are(word: str) -> None:
    with pytest.raises(UserError, match=f"no backend {word!r} here; installed: .*") as caught:
        find(word)
    for name in installed():
        assert name in caught.value.cause
    if word == "cqu":
        assert caught.value.cure.startswith("did you mean cpu")


def test_a_name_beats_anothers_alias(install: Install) -> None:
    install(Card("alpha", aliases=("beta",)), Card("beta"))
    assert find("beta").name == "beta"
    install(Card("beta"), Card("zeta", aliases=("beta",)))
    assert find("beta").name == "beta"


@pytest.mark.parametrize(
    "error", [ImportError("no module"), AttributeError("no class"), RuntimeError("any"), SystemError()]
)
def test_a_broken_plug_in_is_named(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(EntryPoint):
        def load(self) -> Any:
            raise error

    monkeypatch.setattr(registry, "entry_points", lambda group: [Broken("shiny", "shiny_package:Card", group)])
    with pytest.raises(UserError) as caught:
        installed()
    for word in ("'shiny'", "shiny_package:Card", type(error).__name__, str(error)):
        assert word in caught.value.cause
    assert "shiny_package:Card" in caught.value.cure


def test_a_plug_in_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("shiny", "no_such_package_at_all:Card", GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with pytest.raises(UserError, match="ModuleNotFoundError: No module named 'no_such_package_at_all'"):
        choose("auto")


def test_a_broken_plug_in_does_not_stand_in_anothers_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names a backend that works gets it, whatever else is installed."""
    ours = list(registry.entry_points(group=GROUP))
    broken = EntryPoint("aaa", "no_such_package_at_all:Card", GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken, *ours])
    assert find("null").name == "null"


def test_two_packages_of_one_name_are_named_and_neither_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = list(registry.entry_points(group=GROUP))
    others = [EntryPoint("null", value, GROUP) for value in ("other_package:Card", "bertkit_null:NullBackend")]
    monkeypatch.setattr(registry, "entry_points", lambda group: [*ours, *others])
    for ask in (installed, lambda: find("null")):
        with pytest.raises(UserError, match=r"'null': bertkit_null:NullBackend, .*other_package:Card") as caught:
            ask()
        assert "uninstall" in caught.value.cure
    assert find("cpu").name == "cpu"


def test_auto_takes_the_best_that_is_ready_and_says_why(install: Install) -> None:
    install(Card("a", 5), Card("b", 30), Card("c", 20))
    choice = choose("auto")
    assert choice.backend.name == "b"
    assert choice.reason == "best that is ready; b's driver"


def test_auto_says_which_better_ones_are_not_ready(install: Install) -> None:
    install(Card("a", 10), Card("b", 30, ready=False), Card("c", 5, ready=False), Card("d", 20, ready=False))
    choice = choose("auto")
    assert choice.backend.name == "a"
    assert choice.reason == "best that is ready; a's driver; not ready: b, d"


def test_auto_never_takes_a_negative_preference(install: Install) -> None:
    install(Card("null", -1), Card("b", 0, ready=False))
    with pytest.raises(UserError, match="no backend is ready here"):
        choose("auto")
    assert choose("null").backend.name == "null"


def test_the_one_that_is_asked_for_must_be_ready(install: Install) -> None:
    install(Card("a", 10), Card("b", 30, ready=False, aliases=("bee",)))
    assert choose("a").reason == "asked for; a's driver"
    with pytest.raises(UserError, match="backend 'b' is not ready: install b's driver"):
        choose("bee")


def test_nothing_installed(install: Install) -> None:
    install()
    with pytest.raises(UserError, match="no backend is ready"):
        choose("auto")
    with pytest.raises(UserError, match="no backend 'cpu' here"):
        choose("cpu")


def test_a_dry_run_takes_a_named_backend_without_its_hardware(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install(Card("far", ready=False), Card("near"))
    with pytest.raises(UserError, match="'far' is not ready: install far's driver"):
        choose("far")
    choice = choose("far", dry_run=True)
    assert choice.backend.name == "far"
    assert "not ready here: install far's driver" in choice.reason
    assert "backend 'far' is not ready here" in caplog.text
    assert choose("auto", dry_run=True).backend.name == "near"
