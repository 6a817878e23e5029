"""ReportOutcomes: each outcome has a defined answer in whatever order it comes, and takes effect once."""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from service.gen.channelchoice.v1.customer_pb2 import CONSENT_STATE_DENIED, CONSENT_STATE_GRANTED, Customer, CustomerRef
from service.gen.channelchoice.v1.customer_service_pb2 import GetCustomerRequest, UpsertCustomersRequest
from service.gen.channelchoice.v1.decision_pb2 import DECISION_MODE_DRY_RUN, VERDICT_DO_NOT_SEND, VERDICT_SEND
from service.gen.channelchoice.v1.outcome_pb2 import (
    OUTCOME_STATUS_REJECTED,
    OUTCOME_TYPE_CLICKED,
    OUTCOME_TYPE_COMPLAINT,
    OUTCOME_TYPE_DELIVERED,
    OUTCOME_TYPE_NOT_SENT,
    OUTCOME_TYPE_OPENED,
    OUTCOME_TYPE_ORDER,
    OUTCOME_TYPE_SENT,
    OUTCOME_TYPE_SURVEY,
    OUTCOME_TYPE_UNDELIVERED,
    OUTCOME_TYPE_UNSUBSCRIBE,
    OUTCOME_TYPE_VISIT,
    Outcome,
    OutcomeType,
)
from tests.service.examples import DAY, HOUR, NOW, choose_request, identity, moment_of, outcome, rubles, stamp
from tests.service.served import Served
from tests.service.test_choose import reasons

pytestmark = pytest.mark.usefixtures("engine")

CONTACTS = "SELECT start_time, end_time, is_open FROM contacts"


def known_in_advance(service: Served, request_id: str = "request-1") -> str:
    """The id that this request's decision will have, learned from a dry run at the same moment."""
    request = choose_request(request_id)
    request.mode = DECISION_MODE_DRY_RUN
    return service.decide(request).decision_id


def test_an_outcome_is_accepted_once_and_then_a_duplicate(service: Served) -> None:
    """The same event again is DUPLICATE and changes nothing, in one call or two."""
    decision = service.decide(choose_request())
    event = outcome("event", OUTCOME_TYPE_CLICKED, decision_id=decision.decision_id)

    assert service.statuses(event, event) == ["ACCEPTED", "DUPLICATE"]
    assert service.statuses(event) == ["DUPLICATE"]
    assert service.rows("SELECT count(*) FROM outcomes") == [(1,)]


def test_another_body_under_the_same_event_id_is_rejected(service: Served) -> None:
    """An event_id used for something else is REJECTED with ALREADY_EXISTS, and the first stays."""
    decision = service.decide(choose_request())
    service.report(outcome("event", OUTCOME_TYPE_CLICKED, decision_id=decision.decision_id))

    (result,) = service.report(outcome("event", OUTCOME_TYPE_ORDER, decision_id=decision.decision_id))

    assert result.status == OUTCOME_STATUS_REJECTED
    assert (result.error.code, result.error.reason) == (6, "ID_USED_WITH_ANOTHER_BODY")
    assert service.rows("SELECT type FROM outcomes") == [("clicked",)]


@pytest.mark.parametrize(
    ("after", "status"),
    [(timedelta(days=30), "ACCEPTED"), (timedelta(days=30, microseconds=1), "LATE"), (-DAY, "ACCEPTED")],
)
def test_after_the_attribution_window_an_outcome_is_late(service: Served, after: timedelta, status: str) -> None:
    """LATE begins when the rules' thirty days after the decision are over."""
    decision = service.decide(choose_request())
    service.clock.move(40 * DAY)

    event = outcome("event", OUTCOME_TYPE_ORDER, decision_id=decision.decision_id, occur_time=NOW + after)

    assert service.statuses(event) == [status]


def test_an_outcome_reported_late_that_happened_in_time_is_accepted(service: Served) -> None:
    """What counts is when it happened, not when it was told."""
    decision = service.decide(choose_request())
    service.clock.move(60 * DAY)

    event = outcome("event", OUTCOME_TYPE_ORDER, decision_id=decision.decision_id, occur_time=NOW + DAY)

    assert service.statuses(event) == ["ACCEPTED"]


