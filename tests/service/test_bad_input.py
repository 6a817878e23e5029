"""Bad input: every malformed field is INVALID_ARGUMENT, with all violations by path, and says what to do."""

import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from service.gen.channelchoice.v1.channel_choice_service_pb2 import (
    AdvanceCascadeRequest,
    BatchChooseChannelRequest,
    ChooseChannelRequest,
    GetDecisionRequest,
)
from service.gen.channelchoice.v1.customer_pb2 import (
    CONSENT_STATE_GRANTED,
    CONSENT_STATE_UNSPECIFIED,
    IDENTITY_TYPE_UNSPECIFIED,
    REACHABILITY_REACHABLE,
    Customer,
    CustomerRef,
)
from service.gen.channelchoice.v1.customer_service_pb2 import GetCustomerRequest, UpsertCustomersRequest
from service.gen.channelchoice.v1.message_pb2 import MESSAGE_CATEGORY_UNSPECIFIED, ChannelOption
from service.gen.channelchoice.v1.money_pb2 import Money
from service.gen.channelchoice.v1.outcome_pb2 import (
    OUTCOME_STATUS_REJECTED,
    OUTCOME_TYPE_CLICKED,
    OUTCOME_TYPE_ORDER,
    OUTCOME_TYPE_SENT,
    OUTCOME_TYPE_SURVEY,
    OUTCOME_TYPE_UNSPECIFIED,
    OUTCOME_TYPE_VISIT,
    Outcome,
)
from service.gen.channelchoice.v1.outcome_service_pb2 import ReportOutcomesRequest
from tests.service.examples import DAY, NOW, choose_request, identity, outcome, rubles, stamp
from tests.service.served import Refusal, Served, refused, serve

Change = Callable[[ChooseChannelRequest], object]


def in_turn(*changes: Callable[[Any], object]) -> Callable[[Any], None]:
    """Several changes as one."""

    def change(message: Any) -> None:
        for each in changes:
            each(message)

    return change


def with_features(number: int) -> ChooseChannelRequest:
    request = ChooseChannelRequest()
    for index in range(number):
        request.features[f"f{index}"].flag = True
    return request


def set_value(message: object, name: str, value: object) -> None:
    setattr(message, name, value)


def set_text(message: object, name: str, length: int) -> None:
    setattr(message, name, "x" * length)


def set_number(value: object, number: float) -> None:
    value.number = number  # type: ignore[attr-defined]  # a FeatureValue


