"""ChooseChannel and GetDecision: verdicts, views, reasons, idempotency, and limits under concurrency."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import grpc
import pytest

from service.gen.channelchoice.v1.admin_service_pb2 import PauseChannelRequest
from service.gen.channelchoice.v1.channel_choice_service_pb2 import ChooseChannelRequest, ChooseChannelResponse
from service.gen.channelchoice.v1.customer_pb2 import (
    CONSENT_STATE_DENIED,
    IDENTITY_TYPE_PHONE,
    REACHABILITY_UNREACHABLE,
    CustomerRef,
)
from service.gen.channelchoice.v1.decision_pb2 import (
    DECISION_MODE_DRY_RUN,
    DECISION_MODE_LIVE,
    DECISION_MODE_SHADOW,
    DECISION_VIEW_BASIC,
    DEGRADED_CAUSE_NO_BUNDLE,
    VERDICT_DEFER,
    VERDICT_DO_NOT_SEND,
    VERDICT_HOLDOUT,
    VERDICT_SEND,
    Decision,
    SuppressionReason,
)
from service.gen.channelchoice.v1.message_pb2 import (
    FREE_FIRST_STRICT,
    MESSAGE_CATEGORY_SERVICE,
    MESSAGE_CATEGORY_TRANSACTIONAL,
)
from service.gen.channelchoice.v1.outcome_pb2 import OUTCOME_TYPE_ORDER
from tests.service.examples import (
    DAY,
    HOUR,
    MORNING,
    NIGHT,
    NOW,
    RULES,
    choose_request,
    identity,
    moment_of,
    outcome,
    rubles,
    stamp,
)
from tests.service.security import ADMIN, write_tokens
from tests.service.served import MovedClock, Served, read_refusal, refused, serve

pytestmark = pytest.mark.usefixtures("engine")

HELD_OUT = RULES + '\n[holdout]\nshare = 1.0\nsalt = "test"\n'


def reasons(decision: Decision) -> dict[str, set[str]]:
    """The reasons for which each channel was not eligible, without the prefix."""
    found: dict[str, set[str]] = {}
    for suppressed in decision.suppressed:
        name = SuppressionReason.Name(suppressed.reason).removeprefix("SUPPRESSION_REASON_")
        found.setdefault(suppressed.channel, set()).add(name)
    return found


def test_an_eligible_channel_is_sent_through_now_and_until_the_slip_ends(service: Served) -> None:
    """A SEND names a channel, when to send it, until when that holds, and what it costs."""
    decision = service.decide(choose_request())

    assert decision.verdict == VERDICT_SEND
    assert decision.channel == "push"
    assert moment_of(decision.send_time) == NOW
    assert moment_of(decision.send_window_end_time) == NOW + timedelta(minutes=15)
    assert decision.price == rubles(0)
    assert (decision.step, decision.request_id) == (1, "request-1")
    assert moment_of(decision.decide_time) == NOW


def test_without_a_bundle_the_rule_cascade_decides_and_says_so(service: Served) -> None:
    """No bundle is no error: the rule cascade decides with propensity 1, and `degraded` tells the cause."""
    decision = service.decide(choose_request())

    assert [degraded.cause for degraded in decision.degraded] == [DEGRADED_CAUSE_NO_BUNDLE]
    assert decision.versions.policy == "rule_cascade"
    assert decision.versions.bundle == ""
    assert decision.propensity == 1.0


def test_the_plan_escalates_from_free_to_paid_and_stops_on_an_order(service: Served) -> None:
    """The planned cascade tries each channel after the wait of the one before, the paid one last."""
    cascade = service.decide(choose_request()).cascade

    assert [step.channel for step in cascade.steps] == ["push", "email", "sms"]
    assert moment_of(cascade.steps[1].not_before_time) == NOW + 3 * HOUR
    assert moment_of(cascade.advance_time) == NOW + 3 * HOUR
    assert cascade.steps[2].price == rubles(5.30)


def test_basic_has_no_actions_and_no_explanation_and_is_else_as_full(service: Served) -> None:
    """BASIC leaves out actions and explanation and nothing else."""
    full = choose_request()
    basic = choose_request()
    basic.view = DECISION_VIEW_BASIC

    wide, narrow = service.decide(full), service.decide(basic)

    assert list(narrow.actions) == []
    assert not narrow.HasField("explanation")
    wide.ClearField("actions")
    wide.ClearField("explanation")
    assert narrow == wide


def test_full_explains_with_a_distribution_that_sums_to_one(service: Served) -> None:
    """FULL lists every eligible action with its propensity, and sentences for people."""
    decision = service.decide(choose_request())

    assert {action.channel for action in decision.actions} == {"push", "email", "sms"}
    assert sum(action.propensity for action in decision.actions) == pytest.approx(1.0)
    assert "push" in decision.explanation.sentences[0]


def test_get_decision_gives_what_was_answered_in_full(service: Served) -> None:
    """GetDecision answers the stored decision exactly as FULL answered it."""
    answered = service.decide(choose_request(channels=("in_app", "push", "email", "viber", "sms", "vk")))

    found = service.get(answered.decision_id)

    assert list(found.steps) == [answered]
    assert list(found.outcomes) == []


@pytest.mark.parametrize("decision_id", ["unknown", "x" * 128])
def test_an_unknown_decision_is_not_found(service: Served, decision_id: str) -> None:
    """GetDecision of a decision that is not stored answers NOT_FOUND with what was looked for."""
    with refused() as refusal:
        service.get(decision_id)

    assert refusal[0].code is grpc.StatusCode.NOT_FOUND
    assert refusal[0].reason == "NOT_FOUND"
    assert refusal[0].metadata == {"kind": "decision", "key": decision_id}


# --- idempotency


def test_the_same_request_gets_the_first_answer_again(service: Served) -> None:
    """A repeated request is answered as the first time, marked replayed, with one row in the log, however late."""
    first = service.choose(choose_request())
    service.clock.move(5 * HOUR)

    again = service.choose(choose_request())

    assert (first.replayed, again.replayed) == (False, True)
    assert again.decision == first.decision
    assert service.rows("SELECT count(*) FROM decisions") == [(1,)]
    assert service.rows("SELECT count(*) FROM contacts") == [(1,)]


def test_another_body_under_the_same_id_is_refused(service: Served) -> None:
    """A request_id that was used with another body answers ALREADY_EXISTS and names the id."""
    service.choose(choose_request())
    other = choose_request()
    other.message.order_margin.micros += 1

    with refused() as refusal:
        service.choose(other)

    assert refusal[0].code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal[0].reason == "ID_USED_WITH_ANOTHER_BODY"
    assert refusal[0].metadata == {"kind": "request_id", "key": "request-1"}


def test_another_customer_under_the_same_id_is_refused(service: Served) -> None:
    """The customer is part of the body: nobody is answered with another person's decision."""
    service.choose(choose_request(customer="customer-1"))

    with refused() as refusal:
        service.choose(choose_request(customer="customer-2"))

    assert refusal[0].code is grpc.StatusCode.ALREADY_EXISTS


