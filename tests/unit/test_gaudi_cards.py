"""Whether a Gaudi is here: made trees of the driver's files, a made hl-smi, a made package, and what the probe says."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import bertkit_gaudi
from bertkit_gaudi import GaudiBackend, cards
from bertkit_gaudi.cards import Cards, find_cards, package_version, read_answer
from bertkit_gaudi.environment import MODULES
from bertkit_gaudi.generations import GENERATIONS, by_name, by_product, supports
from made_trees import write

EIGHT = "".join(f"{index}, HL-225\n" for index in range(8))
MODULE_OF = (2, 6, 3, 7, 0, 4, 5, 1)  # by the driver's index, as on a box of eight
Tool = Callable[[str], Mapping[str, str]]


def accel(index: int, node: int | str = 0, module: int | None = None, vendor: str = "0x1da3") -> dict[str, str]:
    folder = f"sys/class/accel/accel{index}/device"
    files = {f"{folder}/vendor": vendor, f"{folder}/numa_node": str(node)}
    return files if module is None else files | {f"{folder}/module_id": str(module)}


def box(root: Path) -> Path:
    """Eight cards; modules 0 to 3 are on socket 0."""
    files: dict[str, str] = {}
    for index, module in enumerate(MODULE_OF):
        files |= accel(index, module // 4, module)
    return write(root, files)


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    """`tool(script)`: an environment whose hl-smi is that script."""

    def make(script: str) -> Mapping[str, str]:
        program = tmp_path / "bin" / "hl-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return {"PATH": f"{program.parent}{os.pathsep}/usr/bin{os.pathsep}/bin"}

    return make


def says(text: str) -> str:
    """A script that answers this, if it is asked as hl-smi's manual has it."""
    return f"""[ "$*" = "-Q index,name -f csv,noheader" ] || exit 3
cat <<'END'
{text}END"""


# ---- by files ----


def test_a_box_of_eight_by_the_drivers_files(tmp_path: Path) -> None:
    """In the order of the modules, which local ranks follow, not in that of the driver's numbers."""
    assert find_cards(box(tmp_path), {}) == Cards((0, 0, 0, 0, 1, 1, 1, 1))


@pytest.mark.parametrize(
    ("modules", "nodes"),
    [
        ("", (0, 0, 0, 0, 1, 1, 1, 1)),
        ("0,1", (0, 0)),
        ("4,5,6,7", (1, 1, 1, 1)),
        ("3, 4", (0, 1)),
        ("7,0", (1, 0)),
        ("9", (-1,)),
        ("all", ()),
        ("-1", ()),
        (",", ()),
        ("0,1,2,3,4,5,6,7,8,9", (0, 0, 0, 0, 1, 1, 1, 1)),
    ],
)
def test_visible_modules_choose_by_the_modules_number(tmp_path: Path, modules: str, nodes: tuple[int, ...]) -> None:
    assert find_cards(box(tmp_path), {MODULES: modules}).nodes == nodes


def test_a_driver_that_does_not_tell_the_module_tells_no_place(tmp_path: Path) -> None:
    """A process would be bound to the wrong socket otherwise."""
    root = write(tmp_path, accel(0, 0) | accel(1, 1))
    assert find_cards(root, {}).nodes == (-1, -1)


@pytest.mark.parametrize("node", ["-1", "", "x", "1.5"])
def test_a_node_that_is_not_known(tmp_path: Path, node: str) -> None:
    assert find_cards(write(tmp_path, accel(0, node, 0)), {}).nodes == (-1,)


def test_accelerators_of_others_do_not_count(tmp_path: Path) -> None:
    root = write(tmp_path, accel(0, 0, 0, vendor="0x8086") | accel(1, 1, 0))
    assert find_cards(root, {}).nodes == (1,)
    assert find_cards(write(tmp_path / "other", accel(0, vendor="0x10de")), {}).nodes == ()


