"""Messages for one person decided together: who gets the places of caps, against brute force and by example."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import arbitrate
from models.arbitrate import EXACT_MESSAGES, Send, assign, assign_places, decide_together, solve_program
from models.bundle import Bundle
from models.context import Contact, Context, Mode, Reason, Verdict
from models.decide import Decision, decide
from models.eligibility import next_allowed_time
from models.record import choice_to_json, context_from_json, context_to_json, pack_actions
from models.rules import Cap, Category, Rules, TopicCap
from tests.unit.examples import DAY, HOUR, NOW, RUBLE, RULES, bundle_of, contact, with_channels, with_contacts
from tests.unit.strategies import CHANNELS, MINUTE, SLIPS, some_caps, some_contacts, with_slips

AWAKE = replace(RULES, quiet_hours=None)
CERTAIN = replace(AWAKE, policy=replace(RULES.policy, exploration_floor=1e-12, exploration_limit=1e-12))
"""Rules under which the best is served, but once in a million million draws."""
ONE_A_DAY = Cap(name="day", limit=1, window_hours=24)
BUNDLE = bundle_of({"push": 0.02, "email": 0.03, "in_app": 0.015, "viber": 0.05, "sms": 0.06})


def message_of(
    name: str,
    *,
    margin: int = 1_000,
    priority: int = 0,
    topic: str = "",
    category: Category = "marketing",
    lives: timedelta = DAY / 2,
    channels: Sequence[str] = ("push",),
) -> Context:
    """Return the context of a message that is worth more the sooner it is sent and, unless told, lives for half a day."""
    context = with_channels(*channels)
    message = replace(
        context.message,
        order_margin_micros=margin * RUBLE,
        priority=priority,
        topic=topic,
        category=category,
        expire_time=NOW + lives,
        relevance_half_life_seconds=6 * 3600,
    )
    return replace(context, decision_id=name, message=message, seed=7)


def capped(*caps: Cap, rules: Rules = CERTAIN) -> Rules:
    return replace(rules, caps=caps)


def sent(decisions: Sequence[Decision]) -> set[str]:
    """Return the names of the messages that are sent."""
    return {d.context.decision_id for d in decisions if d.choice.verdict is Verdict.SEND}


def written(decision: Decision) -> tuple[str, str, bytes | None]:
    return context_to_json(decision.context), choice_to_json(decision.choice), pack_actions(decision)


# --- the assignment ---------------------------------------------------------------------------------------------------------------


@st.composite
def some_offers(draw: st.DrawFn) -> list[list[Send]]:
    """The sends of up to four messages, at whole and odd moments, some of one topic."""
    offers = []
    for number in range(draw(st.integers(1, 4))):
        topic = draw(st.sampled_from(["", "cart", "other"]))
        one = st.builds(
            lambda minutes, channel, worth, name=f"new-{number}", about=topic: send_of(
                NOW + minutes * MINUTE, channel, worth, name, about
            ),
            st.sampled_from([0, 180, 360, 1_440, 1_455, 1_500]) | st.integers(0, 3_000),
            st.sampled_from(CHANNELS),
            st.floats(0.5, 1_000),
        )
        offers.append(draw(st.lists(one, max_size=4)))
    return offers


def send_of(start: datetime, channel: str, worth: float, name: str, topic: str = "") -> Send:
    """Return a send of a message through a channel, with the channel's slip."""
    slip = SLIPS[channel] * MINUTE
    offered = contact(start, channel=channel, slip=slip, topic=topic, decision_id=name)
    return Send(contact=offered, last=start + slip, worth=worth)


def are_allowed(chosen: Sequence[Send], contacts: Sequence[Contact], rules: Rules, priority: int) -> bool:
    """Tell whether eligibility allows each of these sends after all the others, each with the slip that its expiry left it."""
    for send in chosen:
        slip = (send.contact.end - send.contact.start) / MINUTE
        slipping = with_slips(rules, {**SLIPS, send.contact.channel: slip})
        others = [other.contact for other in chosen if other is not send]
        context = with_contacts(*contacts, *others)
        message = replace(context.message, topic=send.contact.topic, priority=priority)
        context = replace(context, decision_id=send.contact.decision_id, message=message)
        start = send.contact.start
        if next_allowed_time(context, slipping, send.contact.channel, start) != start:
            return False
    return True


