"""Failover: what was not delivered, or of which nobody said in time that it was, goes on through another channel at once.

The example's plan is push (wait 3 h), email (wait 12 h), sms; here push has half an hour to be delivered, beside 15 minutes to be sent.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from service.gen.channelchoice.v1.decision_pb2 import (
    CASCADE_END_ORDERED,
    VERDICT_DEFER,
    VERDICT_DO_NOT_SEND,
    VERDICT_SEND,
)
from service.gen.channelchoice.v1.outcome_pb2 import (
    OUTCOME_TYPE_CLICKED,
    OUTCOME_TYPE_DELIVERED,
    OUTCOME_TYPE_OPENED,
    OUTCOME_TYPE_ORDER,
    OUTCOME_TYPE_SEEN,
    OUTCOME_TYPE_SENT,
    OUTCOME_TYPE_UNDELIVERED,
    OutcomeType,
)
from tests.funnels import write_funnel
from tests.service.examples import DAY, HOUR, NOW, RULES, choose_request, moment_of, outcome
from tests.service.served import Served, serve
from tests.service.test_choose import reasons

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
TTL_RULES = RULES.replace("[channels.push]", "[channels.push]\ndelivery_ttl_minutes = 30")
DEADLINE = NOW + 45 * MINUTE
"""The send window's end and half an hour."""


@pytest.fixture
def ttl(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path, TTL_RULES) as service:
        yield service


def test_a_send_that_nobody_confirms_goes_on_when_its_time_is_over(ttl: Served) -> None:
    """Until the deadline of the answer AdvanceCascade defers to it; from then on it decides the next step, though the wait is hours longer."""
    decision = ttl.decide(choose_request())
    ttl.clock.moment = DEADLINE - SECOND
    early = ttl.advance(decision.decision_id, 1)
    ttl.clock.moment = DEADLINE

    second = ttl.advance(decision.decision_id, 1)

    assert moment_of(decision.cascade.delivery_deadline_time) == DEADLINE
    assert moment_of(decision.cascade.advance_time) == NOW + 3 * HOUR
    assert (early.verdict, moment_of(early.retry_time)) == (VERDICT_DEFER, DEADLINE)
    assert (second.verdict, second.channel, second.step) == (VERDICT_SEND, "email", 2)
    assert reasons(second)["push"] == {"ALREADY_TRIED"}


@pytest.mark.parametrize("kind", [OUTCOME_TYPE_DELIVERED, OUTCOME_TYPE_SEEN, OUTCOME_TYPE_OPENED])
@pytest.mark.parametrize("is_late", [False, True], ids=["in time", "late"])
def test_a_send_that_arrived_has_its_whole_wait(ttl: Served, kind: "OutcomeType.ValueType", *, is_late: bool) -> None:
    """Once it is known to have arrived, even after its time but before the next step was asked for, it can only be ignored."""
    decision = ttl.decide(choose_request())
    arrived = NOW + HOUR if is_late else NOW + MINUTE
    ttl.clock.moment = NOW + 2 * HOUR
    ttl.report(outcome("arrived", kind, decision_id=decision.decision_id, occur_time=arrived))

    waiting = ttl.advance(decision.decision_id, 1)

    assert (waiting.verdict, moment_of(waiting.retry_time)) == (VERDICT_DEFER, NOW + 3 * HOUR)


def test_sent_moves_the_deadline(ttl: Served) -> None:
    """The time for delivery begins when the provider took the message."""
    decision = ttl.decide(choose_request())
    ttl.clock.move(10 * MINUTE)
    ttl.report(outcome("sent", OUTCOME_TYPE_SENT, decision_id=decision.decision_id, occur_time=NOW + 10 * MINUTE))

    waiting = ttl.advance(decision.decision_id, 1)

    assert moment_of(waiting.retry_time) == NOW + 40 * MINUTE