REQUEST_CHANGES: dict[str, tuple[Change, set[str]]] = {
    "no request_id": (lambda r: r.ClearField("request_id"), {"request_id"}),
    "long request_id": (lambda r: set_text(r, "request_id", 129), {"request_id"}),
    "request_id with a zero byte": (lambda r: set_value(r, "request_id", "a\0b"), {"request_id"}),
    "campaign with a zero byte": (lambda r: set_value(r.message, "campaign", "\0"), {"message.campaign"}),
    "kind with a zero byte": (lambda r: set_value(r.message, "kind", "a\0"), {"message.kind"}),
    "topic with a zero byte": (lambda r: set_value(r.message, "topic", "a\0"), {"message.topic"}),
    "no customer": (lambda r: r.ClearField("customer"), {"customer"}),
    "empty customer": (lambda r: r.customer.ClearField("customer_id"), {"customer"}),
    "long customer_id": (lambda r: set_text(r.customer, "customer_id", 129), {"customer.customer_id"}),
    "too many identities": (
        lambda r: r.customer.identities.extend(identity(f"id-{n}") for n in range(17)),
        {"customer.identities"},
    ),
    "identity without type": (
        lambda r: r.customer.identities.append(identity("x", IDENTITY_TYPE_UNSPECIFIED)),
        {"customer.identities[0].type"},
    ),
    "identity of an unknown type": (
        lambda r: r.customer.identities.append(identity("x", 99)),  # type: ignore[arg-type]  # a number off the enum
        {"customer.identities[0].type"},
    ),
    "identity without value": (
        lambda r: r.customer.identities.extend([identity("x"), identity("")]),
        {"customer.identities[1].value"},
    ),
    "long identity": (lambda r: r.customer.identities.append(identity("x" * 257)), {"customer.identities[0].value"}),
    "unknown zone": (lambda r: set_value(r.customer, "time_zone", "Mars/Olympus"), {"customer.time_zone"}),
    "zone that is a path": (lambda r: set_value(r.customer, "time_zone", "../../etc/passwd"), {"customer.time_zone"}),
    "zone that is a folder": (lambda r: set_value(r.customer, "time_zone", "Europe"), {"customer.time_zone"}),
    "zone with a zero byte": (lambda r: set_value(r.customer, "time_zone", "Europe/\0"), {"customer.time_zone"}),
    "endless zone": (lambda r: set_text(r.customer, "time_zone", 5000), {"customer.time_zone"}),
    "long locale": (lambda r: set_text(r.customer, "locale", 36), {"customer.locale"}),
    "country in words": (lambda r: set_value(r.customer, "country", "Russia"), {"customer.country"}),
    "country in small letters": (lambda r: set_value(r.customer, "country", "ru"), {"customer.country"}),
    "NaN in a customer's feature": (
        lambda r: set_number(r.customer.features["x"], math.nan),
        {"customer.features['x'].number"},
    ),
    "infinite feature": (lambda r: set_number(r.features["x"], math.inf), {"features['x'].number"}),
    "minus infinite feature": (lambda r: set_number(r.features["x"], -math.inf), {"features['x'].number"}),
    "feature without value": (lambda r: r.features["x"].Clear(), {"features['x']"}),
    "feature with an empty text": (lambda r: set_value(r.features["x"], "text", ""), {"features['x'].text"}),
    "feature with a long text": (lambda r: set_text(r.features["x"], "text", 129), {"features['x'].text"}),
    "feature in capitals": (lambda r: set_number(r.features["Age"], 1), {"features['Age']"}),
    "feature without name": (lambda r: set_number(r.features[""], 1), {"features['']"}),
    "too many features": (
        lambda r: r.MergeFrom(with_features(65)),
        {"features"},
    ),
    "no message": (
        lambda r: r.ClearField("message"),
        {"message.campaign", "message.kind", "message.category", "message.order_margin"},
    ),
    "no campaign": (lambda r: r.message.ClearField("campaign"), {"message.campaign"}),
    "long campaign": (lambda r: set_text(r.message, "campaign", 129), {"message.campaign"}),
    "no kind": (lambda r: r.message.ClearField("kind"), {"message.kind"}),
    "long kind": (lambda r: set_text(r.message, "kind", 65), {"message.kind"}),
    "long topic": (lambda r: set_text(r.message, "topic", 129), {"message.topic"}),
    "long offer": (lambda r: set_text(r.message, "offer", 129), {"message.offer"}),
    "long journey stage": (lambda r: set_text(r.message, "journey_stage", 65), {"message.journey_stage"}),
    "no category": (lambda r: set_value(r.message, "category", MESSAGE_CATEGORY_UNSPECIFIED), {"message.category"}),
    "unknown category": (lambda r: set_value(r.message, "category", 42), {"message.category"}),
    "no margin": (lambda r: r.message.ClearField("order_margin"), {"message.order_margin"}),
    "negative margin": (lambda r: r.message.order_margin.CopyFrom(rubles(-1)), {"message.order_margin.micros"}),
    "margin beyond all money": (
        lambda r: r.message.order_margin.CopyFrom(rubles(1_000_000_001)),
        {"message.order_margin.micros"},
    ),
    "margin in another currency": (
        lambda r: r.message.order_margin.CopyFrom(Money(micros=1, currency="USD")),
        {"message.order_margin.currency"},
    ),
    "margin without currency": (
        lambda r: r.message.order_margin.CopyFrom(Money(micros=1)),
        {"message.order_margin.currency"},
    ),
    "half-life of nothing": (
        lambda r: r.message.relevance_half_life.FromTimedelta(timedelta(0)),
        {"message.relevance_half_life"},
    ),
    "negative half-life": (
        lambda r: r.message.relevance_half_life.FromTimedelta(-DAY),
        {"message.relevance_half_life"},
    ),
    "half-life over a year": (
        lambda r: r.message.relevance_half_life.FromTimedelta(366 * DAY),
        {"message.relevance_half_life"},
    ),
    "half-life off the scale": (
        lambda r: set_value(r.message.relevance_half_life, "seconds", 2**63 - 1),
        {"message.relevance_half_life"},
    ),
    "earliest time too far ahead": (
        lambda r: r.message.earliest_time.CopyFrom(stamp(NOW + 61 * DAY)),
        {"message.earliest_time"},
    ),
    "expires before it may be sent": (
        in_turn(
            lambda r: r.message.earliest_time.CopyFrom(stamp(NOW + 2 * DAY)),
            lambda r: r.message.expire_time.CopyFrom(stamp(NOW + DAY)),
        ),
        {"message.expire_time"},
    ),
    "expires as it may be sent": (
        in_turn(
            lambda r: r.message.earliest_time.CopyFrom(stamp(NOW + DAY)),
            lambda r: r.message.expire_time.CopyFrom(stamp(NOW + DAY)),
        ),
        {"message.expire_time"},
    ),
    "expires too far ahead": (
        lambda r: r.message.expire_time.CopyFrom(stamp(NOW + 61 * DAY)),
        {"message.expire_time"},
    ),
    "time before 2000": (lambda r: set_value(r.message.expire_time, "seconds", 1), {"message.expire_time"}),
    "time off the calendar": (
        lambda r: set_value(r.message.earliest_time, "seconds", 2**62),
        {"message.earliest_time"},
    ),
    "time in milliseconds": (
        lambda r: set_value(r.message.earliest_time, "seconds", int(NOW.timestamp()) * 1000),
        {"message.earliest_time"},
    ),
    "negative nanoseconds": (
        in_turn(
            lambda r: r.message.expire_time.CopyFrom(stamp(NOW + DAY)),
            lambda r: set_value(r.message.expire_time, "nanos", -1),
        ),
        {"message.expire_time"},
    ),
    "negative priority": (lambda r: set_value(r.message, "priority", -1), {"message.priority"}),
    "priority over 100": (lambda r: set_value(r.message, "priority", 101), {"message.priority"}),
    "long text": (lambda r: set_text(r.message.content, "text", 10_001), {"message.content.text"}),
    "negative length": (
        lambda r: set_value(r.message.content, "length_characters", -1),
        {"message.content.length_characters"},
    ),
    "length over the limit": (
        lambda r: set_value(r.message.content, "length_characters", 10_001),
        {"message.content.length_characters"},
    ),
    "unknown encoding": (lambda r: set_value(r.message.content, "encoding", 9), {"message.content.encoding"}),
    "no channels": (lambda r: r.ClearField("channels"), {"channels"}),
    "too many channels": (
        lambda r: r.channels.extend(ChannelOption(channel="push") for _ in range(30)),
        {"channels"} | {f"channels[{n}].channel" for n in range(3, 33)},
    ),
    "unknown channel": (lambda r: set_value(r.channels[1], "channel", "pigeon"), {"channels[1].channel"}),
    "empty channel": (lambda r: r.channels[1].ClearField("channel"), {"channels[1].channel"}),
    "channel twice": (lambda r: set_value(r.channels[2], "channel", "push"), {"channels[2].channel"}),
    "unknown reachability": (lambda r: set_value(r.channels[0], "reachability", 7), {"channels[0].reachability"}),
    "unknown consent": (lambda r: set_value(r.channels[0], "consent", -1), {"channels[0].consent"}),
    "negative price": (
        lambda r: r.channels[0].price_override.CopyFrom(rubles(-0.01)),
        {"channels[0].price_override.micros"},
    ),
    "price in another currency": (
        lambda r: r.channels[0].price_override.CopyFrom(Money(micros=1, currency="EUR")),
        {"channels[0].price_override.currency"},
    ),
    "long text of a channel": (
        lambda r: set_text(r.channels[0].content, "text", 10_001),
        {"channels[0].content.text"},
    ),
    "unknown allowed channel": (
        lambda r: r.constraints.allowed_channels.extend(["push", "pigeon"]),
        {"constraints.allowed_channels[1]"},
    ),
    "unknown denied channel": (
        lambda r: r.constraints.denied_channels.append(""),
        {"constraints.denied_channels[0]"},
    ),
    "negative max_cost": (lambda r: r.constraints.max_cost.CopyFrom(rubles(-1)), {"constraints.max_cost.micros"}),
    "max_cost without currency": (
        lambda r: r.constraints.max_cost.CopyFrom(Money(micros=1)),
        {"constraints.max_cost.currency"},
    ),
    "unknown free_first": (lambda r: set_value(r.constraints, "free_first", 8), {"constraints.free_first"}),
    "too many steps": (lambda r: set_value(r.constraints, "max_steps", 6), {"constraints.max_steps"}),
    "negative steps": (lambda r: set_value(r.constraints, "max_steps", -1), {"constraints.max_steps"}),
    "unknown mode": (lambda r: set_value(r, "mode", 99), {"mode"}),
    "unknown view": (lambda r: set_value(r, "view", 99), {"view"}),
}