def best_by_trying(offers: Sequence[Sequence[Send]], contacts: Sequence[Contact], rules: Rules, priority: int) -> float:
    """Return the greatest worth over every choice of at most one send of each message that eligibility allows."""
    best = 0.0
    for choice in product(*[(None, *of_message) for of_message in offers]):
        chosen = [send for send in choice if send is not None]
        worth = sum(send.worth for send in chosen)
        if worth > best and are_allowed(chosen, contacts, rules, priority):
            best = worth
    return best


@settings(deadline=None, max_examples=150)
@given(
    offers=some_offers(),
    contacts=some_contacts().map(lambda found: found[:3]),
    caps=some_caps(),
    topic_cap=st.none() | st.builds(TopicCap, limit=st.integers(1, 2), window_hours=st.sampled_from([6.0, 30.0])),
    kept_for=st.sampled_from([0, 0, 50]),
    priority=st.sampled_from([0, 50]),
)
def test_assignment_keeps_every_cap_and_is_worth_as_much_as_the_best_found_by_trying_all(
    offers: list[list[Send]],
    contacts: list[Contact],
    caps: tuple[Cap, ...],
    topic_cap: TopicCap | None,
    kept_for: int,
    priority: int,
) -> None:
    """What is assigned is allowed by eligibility, and no other choice that is allowed is worth more."""
    rules = replace(
        with_slips(AWAKE, SLIPS),
        caps=tuple(replace(cap, last_for_priority=kept_for) for cap in caps),
        topic_cap=topic_cap,
    )

    chosen = [send for send in assign(offers, rules, contacts, priority) if send is not None]

    assert are_allowed(chosen, contacts, rules, priority)
    best = best_by_trying(offers, contacts, rules, priority)
    assert sum(send.worth for send in chosen) == pytest.approx(best, rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_where_rows_share_no_send_both_solvers_agree(data: st.DataObject) -> None:
    """An assignment to places is worth what the integer program is."""
    n = data.draw(st.integers(2, 12))
    worth = np.array(data.draw(st.lists(st.floats(1, 100), min_size=n, max_size=n)))
    message = np.sort(np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))))
    of_row = np.array(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    masks = np.array([of_row == 1, of_row == 2])
    room = np.array(data.draw(st.lists(st.integers(0, 2), min_size=2, max_size=2)))

    places = assign_places(worth, message, masks, room)
    program = solve_program(worth, message, masks, room)

    assert worth[places].sum() == pytest.approx(worth[program].sum(), rel=1e-6)
    assert len(set(message[places])) == len(places)
    assert (masks[:, places].sum(axis=1) <= room).all()


def test_of_equally_good_messages_the_first_gets_the_place() -> None:
    """A tie goes by the order of the request."""
    offers = [[send_of(NOW, "push", 5.0, f"new-{number}")] for number in range(4)]

    chosen = assign(offers, replace(AWAKE, caps=(replace(ONE_A_DAY, limit=2),)), (), 0)

    assert [send is not None for send in chosen] == [True, True, False, False]


def test_a_great_many_messages_get_the_places_by_what_they_are_worth() -> None:
    """Beyond the exact size the worthiest come first, and caps still hold."""
    hours = [0, 1, 23, 24, 25, 47, 48]
    offers = [
        [send_of(NOW + hour * HOUR, "push", 100.0 + number - hour, f"new-{number}") for hour in hours]
        for number in range(EXACT_MESSAGES + 20)
    ]
    rules = replace(with_slips(AWAKE, SLIPS), caps=(ONE_A_DAY,))

    chosen = assign(offers, rules, (), 0)

    kept = [send for send in chosen if send is not None]
    assert chosen[-1] is not None
    assert chosen[-1].contact.start == NOW
    assert len(kept) == 2
    assert are_allowed(kept, (), rules, 0)


# --- decisions together -------------------------------------------------------------------------------------------------------------


def some_groups() -> st.SearchStrategy[list[Context]]:
    """Up to five messages of some priorities, categories and topics through some channels."""
    one = st.builds(
        lambda margin, priority, topic, category, lives, channels, seed: replace(
            message_of(
                "",
                margin=margin,
                priority=priority,
                topic=topic,
                category=category,
                lives=lives * HOUR,
                channels=sorted(channels),
            ),
            seed=seed,
        ),
        st.integers(0, 2_000),
        st.sampled_from([0, 0, 50]),
        st.sampled_from(["", "cart", "other"]),
        st.sampled_from(["marketing", "marketing", "marketing", "service", "transactional"]),
        st.integers(1, 60),
        st.sets(st.sampled_from(CHANNELS), min_size=1),
        st.integers(0, 2**40),
    )
    return st.lists(one, min_size=1, max_size=5).map(
        lambda found: [replace(context, decision_id=f"new-{number}") for number, context in enumerate(found)]
    )


@settings(deadline=None, max_examples=80)
@given(
    group=some_groups(),
    contacts=some_contacts().map(lambda found: found[:3]),
    caps=some_caps(),
    topic_cap=st.none() | st.just(TopicCap(limit=1, window_hours=6)),
    bundle=st.sampled_from([BUNDLE, None]),
)
def test_decisions_made_together_keep_every_cap_and_replay_alone(
    group: list[Context],
    contacts: list[Contact],
    caps: tuple[Cap, ...],
    topic_cap: TopicCap | None,
    bundle: Bundle | None,
) -> None:
    """Each decision is what its own context, read back from the log, gives again to the bit; no marketing send breaks a cap that holds before it."""
    rules = replace(with_slips(AWAKE, SLIPS), caps=caps, topic_cap=topic_cap)
    group = [with_contacts(*contacts, context=context) for context in group]

    decisions = decide_together(group, rules, bundle)

    assert [d.context.decision_id for d in decisions] == [context.decision_id for context in group]
    for decision in decisions:
        again = decide(context_from_json(context_to_json(decision.context)), rules, bundle)
        assert written(again) == written(decision)
        drawn = decision.choice.action
        if decision.distribution is not None and drawn is not None:
            index = decision.distribution.table.actions.index(drawn)
            assert decision.choice.propensity == decision.distribution.probabilities[index]
    booked = [c for decision in decisions for c in arbitrate._booking(decision)]
    chosen = [
        Send(contact=c, last=c.end, worth=1.0)
        for c in booked
        if next(d for d in decisions if d.context.decision_id == c.decision_id).context.message.category == "marketing"
    ]
    owed = [c for c in booked if c.category != "marketing"]
    assert are_allowed(chosen, [*contacts, *owed], rules, 0)


@settings(deadline=None, max_examples=60)
@given(group=some_groups(), caps=some_caps())
def test_messages_of_lower_priority_change_nothing_for_those_above(group: list[Context], caps: tuple[Cap, ...]) -> None:
    """What is decided of the highest priority is the same with and without the rest."""
    rules = replace(with_slips(AWAKE, SLIPS), caps=caps)
    above = [c for c in group if c.message.is_owed or c.message.priority == 50]

    together = {d.context.decision_id: written(d) for d in decide_together(group, rules, BUNDLE)}

    for decision in decide_together(above, rules, BUNDLE):
        assert together[decision.context.decision_id] == written(decision)


def test_one_message_is_decided_as_alone() -> None:
    """Together with nothing, a message is decided as `decide` does it."""
    context = message_of("cart", channels=CHANNELS)

    assert [written(d) for d in decide_together([context], AWAKE, BUNDLE)] == [written(decide(context, AWAKE, BUNDLE))]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_message_worth_most_gets_the_only_place_whatever_the_order(order: tuple[int, ...]) -> None:
    """Of three messages under a cap of one a day, the abandoned cart is sent, and the others say for whom the place is kept."""
    group = [message_of("newsletter", margin=300), message_of("cart"), message_of("survey", margin=100)]

    decisions = decide_together([group[place] for place in order], capped(ONE_A_DAY), BUNDLE)

    assert sent(decisions) == {"cart"}
    lost = next(d.choice for d in decisions if d.context.decision_id == "newsletter")
    suppressed = lost.suppressed[0]
    assert lost.verdict is Verdict.DO_NOT_SEND
    assert [s.reason for s in lost.suppressed] == [Reason.FREQUENCY_CAP, Reason.EXPIRES_FIRST]
    assert suppressed.detail == "cap day: 1 in 24 h, kept for decision cart"
    assert suppressed.retry_time == NOW + DAY + 15 * MINUTE


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_priority_goes_before_value(order: tuple[int, ...]) -> None:
    """A message of greater priority gets the place though it is worth less."""
    group = [message_of("newsletter", margin=300, priority=60), message_of("cart", priority=50)]

    assert sent(decide_together([group[i] for i in order], capped(ONE_A_DAY), BUNDLE)) == {"newsletter"}


def test_a_message_of_greater_priority_that_is_worth_nothing_leaves_the_place() -> None:
    """Priority is not an order to send: what does harm is not sent, and the place goes to the next."""
    feared = bundle_of({"push": 0.02, "email": 0.005})
    group = [message_of("newsletter", priority=60, channels=["email"]), message_of("cart", priority=50)]

    assert sent(decide_together(group, capped(ONE_A_DAY), feared)) == {"cart"}


def test_equals_make_room_for_each_other() -> None:
    """A message that can do nearly as well otherwise leaves the capped channel to one that cannot, and both are sent."""
    group = [message_of("cart", channels=["email", "push"]), message_of("newsletter", margin=900, channels=["email"])]
    cap = Cap(name="email", limit=1, window_hours=24, channel="email")

    decisions = decide_together(group, capped(cap), BUNDLE)

    assert [d.choice.action.channel for d in decisions if d.choice.action] == ["push", "email"]
    reserved = decisions[0].context.reserved
    assert [(c.decision_id, c.channel) for c in reserved] == [("newsletter", "email")]
    assert decisions[0].choice.suppressed[0].detail == "cap email: 1 in 24 h, kept for decision newsletter"


def test_a_message_that_loses_a_place_today_may_be_sent_when_the_window_has_moved_on() -> None:
    """What has no place now is planned for later where it lives long enough, at least a window after the first."""
    rules = replace(capped(ONE_A_DAY), timing=replace(RULES.timing, horizon_hours=60))
    group = [message_of("newsletter", margin=300, lives=3 * DAY), message_of("cart")]

    later, first = decide_together(group, rules, BUNDLE)

    assert first.choice.slot is not None
    assert later.choice.slot is not None
    assert first.choice.slot.start == NOW
    assert later.choice.slot.start >= first.choice.slot.end + DAY


def test_one_topic_is_told_once_by_the_better_message() -> None:
    """Of two messages of one topic the worthier is sent; one of another topic is sent beside it."""
    rules = replace(capped(), topic_cap=TopicCap(limit=1, window_hours=72))
    group = [
        message_of("sale-by-push", margin=500, topic="sale"),
        message_of("sale-by-email", topic="sale", channels=["email"]),
        message_of("cart", topic="cart"),
    ]

    decisions = decide_together(group, rules, BUNDLE)

    assert sent(decisions) == {"sale-by-email", "cart"}
    assert decisions[0].choice.suppressed[0].reason is Reason.TOPIC_CAP
    assert "kept for decision sale-by-email" in decisions[0].choice.suppressed[0].detail


@pytest.mark.parametrize("category", ["service", "transactional"])
def test_what_is_owed_is_never_displaced(category: Category) -> None:
    """A message that is owed is sent beside the marketing that has the only place."""
    group = [message_of("cart", priority=100), message_of("receipt", margin=0, category=category)]

    assert sent(decide_together(group, capped(ONE_A_DAY), BUNDLE)) == {"cart", "receipt"}


def test_without_a_bundle_the_greater_margin_gets_the_place() -> None:
    """Where values are not known, an order's margin stands in for them, and channels go by the order of the rules."""
    group = [
        message_of("newsletter", margin=300, channels=["email", "push"]),
        message_of("cart", channels=["email", "push"]),
    ]

    decisions = decide_together(group, capped(ONE_A_DAY), None)

    assert sent(decisions) == {"cart"}
    assert decisions[1].choice.action is not None
    assert decisions[1].choice.action.channel == "push"


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.DRY_RUN])
def test_what_does_not_count_takes_no_place(mode: Mode) -> None:
    """Messages that are not LIVE leave the cap to each other as they find it."""
    group = [replace(message_of(name), mode=mode) for name in ("a", "b")]

    assert sent(decide_together(group, capped(ONE_A_DAY), BUNDLE)) == {"a", "b"}


