"""What a send is worth with what may follow it: cascades valued by enumeration.

A cascade is a sequence of up to three sends through different channels, each made only if the customer did not react to those before. With
X_a(z, g) the worth of a reaction to send a in cell g weighted by the node of interest z, and B_a(z, g) = P(no reaction to a before g | z),
both of send a as if alone (models.curves), a set of sends A is worth

    V(A) = sum_{a in A} [ sum_{z,g} X_a prod_{b in A, b != a} B_b  -  price_a (1 + shadow price) sum_z w_z prod_{b before a} B_b(z, start_a) ],

because given the node the sends are independent up to the first reaction, which ends the message. So waiting has its price (relevance is lost)
and its worth (who reacts is not paid for, who noticed and did nothing is known to care less), and the best wait is that of the best sequence. What
was made before enters as one more send without a price. All pairs are looked at, by two products of matrices; for the best pairs of each first
send, their seconds of different channels, a third send is sought, after the second or between the two: V does not ask for the order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.curves import Curves

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
LOOK_AHEAD = 3
PAIRS = 2
"""Pairs of each first send for which a third send is sought."""
_NEVER = -np.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What sends cost, and which order they must keep; arrays of shape (m,)."""

    micros: FloatArray
    """Price with the shadow price of the budget on top."""
    is_paid: NDArray[np.bool_]
    ready: IntArray
    """Cell from which a next step may follow each send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeValues:
    """Value in micros of each send, alone and with the best that may follow it; shape (m,). Steps are places among the sends, -1 for none."""

    alone: FloatArray
    pair: FloatArray
    """With the second step of the best cascade alone; as `alone` where there is none."""
    value: FloatArray
    second: IntArray
    third: IntArray

    def following(self, place: int) -> tuple[int, ...]:
        """Return the places of the sends that best follow this one, in order."""
        return tuple(int(step[place]) for step in (self.second, self.third) if step[place] >= 0)

    def growing(self, place: int) -> tuple[float, ...]:
        """Return what the best cascade of this send is worth with its first step, with its first two, and so on."""
        values = (self.alone, self.pair, self.value)
        return tuple(float(value[place]) for value in values[: 1 + len(self.following(place))])


def value_cascades(curves: Curves, prices: Prices, steps_left: int, *, is_strict: bool = False) -> CascadeValues:
    """Value every send as the first of a cascade of at most `steps_left` steps.

    `is_strict` says that paid sends wait for free ones: one may be step d + 1 only if at most d free channels are eligible.
    """
    m = len(curves.channel)
    nothing = np.full(m, -1, dtype=np.intp)
    if m == 0:
        empty = np.zeros(0)
        return CascadeValues(alone=empty, pair=empty, value=empty, second=nothing, third=nothing)
    before = curves.before.reshape(m, -1)
    net = _net_worth(curves, prices)
    pending = curves.pending_worth.ravel()
    has_pending = bool(pending.any())
    alone = net.sum(axis=1)
    if has_pending:
        alone = alone + before @ pending - pending.sum()
    if steps_left < 2:
        return CascadeValues(alone=alone, pair=alone, value=alone, second=nothing, third=nothing)
    number = {name: i for i, name in enumerate(dict.fromkeys(curves.channel))}
    channel = np.array([number[name] for name in curves.channel])
    free = len(set(channel[~prices.is_paid].tolist()))
    apart = channel[:, None] != channel
    may_follow = apart & (curves.start >= prices.ready[:, None])
    cross = net @ before.T
    pair = cross + cross.T
    if has_pending:
        pair += (before * pending) @ before.T - pending.sum()
    may_be_second = may_follow & ~prices.is_paid if is_strict and free > 1 else may_follow
    may_be_third = may_follow & ~prices.is_paid if is_strict and free > 2 else may_follow
    pair = np.where(may_be_second, pair, _NEVER)
    rows = np.arange(m)
    value, of_pair, second, third = alone.copy(), alone.copy(), nothing.copy(), nothing.copy()
    left, last_place = pair, (min(PAIRS, m) if steps_left >= LOOK_AHEAD else 1) - 1
    for place in range(last_place + 1):
        then = left.argmax(axis=1)
        with_second = left[rows, then]
        if place == 0:
            better = with_second > value
            value[better], of_pair[better], second[better] = with_second[better], with_second[better], then[better]
        if steps_left >= LOOK_AHEAD:
            is_after = may_be_third[then] & apart & (with_second > _NEVER)[:, None]
            is_between = may_be_second & may_be_third.T[then] & (with_second > _NEVER)[:, None]
            worth = _with_each(net, before, pending if has_pending else None, then)
            triple = np.where(is_after | is_between, worth, _NEVER)
            other = triple.argmax(axis=1)
            with_third = triple[rows, other]
            is_last = is_after[rows, other]
            middle, last = np.where(is_last, then, other), np.where(is_last, other, then)
            better = with_third > value
            value[better], of_pair[better] = with_third[better], pair[rows, middle][better]
            second[better], third[better] = middle[better], last[better]
        if place < last_place:
            left = np.where(apart[then], left, _NEVER)
    return CascadeValues(alone=alone, pair=of_pair, value=value, second=second, third=third)


def _net_worth(curves: Curves, prices: Prices) -> FloatArray:
    """Return the worth of each send by node and cell with its price taken off where it is paid, shape (m, Z G).

    A price is paid by who did not react to anything before, so what an earlier send b leaves of it is B_b(z, start): its place among the cells is the
    start, and the products with B_b below hold prices as well. B_b is 1 at the start of all sends that are not later than b.
    """
    m, nodes, cells = curves.before.shape
    net = curves.worth * curves.pending_before
    net[np.arange(m), :, curves.start] -= (
        prices.micros[:, None] * curves.weights * curves.pending_before[:, curves.start].T
    )
    return net.reshape(m, nodes * cells)


def _with_each(net: FloatArray, before: FloatArray, pending: FloatArray | None, then: IntArray) -> FloatArray:
    """Return the values of each send with its second step, `then`, and with each send as the third, shape (m, m)."""
    of_then = before[then]
    earlier = net * of_then
    earlier += before * net[then]
    both = np.multiply(before, of_then, out=of_then)
    if pending is None:
        return earlier @ before.T + both @ net.T
    earlier += pending * both
    found: FloatArray = earlier @ before.T + both @ net.T - pending.sum()
    return found


def value_sequence(curves: Curves, prices: Prices, sequence: Sequence[int]) -> float:
    """Return what a sequence of sends is worth beyond what was made before: the formula, cell by cell."""
    total = 0.0
    nodes, cells = curves.pending_before.shape
    for z in range(nodes):
        for g in range(cells):
            before = [float(curves.before[a, z, g]) for a in sequence]
            everything = float(np.prod(before)) if before else 1.0
            for place, a in enumerate(sequence):
                others = float(np.prod(before[:place] + before[place + 1 :]))
                total += float(curves.worth[a, z, g]) * others * float(curves.pending_before[z, g])
            total += float(curves.pending_worth[z, g]) * (everything - 1.0)
    for place, a in enumerate(sequence):
        start = curves.start[a]
        alive = sum(
            float(curves.weights[z])
            * float(curves.pending_before[z, start])
            * float(np.prod([curves.before[b, z, start] for b in sequence[:place]]))
            for z in range(nodes)
        )
        total -= float(prices.micros[a]) * alive
    return total