def assert_invalid(refusal: Refusal, fields: set[str]) -> None:
    """It is INVALID_ARGUMENT for these fields alone, each with a sentence of its own."""
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "INVALID_FIELDS"
    assert set(refusal.violations) == fields
    assert all(refusal.violations.values())
    assert refusal.retry_seconds is None


CHOOSE = "/channelchoice.v1.ChannelChoiceService/ChooseChannel"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Served:  # type: ignore[misc]  # a generator, as fixtures are
    """One service for all refusals, which leave nothing behind."""
    folder: Path = tmp_path_factory.mktemp("shared")
    with serve(folder) as served:
        yield served
        assert served.rows("SELECT count(*) FROM decisions") == [(0,)]
        assert served.rows("SELECT count(*) FROM outcomes") == [(0,)]


@pytest.mark.parametrize(("change", "fields"), REQUEST_CHANGES.values(), ids=REQUEST_CHANGES.keys())
def test_a_malformed_request_is_refused_by_field(shared: Served, change: Change, fields: set[str]) -> None:
    """ChooseChannel names each field that is wrong by its path, and no other."""
    request = choose_request()
    change(request)

    with refused() as refusal:
        shared.choose(request)

    assert_invalid(refusal[0], fields)


def test_a_body_that_is_no_message_is_refused(shared: Served) -> None:
    """Bytes of something else are the caller's mistake, and are answered as such; the calls after them go on."""
    choose: Callable[..., bytes] = shared.grpc_channel.unary_unary(CHOOSE)
    with refused() as refusal:
        choose(b"\xff\xff", timeout=30)

    assert_invalid(refusal[0], {"request"})