def test_a_place_that_the_winner_does_not_take_goes_to_the_next() -> None:
    """Where exploring draws no send for the cart, the newsletter is sent; the place is never taken twice."""
    rules = capped(ONE_A_DAY, rules=AWAKE)
    outcomes = Counter(
        frozenset(
            sent(
                decide_together(
                    [
                        replace(message_of("newsletter", margin=300), seed=1_000 + seed),
                        replace(message_of("cart"), seed=seed),
                    ],
                    rules,
                    BUNDLE,
                )
            )
        )
        for seed in range(400)
    )

    assert outcomes[frozenset({"cart"})] > 350
    assert 0 < outcomes[frozenset({"newsletter"})] < 40
    assert frozenset({"cart", "newsletter"}) not in outcomes


def test_what_is_left_is_planned_anew_where_a_place_of_a_cap_is_left() -> None:
    """Where the first draws another channel than planned, the next gets the capped one that this leaves."""
    cap = Cap(name="email", limit=1, window_hours=24, channel="email")
    rules = capped(
        cap, rules=replace(AWAKE, policy=replace(RULES.policy, exploration_floor=0.2, exploration_limit=0.9))
    )
    second_by_first: dict[str, set[str]] = {}
    for seed in range(60):
        first = replace(message_of("cart", channels=["email", "push"], lives=HOUR), seed=seed)
        second = message_of("newsletter", margin=900, channels=["email", "in_app"], lives=HOUR)
        decisions = decide_together([first, replace(second, seed=10_000 + seed)], rules, BUNDLE)
        channels = [d.choice.action.channel for d in decisions if d.choice.action]
        second_by_first.setdefault(channels[0], set()).add(channels[1])

    assert "email" not in second_by_first["email"]
    assert "email" in second_by_first["push"]


