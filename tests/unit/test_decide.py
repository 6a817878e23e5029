"""One decision, from its context to the action served."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.booster import Booster, BoosterError
from models.bundle import Bundle
from models.context import CascadeEnd, Context, DegradedCause, Mode, Reason, Verdict
from models.decide import Decision, decide, decide_each, end_cascade, is_held_out, make_seed
from models.eligibility import find_eligible
from models.features import NO_SEND, Action
from models.record import choice_to_json, pack_actions
from models.rules import Cap, Category, Holdout, PolicyName, Rules
from tests.unit.examples import (
    CONTEXT,
    CUSTOMER,
    DAY,
    HOUR,
    NOW,
    RUBLE,
    RULES,
    at,
    bundle_of,
    contact,
    option,
    with_channels,
    with_contacts,
    with_message,
)
from tests.unit.funnels import funnel
from tests.unit.strategies import some_requests

AWAKE = replace(RULES, quiet_hours=None)
NIGHT_TIME = datetime(2026, 11, 4, 20, tzinfo=UTC)
MORNING = datetime(2026, 11, 5, 6, tzinfo=UTC)
BUNDLE = bundle_of({"push": 0.02, "email": 0.03, "in_app": 0.015, "viber": 0.05, "sms": 0.06})
EVERY_CHANCE = st.floats(0.0001, 0.9999)


def share(decision: Decision, channel: str) -> float:
    """Return the probability of a channel over all its slots."""
    found = decision.distribution
    assert found is not None
    return float(sum(p for a, p in zip(found.table.actions, found.probabilities, strict=True) if a.channel == channel))


def written(decision: Decision) -> tuple[str, bytes | None]:
    return choice_to_json(decision.choice), pack_actions(decision)


def some_bundles() -> st.SearchStrategy[Bundle]:
    channels = ("none", *RULES.channels)
    return st.builds(
        lambda chances, rates: bundle_of(chances, unsubscribe_rates=rates),
        st.fixed_dictionaries(dict.fromkeys(channels, EVERY_CHANCE)),
        st.fixed_dictionaries(dict.fromkeys(channels, st.floats(0, 1))),
    )


# --- holdout ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [0.02, 0.3])
def test_holdout_has_its_share(held: float) -> None:
    """Of 50,000 customers the share held out is within 4.5 standard deviations of the binomial."""
    n = 50_000
    rules = replace(RULES, holdout=Holdout(share=held, salt="s"))

    count = sum(is_held_out(f"customer-{number}", rules) for number in range(n))

    assert abs(count - n * held) < 4.5 * (n * held * (1 - held)) ** 0.5


def test_holdout_of_another_salt_is_independent() -> None:
    """Two salts hold out the customers of both as often as chance does, within 4.5 standard deviations at 50,000."""
    n, held = 50_000, 0.3
    one, other = (replace(RULES, holdout=Holdout(share=held, salt=salt)) for salt in ("a", "b"))

    both = sum(is_held_out(str(number), one) and is_held_out(str(number), other) for number in range(n))

    assert abs(both - n * held**2) < 4.5 * (n * held**2 * (1 - held**2)) ** 0.5


def test_larger_holdout_keeps_those_already_in_it() -> None:
    """Raising the share adds customers to the holdout and lets none out."""
    small, large = (replace(RULES, holdout=Holdout(share=held, salt="s")) for held in (0.1, 0.2))

    assert all(is_held_out(str(n), large) for n in range(5_000) if is_held_out(str(n), small))


@given(key=st.text())
def test_holdout_of_none_and_of_all(key: str) -> None:
    """A share of 0 holds out nobody and a share of 1 everybody."""
    assert not is_held_out(key, replace(RULES, holdout=Holdout(share=0.0, salt="s")))
    assert is_held_out(key, replace(RULES, holdout=Holdout(share=1.0, salt="s")))


def test_held_out_customer_gets_no_marketing() -> None:
    """A held-out customer's marketing ends as HOLDOUT, without a distribution, and may be learned from."""
    rules = replace(RULES, holdout=Holdout(share=1.0, salt="s"))

    decision = decide(CONTEXT, rules, BUNDLE)

    assert decision.choice.verdict is Verdict.HOLDOUT
    assert decision.distribution is None
    assert decision.choice.trainable
    assert (decision.choice.bundle_version, decision.choice.rules_name) == ("scripted-1", rules.name)


