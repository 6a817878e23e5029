"""AdvanceCascade: when it goes on, what stops it, and that it answers the same again.

The example's plan is push (wait 3 h), email (wait 12 h), sms.
"""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from service.gen.channelchoice.v1.channel_choice_service_pb2 import AdvanceCascadeRequest
from service.gen.channelchoice.v1.customer_pb2 import CONSENT_STATE_GRANTED, REACHABILITY_UNREACHABLE, CustomerRef
from service.gen.channelchoice.v1.decision_pb2 import (
    CASCADE_END_CLICKED,
    CASCADE_END_EXPIRED,
    CASCADE_END_MAX_STEPS,
    CASCADE_END_NO_STEP_LEFT,
    CASCADE_END_ORDERED,
    CASCADE_END_UNSPECIFIED,
    CASCADE_END_UNSUBSCRIBED,
    CASCADE_EVENT_CLICKED,
    CASCADE_EVENT_IGNORED,
    CASCADE_EVENT_NOT_SENT,
    CASCADE_EVENT_ORDERED,
    CASCADE_EVENT_UNDELIVERED,
    CASCADE_EVENT_UNSUBSCRIBED,
    DECISION_MODE_DRY_RUN,
    DECISION_MODE_SHADOW,
    VERDICT_DEFER,
    VERDICT_DO_NOT_SEND,
    VERDICT_SEND,
    CascadeEnd,
)
from service.gen.channelchoice.v1.message_pb2 import MESSAGE_CATEGORY_TRANSACTIONAL, ChannelOption
from service.gen.channelchoice.v1.outcome_pb2 import (
    OUTCOME_TYPE_CLICKED,
    OUTCOME_TYPE_COMPLAINT,
    OUTCOME_TYPE_DELIVERED,
    OUTCOME_TYPE_NOT_SENT,
    OUTCOME_TYPE_OPENED,
    OUTCOME_TYPE_ORDER,
    OUTCOME_TYPE_RETURN,
    OUTCOME_TYPE_SEEN,
    OUTCOME_TYPE_SENT,
    OUTCOME_TYPE_STORE_PURCHASE,
    OUTCOME_TYPE_UNDELIVERED,
    OUTCOME_TYPE_UNSUBSCRIBE,
    OUTCOME_TYPE_VISIT,
    OutcomeType,
)
from tests.service.examples import DAY, HOUR, NIGHT, NOW, RULES, choose_request, moment_of, outcome, rubles, stamp
from tests.service.served import Served, refused, serve
from tests.service.test_choose import reasons

pytestmark = pytest.mark.usefixtures("engine")

SECOND = timedelta(seconds=1)


def test_before_the_wait_is_over_the_answer_is_defer(service: Served) -> None:
    """Asked too early, AdvanceCascade defers to the moment that the plan named, and keeps nothing."""
    decision = service.decide(choose_request())
    service.clock.move(3 * HOUR - SECOND)

    early = service.advance(decision.decision_id, 1)

    assert early.verdict == VERDICT_DEFER
    assert moment_of(early.retry_time) == NOW + 3 * HOUR
    assert early.retry_time == decision.cascade.advance_time
    assert service.rows("SELECT count(*) FROM decisions") == [(1,)]


def test_an_ignored_step_escalates_to_the_next_channel(service: Served) -> None:
    """When the wait is over and nothing was seen, the next channel of the plan is sent through."""
    decision = service.decide(choose_request())
    service.clock.move(3 * HOUR)

    second = service.advance(decision.decision_id, 1)

    assert (second.verdict, second.channel, second.step) == (VERDICT_SEND, "email", 2)
    assert second.decision_id == decision.decision_id
    assert second.request_id == "request-1"
    assert reasons(second) == {"push": {"ALREADY_TRIED"}}
    assert [step.step for step in second.cascade.steps] == [2, 3]