def test_the_view_is_not_part_of_the_body(service: Served) -> None:
    """The same request may be asked again in another view."""
    basic = choose_request()
    basic.view = DECISION_VIEW_BASIC
    first = service.choose(basic)

    again = service.choose(choose_request())

    assert again.replayed
    assert again.decision.decision_id == first.decision.decision_id
    assert len(again.decision.actions) > 0


def test_maps_in_another_order_are_the_same_body(service: Served) -> None:
    """The order in which a client wrote its features does not make another body."""
    first, again = choose_request(), choose_request()
    for request, names in ((first, ("a", "b", "c")), (again, ("c", "b", "a"))):
        for name in names:
            request.features[name].number = 1

    assert service.decide(first) == service.decide(again)


def test_concurrent_duplicates_make_one_decision(service: Served) -> None:
    """Sixteen threads with one request get equal answers, of which one decided, and one row is kept."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(service.choose, [choose_request()] * 16))

    assert {answer.decision.SerializeToString(deterministic=True) for answer in answers} == {
        answers[0].decision.SerializeToString(deterministic=True)
    }
    assert sum(not answer.replayed for answer in answers) == 1
    assert service.rows("SELECT count(*) FROM decisions") == [(1,)]


def test_of_concurrent_requests_with_one_id_and_many_customers_one_wins(service: Served) -> None:
    """Where several customers' requests share an id by mistake, one is decided and all others are refused."""

    def ask(number: int) -> ChooseChannelResponse | grpc.StatusCode:
        try:
            return service.choose(choose_request(customer=f"customer-{number}"))
        except grpc.RpcError as error:
            return read_refusal(error).code

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))

    assert sum(isinstance(answer, ChooseChannelResponse) for answer in answers) == 1
    assert answers.count(grpc.StatusCode.ALREADY_EXISTS) == 15
    assert service.rows("SELECT count(*) FROM decisions") == [(1,)]