@pytest.mark.parametrize("category", ["service", "transactional"])
def test_held_out_customer_gets_what_is_owed(category: Category) -> None:
    """The holdout is of marketing alone."""
    rules = replace(RULES, holdout=Holdout(share=1.0, salt="s"))

    assert decide(with_message(category=category), rules, BUNDLE).choice.verdict is Verdict.SEND


# --- nothing eligible -----------------------------------------------------------------------------------------------------------


def test_wait_for_the_morning_is_deferred() -> None:
    """Where the night alone is in the way and outlasts the horizon, the decision is to ask again in the morning."""
    brief = replace(RULES, timing=replace(RULES.timing, horizon_hours=2))

    choice = decide(with_channels("push", context=at(NIGHT_TIME)), brief, BUNDLE).choice

    assert (choice.verdict, choice.retry_time) == (Verdict.DEFER, MORNING)
    assert choice.propensity == 1.0


def test_wait_is_until_the_first_channel_is_free() -> None:
    """Of several channels that wait, the first to be free sets when to ask again."""
    caps = (
        Cap(name="push", channel="push", limit=1, window_hours=72),
        Cap(name="sms", channel="sms", limit=1, window_hours=100),
    )
    context = with_contacts(contact(NOW, channel="push"), contact(NOW, channel="sms"))
    long = replace(context, message=replace(context.message, expire_time=NOW + 30 * DAY))

    choice = decide(with_channels("push", "sms", context=long), replace(AWAKE, caps=caps), BUNDLE).choice

    assert (choice.verdict, choice.retry_time) == (Verdict.DEFER, NOW + 3 * DAY)


def test_channel_that_time_does_not_free_is_not_waited_for() -> None:
    """A channel that cannot be used at all sets no time to ask again, whatever else holds it back."""
    unfit = replace(option("push"), has_consent=False)
    context = replace(CONTEXT, options=(unfit,))

    choice = decide(context, RULES, BUNDLE).choice

    assert (choice.verdict, choice.retry_time) == (Verdict.DO_NOT_SEND, None)


def test_message_that_expires_at_night_is_not_sent() -> None:
    """Where the morning comes after the expiry there is nothing to wait for."""
    context = at(NIGHT_TIME)
    context = replace(context, message=replace(context.message, expire_time=MORNING))

    choice = decide(with_channels("push", context=context), RULES, BUNDLE).choice

    assert (choice.verdict, choice.retry_time) == (Verdict.DO_NOT_SEND, None)
    assert Reason.EXPIRES_FIRST in {s.reason for s in choice.suppressed}


@pytest.mark.parametrize("bundle", [BUNDLE, None])
def test_request_without_channels_is_not_sent(bundle: Bundle | None) -> None:
    """A request without channels has a verdict like any other."""
    choice = decide(replace(CONTEXT, options=()), RULES, bundle).choice

    assert (choice.verdict, choice.suppressed, choice.cascade_end) == (Verdict.DO_NOT_SEND, (), None)


def test_later_step_without_channels_ends_the_cascade() -> None:
    """A later step with nothing left to use ends the cascade; one that only waits does not."""
    spent = replace(with_channels("push"), step=2, tried=("push",))
    brief = replace(RULES, timing=replace(RULES.timing, horizon_hours=2))
    waiting = replace(with_channels("push", context=at(NIGHT_TIME)), step=2)

    assert decide(spent, RULES, BUNDLE).choice.cascade_end is CascadeEnd.NO_STEP_LEFT
    assert decide(waiting, brief, BUNDLE).choice.cascade_end is None
    assert decide(waiting, brief, BUNDLE).choice.verdict is Verdict.DEFER


