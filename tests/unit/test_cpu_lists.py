"""The kernel's lists of CPUs, read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.distributed.topology import format_cpu_list, parse_cpu_list


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0-3,8,10-11", (0, 1, 2, 3, 8, 10, 11)),
        ("", ()),
        ("\n", ()),
        ("5\n", (5,)),
        ("7, 2-3 ,3", (2, 3, 7)),
        ("4-4", (4,)),
    ],
)
def test_parse_cpu_list(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == cpus


@pytest.mark.parametrize("text", ["a", "3-1", "1,", ",", "-1", "1-", "1--2", "0-8:2", "1_0", "٣", "999999999"])
def test_parse_cpu_list_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"number nor a range|backwards"):
        parse_cpu_list(text)


@given(st.sets(st.integers(0, 200) | st.integers(0, 8191)))
def test_a_formatted_list_parses_back(cpus: set[int]) -> None:
    text = format_cpu_list(cpus)
    assert parse_cpu_list(text) == tuple(sorted(cpus))
    # As short as it can be: one item for each CPU whose predecessor is absent.
    assert len(text.split(",")) == max(1, sum(cpu - 1 not in cpus for cpu in cpus))


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 20)), min_size=1))
def test_ranges_may_overlap_in_any_order(ranges: list[tuple[int, int]]) -> None:
    text = ",".join(f"{first}-{first + more}" for first, more in ranges)
    union = set().union(*(range(first, first + more + 1) for first, more in ranges))
    assert parse_cpu_list(text) == tuple(sorted(union))


@given(st.text(alphabet="0123456789,- x\n", max_size=20))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        cpus = parse_cpu_list(text)
    except ValueError:
        return
    assert parse_cpu_list(format_cpu_list(cpus)) == cpus
