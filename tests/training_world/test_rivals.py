"""The bandit libraries as policies: they learn, repeat themselves, and are told the truth."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from mabwiser.mab import LearningPolicy

from models.context import Context
from models.eligibility import find_eligible
from models.features import Action
from models.local_time import zone
from tests.training_world.worlds import small_world
from training.simulate import WINDOW
from training.world.mabwiser_rivals import MabWiser
from training.world.policies import Uniform
from training.world.protocol import Outcome, OutcomeType, Reply
from training.world.rivals import (
    NOTHING,
    Clicks,
    Encoding,
    Learner,
    Ledger,
    Offer,
    Pending,
    Rival,
    clicks_of_log,
    find_offers,
    lessons_of_log,
)
from training.world.scenarios import world_rules
from training.world.vowpal import VowpalWabbit

RULES = world_rules()
PLANTED = {"loyal": "email", "active": "in_app"}
"""What the planted world buys on: customers of a stage, through one channel each."""
LEARNERS: dict[str, Callable[[], Learner]] = {
    "squarecb": lambda: VowpalWabbit("squarecb", "--squarecb --gamma_scale 100 --cb_type mtr"),
    "regcb": lambda: VowpalWabbit(
        "regcb", "--regcb --mellowness 0.001 --cb_min_cost -10 --cb_max_cost 1 --cb_type mtr"
    ),
    "bag": lambda: VowpalWabbit("bag", "--bag 5 --cb_type mtr"),
    "epsilon": lambda: VowpalWabbit("epsilon", "--epsilon 0.1 --cb_type mtr"),
    "LinUCB": lambda: MabWiser("LinUCB", LearningPolicy.LinUCB(alpha=0.3, l2_lambda=1.0), parts=1),
    "LinTS": lambda: MabWiser("LinTS", LearningPolicy.LinTS(alpha=0.1, l2_lambda=1.0), parts=1),
}


@pytest.fixture(scope="module")
def contexts() -> Sequence[Context]:
    """Contexts of those messages that may go through either planted channel, in order of time."""
    world = small_world(1600, seed=3)
    found = [world.context(index) for index in range(len(world.messages))]
    wanted = set(PLANTED.values())
    return [
        c
        for c in found
        if c.message.journey_stage in PLANTED and wanted <= {e.channel for e in find_eligible(c, RULES).eligible}
    ]


def outcome(context: Context, kind: OutcomeType, value: int | None = None) -> Outcome:
    return Outcome(
        event_id=f"{context.decision_id}-{kind}",
        decision_id=context.decision_id,
        step=context.step,
        type=kind,
        occur_time=context.decide_time + timedelta(hours=1),
        customer_id=context.customer.key,
        value_micros=value,
    )


def live(rival: Rival, contexts: Sequence[Context]) -> list[Reply]:
    """Let a rival decide; whoever is asked through the planted channel buys, and nobody else."""
    replies = []
    for context in contexts:
        reply = rival.decide(context)
        replies.append(reply)
        if reply.action.channel == PLANTED[context.message.journey_stage]:
            rival.observe(outcome(context, "clicked"))
            rival.observe(outcome(context, "order", context.message.order_margin_micros))
    return replies


@pytest.mark.parametrize("name", LEARNERS)
def test_a_rival_learns_what_is_planted(name: str, contexts: Sequence[Context]) -> None:
    """Of the last 100 decisions, more than half find the one channel of several that sells to this customer."""
    replies = live(Rival(LEARNERS[name](), RULES), contexts)

    late = list(zip(contexts, replies, strict=True))[-100:]
    hits = sum(reply.action.channel == PLANTED[context.message.journey_stage] for context, reply in late)
    assert hits > 50, hits


@pytest.mark.parametrize("name", LEARNERS)
def test_a_rival_repeats_itself(name: str, contexts: Sequence[Context]) -> None:
    """Two of the same kind that see the same decide the same, with the same propensities."""
    first = live(Rival(LEARNERS[name](), RULES), contexts[:150])

    assert live(Rival(LEARNERS[name](), RULES), contexts[:150]) == first


@pytest.mark.parametrize("name", LEARNERS)
def test_propensities_sum_to_one(name: str, contexts: Sequence[Context]) -> None:
    """The chances of a decision's offers sum to 1 before and after learning, none is negative, and what is chosen has one."""
    learner = LEARNERS[name]()
    rival = Rival(learner, RULES)

    def check(some: Sequence[Context]) -> None:
        for context in some:
            chances = learner.propensities(context, find_offers(context, RULES, "now"))
            assert chances.min() >= 0
            assert chances.sum() == pytest.approx(1)

    check(contexts[:20])
    replies = live(rival, contexts[:150])
    check(contexts[150:200])
    assert all(0 < reply.propensity <= 1 for reply in replies)