def test_the_cascade_ends_on_the_paid_channel(service: Served) -> None:
    """Ignored twice, the customer gets the paid message, and its price."""
    decision = service.decide(choose_request())
    service.clock.move(3 * HOUR)
    service.advance(decision.decision_id, 1)
    service.clock.moment = NOW + DAY

    third = service.advance(decision.decision_id, 2)

    assert (third.channel, third.price, third.step) == ("sms", rubles(5.30), 3)
    assert not third.cascade.HasField("advance_time")


def test_the_steps_name_what_moves_on_and_what_stops(service: Served) -> None:
    """A planned step says in the contract's words when the next one comes and what ends all."""
    steps = service.decide(choose_request()).cascade.steps

    assert list(steps[0].advance_on) == [CASCADE_EVENT_IGNORED, CASCADE_EVENT_UNDELIVERED, CASCADE_EVENT_NOT_SENT]
    assert list(steps[0].stop_on) == [CASCADE_EVENT_ORDERED, CASCADE_EVENT_CLICKED, CASCADE_EVENT_UNSUBSCRIBED]
    assert list(steps[-1].advance_on) == []


@pytest.mark.parametrize("kind", [OUTCOME_TYPE_UNDELIVERED, OUTCOME_TYPE_NOT_SENT])
def test_a_failed_step_goes_on_at_once(service: Served, kind: "OutcomeType.ValueType") -> None:
    """UNDELIVERED and NOT_SENT do not wait: what did not arrive cannot be ignored."""
    decision = service.decide(choose_request())
    service.clock.move(timedelta(minutes=1))
    service.report(outcome("failed", kind, decision_id=decision.decision_id, occur_time=service.clock.now()))

    assert service.advance(decision.decision_id, 1).channel == "email"


def test_a_failure_of_one_step_does_not_hurry_the_next(service: Served) -> None:
    """After step 1 failed, step 2 has the whole of its own wait."""
    decision = service.decide(choose_request())
    service.report(outcome("failed", OUTCOME_TYPE_UNDELIVERED, decision_id=decision.decision_id, step=1))
    service.advance(decision.decision_id, 1)

    waiting = service.advance(decision.decision_id, 2)

    assert waiting.verdict == VERDICT_DEFER
    assert moment_of(waiting.retry_time) == NOW + 12 * HOUR


def test_the_wait_begins_when_the_message_was_sent(service: Served) -> None:
    """SENT moves the begin of the wait to when the provider took the message."""
    decision = service.decide(choose_request())
    service.clock.move(HOUR)
    sent = outcome("sent", OUTCOME_TYPE_SENT, decision_id=decision.decision_id, occur_time=NOW + HOUR)
    service.report(sent)
    service.clock.moment = NOW + 3 * HOUR

    waiting = service.advance(decision.decision_id, 1)

    assert waiting.verdict == VERDICT_DEFER
    assert moment_of(waiting.retry_time) == NOW + 4 * HOUR


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        (OUTCOME_TYPE_ORDER, CASCADE_END_ORDERED),
        (OUTCOME_TYPE_STORE_PURCHASE, CASCADE_END_ORDERED),
        (OUTCOME_TYPE_CLICKED, CASCADE_END_CLICKED),
        (OUTCOME_TYPE_UNSUBSCRIBE, CASCADE_END_UNSUBSCRIBED),
        (OUTCOME_TYPE_COMPLAINT, CASCADE_END_UNSUBSCRIBED),
    ],
)
def test_what_the_customer_did_ends_the_cascade(
    service: Served, kind: "OutcomeType.ValueType", end: "CascadeEnd.ValueType"
) -> None:
    """An order, a click or an unsubscribe ends the cascade at once, without waiting, and the end is kept."""
    decision = service.decide(choose_request())
    service.report(outcome("event", kind, decision_id=decision.decision_id))

    ended = service.advance(decision.decision_id, 1)
    again = service.advance(decision.decision_id, 2)

    assert (ended.verdict, ended.cascade.end) == (VERDICT_DO_NOT_SEND, end)
    assert (ended.step, ended.trainable) == (2, False)
    assert again == ended
    assert service.rows("SELECT count(*) FROM decisions") == [(2,)]