# --- modes


def test_a_dry_run_is_decided_and_not_kept(service: Served) -> None:
    """DRY_RUN answers a decision that is in no table and counts nowhere; nobody is made known by it."""
    request = choose_request()
    request.mode = DECISION_MODE_DRY_RUN

    decision = service.decide(request)

    assert decision.verdict == VERDICT_SEND
    assert not decision.trainable
    for table in ("decisions", "contacts", "customers", "identities"):
        assert service.rows(f"SELECT count(*) FROM {table}") == [(0,)]


def test_a_shadow_decision_is_kept_and_counts_in_no_cap(service: Served) -> None:
    """SHADOW is stored and marked, makes no contact and is not trained on."""
    request = choose_request()
    request.mode = DECISION_MODE_SHADOW

    decision = service.decide(request)

    assert (decision.mode, decision.trainable) == (DECISION_MODE_SHADOW, False)
    assert service.rows("SELECT mode, trainable FROM decisions") == [("shadow", 0)]
    assert service.rows("SELECT count(*) FROM contacts") == [(0,)]


def test_live_is_the_default(service: Served) -> None:
    """A request that says no mode is LIVE."""
    assert service.decide(choose_request()).mode == DECISION_MODE_LIVE


# --- reasons


def deny(request: ChooseChannelRequest) -> None:
    request.channels[0].consent = CONSENT_STATE_DENIED


def unreachable(request: ChooseChannelRequest) -> None:
    request.channels[0].reachability = REACHABILITY_UNREACHABLE


def too_long(request: ChooseChannelRequest) -> None:
    request.message.content.text = "x" * 179


def other_channels_only(request: ChooseChannelRequest) -> None:
    request.constraints.allowed_channels.append("email")


def denied_channel(request: ChooseChannelRequest) -> None:
    request.constraints.denied_channels.append("push")


def expired(request: ChooseChannelRequest) -> None:
    request.message.expire_time.CopyFrom(stamp(NOW))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (deny, "NO_CONSENT"),
        (unreachable, "UNREACHABLE"),
        (too_long, "CONTENT_UNFIT"),
        (other_channels_only, "NOT_ALLOWED"),
        (denied_channel, "NOT_ALLOWED"),
        (expired, "EXPIRES_FIRST"),
    ],
)
def test_a_channel_that_may_not_be_used_says_why(
    service: Served, change: Callable[[ChooseChannelRequest], None], reason: str
) -> None:
    """Each rule ends in OK with DO_NOT_SEND and its reason, never in an error."""
    request = choose_request(channels=["push"])
    change(request)

    decision = service.decide(request)

    assert decision.verdict == VERDICT_DO_NOT_SEND
    assert reasons(decision) == {"push": {reason}}
    assert decision.suppressed[0].detail


