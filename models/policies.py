"""Policies: functions from the eligible actions and their values to a distribution over them.

Whatever a policy returns is what is drawn from and what is logged; nothing may change the distribution after it.

A policy by value counts an action for its plan value v, less a caution where it has a price, a share of what it brings before that price:
w_i = v_i - caution x max(v_i + price_i, 0) [price_i > 0]. What exploring with probabilities p costs is what is expected to be lost against the best
action under the table's values,

    cost(p) = sum_i p_i (max w - w_i)

and no policy's is above its budget b. Where a policy has a distribution q in mind, each of its C channels, no send among them, pays for itself:

    p = sum_c s_c q_c + (1 - sum_c s_c |q_c|) g,  s_c = min(1, b / (C cost(q_c)))

with q_c the part of q that is of channel c, |q_c| its sum, and g the best action, in equal parts where several tie exactly. cost(g) = 0 and cost is
linear, so cost(p) = sum_c s_c cost(q_c) <= b, and whatever is possible under q stays possible.

So a dearer channel never has a greater share, wherever it is a later step of other plans: its own sends are worth less by the whole rise, since a first
step is paid for certainly, and all others by no more. Its gaps to the best grow, and no other channel's gap says what it may cost.
"""

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from math import inf
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models import compiled
from models.actions import ActionTable
from models.context import Context
from models.engagement import Engagement, count_engagement, engagement_rates
from models.features import Action
from models.local_time import zone
from models.rules import Rules

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
_DAY_BEGINS, _DAY_ENDS = 10, 19
_FORMAT = 1
"""Of draw.c's arguments; both files change it together."""
_SEEDS = 2**64
"""Those below it draw.c knows."""
_TRIED = (0, 1, 2**32 - 1, 2**32, 2**63 - 25, 2**64 - 1)
PER_DECISIONS = 1000
"""Decisions that the exploration budget of the rules is for, and that its cost is told for."""


class Policy(Protocol):
    """A rule of choice under a name that decisions record."""

    @property
    def name(self) -> str:
        """Name, as decisions record it."""
        ...

    def distribution(self, table: ActionTable) -> FloatArray:
        """Return the probability of each action, shape (n,), summing to 1."""
        ...

    def exploration_cost(self, table: ActionTable, probabilities: FloatArray) -> float:
        """Return what exploring with these probabilities is expected to cost, in micros; 0 for a policy that does not explore."""
        ...


class _ByWorth(ABC):
    """A policy that weighs actions by what each counts for."""

    __slots__ = ()
    caution: float

    @abstractmethod
    def by_worth(self, table: ActionTable, worth: FloatArray) -> FloatArray:
        """Return the distribution by what each action counts for, both of shape (n,)."""

    def distribution(self, table: ActionTable) -> FloatArray:
        return self.by_worth(table, _worth(table, self.caution))

    def exploration_cost(self, table: ActionTable, probabilities: FloatArray) -> float:
        return expected_loss(_worth(table, self.caution), probabilities)


@dataclass(frozen=True, slots=True)
class Greedy(_ByWorth):
    """The best action, in equal parts to those that tie exactly; it explores nothing, so that its log teaches little.

    `caution` is a share of value before the price: an action with a price counts for that much less. Values are estimates, prices are not, so where a
    free send is about as good it goes first.
    """

    caution: float = 0.0
    name: str = "greedy"

    def by_worth(self, table: ActionTable, worth: FloatArray) -> FloatArray:
        return _best(worth)


@dataclass(frozen=True, slots=True)
class GreedyFloor(_ByWorth):
    """The best action, with a floor of probability for each of the others.

    Each of n actions keeps f = min(floor, limit / n); what is left goes to the best. `floor` and `limit` are probabilities, `caution` is
    that of `Greedy`, `budget_micros` the most that a decision's exploration may be expected to cost: above its part of it the floors of a channel shrink alike.
    """

    floor: float
    limit: float
    caution: float = 0.0
    budget_micros: float = inf
    name: str = "greedy_floor"

    def by_worth(self, table: ActionTable, worth: FloatArray) -> FloatArray:
        chances = _floored(_best(worth), self.floor, self.limit)
        return _within(chances, worth, _channels(table), self.budget_micros)