@pytest.mark.parametrize("action", ["the most probable", "no send"])
def test_served_actions_are_as_frequent_as_their_propensities(action: str) -> None:
    """Over 600 pairs, winner and loser serve an action as often as its propensities add up to, within four standard errors."""
    policy = replace(RULES.policy, exploration_floor=0.05, exploration_limit=0.5)
    rules = replace(AWAKE, policy=policy, timing=replace(RULES.timing, horizon_hours=48))
    excess, variance = Counter[str](), Counter[str]()
    for number in range(600):
        group = [
            replace(
                message_of(name, margin=margin, channels=["push", "email"], lives=44 * HOUR), seed=2 * number + place
            )
            for place, (name, margin) in enumerate([("newsletter", 300), ("cart", 1_000)])
        ]
        for decision in decide_together(group, capped(ONE_A_DAY, rules=rules), BUNDLE):
            if decision.distribution is not None and decision.choice.action is not None:
                name, probabilities = decision.context.decision_id, decision.distribution.probabilities
                index = int(probabilities.argmax()) if action == "the most probable" else 0
                is_served = decision.distribution.table.actions[index] == decision.choice.action
                excess[name] += is_served - probabilities[index]
                variance[name] += probabilities[index] * (1 - probabilities[index])

    assert min(variance["cart"], variance["newsletter"]) > 10
    assert abs(excess["cart"]) < 4 * np.sqrt(variance["cart"])
    assert abs(excess["newsletter"]) < 4 * np.sqrt(variance["newsletter"])


