"""Policies: functions from the eligible actions and their values to a distribution over them.

Whatever a policy returns is what is drawn from and what is logged; nothing may change the distribution after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.actions import ActionTable

FloatArray = NDArray[np.float64]


class Policy(Protocol):
    """A rule of choice under a name that decisions record."""

    @property
    def name(self) -> str:
        """Name, as decisions record it."""
        ...

    def distribution(self, table: ActionTable) -> FloatArray:
        """Return the probability of each action, shape (n,), summing to 1."""
        ...


@dataclass(frozen=True, slots=True)
class GreedyFloor:
    """The best action, with a floor of probability for each of the others.

    Each of n actions keeps f = min(floor, limit / n); what is left goes to the action of greatest value with what may follow it, in
    equal parts to those that tie exactly. `floor` and `limit` are probabilities. An action with a price counts for `caution` of its
    value less: values are estimates, prices are not, so where a free send is about as good it goes first.
    """

    floor: float
    limit: float
    caution: float = 0.0
    name: str = "greedy_floor"

    def distribution(self, table: ActionTable) -> FloatArray:
        n = len(table)
        kept = min(self.floor, self.limit / n)
        costs = self.caution * np.maximum(table.plan_micros, 0.0) * (table.price_micros > 0)
        value = table.plan_micros - costs
        best = value == value.max()
        return np.where(best, kept + (1 - n * kept) / best.sum(), kept)


@dataclass(frozen=True, slots=True)
class RuleCascade:
    """The first channel of a fixed order that is eligible, at its first slot: what a hand-written cascade does."""

    order: Sequence[str]
    name: str = "rule_cascade"

    def distribution(self, table: ActionTable) -> FloatArray:
        rank = {channel: place for place, channel in enumerate(self.order)}
        sends = [i for i, action in enumerate(table.actions) if action.send_time is not None]
        chosen = min(sends, key=lambda i: (rank.get(table.actions[i].channel, len(rank)), i), default=0)
        probabilities = np.zeros(len(table))
        probabilities[chosen] = 1.0
        return probabilities


def draw(probabilities: FloatArray, seed: int) -> int:
    """Draw one index with these probabilities from a generator of that seed."""
    uniform = np.random.default_rng(seed).random()
    cumulative = np.cumsum(probabilities)
    positive = np.flatnonzero(probabilities)
    index = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    return min(index, int(positive[-1]))
