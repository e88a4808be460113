"""Which attention kernel a GPU's job takes: over everything that the choice depends on, one that fits or one line."""

from __future__ import annotations

import dataclasses
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.errors import UserError
from bertkit_cuda import CudaBackend

torch = pytest.importorskip("torch")
from bertkit_cuda import trial  # noqa: E402
from bertkit_cuda.kernels import FLAT, IN_ROWS, LARGEST_HEAD, STRETCHES, Wanted, candidates, fastest  # noqa: E402
from bertkit_cuda.trial import ROWS  # noqa: E402
from bertkit_torch.row_attention import stretches_by_mask  # noqa: E402

ASKED = CudaBackend.settings["attention"].choices
LAYOUTS = ("auto", "unpadded", "packed")
CARDS = ((0, 0), (5, 2), (6, 1), (7, 0), (7, 5), (8, 0), (8, 9), (9, 0), (10, 0), (12, 0))  # (0, 0): not NVIDIA's
HEADS = (8, 26, 32, 64, 128, 256, 264, 512)  # 26: TinyBERT's
EVERYTHING = [Wanted(*row) for row in itertools.product(ASKED, LAYOUTS, (False, True), CARDS, HEADS)]


def runs(kernel: str, wanted: Wanted) -> bool:
    """What torch's kernels take, and which batches each is for."""
    takes = kernel in IN_ROWS or wanted.head_size % 8 == 0
    if kernel == "flash":
        takes = takes and wanted.half and wanted.head_size <= 256
        takes = takes and (wanted.capability >= (8, 0) or wanted.capability == (0, 0))  # there it is tried
    if kernel == "efficient":
        takes = takes and wanted.capability >= (7, 0)
    return takes and wanted.layout in {"flash": LAYOUTS[:2], "efficient": LAYOUTS[:2]}.get(kernel, ("auto", "packed"))


def choice(wanted: Wanted) -> tuple[tuple[str, ...], UserError | None]:
    try:
        return candidates(wanted), None
    except UserError as error:
        return (), error


def test_every_kernel_that_is_taken_runs_and_every_refusal_is_right() -> None:
    assert len(EVERYTHING) == 2400
    for wanted in EVERYTHING:
        asked = [wanted.asked] if wanted.asked != "auto" else [*FLAT, *IN_ROWS]
        possible = [kernel for kernel in asked if runs(kernel, wanted)]
        found, error = choice(wanted)
        if error:
            assert possible == [], wanted
            assert error.cure.startswith("use --set "), wanted
            assert wanted.asked == "auto" or wanted.asked in error.cause, wanted
            continue
        assert found, wanted
        assert set(found) <= set(possible), wanted
        assert len(set(found)) == len(found), wanted
        if wanted.asked == "auto":  # the reference is taken where it is asked for, and is never worth a trial
            assert set(found) == set(possible) - {"plain"}, wanted


def cured(wanted: Wanted, cure: str) -> Wanted:
    """As somebody who does what the refusal says."""
    (key, value) = re.findall(r"--set (\S+)=(\w+)", cure)[0]
    field = {"device.attention": "asked", "model.layout": "layout"}[key]
    return dataclasses.replace(wanted, **{field: value})


def test_what_a_refusal_says_helps() -> None:
    """In two steps at the most, which do not go in a circle."""
    for start in EVERYTHING:
        wanted = start
        for _ in range(2):
            _, error = choice(wanted)
            wanted = wanted if error is None else cured(wanted, error.cure)
        assert candidates(wanted), start


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted("flash", "auto", False, (9, 0), 64), "needs bf16 or fp16"),
        (Wanted("flash", "auto", True, (7, 5), 64), "capability 7.5"),
        (Wanted("flash", "auto", True, (9, 0), 512), "heads of 512"),
        (
            Wanted("efficient", "auto", True, (6, 1), 64),
            "efficient needs heads of a multiple of 8 and compute capability 7.0",
        ),
        (Wanted("efficient", "auto", True, (0, 0), 64), "another type of device"),
        (Wanted("sdpa", "unpadded", True, (9, 0), 64), "does not take the layout unpadded"),
        (Wanted("flash", "packed", True, (9, 0), 64), "does not take the layout packed"),
        (Wanted("auto", "unpadded", False, (0, 0), 64), "no kernel for unpadded batches takes fp32"),
        (Wanted("auto", "unpadded", True, (9, 0), 26), "heads of 26"),
        (Wanted("efficient", "auto", True, (9, 0), 26), "heads of 26"),
    ],
)
def test_a_refusal_names_what_is_in_the_way(wanted: Wanted, said: str) -> None:
    with pytest.raises(UserError) as caught:
        candidates(wanted)
    assert said in caught.value.cause


def test_every_name_has_its_kernel() -> None:
    assert set(ASKED) - {"auto"} == {*FLAT, *IN_ROWS}
    assert set(STRETCHES) == set(FLAT)
    assert set(ROWS) == set(IN_ROWS)
    assert LARGEST_HEAD == 256


def with_mask(query, key, value, bounds, longest, rate):  # type: ignore[no-untyped-def]
    return stretches_by_mask(query.float(), key.float(), value.float(), bounds, longest, rate).to(query.dtype)


def without_mask(query, key, value, bounds, longest, rate):  # type: ignore[no-untyped-def]
    """A kernel that ignores where sequences end."""
    return with_mask(query, key, value, torch.tensor([0, len(query)], dtype=torch.int32), longest, rate)


def absent(*given: object) -> object:
    raise NotImplementedError("flash attention: this build has none\nC++ frames follow")


@pytest.mark.parametrize(
    ("kernel", "left", "said"),
    [
        (with_mask, ("flash", "sdpa"), ""),
        (without_mask, ("sdpa",), "flash is left out: it is off by"),
        (absent, ("sdpa",), "it does not run: flash attention: this build has none"),
    ],
)
def test_a_kernel_without_a_stated_condition_is_tried_before_it_is_taken(
    monkeypatch: pytest.MonkeyPatch, kernel: object, left: tuple[str, ...], said: str
) -> None:
    """As on ROCm: one that fails, or mixes sequences, is left out and named."""
    monkeypatch.setattr(trial, "STRETCHES", {"flash": kernel})
    lines: list[str] = []
    monkeypatch.setattr(trial.logger, "info", lambda text, *given: lines.append(text % given))
    like = torch.zeros(2, 16, dtype=torch.bfloat16)
    assert trial.proven(("flash", "sdpa"), "auto", like) == left
    assert said in "\n".join(lines)
    if left == ("sdpa",):
        for asked, cure in (("flash", "device.attention=auto"), ("auto", "model.layout=packed")):
            with pytest.raises(UserError, match="no attention kernel for unpadded batches is left") as caught:
                trial.proven(("flash",), asked, like)
            assert caught.value.cure == f"use --set {cure}"


@given(st.dictionaries(st.sampled_from([*FLAT, *IN_ROWS]), st.floats(1e-6, 10), min_size=1))
def test_the_fastest_is_taken_and_the_others_are_named(seconds: dict[str, float]) -> None:
    name, why = fastest(seconds)
    assert seconds[name] == min(seconds.values())
    if len(seconds) == 1:
        assert why == "the only one that fits"
    else:
        assert why.startswith(f"the fastest of {name} ")
        assert all(f"{kernel} {1e3 * spent:.2f} ms" in why for kernel, spent in seconds.items())