# --- choosing -----------------------------------------------------------------------------------------------------------------


def test_best_action_is_drawn_most() -> None:
    """The channel that earns most has nearly all probability, the others and no send their floors."""
    rules = replace(AWAKE, timing=replace(AWAKE.timing, horizon_hours=1))

    decision = decide(CONTEXT, rules, BUNDLE)

    assert share(decision, "sms") == pytest.approx(0.95)
    assert share(decision, NO_SEND) == share(decision, "push") == pytest.approx(0.01)


def test_action_that_does_harm_is_outdone_by_no_send() -> None:
    """Where every send costs more in unsubscriptions than it earns, no send is the best action."""
    rules = replace(AWAKE, harm=replace(AWAKE.harm, unsubscribe=10_000 * RUBLE))
    feared = bundle_of({"push": 0.02}, unsubscribe_rates={"push": 0.5})

    decision = decide(with_channels("push"), rules, feared)

    assert share(decision, NO_SEND) > 0.89


def test_no_send_that_is_drawn_is_a_verdict() -> None:
    """Where no send is drawn, the verdict is DO_NOT_SEND with the propensity of no send; a later step ends there."""
    context = with_message(with_channels("push"), margin=0)
    useless = bundle_of({"push": 0.001})
    drawn = [decide(replace(context, seed=seed), AWAKE, useless).choice for seed in range(50)]

    no_send = next(c for c in drawn if c.verdict is Verdict.DO_NOT_SEND)
    later = next(
        d
        for d in (decide(replace(context, seed=seed, step=2), AWAKE, useless).choice for seed in range(50))
        if d.verdict is Verdict.DO_NOT_SEND
    )

    assert no_send.action == Action(channel=NO_SEND)
    assert (no_send.slot, no_send.steps, no_send.cascade_end) == (None, (), None)
    assert later.cascade_end is CascadeEnd.NO_STEP_LEFT


@pytest.mark.parametrize("price", [1, 5 * RUBLE, 10**15])
def test_without_margin_a_paid_channel_is_never_sent(price: int) -> None:
    """Where an order earns nothing, a channel with a price has no probability at all, and the answer says why."""
    context = with_message(
        replace(CONTEXT, options=(option("push"), option("sms", price_override_micros=price))), margin=0
    )

    decision = decide(context, AWAKE, BUNDLE)

    assert share(decision, "sms") == 0
    assert [(s.channel, s.reason) for s in decision.choice.suppressed] == [("sms", Reason.PRICE_ABOVE_VALUE)]


@pytest.mark.parametrize("bundle", [BUNDLE, None])
@pytest.mark.parametrize("channels", [("sms", "viber"), ("push", "sms")])
def test_without_margin_nothing_with_a_price_is_sent_by_any_policy(
    bundle: Bundle | None, channels: tuple[str, ...]
) -> None:
    """A message that earns nothing costs nothing, with a bundle and without."""
    decision = decide(with_message(with_channels(*channels), margin=0), AWAKE, bundle)

    assert decision.choice.price_micros == 0
    assert share(decision, "sms") == share(decision, "viber") == 0


def test_price_given_for_a_free_channel_counts() -> None:
    """A free channel that a request puts a price on is too dear like any other."""
    context = replace(CONTEXT, options=(option("push"), option("email", price_override_micros=10**15)))

    decision = decide(context, AWAKE, BUNDLE)

    assert [(s.channel, s.reason) for s in decision.choice.suppressed] == [("email", Reason.PRICE_ABOVE_VALUE)]


def test_channel_that_waits_for_free_ones_says_what_it_would_earn_and_cost() -> None:
    """Where free channels go strictly first, a paid one is suppressed with its money, and planned for later."""
    strict = replace(AWAKE, policy=replace(AWAKE.policy, free_first="strict"))
    context = with_channels("push", "sms")

    choice = decide(context, strict, bundle_of({"push": 0.02, "sms": 0.06})).choice

    (waiting,) = choice.suppressed
    assert (waiting.channel, waiting.reason) == ("sms", Reason.FREE_CHANNEL_UNTRIED)
    assert "it would add 50.00 and cost 5.30" in waiting.detail
    assert [step.channel for step in choice.steps] == ["push", "sms"]