def test_device_files_of_older_drivers(tmp_path: Path) -> None:
    files = dict.fromkeys(("dev/hl0", "dev/hl1", "dev/hl10", "dev/hl_controlD0", "dev/hlx", "dev/shl0"), "")
    assert find_cards(write(tmp_path, files), {}).nodes == (-1, -1, -1)


def test_nothing_is_nothing(tmp_path: Path) -> None:
    assert find_cards(tmp_path, {}) == Cards(())
    assert find_cards(tmp_path / "absent", {MODULES: "0"}) == Cards(())


# ---- by hl-smi ----


def test_the_tool_says_how_many_and_which_and_the_files_say_where(tmp_path: Path, tool: Tool) -> None:
    found = find_cards(box(tmp_path / "root"), tool(says(EIGHT)))
    assert found == Cards((0, 0, 0, 0, 1, 1, 1, 1), by_name("GAUDI2"), "HL-225")


def test_in_a_container_that_shows_fewer_the_tool_is_right(tmp_path: Path, tool: Tool) -> None:
    env = dict(tool(says("0, HL-325L\n1, HL-325L\n")))
    assert find_cards(tmp_path, env) == Cards((-1, -1), by_name("GAUDI3"), "HL-325L")
    assert find_cards(tmp_path, env | {MODULES: "1"}).nodes == (-1,)


@pytest.mark.parametrize(
    "script",
    [
        "exit 1",
        "exit 0",
        "echo no devices; exit 0",
        f"{says(EIGHT)}\nexit 9",  # answers, and says that it failed
        "printf '\\377\\376\\000garbage\\n'",
        "kill -9 $$",
        says("index, name\n"),
        says("0\n1\n"),
        says("0, HL-225, more\n"),
    ],
)
def test_a_tool_that_fails_or_babbles_leaves_it_to_the_files(tmp_path: Path, tool: Tool, script: str) -> None:
    assert find_cards(box(tmp_path / "root"), tool(script)) == Cards((0, 0, 0, 0, 1, 1, 1, 1))