def test_an_empty_request_lists_everything_it_lacks(shared: Served) -> None:
    """A caller's first try tells it all that is required, in one answer."""
    with refused() as refusal:
        shared.choose(ChooseChannelRequest())

    assert_invalid(
        refusal[0],
        {
            "request_id",
            "customer",
            "message.campaign",
            "message.kind",
            "message.category",
            "message.order_margin",
            "channels",
        },
    )


def test_violations_in_every_part_come_all_at_once(shared: Served) -> None:
    """One mistake in each part of a request gives one violation for each, not the first alone."""
    changes = [
        "unknown zone",
        "infinite feature",
        "negative margin",
        "unknown channel",
        "unknown mode",
        "too many steps",
    ]
    request = choose_request()
    for name in changes:
        REQUEST_CHANGES[name][0](request)

    with refused() as refusal:
        shared.choose(request)

    assert_invalid(refusal[0], set().union(*(REQUEST_CHANGES[name][1] for name in changes)))


def test_many_long_violations_still_fit_into_a_status(shared: Served) -> None:
    """A refusal of more than a gRPC status carries is still INVALID_ARGUMENT, and counts what it had to leave out."""
    request = choose_request()
    del request.channels[:]
    request.channels.extend(ChannelOption(channel=f"{n}" * 1000) for n in range(10, 42))
    for number in range(64):
        request.features[f"Ключ {number} " + "x" * 500].text = "y" * 1000

    with refused() as refusal:
        shared.choose(request)

    assert refusal[0].code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(refusal[0].violations) >= 10
    assert "more fields are refused" in list(refusal[0].violations.values())[-1]


