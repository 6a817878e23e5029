"""Cascades: which step comes after which, after what wait, and what stops them.

The first step is drawn by the policy. The later ones are a plan, of greatest value (models.planner) or in the order of the rule
cascade. AdvanceCascade draws each step anew, with what has been seen by then.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile

from models.actions import ActionTable
from models.context import CascadeEnd, Contact, Context
from models.eligibility import Counted, next_allowed_time
from models.features import Action
from models.rules import Rules


class Event(StrEnum):
    """What a cascade step waits for."""

    IGNORED = "ignored"
    UNDELIVERED = "undelivered"
    NOT_SENT = "not_sent"
    ORDERED = "ordered"
    CLICKED = "clicked"
    UNSUBSCRIBED = "unsubscribed"


ADVANCE_ON = (Event.IGNORED, Event.UNDELIVERED, Event.NOT_SENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One planned step."""

    step: int
    channel: str
    not_before: datetime
    wait: timedelta
    price_micros: int
    plan_micros: float | None = None
    """What the cascade up to this step is expected to earn; None where no model says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What has been seen of a cascade: when each event first happened (orders on any channel), and the last step's send."""

    events: dict[Event, datetime]
    last_send_time: datetime
    last_wait: timedelta
    """How long the last step was to be waited for."""
    steps_made: int
    deliver_until: datetime | None = None
    """Until when the last step's delivery is waited for; None: it was confirmed, or its channel has no such time."""


def stop_events(rules: Rules) -> tuple[Event, ...]:
    """Return what ends a cascade under these rules."""
    clicked = (Event.CLICKED,) if rules.cascade.stop_on_click else ()
    return (Event.ORDERED, *clicked, Event.UNSUBSCRIBED)


def max_steps(context: Context, rules: Rules) -> int:
    """Return how many steps a cascade may have in all."""
    return context.constraints.max_steps or rules.cascade.max_steps


def plan(
    context: Context,
    rules: Rules,
    table: ActionTable,
    sends: Sequence[Action],
    *,
    is_learned: bool,
    worth: Sequence[float] = (),
) -> tuple[Step, ...]:
    """Plan a cascade of these sends in their order: each when the one before was waited for, and its own time has come.

    Where it `is_learned`, the times of the sends hold the waits; else the rules' waits hold. Sends through a channel that may not be used
    then any more, caps counted as if the earlier steps were sent, are left out. `worth` is what the cascade up to each send is expected to earn;
    from where one is left out nobody knows.
    """
    made: list[Action] = []
    begins: list[datetime] = []
    sent: list[Contact] = []
    least, most, counted = rules.cascade.least_wait, max_steps(context, rules), None
    for send in sends:
        channel, not_before = send.channel, send.send_time
        if not_before is None or (made and context.step + len(made) > most):
            break
        if made:
            before = rules.channels[made[-1].channel]
            earliest = max(not_before, begins[-1] + (least if is_learned else before.wait))
            sent.append(context.contact(made[-1].channel, begins[-1], begins[-1] + before.slip))
            counted = counted or Counted.of(context, rules)
            allowed = next_allowed_time(context, rules, channel, earliest, sent, counted)
            if allowed is None or allowed >= context.message.expire_time:
                sent.pop()
                continue
            not_before = allowed
        made.append(send)
        begins.append(not_before)
    known = sum(1 for _ in takewhile(lambda pair: pair[0] is pair[1], zip(made, sends, strict=False))) if worth else 0
    return tuple(
        Step(
            step=context.step + place,
            channel=send.channel,
            not_before=begins[place],
            wait=begins[place + 1] - begins[place]
            if is_learned and place + 1 < len(made)
            else rules.channels[send.channel].wait,
            price_micros=_price_of(table, send.channel),
            plan_micros=worth[place] if place < known else None,
        )
        for place, send in enumerate(made)
    )


def sends_by_order(table: ActionTable, first: Action, order: Sequence[str]) -> tuple[Action, ...]:
    """Return a send and those that follow it in the rule cascade: one through each other channel, in the order of the rules."""
    earliest: dict[str, Action] = {}
    for action in table.actions:
        if action.send_time is not None and action.channel != first.channel:
            earliest.setdefault(action.channel, action)
    return (first, *(earliest[channel] for channel in order if channel in earliest))


def _price_of(table: ActionTable, channel: str) -> int:
    """Return what a send through a channel costs, at whatever time."""
    return int(table.price_micros[table.listed.places_of(channel)[0]])


def find_end(context: Context, rules: Rules, progress: Progress) -> CascadeEnd | None:
    """Return why the cascade is over, None where it may go on."""
    events = progress.events
    if Event.ORDERED in events:
        return CascadeEnd.ORDERED
    if Event.UNSUBSCRIBED in events:
        return CascadeEnd.UNSUBSCRIBED
    if Event.CLICKED in events and rules.cascade.stop_on_click:
        return CascadeEnd.CLICKED
    if context.decide_time >= context.message.expire_time:
        return CascadeEnd.EXPIRED
    if progress.steps_made >= max_steps(context, rules):
        return CascadeEnd.MAX_STEPS
    return None


def advance_time(progress: Progress) -> datetime:
    """Return from when the next step may be decided: at once after a failed send, else when the last step's wait is over, or its delivery is overdue."""
    failed = [progress.events[event] for event in (Event.UNDELIVERED, Event.NOT_SENT) if event in progress.events]
    overdue = [] if progress.deliver_until is None else [progress.deliver_until]
    return min([progress.last_send_time + progress.last_wait, *failed, *overdue])


def first_events(seen: Iterable[tuple[Event, datetime]]) -> dict[Event, datetime]:
    """Return when each event first happened."""
    first: dict[Event, datetime] = {}
    for event, moment in seen:
        first[event] = min(first.get(event, moment), moment)
    return first
