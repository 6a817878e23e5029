"""BatchChooseChannel: one person's messages are decided together, whatever their order, identities, modes and replays."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

import pytest

from service.gen.channelchoice.v1.channel_choice_service_pb2 import (
    BatchChooseChannelRequest,
    ChooseChannelRequest,
    ChooseChannelResult,
)
from service.gen.channelchoice.v1.decision_pb2 import (
    DECISION_MODE_DRY_RUN,
    DECISION_MODE_SHADOW,
    VERDICT_DO_NOT_SEND,
    VERDICT_SEND,
    DecisionMode,
)
from service.gen.channelchoice.v1.message_pb2 import MESSAGE_CATEGORY_SERVICE, MESSAGE_CATEGORY_TRANSACTIONAL
from tests.service.examples import DAY, HOUR, NOW, RULES, choose_request, identity, moment_of, rubles, stamp
from tests.service.served import Served, serve
from tests.service.test_admin import make_bundle
from tests.service.test_choose import reasons

pytestmark = pytest.mark.usefixtures("engine")

ONE_A_DAY = RULES.replace("limit = 3", "limit = 1")
ONE_PUSH = RULES + '\n[[caps]]\nname = "push-day"\nchannel = "push"\nlimit = 1\nwindow_hours = 24\n'


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Served]:
    """A service that sends one marketing message a day, without a bundle."""
    with serve(tmp_path, ONE_A_DAY) as served:
        yield served


def message(
    name: str,
    margin: float = 900,
    *,
    customer: str = "customer-1",
    channels: Iterable[str] = ("push", "email"),
    topic: str = "",
    priority: int = 0,
) -> ChooseChannelRequest:
    """A message that expires in half a day."""
    request = choose_request(name, customer=customer, channels=channels, topic=topic)
    request.message.order_margin.CopyFrom(rubles(margin))
    request.message.priority = priority
    request.message.expire_time.CopyFrom(stamp(NOW + DAY / 2))
    return request


def choose_all(service: Served, *requests: ChooseChannelRequest) -> Sequence[ChooseChannelResult]:
    return service.decisions.BatchChooseChannel(BatchChooseChannelRequest(requests=requests)).results


def sent(results: Iterable[ChooseChannelResult]) -> set[str]:
    """The ids of the requests whose answer is SEND."""
    return {result.request_id for result in results if result.decision.verdict == VERDICT_SEND}


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_message_worth_most_is_sent_and_answers_keep_their_order(strict: Served, order: tuple[int, ...]) -> None:
    """With one message a day, the cart is sent however the batch is ordered, and each answer is in its request's place."""
    group = [message("newsletter", 50), message("cart", 900), message("survey", 10)]
    asked = [group[place] for place in order]

    results = choose_all(strict, *asked)

    assert [result.request_id for result in results] == [request.request_id for request in asked]
    assert [result.decision.request_id for result in results] == [request.request_id for request in asked]
    assert sent(results) == {"cart"}


def test_a_message_that_loses_says_for_which_decision_the_cap_is_kept(strict: Served) -> None:
    """The loser's channels are FREQUENCY_CAP, with the winner's decision and a retry_time; it may not be asked for before it expires."""
    newsletter, cart = (result.decision for result in choose_all(strict, message("newsletter", 50), message("cart")))

    assert newsletter.verdict == VERDICT_DO_NOT_SEND
    assert reasons(newsletter)["push"] == {"FREQUENCY_CAP", "EXPIRES_FIRST"}
    assert newsletter.suppressed[0].detail == f"cap day: 1 in 24 h, kept for decision {cart.decision_id}"
    assert moment_of(newsletter.suppressed[0].retry_time) == moment_of(cart.send_window_end_time) + DAY


def test_priority_goes_before_value(strict: Served) -> None:
    """The message of greater priority is sent though the other earns more."""
    results = choose_all(strict, message("cart", 900, priority=10), message("recall", 50, priority=20))

    assert sent(results) == {"recall"}