def test_a_batch_that_repeats_one_id_is_refused(shared: Served) -> None:
    """A batch in which requests share an id is refused whole, as nobody could tell the answers apart."""
    with refused() as few:
        shared.decisions.BatchChooseChannel(BatchChooseChannelRequest(requests=[choose_request("same")] * 3))
    with refused() as many:
        shared.decisions.BatchChooseChannel(BatchChooseChannelRequest(requests=[choose_request("same")] * 500))

    assert_invalid(few[0], {"requests[1].request_id", "requests[2].request_id"})
    assert many[0].code is grpc.StatusCode.INVALID_ARGUMENT


def test_an_endless_id_is_not_found(shared: Served) -> None:
    """Looking up an id of any length answers NOT_FOUND, not an error of the transport."""
    for decision_id in ("x" * 100_000, "a\0b"):
        with refused() as refusal:
            shared.get(decision_id)

        assert refusal[0].code is grpc.StatusCode.NOT_FOUND


def test_refusals_say_what_would_be_right(shared: Served) -> None:
    """A description names the way out: the registry's keys, the enum's names, the rules' currency."""
    request = choose_request()
    for name in ("unknown channel", "unknown category", "margin in another currency"):
        REQUEST_CHANGES[name][0](request)

    with refused() as refusal:
        shared.choose(request)

    found = refusal[0].violations
    assert "in_app, push, sms" in found["channels[1].channel"]
    assert "MESSAGE_CATEGORY_MARKETING" in found["message.category"]
    assert "RUB" in found["message.order_margin.currency"]


@pytest.mark.parametrize(
    "change",
    [
        lambda r: set_text(r, "request_id", 128),
        lambda r: set_value(r.message, "priority", 100),
        lambda r: set_text(r.message.content, "text", 10_000),
        lambda r: r.message.order_margin.CopyFrom(rubles(0)),
        lambda r: r.message.order_margin.CopyFrom(rubles(1_000_000_000)),
        lambda r: set_value(r.constraints, "max_steps", 5),
        lambda r: r.message.expire_time.CopyFrom(stamp(NOW + 60 * DAY)),
        lambda r: r.message.expire_time.CopyFrom(stamp(NOW - DAY)),
        lambda r: set_value(r.customer, "time_zone", "America/Argentina/ComodRivadavia"),
        lambda r: set_number(r.features["a.b_9"], -1e308),
        lambda r: set_text(r.features["x"], "text", 128),
    ],
)
def test_the_edge_of_each_range_is_allowed(service: Served, change: Change) -> None:
    """The greatest and least values that the contract names are taken."""
    request = choose_request()
    change(request)

    assert service.decide(request).decision_id


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (AdvanceCascadeRequest(completed_step=1), {"decision_id"}),
        (AdvanceCascadeRequest(decision_id="d"), {"completed_step"}),
        (AdvanceCascadeRequest(decision_id="d", completed_step=6), {"completed_step"}),
        (AdvanceCascadeRequest(decision_id="d", completed_step=-1), {"completed_step"}),
        (
            AdvanceCascadeRequest(decision_id="d", completed_step=1, channels=[ChannelOption(channel="pigeon")]),
            {"channels[0].channel"},
        ),
        (
            AdvanceCascadeRequest(
                decision_id="d",
                completed_step=1,
                view=77,  # type: ignore[arg-type]  # a number off the enum
            ),
            {"view"},
        ),
        (AdvanceCascadeRequest(), {"decision_id", "completed_step"}),
    ],
)
def test_a_malformed_advance_is_refused_by_field(
    shared: Served, request_: AdvanceCascadeRequest, fields: set[str]
) -> None:
    """AdvanceCascade names each field that is wrong."""
    with refused() as refusal:
        shared.decisions.AdvanceCascade(request_)

    assert_invalid(refusal[0], fields)