@dataclass(frozen=True, slots=True)
class EpsilonGreedy(_ByWorth):
    """The best action, but with probability `epsilon` any channel or no send evenly, and any of its slots evenly.

    The channel is drawn before the slot, so that a channel is not explored for the number of its slots. `caution` and `budget_micros` are
    those of `GreedyFloor`; above the budget a channel's part of epsilon shrinks.
    """

    epsilon: float
    caution: float = 0.0
    budget_micros: float = inf
    name: str = "epsilon_greedy"

    def by_worth(self, table: ActionTable, worth: FloatArray) -> FloatArray:
        channel = _channels(table)
        slots = np.bincount(channel)
        even = 1.0 / (len(slots) * slots[channel])
        chances = self.epsilon * even + (1 - self.epsilon) * _best(worth)
        return _within(chances, worth, channel, self.budget_micros)


@dataclass(frozen=True, slots=True)
class Thompson(_ByWorth):
    """Each channel with the probability that it is the best one, given how uncertain the values are; exact, nothing is sampled.

    What is compared is no send and the best slot of each channel, for what they count for and with their deviations, as independent normal
    values (`models.best_of`): a channel with many slots is not chosen for their number. Of slots that tie the most uncertain stands
    for its channel, in equal parts where these tie too. Each of n actions keeps f = min(floor, limit / n), so that every slot stays possible; `caution` and
    `budget_micros` are those of `GreedyFloor`, above its part of the budget what a channel has shrinks towards the best action.

    Source: Thompson (1933), "On the Likelihood that One Unknown Probability Exceeds Another in View of the Evidence of Two Samples".
    """

    floor: float
    limit: float
    caution: float = 0.0
    budget_micros: float = inf
    name: str = "thompson"

    def by_worth(self, table: ActionTable, worth: FloatArray) -> FloatArray:
        from models.best_of import (
            best_of,
        )  # scipy.special is 28 MB: who does not choose by chance of being best goes without

        channel = _channels(table)
        stands = worth == _greatest(worth, channel)[channel]
        deviation = np.where(stands, table.deviation_micros, -inf)
        stands &= deviation == _greatest(deviation, channel)[channel]
        of_channel = best_of(_greatest(worth, channel), _greatest(deviation, channel))
        chances = stands * (of_channel / np.bincount(channel, weights=stands))[channel]
        return _within(_floored(chances, self.floor, self.limit), worth, channel, self.budget_micros)


@dataclass(frozen=True, slots=True)
class InverseGap(_ByWorth):
    """Each action the less probable the more it is expected to lose, so that exploring costs at most the budget, whatever the values.

    Inverse-gap weighting gives one of k choices, which is worth gap_i less than the best, p_i = 1 / (k + gamma gap_i), and the best the rest,
    in equal parts where several tie exactly. Each choice that is not the best then costs

        p_i gap_i = gap_i / (k + gamma gap_i) < 1 / gamma,  so that  cost(p) <= (k - 1) / gamma

    and gamma = (k - 1) / b makes that the budget b: what loses nothing is drawn evenly, what loses much more than b about b / gap_i / (k - 1) of
    the time. A dear channel is explored rarely because its price is in the gap.

    It is used twice, with half the budget each: between no send and the channels, each for its best slot, and between the slots of each
    channel. With P_c the probability of a channel and q_s that of its slot s, action (c, s) has P_c q_s and all of it costs

        sum_c P_c (gap_c + sum_s q_s gap_s) <= b / 2 + sum_c P_c b / 2 = b

    `budget_micros` is b, the most that a decision's exploration may be expected to cost, above 0; `caution` is that of `Greedy`.

    Source: Foster & Rakhlin (2020), "Beyond UCB: Optimal and Efficient Contextual Bandits with Regression Oracles" (SquareCB).
    """

    budget_micros: float
    caution: float = 0.0
    name: str = "inverse_gap"

    def by_worth(self, table: ActionTable, worth: FloatArray) -> FloatArray:
        channel = _channels(table)
        best = _greatest(worth, channel)
        between = _inverse_gap(best, np.zeros(len(best), dtype=np.intp), self.budget_micros / 2)
        return np.asarray(between[channel] * _inverse_gap(worth, channel, self.budget_micros / 2))