def test_every_reason_that_holds_is_said(service: Served) -> None:
    """A channel with several things against it lists each of them."""
    request = choose_request(channels=["push"])
    for change in (deny, unreachable, too_long, denied_channel):
        change(request)

    assert reasons(service.decide(request)) == {"push": {"NO_CONSENT", "UNREACHABLE", "CONTENT_UNFIT", "NOT_ALLOWED"}}


def test_consent_that_nobody_gave_is_the_rules_default(service: Served) -> None:
    """Where neither request nor profile speaks of consent, the rules file does."""
    request = choose_request(channels=["in_app", "push"])
    for option in request.channels:
        option.ClearField("consent")

    decision = service.decide(request)

    assert decision.channel == "in_app"
    assert reasons(decision) == {"push": {"NO_CONSENT"}}


def test_a_paid_channel_without_a_price_is_not_used(service: Served) -> None:
    """A channel whose price book begins later has NO_PRICE, unless the request brings a price."""
    priced = choose_request("priced", customer="other", channels=["vk"])
    priced.channels[0].price_override.CopyFrom(rubles(1))

    assert reasons(service.decide(choose_request(channels=["vk"]))) == {"vk": {"NO_PRICE"}}
    assert service.decide(priced).price == rubles(1)


def test_max_cost_closes_dearer_channels(service: Served) -> None:
    """A send that costs more than max_cost is suppressed; one that costs just that is not."""
    request = choose_request(channels=["viber", "sms"])
    request.constraints.max_cost.CopyFrom(rubles(4.10))

    decision = service.decide(request)

    assert decision.channel == "viber"
    assert reasons(decision) == {"sms": {"MAX_COST_EXCEEDED"}}


def test_strict_free_first_keeps_paid_channels_back(service: Served) -> None:
    """With free_first STRICT a paid channel waits while a free one is untried."""
    request = choose_request(channels=["push", "sms"])
    request.constraints.free_first = FREE_FIRST_STRICT

    decision = service.decide(request)

    assert decision.channel == "push"
    assert reasons(decision) == {"sms": {"FREE_CHANNEL_UNTRIED"}}


def test_a_picture_goes_through_channels_that_show_it(service: Served) -> None:
    """A message that needs a picture leaves out SMS."""
    request = choose_request(channels=["sms"])
    request.message.content.has_image = True

    assert reasons(service.decide(request)) == {"sms": {"CONTENT_UNFIT"}}


def test_content_of_a_channel_goes_over_the_messages(service: Served) -> None:
    """A text made for one channel is what that channel is judged and priced by."""
    request = choose_request(channels=["sms"])
    request.channels[0].content.text = "x" * 161

    assert service.decide(request).price == rubles(2 * 5.30)


def test_at_night_the_send_waits_for_the_morning(service: Served) -> None:
    """In quiet hours the send is planned for their end in the customer's zone."""
    service.clock.moment = NIGHT

    decision = service.decide(choose_request(channels=["push"]))

    assert decision.verdict == VERDICT_SEND
    assert moment_of(decision.send_time) == MORNING


def test_the_customers_zone_counts(service: Served) -> None:
    """The same instant is night for one customer and day for another."""
    service.clock.moment = NIGHT
    request = choose_request(channels=["push"])
    request.customer.time_zone = "America/New_York"

    assert moment_of(service.decide(request).send_time) == NIGHT


def test_a_message_that_expires_in_the_night_is_not_sent(service: Served) -> None:
    """Where quiet hours outlast the message both reasons are said, with the end of the night."""
    service.clock.moment = NIGHT
    request = choose_request(channels=["push"])
    request.message.expire_time.CopyFrom(stamp(NIGHT + HOUR))

    decision = service.decide(request)

    assert decision.verdict == VERDICT_DO_NOT_SEND
    assert reasons(decision) == {"push": {"QUIET_HOURS", "EXPIRES_FIRST"}}
    assert moment_of(decision.suppressed[0].retry_time) == MORNING