def test_a_decision_is_asked_for_by_its_id(shared: Served) -> None:
    """GetDecision without an id is refused."""
    with refused() as refusal:
        shared.decisions.GetDecision(GetDecisionRequest())

    assert_invalid(refusal[0], {"decision_id"})


def test_a_customer_is_asked_for_by_somebodys_id(shared: Served) -> None:
    """GetCustomer without an id or identity is refused."""
    with refused() as refusal:
        shared.customers.GetCustomer(GetCustomerRequest())

    assert_invalid(refusal[0], {"customer"})


def test_an_empty_call_of_many_is_refused(shared: Served) -> None:
    """A batch of nothing is a mistake of the caller."""
    with refused() as first:
        shared.decisions.BatchChooseChannel(BatchChooseChannelRequest())
    with refused() as second:
        shared.outcomes.ReportOutcomes(ReportOutcomesRequest())
    with refused() as third:
        shared.customers.UpsertCustomers(UpsertCustomersRequest())

    assert_invalid(first[0], {"requests"})
    assert_invalid(second[0], {"outcomes"})
    assert_invalid(third[0], {"customers"})


def test_oversize_calls_of_many_are_refused_whole(shared: Served) -> None:
    """501 requests, 1001 outcomes and 501 customers are refused, and the message says to split the call."""
    with refused() as first:
        shared.decisions.BatchChooseChannel(
            BatchChooseChannelRequest(requests=[choose_request(f"r{n}") for n in range(501)])
        )
    with refused() as second:
        many = [outcome(f"e{n}", OUTCOME_TYPE_SENT, decision_id="d") for n in range(1001)]
        shared.outcomes.ReportOutcomes(ReportOutcomesRequest(outcomes=many))
    with refused() as third:
        people = [Customer(customer=CustomerRef(customer_id=f"c{n}")) for n in range(501)]
        shared.customers.UpsertCustomers(UpsertCustomersRequest(customers=people))

    for refusal, field in ((first, "requests"), (second, "outcomes"), (third, "customers")):
        assert_invalid(refusal[0], {field})
        assert "split the call" in refusal[0].violations[field]


def test_a_message_over_the_limit_is_refused(shared: Served) -> None:
    """A request beyond max_message_bytes is refused before it is read, and the service goes on."""
    request = choose_request()
    request.message.content.text = "x" * (5 << 20)

    with refused() as refusal:
        shared.choose(request)

    assert refusal[0].code is grpc.StatusCode.RESOURCE_EXHAUSTED


GOOD_OUTCOME = outcome("event", OUTCOME_TYPE_SENT, decision_id="decision")

