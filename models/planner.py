"""What a send is worth with what may follow it: cascades valued by enumeration.

A cascade is a sequence of up to three sends through different channels, each made only if the customer did not react to those before. With
X_a(z, g) the worth of a reaction to send a in cell g weighted by the node of interest z, and B_a(z, g) = P(no reaction to a before g | z),
both of send a as if alone (models.curves), a set of sends A is worth

    V(A) = sum_{a in A} [ sum_{z,g} X_a prod_{b in A, b != a} B_b  -  price_a (1 + shadow price) sum_z w_z prod_{b before a} B_b(z, start_a) ],

because given the node the sends are independent up to the first reaction, which ends the message. So waiting has its price (relevance is lost)
and its worth (who reacts is not paid for, who noticed and did nothing is known to care less), and the best wait is that of the best sequence. What
was made before enters as one more send without a price. The value of a first send is that of the best of all cascades of up to three that begin with it; of
cascades worth the same that whose second send comes first among the sends, then that whose third does. Of a channel with many slots, later steps are among some of them
(`models.slate`). So whoever takes a channel away never raises a value.

Prices are taken off where they are paid, N_a = X_a - price at the cell of the start, and sets grow send by send: with E = what was made before
and P = 1 of the empty set,

    E_{A+c} = E_A B_c + P_A N_c,      P_{A+c} = P_A B_c,      V(A) = sum_{z,g} E_A - sum_{z,g} E_empty.

Answers must not hang on the machine or on who adds up, so the order of the sums is part of the definition:

    V(A + c) = sum_z ( sum_g E_A B_c + sum_g P_A N_c ) - sum_z sum_g E_empty,

each sum from its first term on, one after another, with A grown in the order in which its sends are made. models/plan.c does all of it in that order. Where it is not compiled, products of matrices, which
add up in an order of their own, tell which sends can be best, and only those are added up in that order, so that both find the same to the bit.

Few third sends need looking at. After the first send a and a second b, c adds no more from its start s on than

    sum_z B_b(s) [ (P_a(s) (N_c(s) + sum_{g>s} N_c+))+ + sum_{g>=s} E_a- ]  +  sum_{z,g>=s} N_b-,

with x+ for what of x is above 0 and x- for what is below: B and P fall from cell to cell, so P_ab = P_a B_b is never more than at s, and of E_ab = E_a B_b + P_a N_b a reaction to c
can only save what is below 0. So pairs are taken in the order of their value with the greatest of that for any c, until none reaches the best cascade found. plan.c has closer bounds.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import compiled
from models.curves import NODE_WEIGHTS, Curves, PlainLags, Shapes, curves_of_click

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]
LOOK_AHEAD = 3
_NEVER = -np.inf
_FORMAT = 6
"""Of plan.c's arguments; both files change it together."""
_MOST_NODES, _MOST_PLAIN_NODES = 15, 3
"""That plan.c has room for."""
_NEAR = 1e-9
"""Sums of the same in another order differ by less than this part of what is added up."""
_LEVEL = 1e-12
"""Chances that rise by less are taken to fall."""
_TOGETHER = 2048
"""Sums that are added up at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What sends cost, and which order they must keep; arrays of shape (m,)."""

    micros: FloatArray
    """Price with the shadow price of the budget on top."""
    is_paid: NDArray[np.bool_]
    ready: IntArray
    """Cell from which a next step may follow each send."""
    is_later: BoolArray | None = None
    """Which sends may be steps after the first; all where it is None."""


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
    return value_with_free(curves, prices, steps_left, None, is_strict=is_strict)[0]