def test_an_outcome_before_its_decision_is_parked_and_adopted(service: Served) -> None:
    """PARKED outcomes take effect when their decision comes to be known, as if they had come after it."""
    decision_id = known_in_advance(service)
    events = [
        outcome("order", OUTCOME_TYPE_ORDER, decision_id=decision_id),
        outcome("gone", OUTCOME_TYPE_NOT_SENT, decision_id=decision_id),
    ]

    assert service.statuses(*events) == ["PARKED", "PARKED"]
    assert service.statuses(*events) == ["DUPLICATE", "DUPLICATE"]
    decision = service.decide(choose_request())

    assert decision.decision_id == decision_id
    assert service.rows("SELECT DISTINCT status, step FROM outcomes") == [("accepted", 1)]
    assert not service.get(decision_id).steps[0].trainable
    assert service.advance(decision_id, 1).verdict == VERDICT_DO_NOT_SEND


def test_a_parked_unsubscribe_withdraws_consent_when_adopted(service: Served) -> None:
    """Consent is withdrawn from the moment that the parked decision is known."""
    decision_id = known_in_advance(service)
    service.report(outcome("stop", OUTCOME_TYPE_UNSUBSCRIBE, decision_id=decision_id))
    service.decide(choose_request())

    assert "NO_CONSENT" in reasons(service.decide(choose_request("next")))["push"]


def test_not_sent_takes_out_of_training_and_frees_the_cap(service: Served) -> None:
    """A message that was not sent is not learned from and does not count; the next one takes its place."""
    first = service.decide(choose_request("first", channels=["sms"]))
    service.report(outcome("gone", OUTCOME_TYPE_NOT_SENT, decision_id=first.decision_id))

    second = service.decide(choose_request("second", channels=["sms"]))

    assert second.verdict == VERDICT_SEND
    assert first.trainable
    assert not service.get(first.decision_id).steps[0].trainable


def test_a_replayed_request_is_answered_as_at_first_after_not_sent(service: Served) -> None:
    """Idempotency is about the answer: it does not change with what became of the decision."""
    first = service.choose(choose_request())
    service.report(outcome("gone", OUTCOME_TYPE_NOT_SENT, decision_id=first.decision.decision_id))

    assert service.choose(choose_request()).decision == first.decision


def test_undelivered_frees_the_cap_and_stays_in_training(service: Served) -> None:
    """A failed delivery did not reach the customer, but the choice to send is learned from."""
    first = service.decide(choose_request("first", channels=["sms"]))
    service.report(outcome("lost", OUTCOME_TYPE_UNDELIVERED, decision_id=first.decision_id))

    assert service.decide(choose_request("second", channels=["sms"])).verdict == VERDICT_SEND
    assert service.get(first.decision_id).steps[0].trainable


def test_sent_moves_the_contact_to_when_it_was_sent(service: Served) -> None:
    """From SENT on caps count the real moment of the send, not the window in which it might be."""
    decision = service.decide(choose_request(channels=["sms"]))
    moment = NOW + timedelta(minutes=7)
    service.report(outcome("sent", OUTCOME_TYPE_SENT, decision_id=decision.decision_id, occur_time=moment))
    service.clock.moment = moment + 7 * DAY

    assert service.decide(choose_request("second", channels=["sms"])).send_time == stamp(service.clock.now())


@pytest.mark.parametrize(
    "kinds",
    list(itertools.permutations([OUTCOME_TYPE_SENT, OUTCOME_TYPE_NOT_SENT, OUTCOME_TYPE_ORDER]))
    + list(itertools.permutations([OUTCOME_TYPE_SENT, OUTCOME_TYPE_DELIVERED, OUTCOME_TYPE_UNDELIVERED])),
    ids=lambda kinds: "-".join(OutcomeType.Name(kind).removeprefix("OUTCOME_TYPE_") for kind in kinds),
)
def test_the_order_of_reports_does_not_matter(service: Served, kinds: Sequence["OutcomeType.ValueType"]) -> None:
    """Whatever order outcomes come in, contact, training and cascade end up the same."""
    by_order = []
    for request_id, order in (("first", kinds), ("second", sorted(kinds))):
        decision = service.decide(choose_request(request_id, customer=request_id))
        for kind in order:
            event = outcome(f"{request_id}-{kind}", kind, decision_id=decision.decision_id)
            assert service.statuses(event) == ["ACCEPTED"]
        by_order.append(
            (
                service.rows(f"{CONTACTS} WHERE decision_id = ?", decision.decision_id),
                service.get(decision.decision_id).steps[0].trainable,
                service.advance(decision.decision_id, 1).verdict,
            )
        )

    assert by_order[0] == by_order[1]