OUTCOME_CHANGES: dict[str, tuple[Callable[[Outcome], object], set[str]]] = {
    "no event_id": (lambda o: o.ClearField("event_id"), {"event_id"}),
    "long event_id": (lambda o: set_text(o, "event_id", 129), {"event_id"}),
    "neither decision nor customer": (lambda o: o.ClearField("decision_id"), {"decision_id"}),
    "long decision_id": (lambda o: set_text(o, "decision_id", 129), {"decision_id"}),
    "negative step": (lambda o: set_value(o, "step", -1), {"step"}),
    "step over five": (lambda o: set_value(o, "step", 6), {"step"}),
    "no type": (lambda o: set_value(o, "type", OUTCOME_TYPE_UNSPECIFIED), {"type"}),
    "unknown type": (lambda o: set_value(o, "type", 999), {"type"}),
    "no time": (lambda o: o.ClearField("occur_time"), {"occur_time"}),
    "time in the future": (
        lambda o: o.occur_time.CopyFrom(stamp(NOW + DAY + timedelta(seconds=1))),
        {"occur_time"},
    ),
    "time in milliseconds": (
        lambda o: set_value(o.occur_time, "seconds", int(NOW.timestamp()) * 1000),
        {"occur_time"},
    ),
    "value of a send": (lambda o: o.value.CopyFrom(rubles(1)), {"value"}),
    "negative revenue": (
        in_turn(lambda o: set_value(o, "type", OUTCOME_TYPE_ORDER), lambda o: o.revenue.CopyFrom(rubles(-1))),
        {"revenue.micros"},
    ),
    "revenue of a click": (
        in_turn(lambda o: set_value(o, "type", OUTCOME_TYPE_CLICKED), lambda o: o.revenue.CopyFrom(rubles(1))),
        {"revenue"},
    ),
    "negative cost": (lambda o: o.actual_cost.CopyFrom(rubles(-1)), {"actual_cost.micros"}),
    "cost in another currency": (
        lambda o: o.actual_cost.CopyFrom(Money(micros=1, currency="USD")),
        {"actual_cost.currency"},
    ),
    "negative value": (
        in_turn(lambda o: set_value(o, "type", OUTCOME_TYPE_ORDER), lambda o: o.value.CopyFrom(rubles(-1))),
        {"value.micros"},
    ),
    "cost of an order": (
        in_turn(lambda o: set_value(o, "type", OUTCOME_TYPE_ORDER), lambda o: o.actual_cost.CopyFrom(rubles(1))),
        {"actual_cost"},
    ),
    "survey without scores": (lambda o: set_value(o, "type", OUTCOME_TYPE_SURVEY), {"survey"}),
    "scores off the scale": (
        in_turn(
            lambda o: set_value(o, "type", OUTCOME_TYPE_SURVEY),
            lambda o: set_value(o.survey, "csat", 6),
            lambda o: set_value(o.survey, "nps", 11),
        ),
        {"survey.csat", "survey.nps"},
    ),
    "customer without id": (lambda o: o.customer.SetInParent(), {"customer"}),
    "everything": (lambda o: o.Clear(), {"event_id", "decision_id", "type", "occur_time"}),
}


@pytest.mark.parametrize(("change", "fields"), OUTCOME_CHANGES.values(), ids=OUTCOME_CHANGES.keys())
def test_a_malformed_outcome_is_rejected_by_field(
    shared: Served, change: Callable[[Outcome], object], fields: set[str]
) -> None:
    """An outcome that cannot be stored is REJECTED with its violations."""
    wrong = Outcome()
    wrong.CopyFrom(GOOD_OUTCOME)
    change(wrong)

    (result,) = shared.report(wrong)

    assert result.status == OUTCOME_STATUS_REJECTED
    assert result.event_id == wrong.event_id
    assert (result.error.code, result.error.reason) == (3, "INVALID_FIELDS")
    assert {violation.field for violation in result.error.field_violations} == fields