def test_paid_channel_is_dear_from_its_optimistic_value() -> None:
    """A paid channel is taken out where its price reaches the optimism times what it adds."""
    context = replace(CONTEXT, options=(option("push"),))
    adds = 50 * RUBLE

    def is_kept(price: int) -> bool:
        with_sms = replace(context, options=(option("push"), option("sms", price_override_micros=price)))
        return share(decide(with_sms, AWAKE, BUNDLE), "sms") > 0

    assert is_kept(3 * adds - RUBLE)
    assert not is_kept(3 * adds + RUBLE)


def test_only_paid_channels_too_dear_leave_no_send() -> None:
    """Where the only channels cost more than they are worth, no send is certain."""
    choice = decide(with_message(with_channels("sms", "viber"), margin=0), AWAKE, BUNDLE).choice

    assert (choice.verdict, choice.propensity) == (Verdict.DO_NOT_SEND, 1.0)
    assert [s.reason for s in choice.suppressed] == [Reason.PRICE_ABOVE_VALUE] * 2


@given(
    bundle=some_bundles(),
    prices=st.tuples(st.integers(0, 200 * RUBLE), st.integers(0, 200 * RUBLE)),
    margin=st.integers(0, 10_000 * RUBLE),
    half_life=st.none() | st.floats(60, 10**6),
    floor=st.sampled_from([0.001, 0.02, 0.1]),
)
def test_dearer_channel_never_has_a_greater_share(
    bundle: Bundle, prices: tuple[int, int], margin: int, half_life: float | None, floor: float
) -> None:
    """Raising the price of one channel never raises its probability, dear slots that fall away among them."""
    message = replace(CONTEXT.message, order_margin_micros=margin, relevance_half_life_seconds=half_life)
    rules = replace(AWAKE, policy=replace(AWAKE.policy, exploration_floor=floor))

    def share_at(price: int) -> float:
        options = (option("push"), option("viber"), option("sms", price_override_micros=price))
        return share(decide(replace(CONTEXT, message=message, options=options), rules, bundle), "sms")

    assert share_at(max(prices)) <= share_at(min(prices)) + 1e-12


@pytest.mark.parametrize("name", get_args(PolicyName))
@given(
    request_and_rules=some_requests(),
    bundle=some_bundles(),
    seed=st.integers(0, 2**63 - 1),
    budget=st.sampled_from([RUBLE, 1_000 * RUBLE, 10**12]),
)
def test_every_policy_chooses_what_is_eligible_within_its_budget(
    name: PolicyName, request_and_rules: tuple[Context, Rules], bundle: Bundle, seed: int, budget: int
) -> None:
    """Whatever policy the rules name, a send is of an eligible slot, has its logged propensity, and exploring keeps the budget."""
    context, rules = request_and_rules
    rules = replace(rules, policy=replace(rules.policy, name=name, exploration_budget=budget))
    context = with_message(replace(context, seed=seed), category="marketing")

    decision = decide(context, rules, bundle)

    choice, found = decision.choice, decision.distribution
    assert 0 <= choice.exploration_cost_micros <= budget / 1000 * (1 + 1e-9)
    if found is None:
        return
    assert choice.policy == name
    assert choice.action in found.table.actions
    assert 0 < choice.propensity == found.probabilities[found.table.actions.index(choice.action)]
    if choice.slot is not None:
        eligible = {c.channel: c for c in find_eligible(context, rules).eligible}
        assert choice.slot in eligible[choice.action.channel].slots


def test_cost_of_exploring_is_what_the_distribution_is_expected_to_lose() -> None:
    """A choice says how much less than the best action its distribution is expected to earn."""
    rules = replace(AWAKE, policy=replace(AWAKE.policy, paid_caution=0.0))

    decision = decide(CONTEXT, rules, BUNDLE)

    found = decision.distribution
    assert found is not None
    lost = found.table.plan_micros.max() - float(found.probabilities @ found.table.plan_micros)
    assert decision.choice.exploration_cost_micros == pytest.approx(lost)
    assert lost > 0