@dataclass(frozen=True, slots=True)
class RuleCascade:
    """The first channel of a fixed order that is eligible, at its first slot: what a hand-written cascade does. It explores nothing."""

    order: Sequence[str]
    name: str = "rule_cascade"

    def distribution(self, table: ActionTable) -> FloatArray:
        sends = _sends(table)
        rank = _ranks(self.order, sends)
        first = min(sends, key=lambda channel: rank[channel], default=None)
        return _certain(table, 0 if first is None else sends[first][0])

    def exploration_cost(self, table: ActionTable, probabilities: FloatArray) -> float:
        return 0.0


@dataclass(frozen=True, slots=True)
class MostEngaged:
    """The channel that this customer engages with most, at its first slot in the daytime: what many shops do. It explores nothing.

    `engagement` is what was sent and engaged with by channel, its rates those of `models.engagement.engagement_rates`; of equal rates the
    channel that is first in `order` goes first. Daytime is 10 to 19 in `time_zone`; where no slot lies in it, the first slot is taken.
    """

    engagement: Mapping[str, Engagement]
    order: Sequence[str]
    time_zone: str
    name: str = "most_engaged"

    def distribution(self, table: ActionTable) -> FloatArray:
        sends = _sends(table)
        rank, rates = _ranks(self.order, sends), engagement_rates(self.engagement, sends)
        most = min(sends, key=lambda channel: (-rates[channel], rank[channel]), default=None)
        if most is None:
            return _certain(table, 0)
        return _certain(table, next((i for i in sends[most] if self._is_day(table.actions[i])), sends[most][0]))

    def exploration_cost(self, table: ActionTable, probabilities: FloatArray) -> float:
        return 0.0

    def _is_day(self, action: Action) -> bool:
        moment = action.send_time
        return moment is not None and _DAY_BEGINS <= moment.astimezone(zone(self.time_zone)).hour < _DAY_ENDS


def make_policy(rules: Rules, context: Context) -> Policy:
    """Return the policy that the rules name, for the customer of this context."""
    chosen = rules.policy
    floor, limit, caution = chosen.exploration_floor, chosen.exploration_limit, chosen.paid_caution
    budget = inf if chosen.exploration_budget is None else chosen.exploration_budget / PER_DECISIONS
    match chosen.name:
        case "greedy":
            return Greedy(caution)
        case "greedy_floor":
            return GreedyFloor(floor, limit, caution, budget)
        case "epsilon_greedy":
            return EpsilonGreedy(limit, caution, budget)
        case "thompson":
            return Thompson(floor, limit, caution, budget)
        case "inverse_gap":
            return InverseGap(budget, caution)
        case "rule_cascade":
            return RuleCascade(rules.cascade.order)
        case "most_engaged":
            customer = context.customer
            counts = count_engagement(customer.contacts, context.decide_time)
            return MostEngaged(counts, rules.cascade.order, customer.time_zone)


def explore(policy: Policy, table: ActionTable) -> tuple[FloatArray, float]:
    """Return a policy's distribution, and what exploring with it is expected to cost; what actions count for is worked out once."""
    if isinstance(policy, _ByWorth):
        worth = _worth(table, policy.caution)
        probabilities = policy.by_worth(table, worth)
        return probabilities, expected_loss(worth, probabilities)
    probabilities = policy.distribution(table)
    return probabilities, policy.exploration_cost(table, probabilities)


def expected_loss(worth: FloatArray, probabilities: FloatArray) -> float:
    """Return what choosing with these probabilities is expected to lose against the best, both of shape (n,)."""
    return float(probabilities @ (worth.max() - worth))


def draw(probabilities: FloatArray, seed: int) -> int:
    """Draw one index with these probabilities, shape (n,), from a generator of that seed, which is not negative."""
    library = _kernel()
    if library is None or not 0 <= seed < _SEEDS:
        return draw_by_numpy(probabilities, seed)
    found: int = library.draw(compiled.address(np.ascontiguousarray(probabilities)), len(probabilities), seed)
    return found if found >= 0 else draw_by_numpy(probabilities, seed)