@pytest.mark.parametrize("kind", [OUTCOME_TYPE_UNSUBSCRIBE, OUTCOME_TYPE_COMPLAINT])
def test_an_unsubscribe_withdraws_consent_to_its_channel(service: Served, kind: "OutcomeType.ValueType") -> None:
    """After an unsubscribe or complaint the channel is closed though requests say GRANTED; others stay open."""
    decision = service.decide(choose_request("first"))
    service.report(outcome("stop", kind, decision_id=decision.decision_id))

    next_decision = service.decide(choose_request("second"))

    assert next_decision.channel == "email"
    assert reasons(next_decision) == {"push": {"NO_CONSENT"}}


def test_a_later_consent_opens_the_channel_again(service: Served) -> None:
    """A consent given after the withdrawal holds; one from before it, told late, does not."""
    decision = service.decide(choose_request("first"))
    service.report(outcome("stop", OUTCOME_TYPE_UNSUBSCRIBE, decision_id=decision.decision_id, occur_time=NOW + HOUR))
    service.clock.move(DAY)

    def consent_at(hours: int) -> str:
        customer = Customer(customer=CustomerRef(customer_id="customer-1"))
        customer.consents.add(
            channel="push",
            state=CONSENT_STATE_GRANTED,
            evidence="form",
            consent_time=stamp(NOW + hours * HOUR),
        )
        service.customers.UpsertCustomers(UpsertCustomersRequest(customers=[customer]))
        return service.decide(choose_request(f"after-{hours}", channels=["push"])).channel

    assert consent_at(0) == ""
    assert consent_at(2) == "push"


def test_a_withdrawal_is_not_lost_among_upserts(service: Served) -> None:
    """While the profile is written again and again, an unsubscribe always remains."""
    people = [f"customer-{number}" for number in range(12)]
    decisions = {person: service.decide(choose_request(person, customer=person)) for person in people}

    def upsert(person: str) -> None:
        ref = CustomerRef(customer_id=person, locale="ru-RU")
        service.customers.UpsertCustomers(UpsertCustomersRequest(customers=[Customer(customer=ref)]))

    def stop(person: str) -> None:
        decision_id = decisions[person].decision_id
        service.report(outcome(f"stop-{person}", OUTCOME_TYPE_UNSUBSCRIBE, decision_id=decision_id))

    with ThreadPoolExecutor(16) as pool:
        for person in people:
            for action in (upsert, upsert, upsert, stop, upsert, upsert, upsert):
                pool.submit(action, person)

    for person in people:
        found = service.customers.GetCustomer(GetCustomerRequest(customer=CustomerRef(customer_id=person))).customer
        assert [(said.channel, said.state) for said in found.consents] == [("push", CONSENT_STATE_DENIED)]


def test_an_outcome_without_a_decision_makes_its_customer_known(service: Served) -> None:
    """An organic order belongs to its customer, whom it may bring to the service's knowledge."""
    person = CustomerRef(customer_id="stranger", identities=[identity("mail")])

    assert service.statuses(outcome("visit", OUTCOME_TYPE_VISIT, customer=person)) == ["ACCEPTED"]

    found = service.customers.GetCustomer(GetCustomerRequest(customer=CustomerRef(identities=[identity("mail")])))
    assert found.identity_count == 2
    assert service.rows("SELECT customer_key FROM outcomes") == [(found.profile_id,)]


def test_an_outcome_follows_its_customer_through_a_merge_in_the_same_call(service: Served) -> None:
    """Where a later outcome of the call merges two people, the earlier one's outcome goes with them."""
    for person in ("old", "young"):
        service.decide(choose_request(person, customer=person))
        service.clock.move(HOUR)
    order = outcome("order", OUTCOME_TYPE_ORDER, customer=CustomerRef(customer_id="young"))
    both = CustomerRef(customer_id="old", identities=[identity("m")])
    again = CustomerRef(customer_id="young", identities=[identity("m")])

    service.report(
        order,
        outcome("visit-1", OUTCOME_TYPE_VISIT, customer=both),
        outcome("visit-2", OUTCOME_TYPE_VISIT, customer=again),
    )

    assert service.rows("SELECT count(*) FROM customers") == [(1,)]
    assert service.rows("SELECT DISTINCT customer_key FROM outcomes") == service.rows(
        "SELECT customer_key FROM customers"
    )