@pytest.mark.parametrize(
    "kind", [OUTCOME_TYPE_DELIVERED, OUTCOME_TYPE_OPENED, OUTCOME_TYPE_SEEN, OUTCOME_TYPE_RETURN, OUTCOME_TYPE_VISIT]
)
def test_what_is_no_answer_does_not_end_the_cascade(service: Served, kind: "OutcomeType.ValueType") -> None:
    """A message that was delivered, opened or seen was still ignored."""
    decision = service.decide(choose_request())
    service.report(outcome("event", kind, decision_id=decision.decision_id))
    service.clock.move(3 * HOUR)

    assert service.advance(decision.decision_id, 1).verdict == VERDICT_SEND


def test_a_click_by_a_machine_does_not_end_the_cascade(service: Served) -> None:
    """A mail scanner that follows links is no customer."""
    decision = service.decide(choose_request())
    click = outcome("scan", OUTCOME_TYPE_CLICKED, decision_id=decision.decision_id)
    click.machine_generated = True
    service.report(click)
    service.clock.move(3 * HOUR)

    assert service.advance(decision.decision_id, 1).verdict == VERDICT_SEND


def test_a_click_goes_on_where_the_rules_say_so(tmp_path: Path) -> None:
    """With stop_on_click off a click does not end the cascade, and no step claims it would."""
    rules = RULES.replace("[cascade]", "[cascade]\nstop_on_click = false")
    with serve(tmp_path, rules) as service:
        decision = service.decide(choose_request())
        service.report(outcome("click", OUTCOME_TYPE_CLICKED, decision_id=decision.decision_id))
        service.clock.move(3 * HOUR)
        second = service.advance(decision.decision_id, 1)

    assert second.verdict == VERDICT_SEND
    assert CASCADE_EVENT_CLICKED not in decision.cascade.steps[0].stop_on


def test_an_order_without_a_decision_ends_the_cascade(service: Served) -> None:
    """An order through any channel counts, though no message is named as its cause."""
    decision = service.decide(choose_request())
    person = CustomerRef(customer_id="customer-1")
    service.report(outcome("organic", OUTCOME_TYPE_ORDER, occur_time=NOW + HOUR, customer=person))
    service.clock.move(4 * HOUR)

    assert service.advance(decision.decision_id, 1).cascade.end == CASCADE_END_ORDERED


def test_an_order_after_another_message_ends_this_cascade_too(service: Served) -> None:
    """An order that followed one decision ends the open cascades of the same customer's others."""
    first = service.decide(choose_request("first"))
    second = service.decide(choose_request("second"))
    service.report(outcome("order", OUTCOME_TYPE_ORDER, decision_id=second.decision_id))

    assert service.advance(first.decision_id, 1).cascade.end == CASCADE_END_ORDERED


@pytest.mark.parametrize("customer", ["customer-1", "customer-2"])
def test_orders_of_the_past_and_of_others_do_not_end_it(service: Served, customer: str) -> None:
    """An order from before the message, or by somebody else, leaves the cascade open."""
    moment = NOW - SECOND if customer == "customer-1" else NOW + HOUR
    person = CustomerRef(customer_id=customer)
    decision = service.decide(choose_request())
    service.report(outcome("other", OUTCOME_TYPE_ORDER, occur_time=moment, customer=person))
    service.clock.move(4 * HOUR)

    assert service.advance(decision.decision_id, 1).verdict == VERDICT_SEND


