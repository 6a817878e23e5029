"""Cascades: which step comes after which, and what ends them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.cascade import (
    ADVANCE_ON,
    Event,
    Progress,
    Step,
    advance_time,
    find_end,
    first_events,
    plan,
    sends_by_order,
    stop_events,
)
from models.context import CascadeEnd, Context
from models.features import NO_SEND, Action
from models.rules import Cap, Rules, TopicCap
from tests.unit.examples import CONTEXT, DAY, HOUR, NOW, RULES, at, contact, table_of, with_contacts, with_message

AWAKE = replace(RULES, quiet_hours=None)
LONG = replace(CONTEXT, message=replace(CONTEXT.message, expire_time=NOW + 30 * DAY))
NETS = {"push": 4.0, "email": 9.0, "viber": 6.0, "sms": 2.0}


def plan_of(
    chosen: str,
    nets: Mapping[str, float] = NETS,
    *,
    context: Context = LONG,
    rules: Rules = AWAKE,
) -> tuple[Step, ...]:
    """Return the plan in the rules' order that begins with a channel sent now, where each channel has one slot."""
    table = table_of([0.0, *nets.values()], list(nets))
    action = Action(channel=chosen, send_time=None if chosen == NO_SEND else context.not_before)
    return plan(context, rules, table, sends_by_order(table, action, rules.cascade.order), is_learned=False)


def learned(
    *sends: tuple[str, int], context: Context = LONG, rules: Rules = AWAKE, channels: Sequence[str] = tuple(NETS)
) -> tuple[Step, ...]:
    """Return the plan of sends that a model chose, as (channel, hours from now)."""
    actions = [Action(channel=channel, send_time=NOW + hours * HOUR) for channel, hours in sends]
    return plan(context, rules, table_of([0.0] * (1 + len(channels)), list(channels)), actions, is_learned=True)


def progress(*events: Event, last_wait: timedelta = 3 * HOUR, steps_made: int = 1) -> Progress:
    return Progress(events=dict.fromkeys(events, NOW), last_send_time=NOW, last_wait=last_wait, steps_made=steps_made)


def test_no_send_has_no_plan() -> None:
    """Where nothing is sent there are no steps."""
    assert plan_of(NO_SEND) == ()


def test_order_of_the_rules_holds_where_they_decide() -> None:
    """Without a model's values the steps follow the rule cascade's order, whatever they are worth."""
    steps = plan_of("push", {"push": 1, "sms": 0, "viber": 0, "email": -1})

    assert [step.channel for step in steps] == ["push", "email", "viber"]


def test_steps_are_numbered_on_and_wait_for_each_other() -> None:
    """Each step is one more than the last, and not before the last one's wait is over."""
    steps = plan_of("push", context=replace(LONG, step=1))

    assert [step.step for step in steps] == [1, 2, 3]
    assert [step.not_before for step in steps] == [NOW, NOW + 3 * HOUR, NOW + 15 * HOUR]
    assert [step.wait for step in steps] == [3 * HOUR, 12 * HOUR, 4 * HOUR]


@pytest.mark.parametrize(
    ("step", "of_request", "expected"), [(1, None, 3), (2, None, 2), (3, None, 1), (1, 1, 1), (1, 2, 2), (1, 5, 4)]
)
def test_plan_has_no_more_steps_than_allowed(step: int, of_request: int | None, expected: int) -> None:
    """Steps made and planned stay within max_steps of the request, or of the rules where it says nothing."""
    constraints = replace(CONTEXT.constraints, max_steps=of_request)

    steps = plan_of("push", context=replace(LONG, step=step, constraints=constraints))

    assert len(steps) == expected


def test_learned_waits_go_over_those_of_the_rules() -> None:
    """Steps that a model chose come when it chose, and each waits until the next; the last waits as long as its channel does."""
    steps = learned(("push", 0), ("email", 1), ("sms", 30))

    assert [step.not_before for step in steps] == [NOW, NOW + HOUR, NOW + 30 * HOUR]
    assert [step.wait for step in steps] == [HOUR, 29 * HOUR, 12 * HOUR]


def test_learned_steps_keep_the_least_wait() -> None:
    """A step that a model chose too near to the one before comes when the rules' least wait is over."""
    rules = replace(AWAKE, cascade=replace(AWAKE.cascade, least_wait_minutes=150))

    steps = learned(("push", 0), ("email", 1), rules=rules)

    assert steps[1].not_before == NOW + timedelta(minutes=150)


def test_learned_step_that_a_cap_holds_back_for_good_is_left_out() -> None:
    """A step whose channel may not be used any more before the expiry is left out, and the step after it takes its place."""
    rules = replace(AWAKE, caps=(Cap(name="email", channel="email", limit=1, window_hours=24 * 60),))
    context = with_contacts(contact(NOW - HOUR, channel="email"), context=LONG)

    steps = learned(("push", 0), ("email", 4), ("sms", 9), context=context, rules=rules)

    assert [(step.step, step.channel) for step in steps] == [(1, "push"), (2, "sms")]
    assert steps[0].wait == 9 * HOUR


def test_plan_stops_short_of_the_expiry() -> None:
    """A step that would come at or after the expiry is left out."""
    message = replace(CONTEXT.message, expire_time=NOW + 3 * HOUR)

    assert [step.channel for step in plan_of("push", context=replace(LONG, message=message))] == ["push"]


def test_plan_waits_for_the_morning() -> None:
    """A step whose wait is over at night is planned for the end of quiet hours."""
    evening = at(datetime(2026, 11, 4, 17, tzinfo=UTC), LONG)

    steps = plan_of("push", context=evening, rules=RULES)

    assert steps[1].not_before == datetime(2026, 11, 5, 6, tzinfo=UTC)