def test_rules_that_decide_without_a_bundle_explore_nothing() -> None:
    """Where the order of the rules decides there is no exploration, and it costs nothing."""
    assert decide(CONTEXT, AWAKE, None).choice.exploration_cost_micros == 0


# --- owed messages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("category", ["service", "transactional"])
@pytest.mark.parametrize("channels", [("push", "sms"), ("sms",), ("sms", "viber")])
def test_owed_message_is_sent_by_the_order_of_the_rules(category: Category, channels: tuple[str, ...]) -> None:
    """A message that is owed goes through the first eligible channel of the order, even at a loss and without a margin."""
    rules = replace(AWAKE, harm=replace(AWAKE.harm, unsubscribe=10**9))
    context = with_message(with_channels(*channels), category=category, margin=0)

    choice = decide(context, rules, bundle_of({}, unsubscribe_rates={"sms": 1.0})).choice

    expected = min(channels, key=RULES.cascade.order.index)
    assert choice.action == Action(channel=expected, send_time=NOW)
    assert (choice.verdict, choice.propensity, choice.policy) == (Verdict.SEND, 1.0, "rule_cascade")
    assert choice.degraded == ()


@given(request_and_rules=some_requests(), bundle=st.none() | some_bundles())
def test_owed_message_is_sent_wherever_it_may_be(
    request_and_rules: tuple[Context, Rules], bundle: Bundle | None
) -> None:
    """Where any channel is eligible, a message that is owed is sent."""
    context, rules = request_and_rules
    context = with_message(context, category="transactional", margin=0)

    decision = decide(context, rules, bundle)

    may_be_sent = bool(find_eligible(context, rules).eligible)
    assert (decision.choice.verdict is Verdict.SEND) is may_be_sent


def test_customers_with_response_curves_who_are_decided_together_are_decided_as_alone() -> None:
    """Curves of customers with other channels, zones and earlier sends are drawn together, and each gets the decision to the byte that they would get alone."""
    bundle = bundle_of({}).with_funnel(funnel(order_interest=0.5))
    contexts = [
        with_channels(*channels, context=replace(CONTEXT, seed=number, customer=replace(CUSTOMER, time_zone=zone)))
        for number, (channels, zone) in enumerate(
            itertools.product([("push", "email"), ("push", "email", "sms"), ("push",)], ["UTC", "Asia/Tokyo"])
        )
    ]
    earlier = contact(NOW - HOUR, channel="push", decision_id=CONTEXT.decision_id)
    contexts.append(replace(with_contacts(earlier, context=contexts[2]), step=2))

    together = decide_each(contexts, AWAKE, bundle)

    assert [written(decision) for decision in together] == [written(decide(c, AWAKE, bundle)) for c in contexts]
    assert len({decision.choice.forecast for decision in together}) > 1


# --- degraded -----------------------------------------------------------------------------------------------------------------


def test_rows_that_the_bundle_cannot_score_are_nobody_elses_affair() -> None:
    """Where those of one customer are refused, others who are decided with them have the model's decision."""
    contexts = [with_channels("push"), with_channels("email")]
    bundle = bundle_of({"push": 0.3, "email": 0.3})
    email = next(column.categories for column in bundle.description.columns).index("email")

    class Picky:
        def raw_scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
            if (matrix == email).any():
                raise BoosterError("no mail")
            return np.zeros(len(matrix))

    picky = Bundle("picky", "picky-1", bundle.description, cast(Booster, Picky()))

    scored, refused = decide_each(contexts, AWAKE, picky)

    assert scored.choice.degraded == ()
    assert [d.cause for d in refused.choice.degraded] == [DegradedCause.SCORING_FAILED]