def draw_by_numpy(probabilities: FloatArray, seed: int) -> int:
    """Do what draw.c does; the reference, and what serves where that was not compiled."""
    return int(pick(probabilities, np.float64(np.random.default_rng(seed).random())))


@cache
def _kernel() -> Any:
    """Return draw.c's library; None where it was not compiled, or where it does not draw what numpy does."""
    library = compiled.load("draw", _FORMAT)
    if library is None:
        return None
    library.draw.restype, library.draw.argtypes = ctypes.c_int64, (ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint64)
    library.uniform.restype, library.uniform.argtypes = ctypes.c_double, (ctypes.c_uint64,)
    is_same = all(library.uniform(seed) == np.random.default_rng(seed).random() for seed in _TRIED)
    return library if is_same else None


def pick(probabilities: FloatArray, uniform: FloatArray | np.float64) -> IntArray:
    """Return the index that each number in [0, 1) falls to, of the shape of `uniform`; one without probability is never picked."""
    cumulative = np.cumsum(probabilities)
    last = np.flatnonzero(probabilities)[-1]
    return np.asarray(np.minimum(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"), last))


def _worth(table: ActionTable, caution: float) -> FloatArray:
    """Return what each action counts for: its plan value, less the caution where it has a price."""
    price = table.price_micros * (1 + table.shadow_price)
    return table.plan_micros - caution * np.maximum(table.plan_micros + price, 0.0) * (table.price_micros > 0)


def _best(worth: FloatArray) -> FloatArray:
    """Return the distribution of the best action, in equal parts over those that tie exactly."""
    best = worth == worth.max()
    return np.asarray(best / best.sum())


def _floored(chances: FloatArray, floor: float, limit: float) -> FloatArray:
    """Give every action its floor, and what is left by these chances."""
    n = len(chances)
    kept = min(floor, limit / n)
    return kept + (1 - n * kept) * chances


def _within(chances: FloatArray, worth: FloatArray, channel: IntArray, budget_micros: float) -> FloatArray:
    """Draw each channel's part of a distribution towards the best action until all are expected to lose no more than the budget."""
    cost = np.bincount(channel, weights=chances * (worth.max() - worth))
    part = budget_micros / len(cost)
    if (cost <= part).all():
        return chances
    kept = np.where(cost > part, part / np.maximum(cost, part), 1.0)[channel] * chances
    return np.asarray(kept + (1 - kept.sum()) * _best(worth))


def _inverse_gap(worth: FloatArray, group: IntArray, budget_micros: float) -> FloatArray:
    """Return the probability of each choice within its group, of which each is expected to lose no more than the budget."""
    size = np.bincount(group)
    gap = _greatest(worth, group)[group] - worth
    is_best = gap == 0
    others = np.where(is_best, 0.0, 1 / (size[group] + (size[group] - 1) / budget_micros * gap))
    rest = (1 - np.bincount(group, weights=others)) / np.bincount(group, weights=is_best)
    return np.where(is_best, rest[group], others)


def _greatest(worth: FloatArray, group: IntArray) -> FloatArray:
    """Return the greatest worth of each group."""
    greatest = np.full(group.max() + 1, -inf)
    np.maximum.at(greatest, group, worth)
    return greatest


def _channels(table: ActionTable) -> IntArray:
    """Return the number of each action's channel, from 0; no send is a channel of its own."""
    return table.listed.channel


def _sends(table: ActionTable) -> dict[str, list[int]]:
    """Return the indexes of the sends through each channel, by time."""
    found: dict[str, list[tuple[datetime, int]]] = {}
    for index, action in enumerate(table.actions):
        if action.send_time is not None:
            found.setdefault(action.channel, []).append((action.send_time, index))
    return {channel: [index for _, index in sorted(slots)] for channel, slots in found.items()}


def _ranks(order: Sequence[str], channels: Iterable[str]) -> dict[str, int]:
    """Return the place of each channel: those of the order first, then the others as they come."""
    return {channel: place for place, channel in enumerate(dict.fromkeys((*order, *channels)))}


def _certain(table: ActionTable, index: int) -> FloatArray:
    """Return the distribution of one action alone."""
    probabilities = np.zeros(len(table))
    probabilities[index] = 1.0
    return probabilities
