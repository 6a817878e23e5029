"""Cascades: which step comes after which, after what wait, and what stops them.

The first step is drawn by the policy. The later ones are a plan: the channels left, free ones first, each by its best net value
(or in the order of the rule cascade), a paid one only where it earns more than it costs. AdvanceCascade draws each step anew,
with what has been seen by then.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from models.actions import ActionTable
from models.context import CascadeEnd, Contact, Context
from models.eligibility import next_allowed_time
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What has been seen of a cascade: when each event first happened (orders on any channel), and the last step's send."""

    events: dict[Event, datetime]
    last_send_time: datetime
    last_channel: str
    steps_made: int


def stop_events(rules: Rules) -> tuple[Event, ...]:
    """Return what ends a cascade under these rules."""
    clicked = (Event.CLICKED,) if rules.cascade.stop_on_click else ()
    return (Event.ORDERED, *clicked, Event.UNSUBSCRIBED)


def max_steps(context: Context, rules: Rules) -> int:
    """Return how many steps a cascade may have in all."""
    return context.constraints.max_steps or rules.cascade.max_steps


def plan(context: Context, rules: Rules, table: ActionTable, chosen: Action, *, by_order: bool) -> tuple[Step, ...]:
    """Plan the cascade that starts with the chosen send; `by_order` keeps the rule cascade's order instead of values."""
    if chosen.send_time is None:
        return ()
    steps = [_step(context.step, chosen.channel, chosen.send_time, rules, table)]
    for channel in _rest(table, chosen.channel, rules.cascade.order if by_order else None):
        if context.step + len(steps) > max_steps(context, rules):
            break
        earliest = steps[-1].not_before + steps[-1].wait
        not_before = next_allowed_time(_as_sent(context, rules, steps), rules, channel, earliest)
        if not_before is None or not_before >= context.message.expire_time:
            continue
        steps.append(_step(context.step + len(steps), channel, not_before, rules, table))
    return tuple(steps)


def _as_sent(context: Context, rules: Rules, steps: Sequence[Step]) -> Context:
    """Return the context as it will be when these steps are sent, so that caps count them."""
    message, customer = context.message, context.customer
    sent = [
        Contact(
            decision_id=context.decision_id,
            channel=step.channel,
            topic=message.topic,
            category=message.category,
            start=step.not_before,
            end=step.not_before + rules.channels[step.channel].slip,
        )
        for step in steps
    ]
    return replace(context, customer=replace(customer, contacts=(*customer.contacts, *sent)))


def _step(number: int, channel: str, not_before: datetime, rules: Rules, table: ActionTable) -> Step:
    price = next(int(p) for a, p in zip(table.actions, table.price_micros, strict=True) if a.channel == channel)
    return Step(
        step=number, channel=channel, not_before=not_before, wait=rules.channels[channel].wait, price_micros=price
    )


def _rest(table: ActionTable, used: str, order: Sequence[str] | None) -> list[str]:
    """Return the channels of the later steps in their order."""
    best: dict[str, tuple[bool, float]] = {}
    for action, paid, net in zip(table.actions, table.is_paid, table.net_micros, strict=True):
        if action.send_time is not None and action.channel != used:
            known = best.get(action.channel)
            best[action.channel] = (bool(paid), float(net) if known is None else max(known[1], float(net)))
    if order is not None:
        return [channel for channel in order if channel in best]
    worth = {channel: value for channel, value in best.items() if value[1] > 0}
    return sorted(worth, key=lambda channel: (worth[channel][0], -worth[channel][1]))


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


def advance_time(rules: Rules, progress: Progress) -> datetime:
    """Return from when the next step may be decided: at once after a failed send, else when the last step's wait is over."""
    failed = [progress.events[event] for event in (Event.UNDELIVERED, Event.NOT_SENT) if event in progress.events]
    return min([progress.last_send_time + rules.channels[progress.last_channel].wait, *failed])


def first_events(seen: Iterable[tuple[Event, datetime]]) -> dict[Event, datetime]:
    """Return when each event first happened."""
    first: dict[Event, datetime] = {}
    for event, moment in seen:
        first[event] = min(first.get(event, moment), moment)
    return first