@pytest.mark.parametrize("name", ["squarecb", "epsilon"])
def test_explorers_give_every_offer_a_chance(name: str, contexts: Sequence[Context]) -> None:
    """SquareCB and epsilon-greedy never rule an offer out."""
    learner = LEARNERS[name]()
    live(Rival(learner, RULES), contexts[:150])

    for context in contexts[150:200]:
        assert learner.propensities(context, find_offers(context, RULES, "now")).min() > 0


def test_offers_are_eligible_and_in_daytime(contexts: Sequence[Context]) -> None:
    """Each offer is a slot of an eligible channel; by day it is between 10 and 19 local where the channel has such a slot."""
    for context in contexts[:60]:
        slots = {e.channel: [s.start for s in e.slots] for e in find_eligible(context, RULES).eligible}
        for offer in find_offers(context, RULES, "now")[1:]:
            assert offer.action.send_time == slots[offer.action.channel][0]
        for offer in find_offers(context, RULES, "daytime")[1:]:
            assert offer.action.send_time is not None
            where = zone(context.customer.time_zone)
            hours = [moment.astimezone(where).hour for moment in slots[offer.action.channel]]
            has_day = any(10 <= hour < 19 for hour in hours)
            assert offer.action.send_time in slots[offer.action.channel]
            assert (10 <= offer.action.send_time.astimezone(where).hour < 19) == has_day
        assert {*find_offers(context, RULES, "now"), *find_offers(context, RULES, "daytime")} == {
            *find_offers(context, RULES, "both")
        }


def reward_of(context: Context, *kinds: OutcomeType, clicks: Clicks | None = None) -> list[float]:
    """Return the rewards of a send for 5 roubles after outcomes, at once and after the window."""
    ledger = Ledger(RULES, clicks)
    offers = (NOTHING, Offer(action=Action(channel="sms", send_time=context.decide_time), price=5.0))
    ledger.open(Pending(context=context, offers=offers, place=1, propensity=0.5))
    for kind in kinds:
        ledger.observe(outcome(context, kind, 700_000_000 if kind == "order" else None))
    times = (context.decide_time + timedelta(hours=2), context.decide_time + WINDOW)
    return [lesson.reward for time in times for lesson in ledger.close(time)]


def test_the_reward_is_margin_less_price_less_harm(contexts: Sequence[Context]) -> None:
    """An order pays its margin, an unsubscribe costs its harm, silence the price alone, and what was not sent is no lesson."""
    context = contexts[0]

    assert reward_of(context, "sent", "seen", "clicked", "order") == [695.0]
    assert reward_of(context, "unsubscribe") == [-125.0]
    assert reward_of(context, "sent", "seen") == [-5.0]
    assert reward_of(context, "not_sent") == []


def test_silence_is_told_when_the_window_closes(contexts: Sequence[Context]) -> None:
    """Before the window has closed nothing is learned of a send that nobody answered."""
    context = contexts[0]
    ledger = Ledger(RULES)
    ledger.open(Pending(context=context, offers=(NOTHING,), place=0, propensity=1.0))

    assert ledger.close(context.decide_time + WINDOW - timedelta(hours=1)) == []
    assert [lesson.reward for lesson in ledger.close(context.decide_time + WINDOW)] == [0.0]


