"""What is to be known of a best one that was selected on the set it is scored on: the spread that it stands out of."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Selection:
    """The scores among which the best was selected."""

    of: int
    mean: float
    standard_deviation: float | None  # of the sample; None: of one

    def told(self, cure: str) -> str:
        """In a line, with what to do about it."""
        spread = self.standard_deviation
        return (
            f"mean {self.mean:.4f}"
            + (f", standard deviation {spread:.4f}" if spread is not None else "")
            + f", n = {self.of}; the best was selected on dev, so its score is biased: {cure}"
        )

    def better_than_mean(self, best: float) -> float | None:
        """By how many standard deviations the best is better than the mean; None: there is no deviation."""
        return abs(best - self.mean) / self.standard_deviation if self.standard_deviation else None


def selection_of(scores: Sequence[float]) -> Selection:
    """Of at least one score."""
    spread = statistics.stdev(scores) if len(scores) > 1 else None
    return Selection(of=len(scores), mean=statistics.mean(scores), standard_deviation=spread)


def best_by_chance(of: int) -> float:
    """The largest of so many draws from a normal distribution, in standard deviations above its mean, as expected.

    Blom 1958: right to 0.02 from two draws on.
    """
    return statistics.NormalDist().inv_cdf((of - 0.375) / (of + 0.25)) if of > 1 else 0.0