@pytest.mark.parametrize("category", [MESSAGE_CATEGORY_SERVICE, MESSAGE_CATEGORY_TRANSACTIONAL])
def test_what_is_owed_is_sent_beside_the_best_marketing(strict: Served, category: int) -> None:
    """A receipt is sent and takes no marketing place."""
    receipt = message("receipt", 0)
    receipt.message.category = category  # type: ignore[assignment]  # parametrised

    results = choose_all(strict, message("newsletter", 50), receipt, message("cart", priority=100))

    assert sent(results) == {"receipt", "cart"}


def test_one_topic_is_told_once_by_the_better_offer(service: Served) -> None:
    """Of two offers of one topic the one worth more is sent, and the other topic's beside it."""
    results = choose_all(
        service,
        message("ten-percent", 300, topic="sale"),
        message("twenty-percent", 600, topic="sale"),
        message("cart"),
    )

    assert sent(results) == {"twenty-percent", "cart"}
    assert "TOPIC_CAP" in reasons(results[0].decision)["push"]


def test_messages_to_several_identities_of_one_known_person_compete(strict: Served) -> None:
    """Two requests that share no identity are decided together where the service knows that they are of one person."""
    joining = choose_request("join", customer="a", identities=[identity("a@example.com")])
    joining.message.category = MESSAGE_CATEGORY_TRANSACTIONAL
    strict.decide(joining)
    by_email = message("newsletter", 50, customer="")
    by_email.customer.identities.append(identity("a@example.com"))

    assert sent(choose_all(strict, by_email, message("cart", customer="a"))) == {"cart"}


def test_a_batch_that_says_that_two_are_one_decides_them_together(strict: Served) -> None:
    """Identities that a request of the batch joins are one person for the whole batch, and stored as one."""
    joining = message("survey", 10, customer="a")
    joining.customer.identities.append(identity("a@example.com"))
    by_email = message("newsletter", 50, customer="")
    by_email.customer.identities.append(identity("a@example.com"))

    results = choose_all(strict, by_email, message("cart", customer="a"), joining, message("other", 20, customer="b"))

    assert sent(results) == {"cart", "other"}
    assert strict.rows("SELECT count(*) FROM customers") == [(2,)]
    assert strict.rows("SELECT count(*) FROM identities") == [(3,)]


def test_people_known_apart_whom_a_batch_joins_are_merged_and_share_a_cap(strict: Served) -> None:
    """A person whose cap is full shares it with the other they turn out to be."""
    strict.decide(message("earlier", customer="a"))
    strict.clock.move(HOUR)
    joining = message("survey", 10, customer="b")
    joining.customer.identities.append(identity("b@example.com"))
    strict.decide(joining)
    both = message("both", 10, customer="a")
    both.customer.identities.append(identity("b@example.com"))

    results = choose_all(strict, message("cart", customer="b"), both)

    assert sent(results) == set()
    assert strict.rows("SELECT count(*) FROM customers") == [(1,)]


def test_an_item_decided_before_keeps_its_answer_and_its_place(strict: Served) -> None:
    """A newsletter that was sent alone is replayed in a batch, and counts against the cart; repeated, the batch is replayed."""
    alone = strict.decide(message("newsletter", 50))

    first = choose_all(strict, message("cart"), message("newsletter", 50))
    again = choose_all(strict, message("newsletter", 50), message("cart"))

    assert [result.replayed for result in first] == [False, True]
    assert first[1].decision == alone
    assert sent(first) == {"newsletter"}
    assert alone.decision_id in first[0].decision.suppressed[0].detail
    assert [result.decision for result in again] == [first[1].decision, first[0].decision]
    assert all(result.replayed for result in again)
    assert strict.rows("SELECT count(*) FROM decisions") == [(2,)]


def test_an_item_that_is_refused_leaves_the_others_decided(strict: Served) -> None:
    """An id used with another body is that item's error alone."""
    strict.decide(message("used", 50, customer="somebody"))

    results = choose_all(strict, message("used", 70), message("newsletter", 50), message("cart"))

    assert results[0].error.reason == "ID_USED_WITH_ANOTHER_BODY"
    assert sent(results) == {"cart"}