def test_a_tool_that_hangs_is_not_waited_for(tmp_path: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its child keeps the pipe open after it is killed, which must not be waited for either."""
    monkeypatch.setattr(cards, "SECONDS", 0.2)
    start = time.monotonic()
    assert find_cards(box(tmp_path / "root"), tool("sleep 4; echo done")).generation is None
    assert time.monotonic() - start < 3


def test_a_tool_that_cannot_be_started(tmp_path: Path, tool: Tool) -> None:
    env = tool("")
    (tmp_path / "bin" / "hl-smi").write_bytes(b"#!/no/such/shell\n")
    assert find_cards(box(tmp_path / "root"), env).nodes == (0, 0, 0, 0, 1, 1, 1, 1)


def test_lines_among_others_are_found() -> None:
    found = read_answer("warning: driver mismatch\n 0 ,  HL-205 \n\n1,HL-205\nindex, name\n")
    assert found == Cards((-1, -1), by_name("GAUDI"), "HL-205")
    assert read_answer("0, HL-999\n") == Cards((-1,), None, "HL-999")
    assert read_answer("") is None


# ---- generations ----


@pytest.mark.parametrize(
    ("product", "name"),
    [
        ("HL-200", "GAUDI"), ("HL-205", "GAUDI"), ("HL-225", "GAUDI2"), ("HL-225D", "GAUDI2"), ("HL-288", None),
        ("HL-325L", "GAUDI3"), ("HL-328", "GAUDI3"), ("", None),
    ],
)  # fmt: skip
def test_boards_by_their_names(product: str, name: str | None) -> None:
    found = by_product(product)
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("release", "runs"),
    [
        ("1.19.0.561", True), ("1.21", True), ("1.21.4.12", True), ("1.22.0.740", False), ("1.24.1", False),
        ("2.0", False), ("1.9", True), ("unknown", True), ("", True),
    ],
)  # fmt: skip
def test_the_first_generation_ends_with_1_21(release: str, runs: bool) -> None:
    first, *others = GENERATIONS
    assert supports(first, release) == runs
    assert all(supports(one, release) for one in others)


def test_only_the_first_generation_has_no_fp16_and_no_fp8() -> None:
    assert [(one.fp16, one.fp8) for one in GENERATIONS] == [(False, False), (True, True), (True, True)]
    assert by_name("GAUDI4") is None


# ---- the probe ----


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a machine without cards, whose tools are found nowhere; its folder `site` is where packages are."""
    monkeypatch.setattr(bertkit_gaudi, "find_cards", lambda root, env: find_cards(tmp_path / "root", env))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv(MODULES, raising=False)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "root"


def install(machine: Path, version: str | None) -> None:
    """The vendor's package; None: without its metadata, as in a source tree."""
    site = machine.parent / "site"
    write(site, {"habana_frameworks/__init__.py": "raise SystemExit('imported merely to look')"})
    if version is not None:
        metadata = f"Metadata-Version: 2.1\nName: habana-torch-plugin\nVersion: {version}"
        write(site, {f"habana_torch_plugin-{version}.dist-info/METADATA": metadata})
    importlib.invalidate_caches()


def test_without_the_package_one_line_says_how_to_get_it(machine: Path) -> None:
    probe = GaudiBackend().probe()
    assert not probe.ready
    assert probe.detail.startswith("habana_frameworks is not installed; ")
    for way in ("gaudi-docker", "--runtime=habana", "habanalabs-installer.sh install"):
        assert way in probe.detail
    assert "\n" not in probe.detail
    assert probe.cards == ()


def test_cards_without_the_package_are_counted(machine: Path) -> None:
    box(machine)
    probe = GaudiBackend().probe()
    assert not probe.ready
    assert probe.detail.startswith("8 devices, but habana_frameworks is not installed; ")


@pytest.mark.parametrize("version", ["1.23.0.695", None])
def test_the_package_without_a_card(machine: Path, version: str | None) -> None:
    install(machine, version)
    probe = GaudiBackend().probe()
    assert not probe.ready
    assert f"habana_frameworks {version or 'unknown'} is installed, but no device; check hl-smi" in probe.detail


def test_a_variable_that_hides_every_card_is_named(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine, "1.23.0")
    box(machine)
    monkeypatch.setenv(MODULES, "all")
    probe = GaudiBackend().probe()
    assert not probe.ready
    assert "no device of HABANA_VISIBLE_MODULES=all" in probe.detail


def test_ready(machine: Path, tool: Tool) -> None:
    install(machine, "1.23.0.695")
    box(machine)
    assert GaudiBackend().probe().detail == "8 x Gaudi, habana_frameworks 1.23.0.695"  # which one, no file tells
    tool("PATH=/usr/bin:/bin\n" + says(EIGHT))
    probe = GaudiBackend().probe()
    assert probe.ready
    assert probe.detail == "8 x GAUDI2 (HL-225), habana_frameworks 1.23.0.695"
    assert probe.precisions == ("fp32", "bf16", "fp16")
    assert probe.cards == (0, 0, 0, 0, 1, 1, 1, 1)


@pytest.mark.parametrize(("version", "ready"), [("1.21.0.555", True), ("1.22.0.740", False)])
def test_a_first_generation_card_needs_software_up_to_1_21(
    machine: Path, tool: Tool, version: str, ready: bool
) -> None:
    install(machine, version)
    tool("PATH=/usr/bin:/bin\n" + says("0, HL-205\n"))
    probe = GaudiBackend().probe()
    assert probe.ready == ready
    if ready:
        assert probe.detail == f"GAUDI (HL-205), habana_frameworks {version}"
        assert probe.precisions == ("fp32", "bf16")
    else:
        assert probe.detail == f"GAUDI ended with software 1.21, this is {version}; use an older container"


def test_the_version_is_that_of_the_plug_in(machine: Path) -> None:
    assert package_version() == ""
    install(machine, "1.24.1.17")
    assert package_version() == "1.24.1.17"
