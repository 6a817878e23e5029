"""Oracles: what who knows the truth would do with one message, and with many under one budget.

All sequences of up to three sends through different channels are enumerated over the slots that `models.eligibility` leaves open, each
step at least `gap` hours after the one before. With n_k(a) the net money density of send a as step k (flattened over intents and cells) and
S its survival, the money of pairs is a product of matrices, n_1 S_2' + S_1 n_2', and that of triples one such product for each last send.
Spending is subtracted at (1 + dual price). A plan is fixed in advance but for its stop; it looks at one message, as if none came later.

Caps that the cascade itself would break are checked on the best plans in falling order of value, and the first that keeps them is taken:
pruning, which is exact, since a plan that breaks a cap is out and all better ones were.

Source: for the budget, Everett (1963), "Generalized Lagrange Multiplier Method": the best plans at one dual price for all are the best
of all ways to spend what they spend.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from models.context import Contact, Context
from models.eligibility import find_eligible, next_allowed_time
from models.rules import Rules
from training.world.clock import to_hour, to_time
from training.world.people import CHANNELS
from training.world.truth import INTENTS, OWN_STEP_TIREDNESS, Case, Happened, Send, Truth, condition, tiredness

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
_CHANNEL_INDEX = {name: index for index, name in enumerate(CHANNELS)}
_MOST_CHECKED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Sends that eligibility leaves open, arrays of shape (A,): channel, hour since START, price in roubles, base tiredness."""

    channel: IntArray
    hour: IntArray
    price: FloatArray
    tiredness: FloatArray
    is_first: NDArray[np.bool_]
    """Whether the send may be the first step: within the rules' horizon of the decision."""

    def __len__(self) -> int:
        return len(self.channel)

    def send(self, index: int, step: int) -> Send:
        return Send(
            channel=int(self.channel[index]),
            hour=int(self.hour[index]),
            tiredness=float(self.tiredness[index]) + OWN_STEP_TIREDNESS * (step - 1),
            price=float(self.price[index]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A cascade and what it is expected to earn before its price, and to spend, in roubles."""

    sends: tuple[Send, ...] = ()
    gross: float = 0.0
    spend: float = 0.0

    def net(self, dual_price: float = 0.0) -> float:
        return self.gross - (1 + dual_price) * self.spend


@dataclass(frozen=True, slots=True, kw_only=True)
class Plans:
    """All plans of one message: candidates of each step (-1: none) as (n, 3), gross value and spending as (n,). The first is no send."""

    steps: IntArray
    gross: FloatArray
    spend: FloatArray


def find_candidates(context: Context, rules: Rules, *, is_whole_life: bool = True) -> Candidates:
    """Return what may be sent as eligibility has it: in the rules' horizon, or as later steps up to the deadline."""
    horizon = rules.timing.horizon_hours
    if is_whole_life:
        lifetime = (context.message.expire_time - context.decide_time) / timedelta(hours=1)
        rules = replace(rules, timing=replace(rules.timing, horizon_hours=max(horizon, lifetime)))
    found = find_eligible(context, rules).eligible
    rows = [(_CHANNEL_INDEX[c.channel], to_hour(slot.start), c.price_micros / 1e6) for c in found for slot in c.slots]
    rows = [row for row in rows if to_time(row[1]) < context.message.expire_time]
    channel = np.array([row[0] for row in rows], dtype=np.int64)
    hour = np.array([row[1] for row in rows], dtype=np.int64)
    contacts = [c for c in context.customer.contacts if c.decision_id != context.decision_id]
    booked = np.array([(c.start - to_time(0)) / timedelta(hours=1) for c in contacts])
    return Candidates(
        channel=channel,
        hour=hour,
        price=np.array([row[2] for row in rows], dtype=np.float64),
        tiredness=tiredness(booked, hour.astype(np.float64)),
        is_first=hour <= to_hour(context.decide_time) + horizon,
    )


def enumerate_plans(
    truth: Truth,
    case: Case,
    candidates: Candidates,
    max_steps: int = 3,
    gap: int = 1,
    history: Sequence[Happened] = (),
    now: int = 0,
) -> Plans:
    """Return every plan of up to three steps with its exact expectation.

    With a history of sends without reaction until the hour `now`, the plans are of what may still be sent, and worth what they add to it: the
    sends made are one more step before the first, of which `condition` tells what is left to happen.
    """
    count, cells = len(candidates), case.lifetime
    empty = np.full((1, 3), -1)
    if count == 0:
        return Plans(steps=empty, gross=np.zeros(1), spend=np.zeros(1))
    money: list[FloatArray] = []
    before: list[FloatArray] = []
    after: list[FloatArray] = []
    pending = case.not_yet_organic
    prior, past = _past(truth, case, history, now)
    for step in range(1, max_steps + 1):
        tired = candidates.tiredness + OWN_STEP_TIREDNESS * (step - 1 + len(history))
        curves = truth.curves(case, candidates.channel, candidates.hour, tired)
        click, unsubscribe = curves.click, curves.unsubscribe
        earned = case.worth * (1 - case.organic)[:, None] * click * curves.order
        density = prior[:, None] * (earned - truth.harm * unsubscribe * pending[:, :cells])
        left = 1 - np.cumsum(click + unsubscribe, axis=2)
        started = np.concatenate([np.ones((count, INTENTS, 1)), left[:, :, :-1]], axis=2)
        money.append(density.reshape(count, -1))
        after.append(left.reshape(count, -1))
        before.append(started.reshape(count, -1))
    money[0] = past.money * before[0] + past.after * money[0]
    after[0] = past.after * after[0]
    before[0] = past.before * before[0]
    start = candidates.hour - case.arrive
    alive = (prior[:, None] * pending)[:, start]
    reached = [b.reshape(count, INTENTS, cells)[:, :, start] for b in before]
    price = candidates.price
    index = np.arange(count)
    singles = index[candidates.is_first]
    steps = [empty, np.column_stack([singles, np.full((len(singles), 2), -1)])]
    already = past.money.sum()
    gross = [np.zeros(1), money[0].sum(axis=1)[singles] - already]
    first_spend = price * (past.before.reshape(INTENTS, cells)[:, start] * alive).sum(axis=0)
    spend = [np.zeros(1), first_spend[singles]]
    if max_steps >= 2:
        pair = _order(candidates, gap)
        follows = pair & candidates.is_first[:, None]
        pair_gross = money[0] @ before[1].T + after[0] @ money[1].T
        pair_spend = first_spend[:, None] + price * np.einsum("azb,zb->ab", reached[0], alive)
        a, b = np.nonzero(follows)
        steps.append(np.column_stack([a, b, np.full(len(a), -1)]))
        gross.append(pair_gross[a, b] - already)
        spend.append(pair_spend[a, b])
        if max_steps >= 3:
            for c in range(count):
                seconds = np.flatnonzero(pair[:, c])
                firsts = np.flatnonzero(follows[:, seconds].any(axis=1) & (candidates.channel != candidates.channel[c]))
                if len(firsts) == 0 or len(seconds) == 0:
                    continue
                one, two = np.ix_(firsts, seconds)
                value = (money[0][firsts] * before[2][c]) @ before[1][seconds].T
                value += after[0][firsts] @ (money[1][seconds] * before[2][c]).T
                value += (after[0][firsts] * money[2][c]) @ after[1][seconds].T
                cost = pair_spend[one, two] + price[c] * (
                    (reached[0][firsts, :, c] * alive[:, c]) @ reached[1][seconds, :, c].T
                )
                i, j = np.nonzero(follows[one, two])
                steps.append(np.column_stack([firsts[i], seconds[j], np.full(len(i), c)]))
                gross.append(value[i, j] - already)
                spend.append(cost[i, j])
    return Plans(steps=np.concatenate(steps), gross=np.concatenate(gross), spend=np.concatenate(spend))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Past:
    """The sends made, taken together: money density, and survival before a cell and after it, each (3 G,)."""

    money: FloatArray
    before: FloatArray
    after: FloatArray


def _past(truth: Truth, case: Case, history: Sequence[Happened], now: int) -> tuple[FloatArray, _Past]:
    """Return the weights of the intents, (3,), and what the sends made may still do."""
    size = INTENTS * case.lifetime
    money, before, after = np.zeros(size), np.ones(size), np.ones(size)
    if not history:
        return case.prior, _Past(money=money, before=before, after=after)
    curves = truth.curves_of(case, [past.send for past in history])
    weight, noticed = condition(case, curves, history, now)
    curves = replace(curves, noticed=noticed)
    pending = case.not_yet_organic[:, : case.lifetime]
    for k in range(len(history)):
        click, unsubscribe = curves.click[k], curves.unsubscribe[k]
        earned = case.worth * (1 - case.organic)[:, None] * click * curves.order[k]
        density = (weight[:, None] * (earned - truth.harm * unsubscribe * pending)).ravel()
        left = 1 - np.cumsum(click + unsubscribe, axis=1)
        started = np.concatenate([np.ones((INTENTS, 1)), left[:, :-1]], axis=1).ravel()
        money = money * started + after * density
        before, after = before * started, after * left.ravel()
    return weight, _Past(money=money, before=before, after=after)


def _order(candidates: Candidates, gap: int) -> NDArray[np.bool_]:
    """Tell which send may follow which, (A, A): later by the gap, through another channel."""
    later = candidates.hour[None, :] >= candidates.hour[:, None] + gap
    return np.asarray(later & (candidates.channel[None, :] != candidates.channel[:, None]))


def best_plan(plans: Plans, candidates: Candidates, context: Context, rules: Rules, dual_price: float = 0.0) -> Plan:
    """Return the plan of greatest net value that keeps the caps; no send where none is worth more and the message is not owed."""
    is_owed = context.message.is_owed
    net = plans.gross - (1 + dual_price) * plans.spend
    top = np.argsort(-net, kind="stable")[:_MOST_CHECKED]
    for row in top:
        chosen = [int(i) for i in plans.steps[row] if i >= 0]
        if not chosen and is_owed:
            continue
        if not chosen or (net[row] <= 0 and not is_owed):
            break
        if len(chosen) == 1 or _keeps_caps(candidates, chosen, context, rules):
            sends = tuple(candidates.send(i, step) for step, i in enumerate(chosen, start=1))
            return Plan(sends=sends, gross=float(plans.gross[row]), spend=float(plans.spend[row]))
    return Plan()


def _keeps_caps(candidates: Candidates, chosen: Sequence[int], context: Context, rules: Rules) -> bool:
    """Tell whether later steps may still be sent at their hours once the earlier ones were."""
    message, customer = context.message, context.customer
    booked = list(customer.contacts)
    for step, index in enumerate(chosen):
        channel, moment = CHANNELS[candidates.channel[index]], to_time(int(candidates.hour[index]))
        if step > 0:
            then = replace(context, customer=replace(customer, contacts=tuple(booked)))
            if next_allowed_time(then, rules, channel, moment) != moment:
                return False
        booked.append(
            Contact(
                decision_id=context.decision_id,
                channel=channel,
                topic=message.topic,
                category=message.category,
                start=moment,
                end=moment + rules.channels[channel].slip,
            )
        )
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Plans for many messages under a budget: the dual price is the same for all; sums are expectations in roubles."""

    plans: tuple[Plan, ...]
    dual_price: float
    net: float
    spend: float


def frontier(plans: Plans) -> Plans:
    """Keep the plans that are best at some dual price: the upper hull of gross value over spending, in order of spending."""
    order = np.lexsort((-plans.gross, plans.spend))
    kept: list[int] = []
    for row in order:
        x, y = plans.spend[row], plans.gross[row]
        if kept and y <= plans.gross[kept[-1]]:
            continue
        while kept and x == plans.spend[kept[-1]]:
            kept.pop()
        while len(kept) >= 2 and _is_below(plans, kept[-2], kept[-1], row):
            kept.pop()
        kept.append(int(row))
    return Plans(steps=plans.steps[kept], gross=plans.gross[kept], spend=plans.spend[kept])


def _is_below(plans: Plans, left: int, middle: int, right: int) -> bool:
    run, rise = plans.spend[right] - plans.spend[left], plans.gross[right] - plans.gross[left]
    return bool((plans.gross[middle] - plans.gross[left]) * run <= rise * (plans.spend[middle] - plans.spend[left]))


def allocate(frontiers: Sequence[Plans], candidates: Sequence[Candidates], budget: float) -> Allocation:
    """Return the best plans of a population whose expected spending keeps within a budget, all at one dual price.

    The dual price is the least at which spending keeps within the budget, found by bisection to 1e-9. What is left of the
    budget is less than the price of one plan more, so that the loss against the best integral choice is below that plan's value.
    """

    def spend_at(dual_price: float) -> tuple[float, list[int]]:
        rows = [int(np.argmax(f.gross - (1 + dual_price) * f.spend)) for f in frontiers]
        return sum(float(f.spend[row]) for f, row in zip(frontiers, rows, strict=True)), rows

    low, high = 0.0, 0.0
    spent, rows = spend_at(0.0)
    if spent > budget:
        high = 1.0
        while spend_at(high)[0] > budget:
            low, high = high, high * 2
        while high - low > 1e-9 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if spend_at(middle)[0] > budget else (low, middle)
        spent, rows = spend_at(high)
    chosen = []
    for found, row, known in zip(frontiers, rows, candidates, strict=True):
        members = [int(i) for i in found.steps[row] if i >= 0]
        sends = tuple(known.send(i, step) for step, i in enumerate(members, start=1))
        chosen.append(Plan(sends=sends, gross=float(found.gross[row]), spend=float(found.spend[row])))
    return Allocation(plans=tuple(chosen), dual_price=high, net=sum(p.net() for p in chosen), spend=spent)