def test_an_expired_message_is_not_escalated(service: Served) -> None:
    """After expire_time the cascade is over."""
    request = choose_request()
    request.message.expire_time.CopyFrom(stamp(NOW + 2 * HOUR))
    decision = service.decide(request)
    service.clock.move(2 * HOUR)

    ended = service.advance(decision.decision_id, 1)

    assert (ended.verdict, ended.cascade.end) == (VERDICT_DO_NOT_SEND, CASCADE_END_EXPIRED)


def test_the_rules_limit_the_number_of_steps(service: Served) -> None:
    """After three steps, the rules' default, the cascade ends although a channel is left."""
    request = choose_request(channels=["in_app", "push", "email", "viber", "sms"])
    request.message.category = MESSAGE_CATEGORY_TRANSACTIONAL
    request.message.expire_time.CopyFrom(stamp(NOW + 10 * DAY))
    decision = service.decide(request)
    channels = [decision.channel]
    for step in (1, 2):
        service.clock.move(DAY)
        channels.append(service.advance(decision.decision_id, step).channel)
    service.clock.move(DAY)

    ended = service.advance(decision.decision_id, 3)

    assert channels == ["in_app", "push", "email"]
    assert ended.cascade.end == CASCADE_END_MAX_STEPS


def test_the_request_limits_the_number_of_steps(service: Served) -> None:
    """With max_steps 1 there is no second step, in the plan or after it."""
    request = choose_request()
    request.constraints.max_steps = 1
    decision = service.decide(request)
    service.clock.move(3 * HOUR)

    ended = service.advance(decision.decision_id, 1)

    assert len(decision.cascade.steps) == 1
    assert not decision.cascade.HasField("advance_time")
    assert ended.cascade.end == CASCADE_END_MAX_STEPS


def test_without_another_channel_the_cascade_ends(service: Served) -> None:
    """Where every channel was tried there is no step left."""
    decision = service.decide(choose_request(channels=["push"]))
    service.clock.move(3 * HOUR)

    assert service.advance(decision.decision_id, 1).cascade.end == CASCADE_END_NO_STEP_LEFT


def test_the_same_completed_step_gets_the_first_answer_again(service: Served) -> None:
    """A repeated AdvanceCascade is answered as before, marked replayed, however late and whatever happened since."""
    decision = service.decide(choose_request())
    service.clock.move(3 * HOUR)
    first = service.advance(decision.decision_id, 1)
    service.clock.move(DAY)
    service.report(outcome("order", OUTCOME_TYPE_ORDER, decision_id=decision.decision_id))
    request = AdvanceCascadeRequest(decision_id=decision.decision_id, completed_step=1)

    again = service.decisions.AdvanceCascade(request)

    assert again.replayed
    assert service.advance(decision.decision_id, 1) == first


def test_concurrent_advances_make_one_step(service: Served) -> None:
    """Sixteen threads that advance the same step get one answer and make one row and one contact."""
    decision = service.decide(choose_request())
    service.clock.move(3 * HOUR)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: service.advance(decision.decision_id, 1), range(16)))

    assert all(answer == answers[0] for answer in answers)
    assert service.rows("SELECT count(*) FROM decisions WHERE step = 2") == [(1,)]
    assert service.rows("SELECT count(*) FROM contacts WHERE step = 2") == [(1,)]


def test_an_unknown_decision_is_not_found(service: Served) -> None:
    """Advancing what was never decided answers NOT_FOUND."""
    with refused() as refusal:
        service.advance("unknown", 1)

    assert refusal[0].code is grpc.StatusCode.NOT_FOUND
    assert refusal[0].metadata == {"kind": "decision", "key": "unknown"}


def test_a_dry_run_has_no_cascade_to_advance(service: Served) -> None:
    """What was not stored cannot go on."""
    request = choose_request()
    request.mode = DECISION_MODE_DRY_RUN
    decision = service.decide(request)

    with refused() as refusal:
        service.advance(decision.decision_id, 1)

    assert refusal[0].code is grpc.StatusCode.NOT_FOUND