def test_undelivered_does_not_wait_for_the_deadline(ttl: Served) -> None:
    """A failure that is reported moves on at once, and the channel is not tried again."""
    decision = ttl.decide(choose_request())
    ttl.clock.move(MINUTE)
    ttl.report(outcome("lost", OUTCOME_TYPE_UNDELIVERED, decision_id=decision.decision_id, occur_time=NOW + MINUTE))

    second = ttl.advance(decision.decision_id, 1)

    assert (second.verdict, second.channel) == (VERDICT_SEND, "email")
    assert reasons(second)["push"] == {"ALREADY_TRIED"}


def test_what_stops_a_cascade_stops_an_overdue_one(ttl: Served) -> None:
    """Who has ordered by another way gets no second message because the first did not arrive."""
    decision = ttl.decide(choose_request())
    ttl.clock.moment = DEADLINE
    ttl.report(outcome("order", OUTCOME_TYPE_ORDER, decision_id=decision.decision_id, occur_time=NOW + MINUTE))

    ended = ttl.advance(decision.decision_id, 1)

    assert (ended.verdict, ended.cascade.end) == (VERDICT_DO_NOT_SEND, CASCADE_END_ORDERED)


def test_a_click_of_a_message_that_arrives_late_still_stops(ttl: Served) -> None:
    """The first message may arrive after the second was decided; a click in it ends the cascade as any other."""
    decision = ttl.decide(choose_request())
    ttl.clock.moment = DEADLINE
    ttl.advance(decision.decision_id, 1)
    ttl.clock.move(HOUR)
    late = outcome("late", OUTCOME_TYPE_CLICKED, decision_id=decision.decision_id, step=1, occur_time=DEADLINE + MINUTE)
    ttl.report(late)

    assert ttl.advance(decision.decision_id, 2).verdict == VERDICT_DO_NOT_SEND


def test_the_next_step_has_a_wait_of_its_own(ttl: Served) -> None:
    """E-mail has no time for delivery here: after it the cascade waits, however overdue the push before it is."""
    decision = ttl.decide(choose_request())
    ttl.clock.moment = DEADLINE
    second = ttl.advance(decision.decision_id, 1)

    waiting = ttl.advance(decision.decision_id, 2)

    assert not second.cascade.HasField("delivery_deadline_time")
    assert (waiting.verdict, moment_of(waiting.retry_time)) == (VERDICT_DEFER, DEADLINE + 12 * HOUR)


def test_an_overdue_send_counts_in_caps(tmp_path: Path) -> None:
    """It may have arrived all the same: with one message a day, the next comes a day later."""
    with serve(tmp_path, TTL_RULES.replace("limit = 3", "limit = 1")) as service:
        decision = service.decide(choose_request())
        service.clock.moment = DEADLINE
        second = service.advance(decision.decision_id, 1)

    assert second.channel == "email"
    assert moment_of(second.send_time) >= NOW + DAY


def test_channels_without_a_time_wait_as_before(service: Served) -> None:
    """Without delivery_ttl_minutes no deadline is given, and nothing goes on before the wait is over."""
    decision = service.decide(choose_request())
    service.clock.move(2 * HOUR)

    assert not decision.cascade.HasField("delivery_deadline_time")
    assert service.advance(decision.decision_id, 1).verdict == VERDICT_DEFER


def test_a_bundle_plans_anew_after_a_send_that_did_not_arrive(tmp_path: Path) -> None:
    """Of what is overdue nothing is expected any more: every action is worth what it is after UNDELIVERED."""
    write_funnel(tmp_path / "bundle")
    worth = {}
    for name, rules in (("overdue", TTL_RULES), ("undelivered", RULES)):
        (tmp_path / name).mkdir()
        chosen = rules + '\n[policy]\nname = "rule_cascade"\n'
        with serve(tmp_path / name, chosen, bundle=str(tmp_path / "bundle")) as service:
            decision = service.decide(choose_request())
            service.clock.moment = DEADLINE
            if name == "undelivered":
                service.report(outcome("lost", OUTCOME_TYPE_UNDELIVERED, decision_id=decision.decision_id))
            second = service.advance(decision.decision_id, 1)
            worth[name] = {(a.channel, a.send_time.seconds): a.plan_value.micros for a in second.actions}

    assert len(worth["overdue"]) > 3
    assert worth["overdue"] == worth["undelivered"]