def test_a_send_never_slips_into_quiet_hours_or_past_expiry(service: Served) -> None:
    """The window in which a send may slip ends where the night begins, and at expiry."""
    service.clock.moment = datetime.fromisoformat("2026-11-04T18:25:00+00:00")
    first = service.decide(choose_request("evening", channels=["push"]))
    service.clock.moment = NOW + DAY
    request = choose_request("short", channels=["push"])
    request.message.expire_time.CopyFrom(stamp(NOW + DAY + timedelta(minutes=7)))
    second = service.decide(request)

    assert moment_of(first.send_window_end_time) == datetime.fromisoformat("2026-11-04T18:30:00+00:00")
    assert moment_of(second.send_window_end_time) == NOW + DAY + timedelta(minutes=7)


def test_a_transactional_message_is_sent_at_night_and_over_the_cap(service: Served) -> None:
    """Quiet hours and caps are for marketing; consent is for all."""
    for number in range(3):
        service.decide(choose_request(f"marketing-{number}", channels=["push"]))
    service.clock.moment = NIGHT
    request = choose_request("receipt", channels=["push"])
    request.message.category = MESSAGE_CATEGORY_TRANSACTIONAL
    refused_request = choose_request("receipt-2", channels=["push"])
    refused_request.message.category = MESSAGE_CATEGORY_TRANSACTIONAL
    deny(refused_request)

    assert moment_of(service.decide(request).send_time) == NIGHT
    assert reasons(service.decide(refused_request)) == {"push": {"NO_CONSENT"}}


def test_a_service_message_waits_for_the_morning_and_passes_the_cap(service: Served) -> None:
    """SERVICE keeps quiet hours; marketing caps do not bind it."""
    for number in range(3):
        service.decide(choose_request(f"marketing-{number}", channels=["push"]))
    service.clock.moment = NIGHT
    request = choose_request("renewal", channels=["push"])
    request.message.category = MESSAGE_CATEGORY_SERVICE

    assert moment_of(service.decide(request).send_time) == MORNING


def test_the_frequency_cap_closes_and_opens_again(service: Served) -> None:
    """After three messages in a day the fourth waits until a day after the first has surely been sent."""
    for number in range(3):
        service.decide(choose_request(f"request-{number}", channels=["in_app"]))
    request = choose_request("fourth", channels=["in_app"])
    request.message.expire_time.CopyFrom(stamp(NOW + 12 * HOUR))

    closed = service.decide(request)
    service.clock.move(DAY + timedelta(minutes=15))
    opened = service.decide(choose_request("fifth", channels=["in_app"]))

    assert closed.verdict == VERDICT_DO_NOT_SEND
    assert reasons(closed) == {"in_app": {"FREQUENCY_CAP", "EXPIRES_FIRST"}}
    assert moment_of(closed.suppressed[0].retry_time) == NOW + DAY + timedelta(minutes=15)
    assert moment_of(opened.send_time) == service.clock.now()


def test_a_cap_beyond_the_horizon_defers(service: Served) -> None:
    """Where a cap frees a channel before expiry, but not today, the verdict is DEFER with that moment."""
    service.decide(choose_request("first", channels=["sms"]))
    request = choose_request("second", channels=["sms"])
    request.message.expire_time.CopyFrom(stamp(NOW + 14 * DAY))

    decision = service.decide(request)

    assert decision.verdict == VERDICT_DEFER
    assert reasons(decision) == {"sms": {"FREQUENCY_CAP"}}
    assert moment_of(decision.retry_time) == NOW + 7 * DAY + timedelta(minutes=15)


def test_a_cap_holds_over_a_window_longer_than_two_months(tmp_path: Path) -> None:
    """A cap of one message in ninety days still counts what was sent seventy days ago."""
    rules = RULES + '\n[[caps]]\nname = "quarter"\nchannel = "viber"\nlimit = 1\nwindow_hours = 2160\n'
    with serve(tmp_path, rules) as service:
        service.decide(choose_request("first", channels=["viber"]))
        service.clock.move(70 * DAY)

        decision = service.decide(choose_request("second", channels=["viber"]))

    assert "FREQUENCY_CAP" in reasons(decision)["viber"]