@pytest.mark.parametrize("mode", [DECISION_MODE_SHADOW, DECISION_MODE_DRY_RUN])
def test_only_live_messages_compete(strict: Served, mode: "DecisionMode.ValueType") -> None:
    """A message that is not LIVE takes no place from one that is, and finds the place taken."""
    tried = message("cart", 900, priority=50)
    tried.mode = mode

    results = choose_all(strict, tried, message("newsletter", 50))

    assert sent(results) == {"newsletter"}
    assert results[1].decision.decision_id in results[0].decision.suppressed[0].detail


def test_equals_make_room_for_each_other_and_are_read_back_as_answered(tmp_path: Path) -> None:
    """A message leaves the capped channel to one that has no other; its log row says what it made room for, the next step's does not."""
    with serve(tmp_path, ONE_PUSH) as service:
        asked = message("cart", channels=["push", "email", "sms"])
        asked.message.expire_time.CopyFrom(stamp(NOW + 2 * DAY))
        results = choose_all(service, asked, message("newsletter", 800, channels=["push"]))
        cart, newsletter = (result.decision for result in results)
        stored = [list(service.get(decision.decision_id).steps) for decision in (cart, newsletter)]
        service.clock.move(13 * HOUR)
        service.advance(cart.decision_id, 1)
        rows = service.rows("SELECT step, context FROM decisions WHERE decision_id = ? ORDER BY step", cart.decision_id)

    assert (cart.channel, newsletter.channel) == ("email", "push")
    assert stored == [[cart], [newsletter]]
    first, second = (json.loads(context) for _, context in rows)
    assert [kept["decision_id"] for kept in first["reserved"]] == [newsletter.decision_id]
    assert "reserved" not in second


def test_the_last_place_of_a_cap_waits_for_an_important_message(tmp_path: Path) -> None:
    """Asked one by one, newsletters leave the last of three places, which a later cart gets."""
    rules = RULES.replace("limit = 3", "limit = 3\nlast_for_priority = 50")
    with serve(tmp_path, rules) as service:
        newsletters = [service.decide(message(f"newsletter-{number}", 50)) for number in range(3)]
        cart = service.decide(message("cart", 900, priority=50))

    assert [decision.verdict == VERDICT_SEND for decision in newsletters] == [True, True, False]
    assert "the last for messages of priority 50 or more" in newsletters[2].suppressed[0].detail
    assert cart.verdict == VERDICT_SEND


def test_with_a_bundle_value_decides_and_propensities_are_exact(tmp_path: Path) -> None:
    """Over 200 customers with a cart and a newsletter for one SMS a week: never two, and no send as often as its propensity says."""
    bundle = make_bundle(tmp_path / "bundle", 0.6)
    rules = RULES + "\n[policy]\nexploration_floor = 0.2\nexploration_limit = 0.6\n"
    requests = [
        message(f"{kind}-{number}", margin, customer=f"customer-{number}", channels=["sms"])
        for number in range(200)
        for kind, margin in (("newsletter", 300), ("cart", 900))
    ]
    with serve(tmp_path, rules, bundle=str(bundle)) as service:
        results = choose_all(service, *requests)

    pairs = list(zip(results[::2], results[1::2], strict=True))
    assert all(len(sent(pair)) <= 1 for pair in pairs)
    assert sum(len(sent(pair)) for pair in pairs) > 100
    for which in (0, 1):
        drawn = [pair[which].decision for pair in pairs if pair[which].decision.actions]
        none = [next(a.propensity for a in decision.actions if a.channel == "") for decision in drawn]
        excess = sum(decision.verdict != VERDICT_SEND for decision in drawn) - sum(none)
        assert len(drawn) > 15
        assert abs(excess) < 4 * math.sqrt(sum(p * (1 - p) for p in none))
    assert {len(pair[0].decision.actions) > 0 for pair in pairs if pair[1].decision.verdict == VERDICT_SEND} == {False}


def test_concurrent_batches_for_one_person_keep_the_cap(service: Served) -> None:
    """Eight batches of four messages at once for one person: three are sent in all."""
    batches = [[message(f"{batch}-{number}", 100 + number) for number in range(4)] for batch in range(8)]

    with ThreadPoolExecutor(8) as pool:
        answered = list(pool.map(lambda batch: choose_all(service, *batch), batches))

    assert sum(len(sent(results)) for results in answered) == 3
    assert service.rows("SELECT count(*) FROM contacts") == [(3,)]
