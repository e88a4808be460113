"""A part of the training file that is set aside to evaluate on, where there is no file for that.

Legend: N rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from bertkit.errors import UserError


@dataclass(frozen=True)
class HeldOut:
    """Which rows are set aside. The same rows in every run with the same file: the run's own seed plays no part."""

    share: float
    seed: int
    group: str = ""  # column whose values are not divided between the two parts; "": none
    fold: str = ""  # "k/n": the part k (from 0) of n of like size, in place of the share; "": none

    def described(self, stratified: bool) -> str:
        how = f", {self.group} undivided" if self.group else ", stratified by label" if stratified else ""
        what = f"fold {self.fold}" if self.fold else f"{self.share:.0%}"
        return f"{what} of the training file held out{how}, split seed {self.seed}"


def mask(rule: HeldOut, labels: Sequence[Hashable], groups: Sequence[Hashable] | None, where: object) -> np.ndarray:
    """(N,) bool: the rows that are set aside.

    Of each label the same share, as nearly as whole rows allow; of groups whole ones, until the share is reached.
    Raises UserError where one of the two parts would be empty.
    """
    if rule.fold:
        return fold_mask(rule, labels, groups, where)
    stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence([rule.seed, len(labels)])))
    found = np.zeros(len(labels), bool)
    if groups is None:
        members = _members(labels)
        rest = 0.0  # what whole rows left over of the labels before
        for places in members.values():
            wanted = rule.share * len(places) + rest
            taken = min(int(wanted + 0.5), len(places) - 1)
            rest = wanted - taken
            found[stream.permutation(places)[:taken]] = True
    else:
        members = _members(groups)
        order = stream.permutation(len(members))
        whole = [*members.values()]
        for number in order:
            if found.sum() + len(whole[number]) / 2 <= rule.share * len(labels):
                found[whole[number]] = True
        if not found.any() and len(whole) > 1:
            found[min(whole, key=len)] = True
    if groups is not None and len(members) == 1:
        raise UserError(f"{where}: column {rule.group} holds one value only: none can be held out", "drop table.group")
    if not found.any() or found.all():
        raise UserError(
            f"{where}: {len(labels)} rows are too few to hold {rule.share:.0%} of them out",
            "name a file to evaluate on with --dev, or change table.dev_share",
        )
    return found


def fold_mask(
    rule: HeldOut, labels: Sequence[Hashable], groups: Sequence[Hashable] | None, where: object
) -> np.ndarray:
    """(N,) bool: the rows of the fold, by scikit-learn's splitters; each row is in one fold of the n.

    Raises UserError where there are too few rows, labels or groups for so many folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    number, _, folds = rule.fold.partition("/")
    codes = _codes(labels)
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    made = splitter(int(folds), shuffle=True, random_state=rule.seed)
    found = np.zeros(len(labels), bool)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a label of fewer rows than folds is in some folds alone
            parts = list(made.split(codes, codes, None if groups is None else _codes(groups)))
    except ValueError as error:
        raise UserError(f"{where}: cannot be cut into {folds} folds: {error}", "take fewer folds") from None
    found[parts[int(number)][1]] = True
    if not found.any() or found.all():
        raise UserError(f"{where}: too few groups for {folds} folds", "take fewer folds")
    return found


def _codes(keys: Sequence[Hashable]) -> np.ndarray:
    """Numbers in place of the keys, in the order of their appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


def _members(keys: Sequence[Hashable]) -> dict[Hashable, np.ndarray]:
    """Each key's rows, the keys in their order of appearance."""
    places: dict[Hashable, list[int]] = {}
    for number, key in enumerate(keys):
        places.setdefault(key, []).append(number)
    return {key: np.array(numbers) for key, numbers in places.items()}