def test_a_topic_is_not_told_twice(service: Served) -> None:
    """The same topic within its window is suppressed on every channel, another topic is not."""
    service.decide(choose_request("first", channels=["push", "email"], topic="cart"))

    same = service.decide(choose_request("second", channels=["push", "email"], topic="cart"))
    other = service.decide(choose_request("third", channels=["push", "email"], topic="sale"))

    assert {name for found in reasons(same).values() for name in found} == {"TOPIC_CAP", "EXPIRES_FIRST"}
    assert other.verdict == VERDICT_SEND


def test_a_held_out_customer_gets_no_marketing_and_their_receipts(tmp_path: Path) -> None:
    """In the holdout marketing ends in HOLDOUT and is trained on; what the customer awaits is sent."""
    receipt = choose_request("receipt")
    receipt.message.category = MESSAGE_CATEGORY_TRANSACTIONAL
    with serve(tmp_path, HELD_OUT) as service:
        marketing = service.decide(choose_request("marketing"))
        transactional = service.decide(receipt)

    assert (marketing.verdict, marketing.trainable) == (VERDICT_HOLDOUT, True)
    assert not marketing.channel
    assert transactional.verdict == VERDICT_SEND


def test_a_paused_channel_is_left_out(tmp_path: Path) -> None:
    """A channel that an operator paused is suppressed with CHANNEL_PAUSED."""
    with serve(tmp_path, tokens_file=write_tokens(tmp_path)) as service:
        service.admin.PauseChannel(PauseChannelRequest(channel="push", reason="provider is down"), metadata=ADMIN)

        decision = service.decisions.ChooseChannel(choose_request(channels=["push"]), metadata=ADMIN).decision

    assert reasons(decision) == {"push": {"CHANNEL_PAUSED"}}


# --- one person, many identities


def test_history_follows_a_merged_person(service: Served) -> None:
    """Two identities with messages of their own, then seen together, count as one person in caps."""
    service.decide(choose_request("one", customer="a", channels=["in_app"]))
    service.decide(choose_request("two", customer="", identities=[identity("mail")], channels=["in_app"]))
    service.decide(choose_request("three", customer="", identities=[identity("mail")], channels=["in_app"]))

    merged = service.decide(choose_request("four", customer="a", identities=[identity("mail")], channels=["in_app"]))
    later = service.decide(choose_request("five", customer="a", channels=["in_app"]))

    assert reasons(merged) == reasons(later) == {"in_app": {"FREQUENCY_CAP"}}
    assert moment_of(merged.retry_time) == NOW + DAY + timedelta(minutes=15)
    assert service.rows("SELECT count(*) FROM customers") == [(1,)]
    assert service.rows("SELECT count(DISTINCT customer_key) FROM decisions") == [(1,)]


def test_equal_values_of_different_types_are_different_identities(service: Served) -> None:
    """A phone and an e-mail that happen to be spelled alike do not make one person."""
    service.decide(choose_request("one", customer="", identities=[identity("same")]))
    service.decide(choose_request("two", customer="", identities=[identity("same", IDENTITY_TYPE_PHONE)]))
    service.decide(choose_request("three", customer="same"))

    assert service.rows("SELECT count(*) FROM customers") == [(3,)]


def test_a_merge_keeps_the_person_known_longest(service: Served) -> None:
    """The older profile lives on, so that its holdout and experiments do; the younger one's knowledge is added."""
    first = service.decide(choose_request("one", customer="old"))
    service.clock.move(HOUR)
    service.decide(choose_request("two", customer="young"))
    (key,) = service.rows("SELECT customer_key FROM decisions WHERE decision_id = ?", first.decision_id)[0]

    service.decide(choose_request("three", customer="young", identities=[identity("x")]))
    service.decide(choose_request("four", customer="old", identities=[identity("x")]))

    assert service.rows("SELECT DISTINCT customer_key FROM decisions") == [(key,)]
    assert service.rows("SELECT count(*) FROM identities WHERE customer_key = ?", key) == [(3,)]