def test_a_malformed_outcome_leaves_its_neighbours_alone(service: Served) -> None:
    """The others of the call are stored, and results keep the order of the call."""
    person = CustomerRef(customer_id="customer-1")
    good = [outcome(f"good-{n}", OUTCOME_TYPE_VISIT, customer=person) for n in range(2)]

    statuses = service.statuses(good[0], Outcome(event_id="bad"), good[1])

    assert statuses == ["ACCEPTED", "REJECTED", "ACCEPTED"]
    assert service.rows("SELECT event_id FROM outcomes ORDER BY event_id") == [("good-0",), ("good-1",)]


def known_customer() -> Customer:
    customer = Customer(customer=CustomerRef(customer_id="customer-1"))
    customer.consents.add(channel="push", state=CONSENT_STATE_GRANTED, evidence="form 1")
    customer.reachability.add(channel="push", state=REACHABILITY_REACHABLE)
    return customer


CUSTOMER_CHANGES: dict[str, tuple[Callable[[Customer], object], set[str]]] = {
    "nobody": (lambda c: c.ClearField("customer"), {"customer"}),
    "unknown zone": (lambda c: set_value(c.customer, "time_zone", "Nowhere"), {"customer.time_zone"}),
    "NaN feature": (lambda c: set_number(c.customer.features["x"], math.nan), {"customer.features['x'].number"}),
    "consent to an unknown channel": (
        lambda c: set_value(c.consents[0], "channel", "pigeon"),
        {"consents[0].channel"},
    ),
    "consent without state": (
        lambda c: set_value(c.consents[0], "state", CONSENT_STATE_UNSPECIFIED),
        {"consents[0].state"},
    ),
    "consent of an unknown state": (lambda c: set_value(c.consents[0], "state", 9), {"consents[0].state"}),
    "consent without evidence": (lambda c: c.consents[0].ClearField("evidence"), {"consents[0].evidence"}),
    "long evidence": (lambda c: set_text(c.consents[0], "evidence", 513), {"consents[0].evidence"}),
    "consent twice": (lambda c: c.consents.append(c.consents[0]), {"consents[1].channel"}),
    "consent off the calendar": (
        lambda c: set_value(c.consents[0].consent_time, "seconds", 1),
        {"consents[0].consent_time"},
    ),
    "consent in the future": (
        lambda c: c.consents[0].consent_time.CopyFrom(stamp(NOW + 2 * DAY)),
        {"consents[0].consent_time"},
    ),
    "reach of an unknown channel": (
        lambda c: set_value(c.reachability[0], "channel", ""),
        {"reachability[0].channel"},
    ),
    "reach without state": (lambda c: c.reachability[0].ClearField("state"), {"reachability[0].state"}),
    "reach of an unknown state": (lambda c: set_value(c.reachability[0], "state", 9), {"reachability[0].state"}),
    "reach twice": (lambda c: c.reachability.append(c.reachability[0]), {"reachability[1].channel"}),
}


@pytest.mark.parametrize(("change", "fields"), CUSTOMER_CHANGES.values(), ids=CUSTOMER_CHANGES.keys())
def test_a_malformed_customer_is_refused_by_field(
    shared: Served, change: Callable[[Customer], object], fields: set[str]
) -> None:
    """UpsertCustomers refuses one customer with its violations and stores nothing of it."""
    customer = known_customer()
    change(customer)

    answer = shared.customers.UpsertCustomers(UpsertCustomersRequest(customers=[customer]))

    (result,) = answer.results
    assert result.profile_id == ""
    assert (result.error.code, result.error.reason) == (3, "INVALID_FIELDS")
    assert {violation.field for violation in result.error.field_violations} == fields
    assert shared.rows("SELECT count(*) FROM customers") == [(0,)]


def test_the_unchanged_examples_are_good(service: Served) -> None:
    """What the tables above change is taken as it is, so that each refusal is of its change alone."""
    answer = service.customers.UpsertCustomers(UpsertCustomersRequest(customers=[known_customer()]))

    assert answer.results[0].profile_id
    assert service.statuses(GOOD_OUTCOME) == ["PARKED"]
    assert service.decide(choose_request()).decision_id
