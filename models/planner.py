"""What a send is worth with what may follow it: cascades valued by enumeration.

A cascade is a sequence of up to three sends through different channels, each made only if the customer did not react to those before. With
X_a(z, g) the worth of a reaction to send a in cell g weighted by the node of interest z, and B_a(z, g) = P(no reaction to a before g | z),
both of send a as if alone (models.curves), a set of sends A is worth

    V(A) = sum_{a in A} [ sum_{z,g} X_a prod_{b in A, b != a} B_b  -  price_a (1 + shadow price) sum_z w_z prod_{b before a} B_b(z, start_a) ],

because given the node the sends are independent up to the first reaction, which ends the message. So waiting has its price (relevance is lost)
and its worth (who reacts is not paid for, who noticed and did nothing is known to care less), and the best wait is that of the best sequence. What
was made before enters as one more send without a price. All pairs are looked at, by two products of matrices; a third step is sought
for the best pairs of each first send.
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
"""Second steps of each first send for which a third is sought."""
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
    nodes, cells = curves.pending_before.shape
    own = np.ascontiguousarray((curves.worth * curves.pending_before).reshape(m, nodes * cells))
    before = np.ascontiguousarray(curves.before.reshape(m, nodes * cells))
    pending = curves.pending_worth.ravel()
    has_pending = bool(pending.any())
    alive = np.einsum("z,mzg->mg", curves.weights, curves.before * curves.pending_before)
    base = (curves.weights @ curves.pending_before)[curves.start]
    alone = own.sum(axis=1) - prices.micros * base
    if has_pending:
        alone = alone + before @ pending - pending.sum()
    free = len({c for c, paid in zip(curves.channel, prices.is_paid, strict=True) if not paid})
    if steps_left < 2:
        return CascadeValues(alone=alone, pair=alone, value=alone, second=nothing, third=nothing)
    number = {name: i for i, name in enumerate(dict.fromkeys(curves.channel))}
    channel = np.array([number[name] for name in curves.channel])
    may_follow = (channel[:, None] != channel[None, :]) & (curves.start[None, :] >= prices.ready[:, None])
    second_may = may_follow & ~(is_strict and free > 1) | (may_follow & ~prices.is_paid[None, :])
    cross = own @ before.T
    pair = cross + cross.T - (prices.micros * base)[:, None] - prices.micros[None, :] * alive[:, curves.start]
    if has_pending:
        pair += (before * pending) @ before.T - pending.sum()
    pair = np.where(second_may, pair, _NEVER)
    tried = min(PAIRS, m)
    best = np.argpartition(-pair, tried - 1, axis=1)[:, :tried]
    order = np.argsort(-np.take_along_axis(pair, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    rows = np.arange(m)
    second = best[:, 0].astype(np.intp)
    gains = pair[rows, second]
    value = np.where(gains > alone, gains, alone)
    second = np.where(gains > alone, second, -1)
    third = nothing
    if steps_left >= LOOK_AHEAD:
        value, second, third = _with_third(
            curves,
            prices,
            own,
            before,
            pending,
            alive,
            pair,
            best,
            may_follow,
            channel,
            base,
            alone,
            value,
            second,
            closed=is_strict and free > 2,
        )
    with_second = np.where(second >= 0, pair[rows, second], alone)
    return CascadeValues(alone=alone, pair=with_second, value=value, second=second, third=third)


def _with_third(
    curves: Curves,
    prices: Prices,
    own: FloatArray,
    before: FloatArray,
    pending: FloatArray,
    alive: FloatArray,
    pair: FloatArray,
    best: IntArray,
    may_follow: NDArray[np.bool_],
    channel: IntArray,
    base: FloatArray,
    alone: FloatArray,
    value: FloatArray,
    second: IntArray,
    *,
    closed: bool,
) -> tuple[FloatArray, IntArray, IntArray]:
    """Seek a third step for the best pairs."""
    m, nodes, cells = curves.before.shape
    first = np.repeat(np.arange(m), best.shape[1])
    then = best.ravel()
    possible = np.isfinite(pair[first, then])
    first, then = first[possible], then[possible]
    third = np.full(m, -1, dtype=np.intp)
    if not len(first):
        return value, second, third
    both = before[first] * before[then]
    earlier = own[first] * before[then] + own[then] * before[first]
    if pending.any():
        earlier = earlier + pending * both
    triple = earlier @ before.T + both @ own.T - pending.sum()
    both_alive = np.einsum("z,pzg->pg", curves.weights, both.reshape(-1, nodes, cells) * curves.pending_before)
    triple -= (prices.micros * base)[first, None]
    triple -= (prices.micros[then] * alive[first, curves.start[then]])[:, None]
    triple -= prices.micros[None, :] * both_alive[:, curves.start]
    allowed = may_follow[then] & (channel[first][:, None] != channel[None, :])
    if closed:
        allowed = allowed & ~prices.is_paid[None, :]
    triple = np.where(allowed, triple, _NEVER)
    last = triple.argmax(axis=1)
    found = triple[np.arange(len(first)), last]
    for row in np.argsort(found, kind="stable"):
        i = first[row]
        if found[row] > value[i]:
            value[i], second[i], third[i] = found[row], then[row], last[row]
    return value, second, third


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