def value_with_free(
    curves: Curves, prices: Prices, steps_left: int, is_free: BoolArray | None, *, is_strict: bool = False
) -> tuple[CascadeValues, float | None]:
    """Do the same, and tell what the best of the sends that are free, shape (m,), is worth with such alone after it; None where nobody asks, or it is not found on the way."""
    m = len(curves.channel)
    if m == 0:
        empty, nothing = np.zeros(0), np.zeros(0, dtype=np.intp)
        return CascadeValues(alone=empty, pair=empty, value=empty, second=nothing, third=nothing), None
    number = {name: i for i, name in enumerate(dict.fromkeys(curves.channel))}
    channel = np.array([number[name] for name in curves.channel], dtype=np.intp)
    free = len(set(channel[~prices.is_paid].tolist()))
    case = Case(
        net=_net_worth(curves, prices),
        before=curves.before,
        pending=curves.pending_worth,
        start=curves.start,
        ready=prices.ready,
        channel=channel,
        channels=len(number),
        is_paid=prices.is_paid,
        is_later=_or_all(prices.is_later, m),
        steps=steps_left,
        closed_second=is_strict and free > 1,
        closed_third=is_strict and free > LOOK_AHEAD - 1,
        shapes=curves.shapes,
        weights=curves.weights,
    )
    library = _kernel()
    if library is None or case.before.shape[1] > _MOST_NODES:
        return best_by_products(case), None
    if is_free is None:
        return _best_by(library, case), None
    told, free_most = np.ascontiguousarray(is_free, np.bool_), np.empty(1)
    values = _best_by(library, case, (compiled.address(told), compiled.address(free_most)))
    return values, float(free_most[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What cascades are to be found among."""

    net: FloatArray
    """N, shape (m, Z, G)."""
    before: FloatArray
    """B, shape (m, Z, G)."""
    pending: FloatArray
    """E of the empty set, shape (Z, G)."""
    start: IntArray
    ready: IntArray
    channel: IntArray
    """Numbers from 0."""
    channels: int
    is_paid: BoolArray
    is_later: BoolArray
    """Whether each send may be a step after the first."""
    steps: int
    closed_second: bool
    """Whether no paid send may be the second step."""
    closed_third: bool
    shapes: Shapes | None = None
    """What the sends' curves have in common; it saves sums, and changes none, as do the next."""
    weights: FloatArray | None = None
    """Of nodes, by which prices are shared out, shape (Z,)."""

    @property
    def may_follow(self) -> BoolArray:
        """Return which sends may come after which, but for the order of paid ones, shape (m, m)."""
        found: BoolArray = (self.channel[:, None] != self.channel) & (self.start >= self.ready[:, None]) & self.is_later
        return found


class _Problem(ctypes.Structure):
    """As plan.c has it."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("sends", "nodes", "cells", "steps", "closed_second", "closed_third")),
        *((name, ctypes.c_void_p) for name in ("net", "before", "pending", "weights")),
        *((name, ctypes.c_void_p) for name in ("start", "ready", "channel", "is_paid", "is_later")),
        ("shapes", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("shape", "lag")),
        ("kinds", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("kind", "reacts", "gains")),
        *((name, ctypes.c_void_p) for name in ("alone", "pair", "value", "second", "third")),
        *((name, ctypes.c_void_p) for name in ("is_free", "free_most")),
    )


def _best_by(library: Any, case: Case, free: tuple[int, int] = (0, 0)) -> CascadeValues:
    m, nodes, cells = case.before.shape
    weights = np.ones(nodes) if case.weights is None else case.weights
    floats = [np.ascontiguousarray(array, np.float64) for array in (case.net, case.before, case.pending, weights)]
    numbers = [np.ascontiguousarray(array, np.int64) for array in (case.start, case.ready, case.channel)]
    told = (*floats, *numbers, *(np.ascontiguousarray(asked, np.bool_) for asked in (case.is_paid, case.is_later)))
    worth, steps = np.empty((3, m)), np.empty((2, m), dtype=np.int64)
    first, then = compiled.address(worth), compiled.address(steps)
    results = (first, first + 8 * m, first + 16 * m, then, then + 8 * m)
    counts = (m, nodes, cells, case.steps)
    shaped = _told_of_shapes(case.shapes)
    problem = _Problem(
        *counts, case.closed_second, case.closed_third, *map(compiled.address, told), *shaped, *results, *free
    )
    if library.plan(ctypes.addressof(problem)):
        raise MemoryError("there is no memory for a plan")
    return CascadeValues(alone=worth[0], pair=worth[1], value=worth[2], second=steps[0], third=steps[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """Plain curves of k customers whose m sends are the same; what hangs on the sends alone first."""

    how: PlainLags
    ready: IntArray
    """Shape (m,)."""
    is_paid: BoolArray
    """Shape (m,)."""
    steps: int
    is_strict: bool
    click: FloatArray
    """P(click) by node, shape (k, m, Z)."""
    uplift: FloatArray
    """Shape (k, m), as the next two."""
    p_unsubscribe: FloatArray
    price: FloatArray
    """In micros, shadow prices on top."""
    margin: FloatArray
    """Shape (k,)."""
    harm_micros: float
    is_later: BoolArray | None = None
    """As `Prices.is_later`."""
    is_free: BoolArray | None = None
    """Sends of which it is asked what the best of them is worth with such alone after it, shape (k, m); None where nobody asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignValues:
    """Values of each customer's sends, and what the best free one is worth, -inf where none is free: None where nobody asked, or it is not found on the way."""

    values: list[CascadeValues]
    free_most: list[float] | None


class _Plain(ctypes.Structure):
    """As plan.c has it."""

    _fields_ = (
        ("customers", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("click", "uplift", "p_unsubscribe", "price", "margin")),
        *((name, ctypes.c_void_p) for name in ("is_free", "free_most")),
        ("harm", ctypes.c_double),
    )


def value_campaign(campaign: Campaign) -> CampaignValues:
    """Value every send of each customer; what `value_cascades` finds of their curves one by one, and how it is done where plan.c was not compiled."""
    library = _kernel()
    if library is not None and len(campaign.is_paid) and campaign.click.shape[2] <= _MOST_PLAIN_NODES:
        return _campaign_by_kernel(library, campaign)
    found = []
    for i, margin in enumerate(campaign.margin.tolist()):
        curves = curves_of_click(
            campaign.how, campaign.click[i], campaign.uplift[i], campaign.p_unsubscribe[i], margin, campaign.harm_micros
        )
        prices = Prices(
            micros=campaign.price[i], is_paid=campaign.is_paid, ready=campaign.ready, is_later=campaign.is_later
        )
        found.append(value_cascades(curves, prices, campaign.steps, is_strict=campaign.is_strict))
    return CampaignValues(values=found, free_most=None)


def _campaign_by_kernel(library: Any, campaign: Campaign) -> CampaignValues:
    """Draw and plan each customer by plan.c in one call."""
    how, (customers, m, nodes), cells = campaign.how, campaign.click.shape, len(campaign.how.begin)
    free = len(set(how.number[~campaign.is_paid].tolist())) if campaign.is_strict else 0
    worth, steps = np.empty((3, customers, m)), np.empty((2, customers, m), dtype=np.int64)
    free_most, is_free = np.empty(customers), campaign.is_free
    asked = (0, 0) if is_free is None else (compiled.address(is_free), compiled.address(free_most))
    first, then, size = compiled.address(worth), compiled.address(steps), 8 * customers * m
    is_later = _or_all(campaign.is_later, m)
    shared = (np.zeros((nodes, cells)), NODE_WEIGHTS, how.start, campaign.ready, how.number, campaign.is_paid, is_later)
    problem = _Problem(
        *(m, nodes, cells, campaign.steps, free > 1, free > LOOK_AHEAD - 1),
        *(0, 0, *map(compiled.address, shared)),
        *(len(how.lags), *map(compiled.address, (how.row, how.lags)), how.kinds, compiled.address(how.kind), 0, 0),
        *(first, first + size, first + 2 * size, then, then + size, 0, 0),
    )
    own = [
        np.ascontiguousarray(array, np.float64)
        for array in (campaign.click, campaign.uplift, campaign.p_unsubscribe, campaign.price, campaign.margin)
    ]
    plain = _Plain(customers, *map(compiled.address, own), *asked, campaign.harm_micros)
    if library.plan_plain(ctypes.addressof(problem), ctypes.addressof(plain)):
        raise MemoryError("there is no memory for a plan")
    values = [
        CascadeValues(alone=worth[0, i], pair=worth[1, i], value=worth[2, i], second=steps[0, i], third=steps[1, i])
        for i in range(customers)
    ]
    return CampaignValues(values=values, free_most=None if is_free is None else free_most.tolist())


def _or_all(asked: BoolArray | None, m: int) -> BoolArray:
    return np.ones(m, dtype=np.bool_) if asked is None else np.ascontiguousarray(asked)


def _told_of_shapes(shapes: Shapes | None) -> tuple[int, ...]:
    if shapes is None:
        return (0,) * 7
    row, lags, kind, reacts, gains = map(
        compiled.address, (shapes.row, shapes.lags, shapes.kind, shapes.reacts, shapes.gains)
    )
    return len(shapes.lags), row, lags, shapes.kinds, kind, reacts, gains


@cache
def _kernel() -> Any:
    """Return plan.c's library; None where it was not compiled, or so that it does not find the same as the reference to the bit."""
    library = compiled.load("plan", _FORMAT)
    if library is None:
        return None
    library.plan.argtypes = (ctypes.c_void_p,)
    library.plan_plain.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    case = _trial()
    return library if _is_same(_best_by(library, case), best_by_products(case)) else None


def _is_same(one: CascadeValues, two: CascadeValues) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for name in CascadeValues.__slots__)


def _trial() -> Case:
    """Return a case by which a kernel is tried when it is loaded: four channels, one of them paid, something pending."""
    random, (m, nodes, cells) = np.random.default_rng(0), (20, 3, 12)
    start = np.sort(random.integers(0, 9, m))
    is_open = np.arange(cells) >= start[:, None, None]
    chance = np.where(is_open, random.uniform(0, 0.05, (m, nodes, cells)), 0.0)
    channel = random.integers(0, 4, m)
    net = chance * random.uniform(-1, 9, (m, 1, 1))
    net[np.arange(m), :, start] -= np.where(channel == 0, 0.1, 0.0)[:, None]
    return Case(
        net=net,
        before=1.0 - (np.cumsum(chance, axis=2) - chance),
        pending=random.uniform(0, 0.1, (nodes, cells)),
        start=start,
        ready=start + 1,
        channel=channel,
        channels=4,
        is_paid=channel == 0,
        is_later=np.arange(m) % 7 > 0,
        steps=LOOK_AHEAD,
        closed_second=False,
        closed_third=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sets:
    """E and P of m sets of sends, shapes (m, Z, G)."""

    earned: FloatArray
    left: FloatArray

    def and_each(self, rows: IntArray, case: Case, sends: IntArray) -> FloatArray:
        """Return V of the sets in these rows with these sends, added up in order, shape (n,)."""
        nothing = _in_order(case.pending[None])
        found = np.empty(len(rows))
        for begin in range(0, len(rows), _TOGETHER):
            of, send = rows[begin : begin + _TOGETHER], sends[begin : begin + _TOGETHER]
            earned, left = self.earned[of] * case.before[send], self.left[of] * case.net[send]
            found[begin : begin + _TOGETHER] = _in_order(earned, left) - nothing
        return found

    def best(self, case: Case, may_be: BoolArray) -> tuple[IntArray, FloatArray]:
        """Return the best send to come with each set of those that `may_be`, a row for each set, and V with it; -inf where none may be."""
        m, of_all = len(self.earned), len(case.net)
        earned, left = self.earned.reshape(m, -1), self.left.reshape(m, -1)
        before, net = case.before.reshape(of_all, -1), case.net.reshape(of_all, -1)
        about = np.where(may_be, earned @ before.T + left @ net.T, _NEVER)
        size = np.abs(earned).sum(axis=1) + np.abs(left).max(axis=1) * np.abs(net).sum(axis=1).max()
        greatest = about.max(axis=1)
        rows, sends = np.nonzero(may_be & (about >= (greatest - _NEAR * size)[:, None]))
        value = self.and_each(rows, case, sends)
        best = np.full(m, _NEVER)
        np.maximum.at(best, rows, value)
        is_best = value == best[rows]
        place = np.zeros(m, dtype=np.intp)
        place[rows[is_best][::-1]] = sends[is_best][::-1]  # the first of equals is written last
        return place, best


def best_by_products(case: Case) -> CascadeValues:
    """Find the best cascades by products of matrices; the reference of plan.c, and what serves where that was not compiled."""
    m = len(case.channel)
    rows, nothing = np.arange(m), np.full(m, -1, dtype=np.intp)
    empty = _Sets(earned=np.broadcast_to(case.pending, case.net.shape), left=np.ones_like(case.net))
    alone = empty.and_each(rows, case, rows)
    if case.steps < 2:
        return CascadeValues(alone=alone, pair=alone, value=alone, second=nothing, third=nothing)
    may_follow = case.may_follow
    may_be_second = may_follow & ~case.is_paid if case.closed_second else may_follow
    one = _Sets(earned=case.pending * case.before + case.net, left=case.before)
    then, with_second = one.best(case, may_be_second)
    is_better = with_second > alone
    value = np.where(is_better, with_second, alone)
    second, third, of_pair = np.where(is_better, then, nothing), nothing.copy(), value.copy()
    if case.steps < LOOK_AHEAD:
        return CascadeValues(alone=alone, pair=of_pair, value=value, second=second, third=third)
    apart = case.channel[:, None] != case.channel
    may_be_third = may_follow & ~case.is_paid if case.closed_third else may_follow
    promise = _promises(case, one, may_be_second, may_be_third)
    while True:
        most = promise.max(axis=1)
        firsts = np.flatnonzero((most >= value) & (most > _NEVER))
        if not len(firsts):
            break
        then = promise[firsts].argmax(axis=1)
        promise[firsts, then] = _NEVER
        before, net = case.before[then], case.net[then]
        two = _Sets(earned=one.earned[firsts] * before + one.left[firsts] * net, left=one.left[firsts] * before)
        last, with_third = two.best(case, may_be_third[then] & apart[firsts])
        is_earlier = (with_third == value[firsts]) & (third[firsts] >= 0) & (then < second[firsts])
        gains = (with_third > value[firsts]) | is_earlier
        rows, then = firsts[gains], then[gains]
        value[rows], of_pair[rows] = with_third[gains], one.and_each(rows, case, then)
        second[rows], third[rows] = then, last[gains]
    return CascadeValues(alone=alone, pair=of_pair, value=value, second=second, third=third)


def _promises(case: Case, one: _Sets, may_be_second: BoolArray, may_be_third: BoolArray) -> FloatArray:
    """Return what no cascade of three that begins with two sends is worth more than, shape (m, m); -inf where there is none.

    The bound of the module's docstring; infinite where that does not hold, which no model draws.
    """
    m, nodes, cells = case.net.shape
    rows = np.arange(m)
    is_pair = may_be_second & may_be_third.any(axis=1)
    is_before = np.arange(cells) < case.start[:, None, None]
    is_drawn = (case.before >= 0) & (case.before <= 1) & (~is_before | ((case.before == 1) & (case.net == 0)))
    falls = np.diff(case.before, axis=2) <= _LEVEL
    if not (is_drawn.all() and falls.all() and (case.ready > case.start).all()):
        return np.where(is_pair, np.inf, _NEVER)
    earned, left = one.earned.reshape(m, -1), one.left.reshape(m, -1)
    before, net = case.before.reshape(m, -1), case.net.reshape(m, -1)
    size = np.abs(net).sum(axis=1)
    room = _NEAR * (np.abs(earned).sum(axis=1)[:, None] + np.abs(case.pending).sum() + size + 4 * size.max())
    pair = earned @ before.T + left @ net.T - case.pending.sum() + room

    at_start = case.net[rows, :, case.start]
    alone = at_start + np.maximum(case.net, 0).sum(axis=2) - np.maximum(at_start, 0)
    below = np.cumsum(np.maximum(-one.earned, 0)[:, :, ::-1], axis=2)[:, :, ::-1]
    adds = np.maximum(one.left[:, :, case.start] * alone.T, 0) + below[:, :, case.start]
    most = np.full((case.channels, cells + 1, m, nodes), _NEVER)
    for send in np.flatnonzero(~case.is_paid) if case.closed_third else rows:
        place = most[case.channel[send], case.start[send]]
        np.maximum(place, adds[:, :, send], out=place)
    most = np.maximum.accumulate(most[:, ::-1], axis=1)[:, ::-1]
    ready = np.minimum(case.ready, cells)
    beside = np.full((m, m, nodes), _NEVER)
    for channel in range(case.channels):
        is_other = (case.channel != channel)[:, None] & (case.channel != channel)
        np.maximum(beside, most[channel, ready].swapaxes(0, 1), out=beside, where=is_other[:, :, None])
    is_pair &= beside[:, :, 0] > _NEVER
    keeps = case.before[rows, :, np.minimum(ready, cells - 1)]
    is_after = np.arange(cells) >= ready[:, None, None]
    lost = np.where(is_after, np.maximum(-case.net, 0), 0).sum(axis=(1, 2))
    added = np.where(is_pair[:, :, None], beside, 0) * keeps
    return np.where(is_pair, pair + added.sum(axis=2) + lost, _NEVER)


def _in_order(*terms: FloatArray) -> FloatArray:
    """Return sums over nodes of sums over cells, of one kind of terms after the other, each added up one after another; shapes (n, Z, G) to (n,)."""
    by_node = [np.cumsum(of_kind, axis=2)[:, :, -1] for of_kind in terms]
    found = np.zeros(len(terms[0]))
    for node in range(terms[0].shape[1]):
        found += by_node[0][:, node] if len(terms) == 1 else by_node[0][:, node] + by_node[1][:, node]
    return found


def _net_worth(curves: Curves, prices: Prices) -> FloatArray:
    """Return N, the worth of each send by node and cell with its price taken off where it is paid, shape (m, Z, G).

    A price is paid by who did not react to anything before, so what an earlier send b leaves of it is B_b(z, start): its place among the cells is the
    start, and products with B_b hold prices as well. B_b is 1 at the start of all sends that are not later than b.
    """
    m = len(curves.channel)
    net = curves.worth * curves.pending_before
    net[np.arange(m), :, curves.start] -= (
        prices.micros[:, None] * curves.weights * curves.pending_before[:, curves.start].T
    )
    return net


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