def test_an_order_of_one_identity_stops_the_cascade_of_the_merged_person(service: Served) -> None:
    """An order known under an identity that is merged later counts for the merged person."""
    decision = service.decide(choose_request(customer="a"))
    service.report(outcome("order", OUTCOME_TYPE_ORDER, occur_time=NOW + HOUR, customer=CustomerRef(customer_id="b")))
    service.decide(choose_request("merging", customer="a", identities=[identity("m")]))
    service.decide(choose_request("merging-2", customer="b", identities=[identity("m")]))
    service.clock.move(4 * HOUR)

    assert service.advance(decision.decision_id, 1).verdict == VERDICT_DO_NOT_SEND


def test_the_cap_holds_over_concurrent_requests_for_one_customer(service: Served) -> None:
    """Of twelve requests at once for one person under four identities, no more than three are sent in any day."""
    people = [[identity(f"person-{person}-{number}") for number in range(4)] for person in range(10)]
    for identities in people:
        joining = choose_request(f"join-{identities[0].value}", customer="", identities=identities)
        joining.message.category = MESSAGE_CATEGORY_TRANSACTIONAL
        service.decide(joining)

    with ThreadPoolExecutor(12) as pool:
        for identities in people:
            requests = [
                choose_request(
                    f"{identities[0].value}-{number}",
                    customer="",
                    identities=[identities[number % 4]],
                    channels=["in_app", "push", "email", "viber"],
                )
                for number in range(12)
            ]
            decisions = list(pool.map(service.decide, requests))
            sent = [
                (moment_of(d.send_time), moment_of(d.send_window_end_time))
                for d in decisions
                if d.verdict == VERDICT_SEND
            ]
            assert len(sent) >= 3
            for _, end in sent:
                held = [other for other in sent if other[0] < end + DAY and other[1] >= end]
                assert len(held) <= 3


def test_the_cap_holds_while_identities_merge(service: Served) -> None:
    """People who become one while they are messaged get three messages in all from then on."""
    keys = [f"id-{number}" for number in range(8)]

    def ask(number: int) -> Decision:
        pair = [identity(keys[number % 8]), identity(keys[(number * 3 + 1) % 8])]
        return service.decide(choose_request(f"request-{number}", customer="", identities=pair, channels=["in_app"]))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(48)))
    everyone = choose_request("everyone", customer="", identities=[identity(key) for key in keys], channels=["in_app"])
    everyone.message.expire_time.CopyFrom(stamp(NOW + HOUR))
    decision = service.decide(everyone)

    assert decision.verdict == VERDICT_DO_NOT_SEND
    assert "FREQUENCY_CAP" in reasons(decision)["in_app"]
    assert service.rows("SELECT count(*) FROM customers") == [(1,)]
    assert service.rows("SELECT count(DISTINCT customer_key) FROM contacts") == [(1,)]


def test_nobody_is_sent_to_at_night_whatever_the_load(tmp_path: Path) -> None:
    """Of many concurrent requests from all zones in the small hours, no SEND lies in the customer's quiet hours."""
    zones = ["Europe/Moscow", "Asia/Vladivostok", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"]
    with serve(tmp_path, clock=MovedClock(NIGHT)) as service:

        def ask(number: int) -> tuple[str, Decision]:
            request = choose_request(f"request-{number}", customer=f"customer-{number}", channels=["push", "email"])
            request.customer.time_zone = zones[number % len(zones)]
            return request.customer.time_zone, service.decide(request)

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, range(60)))

    for zone, decision in answers:
        local = moment_of(decision.send_time).astimezone(ZoneInfo(zone))
        assert 9 <= local.hour + local.minute / 60 < 21.5, f"{zone} {local}"
        assert moment_of(decision.send_window_end_time) > moment_of(decision.send_time)