# --- the last place of a cap ---------------------------------------------------------------------------------------------------------


def test_the_last_place_of_a_cap_is_kept_for_its_priority() -> None:
    """A newsletter may have the first place of two, not the second, which a cart still gets."""
    kept = Cap(name="day", limit=2, window_hours=24, last_for_priority=50)
    rules = replace(capped(kept), timing=replace(RULES.timing, horizon_hours=6))
    context = with_contacts(contact(NOW - HOUR), context=message_of("newsletter", lives=2 * DAY))
    important = replace(context, message=replace(context.message, priority=50))

    refused = decide(context, rules, BUNDLE).choice

    assert refused.verdict is Verdict.DEFER
    assert refused.retry_time == NOW + 23 * HOUR
    assert refused.suppressed[0].reason is Reason.FREQUENCY_CAP
    assert refused.suppressed[0].detail == "cap day: 2 in 24 h, the last for messages of priority 50 or more"
    assert decide(important, rules, BUNDLE).choice.verdict is Verdict.SEND
    assert decide(message_of("newsletter"), rules, BUNDLE).choice.verdict is Verdict.SEND


def test_newsletters_in_a_batch_leave_the_last_place() -> None:
    """Of many newsletters under a cap of three with the last kept, two are sent; beside a cart, one, and the last stays free."""
    kept = Cap(name="day", limit=3, window_hours=24, last_for_priority=50)
    group = [message_of(f"newsletter-{number}", margin=300) for number in range(4)]

    assert len(sent(decide_together(group, capped(kept), BUNDLE))) == 2
    with_cart = sent(decide_together([*group, message_of("cart", priority=50)], capped(kept), BUNDLE))
    assert "cart" in with_cart
    assert len(with_cart) == 2