def test_an_outcome_is_of_the_step_at_its_time(service: Served) -> None:
    """Step 0 is the latest step at occur_time; a step that was not decided counts as that one too."""
    decision = service.decide(choose_request())
    service.clock.move(3 * HOUR)
    service.advance(decision.decision_id, 1)
    moments = {"early": (0, HOUR), "late": (0, 5 * HOUR), "said": (1, 5 * HOUR), "beyond": (4, 5 * HOUR)}
    events = [
        outcome(name, OUTCOME_TYPE_OPENED, decision_id=decision.decision_id, step=step, occur_time=NOW + after)
        for name, (step, after) in moments.items()
    ]

    service.report(*events)

    found = {event.event_id: event.step for event in service.get(decision.decision_id).outcomes}
    assert found == {"early": 1, "late": 2, "said": 1, "beyond": 2}


def test_get_decision_gives_outcomes_as_reported_by_time(service: Served) -> None:
    """All that was reported is read back, in the order in which it happened, without the customer."""
    decision = service.decide(choose_request())
    order = outcome("order", OUTCOME_TYPE_ORDER, decision_id=decision.decision_id, step=1, occur_time=NOW + 2 * HOUR)
    order.value.CopyFrom(rubles(450))
    sent = outcome("sent", OUTCOME_TYPE_SENT, decision_id=decision.decision_id, step=1, occur_time=NOW + HOUR)
    sent.actual_cost.CopyFrom(rubles(0.1))
    survey = outcome("survey", OUTCOME_TYPE_SURVEY, decision_id=decision.decision_id, step=1, occur_time=NOW + 3 * HOUR)
    survey.survey.csat = 5
    survey.survey.nps = 0
    seen = outcome("opened", OUTCOME_TYPE_OPENED, decision_id=decision.decision_id, step=1, occur_time=NOW + HOUR * 4)
    seen.machine_generated = True
    service.report(survey, order, seen, sent)

    found = service.get(decision.decision_id)

    assert list(found.outcomes) == [sent, order, survey, seen]
    assert [moment_of(event.occur_time) for event in found.outcomes] == [NOW + n * HOUR for n in (1, 2, 3, 4)]


def test_a_thousand_outcomes_are_taken_in_one_call(service: Served) -> None:
    """The largest call is stored whole, and each outcome has its result in its place."""
    person = CustomerRef(customer_id="customer-1")
    events: list[Outcome] = [outcome(f"e{n}", OUTCOME_TYPE_VISIT, customer=person) for n in range(1000)]

    results = service.report(*events)

    assert [result.event_id for result in results] == [event.event_id for event in events]
    assert service.rows("SELECT count(*) FROM outcomes") == [(1000,)]


def test_concurrent_duplicates_of_an_event_are_stored_once(service: Served) -> None:
    """Of sixteen reports of one event one is ACCEPTED and fifteen are DUPLICATE."""
    decision = service.decide(choose_request())
    event = outcome("event", OUTCOME_TYPE_CLICKED, decision_id=decision.decision_id)

    with ThreadPoolExecutor(16) as pool:
        statuses = [status for (status,) in pool.map(service.statuses, [event] * 16)]

    assert sorted(statuses) == ["ACCEPTED"] + ["DUPLICATE"] * 15


def test_revenue_is_kept_beside_margin(service: Served) -> None:
    """What was paid for an order is stored and shown; where nobody says it, nothing is made up."""
    decision = service.decide(choose_request())
    told = outcome("told", OUTCOME_TYPE_ORDER, decision_id=decision.decision_id)
    told.value.CopyFrom(rubles(300))
    told.revenue.CopyFrom(rubles(1200))
    service.report(told, outcome("untold", OUTCOME_TYPE_ORDER, decision_id=decision.decision_id))

    shown = {o.event_id: o for o in service.get(decision.decision_id).outcomes}
    assert (shown["told"].value, shown["told"].revenue) == (rubles(300), rubles(1200))
    assert not shown["untold"].HasField("revenue")