def test_plan_keeps_caps_with_its_own_steps() -> None:
    """A planned step counts in the caps of the ones planned after it."""
    rules = replace(AWAKE, caps=(Cap(name="day", limit=1, window_hours=24),))

    steps = plan_of("push", rules=rules)

    slip = timedelta(minutes=15)
    assert [step.not_before for step in steps] == [NOW, NOW + DAY + slip, NOW + 2 * DAY + 2 * slip]


def test_plan_keeps_caps_with_what_was_sent_before() -> None:
    """A channel whose cap is full is planned for when it is free again."""
    rules = replace(AWAKE, caps=(Cap(name="email", channel="email", limit=1, window_hours=72),))
    context = with_contacts(contact(NOW - HOUR, channel="email"), context=LONG)

    steps = plan_of("push", context=context, rules=rules)

    assert (steps[1].channel, steps[1].not_before) == ("email", NOW - HOUR + 3 * DAY)


def test_steps_of_a_plan_are_under_no_topic_cap_of_their_own() -> None:
    """The steps of one cascade do not hold each other back by their common topic."""
    rules = replace(AWAKE, topic_cap=TopicCap(limit=1, window_hours=72))

    assert [step.not_before for step in plan_of("push", rules=rules)] == [NOW, NOW + 3 * HOUR, NOW + 15 * HOUR]


def test_owed_message_is_planned_without_caps() -> None:
    """Caps of marketing hold back no step of a message that is owed."""
    rules = replace(AWAKE, caps=(Cap(name="day", limit=1, window_hours=24),))

    steps = plan_of("push", context=with_message(LONG, category="transactional"), rules=rules)

    assert steps[1].not_before == NOW + 3 * HOUR


@given(
    nets=st.dictionaries(st.sampled_from(list(RULES.channels)), st.floats(-10, 10), min_size=1),
    step=st.integers(1, 3),
)
def test_plan_is_in_order_and_uses_each_channel_once(nets: dict[str, float], step: int) -> None:
    """Whatever the values, steps are in time, numbered on, of different channels, and paid ones come after free ones."""
    chosen = next(iter(nets))

    steps = plan_of(chosen, nets, context=replace(LONG, step=step))

    assert steps[0].channel == chosen
    assert [s.step for s in steps] == list(range(step, step + len(steps)))
    assert len({s.channel for s in steps}) == len(steps)
    assert all(later.not_before >= first.not_before + first.wait for first, later in pairwise(steps))
    paid = [RULES.channels[s.channel].paid for s in steps[1:]]
    assert paid == sorted(paid)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ((), None),
        ((Event.IGNORED,), None),
        ((Event.UNDELIVERED, Event.NOT_SENT), None),
        ((Event.CLICKED,), CascadeEnd.CLICKED),
        ((Event.UNSUBSCRIBED, Event.CLICKED), CascadeEnd.UNSUBSCRIBED),
        ((Event.CLICKED, Event.ORDERED, Event.UNSUBSCRIBED), CascadeEnd.ORDERED),
    ],
)
def test_event_ends_the_cascade(events: tuple[Event, ...], expected: CascadeEnd | None) -> None:
    """An order ends a cascade before all else, then an unsubscription, then a click; a failure to reach does not."""
    assert find_end(CONTEXT, RULES, progress(*events)) == expected


def test_click_goes_on_where_the_rules_say_so() -> None:
    """Under stop_on_click = false a click is no end and not among what stops."""
    on = replace(RULES, cascade=replace(RULES.cascade, stop_on_click=False))

    assert find_end(CONTEXT, on, progress(Event.CLICKED)) is None
    assert stop_events(on) == (Event.ORDERED, Event.UNSUBSCRIBED)
    assert stop_events(RULES) == (Event.ORDERED, Event.CLICKED, Event.UNSUBSCRIBED)


def test_every_event_either_advances_or_stops() -> None:
    """No event is both or neither."""
    assert sorted((*ADVANCE_ON, *stop_events(RULES))) == sorted(Event)


def test_cascade_ends_at_its_expiry_and_its_last_step() -> None:
    """At the moment of the expiry, or after the most steps, a cascade is over."""
    expired = replace(CONTEXT, decide_time=CONTEXT.message.expire_time)

    assert find_end(expired, RULES, progress(steps_made=3)) is CascadeEnd.EXPIRED
    assert find_end(CONTEXT, RULES, progress(steps_made=3)) is CascadeEnd.MAX_STEPS
    assert find_end(CONTEXT, RULES, progress(steps_made=2)) is None


def test_next_step_waits_as_long_as_was_planned() -> None:
    """An ignored step is waited out; a failed one lets the next come at once."""
    failed = replace(progress(), events={Event.UNDELIVERED: NOW + HOUR, Event.NOT_SENT: NOW + 2 * HOUR})

    assert advance_time(progress()) == NOW + 3 * HOUR
    assert advance_time(progress(last_wait=12 * HOUR)) == NOW + 12 * HOUR
    assert advance_time(failed) == NOW + HOUR


def test_failure_reported_after_the_wait_does_not_delay() -> None:
    """A failure that is known only after the wait does not put the next step off."""
    late = replace(progress(), events={Event.UNDELIVERED: NOW + 10 * DAY})

    assert advance_time(late) == NOW + 3 * HOUR


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Event)), st.integers(0, 100).map(lambda n: NOW + n * HOUR)),
        max_size=10,
    )
)
def test_events_are_known_by_their_first_time(seen: list[tuple[Event, datetime]]) -> None:
    """Of each event the first time is kept, in whatever order they are told."""
    first = first_events(seen)

    assert first == first_events(reversed(seen))
    assert first == {event: min(t for e, t in seen if e == event) for event, _ in seen}