def test_without_a_bundle_the_rules_decide() -> None:
    """Without a bundle the first eligible channel of the order is sent, and the answer says what was missing."""
    choice = decide(with_channels("email", "push", "sms"), AWAKE, None).choice

    assert choice.action == Action(channel="push", send_time=NOW)
    assert [d.cause for d in choice.degraded] == [DegradedCause.NO_BUNDLE]
    assert (choice.policy, choice.propensity, choice.bundle_version) == ("rule_cascade", 1.0, "")
    assert [step.channel for step in choice.steps] == ["push", "email", "sms"]


def test_bundle_that_cannot_score_is_done_without() -> None:
    """Where the booster refuses the rows the rules decide, and the answer has the booster's words."""
    choice = decide(with_channels("push"), AWAKE, bundle_of({}, failure="bad rows")).choice

    assert choice.verdict is Verdict.SEND
    (degraded,) = choice.degraded
    assert degraded.cause is DegradedCause.SCORING_FAILED
    assert "bad rows" in degraded.detail
    assert choice.bundle_version == "scripted-1"


def test_channel_that_the_bundle_does_not_know_has_the_rate_of_the_rules() -> None:
    """A channel without an unsubscribe rate in the bundle has the rules file's."""
    bundle = bundle_of({})
    bare = Bundle("b", "b-1", replace(bundle.description, unsubscribe_rates={}), bundle._booster)

    found = decide(with_channels("push"), AWAKE, bare).distribution

    assert found is not None
    assert found.table.p_unsubscribe[1:].tolist() == [0.002] * (len(found.table) - 1)


# --- what always holds --------------------------------------------------------------------------------------------------------


@given(request_and_rules=some_requests(), bundle=st.none() | some_bundles(), seed=st.integers(0, 2**63 - 1))
def test_decision_is_consistent(request_and_rules: tuple[Context, Rules], bundle: Bundle | None, seed: int) -> None:
    """Every decision has one verdict; a send is of an eligible slot with its own price, and its propensity is the logged one."""
    context, rules = request_and_rules
    context = replace(context, seed=seed)

    decision = decide(context, rules, bundle)

    choice, found = decision.choice, decision.distribution
    eligible = {c.channel: c for c in find_eligible(context, rules).eligible}
    assert (choice.verdict is Verdict.DEFER) == (choice.retry_time is not None)
    assert (choice.verdict is Verdict.SEND) == (choice.slot is not None) == bool(choice.steps)
    if found is None:
        assert not eligible
        return
    assert found.probabilities.sum() == pytest.approx(1.0, abs=1e-12)
    assert choice.action in found.table.actions
    index = found.table.actions.index(choice.action)
    assert 0 < choice.propensity == found.probabilities[index] <= 1
    assert np.isfinite(found.table.net_micros).all()
    assert {a.channel for a in found.table.actions} <= {*eligible, NO_SEND}
    if choice.slot is not None:
        channel = eligible[choice.action.channel]
        assert choice.slot in channel.slots
        assert choice.price_micros == channel.price_micros
        assert choice.slot.start == choice.action.send_time == choice.steps[0].not_before
        assert all(step.not_before < context.message.expire_time for step in choice.steps)


@given(request_and_rules=some_requests(), bundle=st.none() | some_bundles(), seed=st.integers(0, 2**63 - 1))
def test_same_context_is_decided_the_same(
    request_and_rules: tuple[Context, Rules], bundle: Bundle | None, seed: int
) -> None:
    """Context, rules and bundle make a decision alone, to the bit."""
    context, rules = request_and_rules
    context = replace(context, seed=seed)

    assert written(decide(context, rules, bundle)) == written(decide(context, rules, bundle))


def test_decision_does_not_depend_on_those_before_it() -> None:
    """A decision in between, for another customer, changes nothing in the next one for this customer."""
    first = written(decide(CONTEXT, AWAKE, BUNDLE))

    decide(replace(at(NOW + HOUR), seed=99, customer=replace(CONTEXT.customer, key="other")), AWAKE, BUNDLE)

    assert written(decide(CONTEXT, AWAKE, BUNDLE)) == first