def test_a_step_that_was_not_decided_cannot_be_over(service: Served) -> None:
    """A completed_step ahead of the cascade is refused and says which step is the latest."""
    decision = service.decide(choose_request())

    with refused() as refusal:
        service.advance(decision.decision_id, 2)

    assert refusal[0].code is grpc.StatusCode.INVALID_ARGUMENT
    assert "the latest is 1" in refusal[0].violations["completed_step"]


def test_escalation_keeps_quiet_hours(service: Served) -> None:
    """A step that falls due in the night is planned for the morning."""
    service.clock.moment = NIGHT - 4 * HOUR
    decision = service.decide(choose_request())
    service.clock.moment = NIGHT

    second = service.advance(decision.decision_id, 1)

    assert second.verdict == VERDICT_SEND
    assert moment_of(second.send_time) == NIGHT + 10 * HOUR


def test_escalation_keeps_the_cap(service: Served) -> None:
    """Steps count in the frequency cap: the fourth message of a day is put off."""
    decision = service.decide(choose_request())
    service.decide(choose_request("second", channels=["push"]))
    service.decide(choose_request("third", channels=["push"]))
    service.clock.move(3 * HOUR)

    second = service.advance(decision.decision_id, 1)

    assert second.verdict in (VERDICT_SEND, VERDICT_DEFER)
    assert max(moment_of(second.send_time), moment_of(second.retry_time)) > NOW + DAY


def test_channels_can_be_told_anew(service: Served) -> None:
    """AdvanceCascade takes reachability as it is now; channels that it does not name stay as they were."""
    decision = service.decide(choose_request())
    service.clock.move(3 * HOUR)
    now = [ChannelOption(channel="email", consent=CONSENT_STATE_GRANTED, reachability=REACHABILITY_UNREACHABLE)]
    request = AdvanceCascadeRequest(decision_id=decision.decision_id, completed_step=1, channels=now)

    second = service.decisions.AdvanceCascade(request).decision

    assert second.channel == "sms"
    assert reasons(second)["email"] == {"UNREACHABLE"}


def test_the_first_requests_person_stays(service: Served) -> None:
    """Zone, country and locale of the first request hold for later steps, though they were never stored."""
    request = choose_request()
    request.customer.time_zone = "Asia/Vladivostok"
    request.customer.locale = "ru-RU"
    request.customer.country = "RU"
    decision = service.decide(request)
    service.clock.move(3 * HOUR)
    service.advance(decision.decision_id, 1)

    ((context,),) = service.rows("SELECT context FROM decisions WHERE step = 2")

    assert '"time_zone":"Asia/Vladivostok"' in context
    assert '"locale":"ru-RU"' in context


def test_a_shadow_cascade_stays_in_the_shadow(service: Served) -> None:
    """Later steps of a SHADOW decision are shadows, and count in no cap."""
    request = choose_request()
    request.mode = DECISION_MODE_SHADOW
    decision = service.decide(request)
    service.clock.move(3 * HOUR)

    second = service.advance(decision.decision_id, 1)

    assert (second.mode, second.trainable) == (DECISION_MODE_SHADOW, False)
    assert service.rows("SELECT count(*) FROM contacts") == [(0,)]


def test_get_decision_gives_all_steps_as_answered(service: Served) -> None:
    """GetDecision answers every step of the cascade, in order, as each was answered in FULL."""
    first = service.decide(choose_request())
    service.clock.move(3 * HOUR)
    second = service.advance(first.decision_id, 1)
    service.report(outcome("order", OUTCOME_TYPE_ORDER, decision_id=first.decision_id, occur_time=NOW + 4 * HOUR))
    third = service.advance(first.decision_id, 2)

    found = service.get(first.decision_id)

    assert list(found.steps) == [first, second, third]
    assert [event.event_id for event in found.outcomes] == ["order"]
    assert first.cascade.end == CASCADE_END_UNSPECIFIED
    assert third.cascade.end == CASCADE_END_ORDERED