def test_an_order_without_a_click_pays_nobody(contexts: Sequence[Context]) -> None:
    """An order that the world reports for no step leaves the reward as it was."""
    context = contexts[0]

    assert reward_of(replace(context, step=0), "order") == [695.0]
    ledger = Ledger(RULES)
    ledger.open(Pending(context=context, offers=(NOTHING,), place=0, propensity=1.0))
    ledger.observe(outcome(replace(context, step=0), "order", 700_000_000))
    assert [lesson.reward for lesson in ledger.close(context.decide_time + WINDOW)] == [0.0]


def test_taught_by_clicks_a_click_pays_what_orders_make_it_worth(contexts: Sequence[Context]) -> None:
    """A click pays the margin by the share of clicks that an order followed; that share then grows with each order seen."""
    context = contexts[0]
    kind, margin = context.message.kind, context.message.order_margin_micros / 1e6
    clicks = Clicks()
    for is_order in (*[False] * 90, *[True] * 29):
        clicks.add(kind, is_order=is_order)
    share = clicks.share(kind)

    assert share == pytest.approx((29 + 10 * 30 / 100) / 100)
    assert reward_of(context, "clicked", "order", clicks=clicks) == [pytest.approx(margin * share - 5)]
    assert clicks.share(kind) > share


def test_the_log_is_learned_with_its_own_propensities() -> None:
    """Each logged decision is one lesson, of the logged action with the logged propensity, however few offers the rival has."""
    world = small_world(150, seed=5)
    log = world.run(Uniform(world.rules))

    lessons = lessons_of_log(log, world.rules, "now")

    not_sent = {(o.decision_id, o.step) for o in log.outcomes if o.type == "not_sent"}
    steps = {s.context.decision_id: s for s in log.steps if (s.context.decision_id, s.context.step) not in not_sent}
    assert len(lessons) == len(steps)
    for lesson in lessons:
        step = steps[lesson.decision.context.decision_id]
        assert lesson.decision.offer.action == step.reply.action
        assert lesson.decision.propensity == step.reply.propensity
    orders = {o.decision_id for o in log.outcomes if o.type == "order" and o.step > 0}
    paid = {lesson.decision.context.decision_id for lesson in lessons if lesson.reward > 100}
    assert paid == orders


def test_a_log_says_what_clicks_are_worth() -> None:
    """Counted over a log, the share of all kinds lies between the smallest and greatest of single kinds."""
    world = small_world(600, seed=5)
    log = world.run(Uniform(world.rules, steps=3))

    clicks = clicks_of_log(log)

    kinds = {step.context.message.kind for step in log.steps}
    shares = [clicks.share(kind) for kind in kinds]
    assert 0 < min(shares) < max(shares) < 1


def test_numbers_are_scaled_by_what_was_seen() -> None:
    """A number becomes its standardised logarithm and its part; categories become names; what is missing has no term."""
    encoding = Encoding(({"views": float(n), "kind": "cart"} for n in range(100)), parts=5)

    low, high = encoding.terms({"views": 0.0}), encoding.terms({"views": 99.0, "kind": "cart"})

    assert low["views"] < 0 < high["views"]
    assert "views#0" in low
    assert "views#4" in high
    assert high["kind=cart"] == 1.0
    assert set(low) == {"views", "views#0"}
    assert np.isfinite(encoding.terms({"unseen": 1e9})["unseen"])


def test_a_rival_of_three_steps_is_asked_again(contexts: Sequence[Context]) -> None:
    """With three steps a send names when to ask again, after the rules' wait, and the third names none."""
    rival = Rival(LEARNERS["LinUCB"](), RULES, steps=3)

    for context in contexts[:50]:
        reply = rival.decide(context)
        if reply.action.send_time is not None:
            assert reply.ask_time == reply.action.send_time + RULES.channels[reply.action.channel].wait
        assert rival.decide(replace(context, step=3)).ask_time is None
        assert rival.decide(replace(context, step=4)).action.send_time is None