def test_served_actions_are_as_frequent_as_their_propensities() -> None:
    """Over 4,000 requests each channel is served as often as its propensity says, within 4.5 standard deviations."""
    n = 4_000
    rules = replace(
        AWAKE,
        policy=replace(AWAKE.policy, exploration_floor=0.1, exploration_limit=0.5),
        timing=replace(AWAKE.timing, horizon_hours=1),
    )
    context = with_channels("push", "email", "sms")
    decisions = [decide(replace(context, seed=make_seed(f"r{number}", 1)), rules, BUNDLE) for number in range(n)]

    for channel in (NO_SEND, "push", "email", "sms"):
        chance = share(decisions[0], channel)
        count = sum(d.choice.action is not None and d.choice.action.channel == channel for d in decisions)
        assert abs(count - n * chance) < 4.5 * (n * chance * (1 - chance)) ** 0.5


@pytest.mark.parametrize(("mode", "trainable"), [(Mode.LIVE, True), (Mode.SHADOW, False), (Mode.DRY_RUN, False)])
@pytest.mark.parametrize("held", [0.0, 1.0])
def test_only_live_decisions_are_learned_from(mode: Mode, trainable: bool, held: float) -> None:
    """A decision that is not live is not trainable, of the holdout or not; which action is drawn does not depend on it."""
    rules = replace(AWAKE, holdout=Holdout(share=held, salt="s"))

    choice = decide(replace(CONTEXT, mode=mode), rules, BUNDLE).choice

    assert choice.trainable is trainable
    assert replace(choice, trainable=True) == decide(CONTEXT, rules, BUNDLE).choice


def test_ended_cascade_sends_nothing_and_teaches_nothing() -> None:
    """The decision that ends a cascade has a verdict and its end, and no propensity to learn from."""
    decision = end_cascade(CONTEXT, RULES, CascadeEnd.ORDERED)

    assert decision.choice.verdict is Verdict.DO_NOT_SEND
    assert decision.choice.cascade_end is CascadeEnd.ORDERED
    assert not decision.choice.trainable
    assert decision.distribution is None


@given(request_id=st.text(max_size=20), step=st.integers(1, 5))
def test_seed_is_of_the_request_and_its_step(request_id: str, step: int) -> None:
    """A seed is a 63-bit number that depends on request and step."""
    seed = make_seed(request_id, step)

    assert 0 <= seed < 2**63
    assert seed == make_seed(request_id, step)
    assert seed != make_seed(request_id, step + 1)


def test_message_decided_a_microsecond_before_its_expiry_may_still_be_sent() -> None:
    """A channel is eligible up to the last microsecond of a message."""
    context = replace(CONTEXT, decide_time=CONTEXT.message.expire_time - timedelta(microseconds=1))
    context = with_message(context, category="transactional")

    choice = decide(context, RULES, None).choice

    assert choice.slot is not None
    assert choice.slot.start < choice.slot.end == context.message.expire_time


# --- many at a time -----------------------------------------------------------------------------------------------------------


@given(
    request_and_rules=some_requests(),
    bundle=some_bundles(),
    margins=st.lists(st.integers(0, 2000), min_size=1, max_size=6),
    policy=st.sampled_from(get_args(PolicyName)),
)
def test_customers_who_are_decided_together_are_decided_as_alone(
    request_and_rules: tuple[Context, Rules], bundle: Bundle, margins: list[int], policy: PolicyName
) -> None:
    """What customers have in common is worked out once, and each gets the decision to the byte that they would get alone, in whatever company."""
    context, rules = request_and_rules
    rules = replace(rules, policy=replace(rules.policy, name=policy))
    message = context.message
    contexts = [
        replace(
            context,
            seed=number,
            customer=replace(context.customer, key=f"{number:032x}", contacts=context.customer.contacts[: number % 3]),
            message=replace(message, order_margin_micros=margin * RUBLE),
        )
        for number, margin in enumerate(margins)
    ]

    together = decide_each(contexts, rules, bundle)

    assert [written(decision) for decision in together] == [written(decide(c, rules, bundle)) for c in contexts]
