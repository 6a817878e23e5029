"""Messages for one person that are decided together: which of them get the places that caps leave, and when.

Messages that are owed come first, then marketing by priority: a message is decided as if those of lower priority were not there.
Messages of equal priority share what is left so that the sum of what their sends are worth is greatest:

    maximise    sum of worth[m, s] x[m, s]            x[m, s] = 1 where message m makes its send s
    subject to  sum over s of x[m, s] <= 1            each message at most one first send
                sum over sends in w of x[m, s] <= limit - sends already in w      each cap, each window w of its length

A cap's windows are rolling; of all of them only those that begin at the last moment of a send can be fullest, so that there is one row
for each such moment. Rows that cannot be violated are left out. Of the others, those most in demand no two of which share a send make it an
assignment of messages to places (linear_sum_assignment). Where its answer keeps the rest as well, it is the best of all; else the whole
program is solved (milp, HiGHS). Both are exact; an assignment takes microseconds, the program milliseconds.

The plan is not what is served. Messages are decided one after another, those that the plan gives a send first, the worthiest before the
others: each draws from a distribution over what is eligible while the planned sends of the others keep their places. So the propensity is
of the eligible actions, after every rule. Where a draw leaves a place of a cap that it was to have, the rest is planned anew. What a decision
spends is gone from the budgets of those after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from models.budget import charged
from models.bundle import Bundle
from models.context import Contact, Context, Mode
from models.decide import Decision, Evaluation, decide, decide_each, evaluate, serve, slot_of
from models.experiments import bundle_under, rules_under
from models.record import to_micros
from models.rules import Rules

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
_NO_OTHERS: Mapping[str, Bundle] = {}
EXACT_MESSAGES = 16
"""More equals than this whose windows couple are planned one after another, the worthiest first."""
_NODE_LIMIT = 500
_SCALE = 1e4
"""What the greatest worth is given to the solver as, whose absolute gap is 1e-6."""
_TIE = 1e-7
"""By how much of its worth a message counts for less than the one before it, so that the earlier of equals wins."""
_RANK = 1e-6
"""By how much of its worth a send counts for less than one that the rule cascade would make before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """A send that a message may make, with what it is worth more than no send, in micros."""

    contact: Contact
    last: datetime
    """Until when caps count it: start and the channel's whole slip."""
    worth: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """At most `room` of the sends for which the mask, shape (n,), is true."""

    mask: BoolArray
    room: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What a decision is made by."""

    rules: Rules
    bundle: Bundle | None


def arm_of(context: Context, rules: Rules, bundle: Bundle | None, others: Mapping[str, Bundle] = _NO_OTHERS) -> Arm:
    """Return what a decision is made by that is part of experiments, or of none."""
    source = bundle_under(rules, context.experiments)
    return Arm(rules=rules_under(rules, context.experiments), bundle=others.get(source, bundle) if source else bundle)


@dataclass(slots=True)
class _Booked:
    """What decisions made so far will send, and what they spend of each budget, by its name."""

    contacts: list[Contact] = field(default_factory=list)
    spent: dict[str, int] = field(default_factory=dict)

    def add(self, decision: Decision) -> list[Contact]:
        """Book a decision, and return the contact that it makes."""
        made = _booking(decision)
        self.contacts.extend(made)
        for contact in made:
            for budget in decision.context.budgets:
                if budget.counts(contact.channel):
                    self.spent[budget.name] = self.spent.get(budget.name, 0) + decision.choice.price_micros
        return made


def decide_together(
    contexts: Sequence[Context], rules: Rules, bundle: Bundle | None, others: Mapping[str, Bundle] = _NO_OTHERS
) -> list[Decision]:
    """Decide messages for one person at one moment; decisions come in the contexts' order.

    The contexts' customers are one person with the same contacts. Each is decided by the rules of its experiments, and by the bundle that
    their variants name among `others`, else by `bundle`. Caps are the same for all. Only LIVE decisions take places.
    """
    arms = [arm_of(context, rules, bundle, others) for context in contexts]
    decisions: dict[int, Decision] = {}
    booked = _Booked()
    order = sorted(range(len(contexts)), key=lambda i: _rank(contexts[i]))
    for _, level in groupby(order, key=lambda i: _rank(contexts[i])):
        equals = list(level)
        if _may_compete([contexts[i] for i in equals], rules, booked.contacts):
            _decide_equals(equals, contexts, rules, arms, booked, decisions)
        else:
            for index in equals:
                arm = arms[index]
                decisions[index] = decide(_as_booked(contexts[index], booked), arm.rules, arm.bundle)
                booked.add(decisions[index])
    return [decisions[index] for index in range(len(contexts))]


def decide_people(
    people: Sequence[Sequence[Context]], rules: Rules, bundle: Bundle | None, others: Mapping[str, Bundle] = _NO_OTHERS
) -> list[list[Decision]]:
    """Decide messages for people who have nothing to do with each other, each person's as `decide_together` does.

    Those who get one message are decided with what they have in common worked out once; what one of them spends is not gone from the budgets of the others.
    """
    found: dict[int, list[Decision]] = {}
    alone: dict[tuple[int, int], tuple[Arm, list[int]]] = {}
    for place, contexts in enumerate(people):
        if len(contexts) == 1:
            arm = arm_of(contexts[0], rules, bundle, others)
            alone.setdefault((id(arm.rules), id(arm.bundle)), (arm, []))[1].append(place)
        else:
            found[place] = decide_together(contexts, rules, bundle, others)
    for arm, places in alone.values():
        decisions = decide_each([people[place][0] for place in places], arm.rules, arm.bundle)
        found.update((place, [decision]) for place, decision in zip(places, decisions, strict=True))
    return [found[place] for place in range(len(people))]


def _rank(context: Context) -> tuple[bool, int]:
    message = context.message
    return (False, 0) if message.is_owed else (True, -message.priority)


def _may_compete(contexts: Sequence[Context], rules: Rules, booked: Sequence[Contact]) -> bool:
    """Tell whether messages of one priority could together be more than a cap allows."""
    message = contexts[0].message
    if len(contexts) < 2 or message.is_owed:
        return False
    known = (*contexts[0].customer.contacts, *booked)
    now = contexts[0].decide_time
    for cap in rules.caps:
        near = sum(1 for c in known if c.category == "marketing" and cap.counts(c.channel) and c.end > now - cap.window)
        asking = sum(1 for context in contexts if any(cap.counts(option.channel) for option in context.options))
        if near + asking > cap.limit_for(message.priority):
            return True
    topics = [context.message.topic for context in contexts if context.message.topic]
    return rules.topic_cap is not None and len(topics) > len(set(topics))


def _decide_equals(
    equals: Sequence[int],
    contexts: Sequence[Context],
    rules: Rules,
    arms: Sequence[Arm],
    booked: _Booked,
    decisions: dict[int, Decision],
) -> None:
    """Decide messages of one priority, the planned ones first, and add what they book."""
    evaluations = {i: evaluate(_as_booked(contexts[i], booked), arms[i].rules, arms[i].bundle) for i in equals}
    offers = {i: offered_sends(evaluations[i], arms[i].rules) for i in equals}
    best = {i: max((send.worth for send in offers[i]), default=0.0) for i in equals}
    waiting = list(equals)
    plan = _plan(waiting, offers, contexts, rules, booked)
    while waiting:
        index = min(waiting, key=lambda i: (i not in plan, -(plan[i].worth if i in plan else best[i]), i))
        waiting.remove(index)
        reserved = tuple(plan[i].contact for i in waiting if i in plan)
        context = replace(_as_booked(contexts[index], booked), reserved=reserved)
        found = evaluations[index]
        if context != found.context:
            found = evaluate(context, arms[index].rules, arms[index].bundle)
        decisions[index] = found if isinstance(found, Decision) else serve(found, arms[index].rules)
        made = booked.add(decisions[index])
        planned = plan.pop(index, None)
        if planned is None or (made and _is_counted_as(made[0].channel, planned.contact.channel, rules)):
            continue
        if any(i not in plan or plan[i].worth < best[i] for i in waiting):
            plan = _plan(waiting, offers, contexts, rules, booked)


def _is_counted_as(channel: str, planned: str, rules: Rules) -> bool:
    """Tell whether every cap that counts sends through the planned channel counts those through this one."""
    return all(cap.counts(channel) for cap in rules.caps if cap.counts(planned))


def _plan(
    waiting: Sequence[int],
    offers: dict[int, tuple[Send, ...]],
    contexts: Sequence[Context],
    rules: Rules,
    booked: _Booked,
) -> dict[int, Send]:
    """Return the planned send of each waiting message that is to make one."""
    if not waiting:
        return {}
    contacts = _as_booked(contexts[waiting[0]], booked).customer.contacts
    priority = contexts[waiting[0]].message.priority
    found = assign([offers[i] for i in waiting], rules, contacts, priority)
    return {i: send for i, send in zip(waiting, found, strict=True) if send is not None}


def _as_booked(context: Context, booked: _Booked) -> Context:
    """Return the context of a customer who will also get these messages, with what is left when they are paid."""
    if not booked.contacts:
        return context
    contacts = sorted((*context.customer.contacts, *booked.contacts), key=lambda contact: contact.start)
    customer = replace(context.customer, contacts=tuple(contacts))
    return replace(context, customer=customer, budgets=charged(context.budgets, booked.spent))


def _booking(decision: Decision) -> list[Contact]:
    """Return the contact that a decision makes, none where it sends nothing or is not LIVE."""
    context, choice = decision.context, decision.choice
    if choice.slot is None or choice.action is None or context.mode is not Mode.LIVE:
        return []
    return [context.contact(choice.action.channel, choice.slot.start, choice.slot.end)]


def offered_sends(found: Evaluation | Decision, rules: Rules) -> tuple[Send, ...]:
    """Return the sends of a message that are worth more than no send.

    A send is worth what the policy chooses by, its value with what may follow. Where the rule cascade decides, values say nothing:
    then each send is worth the margin of an order, and one that the cascade makes earlier is worth a little more.
    """
    if isinstance(found, Decision):
        return ()
    table, context = found.distribution.table, found.context
    worth: FloatArray = table.plan_micros
    if found.cascades is None:
        place = {channel: number for number, channel in enumerate(rules.cascade.order)}
        ranks = np.array([place.get(action.channel, len(place)) for action in table.actions], dtype=np.float64)
        later = np.argsort(np.argsort(ranks, kind="stable"), kind="stable").astype(np.float64)
        worth = (context.message.order_margin_micros + 1) * (1 - _RANK * later)
    sends = []
    for action, value in zip(table.actions, worth, strict=True):
        slot = slot_of(found.eligible, action)
        if slot is not None and value > 0:
            contact = context.contact(action.channel, slot.start, slot.end)
            last = slot.start + rules.channels[action.channel].slip
            sends.append(Send(contact=contact, last=last, worth=float(value)))
    return tuple(sends)


def assign(
    offers: Sequence[Sequence[Send]], rules: Rules, contacts: Sequence[Contact], priority: int
) -> list[Send | None]:
    """Return the send that each message of one priority is to make, None for no send, so that their worth is greatest.

    Parameters
    ----------
    offers : the sends of each message that keep every cap by themselves, each worth more than 0.
    contacts : what the person has got or will get.
    priority : of all the messages.
    """
    kept = [_undominated(sends, rules) for sends in offers]
    message = np.repeat(np.arange(len(kept)), [len(of_message) for of_message in kept])
    sends = [send for of_message in kept for send in of_message]
    chosen: list[Send | None] = [None] * len(offers)
    if not sends:
        return chosen
    rows = cap_rows(sends, message, rules, contacts, priority)
    is_open = np.ones(len(sends), dtype=np.bool_)
    for row in rows:
        if row.room == 0:
            is_open &= ~row.mask
    if is_open.any():
        places = np.flatnonzero(is_open)
        worth = np.array([sends[place].worth for place in places]) * (1 - _TIE * message[places])
        open_rows = [Row(mask=row.mask[places], room=row.room) for row in rows if row.room]
        for number in _best(worth, message[places], open_rows):
            chosen[message[places[number]]] = sends[places[number]]
    return chosen


def _undominated(sends: Sequence[Send], rules: Rules) -> list[Send]:
    """Keep the best of those sends of a message that every cap counts alike."""
    capped = {cap.channel for cap in rules.caps}
    best: dict[object, Send] = {}
    for send in sends:
        channel = send.contact.channel
        key = (send.contact.start, send.last, channel if channel in capped else "")
        if key not in best or send.worth > best[key].worth:
            best[key] = send
    return list(best.values())


def cap_rows(
    sends: Sequence[Send], message: IntArray, rules: Rules, contacts: Sequence[Contact], priority: int
) -> list[Row]:
    """Return what caps leave for these sends, of which `message`, shape (n,), says whose they are; without what always holds."""
    start = np.array([to_micros(send.contact.start) for send in sends])
    last = np.array([to_micros(send.last) for send in sends])
    rows: list[Row] = []

    def add(counted: BoolArray, held: Sequence[Contact], limit: int, window: int, group: Sequence[str | int]) -> None:
        held_start = np.array([to_micros(c.start) for c in held], dtype=np.int64)
        held_end = np.array([to_micros(c.end) for c in held], dtype=np.int64)
        for begin in np.unique(np.concatenate([last[counted], held_end])):
            mask = counted & (start < begin + window) & (begin <= last)
            inside = (held_start < begin + window) & (begin <= held_end)
            taken = len({group[int(place)] for place in np.flatnonzero(inside)})
            room = max(0, limit - taken)
            if len(np.unique(message[mask])) > room:
                rows.append(Row(mask=mask, room=room))

    marketing = [c for c in contacts if c.category == "marketing"]
    for cap in rules.caps:
        counted = np.array([cap.counts(send.contact.channel) for send in sends])
        held = [c for c in marketing if cap.counts(c.channel)]
        add(counted, held, cap.limit_for(priority), _micros(cap.window_hours), range(len(held)))
    if rules.topic_cap is not None:
        for topic in {send.contact.topic for send in sends} - {""}:
            counted = np.array([send.contact.topic == topic for send in sends])
            held = [c for c in contacts if c.topic == topic]
            window = _micros(rules.topic_cap.window_hours)
            add(counted, held, rules.topic_cap.limit, window, [c.decision_id for c in held])
    return _tightest(rows)


def _micros(hours: float) -> int:
    return round(hours * 3_600_000_000)


def _tightest(rows: Sequence[Row]) -> list[Row]:
    """Leave out rows that another one implies: of no fewer sends, and no more room."""
    kept: list[Row] = []
    for row in sorted(rows, key=lambda row: (-int(row.mask.sum()), row.room)):
        if not any(other.room <= row.room and not (row.mask & ~other.mask).any() for other in kept):
            kept.append(row)
    return kept


def _best(worth: FloatArray, message: IntArray, rows: Sequence[Row]) -> list[int]:
    """Return the places of the sends to make: at most one of each message, no row violated, their worth greatest."""
    found = _best_of_each(worth, message)
    masks = np.array([row.mask for row in rows]).reshape(len(rows), len(worth))
    room = np.array([row.room for row in rows], dtype=np.int64)
    excess = masks[:, found].sum(axis=1) - room
    if (excess <= 0).all():
        return found
    some = _disjoint(masks, np.argsort(-excess, kind="stable"))
    found = assign_places(worth, message, masks[some], room[some])
    if (masks[:, found].sum(axis=1) <= room).all():
        return found
    greedy = _one_after_another(worth, message, masks, room)
    if len(np.unique(message)) > EXACT_MESSAGES:
        return greedy
    exact = solve_program(worth, message, masks, room)
    return exact if worth[exact].sum() > worth[greedy].sum() else greedy


def _disjoint(masks: BoolArray, order: IntArray) -> list[int]:
    """Return rows no two of which share a send, taken in that order."""
    taken = np.zeros(masks.shape[1], dtype=np.bool_)
    kept: list[int] = []
    for row in order:
        if not (masks[row] & taken).any():
            taken |= masks[row]
            kept.append(int(row))
    return kept


def _best_of_each(worth: FloatArray, message: IntArray) -> list[int]:
    """Return the place of the best send of each message that has one."""
    best: dict[int, int] = {}
    for place, (owner, value) in enumerate(zip(message, worth, strict=True)):
        if owner not in best or value > worth[best[owner]]:
            best[int(owner)] = place
    return list(best.values())


def _one_after_another(worth: FloatArray, message: IntArray, masks: BoolArray, room: IntArray) -> list[int]:
    """Return a good choice that violates nothing: sends by their worth, each where there is room yet."""
    left, done, chosen = room.copy(), set[int](), list[int]()
    for place in np.argsort(-worth, kind="stable"):
        if message[place] not in done and (left[masks[:, place]] > 0).all():
            left -= masks[:, place]
            done.add(int(message[place]))
            chosen.append(int(place))
    return chosen


def assign_places(worth: FloatArray, message: IntArray, masks: BoolArray, room: IntArray) -> list[int]:
    """Return the best choice where no send is in two rows: each row is as many places as it has room, all else is free."""
    from scipy.optimize import (
        linear_sum_assignment,
    )  # 0.4 s and 50 MB, which a service without such messages need not pay

    owners = np.unique(message)
    columns: list[list[int | None]] = []
    for mask, places in zip([*masks, ~masks.any(axis=0)], [*room, len(owners)], strict=True):
        of_owner = [_best_place(worth, mask & (message == owner)) for owner in owners]
        columns.extend([of_owner] * min(int(places), len(owners)))
    value = np.array([[0.0 if place is None else worth[place] for place in column] for column in columns]).T
    chosen = [columns[column][row] for row, column in zip(*linear_sum_assignment(value, maximize=True), strict=True)]
    return [place for place in chosen if place is not None]


def _best_place(worth: FloatArray, mask: BoolArray) -> int | None:
    return int(np.where(mask, worth, -np.inf).argmax()) if mask.any() else None


def solve_program(worth: FloatArray, message: IntArray, masks: BoolArray, room: IntArray) -> list[int]:
    """Return the best choice of all; nothing where the solver has not found one within its limit of nodes."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    owners = np.unique(message)
    matrix = np.vstack([message == owners[:, None], masks]).astype(np.float64)
    limits = np.concatenate([np.ones(len(owners)), room])
    found = milp(
        -worth * (_SCALE / worth.max()),
        integrality=np.ones(len(worth), dtype=np.int64),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(matrix, ub=limits),
        options={"mip_rel_gap": 0.0, "node_limit": _NODE_LIMIT},
    )
    return [] if found.x is None else [int(place) for place in np.flatnonzero(found.x > 0.5)]
